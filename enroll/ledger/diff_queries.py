"""How a manifest differs from a ledger: the conditions and statements that find it."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Insert,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from enroll.ledger import schema as s
from enroll.ledger.diff_records import RowDiffKind
from enroll.ledger.statements import Bulk
from enroll.model import OPEN as OPEN_STATUSES
from enroll.model import EventKind, Status

IN_THE_LIBRARY = (Status.ENROLLED.value, Status.SUPERSEDED.value)

OPEN = tuple(status.value for status in OPEN_STATUSES)

DUE = (Status.PENDING.value, Status.FAILED.value)

SAME_ROW = and_(s.row.c.user_id == s.manifest_row.c.user_id, s.row.c.path == s.manifest_row.c.path)

TO_RENEW = and_(
    s.renewal.c.user_id == s.manifest_row.c.user_id, s.renewal.c.path == s.manifest_row.c.path
)


def holds_a_token(face: FromClause = s.face) -> ColumnElement[bool]:
    """Condition: the library holds the face, under its token or its former one."""
    return or_(face.c.face_token.is_not(None), face.c.former_token.is_not(None))


@cache
def may_go() -> ColumnElement[bool]:
    """Condition: the library holds the face, or may hold it."""
    return or_(holds_a_token(), s.face.c.status.in_(OPEN))


def has_a_face(user_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Condition: the ledger knows a face of this person in the library."""
    known = s.face.alias("held")
    return exists(select(literal(1)).where(known.c.user_id == user_id, holds_a_token(known)))


def has_an_open_face(user_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Condition: a face of this person is in doubt or being sent."""
    known = s.face.alias("opened")
    of_them = and_(known.c.user_id == user_id, known.c.status.in_(OPEN))
    return exists(select(literal(1)).where(of_them))


def is_a_sync(run: FromClause = s.run) -> ColumnElement[bool]:
    """Condition: the run was a sync's."""
    of_sync: ColumnElement[bool] = run.c.command == "sync"
    return of_sync


def by_a_sync(run: ColumnElement[int]) -> ColumnElement[bool]:
    """Condition: the run of this number was a sync's."""
    syncs = s.run.alias("of_sync")
    return exists(select(literal(1)).where(syncs.c.run == run, is_a_sync(syncs)))


def is_listed(user_id: ColumnElement[str]) -> ColumnElement[bool]:
    listed = s.manifest_row.alias("listed_row")
    return exists(select(literal(1)).select_from(listed).where(listed.c.user_id == user_id))


@cache
def photo_is_missing() -> ColumnElement[bool]:
    """Condition: the photo is missing. A row that names none counts if its person has a face."""
    named = s.manifest_row.c.path != ""
    return and_(s.manifest_row.c.size.is_(None), or_(named, has_a_face(s.manifest_row.c.user_id)))


def is_kept(face_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Condition: the face is enrolled, or is being added again."""
    known = s.face.alias("kept")
    return exists(
        select(literal(1)).where(
            known.c.face_id == face_id,
            or_(known.c.status.in_(IN_THE_LIBRARY), known.c.former_token.is_not(None)),
        )
    )


@cache
def leads_to_face() -> ColumnElement[bool]:
    """Condition: according to the ledger now, a row of the manifest leads to the face."""
    return exists(
        select(literal(1)).where(
            s.manifest_row.c.user_id == s.face.c.user_id,
            SAME_ROW,
            s.row.c.face_id == s.face.c.face_id,
        )
    )


@cache
def looked_like_by_held() -> Select[str]:
    """The people who look like a held photo of the manifest: perhaps the same person under a new
    id."""
    return (
        select(s.finding.c.other_user_id)
        .join_from(s.face, s.finding, s.finding.c.face_id == s.face.c.face_id)
        .where(
            s.face.c.status == Status.HELD.value,
            s.face.c.status != Status.ENROLLED.value,  # so that the index on the others serves
            leads_to_face(),
        )
    )


@cache
def all_rows_enrolled() -> ColumnElement[bool]:
    """Condition: every row of the face's person is enrolled with its present photo and text, and
    no deletion of one of these faces is on record."""
    of_row = s.face.alias("of_row")
    to_renew = exists(select(literal(1)).where(TO_RENEW))
    being_deleted = exists(select(literal(1)).where(s.deletion.c.face_token == of_row.c.face_token))
    rows = (
        select(literal(1))
        .select_from(
            s.manifest_row.outerjoin(s.row, SAME_ROW).outerjoin(
                of_row, of_row.c.face_id == s.row.c.face_id
            )
        )
        .where(
            s.manifest_row.c.user_id == s.face.c.user_id,
            or_(
                func.coalesce(of_row.c.status, "") != Status.ENROLLED.value,
                being_deleted,
                and_(  # a row without its photo cannot be sent with its text
                    or_(to_renew, s.manifest_row.c.size.is_(None)),
                    of_row.c.user_data != s.manifest_row.c.user_data,
                ),
                and_(
                    s.manifest_row.c.sha256.is_not(None),
                    s.manifest_row.c.sha256 != func.coalesce(s.row.c.sha256, b""),
                ),
            ),
        )
    )
    return and_(is_listed(s.face.c.user_id), ~exists(rows))


_LINES = upsert(s.manifest_row)

ADD_ROWS = Bulk(
    _LINES.on_conflict_do_update(
        index_elements=["user_id", "path"],
        set_={"lines": s.manifest_row.c.lines + _LINES.excluded.lines},
    )
)

MATCH_FACES = (
    update(s.manifest_row)
    .values(face_id=s.face.c.face_id)
    .where(
        s.face.c.user_id == s.manifest_row.c.user_id,
        s.face.c.sha256 == s.manifest_row.c.sha256,
        s.face.c.status != Status.REMOVED.value,
        s.manifest_row.c.face_id.is_(None),
    )
)

# Another file's bytes may have been sent for this face; and a row whose photo is missing keeps
# its face.
MATCH_FACES_BY_ROW = (
    update(s.manifest_row)
    .values(face_id=s.row.c.face_id)
    .where(
        SAME_ROW,
        s.manifest_row.c.face_id.is_(None),
        or_(s.manifest_row.c.sha256.is_(None), s.manifest_row.c.sha256 == s.row.c.sha256),
    )
)


@cache
def leads_nowhere() -> ColumnElement[bool]:
    """Condition: the file's content is known, but not the face that it leads to, which may be one
    for which other bytes were sent. Rows with a face and no code learn it by `SAME_FACE`."""
    by_content = exists(
        select(literal(1)).where(
            s.face.c.user_id == s.manifest_row.c.user_id,
            s.face.c.sha256 == s.manifest_row.c.sha256,
            s.face.c.status != Status.REMOVED.value,
        )
    )
    known = and_(
        SAME_ROW,
        or_(
            s.row.c.sha256 == s.manifest_row.c.sha256, s.row.c.face_id.is_(None), s.row.c.code == ""
        ),
    )
    return and_(~by_content, ~exists(select(literal(1)).select_from(s.row).where(known)))


# What a run writes when it finds that a file with other bytes still shows its row's face.
SAME_FACE = (
    update(s.row)
    .where(
        s.row.c.user_id == bindparam("who"),
        s.row.c.path == bindparam("where"),
        s.row.c.face_id == bindparam("face"),
        s.row.c.code == "",
    )
    .values(sha256=bindparam("content"))
)


_NO_PHOTO = "PHOTO_MISSING"
"""`enroll.photos.PhotoCode.MISSING`, without loading Pillow for it."""


@cache
def _accepted_before() -> ColumnElement[bool]:
    """Condition: an earlier run was to enroll this row as it is, and has not reached it or found
    that it cannot be enrolled. In place of a photo that could not be, there may be a good one."""
    of_row = s.face.alias("of_row")
    same_photo = s.manifest_row.c.sha256 == s.row.c.sha256
    unread = and_(s.manifest_row.c.sha256.is_(None), of_row.c.status.in_([*DUE, *OPEN]))
    open_yet = exists(
        select(literal(1)).where(
            of_row.c.face_id == s.row.c.face_id,
            of_row.c.status.not_in([*IN_THE_LIBRARY, Status.REMOVED.value]),
            or_(same_photo, unread),
        )
    )
    # No guard has judged a row that a run has only seen, or one whose photo was missing.
    judged = and_(
        s.row.c.code != _NO_PHOTO, or_(s.row.c.status.not_in(DUE), by_a_sync(s.row.c.run))
    )
    known = or_(and_(s.row.c.face_id.is_(None), judged), open_yet)
    return exists(select(literal(1)).select_from(s.row).where(SAME_ROW, known))


MARK_NEW = (
    update(s.manifest_row)
    .values(
        change=case(
            (has_a_face(s.manifest_row.c.user_id), RowDiffKind.PHOTO.value),
            else_=RowDiffKind.JOINER.value,
        )
    )
    .where(
        s.manifest_row.c.size.is_not(None),
        ~s.manifest_row.c.unusable,
        or_(s.manifest_row.c.face_id.is_(None), ~is_kept(s.manifest_row.c.face_id)),
        ~_accepted_before(),
    )
)


@cache
def is_still_to_be_added() -> ColumnElement[bool]:
    """Condition: the row is due, and is no change, because an earlier sync has accepted it."""
    of_row = s.face.alias("of_row")
    due = [*DUE, *OPEN]
    known = (
        select(literal(1))
        .select_from(s.row.outerjoin(of_row, of_row.c.face_id == s.row.c.face_id))
        .where(SAME_ROW, func.coalesce(of_row.c.status, s.row.c.status).in_(due))
    )
    there = and_(s.manifest_row.c.size.is_not(None), ~s.manifest_row.c.unusable)
    return and_(there, s.manifest_row.c.change == "", exists(known))


@cache
def _renewals() -> ColumnElement[bool]:
    """Condition: the first row that leads to an enrolled face, whose text no such row has."""
    other = s.manifest_row.alias("other")
    same_face = and_(
        other.c.user_id == s.manifest_row.c.user_id, other.c.face_id == s.manifest_row.c.face_id
    )
    text = select(s.face.c.user_data).where(s.face.c.face_id == other.c.face_id)
    has_text = exists(
        select(literal(1)).where(same_face, other.c.user_data == text.scalar_subquery())
    )
    before = exists(select(literal(1)).where(same_face, other.c.line < s.manifest_row.c.line))
    there = and_(s.manifest_row.c.size.is_not(None), ~s.manifest_row.c.unusable)
    known = and_(s.manifest_row.c.face_id.is_not(None), is_kept(s.manifest_row.c.face_id))
    return and_(there, known, ~has_text, ~before)


MARK_RENEWALS = (
    update(s.manifest_row)
    .values(change=RowDiffKind.USER_DATA.value)
    .where(s.manifest_row.c.change == "", _renewals())
)


@cache
def is_held_back() -> ColumnElement[bool]:
    """Condition: the row's face has another text than the row, whose photo is missing."""
    held = s.face.alias("held_back")
    other_text = exists(
        select(literal(1)).where(
            held.c.face_id == s.manifest_row.c.face_id,
            held.c.status == Status.ENROLLED.value,
            held.c.user_data != s.manifest_row.c.user_data,
        )
    )
    return and_(s.manifest_row.c.size.is_(None), other_text)


@cache
def _may_be_left() -> ColumnElement[bool]:
    """Condition: the row's face was being added again when a run ended. If that call was not
    applied, the face has a text that no row has."""
    being = s.face.alias("being")
    other = s.manifest_row.alias("other")
    has_text = exists(
        select(literal(1)).where(
            other.c.user_id == being.c.user_id,
            other.c.face_id == being.c.face_id,
            other.c.user_data == being.c.former_user_data,
        )
    )
    return exists(
        select(literal(1)).where(
            being.c.face_id == s.manifest_row.c.face_id,
            being.c.former_token.is_not(None),
            being.c.status.not_in(IN_THE_LIBRARY),
            ~has_text,
        )
    )


QUEUE_RENEWALS = insert(s.renewal).from_select(
    ["user_id", "path"],
    select(s.manifest_row.c.user_id, s.manifest_row.c.path).where(
        or_(s.manifest_row.c.change == RowDiffKind.USER_DATA.value, _may_be_left())
    ),
)


@cache
def _face_is_wanted() -> ColumnElement[bool]:
    return exists(
        select(literal(1)).where(
            s.manifest_row.c.user_id == s.face.c.user_id,
            s.manifest_row.c.face_id == s.face.c.face_id,
        )
    )


@cache
def is_compared() -> ColumnElement[bool]:
    """Condition: the face is of one of the people who are compared."""
    return s.face.c.user_id.in_(select(s.compared_person.c.user_id))


def find_unmatched(*of: ColumnElement[bool]) -> Insert:
    """Find the faces, of those that meet a condition, to which no row of a listed person leads."""
    found = select(
        s.face.c.face_id,
        s.face.c.user_id,
        s.face.c.status == Status.ENROLLED.value,
        and_(s.face.c.status == Status.SUPERSEDED.value, ~by_a_sync(s.face.c.run)),
        ~exists(select(literal(1)).where(s.face_to_delete.c.face_id == s.face.c.face_id)),
    ).where(*of, may_go(), is_listed(s.face.c.user_id), ~_face_is_wanted())
    names = ["face_id", "user_id", "enrolled", "superseded", "fresh"]
    return insert(s.unmatched_face).from_select(names, found)


_ADDITIONS = (EventKind.ENROLLED.value, EventKind.ADOPTED.value, EventKind.RESTORED.value)


@cache
def _added_since() -> ColumnElement[bool]:
    """Condition: a run has enrolled the leaver after the sync that found them absent. So they were
    present since, and their recorded absence is about other faces."""
    known = s.face.alias("added")
    return exists(
        select(literal(1)).where(
            known.c.user_id == s.absence.c.user_id,
            known.c.run > s.absence.c.run,
            exists(
                select(literal(1))
                .where(
                    s.event.c.face_id == known.c.face_id,
                    s.event.c.run > s.absence.c.run,
                    s.event.c.kind.in_(_ADDITIONS),
                    s.run.c.run == s.event.c.run,
                    s.run.c.command.in_(["run", "adopt"]),
                )
                .correlate(known, s.absence)
            ),
        )
    )


_MARK_HOLDS = and_(s.absence.c.user_id == s.face.c.user_id, ~_added_since())


def find_unlisted(*of: ColumnElement[bool]) -> Insert:
    """Find the people who are not listed, of those with a face that meets a condition."""
    now = bindparam("now", type_=BigInteger)
    # A person has one absence at most: its values are their own maximum.
    found = (
        select(
            s.face.c.user_id,
            # A clock may have been ahead.
            func.min(func.coalesce(func.max(s.absence.c.since), now), now),
            func.max(s.absence.c.run),
            func.max(s.absence.c.user_id).is_(None),
        )
        .select_from(s.face.outerjoin(s.absence, _MARK_HOLDS))
        .where(*of, holds_a_token(), ~is_listed(s.face.c.user_id))
        .group_by(s.face.c.user_id)
    )
    return insert(s.unlisted_person).from_select(["user_id", "since", "run", "fresh"], found)


@cache
def dropped() -> Select[Any]:
    """Faces of people in the manifest that are deleted without replacement."""
    coming = (
        select(func.count())
        .where(
            s.manifest_row.c.user_id == s.unmatched_face.c.user_id,
            or_(s.manifest_row.c.face_id.is_(None), ~is_kept(s.manifest_row.c.face_id)),
        )
        .scalar_subquery()
    )
    each = (
        select((func.count() - coming).label("more"))
        .where(s.unmatched_face.c.enrolled, s.unmatched_face.c.fresh)
        .group_by(s.unmatched_face.c.user_id)
        .subquery()
    )
    return select(func.sum(func.max(each.c.more, 0)))
