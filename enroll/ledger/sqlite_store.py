"""The SQLite adapter of the ledger port: a file that is made, recognised, held and opened."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, insert

from enroll.errors import EnrollError, LedgerMismatchError, LocalError
from enroll.expiry import ClockOffsets
from enroll.ledger import schema as s
from enroll.ledger.audit import SqlAudit, SqlListing
from enroll.ledger.copying import Original, Tables, fill
from enroll.ledger.forget import LOG_SECONDS, SqlForgetting
from enroll.ledger.queries import SqlReader
from enroll.ledger.records import LibraryIdentity, check_library, check_not_copied
from enroll.ledger.sqlite_connection import (
    Access,
    LedgerFile,
    connect,
    connect_in_memory,
    is_open_here,
)
from enroll.ledger.sqlite_lock import LedgerLock, holder_of
from enroll.ledger.sqlite_upgrades import check_version, schema_version, upgrade, upgraded_copy
from enroll.ledger.writer import SqlLedger
from enroll.ownership import make_folder, sync_folder

SQLITE_HEAD = b"SQLite format 3\0"
"""The first bytes of every SQLite file: https://www.sqlite.org/fileformat.html#magic"""

CACHE_BYTES = 64 * 2**20
"""Of a file that is filled: without it a million rows take three times as long."""

R = TypeVar("R", bound=SqlReader)


def _without_waiting(path: str, flags: int) -> int:
    # Opening a pipe would wait for somebody to write to it.
    return os.open(path, flags | os.O_NONBLOCK)


class SqliteStore:
    """The ledger's file at `path`, whether it is there yet or not; see `enroll.ledger.LedgerStore`
    for the contract."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def exists(self) -> bool:
        """An empty file, as `touch` makes it, is nothing."""
        if not self._path.exists():
            return False
        found = self._path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise self._no_file()
        return found.st_size > 0

    def check(self) -> None:
        """Read from the file itself, before SQLite opens it: SQLite would make a journal beside
        any file that it is given. Not of one that this process has open, which was checked then:
        closing a descriptor would drop the locks that SQLite holds on the file."""
        path = self._path
        if is_open_here(path):
            return
        try:
            with open(path, "rb", opener=_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise self._no_file()
                head = file.read(100)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise LedgerMismatchError(
                f"There is no ledger at {path}. Check --ledger and --group-id; the first "
                "`enroll run` of a library creates its ledger."
            ) from error
        except IsADirectoryError as error:
            raise LedgerMismatchError(
                f"{path} is a folder, not a ledger. Correct --ledger."
            ) from error
        except OSError as error:
            raise LocalError(
                f"The ledger {path} cannot be read: {error.strerror}. Check the path and "
                "permissions."
            ) from error
        application_id = int.from_bytes(head[68:72], "big")
        version = int.from_bytes(head[60:64], "big") % s.COPIED
        if head.startswith(SQLITE_HEAD) and application_id == s.DEVELOPMENT_ID:
            raise LedgerMismatchError(
                f"The ledger {path} was made by a development version of enroll, before 1.0, which "
                "this one does not read; it was not changed. Finish with the version that made it; "
                "its `enroll export` writes what the ledger knows. Or name a new ledger with "
                "--ledger, and fill it from the library with `enroll adopt`."
            )
        if not (head.startswith(SQLITE_HEAD) and application_id == s.APPLICATION_ID and version):
            raise LedgerMismatchError(
                f"{path} is not a ledger of enroll; nothing in it was changed. Correct --ledger: "
                "it names a ledger, or a file that does not exist yet, which `enroll run` creates."
            )
        check_version(path, version)

    def _no_file(self) -> LedgerMismatchError:
        return LedgerMismatchError(
            f"{self._path} is not a file, so it cannot be a ledger. Correct --ledger."
        )

    def hold(self) -> LedgerLock:
        """The folder is made where it is missing."""
        folder = self._path.parent
        try:
            make_folder(folder)
        except OSError as error:
            raise LocalError(
                f"The ledger's folder {folder} cannot be created: {error.strerror}. Choose a "
                "writable place with --ledger."
            ) from error
        return LedgerLock(self._path)

    def holder(self) -> str | None:
        return holder_of(self._path)

    def open(self, identity: LibraryIdentity, *, began_empty: bool = False) -> SqliteLedger:
        if self.exists():
            self.check()
        else:
            _create(self._path, identity, began_empty=began_empty)
        ledger = self._opened(partial(SqliteLedger, path=self._path), Access.WRITE)
        try:
            check_library(self._path, ledger.identity(), identity)
            check_not_copied(self._path, ledger.runs(1))
        except EnrollError:
            ledger.close()
            raise
        return ledger

    def read(self) -> SqlReader:
        self.check()
        return self._opened(SqlReader, _access_to_read(self._path))

    def audit(self) -> SqlAudit:
        """One of an older schema is upgraded first: what the command writes has to be seen here."""
        self.check()
        connection = connect(self._path, _access_to_read(self._path))
        with closing(SqlReader(connection)):
            is_older = schema_version(connection) < s.SCHEMA_VERSION
        if is_older:
            with self.hold():
                self._opened(SqlReader, Access.WRITE).close()
        return self._opened(SqlAudit, _access_to_read(self._path))

    def scratch(self, identity: LibraryIdentity) -> SqlLedger:
        if not self.exists():
            return empty_ledger(identity)
        self.check()
        ledger = self._opened(partial(SqliteLedger, path=self._path), _access_to_read(self._path))
        try:
            check_not_copied(self._path, ledger.runs(1))
        except EnrollError:
            ledger.close()
            raise
        return ledger

    def original(self) -> SqliteOriginal:
        self.check()
        return self._opened(SqliteOriginal, Access.WRITE)

    def new(self) -> NewSqliteLedger:
        return NewSqliteLedger(self._path)

    def _opened(self, kind: Callable[[Connection], R], access: Access) -> R:
        connection = connect(self._path, access)
        try:
            version = schema_version(connection)
            check_version(self._path, version)
            if version < s.SCHEMA_VERSION and access is Access.WRITE:
                upgrade(connection, self._path)
            elif version < s.SCHEMA_VERSION:
                connection = upgraded_copy(connection, self._path)
            return kind(connection)
        except EnrollError:
            connection.close()
            connection.engine.dispose()
            raise


class SqliteLedger(SqlLedger):
    """The driver's side of a file: WAL, synchronous=FULL, one writer."""

    def __init__(self, connection: Connection, path: Path) -> None:
        super().__init__(connection)
        self._file = LedgerFile(path)
        self._forgetting = SqliteForgetting(connection, path)

    def commit(self, *, ahead: float = 0.0, offsets: ClockOffsets | None = None) -> None:
        super().commit(ahead=ahead, offsets=offsets)
        self._file.check(self._connection)


class SqliteForgetting(SqlForgetting):
    """What is deleted from a file is overwritten, and the file is written without it."""

    def __init__(self, connection: Connection, path: Path) -> None:
        super().__init__(connection)
        self._path = path

    @contextmanager
    def _deleting(self) -> Iterator[None]:
        # At once, and not only when the file is rewritten: a kill may come between.
        self._beyond("PRAGMA secure_delete=ON")
        # For each face SQLite would go through all events; they are deleted before it.
        self._beyond("PRAGMA foreign_keys=OFF")
        try:
            yield
        finally:
            self._connection.rollback()
            self._beyond("PRAGMA foreign_keys=ON")

    def _beyond(self, statement: str) -> tuple[int, ...]:
        """Execute outside of a transaction, past SQLAlchemy, which would begin one."""
        cursor = self._connection.connection.cursor()
        try:
            cursor.execute(statement)
            return tuple(cursor.fetchone() or ())
        finally:
            cursor.close()

    def _rewrite(self) -> None:
        try:
            # Removes what ordinary deletes and updates, also earlier ones, have left in the file.
            self._beyond("VACUUM")
            self._beyond(f"PRAGMA busy_timeout={LOG_SECONDS * 1000}")
            busy, *_ = self._beyond("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.DatabaseError as error:
            raise LocalError(
                f"The ledger {self._path} cannot be rewritten: {error}. What was deleted from it "
                "can still be read in the file's bytes: make room, then run the same command again."
            ) from error
        if busy:
            raise LocalError(
                f"Another program reads the ledger {self._path}, so its -wal file cannot be "
                "emptied, and what was deleted can still be read in its bytes. End that program, "
                "then run the same command again."
            )


def empty_ledger(identity: LibraryIdentity) -> SqlLedger:
    """A ledger in memory that knows nothing."""
    connection = connect_in_memory()
    _fill(connection, identity, began_empty=False)
    return SqlLedger(connection)


def empty_listing() -> SqlListing:
    """A listing in memory, to be thrown away."""
    return SqlListing(connect_in_memory())


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


def _fill(connection: Connection, identity: LibraryIdentity, *, began_empty: bool) -> None:
    """Make the tables of a ledger that knows nothing."""
    s.create_tables(connection, s.metadata)
    for trigger in s.TRIGGERS:
        connection.exec_driver_sql(trigger)
    library = {**asdict(identity), "photo_root": "", "photo_root_named": False}
    connection.execute(insert(s.library).values(only=1, began_empty=began_empty, **library))


def _create(path: Path, identity: LibraryIdentity, *, began_empty: bool) -> None:
    """Make a whole ledger under another name, then move it: a kill leaves none or all of it."""
    connection = _begin(path)
    _fill(connection, identity, began_empty=began_empty)
    _seal(connection)
    _publish(connection, path)


def _begin(path: Path) -> Connection:
    making = _making(path)
    try:
        making.unlink(missing_ok=True)
        # Journals of a ledger that somebody removed, which SQLite would apply to the new one.
        for journal in ("-wal", "-shm"):
            path.with_name(path.name + journal).unlink(missing_ok=True)
        os.close(os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise LocalError(
            f"The ledger {path} cannot be created: {error.strerror}. Choose a writable place with "
            "--ledger."
        ) from error
    return connect(making, Access.WRITE, journal="DELETE", shown=path)


def _making(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _seal(connection: Connection) -> None:
    connection.exec_driver_sql(f"PRAGMA application_id={s.APPLICATION_ID}")
    connection.exec_driver_sql(f"PRAGMA user_version={s.SCHEMA_VERSION}")
    connection.commit()


def _publish(connection: Connection, path: Path) -> None:
    connection.close()
    connection.engine.dispose()
    _making(path).replace(path)


class SqliteOriginal(Original):
    """A file that is held to be copied."""

    def _mark(self) -> None:
        self._connection.exec_driver_sql(f"PRAGMA user_version={s.COPIED + s.SCHEMA_VERSION}")


class NewSqliteLedger(Tables):
    """A file in the making, under another name; see `enroll.ledger.NewLedger`."""

    def __init__(self, path: Path) -> None:
        super().__init__(_begin(path))
        self._path = path
        # Many pages are changed in turn, as the keys of an index come in no order.
        self._connection.exec_driver_sql(f"PRAGMA cache_size=-{CACHE_BYTES // 1024}")
        s.create_tables(self._connection, s.metadata)

    def fill(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        fill(self._connection, table, rows)

    def seal(self) -> None:
        for trigger in s.TRIGGERS:
            self._connection.exec_driver_sql(trigger)
        _seal(self._connection)

    def publish(self) -> None:
        _publish(self._connection, self._path)
        sync_folder(self._path.parent)

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()
        _making(self._path).unlink(missing_ok=True)
