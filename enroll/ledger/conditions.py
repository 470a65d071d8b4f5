"""Conditions on faces, rows and the manifest that a sync follows, for the statements about them."""

from __future__ import annotations

from sqlalchemy import (
    ColumnElement,
    FromClause,
    and_,
    exists,
    func,
    literal,
    or_,
    select,
)

from enroll.ledger import schema as s
from enroll.model import Status

IN_THE_LIBRARY = (Status.ENROLLED.value, Status.SUPERSEDED.value)

OPEN = (Status.SENDING.value, Status.IN_DOUBT.value)

DUE = (Status.PENDING.value, Status.FAILED.value)

SAME_ROW = and_(s.row.c.user_id == s.wanted.c.user_id, s.row.c.path == s.wanted.c.path)

TO_RENEW = and_(s.renewal.c.user_id == s.wanted.c.user_id, s.renewal.c.path == s.wanted.c.path)


def holds_a_token(face: FromClause = s.face) -> ColumnElement[bool]:
    """Condition: the library holds the face, under its token or the one from before."""
    return or_(face.c.face_token.is_not(None), face.c.former_token.is_not(None))


def may_go() -> ColumnElement[bool]:
    """Condition: the library holds the face, or that is being settled."""
    return or_(holds_a_token(), s.face.c.status.in_(OPEN))


def has_a_face(user_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Condition: the ledger knows a face of this person in the library."""
    known = s.face.alias("held")
    return exists(select(literal(1)).where(known.c.user_id == user_id, holds_a_token(known)))


def has_an_open_face(user_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Condition: a face of this person is being settled."""
    known = s.face.alias("opened")
    of_them = and_(known.c.user_id == user_id, known.c.status.in_(OPEN))
    return exists(select(literal(1)).where(of_them))


def is_a_sync(run: FromClause = s.run) -> ColumnElement[bool]:
    """Condition: the run was a sync's."""
    of_sync: ColumnElement[bool] = run.c.options["command"].as_string() == "sync"
    return of_sync


def by_a_sync(run: ColumnElement[int]) -> ColumnElement[bool]:
    """Condition: the run of this number was a sync's."""
    syncs = s.run.alias("of_sync")
    return exists(select(literal(1)).where(syncs.c.run == run, is_a_sync(syncs)))


def is_listed(user_id: ColumnElement[str]) -> ColumnElement[bool]:
    listed = s.wanted.alias("listed_row")
    return exists(select(literal(1)).select_from(listed).where(listed.c.user_id == user_id))


def photo_is_missing() -> ColumnElement[bool]:
    """Condition: there is no such photo; who has a face and names none now lacks it, too."""
    named = s.wanted.c.path != ""
    return and_(s.wanted.c.size.is_(None), or_(named, has_a_face(s.wanted.c.user_id)))


def stands(face_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Condition: the face is enrolled, or is being added anew."""
    known = s.face.alias("standing")
    return exists(
        select(literal(1)).where(
            known.c.face_id == face_id,
            or_(known.c.status.in_(IN_THE_LIBRARY), known.c.former_token.is_not(None)),
        )
    )


def wanted_now() -> ColumnElement[bool]:
    """Condition: a row of the manifest leads to the face, as the ledger stands now."""
    return exists(
        select(literal(1)).where(
            s.wanted.c.user_id == s.face.c.user_id,
            SAME_ROW,
            s.row.c.face_id == s.face.c.face_id,
        )
    )


def all_rows_enrolled() -> ColumnElement[bool]:
    """Condition: every row of the face's person is enrolled with the photo and text that it has,
    and nothing was about to delete one of these faces."""
    of_row = s.face.alias("of_row")
    to_renew = exists(select(literal(1)).where(TO_RENEW))
    being_deleted = exists(select(literal(1)).where(s.removal.c.face_token == of_row.c.face_token))
    rows = (
        select(literal(1))
        .select_from(
            s.wanted.outerjoin(s.row, SAME_ROW).outerjoin(
                of_row, of_row.c.face_id == s.row.c.face_id
            )
        )
        .where(
            s.wanted.c.user_id == s.face.c.user_id,
            or_(
                func.coalesce(of_row.c.status, "") != Status.ENROLLED.value,
                being_deleted,
                and_(  # without its photo a row cannot be given its text
                    or_(to_renew, s.wanted.c.size.is_(None)),
                    of_row.c.user_data != s.wanted.c.user_data,
                ),
                and_(
                    s.wanted.c.sha256.is_not(None),
                    s.wanted.c.sha256 != func.coalesce(s.row.c.sha256, b""),
                ),
            ),
        )
    )
    return and_(is_listed(s.face.c.user_id), ~exists(rows))
