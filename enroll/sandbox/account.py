"""The state of the account: libraries, their faces, and their limits."""

from __future__ import annotations

import math
import os
import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import RLock

import numpy as np

from .faces import LikenessIndex
from .matchers import Likeness, Matcher
from .messages import Clock, RefusalError

# "enrS": marks the stand-in's stores among SQLite files.
_APPLICATION_ID = 0x656E7253

_SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS library (
    group_id TEXT PRIMARY KEY, group_name TEXT NOT NULL, group_data TEXT NOT NULL,
    model_version TEXT NOT NULL, add_time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS picture (sha256 BLOB PRIMARY KEY, likeness BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS face (
    number INTEGER PRIMARY KEY AUTOINCREMENT, face_token TEXT NOT NULL UNIQUE,
    group_id TEXT NOT NULL REFERENCES library ON DELETE CASCADE, user_id TEXT NOT NULL,
    user_data TEXT NOT NULL, add_time INTEGER NOT NULL, visible_from REAL NOT NULL,
    sha256 BLOB NOT NULL REFERENCES picture);
CREATE INDEX IF NOT EXISTS face_by_library ON face (group_id, number);
"""


class StoreError(OSError):
    """A store that cannot be opened: another stand-in holds it, or the disk fails."""


def open_store(path: Path | None) -> sqlite3.Connection:
    """The store at `path`, mode 0600 as it holds the secret; in memory without a path.

    Commits survive a kill of the process (not of the machine). Raises `ValueError` when the
    file is something else, `StoreError` when it cannot be opened or another stand-in has it open.
    """
    if path is None:
        connection = _connect(":memory:")
        connection.executescript(_SCHEMA)
        return connection
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as exc:
        raise StoreError(f"the store {path} cannot be opened: {exc.strerror}") from exc
    connection = _connect(str(path.absolute()))  # `:memory:` and `file:…` are names, too
    try:
        _claim(connection, path)
    except sqlite3.OperationalError as exc:
        connection.close()
        if exc.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise StoreError(f"the store {path} is in use by another stand-in") from exc
        raise StoreError(f"the store {path} cannot be opened: {exc}") from exc
    except sqlite3.DatabaseError as exc:
        connection.close()
        raise ValueError(f"the file {path} is not a store of the stand-in; name another") from exc
    except ValueError:
        connection.close()
        raise
    return connection


def _connect(name: str) -> sqlite3.Connection:
    # One connection for all threads; the account's lock keeps them apart.
    return sqlite3.connect(name, isolation_level=None, check_same_thread=False, timeout=1.0)


def _claim(connection: sqlite3.Connection, path: Path) -> None:
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if owner != _APPLICATION_ID and not empty:
        raise ValueError(f"the file {path} is not a store of the stand-in; name another")
    _make_private(path)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute("COMMIT")
    connection.executescript(_SCHEMA)


def _make_private(path: Path) -> None:
    """Mode 0600, also where the store was there before, and what a kill left beside it."""
    for suffix in ("", "-wal", "-shm"):
        try:
            path.with_name(path.name + suffix).chmod(0o600)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise StoreError(f"the store {path} cannot be made private: {exc.strerror}") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The service's limits: the documented values, or lower ones for a rehearsal.

    `max_start` is the highest `start` of `list`: documented as 1000, but a larger library could
    not be listed whole then, so by default (None) any is taken.
    """

    max_libraries: int = 10
    max_faces: int = 5_000_000
    max_request_bytes: int = 2 * 1024 * 1024
    max_start: int | None = None


@dataclass(frozen=True, slots=True)
class Library:
    """A face library; the service says group. `add_time` is UNIX seconds."""

    group_id: str
    group_name: str
    group_data: str
    model_version: str
    add_time: float


@dataclass(frozen=True, slots=True)
class Face:
    """One face of a library. `add_time` is UNIX ms; `sha256` (hex) is of the picture's bytes."""

    face_token: str
    user_id: str
    user_data: str
    add_time: int
    sha256: str


_SELECT_FACE = "SELECT face_token, user_id, user_data, add_time, lower(hex(sha256)) FROM face "


class Account:
    """All libraries of the one account, in memory or in `store`. Safe to share between threads."""

    def __init__(
        self, *, clock: Clock, limits: Limits, matcher: Matcher, store: Path | None = None
    ) -> None:
        """Raises what `open_store` raises, and ValueError for a store of another matcher."""
        self._clock = clock
        self._limits = limits
        self._lock = RLock()
        self._db = open_store(store)
        self._indexes = defaultdict[str, LikenessIndex](lambda: LikenessIndex(matcher))
        self._total = 0
        if (made_by := self.setting("matcher", default=matcher.name)) != matcher.name:
            self._db.close()
            raise ValueError(
                f"the store {store} has likenesses by the matcher {made_by}; use that, or name "
                "another store"
            )
        self._load()

    def close(self) -> None:
        """Close the store; every later call is a bug."""
        with self._lock:
            self._db.close()

    def setting(self, name: str, *, default: str) -> str:
        """A text kept in the store; `default` is stored and returned when there is none."""
        with self._lock:
            self._db.execute("INSERT OR IGNORE INTO setting VALUES (?, ?)", (name, default))
            row = self._db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return str(row[0])

    def libraries(self) -> list[Library]:
        """Oldest first."""
        with self._lock:
            rows = self._db.execute("SELECT * FROM library ORDER BY add_time, rowid").fetchall()
        return [Library(*row) for row in rows]

    def library(self, group_id: str) -> Library:
        """Raises `INVALID_OUTER_ID` when there is no such library."""
        with self._lock:
            row = self._db.execute(
                "SELECT * FROM library WHERE group_id = ?", (group_id,)
            ).fetchone()
        if row is None:
            raise RefusalError("INVALID_OUTER_ID", rule="unknown_library")
        return Library(*row)

    def create(self, library: Library) -> None:
        """Add a library. The codes for one too many and for a duplicate are guesses."""
        with self._lock:
            known = [each.group_id for each in self.libraries()]
            if library.group_id in known:
                raise RefusalError("BAD_ARGUMENTS", "group_id", rule="created_twice")
            if len(known) >= self._limits.max_libraries:
                raise RefusalError("QUOTA_EXCEEDED", "group")
            self._db.execute("INSERT INTO library VALUES (?, ?, ?, ?, ?)", astuple(library))

    def free(self, group_id: str, *, check_empty: bool) -> None:
        """Remove a library; `NOT_EMPTY` when it holds faces and `check_empty` is set."""
        with self._lock:
            count = self.count(group_id)
            if count and check_empty:
                raise RefusalError("NOT_EMPTY", rule="not_empty")
            with self._transaction():
                self._db.execute("DELETE FROM face WHERE group_id = ?", (group_id,))
                self._db.execute("DELETE FROM library WHERE group_id = ?", (group_id,))
            self._indexes.pop(group_id, None)
            self._total -= count

    def count(self, group_id: str) -> int:
        """How many faces the library holds."""
        with self._lock:
            self.library(group_id)
            row = self._db.execute(
                "SELECT count(*) FROM face WHERE group_id = ?", (group_id,)
            ).fetchone()
        return int(row[0])

    def add(
        self,
        group_id: str,
        *,
        user_id: str,
        user_data: str,
        picture: tuple[bytes, Likeness],
        lag: float = 0.0,
    ) -> str:
        """Store a face, which `search` and `list` show after `lag` seconds; return its token."""
        digest, likeness = picture
        token = secrets.token_hex(16)
        with self._lock:
            self.library(group_id)
            if self._total >= self._limits.max_faces:
                raise RefusalError("QUOTA_EXCEEDED", "face")
            now = self._clock.now()
            visible_from = now + lag if lag else 0.0
            with self._transaction():
                self._db.execute(
                    "INSERT OR IGNORE INTO picture VALUES (?, ?)", (digest, likeness.tobytes())
                )
                self._db.execute(
                    "INSERT INTO face VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
                    (token, group_id, user_id, user_data, round(now * 1000), visible_from, digest),
                )
            self._indexes[group_id].add(token, likeness, visible_from=visible_from)
            self._total += 1
        return token

    def delete(self, group_id: str, tokens: Sequence[str]) -> list[str]:
        """Remove the faces and return the tokens that are not in the library."""
        missing = []
        with self._lock, self._transaction():
            self.library(group_id)
            for token in tokens:
                found = self._db.execute(
                    "DELETE FROM face WHERE face_token = ? AND group_id = ?", (token, group_id)
                )
                if found.rowcount:
                    self._indexes[group_id].remove(token)
                    self._total -= 1
                else:
                    missing.append(token)
        return missing

    def face(self, group_id: str, token: str) -> Face:
        """Raises `INVALID_FACE_TOKEN` when the library has no such face."""
        with self._lock:
            self.library(group_id)
            row = self._db.execute(
                _SELECT_FACE + "WHERE face_token = ? AND group_id = ?",
                (token, group_id),
            ).fetchone()
        if row is None:
            raise RefusalError("INVALID_FACE_TOKEN", rule="unknown_token")
        return Face(*row)

    def faces(
        self,
        group_id: str,
        *,
        start: int = 1,
        limit: int = -1,
        hidden: bool = False,
        added_by: float = math.inf,
    ) -> list[Face]:
        """Oldest first, from the 1-based `start` on; `hidden` shows lagging faces too, and
        `added_by` (UNIX seconds) only those that are older."""
        with self._lock:
            self.library(group_id)
            rows = self._db.execute(
                _SELECT_FACE + "WHERE group_id = ? AND (? OR visible_from <= ?) "
                "AND add_time <= ? ORDER BY number LIMIT ? OFFSET ?",
                (group_id, hidden, self._clock.now(), added_by * 1000, limit, start - 1),
            ).fetchall()
        return [Face(*row) for row in rows]

    def search(
        self, group_id: str, likeness: Likeness, *, limit: int, threshold: float
    ) -> list[tuple[Face, float]]:
        """Visible faces with a score of at least `threshold`, best first."""
        with self._lock:
            self.library(group_id)
            found = self._indexes[group_id].search(
                likeness, now=self._clock.now(), limit=limit, threshold=threshold
            )
            tokens = [token for token, _ in found]
            rows = self._db.execute(
                _SELECT_FACE + f"WHERE face_token IN ({', '.join('?' * len(tokens))})", tokens
            )
            faces = {face.face_token: face for face in (Face(*row) for row in rows)}
            return [(faces[token], score) for token, score in found]

    def _load(self) -> None:
        """Fill the indexes from the store."""
        rows = self._db.execute(
            "SELECT group_id, face_token, visible_from, likeness "
            "FROM face JOIN picture USING (sha256) ORDER BY number"
        )
        for group_id, token, visible_from, likeness in rows:
            vector = np.frombuffer(likeness, dtype=np.float32)
            self._indexes[group_id].add(token, vector, visible_from=visible_from)
            self._total += 1

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit at the end of the block; roll back when it raises."""
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
