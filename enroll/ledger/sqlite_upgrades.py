"""A ledger of an older schema becomes one of this version: all steps or none, under its lock.

Plain functions, not Alembic: every library has a file of its own, which is upgraded by the command
that opens it, forward only. A framework's environment, revisions and version table would be more
than the steps.
"""

from __future__ import annotations

import logging
import math
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection

from enroll.errors import LedgerMismatchError, LocalError
from enroll.ledger import schema as s
from enroll.ledger.sqlite_connection import copy_to_read, save_copy, set_foreign_keys
from enroll.ownership import sync_folder

Step = Callable[[Connection], None]

STEPS: Sequence[Step] = ()
"""The first leads from schema 1 to 2, and so on. A step executes statements and does not commit. It
does not use the tables of `schema`, which are the newest. Once released, it never changes."""

ROOM = 3
"""How many times the ledger's size has to be free: its copy, the changed pages in the -wal, and the
ledger grown by them."""


def schema_version(connection: Connection) -> int:
    """The schema of a ledger that is open. Its head may say an older one: what was committed last
    may still be in the -wal."""
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    connection.rollback()
    return int(version) % s.COPIED


def check_version(path: Path, version: int) -> None:
    """Raise LedgerMismatchError for a schema that this version of enroll does not know."""
    if version > s.SCHEMA_VERSION:
        raise LedgerMismatchError(
            f"The ledger {path} was written by a newer version of enroll (schema {version}; this "
            f"one knows schemas up to {s.SCHEMA_VERSION}), and was not changed. Use that version, "
            "or a newer one."
        )


def upgrade(connection: Connection, path: Path) -> None:
    """Upgrade an open ledger that this process holds, after a copy of it was put beside it.

    Raises LocalError if it cannot be copied or changed; the ledger is as it was then, as after a
    kill.
    """
    old = schema_version(connection)
    copy = path.with_name(path.name + ".before-upgrade")
    _check_room(path)
    _save(connection, path, copy)
    _take_steps(connection, old)
    logging.getLogger("enroll").warning(
        "%s",
        f"The ledger {path} was upgraded from schema {old} to {s.SCHEMA_VERSION}. A copy of it as "
        f"it was is {copy}; delete the copy when you no longer need it.",
        extra={
            "event": "ledger_upgraded",
            "fields": {"from": old, "to": s.SCHEMA_VERSION, "copy": str(copy)},
        },
    )


def upgraded_copy(connection: Connection, path: Path) -> Connection:
    """An upgraded copy of a ledger that is only read, which stays as it is; `connection` is
    closed."""
    old = schema_version(connection)
    copy = copy_to_read(connection, shown=path)
    _take_steps(copy, old)
    return copy


def _check_room(path: Path) -> None:
    journal = path.with_name(path.name + "-wal")
    size = path.stat().st_size + (journal.stat().st_size if journal.exists() else 0)
    needed, free = ROOM * size, shutil.disk_usage(path.parent).free
    if free < needed:
        raise LocalError(
            f"There is no room to upgrade the ledger {path}: its folder needs "
            f"{math.ceil(needed / 1e6):,} MB, and {int(free / 1e6):,} MB are free. The ledger was "
            "not changed. Make room, then run the same command again."
        )


def _save(connection: Connection, path: Path, copy: Path) -> None:
    saving = path.with_name(path.name + ".saved")
    try:
        save_copy(connection, saving)
        saving.replace(copy)
        sync_folder(copy.parent)
    except (OSError, sqlite3.DatabaseError) as error:
        with suppress(OSError):
            saving.unlink()
        raise LocalError(
            f"The ledger {path} has to be upgraded, and cannot be copied before ({error}). It was "
            "not changed. Make room in its folder or fix the permissions, then run the same "
            "command again."
        ) from error


def _take_steps(connection: Connection, old: int) -> None:
    set_foreign_keys(connection, on=False)  # a step may replace a table to which others refer
    with connection.begin():
        for step in STEPS[old - 1 :]:
            step(connection)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise AssertionError(f"a step to schema {s.SCHEMA_VERSION} broke a reference: {broken}")
        connection.exec_driver_sql(f"PRAGMA user_version={s.SCHEMA_VERSION}")
    set_foreign_keys(connection, on=True)
