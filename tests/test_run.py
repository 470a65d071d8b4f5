"""The driver: real HTTP against the stand-in, real files, a real ledger; inline and threaded."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archive import GROUP, Archive, picture
from moved_clock import standin

from enroll.commands.run import Screen, enroll_manifest
from enroll.commands.run_closing import Report
from enroll.commands.run_opening import Destination as Opened
from enroll.errors import ExitCode, LedgerBusyError, ServiceError, UsageError
from enroll.ledger import read_ledger
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.model import Candidate, Credentials, SendAs, Status
from enroll.report.summary import summary_lines
from enroll.runner import progress, reconcile
from enroll.sandbox import Sandbox
from enroll.session.tally import Tally
from enroll.settings import CodeRule, FailOn, RunSettings

pytestmark = pytest.mark.usefixtures("moved_clock")


class Inline(Executor):
    """Carries each task out at once, on the thread that hands it over."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # as the executors of the library do
            future.set_exception(error)
        return future


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with standin(detect=False) as running:
        running.create_library(GROUP)
        yield running


@pytest.fixture
def archive(box: Sandbox, tmp_path: Path) -> Archive:
    return Archive(tmp_path, box)


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, lambda workers: Inline()])
def test_every_row_is_enrolled_once_and_a_second_run_calls_nothing(
    archive: Archive, pool: Callable[[int], Executor]
) -> None:
    for number in range(25):
        archive.people(number)
    first = archive.run(pool=pool)
    assert first.exit_code is ExitCode.DONE
    assert archive.box.count("add") == 25
    assert archive.tokens_agree()
    assert [line["face_token"] for line in archive.results()] == [
        next(face.face_token for face in archive.box.faces(GROUP) if face.user_id == user_id)
        for user_id, _, _ in archive.rows
    ]
    written = (archive.folder / "staff.results.csv").stat().st_mtime_ns
    second = archive.run(pool=pool)
    assert second.exit_code is ExitCode.DONE
    assert archive.box.count("add") == 25
    assert (second.ended.tally.unchanged, second.ended.tally.done) == (25, 0)
    assert (archive.folder / "staff.results.csv").stat().st_mtime_ns == written


def test_the_service_gets_what_the_manifest_says(archive: Archive) -> None:
    archive.people(1)
    archive.rows[0] = ("007", "李雷, “head”", "1.jpg")
    archive.run(send_as=SendAs.IMAGE, multi_oriented_detection=True)
    (face,) = archive.box.faces(GROUP)
    assert (face.user_id, face.user_data) == ("007", "李雷, “head”")


def test_a_touched_renamed_or_moved_photo_needs_no_call(archive: Archive) -> None:
    for number in range(3):
        archive.people(number)
    archive.run()
    os.utime(archive.folder / "0.jpg", (1, 1))
    (archive.folder / "1.jpg").rename(archive.folder / "one.jpg")
    (archive.folder / "sub").mkdir()
    (archive.folder / "2.jpg").rename(archive.folder / "sub/2.jpg")
    archive.rows = [("u0", "", "0.jpg"), ("u1", "", "one.jpg"), ("u2", "", "sub/2.jpg")]
    report = archive.run()
    assert archive.box.count("add") == 3
    assert report.exit_code is ExitCode.DONE
    assert archive.statuses() == ["enrolled"] * 3
    assert archive.run().ended.tally.done == 0  # and next time they are not even read


def test_other_order_extra_columns_and_new_rows_cost_only_the_new_rows(archive: Archive) -> None:
    for number in range(4):
        archive.people(number)
    archive.run()
    archive.rows.reverse()
    archive.people(9)
    archive.run()
    assert archive.box.count("add") == 5
    assert archive.statuses() == ["enrolled"] * 5


def test_other_content_under_the_same_path_supersedes_the_old_face(archive: Archive) -> None:
    archive.people(1)
    archive.run()
    old = archive.results()[0]["face_token"]
    archive.photo("1.jpg", 200)
    report = archive.run()
    assert archive.box.count("add") == 2
    assert report.ended.tally.superseded == 1
    new = archive.results()[0]["face_token"]
    assert new != old
    assert {(entry.face_token, entry.status) for entry in archive.entries()} == {
        (old, Status.SUPERSEDED),
        (new, Status.ENROLLED),
    }
    archive.photo("1.jpg", 3)  # the old photo is put back
    archive.run()
    assert archive.box.count("add") == 2
    assert archive.results()[0]["face_token"] == old
    assert archive.tokens_agree()


def test_two_photos_that_change_places_are_still_the_same_faces(archive: Archive) -> None:
    archive.photo("a.jpg", 1)
    archive.photo("b.jpg", 2)
    archive.rows = [("u1", "", "a.jpg"), ("u1", "", "b.jpg")]
    archive.run()
    archive.photo("a.jpg", 2)
    archive.photo("b.jpg", 1)
    report = archive.run()
    assert archive.box.count("add") == 2
    assert report.ended.tally.superseded == 0


def test_a_broken_new_photo_leaves_the_old_face_enrolled(archive: Archive) -> None:
    archive.people(1)
    archive.run()
    (archive.folder / "1.jpg").write_bytes(b"broken")
    report = archive.run()
    assert report.exit_code is ExitCode.SOME_ROWS_FAILED
    assert archive.statuses() == ["invalid"]
    assert {entry.status for entry in archive.entries()} == {Status.ENROLLED, Status.INVALID}
    assert archive.run().ended.tally.superseded == 0


def test_a_photo_that_is_gone_leaves_its_row_enrolled(archive: Archive) -> None:
    archive.people(1)
    archive.run()
    (archive.folder / "1.jpg").unlink()
    report = archive.run()
    assert report.exit_code is ExitCode.DONE
    assert report.ended.tally.gone == 1
    assert archive.statuses() == ["enrolled"]


def test_an_enrolled_row_whose_new_photo_cannot_be_read_keeps_its_face(archive: Archive) -> None:
    archive.people(1)
    archive.run()
    token = archive.results()[0]["face_token"]
    (archive.folder / "1.jpg").unlink()
    (archive.folder / "1.jpg").mkdir()
    report = archive.run()
    assert report.exit_code is ExitCode.SOME_ROWS_FAILED
    assert report.ended.tally.kept == 1
    assert archive.results()[0]["face_token"] == token


def test_a_rejected_photo_that_is_gone_is_missing_now(archive: Archive) -> None:
    archive.people(1)
    archive.box.script(["unknown-code"])
    archive.run()
    (archive.folder / "1.jpg").unlink()
    report = archive.run()
    assert archive.results()[0]["error"] == "PHOTO_MISSING"
    assert report.ended.tally.kept == 0


def test_only_another_user_data_is_counted_and_not_called(archive: Archive) -> None:
    archive.people(1)
    archive.run()
    archive.rows = [("u1", "another name", "1.jpg")]
    report = archive.run()
    assert archive.box.count("add") == 1
    assert report.ended.tally.user_data_changed == 1


def test_the_same_photo_twice_for_one_person_is_one_call_and_one_token(archive: Archive) -> None:
    archive.photo("a.jpg", 1)
    shutil.copy(archive.folder / "a.jpg", archive.folder / "b.jpg")
    archive.rows = [("u1", "", "a.jpg"), ("u1", "", "b.jpg"), ("u1", "", "a.jpg")]
    archive.run()
    assert archive.box.count("add") == 1
    assert len({line["face_token"] for line in archive.results()}) == 1
    assert archive.statuses() == ["enrolled"] * 3


def test_the_same_photo_of_two_people_is_enrolled_for_both_and_counted(archive: Archive) -> None:
    archive.photo("a.jpg", 1)
    archive.rows = [("u1", "", "a.jpg"), ("u2", "", "a.jpg")]
    report = archive.run()
    assert archive.box.count("add") == 2
    assert report.ended.tally.shared == 1
    (photo,) = report.ended.tally.shared_examples
    assert (photo.path, set(photo.user_ids), photo.people) == ("a.jpg", {"u1", "u2"}, 2)


def test_two_photos_of_one_person_are_never_in_flight_together(archive: Archive) -> None:
    for number in range(6):
        archive.photo(f"{number}.jpg", number)
        archive.rows.append(("u1", "", f"{number}.jpg"))
    archive.box.latency = 0.05
    archive.run()
    assert archive.box.count("add") == 6
    assert max(call.under_way for call in archive.box.calls if call.kind == "add") == 1


def test_bad_rows_are_recorded_and_cost_no_call_and_do_not_stop_the_rest(
    archive: Archive,
) -> None:
    archive.people(1)
    (archive.folder / "text.jpg").write_text("no picture")
    archive.rows += [
        ("bad id", "", "1.jpg"),
        ("u2", "", "text.jpg"),
        ("u3", "", "missing.jpg"),
        ("", "", "1.jpg"),
        ("u4", "", ""),
    ]
    report = archive.run()
    assert report.exit_code is ExitCode.SOME_ROWS_FAILED
    assert archive.box.count("add") == 1
    assert [(line["status"], line["error"]) for line in archive.results()] == [
        ("enrolled", ""),
        ("invalid", "USER_ID_CHARACTER"),
        ("invalid", "PHOTO_NOT_AN_IMAGE"),
        ("failed", "PHOTO_MISSING"),
        ("invalid", "USER_ID_EMPTY"),
        ("invalid", "IMAGE_EMPTY"),
    ]
    assert archive.run(fail_on=FailOn.NEW).exit_code is ExitCode.DONE
    assert archive.run(fail_on=FailOn.ANY).exit_code is ExitCode.SOME_ROWS_FAILED
    archive.photo("missing.jpg", 3)
    archive.photo("text.jpg", 4)
    archive.run()
    assert archive.box.count("add") == 3


UNKNOWN = ["500", "502", "503", "504", "reset", "cut", "not-json", "no-token", "timeout", "drip"]
QUICK: dict[str, Any] = {"timeout": 1.0, "settle_after": 0.1}


@pytest.mark.parametrize("side", ["before", "after"])
def test_answers_that_prove_nothing_are_settled_and_each_face_is_there_once(
    archive: Archive, side: str
) -> None:
    for number, fault in enumerate(UNKNOWN):
        archive.people(number)
        archive.box.script([f"{fault}-{side}"], user_id=f"u{number}")
        archive.people(100 + number)  # one in between, so that the service is not given up on
    report = archive.run(**QUICK)
    assert report.exit_code is ExitCode.DONE
    assert set(archive.statuses()) == {"enrolled"}
    assert archive.tokens_agree()
    many = len(UNKNOWN)
    assert len(archive.box.faces(GROUP)) == 2 * many
    settled = (report.ended.tally.adopted, report.ended.tally.not_applied)
    assert settled == ((many, 0) if side == "after" else (0, many))
    assert archive.box.count("add") == (2 * many if side == "after" else 3 * many)


def test_a_doubt_in_a_large_library_is_settled_by_search_beside_a_control(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LIST_PAGE", 1)
    for number in range(6):
        archive.people(number)
    archive.box.script(["500-after"], user_id="u1")
    archive.box.script(["500-before"], user_id="u2")
    report = archive.run(**QUICK)
    assert report.exit_code is ExitCode.DONE
    assert (report.ended.tally.adopted, report.ended.tally.not_applied) == (1, 1)
    assert archive.box.count("search") >= 5  # a control, a find, two in vain, one more at the end
    assert archive.tokens_agree()


def test_two_doubts_of_one_person_never_take_each_others_token(archive: Archive) -> None:
    archive.rows += [("u5", "", "5.jpg"), ("u1", "", "a.jpg"), ("u1", "", "b.jpg")]
    for number, (_, _, image) in enumerate(archive.rows):
        (archive.folder / image).write_bytes(picture(number))  # sent as they are
    archive.box.script(["500-before", "500-after", "502-after"], user_id="u1")
    report = archive.run(**QUICK)
    assert report.exit_code is ExitCode.DONE
    assert archive.tokens_agree()
    pictures = {face.face_token: face.sha256 for face in archive.box.faces(GROUP)}
    assert all(pictures[line["face_token"]] == line["sha256"] for line in archive.results())


def test_a_face_that_somebody_else_added_is_not_taken_for_ours(archive: Archive) -> None:
    for number in range(3):
        archive.people(number)
    other = Archive(archive.folder / "other", archive.box)
    other.folder.mkdir()
    other.photo("a.jpg", 200)
    other.rows = [("u1", "", "a.jpg")]
    other.run()
    foreign = archive.box.faces(GROUP)[0].face_token
    archive.box.script(["reset-before"], user_id="u1")
    report = archive.run(allow_nonempty=True, **QUICK)
    assert report.exit_code is ExitCode.DONE
    tokens = {line["user_id"]: line["face_token"] for line in archive.results()}
    assert tokens["u1"] != foreign
    assert len(archive.box.faces(GROUP)) == 4
    assert report.ended.tally.surplus == 0


def test_the_only_row_of_a_new_library_is_settled_without_a_control(archive: Archive) -> None:
    archive.people(1)
    archive.box.script(["reset-after"])
    report = archive.run(**QUICK)
    assert report.exit_code is ExitCode.DONE
    assert (report.ended.tally.adopted, archive.box.count("add")) == (1, 1)


def test_a_bound_on_calls_holds_for_looks_and_what_they_find_is_kept(archive: Archive) -> None:
    archive.people(1)
    archive.run()
    archive.people(2)
    archive.box.script(["reset-after"])
    codes = [archive.run(max_calls=4, **QUICK).exit_code for _ in range(3)]
    assert ExitCode.DONE in codes
    assert archive.tokens_agree()
    assert archive.box.count("add") == 2


def test_an_older_face_is_superseded_though_the_first_pass_was_cut_short(
    archive: Archive,
) -> None:
    archive.people(1)
    archive.people(2)
    archive.run()
    archive.photo("1.jpg", 200)
    archive.people(3)
    archive.run(limit=1)
    archive.run()
    statuses = [entry.status for entry in archive.entries() if entry.user_id == "u1"]
    assert sorted(statuses) == [Status.ENROLLED, Status.SUPERSEDED]


def test_without_the_right_to_search_a_doubt_stays_in_doubt(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LIST_PAGE", 1)
    for number in range(3):
        archive.people(number)
    archive.box.script(["500-after"], user_id="u1")
    archive.box.script(["auth"] * 9, call="search")
    report = archive.run(**QUICK)
    assert report.exit_code is ExitCode.IN_DOUBT
    assert archive.statuses() == ["enrolled", "in_doubt", "enrolled"]
    assert "does not allow searching" in archive.results()[1]["message"]
    archive.box.script([], call="search")


def test_a_doubt_without_its_photo_is_settled_by_list_or_left(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.people(1)
    archive.people(2)
    archive.box.script(["timeout-after"], user_id="u2")
    archive.run(screen=InterruptWhileSent(archive.box), drain=0.1, timeout=1.0)
    assert archive.statuses()[1] == "in_doubt"
    (archive.folder / "2.jpg").unlink()
    archive.rows.pop()  # the manifest no longer names the row, either
    report = archive.run(**QUICK)
    assert report.ended.tally.adopted == 1
    assert archive.tokens_agree()


def test_what_a_killed_run_left_is_settled_whatever_the_next_manifest_says(
    archive: Archive,
) -> None:
    archive.people(1)
    archive.people(2)
    archive.box.script(["timeout-after"], user_id="u2")
    archive.run(screen=InterruptWhileSent(archive.box), drain=0.1, timeout=1.0)
    archive.rows = []
    archive.people(7)
    report = archive.run(**QUICK)
    assert report.exit_code is ExitCode.DONE
    assert archive.tokens_agree()
    assert {entry.user_id for entry in archive.entries()} == {"u1", "u2", "u7"}


def test_another_photo_of_a_person_in_doubt_waits_until_that_is_settled(
    archive: Archive,
) -> None:
    archive.people(1)
    archive.photo("other.jpg", 50)
    archive.rows.append(("u1", "", "other.jpg"))
    archive.box.script(["500-after"])
    archive.run(pool=lambda workers: Inline(), **QUICK)
    assert archive.statuses() == ["enrolled", "enrolled"]
    adds = [call for call in archive.box.calls if call.kind == "add"]
    looks = [call for call in archive.box.calls if call.kind == "list"]
    assert len(adds) == 2
    assert looks[-1].number < adds[1].number


def test_one_error_over_and_over_stops_the_run_after_a_handful_of_calls(
    archive: Archive,
) -> None:
    for number in range(60):
        archive.people(number)
    archive.box.script(["unknown-code"] * 60)
    report = archive.run(max_in_flight=4)
    assert report.exit_code is ExitCode.SERVICE
    assert "again and again" in str(report.ended.stop)
    assert 20 <= archive.box.count("add") <= 24
    assert set(archive.statuses()) <= {"failed", "pending"}


def test_after_ten_answers_that_prove_nothing_calls_go_one_at_a_time(archive: Archive) -> None:
    for number in range(18):
        archive.people(number)
    archive.box.script(["500-before", "502-before"] * 8)
    archive.box.latency = 0.02
    report = archive.run(max_in_flight=6, **QUICK)
    assert report.exit_code is ExitCode.DONE
    # Nine answers had been heard when the fifteenth call left at the latest.
    at = [call.time for call in archive.box.calls if call.kind == "add"]
    # The first pause is a second from the tenth answer, the next ones are longer.
    assert min(at[15] - at[14], at[16] - at[15]) >= 0.5
    assert archive.tokens_agree()


def test_a_bound_on_calls_ends_the_run_early(archive: Archive) -> None:
    for number in range(6):
        archive.people(number)
    report = archive.run(max_calls=4)  # group_list and list among them
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert len(archive.box.calls) == 4
    assert archive.statuses().count("enrolled") == 2
    assert archive.run(max_calls=6).exit_code is ExitCode.DONE


def test_a_refused_call_goes_back_and_costs_no_attempt(archive: Archive) -> None:
    for number in range(12):
        archive.people(number)
    archive.box.parallel = 2
    archive.box.latency = 0.02
    report = archive.run(max_in_flight=6)
    assert report.exit_code is ExitCode.DONE
    assert report.ended.tally.refused > 0
    assert {line["attempts"] for line in archive.results()} == {"1"}
    assert archive.tokens_agree()


def test_retry_after_is_kept_by_all_calls(archive: Archive) -> None:
    for number in range(3):
        archive.people(number)
    archive.box.script(["429"])
    report = archive.run(max_in_flight=1)
    assert report.exit_code is ExitCode.DONE
    refused, *rest = [call.time for call in archive.box.calls if call.kind == "add"]
    assert min(rest) - refused >= 1.0


def test_an_unknown_code_is_failed_word_for_word_and_due_again(archive: Archive) -> None:
    archive.people(1)
    archive.box.script(["unknown-code"])
    archive.run()
    (line,) = archive.results()
    code = next(call.code for call in archive.box.calls if call.kind == "add")
    assert (line["status"], line["error"]) == ("failed", code)
    archive.run()
    assert archive.statuses() == ["enrolled"]
    assert archive.results()[0]["attempts"] == "2"


def test_the_first_three_answers_of_an_unknown_code_are_kept_as_they_came(
    archive: Archive,
) -> None:
    for number in range(6):
        archive.people(number)
    archive.box.script(["html-403"] * 5)
    archive.run()
    reader = read_ledger(archive.ledger)
    kept = reader.status().raw
    reader.close()
    assert [(one.code, one.number, one.http_status) for one in kept] == [
        ("HTTP_403", number, 403) for number in (1, 2, 3)
    ]
    assert "<html" in kept[0].raw.lower()


class Listening(Screen):
    """Hears what the run waits for."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def waits(self, what: str) -> None:
        self.heard.append(what)


def test_a_run_that_does_not_move_says_what_it_waits_for(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STILL_SECONDS", 0.5)
    archive.people(1)
    archive.people(2)
    archive.box.script(["timeout-before"], user_id="u1")
    archive.box.script(["429"], user_id="u2")
    screen = Listening()
    report = archive.run(screen=screen, timeout=2.0, settle_after=0.0)
    assert report.exit_code is ExitCode.DONE
    said = " / ".join(screen.heard)
    assert "1 call in flight" in said
    assert "1 face in doubt to be settled, the next look in" in said


def test_a_code_can_be_rejected_or_retried_or_stop_the_run(archive: Archive) -> None:
    archive.people(1)
    archive.box.script(["unknown-code"])
    archive.run()
    code = archive.results()[0]["error"]
    archive.box.script(["unknown-code"])
    archive.run(on_code={code: CodeRule.REJECT})
    assert archive.statuses() == ["rejected"]
    archive.run()
    assert archive.box.count("add") == 2  # rejected: not sent again
    archive.box.script(["unknown-code"])
    stopped = archive.run(retry=frozenset({code}), on_code={code: CodeRule.STOP})
    assert stopped.exit_code is ExitCode.SERVICE
    assert archive.statuses() == ["pending"]
    archive.box.script(["unknown-code"])
    archive.run(on_code={code: CodeRule.RETRY})
    assert archive.statuses() == ["enrolled"]


@pytest.mark.parametrize("fault", ["auth", "redirect"])
def test_a_fatal_answer_stops_the_run_after_a_handful_of_calls(
    archive: Archive, fault: str
) -> None:
    for number in range(40):
        archive.people(number)
    archive.box.script([fault] * 40)
    report = archive.run(max_in_flight=4)
    assert report.exit_code is ExitCode.SERVICE
    assert archive.box.count("add") <= 8
    assert set(archive.statuses()) == {"pending"}
    archive.box.script([])
    assert archive.box.unused_script() > 0


def test_a_rejected_face_is_not_sent_again_until_its_code_is_to_be_retried(
    tmp_path: Path,
) -> None:
    with standin() as box:
        box.create_library(GROUP)
        archive = Archive(tmp_path, box)
        archive.people(1)  # a gradient: no face in it
        assert archive.run().exit_code is ExitCode.SOME_ROWS_FAILED
        assert archive.results()[0]["error"] == "NO_FACE_FOUND"
        archive.run()
        assert box.count("add") == 1
        archive.run(multi_oriented_detection=True)
        archive.run(multi_oriented_detection=True)
        assert box.count("add") == 2
        archive.run(retry=frozenset({"NO_FACE_FOUND"}), multi_oriented_detection=True)
        assert box.count("add") == 3


def test_a_limit_ends_the_run_early_and_the_next_one_goes_on(archive: Archive) -> None:
    for number in range(5):
        archive.people(number)
    report = archive.run(limit=2)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert sorted(archive.statuses()) == ["enrolled"] * 2 + ["pending"] * 3
    assert archive.run(limit=3).exit_code is ExitCode.DONE
    assert archive.box.count("add") == 5


class Expecting(Screen):
    """Remembers how many rows were expected at each tick once the manifest was read."""

    def __init__(self) -> None:
        self.expected: set[int] = set()

    def ticked(self, tally: Tally) -> None:
        if tally.scanned:
            self.expected.add(tally.expected)


@pytest.mark.parametrize(("bound", "more"), [({"limit": 4}, 0), ({"sample": 4}, 0), ({}, 10)])
def test_a_run_expects_no_more_rows_than_its_limit_or_trial_allows(
    archive: Archive, bound: dict[str, Any], more: int
) -> None:
    archive.people(*range(12))
    archive.rows += archive.rows[:2]  # said twice: rows 0 and 1 have two lines
    archive.rows.append(("not an id", "", "1.jpg"))
    archive.box.latency = 0.05
    screen = Expecting()
    report = archive.run(screen=screen, max_in_flight=2, **bound)
    tally = report.ended.tally
    assert tally.expected == tally.done
    # As many as rows that are taken, whose lines are known then, and the one that breaks a rule.
    assert screen.expected <= set(range(4 + 1 + more, 4 + 2 + 1 + more + 1))
    assert screen.expected


def test_a_service_that_is_away_is_waited_for_and_then_given_up(archive: Archive) -> None:
    for number in range(3):
        archive.people(number)

    class PullThePlug(Screen):
        def opened(self, place: Opened, interrupt: Callable[[int], None]) -> None:
            archive.box.stop()

    report = archive.run(screen=PullThePlug(), give_up_after=0.5)
    assert report.exit_code is ExitCode.UNREACHED
    assert "could not be reached" in (report.ended.bound or "")
    assert archive.statuses() == ["pending"] * 3
    assert {line["attempts"] for line in archive.results()} == {"0"}


def test_a_service_that_goes_away_and_comes_back_is_said_while_the_run_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "AWAY_SECONDS", 0.1)
    store = tmp_path / "service.sqlite"
    with ExitStack() as stack:
        box = stack.enter_context(standin(detect=False, store=store))
        box.create_library(GROUP)
        archive = Archive(tmp_path, box)
        for number in range(3):
            archive.people(number)
        said: list[str] = []

        class PullThePlug(Screen):
            def opened(self, place: Opened, interrupt: Callable[[int], None]) -> None:
                box.stop()

            def unreached(self, seconds: float, code: str, because: str) -> None:
                if not said:
                    again = standin(detect=False, store=store, port=box.port)
                    stack.enter_context(again)
                said.append(f"{code}: {because}")
                assert seconds >= 0.1

            def reached(self) -> None:
                said.append("reached")

        assert archive.run(screen=PullThePlug()).exit_code is ExitCode.DONE
    assert said[0].startswith("CANNOT_CONNECT: no connection to 127.0.0.1:")
    assert said.count("reached") == 1
    assert said[-1] == "reached"


def test_a_photos_folder_that_goes_away_stops_the_run_and_leaves_rows_due(
    archive: Archive,
) -> None:
    for number in range(3):
        archive.photo(f"photos/{number}.jpg", number)
        archive.rows.append((f"u{number}", "", f"photos/{number}.jpg"))
    archive.run(limit=1)
    (archive.folder / "photos").rename(archive.folder / "unmounted")
    report = archive.run()
    assert report.exit_code is ExitCode.LOCAL
    assert "photos is gone" in str(report.ended.stop)
    (archive.folder / "unmounted").rename(archive.folder / "photos")
    assert archive.run().exit_code is ExitCode.DONE
    assert archive.box.count("add") == 3


def test_a_share_that_was_never_mounted_stops_the_run(archive: Archive) -> None:
    archive.rows = [(f"u{number}", "", f"{number}.jpg") for number in range(200)]
    report = archive.run()
    assert report.exit_code is ExitCode.LOCAL
    assert "are all missing" in str(report.ended.stop)
    assert report.ended.tally.done < 200


class InterruptAt(Screen):
    """Interrupts the run with SIGTERM once so many rows are done."""

    def __init__(self, rows: int) -> None:
        self.left = rows

    def opened(self, place: Opened, interrupt: Callable[[int], None]) -> None:
        self.interrupt = interrupt

    def finished(self, row: Candidate, status: Status, code: str, message: str) -> None:
        self.left -= 1
        if self.left == 0:
            self.interrupt(15)


class InterruptWhileSent(Screen):
    """Interrupts the run with SIGTERM once one row is done and the call of another has arrived:
    on a busy machine either may be the first."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box

    def opened(self, place: Opened, interrupt: Callable[[int], None]) -> None:
        self.interrupt = interrupt

    def ticked(self, tally: Tally) -> None:
        if tally.done == 1 and self._box.count("add") == 2:
            self.interrupt(15)


def test_an_interrupted_run_records_what_was_in_flight_and_the_next_one_goes_on(
    archive: Archive,
) -> None:
    for number in range(40):
        archive.people(number)
    archive.box.latency = 0.05
    report = archive.run(screen=InterruptAt(10))
    assert report.exit_code is ExitCode.TERMINATED
    added = archive.box.count("add")
    assert 10 <= added <= 30  # those in flight, and those that left before ten were worked on
    assert archive.statuses().count("enrolled") == added
    assert archive.statuses().count("pending") == 40 - added
    assert archive.tokens_agree()
    assert archive.run().exit_code is ExitCode.DONE
    assert archive.box.count("add") == 40


def test_calls_that_outlast_the_drain_are_in_doubt(archive: Archive) -> None:
    archive.people(1)
    archive.people(2)
    archive.box.script(["timeout-after"], user_id="u2")
    report = archive.run(screen=InterruptWhileSent(archive.box), drain=0.2, timeout=5.0)
    assert report.exit_code is ExitCode.TERMINATED
    assert archive.statuses() == ["enrolled", "in_doubt"]


def test_credentials_that_were_exchanged_meanwhile_are_read_again(archive: Archive) -> None:
    for number in range(5):
        archive.people(number)
    right = Credentials(archive.box.api_key, archive.box.api_secret)
    offered = iter([Credentials(archive.box.api_key, "old secret"), right, right])
    archive.run(limit=1)  # writes the manifest
    report = enroll_manifest(
        RunSettings(
            manifest=archive.manifest(),
            group_id=GROUP,
            endpoint=archive.box.endpoint,
            ledger=archive.ledger,
        ),
        lambda: next(offered),
    )
    assert report.exit_code is ExitCode.DONE


def test_a_signature_refused_in_the_middle_is_tried_with_new_credentials(
    archive: Archive,
) -> None:
    for number in range(5):
        archive.people(number)
    archive.box.script([None, None, "auth"])
    reads = iter(["first", "second"])
    credentials = Credentials(archive.box.api_key, archive.box.api_secret)

    def read() -> Credentials:
        # Not equal to the first ones, but as good: what an exchange looks like from here.
        if next(reads) == "first":
            return credentials
        return Rotated(archive.box.api_key, archive.box.api_secret)

    archive.run(limit=1)
    report = enroll_manifest(
        RunSettings(
            manifest=archive.manifest(),
            group_id=GROUP,
            endpoint=archive.box.endpoint,
            ledger=archive.ledger,
        ),
        read,
    )
    assert report.exit_code is ExitCode.DONE
    assert archive.statuses() == ["enrolled"] * 5


class Rotated(Credentials):
    """Credentials that are never equal to others."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


REJECTED = {"FACE_LEFT_THE_BUILDING": CodeRule.REJECT}


def test_a_rejected_row_whose_text_was_corrected_is_sent_again_once(archive: Archive) -> None:
    archive.box.script(["unknown-code"])
    for number in (1, 2):
        archive.people(number)
        assert archive.run(on_code=REJECTED).exit_code is ExitCode.SOME_ROWS_FAILED
    assert archive.statuses() == ["rejected", "enrolled"]
    for row in (0, 1):  # the enrolled one, too: the service has no update
        user_id, text, image = archive.rows[row]
        archive.rows[row] = (user_id, f"{text}, corrected", image)
    archive.box.script(["unknown-code"])
    for _ in range(2):
        assert archive.run(on_code=REJECTED).exit_code is ExitCode.SOME_ROWS_FAILED
        assert archive.box.count("add") == 3
    archive.rows[0] = ("u1", "now it will do", "1.jpg")
    assert archive.run(on_code=REJECTED).exit_code is ExitCode.DONE
    assert archive.statuses() == ["enrolled", "enrolled"]
    assert {face.user_id: face.user_data for face in archive.box.faces(GROUP)} == {
        "u1": "now it will do",
        "u2": "name 2",
    }


def test_two_rows_of_one_rejected_photo_are_each_tried_with_their_own_text(
    archive: Archive,
) -> None:
    archive.people(1)
    shutil.copy(archive.folder / "1.jpg", archive.folder / "again.jpg")
    archive.rows.append(("u1", "another text", "again.jpg"))
    archive.box.script(["unknown-code"] * 2)
    for _ in range(2):  # neither makes the other due again
        assert archive.run(on_code=REJECTED).exit_code is ExitCode.SOME_ROWS_FAILED
        assert archive.box.count("add") == 2
    assert archive.statuses() == ["rejected", "rejected"]


def test_wrong_credentials_are_found_out_before_anything_is_written(archive: Archive) -> None:
    archive.people(1)
    archive.run(limit=1)
    archive.ledger.unlink()
    wrong = Credentials(archive.box.api_key, "wrong")
    given = RunSettings(
        manifest=archive.manifest(),
        group_id=GROUP,
        endpoint=archive.box.endpoint,
        ledger=archive.ledger,
    )
    with pytest.raises(ServiceError, match=r"that were used, key .{4}…, and"):
        enroll_manifest(given, lambda: wrong)
    assert not archive.ledger.exists()
    assert archive.box.count("add") == 1


def test_a_library_that_is_not_there_is_named_with_those_that_are(archive: Archive) -> None:
    archive.people(1)
    with pytest.raises(ServiceError, match="no library 'guests'; it has staff"):
        archive.run(group_id="guests")


def test_a_new_ledger_for_a_library_with_faces_needs_a_decision(archive: Archive) -> None:
    archive.people(1)
    archive.run()
    other = archive.folder / "other.sqlite"
    with pytest.raises(UsageError, match="--allow-nonempty"):
        archive.run(ledger=other)
    assert not other.exists()
    assert archive.run(ledger=other, allow_nonempty=True).exit_code is ExitCode.DONE


def test_a_second_run_of_one_ledger_is_refused(archive: Archive) -> None:
    archive.people(1)
    archive.run()
    calls = len(archive.box.calls)
    with LedgerLock(archive.ledger), pytest.raises(LedgerBusyError, match=str(os.getpid())):
        archive.run()
    assert len(archive.box.calls) == calls


def test_the_clock_of_the_service_is_learned_and_named(archive: Archive) -> None:
    archive.people(1)
    archive.box.clock_skew = 600.0
    report = archive.run()
    assert report.exit_code is ExitCode.DONE
    assert any("10.0 minutes behind" in note for note in report.place.notes)


@pytest.mark.parametrize("skew", [3600.0, -3600.0, 73 * 365 * 86400.0])
def test_no_run_begins_while_the_clocks_are_far_apart(archive: Archive, skew: float) -> None:
    archive.people(1)
    archive.box.clock_skew = skew
    with pytest.raises(
        ServiceError, match=r"This machine's clock says .* UTC, the service's"
    ) as no:
        archive.run()
    assert "Set the clock that is wrong" in str(no.value)
    assert (no.value.exit_code, archive.ledger.exists()) == (ExitCode.SERVICE, False)
    assert [call.kind for call in archive.box.calls] == ["group_list"]


def test_a_service_whose_clock_jumps_stops_the_run_and_the_clocks_are_named(
    archive: Archive,
) -> None:
    for number in range(3):
        archive.people(number)

    class Jumps(Screen):
        def opened(self, place: Opened, interrupt: Callable[[int], None]) -> None:
            archive.box.clock_skew = 3600.0

    report = archive.run(screen=Jumps())
    assert report.exit_code is ExitCode.SERVICE
    assert "60.0 minutes behind the service's" in str(report.ended.stop)
    assert report.ended.tally.statuses[Status.PENDING] == 3


def test_a_repeated_token_is_not_believed(archive: Archive) -> None:
    for number in range(2):
        archive.people(number)
    archive.run(limit=1)
    token = archive.results()[0]["face_token"]

    class Repeating(Inline):
        """Answers every `add` with the first face's token, as a broken gateway's cache would."""

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            answer = future.result()
            if getattr(answer, "face_token", ""):
                future = Future()
                future.set_result(replace(answer, face_token=token))
            return future

    report = archive.run(pool=lambda workers: Repeating(), **QUICK)
    assert report.ended.tally.adopted == 1
    assert archive.results()[1]["face_token"] != token
    assert archive.tokens_agree()


def test_a_bug_in_a_task_is_raised_after_the_rest_is_recorded(archive: Archive) -> None:
    for number in range(4):
        archive.people(number)

    class Buggy(Inline):
        calls = 0

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            if getattr(future.result(), "face_token", ""):
                Buggy.calls += 1
                if Buggy.calls == 3:
                    future = Future()
                    future.set_exception(ZeroDivisionError("a bug"))
            return future

    with pytest.raises(ZeroDivisionError):
        archive.run(pool=lambda workers: Buggy(), drain=0.1)
    statuses = sorted(entry.status for entry in archive.entries())
    assert statuses.count(Status.IN_DOUBT) == 1
    assert statuses.count(Status.ENROLLED) >= 2


def test_a_library_user_can_run_from_a_thread_of_its_own(archive: Archive) -> None:
    archive.people(1)
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(archive.run()))
    thread.start()
    thread.join()
    assert reports[0].exit_code is ExitCode.DONE


def test_what_a_run_that_ends_early_has_not_compared_completes_its_table(archive: Archive) -> None:
    archive.people(*range(40))
    archive.run(limit=3)
    report = archive.run(max_calls=1)  # the rows that are known to be due are counted, no others
    tally = report.ended.tally
    assert (report.exit_code, tally.scanned) == (ExitCode.ENDED_EARLY, False)
    assert (tally.statuses[Status.PENDING], tally.not_reached) == (37, 3)
    lines = summary_lines(report)
    assert "  and at most 3 rows not compared with the ledger before the run ended" in lines
    assert "0 add" not in "\n".join(lines)
    whole = archive.run()
    assert (whole.ended.tally.statuses.total(), whole.ended.tally.not_reached) == (40, 0)
    assert not [line for line in summary_lines(whole) if "not compared" in line]


def test_the_ledger_and_the_summary_have_the_same_duration_of_a_run(archive: Archive) -> None:
    archive.people(*range(3))
    report = archive.run()
    with closing(read_ledger(archive.ledger)) as ledger:
        (run,) = ledger.status().runs
    assert run.end is not None
    assert (run.end.at - run.start.at) / 1000 == report.seconds


class Reading(Screen):
    """Reads the ledger during the run: the account's limit, and that of the run's pace."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.seen: list[tuple[int | None, int | None]] = []

    def ticked(self, tally: Tally) -> None:
        with closing(read_ledger(self.archive.ledger)) as ledger:
            status = ledger.status()
        pace = status.runs[0].pace
        if pace is not None and pace.ceiling is not None:
            self.seen.append((status.ceiling, pace.ceiling))


def test_a_ledger_has_one_limit_of_the_account_during_a_run(archive: Archive) -> None:
    archive.people(*range(100))
    archive.box.parallel, archive.box.latency = 3, 0.05
    screen = Reading(archive)
    archive.run(screen=screen)
    assert screen.seen
    assert all(account == pace for account, pace in screen.seen)
