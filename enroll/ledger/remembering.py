"""What a SQLite ledger remembers of a difference from sync to sync: who has gone, what goes, what
comes."""

from __future__ import annotations

from sqlalchemy import (
    and_,
    bindparam,
    delete,
    exists,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from enroll.ledger import ChangeKind
from enroll.ledger import schema as s
from enroll.ledger.conditions import DUE, has_a_face, has_an_open_face, is_listed, may_go
from enroll.model import Status

_NOBODYS = ~has_a_face(s.leaver.c.user_id)

FORGET_RETURNED = delete(s.leaver).where(
    or_(is_listed(s.leaver.c.user_id), and_(_NOBODYS, ~has_an_open_face(s.leaver.c.user_id)))
)

FORGET_WITHHELD = delete(s.leaver).where(
    ~_NOBODYS,
    ~exists(select(literal(1)).where(s.gone.c.user_id == s.leaver.c.user_id)),
)

FORGET_FRESH = delete(s.leaver).where(  # marks that hold no more
    exists(select(literal(1)).where(s.gone.c.user_id == s.leaver.c.user_id, s.gone.c.fresh))
)

REMEMBER_GONE = (
    upsert(s.leaver)
    .from_select(
        ["user_id", "since", "run"],
        select(s.gone.c.user_id, s.gone.c.since, bindparam("run")).where(s.gone.c.fresh),
    )
    .on_conflict_do_nothing()
)

CORRECT_MARKS = (
    update(s.leaver)
    .values(since=s.gone.c.since)
    .where(s.gone.c.user_id == s.leaver.c.user_id, s.leaver.c.since > s.gone.c.since)
)

FORGET_OUTGOING = delete(s.outgoing).where(
    ~exists(
        select(literal(1))
        .select_from(s.going.join(s.face, s.face.c.face_id == s.going.c.face_id))
        .where(s.going.c.face_id == s.outgoing.c.face_id, may_go())
    )
)

REMEMBER_GOING = (
    upsert(s.outgoing)
    .from_select(
        ["face_id", "run"],
        select(s.going.c.face_id, bindparam("run")).where(s.going.c.fresh),
    )
    .on_conflict_do_nothing()
)

_ROWS = upsert(s.row)
REMEMBER_ROWS = _ROWS.from_select(
    ["user_id", "path", "user_data", "status", "code", "message", "run"],
    select(
        s.wanted.c.user_id,
        s.wanted.c.path,
        s.wanted.c.user_data,
        literal(Status.PENDING.value),
        literal(""),
        literal(""),
        bindparam("run"),
    ).where(s.wanted.c.change.in_([ChangeKind.JOINER.value, ChangeKind.PHOTO.value])),
).on_conflict_do_update(
    index_elements=["user_id", "path"],
    # With its text: the next run may take the row from here, without the manifest's.
    set_={"run": bindparam("run"), "user_data": _ROWS.excluded.user_data},
    where=and_(s.row.c.face_id.is_(None), s.row.c.status.in_(DUE)),
)
