"""The PostgreSQL adapter of the ledger port: a schema that is made, recognised, held and opened."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, delete, func, insert, select

from enroll.addresses import LedgerAddress
from enroll.errors import EnrollError, LedgerBusyError, LedgerMismatchError, LocalError, UsageError
from enroll.ledger import schema as s
from enroll.ledger.audit import SqliteAudit
from enroll.ledger.copying import Original, Tables, fill
from enroll.ledger.forget import LOG_SECONDS, SqliteForgetting
from enroll.ledger.postgres_connection import Server, Session, connected
from enroll.ledger.postgres_lasting import another_run, first_line
from enroll.ledger.postgres_sql import CREATE_SCAN, CREATE_SCRATCH, SCRATCH, TRIGGERS
from enroll.ledger.queries import SqliteReader
from enroll.ledger.records import (
    RESTORED,
    LibraryIdentity,
    check_library,
    check_not_copied,
)
from enroll.ledger.sqlite import ALIVE, SqliteLedger
from enroll.ledger.store import empty_ledger
from enroll.settings import beside

R = TypeVar("R", bound=SqliteReader)


class PostgresStore:
    """The schema that an address names, whether it is there yet or not; see
    `enroll.ledger.LedgerStore` for the contract."""

    def __init__(self, path: LedgerAddress) -> None:
        self._path = path
        self._server = Server.of(str(path))
        self._held: PostgresHold | None = None

    def exists(self) -> bool:
        with connected(self._server) as session:
            return _version_of(session) is not None

    def check(self) -> None:
        with connected(self._server) as session:
            self._check(session)

    def _check(self, session: Session) -> None:
        version = _version_of(session)
        if version is None:
            raise LedgerMismatchError(
                f"There is no ledger at {self._path}. Check --ledger and --group-id; the first "
                "`enroll run` of a library creates its ledger."
            )
        if version > s.SCHEMA_VERSION:
            raise LedgerMismatchError(
                f"The ledger {self._path} was written by a newer version of enroll (schema "
                f"{version}; this one knows schemas up to {s.SCHEMA_VERSION}), and was not "
                "changed. Use that version, or a newer one."
            )

    def hold(self) -> PostgresHold:
        self._held = PostgresHold(self._path, connected(self._server))
        return self._held

    def holder(self) -> str | None:
        try:
            with connected(self._server) as session:
                return session.holder()
        except LocalError:
            return None

    def open(self, identity: LibraryIdentity, *, began_empty: bool = False) -> PostgresLedger:
        """In the session that holds it, if this does: what it has sent is committed or lost before
        another can hold the ledger."""
        session, held = self._session()
        try:
            if _version_of(session) is None:
                _create(session, identity, began_empty=began_empty)
            self._check(session)
            if self._held is not None and held:
                self._held.outlive()
            ledger = PostgresLedger(session, held=held)
            check_library(self._path, ledger.identity(), identity)
            check_not_copied(self._path, ledger.runs(1))
        except EnrollError:
            if not held:
                session.close()
            raise
        return ledger

    def _session(self) -> tuple[Session, bool]:
        """The one that holds the ledger, if there is one, and whether it is that."""
        if self._held is not None and not self._held.is_closed:
            return self._held.session, True
        return connected(self._server), False

    def read(self) -> PostgresReader:
        return self._opened(PostgresReader)

    def audit(self) -> PostgresAudit:
        return self._opened(PostgresAudit)

    def original(self) -> PostgresOriginal:
        session, held = self._session()
        self._check(session)
        return PostgresOriginal(session, keep=held)

    def new(self) -> NewPostgresLedger:
        held = self._held
        restored = held is not None and held.last_run == RESTORED
        return NewPostgresLedger(self._session()[0], restored=restored)

    def _opened(self, kind: Callable[[Session], R]) -> R:
        session = connected(self._server, reads=True)
        try:
            self._check(session)
            return kind(session)
        except EnrollError:
            session.close()
            raise

    def scratch(self, identity: LibraryIdentity) -> SqliteLedger:
        if not self.exists():
            return empty_ledger(identity)
        ledger = self._opened(lambda session: PostgresLedger(session, held=False))
        try:
            check_not_copied(self._path, ledger.runs(1))
        except EnrollError:
            ledger.close()
            raise
        return ledger


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
            self._place = self.session.scalar(f"SELECT {_PLACE}")
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
    """Raise UsageError if the role may not ask where the ledger is. By default everybody may; some
    managed servers have taken that away."""
    refused, role = session.connection.exec_driver_sql(_REFUSED).one()
    session.connection.rollback()
    if refused:
        raise UsageError(
            f"The role {role} may not call {refused} of {session.server}, which shows whether a "
            "backup was restored. Have an administrator of the database allow it: GRANT EXECUTE "
            f"ON FUNCTION {refused} TO {role};"
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


class PostgresReader(SqliteReader):
    """What can be asked of it. It sees one state of the ledger as long as it is open."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.connection)
        self._session = session

    def close(self) -> None:
        self._session.close()


class PostgresAudit(SqliteAudit):
    def __init__(self, session: Session) -> None:
        super().__init__(session.connection)
        self._session = session

    def close(self) -> None:
        self._session.close()


class PostgresLedger(SqliteLedger):
    """The driver's side; see `enroll.ledger.Ledger` for the contract."""

    def __init__(self, session: Session, *, held: bool) -> None:
        """Whoever has `held` the ledger in this session closes that."""
        self._session = session
        self._held = held
        super().__init__(session.connection, None)
        self._forgetting = PostgresForgetting(session)

    def _make_scratch(self) -> None:
        if not self._held:
            super()._make_scratch()
            return
        self._connection.exec_driver_sql(CREATE_SCAN)
        for table in SCRATCH:  # of what an earlier holder has left
            self._connection.execute(delete(table))

    def _sign(self, alive: dict[str, Any]) -> None:
        """Only while no later run has begun: the lock of this session keeps every other out, and
        this is checked all the same."""
        newest = select(func.max(s.run.c.run)).scalar_subquery()
        signed = self._connection.execute(ALIVE.where(s.run.c.run == newest), alive)
        if signed.rowcount != 1:
            raise LocalError(another_run(str(self._session.server)))

    def rest(self) -> None:
        if not self._held:
            return
        if self._session.has_written:
            self.commit()
        else:
            self._connection.rollback()  # the server may keep rows to be read

    def close(self) -> None:
        _close(self._session, keep=self._held)


class PostgresOriginal(Original):
    """A schema that is held to be copied."""

    def __init__(self, session: Session, *, keep: bool) -> None:
        super().__init__(session.connection)
        self._session = session
        self._keep = keep

    def close(self) -> None:
        _close(self._session, keep=self._keep)


class NewPostgresLedger(Tables):
    """A schema that is filled in one transaction, of the session that holds it; see
    `enroll.ledger.NewLedger`."""

    def __init__(self, session: Session, *, restored: bool) -> None:
        super().__init__(session.connection)
        self._session = session
        self._restored = restored
        session.make_schema()
        s.create_tables(session.connection, s.metadata)

    def fill(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        fill(self._connection, table, rows)

    def seal(self) -> None:
        self._connection.exec_driver_sql(_NUMBER_ON)
        _mark(self._connection, place="''" if self._restored else _PLACE)

    def publish(self) -> None:
        self._connection.commit()

    def close(self) -> None:
        _close(self._session, keep=True)


def _close(session: Session, *, keep: bool) -> None:
    """Roll back, and close the session unless it is kept by who holds the ledger."""
    if not keep:
        session.close()
        return
    with suppress(LocalError):  # the session may be lost
        session.connection.rollback()


class PostgresForgetting(SqliteForgetting):
    """Rows are deleted, and tables written without them. What the server keeps elsewhere, in its
    write-ahead log, its replicas and backups, is not ours to change."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.connection, None)
        self._session = session

    @contextmanager
    def _deleting(self) -> Iterator[None]:
        yield

    def _rewrite(self) -> None:
        try:
            self._session.beyond(f"SET lock_timeout = '{LOG_SECONDS}s'")
            for table in [*s.metadata.tables, *(one.name for one in SCRATCH)]:
                # The planner's statistics hold texts of some rows.
                self._session.beyond(f'VACUUM (FULL, ANALYZE) "{table}"')
        except psycopg.Error as error:
            raise LocalError(
                f"The ledger {self._session.server} cannot be rewritten: {first_line(error)}. What "
                "was deleted from it may still be in the server's files: end other programs that "
                "read it, then run the same command again."
            ) from error


def _version_of(session: Session) -> int | None:
    """The version of the ledger's tables in the schema; None if there are none."""
    tables = session.tables()
    if not tables:
        return None
    if "enroll_ledger" not in tables:
        raise LedgerMismatchError(
            f"The schema {session.server.schema} of {session.server} holds other tables than a "
            "ledger's; nothing in it was changed. Correct --ledger: it names a ledger, or a schema "
            "that is empty or does not exist yet, in which `enroll run` creates one."
        )
    return int(session.scalar("SELECT version FROM enroll_ledger"))


def _create(session: Session, identity: LibraryIdentity, *, began_empty: bool) -> None:
    """Make a whole ledger in one transaction: a kill leaves none or all of it."""
    connection = session.connection
    session.make_schema()
    s.create_tables(connection, s.metadata)
    library = {**asdict(identity), "photo_root": "", "photo_root_named": False}
    connection.execute(insert(s.library).values(only=1, began_empty=began_empty, **library))
    _mark(connection, place=_PLACE)
    connection.commit()


def _mark(connection: Connection, *, place: str) -> None:
    """Make a ledger of tables that are there: with triggers, and a table that says what it is."""
    for statement in [*CREATE_SCRATCH, *TRIGGERS]:
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(
        "CREATE TABLE enroll_ledger "
        "(version BIGINT NOT NULL, place TEXT NOT NULL, mark TEXT NOT NULL)"
    )
    connection.exec_driver_sql(
        f"INSERT INTO enroll_ledger SELECT %s, {place}, ''",  # our own
        (s.SCHEMA_VERSION,),
    )


_PLACE = """
concat_ws(' ', (SELECT system_identifier FROM pg_control_system()),
    left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), 'enroll_ledger'::regclass::oid)
"""
"""Where a ledger is: the server, its timeline, and the table's number. All three stay as long as
the server runs. Restoring a backup changes one of them, unless its files are copied as they are."""

_REFUSED = """
SELECT string_agg(name, ', '), quote_ident(current_user)
FROM unnest(ARRAY['pg_control_system()', 'pg_walfile_name(pg_lsn)', 'pg_current_wal_insert_lsn()'])
    AS functions (name)
WHERE NOT has_function_privilege(name, 'EXECUTE')
"""

_NUMBER_ON = """
SELECT setval(pg_get_serial_sequence('event', 'event'), coalesce(max(event), 1), count(*) > 0)
FROM event
"""
"""The next event gets the number after the last, as in SQLite."""

_REMEMBER_PLACE = f"UPDATE enroll_ledger SET place = {_PLACE}"  # noqa: S608  # our own
_MARK_AND_PLACE = f"SELECT mark, {_PLACE} FROM enroll_ledger"  # noqa: S608  # our own
_IS_ELSEWHERE = f"SELECT place <> {_PLACE} FROM enroll_ledger"  # noqa: S608  # our own


def _was_moved(session: Session) -> bool:
    """Whether the ledger is there and was written elsewhere: it was restored from a backup, perhaps
    an old one, or a standby took over, which may lack what was committed last."""
    if not _is_there(session):
        return False
    moved = session.scalar(_IS_ELSEWHERE)
    session.connection.rollback()
    return bool(moved)
