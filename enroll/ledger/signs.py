"""What may be the reason of a difference that is too large, by what a SQLite ledger knows."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    exists,
    func,
    literal,
    literal_column,
    select,
)

from enroll.ledger import Signs
from enroll.ledger import schema as s
from enroll.ledger.conditions import SAME_ROW, holds_a_token, is_a_sync, is_listed

SAMPLE = 200
"""Rows that are looked at for what may be wrong with a manifest."""

FEW = 10
"""One in so many does not speak against a reason."""

_PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".heic", ".tif", ".tiff")


def find_signs(connection: Connection, *, manifest: str) -> Signs:
    """Look for them in the difference that was found; `manifest` is the absolute path of the one
    that is followed."""
    return Signs(
        zeros_lost=_zeros_lost(connection),
        swapped=_swapped(connection),
        behind=_unlisted_behind(connection),
        other_manifest=other_manifest(connection, manifest=manifest),
    )


def _zeros_lost(connection: Connection) -> int:
    zero: ColumnElement[str] = literal_column("'0'")  # no parameter, else the index does not fit
    stripped = func.ltrim(s.wanted.c.user_id, zero)
    connection.exec_driver_sql(
        "CREATE INDEX IF NOT EXISTS temp.wanted_stripped ON wanted (ltrim(user_id, '0'))"
    )
    there = exists(select(literal(1)).where(stripped == func.ltrim(s.gone.c.user_id, zero)))
    return _number(
        connection, select(func.count()).select_from(s.gone).where(s.gone.c.fresh, there)
    )


def _swapped(connection: Connection) -> int:
    first = select(s.wanted.c.user_id).order_by(s.wanted.c.line).limit(SAMPLE).subquery()
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
    theirs = s.face.c.user_id.in_(select(s.gone.c.user_id).where(s.gone.c.fresh))
    gone = select(func.count()).where(held, theirs)
    # Calls side by side bring some out of order.
    behind = gone.where(s.face.c.face_id > _number(connection, most))
    return FEW * _number(connection, behind) >= (FEW - 1) * _number(connection, gone) > 0


def other_manifest(connection: Connection, *, manifest: str) -> str:
    """The manifest that most of those who are gone stand in, if it is another than this one and
    hardly anybody else stands in it; else empty. An earlier export under a name of its own is no
    other one: that was followed, and has not been used since this one was."""
    theirs = (
        select(s.row.c.user_id, func.max(s.run.c.manifest).label("manifest"))
        .join_from(s.gone, s.row, s.row.c.user_id == s.gone.c.user_id)
        .join(s.run, s.run.c.run == s.row.c.run)
        .group_by(s.row.c.user_id)
    )
    found = Counter(one.manifest for one in connection.execute(theirs))
    if not found:
        return ""
    (path, people), *_ = found.most_common(1)
    if path == manifest or 2 * people < found.total():
        return ""
    runs = s.run.c.manifest == path
    of_syncs = select(func.count()).where(runs, is_a_sync())
    last = _number(connection, select(func.max(s.run.c.run)).where(runs))
    before = select(func.count()).where(s.run.c.manifest == manifest, s.run.c.run < last)
    if _number(connection, of_syncs) and not _number(connection, before):
        return ""
    of_it = s.row.c.run.in_(select(s.run.c.run).where(runs))
    others = (
        select(literal(1))
        .select_from(s.wanted.join(s.row, and_(SAME_ROW, of_it)))
        .limit(people // FEW + 1)
        .subquery()
    )
    listed = _number(connection, select(func.count()).select_from(others))
    return path if FEW * listed <= people else ""


def _number(connection: Connection, query: Select[Any]) -> int:
    return int(connection.scalar(query) or 0)
