"""Between values and the columns of the tables, and the statements that insert rows in bulk."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    union_all,
)
from sqlalchemy import Insert as PlainInsert
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.sql.functions import GenericFunction

from enroll.ledger import schema as s
from enroll.ledger.records import Changes, Searched
from enroll.model import (
    Candidate,
    FaceRecord,
    PhotoRecord,
    ScannedRow,
    Status,
    Surplus,
)

LONGEST = 256
"""Tuples that one statement inserts: a power of two. SQLite takes 32,766 parameters."""


class Bulk:
    """An INSERT that is executed for many tuples at a time.

    Not with `executemany`: that gives the interpreter to other threads and asks for it back at
    every tuple, and beside the threads that make calls each time is a wait. So there is a
    statement for each power of two, and tuples are parted among these.
    """

    def __init__(self, statement: Insert | PlainInsert) -> None:
        compiled = statement.compile(dialect=s.DIALECTS["sqlite"])
        names = compiled.positiontup or ()
        self.statement = statement
        self._values = attrgetter(*names)
        self._tuple = f"({', '.join('?' * len(names))})"
        self._before, _, self._after = str(compiled).partition(f"VALUES {self._tuple}")

    def insert(self, connection: Connection, records: Iterable[Any]) -> None:
        """Insert records whose attributes bear the columns' names; a StrEnum is its text."""
        self.execute(connection, list(map(self._values, records)))

    def execute(self, connection: Connection, parameters: Sequence[tuple[Any, ...]]) -> None:
        """Insert them all; nothing for none."""
        if (insert_into := OTHERS.get(connection.dialect.name)) is not None:
            insert_into(connection, self.statement, parameters)
            return
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


OTHERS: dict[str, Callable[[Connection, PlainInsert, Sequence[tuple[Any, ...]]], None]] = {}
"""How other databases than SQLite insert many tuples, by name: an adapter adds its own."""


class TextsOf(GenericFunction[str]):
    """The members of a JSON list. SQLite has one function for all kinds; others have several."""

    name = "json_each"
    identifier = "texts_of"
    inherit_cache = True


class NumbersOf(TextsOf):
    """The same where they are numbers."""

    name = "json_each"
    identifier = "numbers_of"
    inherit_cache = True


class ListsOf(TextsOf):
    """The same where they are lists."""

    name = "json_each"
    identifier = "lists_of"
    inherit_cache = True


def among(name: str) -> Select[Any]:
    """For `column.in_(among("people"))`: the texts of a list, which is one parameter (see
    `listed`), so that lists of all lengths are one statement."""
    return select(TextsOf(bindparam(name, type_=String)).table_valued("value").c.value)


def among_numbers(name: str) -> Select[Any]:
    """The same for a list of numbers."""
    return select(NumbersOf(bindparam(name, type_=String)).table_valued("value").c.value)


def listed(values: Iterable[str | int]) -> str:
    """A list as the parameter that `among` takes."""
    return json.dumps(list(values))


def replacing(table: Table, key: Sequence[str]) -> Insert:
    """INSERT that replaces every other column where the key is there already."""
    statement = upsert(table)
    return statement.on_conflict_do_update(
        index_elements=list(key),
        set_={
            column.name: statement.excluded[column.name]
            for column in table.columns
            if column.name not in key
        },
    )


UPSERT_FACE = Bulk(replacing(s.face, ["face_id"]))
UPSERT_ROW = Bulk(replacing(s.row, ["user_id", "path"]))
KEEP_RAW_ANSWER = Bulk(upsert(s.raw_answer).on_conflict_do_nothing())
"""The first answers of a code are kept, whatever comes later."""

UPSERT_SURPLUS = Bulk(replacing(s.surplus, ["face_token"]))
UPSERT_PHOTO = Bulk(replacing(s.photo, ["path"]))
DELETE_SURPLUS = delete(s.surplus).where(s.surplus.c.face_token.in_(among("gone")))
INSERT_EVENT = Bulk(
    insert(s.event).values({c.name: bindparam(c.name) for c in s.event.c if c.name != "event"})
)
UPSERT_AUDITED = Bulk(replacing(s.audited, ["face_token"]))
INSERT_FINDING = Bulk(replacing(s.finding, ["face_id", "kind", "other_token"]))
DELETE_FINDINGS = delete(s.finding).where(s.finding.c.face_id.in_(among_numbers("faces")))
HOLDERS_OF = union_all(
    *(
        select(token.label("face_token"), token.table.c.face_id).where(token.in_(among("tokens")))
        for token in (s.face.c.face_token, s.surplus.c.face_token, s.face.c.former_token)
    )
)
INSERT_SCAN = Bulk(insert(s.scan))
INSERT_DUE = Bulk(insert(s.due))


def scan_tuples(rows: Sequence[ScannedRow]) -> list[tuple[Any, ...]]:
    """One for each (user_id, path), as INSERT_SCAN wants it; a manifest may say a row twice."""
    scanned: dict[tuple[str, str], tuple[Any, ...]] = {}
    for row in rows:
        key = (row.user_id, row.path)
        known = scanned.get(key)
        if known is not None:
            scanned[key] = (*known[:4], known[4] + 1, *known[5:])
            continue
        times = row.times
        found = (
            (None, None, None) if times is None else (times.size, times.mtime_ns, times.ctime_ns)
        )
        scanned[key] = (*key, row.user_data, row.line, 1, *found)
    return list(scanned.values())


def candidate(found: Any, row: ScannedRow) -> Candidate:
    return Candidate(
        row=row,
        lines=found.lines,
        status=Status(found.status),
        code=found.code,
        message=found.message,
        face_id=found.face_id,
        changed=not found.same_photo,
        user_data_changed=bool(found.other_text),
        multi_oriented_detection=bool(found.turned),
        refused_under=found.refused_under,
        renews=bool(found.renews),
        was_there=row.times is not None,
    )


_FACE = s.face.c.keys()


def face_record(found: Row[Any]) -> FaceRecord:
    """A face from a row that has all columns of its table, and may have others."""
    values = {name: getattr(found, name) for name in _FACE}
    return FaceRecord(**{**values, "status": Status(found.status)})


def photo_tuple(record: PhotoRecord) -> tuple[Any, ...]:
    times = record.times
    return (record.path, times.size, times.mtime_ns, times.ctime_ns, record.sha256)


def due_tuple(due: Candidate, place: int) -> tuple[Any, ...]:
    row = due.row
    return (
        *(place, row.user_id, row.path, row.user_data, row.line, due.lines),
        *(due.status.value, due.code, due.face_id, due.renews, due.was_there, due.changed),
    )


def queued_row(found: Any) -> Candidate:
    row = ScannedRow(
        line=found.line,
        user_id=found.user_id,
        user_data=found.user_data,
        image="",
        path=found.path,
    )
    return Candidate(
        row=row,
        lines=found.lines,
        status=Status(found.status),
        code=found.code,
        face_id=found.face_id,
        renews=bool(found.renews),
        was_there=bool(found.was_there),
        changed=bool(found.changed),
    )


def write(connection: Connection, batch: Sequence[Changes]) -> None:
    """Write changes into the open transaction, parents before children; a later change of the same
    thing replaces an earlier one."""
    faces = {face.face_id: face for one in batch for face in one.faces}
    rows = {(row.user_id, row.path): row for one in batch for row in one.rows}
    photos = {photo.path: photo for one in batch for photo in one.photos}
    raw = {(answer.code, answer.number): answer for one in batch for answer in one.raw}
    copies: dict[str, Surplus | None] = {}
    for one in batch:
        copies.update((copy.face_token, copy) for copy in one.surplus)
        copies.update((face_token, None) for face_token in one.surplus_gone)
    UPSERT_FACE.insert(connection, faces.values())
    UPSERT_ROW.insert(connection, rows.values())
    UPSERT_PHOTO.execute(connection, [photo_tuple(photo) for photo in photos.values()])
    INSERT_EVENT.insert(connection, (event for one in batch for event in one.events))
    KEEP_RAW_ANSWER.insert(connection, raw.values())
    UPSERT_SURPLUS.insert(connection, (copy for copy in copies.values() if copy is not None))
    gone = [face_token for face_token, copy in copies.items() if copy is None]
    if gone:
        connection.execute(DELETE_SURPLUS, {"gone": listed(gone)})
    searched = {one.face_id: one for changes in batch for one in changes.searched}
    if searched:
        _write_searched(connection, searched.values())


def _write_searched(connection: Connection, searched: Collection[Searched]) -> None:
    connection.execute(DELETE_FINDINGS, {"faces": listed(one.face_id for one in searched)})
    found = [(one, finding) for one in searched for finding in one.findings]
    if found:
        tokens = listed({finding.other_token for _, finding in found})
        holders = connection.execute(HOLDERS_OF, {"tokens": tokens}).all()
        face_ids = {holder.face_token: holder.face_id for holder in holders}
        INSERT_FINDING.execute(
            connection,
            [
                (
                    *(one.face_id, finding.kind.value, finding.other_token, finding.other_user_id),
                    *(face_ids.get(finding.other_token), finding.score),
                    *(one.face_token, one.at, one.run),
                )
                for one, finding in found
            ],
        )
    audited = [one for one in searched if one.audited and one.face_token is not None]
    UPSERT_AUDITED.insert(connection, audited)
