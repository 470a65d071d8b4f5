"""Faces in doubt in whole runs: when they are looked at, with how much memory, and when looks fail.

Real HTTP against the stand-in, real files, a real ledger.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from archive import GROUP, Archive, let_nobody_look
from moved_clock import MovedClock, standin

from enroll.commands import run_opening
from enroll.commands.resolve import ResolveSettings, resolve
from enroll.commands.run import Screen
from enroll.errors import ExitCode, LocalError
from enroll.facesearch import Call, client
from enroll.ledger import read_ledger
from enroll.ledger.writer import SqlLedger
from enroll.model import CallKind, Candidate, Credentials, Photo, Status
from enroll.report.summary import summary_lines
from enroll.runner import reconcile, reconcile_rules
from enroll.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("moved_clock")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with standin(detect=False) as box:
        box.create_library(GROUP)
        yield Archive(tmp_path, box)


@pytest.fixture
def _searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every library is too large to be listed whole."""
    monkeypatch.setattr(reconcile, "LIST_PAGE", 1)


def doubted(archive: Archive, *numbers: int) -> None:
    """People whose faces were added, and of whom the ledger does not know it."""
    archive.people(*numbers)
    archive.run()
    for number in numbers:
        archive.doubt(f"u{number}")


def test_a_killed_run_is_reckoned_with_by_the_clock_of_its_own_service(archive: Archive) -> None:
    # `resolve --offline` asks nobody what time it is, and is what finds the killed run's calls.
    archive.box.clock_skew = 600.0
    archive.people(1, 2)
    archive.run()
    archive.doubt("u2")
    archive.record(replace(archive.face("u1"), status=Status.SENDING, face_token=None))
    resolve(ResolveSettings(ledger=archive.ledger, user_id="u2", token=None), None)
    found = archive.face("u1")
    assert found.status is Status.IN_DOUBT
    assert found.expires is not None
    # The call's own five seconds and a margin from now, on a clock that is ten minutes ahead.
    assert 600 < found.expires - time.time() < 660


@pytest.fixture
def _only_new_objects() -> Iterator[None]:
    """`gc.get_objects` leaves out what is in memory before the test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Counting(ThreadPoolExecutor):
    """Looks how many photos are in memory whenever a task is handed out."""

    most = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        photos = sum(isinstance(one, Photo) for one in gc.get_objects())
        Counting.most = max(Counting.most, photos)
        return super().submit(fn, *args, **named)


@pytest.mark.usefixtures("_searched", "_only_new_objects")
def test_no_more_photos_are_in_memory_for_searches_than_calls_may_be_in_flight(
    archive: Archive,
) -> None:
    archive.people(0)
    archive.run()
    doubted(archive, *range(1, 13))
    archive.rows.clear()  # else photos are read for the manifest's rows, too
    # The first search is for the control.
    archive.box.script([None, "500-before", "not-json", "refused", "500-before"], call="search")
    for number in (3, 4):
        (archive.folder / f"{number}.jpg").unlink()
    archive.box.latency = 0.02
    gc.collect()
    Counting.most = 0
    report = archive.run(pool=Counting, max_in_flight=2)
    # The two whose photos are gone cannot be searched for, and nothing else is known of them.
    assert report.ended.tally.adopted == 10
    assert {face.status for number in (3, 4) for face in archive.faces(f"u{number}")} == {
        Status.IN_DOUBT
    }
    # One for each place, and one that each place's thread has used and is about to let go of.
    assert 1 <= Counting.most <= 2 * 2


@pytest.mark.usefixtures("_only_new_objects")
def test_photos_that_wait_for_a_service_that_is_away_do_not_pile_up(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TRYING_SECONDS", 0.01)
    archive.people(*range(80))
    gc.collect()
    Counting.most = 0
    report = archive.run(
        screen=PullThePlug(archive.box, 1),
        pool=Counting,
        max_in_flight=2,
        readers=2,
        give_up_after=2,
    )
    assert report.exit_code is ExitCode.UNREACHED
    # Read ahead or waiting: one for each place and each reader. Beside them those whose intent is
    # on its way to the disk, those in flight, and one that each place's thread is about to let go.
    assert 1 <= Counting.most <= (2 + 2) + 2 + 2 + 2


def test_one_list_that_fails_is_asked_for_again(archive: Archive) -> None:
    doubted(archive, 1, 2)
    archive.box.script(["502-before"], call="list")
    before = archive.box.count("list")
    report = archive.run(allow_nonempty=True)
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 2)
    assert archive.box.count("list") == before + 2
    assert archive.box.count("add") == 2


class Rotated(Credentials):
    """Credentials that equal no others, and are as good: what an exchange looks like from here."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@pytest.mark.parametrize("call", ["list", "search"])
def test_a_look_that_is_refused_for_its_signature_is_made_again_with_new_credentials(
    archive: Archive, call: str
) -> None:
    archive.people(5)
    archive.run()
    doubted(archive, 1)
    archive.box.script(["auth"], call=call)
    read = [0]

    def credentials() -> Credentials:
        read[0] += 1
        return Rotated(archive.box.api_key, archive.box.api_secret)

    report = archive.run(read=credentials)
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 1)
    assert read[0] == 2
    assert archive.box.count("add") == 2


class Together(Executor):
    """Carries calls out at once, and holds the first ones' answers that refuse a signature until
    there are so many."""

    def __init__(self, refused: int, *, backwards: bool) -> None:
        self.left, self.backwards = refused, backwards
        self.held: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        value = fn(*args, **named)
        if self.left <= 0 or value.code != "AUTHORIZATION_ERROR":
            future.set_result(value)
            return future
        self.held.append(lambda: future.set_result(value))
        self.left -= 1
        if self.left == 0:
            for end in reversed(self.held) if self.backwards else self.held:
                end()
            self.held.clear()
        return future


@pytest.mark.parametrize("look", ["list", "search"])
@pytest.mark.parametrize("backwards", [False, True])
def test_whoever_hears_second_that_the_credentials_were_exchanged_tries_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, look: str, *, backwards: bool
) -> None:
    monkeypatch.setattr(reconcile, "LIST_PAGE", 1000 if look == "list" else 1)
    archive.people(5)
    archive.run()
    doubted(archive, 1)
    archive.people(2, 3, 4, 6)
    # One look, for which the first row is the control, and the adds of the three other rows: all
    # of them left before the exchange.
    archive.box.script(["auth"], call=look)
    archive.box.script([None, *["auth"] * 3], call="add")
    known = [archive.credentials, Rotated(archive.box.api_key, archive.box.api_secret)]
    pools: Iterator[Executor] = iter([Together(4, backwards=backwards), ThreadPoolExecutor(4)])
    report = archive.run(
        pool=lambda workers: next(pools),
        read=lambda: known.pop(0) if len(known) > 1 else known[0],
        allow_nonempty=True,
    )
    assert (report.exit_code, report.ended.stop) == (ExitCode.DONE, None)
    assert report.ended.tally.adopted == 1
    assert archive.box.count("add") == 2 + 1 + 2 * 3


class PullThePlug(Screen):
    """Stops the service when so many rows are done."""

    def __init__(self, box: Sandbox, rows: int) -> None:
        self.box, self.left = box, rows

    def opened(self, archive: run_opening.Destination, interrupt: Callable[[int], None]) -> None:
        if not self.left:
            self.box.stop()

    def finished(self, row: Candidate, status: Status, code: str, message: str) -> None:
        self.left -= 1
        if not self.left:
            self.box.stop()


@pytest.mark.parametrize("rows", [0, 1])
def test_a_service_that_is_away_is_given_up_though_only_doubts_are_left(
    archive: Archive, rows: int
) -> None:
    doubted(archive, 1)
    if rows:
        archive.people(2)
    report = archive.run(screen=PullThePlug(archive.box, rows), give_up_after=1.0)
    assert report.exit_code is ExitCode.UNREACHED
    assert "could not be reached" in (report.ended.bound or "")
    assert report.ended.seconds < 30
    assert archive.face("u1").status is Status.IN_DOUBT


def test_waiting_for_a_look_is_no_outage_however_short_one_may_be(archive: Archive) -> None:
    archive.people(1)
    archive.box.script(["reset-after"], call="add")
    report = archive.run(give_up_after=30.0, settle_after=40.0)
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 1)
    assert report.ended.seconds > 30


@pytest.mark.usefixtures("_searched")
def test_a_search_that_is_refused_for_good_leaves_the_doubt_and_says_what_the_service_said(
    archive: Archive,
) -> None:
    archive.people(5)
    archive.run()
    doubted(archive, 1)
    archive.box.script([None, *["unknown-code"] * 30], call="search")  # the first is the control's
    report = archive.run(max_calls=20)
    assert report.exit_code is ExitCode.IN_DOUBT
    assert "FACE_LEFT_THE_BUILDING: rehearsal" in archive.face("u1").message
    assert archive.face("u1").status is Status.IN_DOUBT


class AtOnce(Executor):
    """Holds calls back until so many were handed out, but for the first of each kind; then all of
    them end at once."""

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.kinds: set[CallKind] = set()
        self.held: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        value = fn(*args, **named)
        assert isinstance(fn, partial)
        kind = fn.args[0].kind if fn.args else CallKind.LIST
        if kind not in self.kinds:
            self.kinds.add(kind)
            future.set_result(value)
            return future
        self.held.append(lambda: future.set_result(value))
        if len(self.held) >= self.calls:
            for end in self.held:
                end()
        return future


def test_a_ledger_that_fails_while_one_answer_is_heard_loses_no_token_of_the_others(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubted(archive, 1)
    token = archive.box.faces(GROUP)[0].face_token
    archive.people(2, 3, 4)
    ask = SqlLedger.holders_of

    def fail(ledger: SqlLedger, face_tokens: list[str]) -> dict[str, int]:
        if token in face_tokens:
            raise LocalError("The disk fails.")
        return ask(ledger, face_tokens)

    monkeypatch.setattr(SqlLedger, "holders_of", fail)
    # A list shows the first face that this run adds; the next one is the look at the doubt.
    pools: Iterator[Executor] = iter([AtOnce(3), ThreadPoolExecutor(4)])
    report = archive.run(pool=lambda workers: next(pools), drain=0.5, allow_nonempty=True)
    assert report.exit_code is ExitCode.LOCAL
    assert [archive.face(f"u{number}").status for number in (2, 3, 4)] == [Status.ENROLLED] * 3
    assert archive.face("u1").status is Status.IN_DOUBT


@pytest.mark.usefixtures("_searched")
def test_a_photo_that_is_away_for_a_run_is_there_for_the_search_of_the_next(
    archive: Archive,
) -> None:
    archive.people(5)
    archive.run()
    doubted(archive, 1)
    photo, away = archive.folder / "1.jpg", archive.folder / "away.jpg"
    photo.rename(away)
    report = archive.run()
    assert report.exit_code is ExitCode.IN_DOUBT
    assert report.ended.tally.statuses[Status.IN_DOUBT] == 1
    away.rename(photo)
    assert archive.run().ended.tally.adopted == 1
    assert archive.box.count("add") == 2


@pytest.mark.usefixtures("_searched")
def test_a_photo_of_which_only_the_metadata_has_changed_serves_for_the_search(
    archive: Archive,
) -> None:
    archive.people(5)
    archive.run()
    doubted(archive, 1)
    photo = archive.folder / "1.jpg"
    whole = photo.read_bytes()
    photo.write_bytes(whole[:2] + b"\xff\xfe\x00\x07hello" + whole[2:])  # a comment
    assert archive.run().ended.tally.adopted == 1
    assert archive.box.count("add") == 2


@pytest.mark.usefixtures("_searched")
def test_a_row_that_breaks_a_rule_while_its_face_is_in_doubt_leads_to_the_photo_still(
    archive: Archive,
) -> None:
    archive.people(5)
    archive.run()
    doubted(archive, 1)
    archive.box.script(["auth"] * 9, call="search")
    archive.rows[1] = ("u1", "too long " * 100, "1.jpg")
    archive.run()
    assert archive.face("u1").status is Status.IN_DOUBT
    with archive.writing() as ledger:
        (paths,) = ledger.paths_of([archive.face("u1").face_id]).values()
    assert [Path(path).name for path in paths] == ["1.jpg"]


def test_a_face_that_is_found_without_its_photo_keeps_its_row(archive: Archive) -> None:
    doubted(archive, 1)
    (archive.folder / "1.jpg").unlink()
    report = archive.run()
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 1)
    assert report.ended.tally.superseded == 0
    (entry,) = archive.entries()
    assert (entry.status, entry.image) == (Status.ENROLLED, "1.jpg")


@pytest.mark.usefixtures("_searched")
def test_a_photo_that_is_away_when_its_face_is_to_be_sent_again_keeps_the_last_look(
    archive: Archive,
) -> None:
    archive.people(5, 1)
    archive.run(allow_nonempty=True)
    resend(archive, "u1")
    photo, away = archive.folder / "1.jpg", archive.folder / "away.jpg"
    photo.rename(away)
    report = archive.run(allow_nonempty=True)
    assert report.exit_code is ExitCode.SOME_ROWS_FAILED
    assert (archive.face("u1").status, archive.face("u1").code) == (Status.FAILED, "PHOTO_MISSING")
    away.rename(photo)
    assert (
        archive.run(allow_nonempty=True).ended.tally.surplus == 1
    )  # what landed late is found after all
    assert archive.box.count("add") == 3


def test_a_face_that_could_not_be_sent_again_is_looked_for_when_it_was(archive: Archive) -> None:
    archive.people(5, 1)
    archive.run()
    archive.delete(archive.face("u1").face_token or "")
    resend(archive, "u1")
    (archive.folder / "1.jpg").rename(archive.folder / "away.jpg")
    archive.run()
    assert (archive.face("u1").status, archive.face("u1").recheck) == (Status.FAILED, True)


def resend(archive: Archive, user_id: str) -> None:
    """A face was in doubt and judged not added; what the library has of it is not known."""
    face = replace(
        archive.face(user_id),
        status=Status.PENDING,
        face_token=None,
        enrolled_at=None,
        recheck=True,
    )
    archive.record(face)


def test_a_face_is_looked_for_after_it_was_sent_again_though_runs_of_others_come_between(
    archive: Archive,
) -> None:
    archive.people(5, 1)
    archive.run(allow_nonempty=True)
    resend(archive, "u1")
    rows = list(archive.rows)
    archive.rows = rows[:1]
    archive.people(6)
    assert archive.run(allow_nonempty=True).exit_code is ExitCode.DONE
    assert archive.face("u1").recheck
    archive.rows = rows
    assert archive.run(allow_nonempty=True).ended.tally.surplus == 1
    assert not archive.face("u1").recheck
    assert archive.face("u1").status is Status.ENROLLED


@pytest.mark.parametrize("status", [Status.SUPERSEDED, Status.REMOVED])
def test_what_landed_late_is_a_copy_of_a_face_that_is_superseded_or_removed(
    archive: Archive, status: Status
) -> None:
    archive.people(5, 1)
    archive.run()
    token = archive.face("u1").face_token
    archive.record(replace(archive.face("u1"), status=status, recheck=True))
    archive.rows.pop()
    archive.people(6)
    copy = archive.add("u1", "1.jpg")
    report = archive.run()
    assert (report.ended.tally.surplus, report.ended.tally.adopted) == (1, 0)
    found = archive.face("u1")
    assert (found.status, found.face_token, found.recheck) == (status, token, False)
    assert ("surplus", "u1", copy) in archive.history()


class Freed(Screen):
    """Somebody deletes the library when the run begins."""

    def __init__(self, there: Archive) -> None:
        self.there = there

    def opened(self, archive: run_opening.Destination, interrupt: Callable[[int], None]) -> None:
        service = self.there.service
        service.make(Call.free(group_id=GROUP, check_empty=False))
        service.close()


@pytest.mark.parametrize("size", [1, 1000])
def test_a_library_that_is_gone_when_doubts_are_looked_at_stops_the_run(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(reconcile, "LIST_PAGE", size)
    archive.people(5)
    archive.run()
    doubted(archive, 1)
    report = archive.run(screen=Freed(archive))
    assert report.exit_code is ExitCode.SERVICE
    assert "stopped the run" in str(report.ended.stop)
    assert archive.face("u1").status is Status.IN_DOUBT


@pytest.mark.parametrize("call", ["list", "search"])
def test_a_look_that_is_sent_elsewhere_stops_the_run(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(reconcile, "LIST_PAGE", 1000 if call == "list" else 1)
    archive.people(5)
    archive.run()
    doubted(archive, 1)
    archive.box.script([None, "redirect"] if call == "search" else ["redirect"], call=call)
    report = archive.run()
    assert report.exit_code is ExitCode.SERVICE
    assert archive.face("u1").status is Status.IN_DOUBT


def late(archive: Archive, user_id: str) -> None:
    """A face of which no answer has come: its call has just expired."""
    archive.record(replace(archive.face(user_id), expires=time.time()))


@pytest.fixture(params=[1, 1000], ids=["searched", "listed"])
def begun(archive: Archive, monkeypatch: pytest.MonkeyPatch, request: Any) -> Archive:
    """An archive whose first run has enrolled u5; doubts are settled by searching (the library has
    several pages) or by listing it (it has one)."""
    monkeypatch.setattr(reconcile, "LIST_PAGE", request.param)
    archive.people(5)
    archive.run()
    return archive


def test_a_face_that_is_shown_late_is_not_sent_again_once_the_run_knows_how_late(
    begun: Archive,
) -> None:
    begun.box.search_lag = 5.0
    doubted(begun, 1)
    late(begun, "u1")
    begun.people(2)
    report = begun.run(allow_nonempty=True)
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 1)
    assert begun.box.count("add") == 3


def test_how_late_faces_are_shown_is_known_to_later_runs_that_add_nobody(
    begun: Archive,
) -> None:
    begun.box.search_lag = 5.0
    doubted(begun, 1)
    late(begun, "u1")
    begun.people(2)
    assert begun.run(allow_nonempty=True).ended.tally.adopted == 1  # this run sees how late
    doubted(begun, 3)
    late(begun, "u3")
    added = begun.box.count("add")
    report = begun.run(timeout=1.0)
    assert (report.ended.tally.adopted, report.ended.tally.not_applied) == (1, 0)
    assert begun.box.count("add") == added


def test_no_doubt_is_judged_while_a_face_of_this_run_can_show_how_late_faces_are_shown(
    begun: Archive,
) -> None:
    # Nothing but doubts of earlier runs is left, and no run knows yet how late faces are shown.
    known = begun.in_library()
    doubted(begun, 1, 2)
    begun.delete(*(begun.in_library() - known))
    begun.box.search_lag = 9.0
    begun.box.script(["502-after"], user_id="u2", call="add")
    report = begun.run(timeout=1.0)
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 1)
    assert report.ended.tally.surplus == 0
    assert Counter(face.user_id for face in begun.box.faces(GROUP)) == {"u1": 1, "u2": 1, "u5": 1}


def test_a_copy_of_a_face_that_was_shown_too_late_is_reported_by_the_run_that_made_it(
    begun: Archive,
) -> None:
    # Nothing else is added by this run, so that nothing tells how late the service shows faces.
    begun.box.search_lag = 9.0
    doubted(begun, 1)
    late(begun, "u1")
    report = begun.run(timeout=1.0)
    assert (report.ended.tally.not_applied, report.ended.tally.surplus) == (1, 1)
    assert begun.box.count("add") == 3
    assert not begun.face("u1").recheck


def test_a_face_sent_again_that_is_not_shown_is_left_for_the_next_run_to_look_for(
    begun: Archive,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconcile_rules, "RECHECK_LOOKS", 2)
    begun.box.search_lag = 600.0
    begun.people(1)
    begun.run()
    begun.record(replace(begun.face("u1"), recheck=True))
    begun.people(6)
    begun.box.search_lag = 0.0
    report = begun.run()
    assert (report.exit_code, report.ended.tally.unchecked) == (ExitCode.DONE, 1)
    assert begun.face("u1").recheck
    assert any("1 face sent again after a doubt" in line for line in summary_lines(report))


@pytest.mark.usefixtures("_searched")
def test_a_doubt_is_settled_while_rows_go_on_though_every_new_face_is_shown_late(
    archive: Archive,
) -> None:
    archive.box.search_lag, archive.box.latency = 0.6, 0.1
    archive.people(*range(100))
    archive.box.script(["500-after"], user_id="u3")
    report = archive.run(timeout=1.0, max_in_flight=1)
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 1)
    adopted, last = (archive.face(user_id).enrolled_at for user_id in ("u3", "u99"))
    assert adopted is not None
    assert last is not None
    assert adopted < last


class FarOff(Screen):
    """The service's clock jumps by an hour when the run has begun."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box

    def opened(self, archive: run_opening.Destination, interrupt: Callable[[int], None]) -> None:
        self.box.clock_skew = 3600.0


def test_a_look_that_cannot_be_signed_stops_the_run_and_leaves_the_doubt_open(
    archive: Archive,
) -> None:
    doubted(archive, 1)
    report = archive.run(screen=FarOff(archive.box))
    assert report.exit_code is ExitCode.SERVICE
    assert "clock says" in str(report.ended.stop)
    assert archive.face("u1").status is Status.IN_DOUBT
    archive.box.clock_skew = 0.0
    assert archive.run().exit_code is ExitCode.DONE


class SetBack(Screen):
    """The service's clock is set back when the run has begun."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box

    def opened(self, archive: run_opening.Destination, interrupt: Callable[[int], None]) -> None:
        self.box.clock_skew = -3.0


def test_a_look_waits_for_the_expiry_though_the_clock_is_set_back_meanwhile(
    archive: Archive,
) -> None:
    doubted(archive, 1)
    expires = time.time() + 2.0
    archive.record(replace(archive.face("u1"), expires=expires))
    archive.people(2)  # by whose call the clock is learned anew
    looks = archive.box.count("list")
    report = archive.run(allow_nonempty=True, screen=SetBack(archive.box))
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 1)
    made = [call.time for call in archive.box.calls if call.kind == "list"][looks:]
    assert len(made) == 2  # whether it shows `u2`, which was added meanwhile, and the look
    assert made[1] >= expires


def test_a_run_with_no_task_under_way_waits_by_the_clock_that_tests_move(
    archive: Archive, moved_clock: MovedClock
) -> None:
    doubted(archive, 1)
    expires = moved_clock.time() + 20.0
    archive.record(replace(archive.face("u1"), expires=expires))
    before = moved_clock.ahead
    report = archive.run(allow_nonempty=True)
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 1)
    assert moved_clock.time() >= expires
    assert moved_clock.ahead > before


def test_faces_of_other_manifests_that_stay_in_doubt_are_named_and_change_no_exit_code(
    archive: Archive,
) -> None:
    doubted(archive, 1, 2, 3)
    for number in (1, 2, 3):
        (archive.folder / f"{number}.jpg").unlink()
    archive.rows.pop()  # `u3` is in another manifest
    archive.box.script(["auth"] * 20, call="list")
    report = archive.run()
    assert report.exit_code is ExitCode.IN_DOUBT
    assert report.ended.tally.others_in_doubt == 1
    archive.rows.clear()
    archive.people(7)
    report = archive.run()
    assert report.exit_code is ExitCode.DONE
    assert report.ended.tally.others_in_doubt == 3
    (said,) = [line for line in summary_lines(report) if "other manifests" in line]
    assert said.startswith("3 faces of other manifests are in doubt")


def test_rows_behind_a_limit_are_not_left_if_their_face_was_settled(archive: Archive) -> None:
    archive.people(*range(8))
    archive.run()
    for number in (3, 5, 6, 7):
        archive.doubt(f"u{number}")
    archive.photo("5.jpg", 200)  # another photo: due, whatever becomes of the former one
    archive.delete(*(face.face_token for face in archive.box.faces(GROUP) if face.user_id == "u6"))
    archive.rows[:0] = [(f"new{number}", "", f"{number}.jpg") for number in range(3)]
    archive.manifest()
    report = archive.run(limit=1)
    tally = report.ended.tally
    assert (tally.adopted, tally.not_applied) == (3, 1)
    left = "--limit 1 was reached; 4 rows left"  # two who are new, u5 and u6
    assert report.ended.bound == left
    with closing(read_ledger(archive.ledger)) as ledger:
        end = ledger.status().runs[0].end
    assert end is not None
    assert end.reason == left
    assert tally.statuses == {Status.ENROLLED: 7, Status.PENDING: 4}
    report = archive.run()
    assert report.exit_code is ExitCode.DONE


def test_rows_behind_a_limit_whose_face_stays_in_doubt_are_in_doubt(archive: Archive) -> None:
    doubted(archive, 1, 2, 3)
    let_nobody_look(archive.box)
    report = archive.run(limit=1, allow_nonempty=True)
    tally = report.ended.tally
    assert (report.exit_code, tally.statuses[Status.IN_DOUBT]) == (ExitCode.IN_DOUBT, 3)
    assert (tally.statuses[Status.PENDING], tally.others_in_doubt) == (0, 0)


def test_a_trial_does_not_count_as_left_out_whose_face_was_settled(archive: Archive) -> None:
    doubted(archive, *range(6))
    report = archive.run(sample=2)
    assert (report.exit_code, report.ended.bound) == (ExitCode.DONE, None)
    assert report.ended.tally.statuses[Status.ENROLLED] == 6
