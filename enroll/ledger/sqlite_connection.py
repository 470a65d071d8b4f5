"""Connections to a ledger's file: to the one that was named, and to no other.

A path never travels in SQLAlchemy's URL, which is unquoted once more on its way to SQLite.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections import Counter
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import Path
from sqlite3 import DatabaseError, sqlite_version, sqlite_version_info
from typing import cast

from sqlalchemy import Connection, ExceptionContext, NullPool, create_engine, event, exc

from enroll.errors import EnrollError, LocalError, UsageError
from enroll.ownership import check_trusted, make_folder
from enroll.resources import hidden_shortage, shortage_in

MOUNTINFO = Path("/proc/self/mountinfo")
"""The kernel's list of mounts: proc_pid_mountinfo(5). Linux only; elsewhere nothing is known."""

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "glusterfs"}
    | {"lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "ocfs2", "gfs2", "davfs"}
)
"""File systems whose files another machine may have open. Not 9p and virtiofs: under these names
a virtual machine or container sees the disk of its own host."""

NETWORK_FUSE = frozenset(
    {"sshfs", "glusterfs", "ceph", "cephfs", "s3fs", "rclone", "gcsfuse", "goofys", "davfs"}
    | {"juicefs", "curlftpfs", "afp", "smbnetfs", "mfs", "blobfuse", "blobfuse2", "seaweedfs"}
)
"""The same behind FUSE, which the kernel calls `fuse.` and this name."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


def refuse_network(ledger: Path) -> None:
    """Raise LocalError where the ledger would lie on a network file system."""
    try:
        mounts = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        if (short := shortage_in(error)) is not None:
            raise short from error
        return
    found = file_system(Path(os.path.realpath(ledger.parent)), mounts)
    if is_network(found):
        raise LocalError(
            f"The ledger {ledger} would be on a network file system ({found}), which cannot keep "
            "two machines from writing it at once. Choose a local place with --ledger."
        )


def is_network(file_system: str) -> bool:
    """Whether other machines may have this kind of file system mounted, too."""
    kind, dot, behind = file_system.partition(".")
    return kind in NETWORK or (kind == "fuse" and bool(dot) and behind in NETWORK_FUSE)


def file_system(path: Path, mounts: str) -> str:
    """The type of file system that a path (absolute, resolved) is on, from the text of a mountinfo
    file; empty if the text does not say.
    """
    name, best, found = f"{path}/", -1, ""
    for line in mounts.splitlines():
        # "36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw": there may be
        # any number of optional fields before the lonely hyphen.
        place, hyphen, about = line.partition(" - ")
        fields = place.split(" ")
        if not hyphen or len(fields) < 5:
            continue
        point = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[4]).rstrip("/") + "/"
        # Of two mounts at one point the later one hides the earlier.
        if name.startswith(point) and len(point) >= best:
            best, found = len(point), about.split(" ")[0]
    return found


OLDEST_SQLITE = (3, 33)
"""UPDATE … FROM, and 32,766 parameters in a statement."""

FileId = tuple[int, int]
"""Device and inode: they identify a file, whatever its name."""

_OPEN_HERE = Counter[FileId | None]()
"""The connections of this process to each file."""


class Access(Enum):
    """What may be done to a ledger's file; the value is for SQLite's URI, where one is needed."""

    WRITE = ""
    """All: this is a run's, or whoever holds the lock."""
    LOOK = "rw"
    """Nothing is to be written to it; -wal and -shm beside it are made and removed."""
    READ = "ro"
    """Nothing can be written there, and somebody else has the -wal open."""
    STILL = "immutable"
    """Nothing can be written there, and nobody writes it: it is read without -wal and -shm."""


def connect(
    path: Path, access: Access, *, journal: str = "WAL", shown: Path | None = None
) -> Connection:
    """A connection to the SQLite file at `path`, which is there; errors name `shown`, if given.

    Raises LocalError where it cannot be opened or is not the file at `path` when it is open, and
    whenever the database fails later; UsageError where it is to be written and is not ours.
    """
    connection = _engine(
        partial(_open, path.absolute(), access, journal=journal), shown=str(shown or path)
    )
    opened = file_id(path)
    _OPEN_HERE[opened] += 1

    @event.listens_for(connection.engine, "close")
    def closed(*_: object) -> None:
        _OPEN_HERE[opened] -= 1

    return connection


def is_open_here(path: Path) -> bool:
    """Whether this process has the file at `path` open as a database."""
    return _OPEN_HERE[file_id(path)] > 0


def connect_in_memory() -> Connection:
    """A connection to a new database that nobody else sees."""
    return _engine(partial(_prepared, ":memory:"), shown="in memory")


def copy_to_read(connection: Connection, *, shown: Path) -> Connection:
    """A connection to a copy of a database, in a nameless file of SQLite's own that ends with it.
    The other connection is closed."""
    copy = _engine(partial(_prepared, ""), shown=str(shown))
    try:
        _driver(connection).backup(_driver(copy))
    except DatabaseError as error:
        copy.close()
        raise LocalError(
            f"The ledger {shown} cannot be copied to be read ({error}). Make room in the folder "
            "for temporary files, or name another with TMPDIR, then run the same command again."
        ) from error
    finally:
        connection.close()
        connection.engine.dispose()
    return copy


def save_copy(connection: Connection, path: Path) -> None:
    """Write what is committed into a new file, for its owner only, which is on disk then. Raises
    OSError and sqlite3.DatabaseError. Not within a transaction."""
    path.unlink(missing_ok=True)
    # VACUUM INTO takes an empty file that is there, with its mode.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Past SQLAlchemy, which would begin a transaction first. The name as bytes, as it need
        # not be UTF-8, and absolute, as `file:…` would be a URI.
        into = os.fsencode(path.absolute())
        _driver(connection).execute("VACUUM INTO CAST(? AS TEXT)", (into,))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_foreign_keys(connection: Connection, *, on: bool) -> None:
    """Have SQLite check foreign keys, or not, from the next transaction on. Not within one."""
    _driver(connection).execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.driver_connection)


def file_id(path: Path | bytes) -> FileId | None:
    """Which file is at `path`, through links; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  # SQLite gives names as bytes
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _engine(creator: partial[sqlite3.Connection], *, shown: str) -> Connection:
    if sqlite_version_info < OLDEST_SQLITE:
        raise LocalError(
            f"This Python has SQLite {sqlite_version}, and the ledger needs 3.33 or newer. Use a "
            "Python that was built with one; most are."
        )
    engine = create_engine("sqlite+pysqlite://", creator=creator, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")  # the driver does not: isolation_level is None

    @event.listens_for(engine, "handle_error")
    def translate(context: ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        if not isinstance(error, exc.DatabaseError):
            return
        if (short := hidden_shortage(error)) is not None:  # SQLite does not say why
            raise short from error
        if is_damage(error.orig):
            raise LocalError(
                f"The ledger {shown} is damaged ({error.orig}), so it cannot be used. Put a backup "
                "in its place. If there is none, name a new ledger with --ledger, and fill it from "
                "the library with `enroll adopt`."
            ) from error
        raise LocalError(
            f"The ledger {shown} cannot be used: {error.orig}. Nothing that it recorded is lost; "
            "make room, fix its permissions or mount its file system for writing, then run the "
            "same command again."
        ) from error

    return engine.connect()


def is_damage(error: BaseException | None) -> bool:
    """Whether an error of SQLite says that the file is not what it once was. No room and no
    permission will make it whole."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or str(error).startswith(
        ("no such table", "no such column")
    )


def _open(path: Path, access: Access, *, journal: str) -> sqlite3.Connection:
    named = file_id(path)
    if named is None:  # or SQLite would make it, for everybody to read
        raise _not_the_one(path)
    if access is not Access.STILL:
        _check_journals(path, access)
    if access is Access.WRITE:
        connection = _prepared(str(path))
    elif access is Access.STILL:
        connection = _prepared(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    else:
        connection = _prepared(f"{path.as_uri()}?mode={access.value}", uri=True)
    try:
        if not named == file_id(_file_of(connection)) == file_id(path):
            raise _not_the_one(path)
        if access is Access.WRITE:
            _check_ours(path.stat(), path, what="The ledger")
        if access in (Access.WRITE, Access.LOOK):
            connection.execute(f"PRAGMA journal_mode={journal}")
            connection.execute("PRAGMA synchronous=FULL")
    except (EnrollError, OSError, sqlite3.Error):
        connection.close()
        raise
    return connection


def _check_journals(path: Path, access: Access) -> None:
    """Raise UsageError for a journal that somebody else may have put there: SQLite takes what it
    holds for the ledger's, and writes it into the ledger even when that is only looked at.

    To be looked at a ledger may be anybody's, and so may a journal that is no looser than it.
    """
    real = os.path.realpath(path)
    ledger = os.stat(real)  # noqa: PTH116  # as it came from os.path
    for journal in (Path(f"{real}{suffix}") for suffix in ("-wal", "-shm", "-journal")):
        with suppress(FileNotFoundError):
            found = journal.lstat()
            if stat.S_ISLNK(found.st_mode):
                raise UsageError(
                    f"The ledger's journal {journal} is a link, which is not followed. Remove it, "
                    "or name another ledger with --ledger."
                )
            looser = found.st_mode & ~ledger.st_mode & 0o022
            if access is Access.WRITE or looser or found.st_uid != ledger.st_uid:
                _check_ours(found, journal, what="The ledger's journal")


def _check_ours(found: os.stat_result, path: Path, *, what: str) -> None:
    check_trusted(
        found,
        path,
        what=what,
        otherwise="name a ledger of your own with --ledger",
        group_may_write=True,
    )


def _prepared(name: str, *, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(name, uri=uri, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA busy_timeout=10000")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _file_of(connection: sqlite3.Connection) -> bytes:
    """The file that SQLite has open, by its full name."""
    connection.text_factory = bytes  # a name need not be UTF-8
    try:
        _, _, name = connection.execute("PRAGMA database_list").fetchone()
    finally:
        connection.text_factory = str
    return bytes(name)


def _not_the_one(path: Path) -> LocalError:
    return LocalError(
        f"The ledger {path} was moved or replaced while it was being opened. Put it back, then "
        "run the same command again."
    )


class LedgerFile:
    """The file at `path` as it is now, which a connection has open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = file_id(path)
        self._saved: FileId | None = None

    def check(self, connection: Connection) -> None:
        """Raise LocalError where the path no longer leads to the file that was opened.

        What has been committed is put back there first, unless something else is there now.
        Not within a transaction.
        """
        there = file_id(self._path)
        if there == self._opened:
            return
        sentence = f"The ledger {self._path} was moved or removed while this run was using it. "
        if there not in (None, self._saved):
            raise LocalError(
                f"{sentence}Another file is there now, and was left alone. What the run did since "
                "then is in its results only: put the ledger back, then run the same command again."
            )
        self._put_back(connection)
        raise LocalError(
            f"{sentence}What it held has been put back there; run the same command again."
        )

    def _put_back(self, connection: Connection) -> None:
        saving = self._path.with_name(self._path.name + ".saved")
        try:
            make_folder(self._path.parent)
            save_copy(connection, saving)
            # The journals of the file that is gone, which SQLite would apply to the new one.
            for journal in ("-wal", "-shm"):
                self._path.with_name(self._path.name + journal).unlink(missing_ok=True)
            saving.replace(self._path)
        except (OSError, DatabaseError) as error:
            with suppress(OSError):
                saving.unlink()
            raise LocalError(
                f"The ledger {self._path} was moved or removed while this run was using it, and "
                f"cannot be put back ({error}). What the run did is in its results only: put the "
                "ledger back, then run the same command again."
            ) from error
        self._saved = file_id(self._path)
