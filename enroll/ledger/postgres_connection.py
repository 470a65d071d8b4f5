"""Sessions of a PostgreSQL server: to which one an address leads, and what is asked of it."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg import IsolationLevel
from psycopg.abc import Buffer
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumperUnknown, TextLoader
from sqlalchemy import Connection, ExceptionContext, NullPool, create_engine, event, exc

from enroll import clock
from enroll.errors import LocalError, UsageError
from enroll.ledger.postgres_lasting import (
    LONGEST_PAUSE,
    RECONNECT_SECONDS,
    Connect,
    LastingConnection,
    Resume,
    failure,
    first_line,
)
from enroll.ledger.postgres_sql import DIALECT, MARK, restored, stored
from enroll.ledger.records import LOOPBACK

_PARAMETERS = frozenset(
    {"host", "hostaddr", "port", "dbname", "user", "service", "passfile", "sslmode", "sslrootcert"}
    | {"sslcert", "sslkey", "sslcrl", "sslcrldir", "sslsni", "ssl_min_protocol_version"}
    | {"gssencmode", "krbsrvname", "channel_binding", "require_auth", "target_session_attrs"}
    | {"connect_timeout"}
)
"""What an address may say besides, as libpq names it. Nothing here is a secret."""

_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_LONGEST_NAME = 63
"""Bytes of an application_name: NAMEDATALEN - 1."""

_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "client_encoding": "UTF8",
}
"""A server that went away is noticed in half a minute, also by one who only waits for it."""

_ATTEMPT_SECONDS = 10
"""For how long one attempt to connect again may take."""


class _TextDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer | None:
        if "\0" in obj or MARK in obj:
            obj = stored(obj)
        return super().dump(obj)


class _TextLoader(TextLoader):
    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        return restored(text) if isinstance(text, str) and MARK in text else text


@dataclass(frozen=True, slots=True)
class Server:
    """A schema of a database: `parameters` are libpq's, without any secret."""

    shown: str
    schema: str
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, text: str) -> Server:
        """Read an address. Raises UsageError."""
        try:
            parts = urlsplit(text)
        except ValueError as error:  # such as a bracket that is not closed
            raise UsageError(_MALFORMED) from error
        if "#" in text or "@" in parts.path or "%00" in text:
            raise UsageError(_MALFORMED)  # which a password may have caused: it is not repeated
        parameters = parse_qsl(parts.query, keep_blank_values=True)
        given = dict(parameters)
        if parts.password is not None or "password" in given or "sslpassword" in given:
            raise UsageError(
                "--ledger must not hold a password, which others could see in the list of "
                "processes. Put it into the file ~/.pgpass, or name another file with PGPASSFILE."
            )
        if len(given) < len(parameters):
            raise UsageError("--ledger has a parameter twice. Keep the one that is meant.")
        schema = given.pop("schema", "")
        if not _SCHEMA.fullmatch(schema):
            raise UsageError(
                "--ledger must end with the schema for the ledger's tables: "
                "postgresql://HOST/DATABASE?schema=NAME. A name has small letters, digits and "
                "underscores, and does not begin with a digit or pg_."
            )
        if unknown := sorted(given.keys() - _PARAMETERS):
            raise UsageError(
                f"--ledger has {', '.join(unknown)}, which no address of a ledger has. Correct it; "
                "what libpq reads from the environment needs not be there."
            )
        host, port = _host_and_port(parts.netloc)
        named = {
            "host": unquote(host),
            "port": port,
            "user": unquote(parts.username or ""),
            "dbname": unquote(parts.path.lstrip("/")),
        }
        return cls(text, schema, {key: value for key, value in named.items() if value} | given)

    def __str__(self) -> str:
        return self.shown


_MALFORMED = (
    "--ledger is not a valid address: postgresql://USER@HOST:PORT/DATABASE?schema=NAME. Write "
    "special characters in a name as % and two digits (@ is %40, / is %2F), and put a password "
    "into the file ~/.pgpass."
)


def _host_and_port(netloc: str) -> tuple[str, str]:
    """As libpq takes them: several of each, with commas between them. Raises UsageError."""
    hosts, ports = [], []
    for one in netloc.rpartition("@")[2].split(","):
        host, colon, port = one.rpartition(":")
        if not colon or one.endswith("]"):
            host, port = one, ""
        elif not port.isdecimal():
            raise UsageError(_MALFORMED)
        hosts.append(host.strip("[]"))
        ports.append(port)
    return ",".join(hosts), ",".join(ports) if any(ports) else ""


_FOR_WHOLE_TABLES = "enable_hashjoin", "enable_mergejoin", "enable_seqscan"

PLAN_FOR_SOME_ROWS, PLAN_FOR_WHOLE_TABLES = (
    "; ".join(f"SET {name} = {value}" for name in _FOR_WHOLE_TABLES) for value in ("off", "on")
)

_SETTINGS = {
    **dict.fromkeys(_FOR_WHOLE_TABLES, "off"),
    "jit": "off",
    "max_parallel_workers_per_gather": "0",  # it takes longer to start them than most statements
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    "lock_timeout": "60000",
    # The server's own, so that it ends the session of a machine that went away.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""Statements look for some rows at a time by an index, as they do in SQLite. Left to itself, the
planner would read whole tables for each, as nothing is known of temporary tables."""


class Session:
    """A session of a server, with the ledger's schema as its own."""

    def __init__(self, server: Server, *, reads: bool, waits: bool = True) -> None:
        """It `waits` for a server that is starting."""
        self.server = server
        connect = partial(_connect, server, name=_application_name(), reads=reads)
        self._lasting = _first(server, connect, waits=waits)
        self.connection = _engine(self._lasting, shown=server.shown)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        with suppress(LocalError):  # it may be lost
            self.connection.close()
        self.connection.engine.dispose()
        self._lasting.close()

    def outlive(self, resume: Resume) -> None:
        """Connect again from now on when the connection is lost: see `LastingConnection`. Before,
        and without the lock, that is the end of it."""
        self.connection.commit()
        try:
            self._lasting.outlive(resume)
        except psycopg.Error as error:
            raise failure(self.server.shown, error) from error

    @property
    def has_written(self) -> bool:
        """Whether something was written that is not committed."""
        return self._lasting.has_written

    @property
    def is_exposed(self) -> bool:
        """Whether the server is elsewhere, and might be another than the one that is meant."""
        info = self._lasting.raw.info
        here = info.host.startswith(("/", "@")) or info.host in LOOPBACK
        return not here and info.get_parameters().get("sslmode") != "verify-full"

    def scalar(self, statement: str, *values: object) -> Any:
        """The first value that a statement in PostgreSQL's own words gives."""
        return self.connection.exec_driver_sql(statement, values).scalar()

    def beyond(self, statement: str) -> None:
        """Execute outside of a transaction."""
        self.connection.commit()
        self._lasting.raw.execute(statement.encode())

    def tables(self) -> frozenset[str]:
        """The tables in the schema; none where there is no schema."""
        found = self.connection.exec_driver_sql(
            "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = %s",
            (self.server.schema,),
        )
        tables = frozenset(found.scalars())
        self.connection.rollback()
        return tables

    def make_schema(self) -> None:
        """Create the schema if it is missing."""
        wanted = "SELECT true FROM pg_catalog.pg_namespace WHERE nspname = %s"
        if not self.scalar(wanted, self.server.schema):
            self.connection.exec_driver_sql(f'CREATE SCHEMA "{self.server.schema}"')

    def try_lock(self) -> bool:
        """Take the schema's lock for as long as this session is there, if nobody has it."""
        return bool(self.scalar(self.TAKE_LOCK, self.lock))

    def holder(self) -> str | None:
        """Who has the lock, in words that may be none; None where nobody has it."""
        unsigned = self.lock % 2**64
        found = self.connection.exec_driver_sql(
            _HOLDER, (unsigned >> 32, unsigned & 0xFFFFFFFF)
        ).first()
        self.connection.rollback()
        if found is None:
            return None
        program, pid, since, *host = (found.application_name or "").split(" ", 3) + [""] * 3
        if program != "enroll":
            return ""
        return f": process {pid} on {''.join(host).strip()}, since {since.replace('_', ' ')}"

    TAKE_LOCK = "SELECT pg_try_advisory_lock(%s)"

    @property
    def lock(self) -> int:
        """The number of the schema's lock in its database."""
        digest = blake2b(f"enroll {self.server.schema}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


_HOLDER = """
SELECT application_name FROM pg_catalog.pg_locks
LEFT JOIN pg_catalog.pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND classid::bigint = %s
AND objid::bigint = %s
AND pg_locks.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
"""


_given_up: dict[str, float] = {}
"""When a server was last waited for in vain (monotonic seconds): a command that asks again, to say
how it ended or because the first question was not worth an error, does not wait again."""


def _first(server: Server, connect: Connect, *, waits: bool) -> LastingConnection:
    """The first connection, also to a server that is still starting, if it `waits`. Raises
    LocalError, and UsageError for a server that is refused."""
    began, said = clock.monotonic(), False
    waits = waits and began >= _given_up.get(server.shown, -math.inf) + RECONNECT_SECONDS
    while True:
        try:
            return LastingConnection(connect, shown=server.shown)
        except psycopg.Error as error:
            over = clock.monotonic() >= began + RECONNECT_SECONDS
            if not waits or over or not _is_starting(server, error):
                if said:
                    _given_up[server.shown] = clock.monotonic()
                raise LocalError(
                    f"The ledger {server} cannot be reached: {first_line(error)}. Check --ledger, "
                    "the server and the password file, then run the same command again."
                ) from error
            if not said:
                message = (
                    f"The ledger {server} cannot be reached yet: {first_line(error)}. Waiting for "
                    f"it for up to {RECONNECT_SECONDS:.0f} s."
                )
                extra = {"event": "ledger_starting", "fields": {}}
                logging.getLogger("enroll").warning("%s", message, extra=extra)
                said = True
        clock.sleep(LONGEST_PAUSE)


def _is_starting(server: Server, error: psycopg.Error) -> bool:
    """Whether a server is there that starts, recovers or shuts down. libpq has no code for an
    attempt that failed, but says which servers reject every session (cannot_connect_now)."""
    if error.sqlstate is not None:
        return error.sqlstate.startswith("57P0")  # ended while the session was made ready
    if "the database system is " in str(error):
        return True
    where = make_conninfo("", **{**_DEFAULTS, **server.parameters})
    return PGconn.ping(where.encode()) == Ping.REJECT  # it may speak another language


def _connect(server: Server, within: float, *, name: str, reads: bool) -> psycopg.Connection[Any]:
    """Begin a session that is ready for use, `within` so many seconds. Raises psycopg.Error, and
    UsageError for a server that is refused."""
    wanted = {**_DEFAULTS, **server.parameters, "application_name": name}
    if within < math.inf:
        wanted["connect_timeout"] = str(math.ceil(min(max(within, 2), _ATTEMPT_SECONDS)))
    raw = psycopg.Connection.connect(make_conninfo("", **wanted))
    try:
        raw.adapters.register_dumper(int, Int8Dumper)  # else statements are prepared for each size
        raw.adapters.register_dumper(str, _TextDumper)
        for kind in ("text", "varchar"):
            raw.adapters.register_loader(kind, _TextLoader)
        _check(raw, server)
        settings = {"search_path": server.schema, **_SETTINGS}
        if raw.info.server_version >= 140000:
            settings["idle_session_timeout"] = "0"
        raw.execute(
            "SELECT set_config(name, setting, false) FROM unnest(%s::text[], %s::text[]) "
            "AS wanted (name, setting)",
            (list(settings), list(settings.values())),
        )
        raw.commit()
        if reads:
            raw.isolation_level = IsolationLevel.REPEATABLE_READ
        else:
            raw.autocommit = True
    except (psycopg.Error, UsageError):
        raw.close()
        raise
    return raw


def _check(raw: psycopg.Connection, server: Server) -> None:
    """Raise UsageError for a session that cannot keep a promise."""
    (found,) = raw.execute(
        "SELECT pg_backend_pid(), current_setting('synchronous_commit'), current_setting('fsync'), "
        "pg_is_in_recovery(), current_setting('server_encoding')"
    ).fetchall()
    pid, commits, syncs, follows, encoding = found
    if pid != raw.info.backend_pid:
        raise UsageError(
            f"{server} leads to a pooler, in which a session may lose its lock and its temporary "
            "tables. Name the server itself with --ledger."
        )
    if commits == "off" or syncs == "off":
        name = "fsync" if syncs == "off" else "synchronous_commit"
        raise UsageError(
            f"The server of {server} has {name}=off, so that a power failure takes what was "
            "committed, and people could be added twice. Set it to on for this database or role."
        )
    if follows:
        raise UsageError(f"{server} leads to a standby, which cannot be written. Name the primary.")
    if encoding != "UTF8":
        raise UsageError(
            f"The database of {server} is encoded in {encoding}, in which not every text can be "
            "kept. Create one with the encoding UTF8."
        )


def _application_name() -> str:
    """Who this is, for whoever finds the lock held."""
    since = datetime.fromtimestamp(clock.time(), UTC).strftime("%Y-%m-%d_%H:%M:%S_UTC")
    name = f"enroll {os.getpid()} {since} {socket.gethostname()}"
    return name.encode("ascii", "replace")[:_LONGEST_NAME].decode()


def _engine(lasting: LastingConnection, *, shown: str) -> Connection:
    engine = create_engine(
        f"{DIALECT}://",
        creator=lambda: lasting,
        poolclass=NullPool,
        pool_reset_on_return=None,  # it is closed
        use_native_hstore=False,
    )

    @event.listens_for(engine, "handle_error")
    def translate(context: ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        # Or SQLAlchemy would connect again by itself.
        context.is_disconnect = False
        if isinstance(error, exc.DBAPIError):
            raise failure(shown, error.orig) from error

    return engine.connect()


def connected(server: Server, *, reads: bool = False, waits: bool = True) -> Session:
    """A new session; one that `reads` sees one state of the ledger until it commits."""
    return Session(server, reads=reads, waits=waits)
