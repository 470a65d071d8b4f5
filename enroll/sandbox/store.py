"""The stand-in's rows on disk or in memory: SQLite, written through before a call is answered."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

# "enrS": tells a store of ours from any other SQLite file.
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
    """A store that cannot be opened: another stand-in has it, or the disk will not do."""


def open_store(path: Path | None) -> sqlite3.Connection:
    """The store at `path`, for its owner alone (it holds the secret); in memory without a path.

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
        raise ValueError(f"{path} is no SQLite file, so no sandbox store") from exc
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
        raise ValueError(f"{path} is a database of something else, not a sandbox store")
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
