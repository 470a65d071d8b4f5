"""A ledger's tables as plain values, which are the same in every database: to copy, to compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import zip_longest
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)

from enroll.expiry import ClockOffsets
from enroll.ledger import schema as s
from enroll.ledger.port import LedgerTables, NewLedger
from enroll.ledger.queries import SqlReader, end_columns, start_columns
from enroll.ledger.records import COPY, RunEnd, RunStart
from enroll.ledger.statements import Bulk

PART = 4096
"""Rows that are read at a time: some megabytes at most."""

MOST_DIFFERENT = 100_000
"""Rows of a table that may be in another order in each of two ledgers. PostgreSQL has those last
whose key holds a NUL, which nearly none does."""


class Tables:
    """The tables of a ledger that is open; see `enroll.ledger.LedgerTables`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def parts(self, table: str) -> Iterator[Sequence[tuple[Any, ...]]]:
        of = s.metadata.tables[table]
        # JSON as its text, which every database keeps as it is.
        columns = (cast(one, Text) if isinstance(one.type, JSON) else one for one in of.columns)
        query = _copied(select(*columns), of).order_by(*of.primary_key)
        found = self._connection.execute(query, execution_options={"yield_per": PART})
        for part in found.partitions():
            yield [tuple(row) for row in part]


class Original(Tables, SqlReader):
    """A ledger that is held to be copied; see `enroll.ledger.LedgerOriginal`."""

    def count_rows(self) -> int:
        return sum(
            self._connection.scalar(_copied(select(func.count()).select_from(table), table)) or 0
            for table in s.metadata.sorted_tables
        )

    def copy_to(self, new: NewLedger, copied: Callable[[int], None]) -> int:
        done = 0
        for table in s.metadata.sorted_tables:
            for part in self.parts(table.name):
                new.fill(table.name, part)
                done += len(part)
                copied(done)
        return done

    def differing(self, other: LedgerTables, compared: Callable[[int], None]) -> list[str]:
        done, differing = 0, []
        for table in s.metadata.sorted_tables:
            left = Counter[tuple[Any, ...]]()
            both = zip_longest(self.parts(table.name), other.parts(table.name), fillvalue=())
            for ours, theirs in both:
                if ours != theirs:
                    left.update(ours)
                    left.subtract(theirs)
                    left = Counter({row: count for row, count in left.items() if count})
                if len(left) > MOST_DIFFERENT:
                    break
                done += len(ours)
                compared(done)
            if left:
                differing.append(table.name)
        return differing

    def leave(self, start: RunStart) -> None:
        last = next(iter(self.runs(1)), None)
        offsets = ClockOffsets() if last is None else last.offsets
        # That of a command that was cut off.
        self._connection.execute(delete(s.run).where(s.run.c.command == COPY))
        self._connection.execute(
            insert(s.run).values(
                run=1 if last is None else last.run + 1,
                alive_at=start.at,
                least_clock_offset=offsets.least,
                most_clock_offset=offsets.most,
                **start_columns(start),
            )
        )
        self._mark()
        self._connection.commit()

    def _mark(self) -> None:
        """Keep versions of enroll from it that do not know what that record says."""

    def end_leaving(self, end: RunEnd) -> None:
        (last,) = self.runs(1)
        self._connection.execute(
            update(s.run).where(s.run.c.run == last.run).values(**end_columns(end))
        )
        self._connection.commit()


def _copied(query: Select[Any], table: Table) -> Select[Any]:
    """Without the record of the copy itself."""
    return query.where(s.run.c.command != COPY) if table is s.run else query


def fill(connection: Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows as `Tables.parts` gives them, into tables without triggers."""
    _insertion(table).execute(connection, rows)


@cache
def _insertion(table: str) -> Bulk:
    of = s.metadata.tables[table]
    return Bulk(insert(of).values({one.name: bindparam(one.name) for one in of.columns}))
