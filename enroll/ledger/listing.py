"""What a library was seen to hold, and the rows that may have a face there: temporary tables.

They lie in a file of SQLite's own that is deleted with the connection, so that a million faces
take no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from enroll.ledger import schema as s
from enroll.model import LibraryFace, ScannedRow

ROWS_AT_ONCE = 1000
"""Rows that are read from a temporary table together."""

TOKENS_AT_ONCE = 400
"""Tokens that are looked for together: long lists are slow to compile."""


class SqliteListing:
    """See `enroll.ledger.Listing` for the contract; and claims, the rows to be adopted."""

    def __init__(self, connection: Connection, path: str) -> None:
        """`path` names the database in what is said of its faults."""
        self._connection = connection
        self._path = path
        s.listing_metadata.create_all(connection)
        connection.commit()

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()

    def add_faces(self, faces: Sequence[LibraryFace]) -> int:
        if not faces:
            return 0
        statement = insert(s.listed).on_conflict_do_nothing()
        before = self._changes()
        self._connection.execute(statement, [asdict(face) for face in faces])
        new = self._changes() - before
        self._connection.commit()  # what is compared later must not be read as of now
        return new

    def _changes(self) -> int:
        """Rows that this connection has written so far; to count them all costs more each time."""
        return self._connection.scalar(select(func.total_changes())) or 0

    def count_faces(self) -> int:
        return self._connection.scalar(select(func.count()).select_from(s.listed)) or 0

    def faces_of(self, user_id: str) -> list[LibraryFace]:
        query = (
            select(s.listed)
            .where(s.listed.c.user_id == user_id)
            .order_by(s.listed.c.add_time, s.listed.c.face_token)
        )
        return [LibraryFace(**found._asdict()) for found in self._connection.execute(query)]

    def tokens(self) -> Iterator[list[str]]:
        query = select(s.listed.c.face_token).execution_options(yield_per=TOKENS_AT_ONCE)
        for found in self._connection.scalars(query).partitions():
            yield list(found)

    def add_rows(self, rows: Iterable[ScannedRow]) -> None:
        parameters = [
            {
                "user_id": row.user_id,
                "path": row.path,
                "user_data": row.user_data,
                "image": row.image,
                "line": row.line,
            }
            for row in rows
        ]
        if parameters:
            self._connection.execute(insert(s.adoptable_row).on_conflict_do_nothing(), parameters)
            self._connection.commit()

    def count_rows(self, *, listed_only: bool) -> int:
        counted = select(func.count()).select_from(s.adoptable_row)
        return self._connection.scalar(counted.where(*self._narrowed(listed_only))) or 0

    def rows_by_person(self, *, listed_only: bool) -> Iterator[list[ScannedRow]]:
        query = (
            select(s.adoptable_row)
            .where(*self._narrowed(listed_only))
            .order_by(s.adoptable_row.c.user_id, s.adoptable_row.c.line)
            .execution_options(yield_per=ROWS_AT_ONCE)
        )
        found = (ScannedRow(**row._asdict()) for row in self._connection.execute(query))
        for _, rows in groupby(found, key=lambda row: row.user_id):
            yield list(rows)

    def _narrowed(self, listed_only: bool) -> list[ColumnElement[bool]]:
        if not listed_only:
            return []
        seen = select(s.listed.c.user_id).where(s.listed.c.user_id == s.adoptable_row.c.user_id)
        return [seen.exists()]
