"""The difference between a manifest and a SQLite ledger, line by line."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    func,
    literal,
    select,
)

from enroll.ledger import ChangeKind
from enroll.ledger import schema as s
from enroll.ledger.conditions import SAME_ROW, holds_a_token, photo_is_missing


def _of_rows(kind: ChangeKind) -> Select[Any]:
    """Rows of a kind, with the token of the face that each has so far."""
    token = (
        select(func.coalesce(s.face.c.face_token, s.face.c.former_token))
        .join_from(s.row, s.face, s.face.c.face_id == s.row.c.face_id)
        .where(SAME_ROW)
        .scalar_subquery()
    )
    return (
        select(
            s.wanted.c.user_id,
            s.wanted.c.user_data,
            s.wanted.c.path,
            token.label("face_token"),
            literal(None).label("since"),
            s.wanted.c.line,
        )
        .where(s.wanted.c.change == kind.value)
        .order_by(s.wanted.c.line)
    )


def _path_of_face() -> Any:
    return (
        select(func.max(s.row.c.path))
        .where(s.row.c.user_id == s.face.c.user_id, s.row.c.face_id == s.face.c.face_id)
        .correlate(s.face)
        .scalar_subquery()
    )


def _of_faces(since: ColumnElement[Any]) -> Select[Any]:
    return select(
        s.face.c.user_id,
        s.face.c.user_data,
        _path_of_face().label("path"),
        func.coalesce(s.face.c.face_token, s.face.c.former_token).label("face_token"),
        since.label("since"),
        literal(0).label("line"),
    )


CHANGES = {
    ChangeKind.JOINER: _of_rows(ChangeKind.JOINER),
    ChangeKind.PHOTO: _of_rows(ChangeKind.PHOTO),
    ChangeKind.USER_DATA: _of_rows(ChangeKind.USER_DATA),
    ChangeKind.OLD: _of_faces(literal(None))
    .join_from(s.face, s.going, s.going.c.face_id == s.face.c.face_id)
    .where(holds_a_token())
    .order_by(s.face.c.face_id),
    ChangeKind.LEAVER: _of_faces(s.gone.c.since)
    .join_from(s.face, s.gone, s.gone.c.user_id == s.face.c.user_id)
    .where(holds_a_token())
    .order_by(s.face.c.face_id),
    ChangeKind.MISSING: select(
        s.wanted.c.user_id,
        s.wanted.c.user_data,
        s.wanted.c.path,
        literal("").label("face_token"),
        literal(None).label("since"),
        s.wanted.c.line,
    )
    .where(photo_is_missing())
    .order_by(s.wanted.c.line),
}
