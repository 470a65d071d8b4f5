"""--lookalikes: one search before each new face, and what becomes of one that looks like another
person."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from archive import Archive, picture
from PIL import Image

from enroll.commands.plan import make_plan
from enroll.commands.plan_report import plan_lines
from enroll.commands.run_closing import Report
from enroll.commands.sync_compare import preview
from enroll.errors import ExitCode, UsageError
from enroll.ledger import FindingKind
from enroll.model import CallKind, Credentials, EventKind, Status
from enroll.report.summary import summary_lines
from enroll.runner import comparer
from enroll.sandbox import Sandbox
from enroll.settings import Bound, Lookalikes

pytestmark = pytest.mark.usefixtures("moved_clock")


def again(number: int, *, quality: int = 90) -> bytes:
    """The picture of a number in another photo: as the stand-in compares them, the same person."""
    out = BytesIO()
    Image.open(BytesIO(picture(number))).resize((80, 80)).save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.fixture
def archive(faceless_box: Sandbox, tmp_path: Path) -> Archive:
    """Three people, enrolled without a search: `a`, `b` and `c` with the pictures 1, 2 and 3."""
    there = Archive(tmp_path, faceless_box)
    for number, person in enumerate("abc", start=1):
        give(there, person, picture(number))
    assert there.run().exit_code is ExitCode.DONE
    assert there.box.count("search") == 0
    return there


def give(archive: Archive, person: str, photo: bytes) -> None:
    """Give a person, new or not, this photo."""
    archive.photo(f"{person}.jpg", photo)
    row = (person, f"name of {person}", f"{person}.jpg")
    archive.rows[:] = [one for one in archive.rows if one[0] != person] + [row]


def calls(report: Report) -> dict[str, int]:
    """The calls of a run that carry a photo."""
    counts = report.ended.tally.calls
    return {kind.value: counts[kind] for kind in (CallKind.SEARCH, CallKind.ADD) if counts[kind]}


def codes(report: Report) -> dict[tuple[str, str], int]:
    return {(status.value, code): n for (status, code), n in report.ended.tally.codes.items()}


def whose(archive: Archive) -> list[str]:
    return sorted(face.user_id for face in archive.box.faces(archive.group_id))


def of_history(archive: Archive, kind: EventKind) -> list[tuple[str, str]]:
    with archive.writing() as ledger:
        return [(who, event.detail) for event, who in ledger.history() if event.kind is kind]


def accept(archive: Archive, one: str, other: str) -> int:
    with archive.writing() as ledger:
        return ledger.findings.accept(one, other, at=1, run=1)


class Rotated(Credentials):
    """Credentials that are others than all before, and just as good."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


HOLD: dict[str, Any] = {"lookalikes": Lookalikes.HOLD}


def test_a_new_person_who_looks_like_somebody_is_held_until_that_is_accepted(
    archive: Archive,
) -> None:
    give(archive, "d", again(1))
    give(archive, "e", picture(5))
    first = archive.run(**HOLD)
    assert first.exit_code is ExitCode.SOME_ROWS_FAILED
    assert calls(first) == {"search": 2, "add": 1}
    assert codes(first) == {("held", "LOOKALIKE"): 1}
    assert whose(archive) == ["a", "b", "c", "e"]
    (line,) = [line for line in archive.results() if line["user_id"] == "d"]
    assert (line["status"], line["error"], line["face_token"]) == ("held", "LOOKALIKE", "")
    assert line["message"].startswith("The photo looks like a (score 9")
    assert of_history(archive, EventKind.HELD) == [("d", "a")]
    for changed in ({}, HOLD, {"checksum": True}):  # it stays held, whatever the option says
        later = archive.run(**changed)
        assert (calls(later), codes(later)) == ({}, codes(first))
        assert later.ended.tally.new_bad == 0
    assert accept(archive, "d", "a") == 1
    last = archive.run(**HOLD)
    assert (last.exit_code, calls(last)) == (ExitCode.DONE, {"search": 1, "add": 1})
    assert whose(archive) == ["a", "b", "c", "d", "e"]


def test_a_held_photo_is_due_again_when_it_changes(archive: Archive) -> None:
    give(archive, "d", again(1))
    archive.run(**HOLD)
    give(archive, "d", picture(4))
    report = archive.run(**HOLD)
    assert (report.exit_code, calls(report)) == (ExitCode.DONE, {"search": 1, "add": 1})
    with archive.writing() as ledger:
        assert list(ledger.pairs()) == []  # no row leads to the held face any more


def test_with_warn_the_face_is_added_and_the_finding_is_on_record(archive: Archive) -> None:
    give(archive, "d", again(1))
    report = archive.run(lookalikes="warn")
    assert report.exit_code is ExitCode.DONE
    assert report.ended.tally.warnings == {"LOOKALIKE": 1}
    assert "1 photo looks doubtful: LOOKALIKE 1; sent anyway." in summary_lines(report)
    assert whose(archive) == ["a", "b", "c", "d"]
    with archive.writing() as ledger:
        (pair,) = ledger.pairs()
    assert (pair.user_id, pair.finding.other_user_id) == ("d", "a")
    assert (pair.finding.kind, pair.status) == (FindingKind.LOOKALIKE, Status.ENROLLED)
    assert pair.face_token == archive.face("d").face_token
    with closing(sqlite3.connect(archive.ledger)) as read:  # an audit looks at it all the same
        assert read.execute("SELECT count(*) FROM audited").fetchone() == (0,)


def test_the_same_new_photo_of_two_people_is_added_once_even_if_searches_show_it_late(
    archive: Archive,
) -> None:
    archive.box.script(["search-lag"] * 9)
    for person in "defg":
        give(archive, person, picture(9))
    report = archive.run(**HOLD)
    assert calls(report) == {"search": 4, "add": 1}
    assert codes(report) == {("held", "LOOKALIKE"): 3}


def test_of_a_few_new_people_who_look_alike_one_is_added(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enroll(first: int) -> int:
        for number in range(6):
            give(archive, f"n{first + number}", again(first, quality=80 + number))
        return archive.run(max_in_flight=6, **HOLD).ended.tally.enrolled_now

    assert enroll(10) == 1
    assert "n10" in whose(archive)  # the first row
    monkeypatch.setattr(comparer, "SHARE_AT_ONCE", 1)  # all together: they cannot see each other
    archive.box.latency = 0.2
    assert enroll(20) > 1


def test_neighbours_in_a_long_list_are_compared_too(faceless_box: Sandbox, tmp_path: Path) -> None:
    archive = Archive(tmp_path, faceless_box)
    for number in range(190):
        give(archive, f"p{number:03}", picture(number))
        if number % 19 == 0:
            give(archive, f"p{number:03}-again", again(number))
    assert len(archive.rows) == comparer.IN_TURN
    assert archive.run(max_in_flight=2, **HOLD).ended.tally.statuses[Status.HELD] >= 9


def test_only_a_photo_that_the_library_does_not_have_is_searched_with(archive: Archive) -> None:
    archive.rows[0] = ("a", "another name", "a.jpg")
    (archive.folder / "b.jpg").touch()
    report = archive.sync(**HOLD)
    assert (report.exit_code, calls(report)) == (ExitCode.DONE, {"add": 1})


def test_a_person_whose_new_photo_looks_like_the_present_face_may_look_like_others(
    archive: Archive,
) -> None:
    give(archive, "d", again(1))
    assert archive.run().exit_code is ExitCode.DONE  # a twin of a, without a search
    give(archive, "a", again(1, quality=80))
    report = archive.sync(**HOLD)
    assert (report.exit_code, calls(report)) == (ExitCode.DONE, {"search": 1, "add": 1})


def test_swapped_photos_are_held_and_reported_and_the_old_faces_stay(archive: Archive) -> None:
    archive.sync()
    before = archive.held()
    give(archive, "a", again(2))
    give(archive, "b", again(1))
    report = archive.sync(**HOLD)
    assert report.exit_code is ExitCode.SOME_ROWS_FAILED
    assert calls(report) == {"search": 2}
    assert codes(report) == {("held", "UNLIKE_BEFORE"): 2}
    assert report.ended.tally.swapped == [("a", "b")]
    assert "  a and b" in summary_lines(report, show_user_ids=True)
    assert "  a and b" not in summary_lines(report)  # masked
    assert all(
        line["message"].endswith("present face: they were probably swapped.")
        for line in archive.results()
        if line["status"] == "held"
    )
    for _ in range(2):
        later = archive.sync(**HOLD)
        assert (later.exit_code, calls(later)) == (ExitCode.DONE, {})
        assert later.sync_result is not None
        assert later.sync_result.counted.added == later.sync_result.counted.accepted == 0
        assert later.ended.tally.swapped == []
    assert archive.held() == before
    give(archive, "a", again(1, quality=80))
    give(archive, "b", again(2, quality=80))
    assert archive.sync(**HOLD).exit_code is ExitCode.DONE
    assert archive.held() == archive.wanted()


@pytest.mark.parametrize("command", ["run", "sync"])
def test_the_face_that_a_held_photo_would_replace_is_not_superseded(
    archive: Archive, command: str
) -> None:
    archive.rows.append(("a", "name of a", "a-too.jpg"))
    archive.photo("a-too.jpg", picture(4))
    archive.sync()
    before = archive.held()
    archive.photo("a-too.jpg", again(2))
    for _ in range(2):
        report = getattr(archive, command)(**HOLD)
        assert report.ended.tally.statuses[Status.HELD] == 1
        assert report.ended.tally.superseded == 0
        if report.sync_result is not None:
            assert report.sync_result.counted.removed == 0
    assert archive.held() == before
    archive.photo("a-too.jpg", picture(5))
    report = getattr(archive, command)(**HOLD)
    assert (report.exit_code, report.ended.tally.superseded) == (ExitCode.DONE, 1)


def test_a_leaver_stays_while_a_held_photo_looks_like_theirs(archive: Archive) -> None:
    archive.sync()
    archive.rows[:] = [row for row in archive.rows if row[0] not in ("a", "b")]
    give(archive, "a-renamed", again(1))
    archive.sync(**HOLD)
    assert whose(archive) == ["a", "c"]
    report = archive.sync(**HOLD)
    assert report.sync_result is not None
    counted = report.sync_result.counted
    assert (counted.awaited, counted.leaving, counted.waiting) == (1, 0, 1)
    assert whose(archive) == ["a", "c"]
    accept(archive, "a", "a-renamed")
    assert archive.sync(**HOLD).exit_code is ExitCode.DONE
    assert whose(archive) == ["a-renamed", "c"]


def test_a_sync_that_holds_more_than_may_change_deletes_nothing(archive: Archive) -> None:
    archive.rows[:] = [row for row in archive.rows if row[0] != "c"]
    give(archive, "a", again(2))
    give(archive, "b", again(1))
    settings = partial(archive.sync_settings, max_changes=Bound(1), **HOLD)
    with archive.writing() as ledger:
        assert not ledger.diff.has_completed  # so that changes have no limit
    assert list(preview(settings()))
    report = archive.sync(max_changes=Bound(1), **HOLD)
    assert report.exit_code is ExitCode.GUARD
    assert "2 new photos were held" in str(report.ended.stop)
    assert whose(archive) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fault", "searches"),
    [("500", 2), ("unknown-code", 1), ("no-token", 2)],  # a definite answer is asked for once
)
def test_a_face_that_cannot_be_compared_is_not_added_with_hold(
    archive: Archive, fault: str, searches: int
) -> None:
    give(archive, "d", picture(4))
    archive.box.script([fault] * searches, call="search")
    report = archive.run(attempts=2, **HOLD)
    assert (report.exit_code, calls(report)) == (
        ExitCode.SOME_ROWS_FAILED,
        {"search": searches},
    )
    assert codes(report) == {("failed", "SEARCH_FAILED"): 1}
    assert archive.results()[-1]["message"].startswith("The search for people who look like")
    assert whose(archive) == ["a", "b", "c"]
    assert archive.run(**HOLD).exit_code is ExitCode.DONE


def test_with_warn_it_is_added_with_a_warning(archive: Archive) -> None:
    give(archive, "d", picture(4))
    archive.box.script(["500"] * 2, call="search")
    report = archive.run(attempts=2, lookalikes="warn")
    assert (report.exit_code, calls(report)) == (ExitCode.DONE, {"search": 2, "add": 1})
    assert report.ended.tally.warnings == {"SEARCH_FAILED": 1}


def test_a_search_is_repeated_like_an_add_and_costs_refusals_nothing(archive: Archive) -> None:
    give(archive, "d", picture(4))
    give(archive, "e", picture(5))  # which waits for it
    archive.box.script(["refused", "429", "500", "reset"], call="search")
    report = archive.run(attempts=3, **HOLD)
    assert (report.exit_code, calls(report)) == (ExitCode.DONE, {"search": 6, "add": 2})
    assert report.ended.tally.refused == 2


def test_a_call_sent_again_is_not_searched_for_again(archive: Archive) -> None:
    give(archive, "d", picture(4))
    archive.box.script(["refused", "500-before"])
    report = archive.run(**HOLD)
    assert report.exit_code is ExitCode.DONE
    assert report.ended.tally.not_applied == 1
    assert calls(report) == {"search": 1, "add": 3}  # the doubt was settled by the list
    assert whose(archive) == ["a", "b", "c", "d"]


def test_a_face_that_is_found_after_a_lost_answer_has_its_findings(archive: Archive) -> None:
    give(archive, "d", again(1))
    archive.box.script(["500-after"])
    report = archive.run(lookalikes="warn")
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 1)
    with archive.writing() as ledger:
        (pair,) = ledger.pairs()
    assert (pair.user_id, pair.finding.other_user_id) == ("d", "a")


def test_a_person_with_a_face_that_the_ledger_does_not_know_is_compared_too(
    archive: Archive,
) -> None:
    archive.photo("other.jpg", picture(40))
    archive.add("d", "other.jpg")
    give(archive, "d", again(1))
    report = archive.run(**HOLD)
    assert codes(report) == {("held", "LOOKALIKE"): 1}
    assert whose(archive) == ["a", "b", "c", "d"]


def test_credentials_that_were_replaced_are_read_again_for_a_search(archive: Archive) -> None:
    give(archive, "d", picture(4))
    archive.box.script(["auth"], call="search")
    read: list[Credentials] = []

    def credentials() -> Credentials:
        # As the file may say now, with what the stand-in takes all the same.
        read.append(Credentials(archive.box.api_key, archive.box.api_secret))
        return Rotated(archive.box.api_key, archive.box.api_secret) if read[1:] else read[0]

    report = archive.run(read=credentials, **HOLD)
    assert (report.exit_code, calls(report)) == (ExitCode.DONE, {"search": 2, "add": 1})
    assert len(read) == 2


def test_a_plan_and_a_rehearsed_sync_count_the_searches(archive: Archive) -> None:
    give(archive, "d", picture(4))
    lines = {
        mode: plan_lines(make_plan(archive.settings(lookalikes=mode), rate=1.0))
        for mode in Lookalikes
    }
    assert "1 group_list, 1 list, 1 add" in lines[Lookalikes.OFF][-5]
    assert "1 group_list, 1 list, 1 search, 1 add" in lines[Lookalikes.HOLD][-5]
    assert [line for line in lines[Lookalikes.WARN] if line.startswith("Time")] == [
        "Time     2.0 s at 1.0 calls a second (as asked)"
    ]
    (found,) = preview(archive.sync_settings(**HOLD))
    assert found.counted.compared == 1


def test_searches_count_as_calls_and_a_run_that_ends_between_loses_only_them(
    archive: Archive,
) -> None:
    give(archive, "d", picture(4))
    report = archive.run(max_calls=3, **HOLD)  # group_list, list, search
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert calls(report) == {"search": 1}
    assert archive.run(**HOLD).exit_code is ExitCode.DONE
    assert archive.face("d").attempts == 1


def test_one_error_of_searches_over_and_over_stops_the_run(archive: Archive) -> None:
    for number in range(30):
        give(archive, f"n{number}", picture(100 + number))
    archive.box.script(["unknown-code"] * 60, call="search")
    report = archive.run(**HOLD)
    assert report.exit_code is ExitCode.SERVICE
    assert report.ended.tally.calls[CallKind.SEARCH] <= 25
    assert whose(archive) == ["a", "b", "c"]


def test_who_may_not_search_adds_nobody(archive: Archive) -> None:
    give(archive, "d", picture(4))
    archive.box.script(["auth"] * 9, call="search")
    report = archive.run(**HOLD)
    assert report.exit_code is ExitCode.SERVICE
    assert (calls(report), archive.statuses()[-1]) == ({"search": 1}, "pending")


@pytest.mark.parametrize("code", ["LOOKALIKE", "UNLIKE_BEFORE"])
def test_held_photos_are_not_retried(archive: Archive, code: str) -> None:
    with pytest.raises(UsageError, match="audit --accept"):
        archive.settings(retry=frozenset({code}))


def test_who_is_forgotten_is_named_by_no_held_photo(archive: Archive) -> None:
    give(archive, "d", again(1))
    archive.run(**HOLD)
    with archive.writing() as ledger:
        ledger.forgetting.block(["a"], at=9, run=1)
        ledger.forgetting.wipe(["a"])
    assert "looks like a" not in archive.face("d").message
    assert of_history(archive, EventKind.HELD) == []


def test_without_the_option_nothing_is_searched_and_the_record_says_so(archive: Archive) -> None:
    give(archive, "d", again(1))
    report = archive.run()
    assert (report.exit_code, calls(report)) == (ExitCode.DONE, {"add": 1})
    with archive.writing() as ledger:
        assert [run.start.options["lookalikes"] for run in ledger.runs()] == ["off", "off"]


def test_a_held_photo_that_no_row_has_any_more_is_no_reason_for_anything(archive: Archive) -> None:
    archive.sync()
    wrong = archive.folder / "wrong.jpg"
    wrong.write_bytes(again(1))
    rows = list(archive.rows)
    (theirs,) = (row for row in rows if row[0] == "b")
    archive.rows = [*(row for row in rows if row != theirs), ("b", theirs[1], "wrong.jpg")]
    held = archive.sync(**HOLD)
    assert codes(held) == {("held", "UNLIKE_BEFORE"): 1}
    archive.rows = [
        row for row in rows if row[0] != "a"
    ]  # corrected; and who it looked like leaves
    last = archive.sync(**HOLD)
    assert last.exit_code is ExitCode.DONE
    assert whose(archive) == ["b", "c"]
    with archive.writing() as ledger:
        assert list(ledger.pairs()) == []
    archive.rows = [*rows[2:], ("b", theirs[1], "wrong.jpg")]
    assert calls(archive.sync(**HOLD)) == {"search": 1, "add": 1}  # nobody looks like it any more
