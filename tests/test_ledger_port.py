"""The contract of the ledger port, which every adapter has to pass.

A new adapter is one more of `ADAPTERS`: what --ledger names for a ledger that is not there yet.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_rows import STAFF, START, enroll, face, photo, row, scanned, sha, token
from postgres_server import new_schema

from enroll.addresses import ledger_named
from enroll.errors import LedgerBusyError, LedgerMismatchError
from enroll.expiry import ClockOffsets, bounded_offset, expiry_after_death, latest_expiry
from enroll.ledger import (
    INTERRUPTED,
    AuditCounts,
    BlockList,
    CachedScan,
    Changes,
    DifferenceKind,
    Finding,
    FindingKind,
    Ledger,
    LedgerStore,
    Part,
    RunEnd,
    RunPace,
    Searched,
    Target,
    ledger_at,
)
from enroll.model import (
    Event,
    EventKind,
    FaceRecord,
    FileTimes,
    LibraryFace,
    RowRecord,
    SendAs,
    Status,
    Surplus,
)

ADAPTERS: dict[str, Callable[[Path], Path]] = {
    "sqlite": lambda folder: folder / "ledger.sqlite",
    "postgres": lambda folder: ledger_named(new_schema()),
}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.thorough)])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return ADAPTERS[request.param](tmp_path)


@pytest.fixture
def store(name: Path) -> LedgerStore:
    return ledger_at(name)


@pytest.fixture
def ledger(store: LedgerStore) -> Iterator[Ledger]:
    with store.hold(), closing(store.open(STAFF)) as opened:
        opened.start_run(START)
        yield opened


OTHER_PROCESS = """
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, sys.argv[2])
from ledger_rows import STAFF, START, enroll, face, row, scanned
from enroll.addresses import ledger_named
from enroll.ledger import Changes, ledger_at
from enroll.model import Status

store = ledger_at(ledger_named(sys.argv[1]))

def wait():
    print("here", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_process(name: Path, script: str) -> Iterator[Callable[[], str]]:
    """Runs a script that calls `wait()`; what is yielded lets it go on to its next, and says what
    it printed. The process is killed in the end, as with `kill -9`."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS + script, str(name), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"

        def go_on() -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline()

        yield go_on
        process.kill()


# Where it is


def test_where_there_is_no_ledger_nothing_is_read_and_nothing_left_behind(
    store: LedgerStore, tmp_path: Path
) -> None:
    assert not store.exists()
    assert store.holder() is None
    for opens in (store.check, store.read, store.audit):
        with pytest.raises(LedgerMismatchError, match="There is no ledger"):
            opens()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("empty", [True, False])
def test_a_ledger_is_made_by_opening_it(store: LedgerStore, *, empty: bool) -> None:
    with closing(store.open(STAFF, began_empty=empty)) as made:
        assert made.began_empty is empty
        assert made.identity() == STAFF
    assert store.exists()
    store.check()
    with closing(store.open(STAFF)) as again:
        assert again.began_empty is empty


def test_a_creation_time_that_is_not_known_yet_is_not_compared(store: LedgerStore) -> None:
    store.open(STAFF).close()
    with closing(store.open(replace(STAFF, add_time=""))) as opened:
        assert opened.identity() == STAFF
    with pytest.raises(LedgerMismatchError, match="staff"):
        store.open(replace(STAFF, group_id="others", add_time=""))


def test_a_scratch_ledger_knows_what_is_there_and_what_it_takes_is_not_kept(
    store: LedgerStore,
) -> None:
    with closing(store.scratch(STAFF)) as nothing:
        assert nothing.status().counts == {}
    assert not store.exists()
    with closing(store.open(STAFF)) as writing:
        enroll(writing, 1)
        with closing(store.scratch(STAFF)) as scratch:
            found = scratch.due_rows.compare([scanned(1), scanned(2)], run=None)
            assert (found.unchanged, len(found.candidates)) == (1, 1)
            scratch.due_rows.add(found.candidates)
            assert len(scratch.due_rows.take(9)) == 1
        assert writing.status().counts == {Status.ENROLLED: 1}


# Who holds it


HOLDS = """
with store.hold():
    wait()
    wait()
print("let go", flush=True)
"""


def test_one_process_holds_it_and_death_lets_it_go(name: Path, store: LedgerStore) -> None:
    with another_process(name, HOLDS):
        with pytest.raises(LedgerBusyError, match=r"process [0-9]+ on .*, since "):
            store.hold()
        assert "process" in (store.holder() or "")
    assert store.holder() is None
    with store.hold():
        assert store.holder() is not None


def test_it_is_held_until_it_is_let_go(name: Path, store: LedgerStore) -> None:
    with another_process(name, HOLDS) as go_on:
        assert go_on() == "here\n"
        with pytest.raises(LedgerBusyError):
            store.hold()
        assert go_on() == "let go\n"
        store.hold().close()


def test_what_a_restored_ledger_lacks_is_remembered_outside_of_it(store: LedgerStore) -> None:
    with store.hold() as hold:
        assert (hold.last_run, hold.caught_up) == (0, False)
        hold.remember_run(1_000)
    with store.hold() as hold:
        assert (hold.last_run, hold.caught_up) == (1_000, False)
        hold.mark_caught_up()
    with store.hold() as hold:
        assert hold.caught_up
        hold.remember_run(1_000)  # as of a ledger that is restored once more
        assert (hold.last_run, hold.caught_up) == (1_000, False)
        hold.remember_run(2_000)
        assert (hold.last_run, hold.caught_up) == (2_000, False)


# What is on record after a death


WRITES = """
ledger = store.open(STAFF)
ledger.start_run(replace(START, photo_root_named=True))
enroll(ledger, 1)
ledger.record(Changes(faces=[face(2, Status.SENDING)]))
ledger.commit()
ledger.record(Changes(faces=[face(3, Status.SENDING)]))
assert len(ledger.faces_of(["u3"])["u3"]) == 1
wait()
enroll(ledger, 4)
wait()
"""


def test_what_was_committed_outlives_a_kill_and_nothing_else_does(
    name: Path, store: LedgerStore
) -> None:
    with another_process(name, WRITES):
        pass
    with closing(store.open(STAFF)) as ledger:
        known = ledger.faces_of(["u1", "u2", "u3"])
    assert known == {"u1": [face(1)], "u2": [face(2, Status.SENDING)], "u3": []}


def test_an_intent_of_a_killed_run_is_in_doubt_when_the_next_run_begins(
    name: Path, store: LedgerStore
) -> None:
    with another_process(name, WRITES):
        pass
    with closing(store.open(STAFF)) as ledger:
        ledger.start_run(START)
        (open_face,) = ledger.open_faces()
        assert (open_face.user_id, open_face.status) == ("u2", Status.IN_DOUBT)
        assert [event.kind for event, _ in ledger.history()] == [EventKind.IN_DOUBT]


def test_it_is_read_while_another_process_writes_it(name: Path, store: LedgerStore) -> None:
    with another_process(name, WRITES) as go_on, closing(store.read()) as reader:
        assert reader.status().counts == {Status.ENROLLED: 1, Status.SENDING: 1}
        go_on()
        with closing(store.read()) as later:
            assert later.status().counts[Status.ENROLLED] == 2


def test_an_audit_keeps_its_listing_and_sees_what_was_written_meanwhile(
    name: Path, store: LedgerStore
) -> None:
    with another_process(name, WRITES) as go_on, closing(store.audit()) as audit:
        unknown = LibraryFace(face_token=token(9), user_id="u9", user_data="", add_time=5)
        assert audit.listing.add_faces([unknown]) == 1
        audit.refresh()
        assert audit.unseen(before=10_000, after="") == [token(1)]
        go_on()
        audit.refresh()
        assert audit.unseen(before=10_000, after="") == [token(1), token(4)]
        audit.all_was_listed(before=10_000)
        differences = [(one.kind, one.face_token) for one in audit.differences(under_way=True)]
        assert differences == [
            (DifferenceKind.MISSING, token(1)),
            (DifferenceKind.MISSING, token(4)),
            (DifferenceKind.UNKNOWN_FACE, token(9)),
        ]


def test_deletions_that_were_begun_are_known_after_a_death(store: LedgerStore) -> None:
    with closing(store.open(STAFF)) as ledger:
        run = ledger.start_run(START)
        enroll(ledger, 1, 2)
        assert ledger.deletions.choose_people(["u1", "u2"]).faces == 2
        targets = ledger.deletions.chosen(after="", most=9, run=run)
        ledger.deletions.intend(targets[:1])
        ledger.commit()
        ledger.deletions.intend(targets[1:])  # dies before the commit
    with closing(store.open(STAFF)) as ledger:
        left = Target(face_token=token(1), face_id=1, user_id="u1", run=run)
        assert ledger.deletions.intended() == [left]
        ledger.deletions.confirm([token(1)], run=run)
        ledger.commit()
        assert ledger.deletions.intended() == []
        assert ledger.status().counts == {Status.REMOVED: 1, Status.ENROLLED: 1}


# The queue


def test_queued_rows_of_a_face_are_found_and_stay_queued(ledger: Ledger) -> None:
    doubtful = replace(face(1, Status.FAILED), face_token=None)
    ledger.record(Changes(faces=[doubtful], rows=[row(1)]))
    ledger.due_rows.add(ledger.due_rows.compare([scanned(1), scanned(2)], run=1).candidates)
    assert [due.row.user_id for due in ledger.due_rows.of_faces([1])] == ["u1"]
    assert len(ledger.due_rows.take(9)) == 2
    assert ledger.due_rows.of_faces([1]) == []


def test_the_queue_is_not_kept_with_the_ledger(store: LedgerStore) -> None:
    with closing(store.open(STAFF)) as ledger:
        ledger.due_rows.add(ledger.due_rows.compare([scanned(1)], run=1).candidates)
        ledger.commit()
    with closing(store.open(STAFF)) as ledger:
        assert ledger.due_rows.take(9) == []


# The scan cache, and who is withheld


def test_a_kept_scan_is_recalled_until_a_run_with_another_mark_begins(store: LedgerStore) -> None:
    scan = CachedScan(fingerprint="mark", manifest="m", parts=1, results=("/r.csv", 1, 2))
    with closing(store.open(STAFF)) as ledger:
        marked(ledger, "mark")
        ledger.scan_cache.save_part(Part(number=0, first_line=2, rows=b"packed"))
        ledger.scan_cache.save(scan)
        ledger.commit()
    with closing(store.read()) as reader:
        assert reader.last_scan() == scan
    with closing(store.open(STAFF)) as ledger:
        marked(ledger, "mark")
        assert ledger.scan_cache.load_part(0) == Part(number=0, first_line=2, rows=b"packed")
        marked(ledger, "another")
        assert ledger.last_scan() is None
        assert ledger.scan_cache.load_part(0) is None


@pytest.fixture
def compared(ledger: Ledger) -> Ledger:
    """Of four rows, three are enrolled; one of them has no row any more. A sync compares them."""
    enroll(ledger, 1, 2, 3)
    ledger.commit()
    compare(ledger, 1, 2, 4)
    return ledger


def compare(ledger: Ledger, *numbers: int, people: set[str] | None = None) -> None:
    diff = ledger.diff
    diff.clear()
    diff.add_rows([scanned(number) for number in numbers])
    diff.match_photos(reread=False)
    diff.compare(now=1000, cutoff=0, withheld=BlockList(), people=people)
    diff.accept(1)
    ledger.commit()


def test_who_differs_is_compared_by_the_next_sync_and_nobody_else(compared: Ledger) -> None:
    assert compared.diff.people_to_compare(most=9) == {"u3", "u4"}
    assert compared.diff.people_to_compare(most=1) is None
    enroll(compared, 4)
    compared.commit()
    compare(compared, 4, people={"u3", "u4"})
    assert compared.diff.people_to_compare(most=9) == {"u3"}
    counted = compared.diff.counts()
    assert (counted.listed, counted.people, counted.newly_gone) == (3, 4, 0)


CHANGED: dict[str, Changes] = {
    "face": Changes(faces=[replace(face(1), code="ODD")]),
    "row": Changes(rows=[replace(row(1), code="ODD")]),
    "surplus": Changes(surplus=[Surplus(face_token=token(9), face_id=1, found_at=1, run=1)]),
}


@pytest.mark.parametrize("what", CHANGED)
def test_about_whom_anything_was_written_is_compared_by_the_next_sync(
    compared: Ledger, what: str
) -> None:
    compared.record(CHANGED[what])
    compared.commit()
    assert compared.diff.people_to_compare(most=9) == {"u1", "u3", "u4"}


def test_nobody_is_known_to_be_as_listed_before_a_sync_or_without_its_scan(
    compared: Ledger,
) -> None:
    marked(compared, "another")
    assert compared.diff.people_to_compare(most=9) is None


def marked(ledger: Ledger, mark: str) -> None:
    """A run begins whose scan has this mark."""
    ledger.start_run(replace(START, scan_mark=mark))


def test_a_person_who_was_forgotten_is_withheld_and_nothing_else_is_left_of_them(
    store: LedgerStore,
) -> None:
    with closing(store.open(STAFF)) as ledger:
        run = ledger.start_run(START)
        enroll(ledger, 1, 2)
        assert ledger.block_list == BlockList()
        ledger.forgetting.block(["u1"], at=5, run=run)
        ledger.commit()
        assert ledger.forgetting.unfinished() == 1
        ledger.deletions.confirm([token(1)], run=run)
        ledger.commit()
        ledger.forgetting.wipe(["u1"])
        ledger.forgetting.scrub(["u1"], at=6)
    with closing(store.open(STAFF)) as ledger:
        assert ledger.block_list.holds("u1")
        assert not ledger.block_list.holds("u2")
        assert ledger.forgetting.unfinished() == 0
        assert ledger.faces_of(["u1", "u2"]) == {"u1": [], "u2": [face(2)]}


# Rows, faces and runs


def test_what_was_committed_is_there_when_the_ledger_is_opened_again(store: LedgerStore) -> None:
    first = store.open(STAFF)
    first.start_run(replace(START, photo_root_named=True))
    enroll(first, 1)
    first.close()
    again = store.open(STAFF)
    assert again.faces_of(["u1"]) == {"u1": [face(1)]}
    assert again.named_photo_root == "/p"
    assert again.new_face_id() == 2
    again.close()


def test_what_was_recorded_and_not_committed_is_seen_here_and_lost_with_the_process(
    ledger: Ledger, store: LedgerStore
) -> None:
    ledger.record(Changes(faces=[face(1)]))
    assert ledger.faces_of(["u1"]) == {"u1": [face(1)]}
    reader = store.read()
    assert reader.status().counts == {}
    reader.close()


def test_a_later_change_of_the_same_face_wins(ledger: Ledger) -> None:
    ledger.record(Changes(faces=[face(1, Status.SENDING)]))
    ledger.record(Changes(faces=[face(1)]))
    ledger.commit()
    assert ledger.faces_of(["u1"]) == {"u1": [face(1)]}


def test_every_field_of_a_face_survives(ledger: Ledger) -> None:
    full = FaceRecord(
        face_id=9,
        user_id="u9",
        sha256=sha(9),
        status=Status.IN_DOUBT,
        face_token=None,
        attempts=3,
        first_attempt_at=7,
        code="TIMEOUT",
        message="späť",
        request_id="r",
        sent_sha256=sha(8),
        prepared="turned",
        user_data="李雷",
        multi_oriented_detection=True,
        expires=12.5,
        enrolled_at=None,
        run=4,
    )
    ledger.record(Changes(faces=[full]))
    ledger.commit()
    assert ledger.faces_of(["u9"]) == {"u9": [full]}


def test_rows_that_are_enrolled_and_unchanged_are_no_candidates(ledger: Ledger) -> None:
    enroll(ledger, 1, 2)
    found = ledger.due_rows.compare([scanned(1), scanned(2), scanned(3)], run=1)
    assert (found.unchanged, found.gone, found.user_data_changed) == (2, 0, 0)
    assert [(one.row.user_id, one.status) for one in found.candidates] == [("u3", Status.PENDING)]


@pytest.mark.parametrize(
    "times", [FileTimes(11, 20, 30), FileTimes(10, 21, 30), FileTimes(10, 20, 31)]
)
def test_a_photo_with_other_times_is_a_candidate(ledger: Ledger, times: FileTimes) -> None:
    enroll(ledger, 1)
    (found,) = ledger.due_rows.compare([scanned(1, times=times)], run=1).candidates
    assert found.changed
    assert (found.status, found.face_id) == (Status.ENROLLED, 1)


def test_a_row_whose_photo_was_read_with_other_content_since_is_a_candidate(
    ledger: Ledger,
) -> None:
    enroll(ledger, 1)
    other = replace(photo(1), sha256=sha(7))  # another row of the same path has seen it
    ledger.record(Changes(photos=[other]))
    (found,) = ledger.due_rows.compare([scanned(1)], run=1).candidates
    assert found.changed


def test_everything_is_a_candidate_when_photos_are_to_be_read_again(ledger: Ledger) -> None:
    enroll(ledger, 1)
    assert len(ledger.due_rows.compare([scanned(1)], run=1, reread=True).candidates) == 1


def test_an_enrolled_row_whose_photo_is_gone_stays_enrolled(ledger: Ledger) -> None:
    enroll(ledger, 1)
    found = ledger.due_rows.compare([scanned(1, times=None)], run=1)
    assert (found.gone, found.unchanged, list(found.candidates)) == (1, 0, [])


def test_another_user_data_is_counted_only(ledger: Ledger) -> None:
    enroll(ledger, 1)
    found = ledger.due_rows.compare([scanned(1, user_data="new")], run=1)
    assert (found.unchanged, found.user_data_changed) == (1, 1)


def test_a_row_that_stands_twice_in_a_chunk_is_one_candidate_of_two_lines(
    ledger: Ledger,
) -> None:
    twice = [scanned(1), replace(scanned(1), line=9)]
    (found,) = ledger.due_rows.compare(twice, run=1).candidates
    assert (found.lines, found.row.line) == (2, 2)


def test_rows_seen_for_the_first_time_are_pending_unless_only_planned(
    ledger: Ledger,
) -> None:
    ledger.due_rows.compare([scanned(1)], run=None)
    ledger.commit()
    assert ledger.status().counts == {}
    ledger.due_rows.compare([scanned(1)], run=1)
    ledger.commit()
    assert ledger.status().counts == {Status.PENDING: 1}


def test_rows_left_due_are_queued_before_a_scan_unless_they_break_a_rule(
    store: LedgerStore,
) -> None:
    with closing(store.open(STAFF)) as ledger:
        run = ledger.start_run(replace(START, scan_mark="mark"))
        ledger.due_rows.compare([scanned(number) for number in (1, 2, 3)], run=run)
        ledger.commit()
    with closing(store.open(STAFF)) as ledger:
        marked(ledger, "mark")
        due_rows = ledger.due_rows
        assert due_rows.add_early("another", is_good=lambda _: True) == 0
        assert due_rows.add_early("mark", is_good=lambda row: row.user_id != "u2") == 2
        found = due_rows.compare([scanned(number) for number in (1, 2, 3, 4)], run=1)
        assert [one.row.user_id for one in found.candidates] == ["u2", "u4"]
        assert found.early == 2
        due_rows.add(found.candidates)
        assert [one.row.user_id for one in due_rows.take(9)] == ["u1", "u3", "u2", "u4"]


def test_due_rows_come_back_in_order_and_once(ledger: Ledger) -> None:
    rows = [scanned(number) for number in (3, 1, 2)]
    ledger.due_rows.add(ledger.due_rows.compare(rows, run=1).candidates)
    taken = ledger.due_rows.take(2) + ledger.due_rows.take(2) + ledger.due_rows.take(2)
    assert [due.row.line for due in taken] == [2, 3, 4]


def test_entries_say_what_a_row_came_to(ledger: Ledger) -> None:
    enroll(ledger, 1)
    failed = RowRecord(
        user_id="u2",
        path="/p/2.jpg",
        user_data="d",
        status=Status.FAILED,
        code="PHOTO_MISSING",
        message="not there",
    )
    ledger.record(Changes(rows=[failed]))
    ledger.commit()
    one, two, none = ledger.entries_of([("u1", "/p/1.jpg"), ("u2", "/p/2.jpg"), ("u3", "/p/3")])
    assert none is None
    assert one is not None
    assert (one.status, one.face_token, one.image, one.sha256, one.enrolled_at) == (
        Status.ENROLLED,
        token(1),
        "1.jpg",
        sha(1).hex(),
        "1970-01-01T00:00:05Z",
    )
    assert two is not None
    assert (two.status, two.error, two.message) == (Status.FAILED, "PHOTO_MISSING", "not there")


def test_significant_digits_are_of_people_with_a_face(ledger: Ledger) -> None:
    faces = [
        face(number, status, user_id)
        for number, (user_id, status) in enumerate(
            [
                ("0012", Status.ENROLLED),
                ("0012", Status.ENROLLED),
                ("u1", Status.ENROLLED),
                ("１２", Status.ENROLLED),
                ("34", Status.REJECTED),
                ("", Status.ENROLLED),
            ],
            start=1,
        )
    ]
    ledger.record(Changes(faces=faces))
    ledger.commit()
    assert {one for some in ledger.significant_digits() for one in some} == {"12"}


def test_an_export_has_each_face_once_and_rows_without_a_face(ledger: Ledger) -> None:
    enroll(ledger, 1)
    renamed = replace(row(1), path="/p/other.jpg")
    waiting = RowRecord(user_id="u2", path="/p/2.jpg", user_data="", status=Status.PENDING)
    ledger.record(Changes(rows=[renamed, waiting], faces=[face(5, Status.REJECTED)]))
    ledger.commit()
    everything = list(ledger.entries())
    assert [(one.user_id, one.status) for one in everything] == [
        ("u1", Status.ENROLLED),
        ("u5", Status.REJECTED),
        ("u2", Status.PENDING),
    ]
    assert [one.user_id for one in ledger.entries([Status.PENDING])] == ["u2"]


def test_status_counts_entries_and_their_errors(ledger: Ledger) -> None:
    enroll(ledger, 1, 2)
    rejected = [replace(face(n, Status.REJECTED), code="NO_FACE_FOUND") for n in (3, 4)]
    lost = RowRecord(
        user_id="u5", path="/p/5", user_data="", status=Status.FAILED, code="PHOTO_MISSING"
    )
    ledger.record(Changes(faces=rejected, rows=[lost]))
    ledger.commit()
    status = ledger.status()
    assert status.counts == {Status.ENROLLED: 2, Status.REJECTED: 2, Status.FAILED: 1}
    assert [(error.code, error.count) for error in status.errors] == [
        ("NO_FACE_FOUND", 2),
        ("PHOTO_MISSING", 1),
    ]


def test_a_run_is_remembered_with_its_end(ledger: Ledger) -> None:
    end = RunEnd(at=2_000, exit_code=1, reason="", calls={"add": 3}, rows={"enrolled": 2}, limit=8)
    ledger.end_run(1, end)
    (found,) = ledger.status().runs
    assert ledger.runs(1) == [found]
    assert (found.start, found.end) == (START, end)


def test_what_a_dead_run_left_sending_is_in_doubt_and_in_the_history(store: LedgerStore) -> None:
    died = store.open(STAFF)
    died.start_run(START)
    died.record(Changes(faces=[face(1, Status.SENDING), face(2)]))
    died.commit()
    died.close()
    ledger = store.open(STAFF)
    assert ledger.start_run(START) == 2
    (left,) = ledger.faces_of(["u1"])["u1"]
    assert (left.status, left.code) == (Status.IN_DOUBT, INTERRUPTED)
    ((event, user_id),) = ledger.history()
    assert (event.kind, event.run, user_id) == (EventKind.IN_DOUBT, 2, "u1")
    ledger.close()


def begun(ledger: Ledger, at: float, *, timeout: float) -> None:
    """A run begins at that second, whose calls take no longer than `timeout` seconds."""
    start = replace(START, at=round(at * 1000), timeout=timeout)
    ledger.start_run(start, offsets=ClockOffsets())


def test_no_expiry_on_record_lies_beyond_what_a_call_can_have_been_signed_for(
    store: LedgerStore,
) -> None:
    ledger = store.open(STAFF)
    begun(ledger, 1000, timeout=600.0)
    far = [
        replace(face(1, Status.IN_DOUBT), expires=4e9),
        replace(face(2), recheck=True, expires=4e9),
        replace(face(3, Status.IN_DOUBT), expires=2500.0),
    ]
    ledger.record(Changes(faces=far))
    ledger.commit()

    def expiries() -> list[float | None]:
        faces = ledger.faces_of(["u1", "u2", "u3"])
        return [faces[user_id][0].expires for user_id in ("u1", "u2", "u3")]

    begun(ledger, 2000, timeout=5.0)  # the earlier run's calls took longer
    bound = latest_expiry(2000, timeout=600.0)
    assert expiries() == [bound, bound, 2500.0]
    begun(ledger, 3000, timeout=5.0)
    assert expiries() == [bound, bound, 2500.0]
    ledger.close()


@pytest.mark.parametrize("offset", [4e9, -4e9, 300.0])
def test_a_killed_runs_calls_are_reckoned_by_the_highest_offset_of_its_last_commit(
    store: LedgerStore, offset: float
) -> None:
    ledger = store.open(STAFF)
    begun(ledger, 1000, timeout=5.0)
    ledger.record(Changes(faces=[face(1, Status.SENDING)]))
    ledger.commit(offsets=ClockOffsets(least=-4e9, most=offset))
    alive_at = ledger.status().runs[0]
    begun(ledger, time.time(), timeout=5.0)
    (left,) = ledger.faces_of(["u1"])["u1"]
    expected = expiry_after_death(time.time() + max(bounded_offset(offset), 0.0), timeout=5.0)
    assert left.expires == pytest.approx(expected, abs=30)
    assert alive_at.offsets.most == max(bounded_offset(offset), 0.0)
    ledger.close()


def test_a_run_keeps_the_lowest_and_the_highest_that_it_has_judged_the_clock_to_be(
    ledger: Ledger,
) -> None:
    for least, most in ((-1.0, 2.0), (-3.0, -3.0), (5.0, 6.0)):
        ledger.commit(offsets=ClockOffsets(least=least, most=most))
    ledger.commit()
    assert ledger.status().runs[0].offsets == ClockOffsets(least=-3.0, most=6.0)
    # A command that has not asked the service goes by what was known before it.
    ledger.start_run(START)
    assert ledger.status().runs[0].offsets == ClockOffsets(least=-3.0, most=6.0)
    ledger.start_run(START, offsets=ClockOffsets(least=1.0, most=1.0))
    assert ledger.status().runs[0].offsets == ClockOffsets(least=1.0, most=1.0)


def test_what_later_commands_rely_on_is_kept_with_a_run(store: LedgerStore) -> None:
    start = replace(
        START,
        command="adopt",
        endpoint="https://host/api",
        timeout=7.5,
        send_as=SendAs.IMAGE,
        settle_after=2.5,
        scan_mark="mark",
        photo_root="/p",
        photo_root_named=True,
        files={"the report": "/r.csv"},
    )
    with closing(store.open(STAFF)) as ledger:
        ledger.start_run(start)
        assert ledger.unfinished("adopt")
        assert not ledger.unfinished("run")
        assert ledger.photo_root_of(START.manifest) == ("/p", True)
        assert ledger.status().runs[0].start == start


def test_the_history_can_be_asked_by_person_time_and_run(ledger: Ledger) -> None:
    enroll(ledger, 1, 2)
    events = [
        Event(at=100, kind=EventKind.ENROLLED, run=1, face_id=1, face_token=token(1)),
        Event(at=200, kind=EventKind.SUPERSEDED, run=1, face_id=1, face_token=token(1)),
        Event(at=300, kind=EventKind.ENROLLED, run=1, face_id=2, face_token=token(2)),
    ]
    ledger.record(Changes(events=events))
    ledger.commit()
    assert [event for event, _ in ledger.history()] == events
    assert [event.at for event, _ in ledger.history(user_id="u1")] == [100, 200]
    assert [event.at for event, _ in ledger.history(since=200)] == [200, 300]
    assert list(ledger.history(run=2)) == []


def test_a_face_that_no_row_points_to_is_superseded(ledger: Ledger) -> None:
    enroll(ledger, 1)
    newer = replace(face(2), user_id="u1")
    ledger.record(Changes(faces=[newer], rows=[replace(row(1), face_id=2, sha256=sha(2))]))
    assert ledger.supersede(at=1, run=1) == 1
    ledger.commit()
    assert [one.status for one in ledger.faces_of(["u1"])["u1"]] == [
        Status.SUPERSEDED,
        Status.ENROLLED,
    ]
    assert [event.kind for event, _ in ledger.history()] == [EventKind.SUPERSEDED]


def test_a_photo_of_two_people_is_counted_when_this_run_enrolled_one_of_them(
    ledger: Ledger,
) -> None:
    enroll(ledger, 1)
    changes = Changes(
        faces=[replace(face(2), sha256=sha(1), run=2)],
        rows=[replace(row(2), sha256=sha(1))],
    )
    ledger.record(changes)
    assert ledger.shared_photos(2) == 1
    assert ledger.shared_photos(3) == 0
    (example,) = ledger.examples_of_shared(2, most=3)
    assert (example.user_ids, example.people) == (("u1", "u2"), 2)
    assert example.path == "1.jpg"  # relative to the images root
    assert ledger.examples_of_shared(3, most=3) == []


def test_the_holders_of_tokens_are_known(ledger: Ledger) -> None:
    enroll(ledger, 1)
    assert ledger.holders_of([token(1), token(2)]) == {token(1): 1}
    ledger.record(Changes(surplus=[Surplus(face_token=token(9), face_id=1, found_at=1, run=1)]))
    ledger.commit()
    faces = ledger.faces_with([token(1), token(2), token(9)])
    assert {one: face.face_token for one, face in faces.items()} == {
        token(1): token(1),
        token(9): token(1),
    }
    assert ledger.faces_with([]) == {}


def test_folders_with_known_photos_are_known(ledger: Ledger) -> None:
    enroll(ledger, 1)
    assert ledger.knows_photos_below("/p")
    assert not ledger.knows_photos_below("/p/deeper")
    assert ledger.knows_photos_below("/")


def test_a_ledger_of_another_library_is_refused(store: LedgerStore) -> None:
    store.open(STAFF).close()
    with pytest.raises(LedgerMismatchError, match="to the library staff at host, not to guests"):
        store.open(replace(STAFF, group_id="guests"))


def test_a_library_that_was_made_anew_under_the_old_name_is_another(store: LedgerStore) -> None:
    store.open(STAFF).close()
    with pytest.raises(LedgerMismatchError, match="was created at 2026-02-02") as refused:
        store.open(replace(STAFF, add_time="2026-02-02"))
    assert "stand-in" not in str(refused.value)


def test_a_killed_runs_call_expires_no_earlier_than_its_intent_says(
    store: LedgerStore,
) -> None:
    ledger = store.open(STAFF)
    begun(ledger, time.time() - 100, timeout=5.0)
    intended = time.time() + 60.0
    ledger.record(Changes(faces=[replace(face(1, Status.SENDING), expires=intended)]))
    ledger.commit()
    begun(ledger, time.time(), timeout=5.0)
    (left,) = ledger.faces_of(["u1"])["u1"]
    assert (left.status, left.expires) == (Status.IN_DOUBT, intended)
    ledger.close()


def test_the_course_of_a_run_is_read_as_it_was_noted(ledger: Ledger, store: LedgerStore) -> None:
    course = [(0.5, 2.0, 3, 0), (1.0, 4.5, 9, 1)]
    ledger.note_pace(RunPace(limit=8, in_flight=4, calls=9, refused=1), course)
    ledger.commit()
    with closing(store.read()) as reader:
        (run,) = reader.runs()
    assert run.course == course
    assert run.pace == RunPace(limit=8, in_flight=4, calls=9, refused=1)


def test_photos_that_are_enrolled_for_several_people_are_known(ledger: Ledger) -> None:
    enroll(ledger, 1, 2)
    assert ledger.repeated_photos(most=5) == []
    same = replace(face(3), sha256=sha(1))
    other = replace(face(4, Status.REJECTED), sha256=sha(2))
    ledger.record(Changes(faces=[same, other]))
    ledger.commit()
    assert ledger.repeated_photos(most=5) == [sha(1).hex()]
    assert ledger.repeated_photos(most=0) == []


def test_photos_are_known_by_the_code_that_their_rows_failed_with(ledger: Ledger) -> None:
    def row(user_id: str, path: str, status: Status, code: str) -> RowRecord:
        return RowRecord(user_id=user_id, path=path, user_data="", status=status, code=code)

    rows = [
        row("u1", "/p/1.jpg", Status.FAILED, "PHOTO_WORKERS_LOST"),
        row("u2", "/p/1.jpg", Status.FAILED, "PHOTO_WORKERS_LOST"),
        row("u3", "/p/3.jpg", Status.FAILED, "PHOTO_MISSING"),
        row("u4", "/p/4.jpg", Status.PENDING, ""),
    ]
    ledger.record(Changes(rows=rows))
    ledger.commit()
    assert ledger.photos_failed_with("PHOTO_WORKERS_LOST") == ["/p/1.jpg"]
    assert ledger.photos_failed_with("PHOTO_TOO_SLOW") == []


# What searches with photos have found wrong


def like(number: int, kind: FindingKind = FindingKind.LOOKALIKE, score: float = 90.0) -> Finding:
    return Finding(kind=kind, other_token=token(number), other_user_id=f"u{number}", score=score)


def searched(number: int, *findings: Finding, held: bool = False) -> Searched:
    own = None if held else token(number)
    return Searched(face_id=number, face_token=own, at=7, run=1, findings=findings)


def found(ledger: Ledger) -> list[tuple[str, str, str, float | None]]:
    return [
        (pair.user_id, pair.finding.kind, pair.finding.other_user_id, pair.finding.score)
        for pair in ledger.pairs()
    ]


def test_a_finding_names_both_faces_and_what_both_searches_find_comes_once(
    ledger: Ledger,
) -> None:
    enroll(ledger, 1, 2, 3)
    both = [searched(1, like(2, score=91.5)), searched(2, like(1, score=91.5))]
    stranger = Finding(
        kind=FindingKind.LOOKALIKE, other_token=token(99), other_user_id="x", score=95.0
    )
    ledger.record(Changes(searched=[*both, searched(3, stranger)]))
    ledger.commit()
    other, pair = ledger.pairs()
    assert (other.user_id, other.finding, other.other_image) == ("u3", stranger, "")
    assert (pair.user_id, pair.finding) == ("u1", like(2, score=91.5))
    assert (pair.image, pair.other_image) == ("1.jpg", "2.jpg")
    assert (pair.face_token, pair.status, pair.at) == (token(1), Status.ENROLLED, 7)


def test_a_later_search_replaces_what_an_earlier_one_has_found(ledger: Ledger) -> None:
    enroll(ledger, 1, 2, 3)
    ledger.record(Changes(searched=[searched(1, like(2), like(3))]))
    ledger.commit()
    ledger.record(Changes(searched=[searched(1, like(3))]))
    ledger.commit()
    assert found(ledger) == [("u1", "lookalike", "u3", 90.0)]


@pytest.mark.parametrize("gone", [1, 2])
def test_a_finding_ends_with_either_of_its_faces(ledger: Ledger, gone: int) -> None:
    enroll(ledger, 1, 2)
    ledger.record(Changes(searched=[searched(1, like(2))]))
    ledger.commit()
    ledger.deletions.confirm([token(gone)], run=1)
    ledger.commit()
    assert found(ledger) == []


def test_a_held_photo_is_due_again_once_all_that_it_resembles_is_accepted(ledger: Ledger) -> None:
    enroll(ledger, 1, 2)
    ledger.record(
        Changes(
            faces=[face(3, Status.HELD)],
            rows=[row(3)],
            searched=[searched(3, like(1), like(2, score=88.0), held=True)],
        )
    )
    ledger.commit()
    assert ledger.findings.accept("u3", "u2", at=8, run=1) == 0
    assert found(ledger) == [("u3", "lookalike", "u1", 90.0)]
    assert ledger.findings.accept("u1", "u3", at=9, run=1) == 1
    ledger.commit()
    assert found(ledger) == []
    assert ledger.faces_of(["u3"])["u3"][0].status is Status.PENDING
    assert ledger.findings.accepted(["u3"]) == {("u1", "u3"), ("u2", "u3")}
    assert ledger.findings.accepted(["u2"]) == {("u2", "u3")}
    events = [(user_id, event.detail) for event, user_id in ledger.history()]
    assert sorted(events[-4:]) == [("u1", "u3"), ("u2", "u3"), ("u3", "u1"), ("u3", "u2")]


def test_who_is_held_for_each_others_faces_is_known_as_long_as_rows_lead_there(
    ledger: Ledger,
) -> None:
    enroll(ledger, 1, 2, 3)
    ledger.record(
        Changes(
            faces=[face(10 + n, Status.HELD, user_id=f"u{n}") for n in (1, 2, 3)],
            rows=[row(10 + n, f"u{n}") for n in (1, 2, 3)],
            searched=[
                searched(10 + n, like(other, FindingKind.UNLIKE_BEFORE), held=True)
                for n, other in ((1, 2), (2, 1), (3, 1))
            ],
        )
    )
    ledger.commit()
    assert [(one.user_id, other) for one, other in ledger.findings.swapped()] == [
        ("u1", "u2"),
        ("u2", "u1"),
    ]
    replaced = replace(row(12, "u2"), face_id=2)
    ledger.record(Changes(rows=[replaced]))
    assert ledger.findings.swapped() == []
    assert "u2" not in [pair.user_id for pair in ledger.pairs()]


def test_two_photos_of_one_person_may_be_accepted_as_unlike(ledger: Ledger) -> None:
    enroll(ledger, 1)
    other = face(2, user_id="u1")
    own = Finding(kind=FindingKind.UNLIKE, other_token=token(2), other_user_id="u1", score=None)
    ledger.record(Changes(faces=[other], rows=[row(2, "u1")], searched=[searched(1, own)]))
    ledger.commit()
    assert found(ledger) == [("u1", "unlike", "u1", None)]
    ledger.findings.accept("u1", "u1", at=8, run=1)
    assert found(ledger) == []


def test_a_face_is_audited_once_until_it_has_another_token(ledger: Ledger) -> None:
    enroll(ledger, 1, 2, 3)
    ledger.record(Changes(searched=[searched(1, like(2)), searched(2)]))
    ledger.commit()
    assert list(ledger.findings.to_audit(again=False)) == [3]
    assert list(ledger.findings.to_audit(again=True)) == [1, 2, 3]
    assert list(ledger.findings.to_audit(again=True, people=["u2", "u3", "nobody"])) == [2, 3]
    assert [one.user_id for one in ledger.findings.faces([3, 1])] == ["u1", "u3"]
    assert ledger.audits() == AuditCounts(audited=2, findings={FindingKind.LOOKALIKE: 1})
    ledger.findings.audit_again([2])
    renewed = replace(ledger.faces_of(["u1"])["u1"][0], face_token=token(91))
    ledger.record(Changes(faces=[renewed]))
    ledger.commit()
    assert list(ledger.findings.to_audit(again=False)) == [1, 2, 3]
    assert ledger.audits() == AuditCounts(audited=0, findings={})


def test_only_enrolled_faces_are_audited_and_of_a_run_those_that_got_a_token_by_it(
    ledger: Ledger,
) -> None:
    enroll(ledger, 1, 2, 3)
    of_run_2 = Event(
        at=5, kind=EventKind.ENROLLED, run=1, face_id=2, face_token=token(2), detail=""
    )
    superseded = replace(ledger.faces_of(["u3"])["u3"][0], status=Status.SUPERSEDED)
    ledger.record(Changes(faces=[superseded], events=[of_run_2], searched=[searched(3)]))
    ledger.commit()
    assert list(ledger.findings.to_audit(again=True)) == [1, 2]
    assert list(ledger.findings.to_audit(again=False, run=1)) == [2]
    assert list(ledger.findings.to_audit(again=False, run=2)) == []
    assert ledger.audits().audited == 0
    assert ledger.status().not_audited == 2


def test_a_face_that_is_not_found_itself_is_a_finding_whatever_else_changes(
    ledger: Ledger,
) -> None:
    enroll(ledger, 1, 2)
    ledger.record(Changes(searched=[searched(1, like(2, FindingKind.NOT_ITSELF))]))
    ledger.findings.accept("u1", "u2", at=8, run=1)
    ledger.deletions.confirm([token(2)], run=1)
    ledger.commit()
    assert found(ledger) == [("u1", "not_itself", "u2", 90.0)]
    ledger.deletions.confirm([token(1)], run=1)
    ledger.commit()
    assert found(ledger) == []


def test_who_is_forgotten_is_in_no_finding_and_no_accepted_pair(ledger: Ledger) -> None:
    enroll(ledger, 1, 2, 3)
    ledger.record(Changes(searched=[searched(1, like(2), like(3))]))
    ledger.findings.accept("u1", "u2", at=8, run=1)
    ledger.findings.accept("u1", "u3", at=8, run=1)
    ledger.commit()
    ledger.forgetting.block(["u2"], at=9, run=1)
    ledger.forgetting.wipe(["u2"])
    assert ledger.findings.accepted(["u1", "u2"]) == {("u1", "u3")}
    assert [event.detail for event, _ in ledger.history() if event.kind is EventKind.ACCEPTED] in (
        ["u3", "u1"],
        ["u1", "u3"],
    )
