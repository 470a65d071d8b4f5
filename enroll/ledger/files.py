"""Ledger files: made, opened, recognised, refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert

from enroll.errors import EnrollError, LedgerMismatchError, LocalError
from enroll.ledger import LibraryIdentity
from enroll.ledger import schema as s
from enroll.ledger.auditing import SqliteAudit
from enroll.ledger.connecting import Access, connect, connect_in_memory
from enroll.ledger.listing import SqliteListing
from enroll.ledger.queries import SqliteReader, translate_db_errors
from enroll.ledger.queue import SqliteSurveys
from enroll.ledger.scan_cache import SurveyRecord
from enroll.ledger.store import SqliteLedger
from enroll.ledger.upgrade import refuse_older, upgrade

SQLITE_HEAD = b"SQLite format 3\0"
"""The first bytes of every SQLite file: https://www.sqlite.org/fileformat.html#magic"""

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts at which a stand-in listens, and no service."""


def open_ledger(
    path: Path, identity: LibraryIdentity, *, began_empty: bool = False
) -> SqliteLedger:
    """The ledger of this library at `path`, made if it is not there yet.

    `began_empty` says of a new ledger that its library is known to hold no face.

    The caller holds its LedgerLock. Raises LedgerMismatchError for a file that is not this
    library's ledger, LocalError where the disk will not do.
    """
    if ledger_exists(path):
        check_is_ledger(path)
    else:
        _create(path, identity, began_empty=began_empty)
    return reopen_ledger(path, identity)


def reopen_ledger(path: Path, identity: LibraryIdentity) -> SqliteLedger:
    """The same for a ledger that this process has open for reading. An older schema is brought up
    to date.

    Its head is not looked at again: when a process closes any descriptor of a file, the system
    drops the locks that SQLite holds on it.
    """
    connection = connect(path, Access.WRITE)
    try:
        # The library first: another's ledger is left as it is.
        check_library(path, SqliteReader(connection, str(path)).identity(), identity)
        upgrade(connection, str(path))
        return SqliteLedger(connection, str(path))
    except EnrollError:
        connection.close()
        connection.engine.dispose()
        raise


def open_known_ledger(path: Path, *, host: str, group_id: str) -> SqliteLedger:
    """The same before the library was asked for when it was made: that is to be compared later.

    Raises LedgerMismatchError where host or name are others.
    """
    check_is_ledger(path)
    connection = connect(path, Access.WRITE)
    try:
        found = SqliteReader(connection, str(path)).identity()
        wanted = LibraryIdentity(host=host, group_id=group_id, add_time=found.add_time)
        check_library(path, found, wanted)
        upgrade(connection, str(path))
        return SqliteLedger(connection, str(path))
    except EnrollError:
        connection.close()
        connection.engine.dispose()
        raise


def check_library(path: Path, found: LibraryIdentity, wanted: LibraryIdentity) -> None:
    """Raise LedgerMismatchError unless the ledger at `path` is of the library that is wanted."""
    if found != wanted:
        raise LedgerMismatchError(_other_library(path, found, wanted))


def ledger_exists(path: Path) -> bool:
    """Whether there is anything at `path`; an empty file, as `touch` makes it, is nothing.

    Raises LedgerMismatchError for what is no file: a new ledger would take its place.
    """
    if not path.exists():
        return False
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise LedgerMismatchError(f"{path} is no file. Name another place with --ledger.")
    return found.st_size > 0


def read_ledger(path: Path) -> SqliteReader:
    """The ledger at `path` for reading only, also while a run writes it.

    Raises LedgerMismatchError and LocalError as `open_ledger`.
    """
    return SqliteReader(_connect_reading(path), str(path))


def recall_survey(path: Path) -> SurveyRecord | None:
    """What the ledger at `path` remembers of the last manifest. Raises as `read_ledger`."""
    connection = _connect_reading(path)
    try:
        return SqliteSurveys(connection, str(path)).survey()
    finally:
        connection.close()
        connection.engine.dispose()


def audit_ledger(path: Path) -> SqliteAudit:
    """The same, to be compared with its library."""
    return SqliteAudit(_connect_reading(path), str(path))


def scratch_listing() -> SqliteListing:
    """A listing by itself, to be thrown away."""
    return SqliteListing(connect_in_memory(), "in memory")


def _connect_reading(path: Path) -> Connection:
    if not path.exists():
        raise LedgerMismatchError(
            f"There is no ledger at {path}. Check the path; `enroll run` makes one."
        )
    return _connect_present(path)


def _connect_present(path: Path) -> Connection:
    """Open a ledger for reading that has the present schema."""
    check_is_ledger(path)
    connection = connect(path, _access_to_read(path))
    try:
        refuse_older(connection, str(path))
    except EnrollError:
        connection.close()
        connection.engine.dispose()
        raise
    return connection


def scratch_ledger(copy_of: Path | None, identity: LibraryIdentity) -> SqliteLedger:
    """A ledger to look at: what `plan` and `sync --dry-run` compare with, and must not write to.

    With `copy_of` the ledger there itself, else an empty one in memory.
    """
    if copy_of is not None:
        return SqliteLedger(_connect_present(copy_of), str(copy_of))
    connection = connect_in_memory()
    s.metadata.create_all(connection)
    connection.execute(insert(s.library).values(**_library_row(identity)))
    return SqliteLedger(connection, "in memory")


def check_is_ledger(path: Path) -> None:
    """Raise unless the file's head is that of a ledger that this version can read.

    Read from the file itself, before SQLite opens it: SQLite would make a journal beside any
    file that it is given.
    """
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        raise LocalError(
            f"The ledger {path} cannot be read: {error.strerror}. Check the path and permissions."
        ) from error
    application_id = int.from_bytes(head[68:72], "big")
    version = int.from_bytes(head[60:64], "big")
    if not head.startswith(SQLITE_HEAD) or application_id != s.APPLICATION_ID:
        raise LedgerMismatchError(
            f"{path} is not a ledger of enroll. Name another file with --ledger; "
            "a ledger that does not exist yet is made."
        )
    if version > s.SCHEMA_VERSION:
        raise LedgerMismatchError(
            f"The ledger {path} was written by a newer version of enroll (schema {version}; this "
            f"one reads up to {s.SCHEMA_VERSION}). Upgrade enroll and run the command again."
        )


def _access_to_read(path: Path) -> Access:
    """How to open a ledger that is only to be read, and leave nothing behind.

    SQLite makes a -wal and a -shm file beside every WAL database that it opens, and takes them
    away when the last connection closes only if it may write. Where it may not, a ledger without
    a -wal is not being written and is opened as it lies there.
    """
    path = Path(
        os.path.realpath(path)
    )  # SQLite makes them beside the file, not beside a link to it
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return Access.LOOK
    return Access.READ if path.with_name(path.name + "-wal").exists() else Access.STILL


def _other_library(path: Path, found: LibraryIdentity, wanted: LibraryIdentity) -> str:
    rehearsal = ""
    if (found.host, found.group_id) == (wanted.host, wanted.group_id):
        difference = (
            f"the library {found.group_id} as it was created at {found.add_time}, and the one "
            f"there now was created at {wanted.add_time}"
        )
        if wanted.host in LOOPBACK:
            rehearsal = (
                " A stand-in without --store forgets its libraries when it stops: start it with "
                "--store, or take a new ledger for each."
            )
    else:
        difference = (
            f"the library {found.group_id} at {found.host}, not of {wanted.group_id} at "
            f"{wanted.host}"
        )
    return (
        f"The ledger {path} is of {difference}. Nothing was sent. Give this library a ledger of "
        f"its own with --ledger, or correct --group-id and --endpoint.{rehearsal}"
    )


def _library_row(identity: LibraryIdentity) -> dict[str, Any]:
    return {
        "only": 1,
        "host": identity.host,
        "group_id": identity.group_id,
        "add_time": identity.add_time,
        "images": "",
        "images_given": False,
        "began_empty": False,
    }


def _create(path: Path, identity: LibraryIdentity, *, began_empty: bool) -> None:
    """Make a whole ledger under another name, then move it: a kill leaves none or all of it."""
    making = path.with_name(path.name + ".new")
    try:
        making.unlink(missing_ok=True)
        # Journals of a ledger that somebody removed, which SQLite would apply to the new one.
        for journal in ("-wal", "-shm"):
            path.with_name(path.name + journal).unlink(missing_ok=True)
        os.close(os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise LocalError(
            f"The ledger {path} cannot be made: {error.strerror}. Choose a writable place "
            "with --ledger."
        ) from error
    with translate_db_errors(str(path)):
        connection = connect(making, Access.WRITE, journal="DELETE")
        s.metadata.create_all(connection)
        row = {**_library_row(identity), "began_empty": began_empty}
        connection.execute(insert(s.library).values(**row))
        connection.exec_driver_sql(f"PRAGMA application_id={s.APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version={s.SCHEMA_VERSION}")
        connection.commit()
        connection.close()
        connection.engine.dispose()
    making.replace(path)
