"""The PostgreSQL adapter of the ledger port: a schema that is made, recognised, held and opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Table, delete, func, insert, select, text

from enroll.addresses import LedgerAddress
from enroll.errors import EnrollError, LedgerMismatchError, LocalError
from enroll.ledger import schema as s
from enroll.ledger.audit import SqlAudit
from enroll.ledger.copying import Original, Tables, fill
from enroll.ledger.diff import SqlManifestDiff
from enroll.ledger.forget import LOG_SECONDS, SqlForgetting
from enroll.ledger.postgres_connection import (
    PLAN_FOR_SOME_ROWS,
    PLAN_FOR_WHOLE_TABLES,
    Server,
    Session,
    connected,
)
from enroll.ledger.postgres_hold import PLACE, PostgresHold
from enroll.ledger.postgres_lasting import another_run, first_line
from enroll.ledger.postgres_sql import CREATE_SCAN, CREATE_SCRATCH, SCRATCH, TRIGGERS
from enroll.ledger.queries import SqlReader
from enroll.ledger.records import (
    RESTORED,
    LibraryIdentity,
    check_library,
    check_not_copied,
)
from enroll.ledger.sqlite_store import empty_ledger
from enroll.ledger.writer import ALIVE, SqlLedger

R = TypeVar("R", bound=SqlReader)


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
            # An interrupted command asks this last, and must not wait.
            with connected(self._server, waits=False) as session:
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

    def scratch(self, identity: LibraryIdentity) -> SqlLedger:
        if not self.exists():
            return empty_ledger(identity)
        ledger = self._opened(lambda session: PostgresLedger(session, held=False))
        try:
            check_not_copied(self._path, ledger.runs(1))
        except EnrollError:
            ledger.close()
            raise
        return ledger


class PostgresReader(SqlReader):
    """What can be asked of it. It sees one state of the ledger as long as it is open."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.connection)
        self._session = session

    def close(self) -> None:
        self._session.close()


class PostgresAudit(SqlAudit):
    def __init__(self, session: Session) -> None:
        super().__init__(session.connection)
        self._session = session

    def close(self) -> None:
        self._session.close()


class PostgresLedger(SqlLedger):
    """The driver's side; see `enroll.ledger.Ledger` for the contract."""

    def __init__(self, session: Session, *, held: bool) -> None:
        """Whoever has `held` the ledger in this session closes that."""
        self._session = session
        self._held = held
        super().__init__(session.connection)
        self._diff = PostgresManifestDiff(session.connection)
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


class PostgresManifestDiff(SqlManifestDiff):
    """Its statements go through whole tables: what a session is set to, for some rows at a time, is
    in force again after `accept`. Autovacuum sees nothing of a transaction, nor of a new table for
    a minute, and without statistics joins of 100,000 rows took minutes."""

    def match_photos(self, *, reread: bool) -> None:
        for table in self._connection.scalars(_NEVER_ANALYZED).all():
            self._connection.exec_driver_sql(f'ANALYZE "{table}"')
        self._connection.exec_driver_sql(PLAN_FOR_WHOLE_TABLES)
        super().match_photos(reread=reread)

    def _analyze(self, table: Table) -> None:
        self._connection.exec_driver_sql(f'ANALYZE "{table.name}"')

    def accept(self, run: int) -> None:
        super().accept(run)
        self._connection.exec_driver_sql(PLAN_FOR_SOME_ROWS)


_NEVER_ANALYZED = text(
    "SELECT relname FROM pg_catalog.pg_class WHERE oid = ANY (ARRAY['face', 'row', 'photo']"
    "::regclass[]) AND reltuples < 0"
)
"""PostgreSQL before 14 has 0 there, also for an empty table, of which it assumes ten pages."""


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
        _mark(self._connection, place="''" if self._restored else PLACE)

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


class PostgresForgetting(SqlForgetting):
    """Rows are deleted, and tables written without them. What the server keeps elsewhere, in its
    write-ahead log, its replicas and backups, is not ours to change."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.connection)
        self._session = session

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
    _mark(connection, place=PLACE)
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


_NUMBER_ON = """
SELECT setval(pg_get_serial_sequence('event', 'event'), coalesce(max(event), 1), count(*) > 0)
FROM event
"""
"""The next event gets the number after the last, as in SQLite."""
