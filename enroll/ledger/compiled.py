"""Statements that are compiled once: what a run executes some times a second.

SQLAlchemy's handling of a statement and of each parameter takes more of the processor's time than
SQLite's work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Delete, Row, Select, String, Update, bindparam, func, select
from sqlalchemy import Insert as PlainInsert
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.sql.selectable import CompoundSelect

_DIALECT = sqlite.dialect()


LONGEST = 256
"""Tuples that one statement inserts: a power of two. SQLite takes 32,766 parameters."""


class Bulk:
    """An INSERT that is executed for many tuples at a time.

    Not with `executemany`: that gives the interpreter to other threads and asks for it back at
    every tuple, and beside the threads that make calls each time is a wait. So there is a
    statement for each power of two, and tuples are parted among these.
    """

    def __init__(self, statement: Insert | PlainInsert) -> None:
        compiled = statement.compile(dialect=_DIALECT)
        names = compiled.positiontup or ()
        self._values = attrgetter(*names)
        self._tuple = f"({', '.join('?' * len(names))})"
        self._before, _, self._after = str(compiled).partition(f"VALUES {self._tuple}")

    def of(self, records: Iterable[Any]) -> list[tuple[Any, ...]]:
        """Tuples of records whose attributes bear the columns' names; a StrEnum is its text."""
        return list(map(self._values, records))

    def execute(self, connection: Connection, parameters: Sequence[tuple[Any, ...]]) -> None:
        """Insert them all; nothing for none."""
        done, count = 0, LONGEST
        while done < len(parameters):
            while count > len(parameters) - done:
                count //= 2
            values = tuple(chain.from_iterable(parameters[done : done + count]))
            connection.exec_driver_sql(self._sql(count), values)
            done += count

    @cache  # noqa: B019  # statements live as long as the process
    def _sql(self, count: int) -> str:
        return f"{self._before}VALUES {', '.join([self._tuple] * count)}{self._after}"


class Query:
    """A statement with parameters by name. What it gives is as SQLite has it: a truth value is
    0 or 1, JSON is text."""

    def __init__(
        self, statement: Select[Any] | CompoundSelect[Any] | Update | Delete | PlainInsert
    ) -> None:
        compiled = statement.compile(dialect=_DIALECT)
        self._sql = str(compiled)
        self._names = tuple(compiled.positiontup or ())
        self._constants: Mapping[str, Any] = compiled.params

    def execute(self, connection: Connection, **parameters: Any) -> None:
        """Execute it for its effect."""
        connection.exec_driver_sql(self._sql, self._tuple(parameters))

    def rows(self, connection: Connection, **parameters: Any) -> Sequence[Row[Any]]:
        """All lines."""
        return connection.exec_driver_sql(self._sql, self._tuple(parameters)).all()

    def _tuple(self, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        constants = self._constants
        return tuple(
            parameters[name] if name in parameters else constants[name] for name in self._names
        )


def among(name: str) -> Select[Any]:
    """For `column.in_(among("ids"))`: the members of a list, which is one parameter (see `listed`),
    so that lists of all lengths are one statement."""
    values = func.json_each(bindparam(name, type_=String)).table_valued("value")
    return select(values.c.value)


def listed(values: Iterable[str | int]) -> str:
    """A list as the parameter that `among` takes."""
    return json.dumps(list(values))
