"""Who need not be compared by the next sync of the same manifest, and who has to be.

A person is settled if every row of theirs leads to an enrolled face with the row's content and
text, and nothing else of theirs is or may be in the library. Comparing them again finds nothing as
long as their photos stay as they were, which the scan cache knows, and nothing is written about
them, which triggers note in `to_compare`. That table also has everybody who is not settled.
"""

from __future__ import annotations

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    union,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from enroll.ledger import schema as s
from enroll.ledger.diff_queries import SAME_ROW, is_compared, may_go
from enroll.model import Status

# Besides who is noted: everybody with a mark, or with a face or copy that is to be deleted.
_UNSETTLED = union(
    select(s.to_compare.c.user_id),
    select(s.absence.c.user_id),
    *(
        select(s.face.c.user_id).join_from(few, s.face, s.face.c.face_id == few.c.face_id)
        for few in (s.face_to_delete, s.deletion, s.surplus)
    ),
).limit(bindparam("most"))


def people_to_compare(connection: Connection, *, most: int) -> set[str] | None:
    """Who may differ from the manifest of the cached scan; None if that is unknown, or if there are
    more than `most`."""
    if connection.scalar(select(s.compared_scan.c.people)) is None:
        return None
    found = set(connection.scalars(_UNSETTLED, {"most": most + 1}))
    return None if len(found) > most else found


def _settled() -> ColumnElement[bool]:
    """Condition: the face is enrolled and nothing about it is open."""
    return and_(
        s.face.c.status == Status.ENROLLED.value,
        s.face.c.face_token.is_not(None),
        s.face.c.former_token.is_(None),
        s.face.c.code == "",
        ~s.face.c.recheck,
    )


def _rows_not_settled() -> Select[str]:
    settled = and_(
        s.manifest_row.c.size.is_not(None),
        ~s.manifest_row.c.unusable,
        s.manifest_row.c.face_id == s.row.c.face_id,
        s.manifest_row.c.sha256 == s.row.c.sha256,
        s.manifest_row.c.user_data == s.face.c.user_data,
        s.row.c.code == "",
        _settled(),
    )
    return (
        select(s.manifest_row.c.user_id)
        .select_from(
            s.manifest_row.outerjoin(s.row, SAME_ROW).outerjoin(
                s.face, s.face.c.face_id == s.row.c.face_id
            )
        )
        .where(not_(func.coalesce(settled, literal(False))))
    )


def _faces_not_settled(*of: ColumnElement[bool]) -> Select[str]:
    """A face that the library does not hold, nor may hold, matters only to a row that leads to it;
    such a row is not settled."""
    matters = or_(may_go(), s.face.c.recheck)
    has_row = exists(
        select(literal(1)).where(
            s.manifest_row.c.user_id == s.face.c.user_id,
            s.manifest_row.c.face_id == s.face.c.face_id,
        )
    )
    return select(s.face.c.user_id).where(*of, matters, not_(and_(_settled(), has_row)))


def _note(people: Select[str]) -> Insert:
    return upsert(s.to_compare).from_select(["user_id"], people).on_conflict_do_nothing()


_NOTE_ROWS = _note(_rows_not_settled())
_NOTE_FACES = {True: _note(_faces_not_settled()), False: _note(_faces_not_settled(is_compared()))}
"""By whether everybody was compared."""

_FORGET_COMPARED = delete(s.to_compare).where(
    s.to_compare.c.user_id.in_(select(s.compared_person.c.user_id))
)
_PEOPLE = select(func.count(s.manifest_row.c.user_id.distinct()))


def note_unsettled(connection: Connection, *, everybody: bool) -> None:
    """Note who is not settled, of those whose rows were compared.

    Judged by what the ledger holds now, so that nothing is missed that was written meanwhile.
    """
    if everybody:
        connection.execute(delete(s.to_compare))
        connection.execute(delete(s.compared_scan))
        people = connection.scalar(_PEOPLE) or 0
        connection.execute(upsert(s.compared_scan).values(only=1, people=people))
    else:
        connection.execute(_FORGET_COMPARED)
    for statement in (_NOTE_ROWS, _NOTE_FACES[everybody]):
        connection.execute(statement)
