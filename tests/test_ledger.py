"""The ledger: real SQLite files, made, refused, written in groups, read while written."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import characters, text

from enroll import clock
from enroll.errors import ExitCode, LedgerBusyError, LedgerMismatchError, LocalError, UsageError
from enroll.expiry import bounded_offset, expiry_after_death, latest_expiry
from enroll.ledger import (
    INTERRUPTED,
    Changes,
    LibraryIdentity,
    RunEnd,
    RunStart,
    read_ledger,
)
from enroll.ledger.connection import Access, connect
from enroll.ledger.journal import SqliteLedger
from enroll.ledger.lock import LedgerLock, holder_of
from enroll.ledger.schema import SCHEMA_VERSION
from enroll.ledger.store import SqliteStore
from enroll.model import (
    Event,
    EventKind,
    FaceRecord,
    FileTimes,
    PhotoRecord,
    RowRecord,
    ScannedRow,
    Status,
)

STAFF = LibraryIdentity(host="host", group_id="staff", add_time="2026-01-01T00:00:00Z")
TIMES = FileTimes(10, 20, 30)
START = RunStart(
    at=1_000,
    host="h",
    user="u",
    pid=1,
    version="0",
    manifest="/m.csv",
    manifest_sha256="00",
    options={"limit": 3},
)


def token(number: int) -> str:
    return f"{number:032x}"


def sha(number: int) -> bytes:
    return bytes([number]) * 32


def face(number: int, status: Status = Status.ENROLLED, user_id: str = "") -> FaceRecord:
    return FaceRecord(
        face_id=number,
        user_id=user_id or f"u{number}",
        sha256=sha(number),
        status=status,
        face_token=token(number) if status is Status.ENROLLED else None,
        enrolled_at=5_000 if status is Status.ENROLLED else None,
        user_data="data",
        run=1,
    )


def row(number: int, user_id: str = "", face_id: int | None = None) -> RowRecord:
    return RowRecord(
        user_id=user_id or f"u{number}",
        path=f"/p/{number}.jpg",
        user_data="data",
        face_id=face_id or number,
        sha256=sha(number),
        run=1,
    )


def photo(number: int, times: FileTimes = TIMES) -> PhotoRecord:
    return PhotoRecord(path=f"/p/{number}.jpg", times=times, sha256=sha(number))


def scanned(number: int, *, times: FileTimes | None = TIMES, user_data: str = "data") -> ScannedRow:
    return ScannedRow(
        line=number + 1,
        user_id=f"u{number}",
        user_data=user_data,
        image=f"{number}.jpg",
        path=f"/p/{number}.jpg",
        times=times,
    )


def enroll(ledger: SqliteLedger, *numbers: int) -> None:
    for number in numbers:
        ledger.record(Changes(faces=[face(number)], rows=[row(number)], photos=[photo(number)]))
    ledger.commit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteStore(path).open(STAFF)
    opened.start_run(START, images="/p", given=False)
    yield opened
    opened.close()


def test_what_was_committed_is_there_when_the_ledger_is_opened_again(path: Path) -> None:
    first = SqliteStore(path).open(STAFF)
    first.start_run(START, images="/p", given=True)
    enroll(first, 1)
    first.close()
    again = SqliteStore(path).open(STAFF)
    assert again.faces_of(["u1"]) == {"u1": [face(1)]}
    assert again.images_given == "/p"
    assert again.new_face_id() == 2
    again.close()


def test_what_was_recorded_and_not_committed_is_seen_here_and_lost_with_the_process(
    ledger: SqliteLedger, path: Path
) -> None:
    ledger.record(Changes(faces=[face(1)]))
    assert ledger.faces_of(["u1"]) == {"u1": [face(1)]}
    reader = read_ledger(path)
    assert reader.status().counts == {}
    reader.close()


def test_writing_is_durable_and_in_wal(ledger: SqliteLedger, path: Path) -> None:
    assert ledger._connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    assert ledger._connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    ledger.commit()
    enroll(ledger, 1)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_later_change_of_the_same_face_wins(ledger: SqliteLedger) -> None:
    ledger.record(Changes(faces=[face(1, Status.SENDING)]))
    ledger.record(Changes(faces=[face(1)]))
    ledger.commit()
    assert ledger.faces_of(["u1"]) == {"u1": [face(1)]}


def test_every_field_of_a_face_survives(ledger: SqliteLedger) -> None:
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


def test_rows_that_are_enrolled_and_unchanged_are_no_candidates(ledger: SqliteLedger) -> None:
    enroll(ledger, 1, 2)
    found = ledger.compare([scanned(1), scanned(2), scanned(3)], run=1)
    assert (found.unchanged, found.gone, found.user_data_changed) == (2, 0, 0)
    assert [(one.row.user_id, one.status) for one in found.candidates] == [("u3", Status.PENDING)]


@pytest.mark.parametrize(
    "times", [FileTimes(11, 20, 30), FileTimes(10, 21, 30), FileTimes(10, 20, 31)]
)
def test_a_photo_with_other_times_is_a_candidate(ledger: SqliteLedger, times: FileTimes) -> None:
    enroll(ledger, 1)
    (found,) = ledger.compare([scanned(1, times=times)], run=1).candidates
    assert found.changed
    assert (found.status, found.face_id) == (Status.ENROLLED, 1)


def test_a_row_whose_photo_was_read_with_other_content_since_is_a_candidate(
    ledger: SqliteLedger,
) -> None:
    enroll(ledger, 1)
    other = replace(photo(1), sha256=sha(7))  # another row of the same path has seen it
    ledger.record(Changes(photos=[other]))
    (found,) = ledger.compare([scanned(1)], run=1).candidates
    assert found.changed


def test_everything_is_a_candidate_when_photos_are_to_be_read_again(ledger: SqliteLedger) -> None:
    enroll(ledger, 1)
    assert len(ledger.compare([scanned(1)], run=1, reread=True).candidates) == 1


def test_an_enrolled_row_whose_photo_is_gone_stays_enrolled(ledger: SqliteLedger) -> None:
    enroll(ledger, 1)
    found = ledger.compare([scanned(1, times=None)], run=1)
    assert (found.gone, found.unchanged, list(found.candidates)) == (1, 0, [])


def test_another_user_data_is_counted_only(ledger: SqliteLedger) -> None:
    enroll(ledger, 1)
    found = ledger.compare([scanned(1, user_data="new")], run=1)
    assert (found.unchanged, found.user_data_changed) == (1, 1)


def test_a_row_that_stands_twice_in_a_chunk_is_one_candidate_of_two_lines(
    ledger: SqliteLedger,
) -> None:
    twice = [scanned(1), replace(scanned(1), line=9)]
    (found,) = ledger.compare(twice, run=1).candidates
    assert (found.lines, found.row.line) == (2, 2)


def test_rows_seen_for_the_first_time_are_pending_unless_only_planned(
    ledger: SqliteLedger,
) -> None:
    ledger.compare([scanned(1)], run=None)
    ledger.commit()
    assert ledger.status().counts == {}
    ledger.compare([scanned(1)], run=1)
    ledger.commit()
    assert ledger.status().counts == {Status.PENDING: 1}


def test_due_rows_come_back_in_order_and_once(ledger: SqliteLedger) -> None:
    rows = [scanned(number) for number in (3, 1, 2)]
    ledger.queue(ledger.compare(rows, run=1).candidates)
    taken = ledger.next_due(2) + ledger.next_due(2) + ledger.next_due(2)
    assert [due.row.line for due in taken] == [2, 3, 4]


def test_entries_say_what_a_row_came_to(ledger: SqliteLedger) -> None:
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


def test_finding_rows_entries_takes_no_longer_in_a_larger_ledger(ledger: SqliteLedger) -> None:
    # The results of a million rows would else take minutes.
    driver = ledger._connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    taken = []
    for numbers in (range(1, 21), range(21, 241)):
        enroll(ledger, *numbers)
        driver.set_progress_handler(step, 1)
        found = ledger.entries_of([(f"u{n}", f"/p/{n}.jpg") for n in range(1, 11)])
        driver.set_progress_handler(None, 1)
        assert all(entry and entry.face_token for entry in found)
        taken.append(steps)
        steps = 0
    assert 0 < taken[1] < 1.5 * taken[0]


def test_an_export_has_each_face_once_and_rows_without_a_face(ledger: SqliteLedger) -> None:
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


def test_status_counts_entries_and_their_errors(ledger: SqliteLedger) -> None:
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


def test_a_run_is_remembered_with_its_end(ledger: SqliteLedger) -> None:
    end = RunEnd(at=2_000, exit_code=1, reason="", calls={"add": 3}, rows={"enrolled": 2}, limit=8)
    ledger.end_run(1, end)
    (found,) = ledger.status().runs
    assert (found.start, found.end) == (START, end)


def test_what_a_dead_run_left_sending_is_in_doubt_and_in_the_history(path: Path) -> None:
    died = SqliteStore(path).open(STAFF)
    died.start_run(START, images="/p", given=False)
    died.record(Changes(faces=[face(1, Status.SENDING), face(2)]))
    died.commit()
    died.close()
    ledger = SqliteStore(path).open(STAFF)
    assert ledger.start_run(START, images="/p", given=False) == 2
    (left,) = ledger.faces_of(["u1"])["u1"]
    assert (left.status, left.code) == (Status.IN_DOUBT, INTERRUPTED)
    ((event, user_id),) = ledger.history()
    assert (event.kind, event.run, user_id) == (EventKind.IN_DOUBT, 2, "u1")
    ledger.close()


def begun(ledger: SqliteLedger, at: float, **options: object) -> None:
    """A run begins at that second."""
    start = replace(START, at=round(at * 1000), options=options)
    ledger.start_run(start, images="/p", given=False, clock_offset=0.0)


def test_no_expiry_on_record_lies_beyond_what_a_call_can_have_been_signed_for(path: Path) -> None:
    ledger = SqliteStore(path).open(STAFF)
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
    path: Path, offset: float
) -> None:
    ledger = SqliteStore(path).open(STAFF)
    begun(ledger, 1000, timeout=5.0)
    ledger.record(Changes(faces=[face(1, Status.SENDING)]))
    ledger.commit(clock_offset=offset)
    alive_at = ledger.status().runs[0]
    begun(ledger, time.time(), timeout=5.0)
    (left,) = ledger.faces_of(["u1"])["u1"]
    expected = expiry_after_death(time.time() + bounded_offset(offset), timeout=5.0)
    assert left.expires == pytest.approx(expected, abs=30)
    assert alive_at.clock_offset == bounded_offset(offset)
    ledger.close()


def test_the_history_can_be_asked_by_person_time_and_run(ledger: SqliteLedger) -> None:
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


def test_a_face_that_no_row_points_to_is_superseded(ledger: SqliteLedger) -> None:
    enroll(ledger, 1)
    newer = replace(face(2), user_id="u1")
    ledger.record(Changes(faces=[newer], rows=[replace(row(1), face_id=2, sha256=sha(2))]))
    assert ledger.supersede(["u1"], at=1, run=1) == 1
    ledger.commit()
    assert [one.status for one in ledger.faces_of(["u1"])["u1"]] == [
        Status.SUPERSEDED,
        Status.ENROLLED,
    ]
    assert [event.kind for event, _ in ledger.history()] == [EventKind.SUPERSEDED]


def test_a_photo_of_two_people_is_counted_when_this_run_enrolled_one_of_them(
    ledger: SqliteLedger,
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


def test_the_holders_of_tokens_are_known(ledger: SqliteLedger) -> None:
    enroll(ledger, 1)
    assert ledger.holders_of([token(1), token(2)]) == {token(1): 1}


def test_folders_with_known_photos_are_known(ledger: SqliteLedger) -> None:
    enroll(ledger, 1)
    assert ledger.knows_photos_below("/p")
    assert not ledger.knows_photos_below("/p/deeper")
    assert ledger.knows_photos_below("/")


def test_nothing_is_lost_when_a_commit_fails_and_a_later_one_works(path: Path) -> None:
    ledger = SqliteStore(path).open(STAFF)
    ledger.start_run(START, images="/p", given=False)
    ledger._connection.exec_driver_sql("PRAGMA max_page_count = 1")
    pages = int(ledger._connection.exec_driver_sql("PRAGMA page_count").scalar() or 0)
    ledger._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")  # a full disk
    ledger.commit()
    long = [replace(face(number), message="x" * 2000) for number in range(1, 60)]
    ledger.record(Changes(faces=long))
    with pytest.raises(LocalError, match="full"):
        ledger.commit()
    ledger._connection.exec_driver_sql("PRAGMA max_page_count = 100000")  # somebody made room
    ledger.commit()
    ledger.close()
    reader = read_ledger(path)
    assert reader.status().counts == {Status.ENROLLED: 59}
    reader.close()


def test_a_ledger_of_another_library_is_refused(path: Path) -> None:
    SqliteStore(path).open(STAFF).close()
    with pytest.raises(LedgerMismatchError, match="of the library staff at host, not of guests"):
        SqliteStore(path).open(replace(STAFF, group_id="guests"))


def test_a_library_that_was_made_anew_under_the_old_name_is_another(path: Path) -> None:
    SqliteStore(path).open(STAFF).close()
    with pytest.raises(LedgerMismatchError, match="was created at 2026-02-02") as refused:
        SqliteStore(path).open(replace(STAFF, add_time="2026-02-02"))
    assert "stand-in" not in str(refused.value)


def names(folder: Path) -> set[bytes]:
    """Every name below a folder."""
    return {os.fsencode(path.relative_to(folder)) for path in folder.rglob("*")}


ODD_NAMES = [
    "C#",
    "que?mode=memory",
    "pct%41",
    "%2e%2e",
    "a&b=c;d",
    " ",
    "file:x",
    ":memory:",
    "\udcff",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_ledger_is_the_file_that_was_named_and_its_owners_alone(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        (tmp_path / name).mkdir()
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    before = os.umask(0)
    try:
        for path in (tmp_path / name / "staff.sqlite", tmp_path / name / name):
            monkeypatch.chdir(path.parent)
            opened = SqliteStore(path).open(STAFF)
            opened.start_run(START, images="/p", given=False)
            enroll(opened, 1)
            modes = {one.stat().st_mode & 0o777 for one in path.parent.glob(f"{path.name}*")}
            assert modes == {0o600}
            opened.close()
            again = SqliteStore(path).open(STAFF)
            assert again.knows_a_face()
            again.close()
            for reader in (read_ledger(path), read_ledger(Path(path.name))):
                assert reader.identity() == STAFF
                reader.close()
    finally:
        os.umask(before)
    folder = os.fsencode(name)
    assert names(tmp_path) == {folder, folder + b"/staff.sqlite", folder + b"/" + folder}


@given(
    text(characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
)
def test_no_name_leads_to_another_file(name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}-"
        for access in Access:
            path.touch(mode=0o600)
            connection = connect(path, access, journal="DELETE")
            if access is Access.WRITE:
                connection.exec_driver_sql("CREATE TABLE one (number)")
                connection.commit()
            assert connection.exec_driver_sql("SELECT * FROM one").all() == []
            connection.close()
        assert [one.name for one in Path(folder).iterdir()] == [path.name]


@pytest.mark.parametrize("access", Access)
def test_a_file_that_is_exchanged_while_it_is_opened_is_not_taken(
    path: Path, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(path).open(STAFF).close()
    ours = sqlite3.connect

    def exchanged(*arguments: Any, **options: Any) -> sqlite3.Connection:
        path.rename(path.with_name("ours"))
        path.write_bytes(path.with_name("ours").read_bytes())
        opened: sqlite3.Connection = ours(*arguments, **options)
        return opened

    monkeypatch.setattr(sqlite3, "connect", exchanged)
    with pytest.raises(LocalError, match="moved or exchanged while it was opened"):
        connect(path, access)


def test_a_file_that_vanishes_is_not_made_by_opening_it(path: Path) -> None:
    for access in Access:
        with pytest.raises(LocalError, match="moved or exchanged"):
            connect(path, access)
    assert not path.exists()


def test_a_ledger_with_any_name_is_put_back(tmp_path: Path) -> None:
    for name in ODD_NAMES:
        path = tmp_path / f"{name}.sqlite"
        opened = SqliteStore(path).open(STAFF)
        opened.start_run(START, images="/p", given=False)
        path.unlink()
        with pytest.raises(LocalError, match="has been put back"):
            opened.commit()
        assert path.stat().st_mode & 0o777 == 0o600
        opened.close()
        reader = read_ledger(path)
        assert len(reader.status().runs) == 1
        reader.close()


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket"])
def test_what_is_no_file_is_not_replaced_by_a_ledger(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.sqlite"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:  # not a device: where this fails, it would be the machine's
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    with pytest.raises(LedgerMismatchError, match="is not a file"):
        SqliteStore(path).open(STAFF)
    assert path.exists()
    assert not path.is_file()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")


@needs_root
def test_a_ledger_of_another_user_is_not_written(path: Path) -> None:
    SqliteStore(path).open(STAFF).close()
    os.chown(path, 54_321, -1)
    with pytest.raises(UsageError, match=r"ledger .* belongs to user 54321.*--ledger"):
        SqliteStore(path).open(STAFF)
    with pytest.raises(UsageError, match="belongs to user 54321"):
        SqliteStore(path).open(replace(STAFF, add_time=""))
    reader = read_ledger(path)  # to look at it does no harm
    assert reader.identity() == STAFF
    reader.close()


@needs_root
@pytest.mark.parametrize("journal", ["-wal", "-shm", "-journal"])
def test_a_journal_of_another_user_is_not_taken_for_the_ledgers(path: Path, journal: str) -> None:
    SqliteStore(path).open(STAFF).close()
    planted = path.with_name(path.name + journal)
    planted.write_bytes(b"")
    os.chown(planted, 54_321, -1)
    link = path.with_name("link.sqlite")
    link.symlink_to(path)
    for name in (path, link):
        for opens in (partial(SqliteStore(name).open, STAFF), partial(read_ledger, name)):
            with pytest.raises(UsageError, match=r"journal .* belongs to user 54321"):
                opens()
    assert planted.exists()


@needs_root
def test_a_ledger_of_another_user_is_looked_at_with_its_own_journal(path: Path) -> None:
    writing = SqliteStore(path).open(STAFF)
    for one in path.parent.iterdir():
        os.chown(one, 54_321, -1)
        one.chmod(0o666)
    reader = read_ledger(path)
    assert reader.identity() == STAFF
    reader.close()
    writing.close()


@pytest.mark.parametrize("journal", ["-wal", "-shm", "-journal"])
def test_a_journal_that_is_a_link_is_not_followed(path: Path, journal: str) -> None:
    SqliteStore(path).open(STAFF).close()
    path.with_name("victim").write_bytes(b"a victim's")
    path.with_name(path.name + journal).symlink_to("victim")
    for mode in (0o600, 0o666):
        path.chmod(mode)
        for opens in (partial(SqliteStore(path).open, STAFF), partial(read_ledger, path)):
            with pytest.raises(UsageError, match=r"journal .* is a link.*Remove it"):
                opens()
    assert path.with_name("victim").read_bytes() == b"a victim's"


def test_a_ledger_that_everybody_may_write_is_refused_and_one_of_our_group_is_not(
    path: Path,
) -> None:
    SqliteStore(path).open(STAFF).close()
    path.chmod(0o660)  # as Kubernetes leaves it to a pod's fsGroup
    SqliteStore(path).open(STAFF).close()
    path.chmod(0o666)
    with pytest.raises(UsageError, match=r"can be written by others \(mode 0666\).*chmod go-w"):
        SqliteStore(path).open(STAFF)


@pytest.mark.parametrize("content", [b"user_id,image\n1,a.jpg\n", b"\0" * 4096])
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LedgerMismatchError, match="is not a ledger"):
        SqliteStore(path).open(STAFF)
    with pytest.raises(LedgerMismatchError, match="is not a ledger"):
        read_ledger(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_another_programs_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE cookies (name)")
    database.close()
    with pytest.raises(LedgerMismatchError, match="is not a ledger"):
        SqliteStore(path).open(STAFF)


@pytest.mark.parametrize("version", [*range(SCHEMA_VERSION), SCHEMA_VERSION + 1])
def test_a_ledger_of_another_schema_is_refused_and_left_as_it_is(path: Path, version: int) -> None:
    store = SqliteStore(path)
    store.open(STAFF).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {version}")
    database.close()
    before = path.read_bytes()
    for opens in (
        partial(store.open, STAFF),
        partial(store.scratch, STAFF),
        store.read,
        store.audit,
        store.check,
    ):
        with pytest.raises(LedgerMismatchError, match=f"schema {version}.*`enroll adopt`") as told:
            opens()
        assert told.value.exit_code is ExitCode.USAGE
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_ledger_that_is_open_here_keeps_its_locks_when_it_is_opened_again(path: Path) -> None:
    # Whoever closes a descriptor of a file loses every lock on it; SQLite in another process would
    # then take itself for the last user of the -wal file, and delete it with what was committed.
    store = SqliteStore(path)
    writing = store.open(STAFF)
    store.check()
    store.audit().close()
    look = (
        "import sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1])\n"
        "database.execute('SELECT * FROM run').fetchall()\n"
        "database.close()"
    )
    subprocess.run([sys.executable, "-c", look, str(path)], check=True)
    assert path.with_name(path.name + "-wal").exists()
    writing.close()


def test_a_damaged_ledger_is_one_sentence(path: Path) -> None:
    SqliteStore(path).open(STAFF).close()
    content = bytearray(path.read_bytes())
    content[100:] = b"\xaa" * (len(content) - 100)
    path.write_bytes(content)
    with pytest.raises(LocalError, match="cannot be used"):
        SqliteStore(path).open(STAFF)


def test_a_ledger_whose_folder_cannot_hold_it_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LocalError, match="cannot be made"):
        SqliteStore(tmp_path / "file" / "ledger.sqlite").open(STAFF)


def test_a_link_to_a_ledger_is_the_same_ledger(path: Path) -> None:
    SqliteStore(path).open(STAFF).close()
    link = path.with_name("link.sqlite")
    link.symlink_to(path)
    with LedgerLock(path), pytest.raises(LedgerBusyError):
        LedgerLock(link)


def test_a_half_made_ledger_of_a_killed_process_is_no_obstacle(path: Path) -> None:
    path.with_name(path.name + ".new").write_bytes(b"half")
    SqliteStore(path).open(STAFF).close()
    assert not path.with_name(path.name + ".new").exists()


def test_a_path_with_signs_that_mean_something_in_an_address(tmp_path: Path) -> None:
    odd = tmp_path / "50% off?#1 ü.sqlite"
    SqliteStore(odd).open(STAFF).close()
    assert odd.exists()


HOLDER = """
import sys
from pathlib import Path
from enroll.ledger.lock import LedgerLock, holder_of
with LedgerLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_only_looks_whether_a_ledger_is_held_keeps_no_run_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.sqlite"
    LedgerLock(path).close()
    looking = os.open(path.with_name("ledger.sqlite.lock"), os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    # The look ends when the run has found the ledger held, and waits to try again.
    monkeypatch.setattr(clock, "sleep", lambda seconds: os.close(looking))
    with LedgerLock(path):
        assert holder_of(path) is not None


def test_a_ledger_that_another_process_holds_says_who_and_is_free_after_its_death(
    path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LedgerBusyError, match=f"process {holder.pid} on .*, since "):
            LedgerLock(path)
        holder.kill()
    with LedgerLock(path):
        pass


def test_a_python_with_too_old_a_sqlite_is_told_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enroll.ledger.connection.sqlite_version_info", (3, 26, 0))
    with pytest.raises(LocalError, match=r"needs 3\.33 or newer"):
        SqliteStore(path).open(STAFF)


VICTIM = b"a file of somebody's"


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize(
    "content", [VICTIM, b"[1]", b"x" * 5_000, b'{"pid": 1' + b" " * 2_000 + b"}"]
)
def test_a_file_that_is_linked_to_in_a_locks_place_keeps_its_content(
    path: Path, content: bytes, link: Callable[[Path, Path], None]
) -> None:
    victim = path.with_name("victim")
    victim.write_bytes(content)
    lock = path.with_name("ledger.sqlite.lock")
    link(victim, lock)
    for _ in range(2):  # it is let go of, too
        with pytest.raises(
            UsageError, match=r"link, which is not followed|not a lock file of enroll"
        ):
            LedgerLock(path)
    assert victim.read_bytes() == content
    assert holder_of(path) is None
    lock.unlink()
    with LedgerLock(path):
        pass


def test_a_link_to_nothing_in_a_locks_place_makes_no_file(path: Path) -> None:
    path.with_name("ledger.sqlite.lock").symlink_to("elsewhere")
    with pytest.raises(UsageError, match="is a symbolic link"):
        LedgerLock(path)
    assert not path.with_name("elsewhere").exists()


def test_a_pipe_in_a_locks_place_is_refused_and_not_waited_for(path: Path) -> None:
    os.mkfifo(path.with_name("ledger.sqlite.lock"))
    with pytest.raises(UsageError, match="not a lock file"):
        LedgerLock(path)


@pytest.mark.parametrize("left", [b"", b"\0" * 90])
def test_what_a_power_cut_leaves_of_a_lock_file_is_one(path: Path, left: bytes) -> None:
    path.with_name("ledger.sqlite.lock").write_bytes(left)
    with LedgerLock(path) as lock:
        assert lock.last_run == 0


@needs_root
def test_a_lock_file_of_another_user_is_refused(path: Path) -> None:
    with LedgerLock(path):
        pass
    os.chown(path.with_name("ledger.sqlite.lock"), 54_321, -1)
    with pytest.raises(UsageError, match=r"lock file .* belongs to user 54321"):
        LedgerLock(path)
