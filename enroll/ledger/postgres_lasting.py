"""A connection to PostgreSQL that outlives its sessions: the next repeats what is not committed.

Nothing is lost or doubled by that. Only the session with the ledger's lock writes the ledger, and
each of its transactions leaves a mark of its own. After a loss, the next session takes the lock
first. By then the server has ended the lost one, so a commit whose answer was lost has happened, or
never will: the mark says which. If it has not, the ledger is as it was when the transaction began,
and its statements have the same results once more, as they depend on nothing but the ledger and
their parameters. Any other mark was left by somebody else, and ends it all.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from itertools import count
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from enroll import clock
from enroll.errors import LocalError, UsageError

RECONNECT_SECONDS = 60.0
"""For how long a lost connection may stay away."""

LONGEST_PAUSE = 1.0
"""The longest time between two attempts to have it back, in seconds."""

MOST_BYTES = 64 * 1024 * 1024
"""What may be kept of the open transaction in order to repeat it."""

ROW_BYTES = 500
"""What a row takes in memory, roughly."""

T = TypeVar("T")

Connect = Callable[[float], "psycopg.Connection[Any]"]
"""Begins a session, within so many seconds if they are finite. Raises psycopg.Error, and UsageError
for a server that is refused."""

Resume = Callable[["psycopg.Connection[Any]"], tuple[str, bool]]
"""Gives a new session what the lost one had. Returns the ledger's mark, and whether its lock could
be taken. Raises LocalError if the ledger is not the one that it was."""


class _Way(Enum):
    """How a statement is executed."""

    ONCE = auto()
    FOR_EACH = auto()
    COPY = auto()


@dataclass(frozen=True, slots=True)
class _Step:
    """A statement of a transaction, with its parameters."""

    statement: str
    values: Any
    way: _Way = _Way.ONCE

    @property
    def reads(self) -> bool:
        """Whether it certainly changes nothing."""
        return self.statement.startswith("SELECT")

    @property
    def size(self) -> int:
        """The memory that its parameters take, in bytes, roughly."""
        if self.way is not _Way.ONCE:
            return ROW_BYTES * len(self.values)
        values = self.values.values() if isinstance(self.values, dict) else self.values or ()
        return ROW_BYTES + sum(len(one) for one in values if isinstance(one, str | bytes))

    def take(self, cursor: psycopg.Cursor[Any]) -> None:
        """Execute it."""
        statement = self.statement.encode()
        if self.way is _Way.FOR_EACH:
            cursor.executemany(statement, self.values)
        elif self.way is _Way.COPY:
            with cursor.copy(statement) as copy:
                for row in self.values:
                    copy.write_row(row)
        else:
            cursor.execute(statement, self.values)


class LastingCursor:
    """What SQLAlchemy takes for a cursor of psycopg."""

    def __init__(self, connection: LastingConnection) -> None:
        self._connection = connection
        self._cursor: psycopg.Cursor[Any] | None = None

    def execute(self, statement: str, values: Any = None) -> None:
        """Execute a statement."""
        self._cursor = self._connection.take(_Step(statement, values))

    def executemany(self, statement: str, values: Sequence[Any]) -> None:
        """Execute it for each of the values."""
        self._cursor = self._connection.take(_Step(statement, values, _Way.FOR_EACH))

    def copy_rows(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Execute COPY … FROM STDIN, past SQLAlchemy. Raises LocalError."""
        try:
            self._cursor = self._connection.take(_Step(statement, rows, _Way.COPY))
        except psycopg.Error as error:
            raise failure(self._connection.shown, error) from error

    def close(self) -> None:
        """Drop what the last statement gave."""
        if self._cursor is not None:
            self._cursor.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class LastingConnection:
    """What SQLAlchemy takes for a connection of psycopg.

    A statement that only reads is no part of a transaction, unless one is open: none stays open
    because of it.
    """

    def __init__(self, connect: Connect, *, shown: str) -> None:
        """`shown` is the ledger's name in messages."""
        self.raw = connect(math.inf)
        self.has_written = False
        """Whether the open transaction has written anything."""
        self._connect = connect
        self.shown = shown
        self._resume: Resume | None = None
        self._steps: list[_Step] | None = []  # of the open transaction; None if they are too large
        self._size = 0
        self._token, self._numbers = secrets.token_hex(8), count(1)
        self._mark = self._coming = ""
        self._gone: LocalError | None = None

    def outlive(self, resume: Resume) -> None:
        """From now on, replace a session that is lost. Not within a transaction."""
        self._coming = self._mark = self._new_mark()
        self.raw.execute(_MARK.format(self._mark).encode())
        self._resume = resume

    def cursor(self, name: str = "") -> Any:
        """A cursor; with a `name` the server keeps its rows, and a loss ends it."""
        return self._insist(partial(self._named, name)) if name else LastingCursor(self)

    def _named(self, name: str) -> psycopg.ServerCursor[Any]:
        self._begin()
        return self.raw.cursor(name)

    def take(self, step: _Step) -> psycopg.Cursor[Any]:
        """Execute a statement. Returns the cursor that has what it gave."""
        cursor = self._insist(partial(self._attempt, step))
        if not step.reads:
            self._remember(step)
        return cursor

    def _attempt(self, step: _Step) -> psycopg.Cursor[Any]:
        cursor = self.raw.cursor()
        if not step.reads:
            self._begin()
        step.take(cursor)
        return cursor

    def commit(self) -> None:
        """End the transaction; it is on the server's disk then."""
        if self._resume is not None and self.has_written:
            self._coming = self._new_mark()
        self._insist(self._commit)
        self._mark = self._coming
        self._begin_anew()

    def _commit(self) -> None:
        if self._mark == self._coming:  # nothing was written, or it has landed
            self.raw.commit()
        else:
            end = f"{_MARK.format(self._coming)}; COMMIT"  # in one message
            self.raw.execute(end.encode(), prepare=False)

    def rollback(self) -> None:
        """End the transaction, of which nothing is left. The server has done so if it was lost."""
        self._begin_anew()
        try:
            self.raw.rollback()
        except psycopg.Error as error:
            if not self._is_lost(error):
                raise

    def close(self) -> None:
        """End the session."""
        self.raw.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def _new_mark(self) -> str:
        return f"{self._token} {next(self._numbers)}"

    def _begin(self) -> None:
        raw = self.raw
        if raw.autocommit and raw.info.transaction_status == TransactionStatus.IDLE:
            raw.execute(b"BEGIN", prepare=False)

    def _begin_anew(self) -> None:
        self.has_written, self._steps, self._size = False, [], 0

    def _remember(self, step: _Step) -> None:
        self.has_written = True
        if self._resume is None or self._steps is None:
            return
        self._size += step.size
        self._steps.append(step)
        if self._size > MOST_BYTES:
            self._steps = None

    # A loss

    def _insist(self, act: Callable[[], T]) -> T:
        """Do it, and again in the next session if this one is lost."""
        until = math.inf
        while True:
            if self._gone is not None:
                raise self._gone
            try:
                return act()
            except psycopg.Error as error:
                if self._resume is None or not self._is_lost(error):
                    raise
                until = min(until, clock.monotonic() + RECONNECT_SECONDS)
                self._regain(self._resume, error, until)
            except (KeyboardInterrupt, SystemExit):
                if self._resume is not None:
                    self.raw.close()  # what the server has done of it, the next session finds out
                raise

    def _is_lost(self, error: psycopg.Error) -> bool:
        return self.raw.closed or (error.sqlstate or "").startswith(_LOST)

    def _regain(self, resume: Resume, error: psycopg.Error, until: float) -> None:
        """Have another session, in which the transaction is as far as it was, or committed. Raises
        LocalError after `until` (monotonic seconds)."""
        because, began = first_line(error), clock.monotonic()
        self._report("ledger_lost", f"was lost: {because}. {_WAITING}")
        self.raw.close()
        try:
            self._reconnect(resume, because, until)
        except (LocalError, UsageError) as final:
            self._gone = LocalError(str(final))  # as everything says from now on
            self.raw.close()
            raise self._gone from final
        except BaseException:
            self.raw.close()  # the transaction may be half repeated
            raise
        self._report("ledger_back", f"is back after {clock.monotonic() - began:.1f} s")

    def _reconnect(self, resume: Resume, because: str, until: float) -> None:
        pause = LONGEST_PAUSE / 32
        while clock.monotonic() < until:
            try:
                if self.raw.closed:
                    self.raw = self._connect(until - clock.monotonic())
                mark, locked = resume(self.raw)
                if mark not in (self._mark, self._coming):
                    raise LocalError(another_run(self.shown))
                if locked:
                    self._catch_up(mark)
                    return
                because = "the server has not ended the former session yet"
            except psycopg.Error as failed:
                because = first_line(failed)
                self.raw.close()
            clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise LocalError(
            f"The connection to the ledger {self.shown} was lost and did not come back within "
            f"{RECONNECT_SECONDS:.0f} s: {because}. Nothing that was recorded is lost; see to the "
            "server or the connection to it, then run the same command again."
        )

    def _catch_up(self, mark: str) -> None:
        """Repeat what was not committed."""
        if mark != self._mark:  # the commit that was under way has landed
            self._mark = mark
            self._begin_anew()
            return
        if self._steps is None:
            raise LocalError(
                f"The connection to the ledger {self.shown} was lost in the middle of a change "
                "that is too large to be repeated. Run the same command again."
            )
        for step in self._steps:
            self._attempt(step)

    def _report(self, event: str, what: str) -> None:
        message = f"The connection to the ledger {self.shown} {what}."
        logging.getLogger("enroll").warning("%s", message, extra={"event": event, "fields": {}})


_WAITING = f"Nothing is sent until it is back, which may take {RECONNECT_SECONDS:.0f} s"

_MARK = "UPDATE enroll_ledger SET mark = '{}'"

_LOST = ("08", "57P")
"""The classes of errors after which a session is over: it failed, or somebody has ended it.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""


def another_run(shown: str) -> str:
    """What to say when somebody else has written the ledger meanwhile."""
    return (
        f"Another run has begun in the ledger {shown}, so this one stops. What it did since its "
        "last commit is in its results only."
    )


def failure(shown: str, error: BaseException | None) -> LocalError:
    """What to raise where the server does not do what it is asked."""
    if getattr(error, "sqlstate", None) in (
        "42P01",
        "42501",
    ):  # no such table, or not for this role
        return LocalError(
            f"The ledger {shown} cannot be used: {first_line(error)}. Its tables were removed, or "
            "this role may not use them. Grant it what it needs, or restore the ledger from a "
            "backup, then run the same command again."
        )
    return LocalError(
        f"The ledger {shown} cannot be used: {first_line(error)}. Nothing that it recorded is "
        "lost; see to the server or the connection to it, then run the same command again."
    )


def first_line(error: BaseException | None) -> str:
    """What a server or libpq says, without its context."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
