"""The ledger as SQLite files: made, named, refused, locked; the contract is in test_ledger_port."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import characters, text
from ledger_rows import STAFF, START, enroll, face

from enroll import clock
from enroll.errors import LedgerBusyError, LedgerMismatchError, LocalError, UsageError
from enroll.ledger import Changes, read_ledger
from enroll.ledger import sqlite_connection as connection
from enroll.ledger.sqlite_connection import Access, connect
from enroll.ledger.sqlite_lock import LedgerLock, holder_of
from enroll.ledger.sqlite_store import SqliteStore
from enroll.ledger.writer import SqlLedger
from enroll.model import (
    Status,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqlLedger]:
    opened = SqliteStore(path).open(STAFF)
    opened.start_run(START)
    yield opened
    opened.close()


def test_writing_is_durable_and_in_wal(ledger: SqlLedger, path: Path) -> None:
    assert ledger._connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    assert ledger._connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    ledger.commit()
    enroll(ledger, 1)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_finding_rows_entries_takes_no_longer_in_a_larger_ledger(ledger: SqlLedger) -> None:
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


def test_nothing_is_lost_when_a_commit_fails_and_a_later_one_works(path: Path) -> None:
    ledger = SqliteStore(path).open(STAFF)
    ledger.start_run(START)
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
            opened.start_run(START)
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
    with pytest.raises(LocalError, match="moved or replaced while it was being opened"):
        connect(path, access)


def test_a_file_that_vanishes_is_not_made_by_opening_it(path: Path) -> None:
    for access in Access:
        with pytest.raises(LocalError, match="moved or replaced"):
            connect(path, access)
    assert not path.exists()


def test_a_ledger_with_any_name_is_put_back(tmp_path: Path) -> None:
    for name in ODD_NAMES:
        path = tmp_path / f"{name}.sqlite"
        opened = SqliteStore(path).open(STAFF)
        opened.start_run(START)
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
    subprocess.run([sys.executable, "-c", look, str(path)], check=True, timeout=120)
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
    with pytest.raises(LocalError, match="cannot be created"):
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
from enroll.ledger.sqlite_lock import LedgerLock, holder_of
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
    monkeypatch.setattr(connection, "sqlite_version_info", (3, 26, 0))
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
