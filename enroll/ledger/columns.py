"""Between the values that travel and the columns of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Executable, Table, bindparam, delete, insert
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as upsert

from enroll.ledger import Changes
from enroll.ledger import schema as s
from enroll.model import (
    Candidate,
    Event,
    FaceRecord,
    PhotoRecord,
    RawAnswer,
    RowRecord,
    ScannedRow,
    Status,
    Surplus,
)

_FACE_FIELDS = tuple(field.name for field in fields(FaceRecord))
_ROW_FIELDS = tuple(field.name for field in fields(RowRecord))


def _upsert(table: Table, key: Sequence[str]) -> Insert:
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


UPSERT_FACE = _upsert(s.face, ["face_id"])
UPSERT_ROW = _upsert(s.row, ["user_id", "path"])
KEEP_RAW_ANSWER = upsert(s.raw_answer).on_conflict_do_nothing()
"""The first answers of a code are kept, whatever comes later."""

UPSERT_SURPLUS = _upsert(s.surplus, ["face_token"])
UPSERT_PHOTO = _upsert(s.photo, ["path"])
DELETE_SURPLUS = delete(s.surplus).where(s.surplus.c.face_token == bindparam("gone"))


def scan_parameters(rows: Sequence[ScannedRow]) -> list[dict[str, Any]]:
    """One line a (user_id, path); a manifest may say the same row twice."""
    scanned: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row.user_id, row.path)
        if key in scanned:
            scanned[key]["lines"] += 1
            continue
        times = row.times
        scanned[key] = {
            "user_id": row.user_id,
            "path": row.path,
            "user_data": row.user_data,
            "line": row.line,
            "lines": 1,
            "size": times.size if times else None,
            "mtime_ns": times.mtime_ns if times else None,
            "ctime_ns": times.ctime_ns if times else None,
        }
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
    )


def face_record(values: dict[str, Any]) -> FaceRecord:
    return FaceRecord(**{**values, "status": Status(values["status"])})


def record_parameters(record: FaceRecord | RowRecord) -> dict[str, Any]:
    """A record as the table's columns, which bear the same names."""
    names = _FACE_FIELDS if isinstance(record, FaceRecord) else _ROW_FIELDS
    values = {name: getattr(record, name) for name in names}
    values["status"] = None if record.status is None else record.status.value
    return values


def photo_parameters(record: PhotoRecord) -> dict[str, Any]:
    return {
        "path": record.path,
        "size": record.times.size,
        "mtime_ns": record.times.mtime_ns,
        "ctime_ns": record.times.ctime_ns,
        "sha256": record.sha256,
    }


def event_parameters(event: Event) -> dict[str, Any]:
    return {
        "at": event.at,
        "kind": event.kind.value,
        "run": event.run,
        "face_id": event.face_id,
        "face_token": event.face_token,
        "detail": event.detail,
    }


def due_parameters(due: Candidate, place: int) -> dict[str, Any]:
    return {
        "place": place,
        "user_id": due.row.user_id,
        "path": due.row.path,
        "user_data": due.row.user_data,
        "line": due.row.line,
        "lines": due.lines,
        "status": due.status.value,
        "code": due.code,
        "face_id": due.face_id,
    }


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
    )


class Buffer:
    """Changes that wait to be written; a later change of the same thing replaces an earlier."""

    def __init__(self) -> None:
        self._faces: dict[int, FaceRecord] = {}
        self._rows: dict[tuple[str, str], RowRecord] = {}
        self._photos: dict[str, PhotoRecord] = {}
        self._events: list[Event] = []
        self._surplus: dict[str, Surplus | None] = {}  # None: no longer there
        self._raw: dict[tuple[str, int], RawAnswer] = {}

    def __bool__(self) -> bool:
        return bool(
            self._faces or self._rows or self._photos or self._events or self._surplus or self._raw
        )

    def add(self, changes: Changes) -> None:
        self._faces.update((face.face_id, face) for face in changes.faces)
        self._rows.update(((row.user_id, row.path), row) for row in changes.rows)
        self._photos.update((photo.path, photo) for photo in changes.photos)
        self._events.extend(changes.events)
        self._surplus.update((copy.face_token, copy) for copy in changes.surplus)
        self._raw.update(((one.code, one.number), one) for one in changes.raw)
        self._surplus.update((face_token, None) for face_token in changes.surplus_gone)

    def take(self, other: Buffer) -> None:
        """Add what another buffer holds, which is later, and leave that one empty."""
        self._faces.update(other._faces)
        self._rows.update(other._rows)
        self._photos.update(other._photos)
        self._events.extend(other._events)
        self._surplus.update(other._surplus)
        self._raw.update(other._raw)
        other.clear()

    def clear(self) -> None:
        for held in (self._faces, self._rows, self._photos, self._events, self._surplus, self._raw):
            held.clear()

    def statements(self) -> Iterator[tuple[Executable, list[dict[str, Any]]]]:
        """What writes it all, parents before children."""
        if self._faces:
            yield UPSERT_FACE, [record_parameters(face) for face in self._faces.values()]
        if self._rows:
            yield UPSERT_ROW, [record_parameters(row) for row in self._rows.values()]
        if self._photos:
            yield UPSERT_PHOTO, [photo_parameters(photo) for photo in self._photos.values()]
        if self._events:
            yield insert(s.event), [event_parameters(event) for event in self._events]
        if self._raw:
            yield KEEP_RAW_ANSWER, [asdict(answer) for answer in self._raw.values()]
        copies = [asdict(copy) for copy in self._surplus.values() if copy is not None]
        if copies:
            yield UPSERT_SURPLUS, copies
        gone = [{"gone": token} for token, copy in self._surplus.items() if copy is None]
        if gone:
            yield DELETE_SURPLUS, gone
