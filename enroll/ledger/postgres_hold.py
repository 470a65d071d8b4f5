"""Who holds a ledger in PostgreSQL, in which session, and whether it is where it was."""

from __future__ import annotations

import json
import logging
import os
from contextlib import AbstractContextManager, suppress
from typing import Any

import psycopg

from enroll.addresses import LedgerAddress
from enroll.errors import EnrollError, LedgerBusyError, LocalError, UsageError
from enroll.ledger.postgres_connection import Session
from enroll.ledger.postgres_sql import CREATE_SCAN
from enroll.ledger.records import RESTORED
from enroll.settings import beside

PLACE = """
concat_ws(' ', (SELECT system_identifier FROM pg_control_system()),
    left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), 'enroll_ledger'::regclass::oid)
"""
"""Where a ledger is: the server, its timeline, and the table's number. All three stay as long as
the server runs. Restoring a backup changes one of them, unless its files are copied as they are."""

_REMEMBER_PLACE = f"UPDATE enroll_ledger SET place = {PLACE}"  # noqa: S608  # our own
_MARK_AND_PLACE = f"SELECT mark, {PLACE} FROM enroll_ledger"  # noqa: S608  # our own
_IS_ELSEWHERE = f"SELECT place <> {PLACE} FROM enroll_ledger"  # noqa: S608  # our own

_REFUSED = """
SELECT string_agg(name, ', '), quote_ident(current_user)
FROM unnest(ARRAY['pg_control_system()', 'pg_walfile_name(pg_lsn)', 'pg_current_wal_insert_lsn()'])
    AS functions (name)
WHERE NOT has_function_privilege(name, 'EXECUTE')
"""


class PostgresHold(AbstractContextManager["PostgresHold"]):
    """Holds a ledger for this process until closed; see `enroll.ledger.LedgerHold`.

    The server drops the lock with the session, and not before a commit that is under way.
    """

    def __init__(self, path: LedgerAddress, session: Session) -> None:
        self.session = session
        self.is_closed = False
        if not session.try_lock():
            holder = session.holder() or ""
            session.close()
            raise LedgerBusyError(
                f"Another run holds the ledger {path}{holder}. Wait until it ends, or watch it "
                "with `enroll status --watch`."
            )
        self._memory = _Memory(path)
        self._place = ""
        try:
            _check_allowed(session)
            self.last_run = RESTORED if _was_moved(session) else self._memory.last_run
            if _is_there(session):
                self.outlive()
        except EnrollError:
            session.close()
            raise
        if session.is_exposed:
            logging.getLogger("enroll").warning(
                "%s",
                f"The connection to {path} is not safe from whoever is between: the server's "
                "certificate, or the name in it, is not checked. Use sslmode=verify-full.",
                extra={"event": "ledger_exposed", "fields": {}},
            )

    def outlive(self) -> None:
        """The ledger is there: from now on a session that is lost is replaced."""
        if not self._place:
            self._place = self.session.scalar(f"SELECT {PLACE}")
            self.session.outlive(self._resume)

    def _resume(self, raw: psycopg.Connection[Any]) -> tuple[str, bool]:
        """See `enroll.ledger.postgres_lasting.Resume`."""
        ((locked,),) = raw.execute(self.session.TAKE_LOCK, (self.session.lock,)).fetchall()
        ((mark, place),) = raw.execute(_MARK_AND_PLACE).fetchall()
        if place != self._place:
            raise LocalError(
                f"The ledger {self.session.server} is at another place since the connection to it "
                "was lost: it was restored from a backup, or a standby took over. Run the same "
                "command again."
            )
        raw.execute(CREATE_SCAN.encode())
        return mark, locked

    def remember_run(self, at: int) -> None:
        self.last_run = at
        self._memory.write(last_run=at, caught_up=0)
        if _is_there(self.session):
            self.session.connection.exec_driver_sql(_REMEMBER_PLACE)
            self.session.connection.commit()

    @property
    def caught_up(self) -> bool:
        return self._memory.caught_up == self.last_run != 0

    def mark_caught_up(self) -> None:
        self._memory.write(last_run=self.last_run, caught_up=self.last_run)

    def close(self) -> None:
        self.is_closed = True
        self.session.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_there(session: Session) -> bool:
    return "enroll_ledger" in session.tables()


def _check_allowed(session: Session) -> None:
    """Raise UsageError if the role may only read, or not ask where the ledger is. By default
    everybody may; some managed servers have taken that away."""
    refused, role = session.connection.exec_driver_sql(_REFUSED).one()
    session.connection.rollback()
    if refused:
        raise UsageError(
            f"The role {role} may not call {refused} of {session.server}, which shows whether a "
            "backup was restored. Have an administrator of the database allow it: GRANT EXECUTE "
            f"ON FUNCTION {refused} TO {role};"
        )
    if session.scalar("SELECT current_setting('default_transaction_read_only')::boolean"):
        raise UsageError(
            f"The role {role} only reads in {session.server}: default_transaction_read_only is on. "
            "Use another role, or have an administrator of the database allow it: ALTER ROLE "
            f"{role} SET default_transaction_read_only = off;"
        )


class _Memory:
    """What this machine remembers of a ledger: which run it has seen there last. Without a home
    folder it remembers nothing."""

    def __init__(self, path: LedgerAddress) -> None:
        self._ledger = path
        try:
            said = json.loads(beside(path, ".json").read_text(encoding="utf-8"))
        except (UsageError, OSError, ValueError):
            said = {}
        self.last_run = int(said.get("last_run", 0))
        self.caught_up = int(said.get("caught_up", 0))

    def write(self, *, last_run: int, caught_up: int) -> None:
        self.last_run, self.caught_up = last_run, caught_up
        about = {"last_run": last_run, "caught_up": caught_up}
        with suppress(UsageError, OSError):
            path = beside(self._ledger, ".json")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            written = path.with_suffix(".new")
            descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(about, file)
            written.replace(path)


def _was_moved(session: Session) -> bool:
    """Whether the ledger is there and was written elsewhere: it was restored from a backup, perhaps
    an old one, or a standby took over, which may lack what was committed last."""
    if not _is_there(session):
        return False
    moved = session.scalar(_IS_ELSEWHERE)
    session.connection.rollback()
    return bool(moved)
