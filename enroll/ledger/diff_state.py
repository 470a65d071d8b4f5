"""How a manifest differs from a ledger, what the ledger keeps of it, and likely reasons."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from enroll.ledger import schema as s
from enroll.ledger.diff_queries import (
    DUE,
    SAME_ROW,
    has_a_face,
    has_an_open_face,
    holds_a_token,
    is_a_sync,
    is_listed,
    may_go,
    photo_is_missing,
)
from enroll.ledger.diff_records import Diagnosis, RowDiffKind
from enroll.ledger.queries import path_of_face
from enroll.model import Status


def _of_rows(kind: RowDiffKind) -> Select[Any]:
    """Rows of a kind, with the token of the face that each has so far."""
    token = (
        select(func.coalesce(s.face.c.face_token, s.face.c.former_token))
        .join_from(s.row, s.face, s.face.c.face_id == s.row.c.face_id)
        .where(SAME_ROW)
        .scalar_subquery()
    )
    return (
        select(
            s.manifest_row.c.user_id,
            s.manifest_row.c.user_data,
            s.manifest_row.c.path,
            token.label("face_token"),
            literal(None).label("since"),
            s.manifest_row.c.line,
        )
        .where(s.manifest_row.c.change == kind.value)
        .order_by(s.manifest_row.c.line)
    )


def _of_faces(since: ColumnElement[Any]) -> Select[Any]:
    return select(
        s.face.c.user_id,
        s.face.c.user_data,
        path_of_face().label("path"),
        func.coalesce(s.face.c.face_token, s.face.c.former_token).label("face_token"),
        since.label("since"),
        literal(0).label("line"),
    )


ROW_DIFFS = {
    RowDiffKind.JOINER: _of_rows(RowDiffKind.JOINER),
    RowDiffKind.PHOTO: _of_rows(RowDiffKind.PHOTO),
    RowDiffKind.USER_DATA: _of_rows(RowDiffKind.USER_DATA),
    RowDiffKind.OLD: _of_faces(literal(None))
    .join_from(s.face, s.unmatched_face, s.unmatched_face.c.face_id == s.face.c.face_id)
    .where(holds_a_token())
    .order_by(s.face.c.face_id),
    RowDiffKind.LEAVER: _of_faces(s.unlisted_person.c.since)
    .join_from(s.face, s.unlisted_person, s.unlisted_person.c.user_id == s.face.c.user_id)
    .where(holds_a_token())
    .order_by(s.face.c.face_id),
    RowDiffKind.MISSING: select(
        s.manifest_row.c.user_id,
        s.manifest_row.c.user_data,
        s.manifest_row.c.path,
        literal("").label("face_token"),
        literal(None).label("since"),
        s.manifest_row.c.line,
    )
    .where(photo_is_missing())
    .order_by(s.manifest_row.c.line),
}


_WITHOUT_FACE = ~has_a_face(s.absence.c.user_id)

FORGET_RETURNED = delete(s.absence).where(
    or_(is_listed(s.absence.c.user_id), and_(_WITHOUT_FACE, ~has_an_open_face(s.absence.c.user_id)))
)

FORGET_WITHHELD = delete(s.absence).where(
    ~_WITHOUT_FACE,
    ~exists(select(literal(1)).where(s.unlisted_person.c.user_id == s.absence.c.user_id)),
)

FORGET_FRESH = delete(s.absence).where(  # marks that no longer apply
    exists(
        select(literal(1)).where(
            s.unlisted_person.c.user_id == s.absence.c.user_id, s.unlisted_person.c.fresh
        )
    )
)

REMEMBER_ABSENCES = (
    upsert(s.absence)
    .from_select(
        ["user_id", "since", "run"],
        select(s.unlisted_person.c.user_id, s.unlisted_person.c.since, bindparam("run")).where(
            s.unlisted_person.c.fresh
        ),
    )
    .on_conflict_do_nothing()
)

CORRECT_MARKS = (
    update(s.absence)
    .values(since=s.unlisted_person.c.since)
    .where(
        s.unlisted_person.c.user_id == s.absence.c.user_id,
        s.absence.c.since > s.unlisted_person.c.since,
    )
)

FORGET_FACES_TO_DELETE = delete(s.face_to_delete).where(
    ~exists(
        select(literal(1))
        .select_from(s.unmatched_face.join(s.face, s.face.c.face_id == s.unmatched_face.c.face_id))
        .where(s.unmatched_face.c.face_id == s.face_to_delete.c.face_id, may_go())
    )
)

REMEMBER_FACES_TO_DELETE = (
    upsert(s.face_to_delete)
    .from_select(
        ["face_id", "run"],
        select(s.unmatched_face.c.face_id, bindparam("run")).where(s.unmatched_face.c.fresh),
    )
    .on_conflict_do_nothing()
)

_ROWS = upsert(s.row)
REMEMBER_ROWS = _ROWS.from_select(
    ["user_id", "path", "user_data", "status", "code", "message", "run"],
    select(
        s.manifest_row.c.user_id,
        s.manifest_row.c.path,
        s.manifest_row.c.user_data,
        literal(Status.PENDING.value),
        literal(""),
        literal(""),
        bindparam("run"),
    ).where(s.manifest_row.c.change.in_([RowDiffKind.JOINER.value, RowDiffKind.PHOTO.value])),
).on_conflict_do_update(
    index_elements=["user_id", "path"],
    # With its text: the next run may queue the row from here, before it reads the manifest.
    set_={"run": bindparam("run"), "user_data": _ROWS.excluded.user_data},
    where=and_(s.row.c.face_id.is_(None), s.row.c.status.in_(DUE)),
)


SAMPLE = 200
"""How many rows are examined for signs of what may be wrong with a manifest."""

FEW = 10
"""One exception in this many does not rule out a reason."""

_PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".heic", ".tif", ".tiff")


def find_reasons(connection: Connection, *, manifest: str) -> Diagnosis:
    """Look for reasons of the difference; `manifest` is the absolute path of the synced one."""
    return Diagnosis(
        zeros_lost=_zeros_lost(connection),
        swapped=_swapped(connection),
        behind=_unlisted_behind(connection),
        other_manifest=other_manifest(connection, manifest=manifest),
    )


def _zeros_lost(connection: Connection) -> int:
    zero: ColumnElement[str] = literal_column("'0'")  # no parameter, else the index does not fit
    stripped = func.ltrim(s.manifest_row.c.user_id, zero)
    # Only a diagnosis needs it. In SQLite, an index of a temporary table is temporary.
    connection.exec_driver_sql(
        "CREATE INDEX IF NOT EXISTS user_id_stripped ON manifest_row (ltrim(user_id, '0'))"
    )
    there = exists(
        select(literal(1)).where(stripped == func.ltrim(s.unlisted_person.c.user_id, zero))
    )
    return _number(
        connection,
        select(func.count()).select_from(s.unlisted_person).where(s.unlisted_person.c.fresh, there),
    )


def _swapped(connection: Connection) -> int:
    first = (
        select(s.manifest_row.c.user_id).order_by(s.manifest_row.c.line).limit(SAMPLE).subquery()
    )
    texts = (
        select(s.face.c.user_data)
        .where(s.face.c.user_data.in_(select(first.c.user_id)), s.face.c.user_data != "")
        .distinct()
    )
    known = set(connection.scalars(texts))
    found = list(connection.scalars(select(first.c.user_id)))
    odd = sum(one in known or one.lower().endswith(_PHOTO_ENDINGS) for one in found)
    return 100 * odd // len(found) if found else 0


def _unlisted_behind(connection: Connection) -> bool:
    held = holds_a_token()
    listed = select(s.face.c.face_id).where(held, is_listed(s.face.c.user_id))
    known = _number(connection, select(func.count()).select_from(listed.subquery()))
    most = listed.order_by(s.face.c.face_id).offset(known * (FEW - 1) // FEW).limit(1)
    theirs = s.face.c.user_id.in_(
        select(s.unlisted_person.c.user_id).where(s.unlisted_person.c.fresh)
    )
    gone = select(func.count()).where(held, theirs)
    # Parallel calls bring some out of order.
    behind = gone.where(s.face.c.face_id > _number(connection, most))
    return FEW * _number(connection, behind) >= (FEW - 1) * _number(connection, gone) > 0


def suspected_manifest(connection: Connection, *, manifest: str) -> str:
    """The manifest that lists most of the absent people, if it is not this one; otherwise empty. An
    earlier export under its own name does not count as another manifest: it was synced, and has not
    been used since this one was."""
    return _suspected(connection, manifest=manifest)[0]


def other_manifest(connection: Connection, *, manifest: str) -> str:
    """The same if it lists hardly anybody else; the rows of all people have to be known."""
    path, people = _suspected(connection, manifest=manifest)
    if not path:
        return ""
    of_it = s.row.c.run.in_(select(s.run.c.run).where(s.run.c.manifest == path))
    others = (
        select(literal(1))
        .select_from(s.manifest_row.join(s.row, and_(SAME_ROW, of_it)))
        .limit(people // FEW + 1)
        .subquery()
    )
    listed = _number(connection, select(func.count()).select_from(others))
    return path if FEW * listed <= people else ""


def _suspected(connection: Connection, *, manifest: str) -> tuple[str, int]:
    """It, and how many absent people it lists."""
    theirs = (
        select(s.row.c.user_id, func.max(s.run.c.manifest).label("manifest"))
        .join_from(s.unlisted_person, s.row, s.row.c.user_id == s.unlisted_person.c.user_id)
        .join(s.run, s.run.c.run == s.row.c.run)
        .group_by(s.row.c.user_id)
    )
    found = Counter(one.manifest for one in connection.execute(theirs))
    if not found:
        return "", 0
    (path, people), *_ = found.most_common(1)
    if path == manifest or 2 * people < found.total():
        return "", 0
    runs = s.run.c.manifest == path
    of_syncs = select(func.count()).where(runs, is_a_sync())
    last = _number(connection, select(func.max(s.run.c.run)).where(runs))
    before = select(func.count()).where(s.run.c.manifest == manifest, s.run.c.run < last)
    if _number(connection, of_syncs) and not _number(connection, before):
        return "", 0
    return path, people


def _number(connection: Connection, query: Select[Any]) -> int:
    return int(connection.scalar(query) or 0)
