"""What searches with photos have found wrong, in a ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Row,
    Select,
    String,
    and_,
    bindparam,
    case,
    delete,
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
from enroll.ledger.deletions import TOKEN_EVENTS
from enroll.ledger.queue import SqlScanCache
from enroll.ledger.records import AuditCounts, Finding, FindingKind, Pair, shown_path
from enroll.ledger.statements import among, among_numbers, face_record, listed
from enroll.model import EventKind, FaceRecord, Status


class SqlFindings:
    """See `enroll.ledger.Findings`; reads and writes within the ledger's own transactions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def accepted(self, user_ids: Iterable[str]) -> frozenset[tuple[str, str]]:
        found = self._connection.execute(_ACCEPTED_OF, {"people": listed(user_ids)})
        return frozenset((one.user_id, one.other_user_id) for one in found)

    def accept(self, user_id: str, other_user_id: str, *, at: int, run: int) -> int:
        first, second = sorted((user_id, other_user_id))
        values = {"first": first, "second": second, "at": at, "number": run}
        if self._connection.execute(_ACCEPT, values).rowcount:  # else it had been before
            for one, other in {(first, second), (second, first)}:
                self._connection.execute(_NOTE_ACCEPTED, {**values, "one": one, "other": other})
        released = self._connection.execute(_RELEASE, values).rowcount
        if released:  # the cached scan has them as bad for good
            SqlScanCache(self._connection).drop()
        return released

    def swapped(self) -> list[tuple[FaceRecord, str]]:
        found = self._connection.execute(_SWAPPED).all()
        return [(face_record(one), one.swapped_with) for one in found]

    def to_audit(
        self, *, again: bool, run: int | None = None, people: Sequence[str] | None = None
    ) -> Iterator[int]:
        query = _ENROLLED if again else _ENROLLED.where(~_IS_AUDITED)
        values: dict[str, Any] = {}
        if run is not None:
            query = query.where(s.face.c.face_token.in_(_TOKENS_OF_A_RUN))
            values["number"] = run
        if people is not None:
            query = query.where(s.face.c.user_id.in_(among("people")))
            values["people"] = listed(people)
        yield from self._connection.scalars(query.execution_options(yield_per=1000), values)

    def audit_again(self, face_ids: Sequence[int]) -> None:
        self._connection.execute(_NOT_AUDITED, {"faces": listed(face_ids)})

    def faces(self, face_ids: Sequence[int]) -> list[FaceRecord]:
        found = self._connection.execute(_FACES, {"faces": listed(face_ids)})
        return [face_record(one) for one in found]


def count_audits(connection: Connection) -> AuditCounts:
    """What audits have come to."""
    kinds = connection.execute(_count_kinds())
    marks = connection.scalar(_MARKS) or 0
    of_others = connection.scalar(_MARKS_OF_OTHERS) or 0
    return AuditCounts(
        audited=marks - of_others, findings={FindingKind(kind): count for kind, count in kinds}
    )


@cache
def _count_kinds() -> Select[str, int]:
    current = select(s.finding.c.kind).select_from(_BOTH_FACES).where(*_IS_CURRENT).subquery()
    return select(current.c.kind, func.count()).group_by(current.c.kind)


def current_findings(connection: Connection, photo_root: str) -> Iterator[Pair]:
    """See `LedgerReader.pairs`."""
    for found in connection.execute(_CURRENT.execution_options(yield_per=1000)):
        yield _pair(found, photo_root)


def _pair(found: Row[Any], photo_root: str) -> Pair:
    return Pair(
        finding=Finding(
            kind=FindingKind(found.kind),
            other_token=found.other_token,
            other_user_id=found.other_user_id,
            score=found.score,
        ),
        user_id=found.user_id,
        user_data=found.user_data,
        image=shown_path(found.image or "", photo_root),
        status=Status(found.status),
        face_token=found.face_token or "",
        other_user_data=found.other_user_data or "",
        other_status=None if found.other_status is None else Status(found.other_status),
        other_image=shown_path(found.other_image or "", photo_root),
        at=found.at,
        run=found.run,
    )


_MARKS = select(func.count()).select_from(s.audited)
_FIRST = bindparam("first", type_=String)
_SECOND = bindparam("second", type_=String)
_NUMBER = bindparam("number", type_=Integer)
_ACCEPT = (
    upsert(s.accepted)
    .values(user_id=_FIRST, other_user_id=_SECOND, at=bindparam("at", type_=Integer), run=_NUMBER)
    .on_conflict_do_nothing()
)
# The event belongs to a face of the person: the newest.
_NOTE_ACCEPTED = insert(s.event).from_select(
    ["at", "kind", "run", "face_id", "detail"],
    select(
        bindparam("at", type_=Integer),
        literal(EventKind.ACCEPTED.value),
        _NUMBER,
        func.max(s.face.c.face_id),
        bindparam("other", type_=String),
    )
    .where(s.face.c.user_id == bindparam("one", type_=String))
    .having(func.max(s.face.c.face_id).is_not(None)),
)
_ACCEPTED_OF = select(s.accepted.c.user_id, s.accepted.c.other_user_id).where(
    or_(*(s.accepted.c[name].in_(among("people")) for name in ("user_id", "other_user_id")))
)
_IS_ACCEPTED = (
    select(literal(1))
    .where(
        s.accepted.c.user_id == func.min(s.face.c.user_id, s.finding.c.other_user_id),
        s.accepted.c.other_user_id == func.max(s.face.c.user_id, s.finding.c.other_user_id),
    )
    .correlate(s.face, s.finding)
    .exists()
)
_OBJECTED_TO = (
    select(literal(1))
    .where(s.finding.c.face_id == s.face.c.face_id, ~_IS_ACCEPTED)
    .correlate(s.face)
    .exists()
)
_RELEASE = (
    update(s.face)
    .where(
        s.face.c.status == Status.HELD.value,
        s.face.c.user_id.in_([_FIRST, _SECOND]),
        ~_OBJECTED_TO,
    )
    .values(status=Status.PENDING.value, code="", message="", run=_NUMBER)
)

_ENROLLED = (
    select(s.face.c.face_id)
    .where(s.face.c.status == Status.ENROLLED.value, s.face.c.face_token.is_not(None))
    .order_by(s.face.c.face_id)
)
_IS_AUDITED = select(literal(1)).where(s.audited.c.face_token == s.face.c.face_token).exists()
_TOKENS_OF_A_RUN = select(s.event.c.face_token).where(
    s.event.c.run == _NUMBER, s.event.c.kind.in_(TOKEN_EVENTS)
)
_NOT_AUDITED = delete(s.audited).where(
    s.audited.c.face_token.in_(
        select(s.face.c.face_token).where(s.face.c.face_id.in_(among_numbers("faces")))
    )
)
_FACES = (
    select(s.face).where(s.face.c.face_id.in_(among_numbers("faces"))).order_by(s.face.c.face_id)
)
_MARKS_OF_OTHERS = (
    select(func.count())
    .select_from(s.face)
    .where(s.face.c.status != literal(Status.ENROLLED.value, literal_execute=True), _IS_AUDITED)
)


def _is_in_use(face: FromClause) -> ColumnElement[bool]:
    """Condition: a row leads to the face."""
    row = s.row.alias(f"use_of_{face.name}")  # type: ignore[attr-defined]
    return exists(
        select(literal(1)).where(row.c.user_id == face.c.user_id, row.c.face_id == face.c.face_id)
    )


def _swapped() -> Select[Any]:
    """Each held face that looks like a person with a held face that looks like this one's."""
    theirs, back = s.face.alias("theirs"), s.finding.alias("back")
    held = Status.HELD.value
    return (
        select(s.face, s.finding.c.other_user_id.label("swapped_with"))
        .join_from(s.face, s.finding, s.finding.c.face_id == s.face.c.face_id)
        .join(theirs, theirs.c.user_id == s.finding.c.other_user_id)
        .join(back, back.c.face_id == theirs.c.face_id)
        .where(
            s.face.c.status == held,
            s.face.c.status != Status.ENROLLED.value,  # so that the index on the others serves
            theirs.c.status == held,
            back.c.other_user_id == s.face.c.user_id,
            *(finding.c.kind == FindingKind.UNLIKE_BEFORE.value for finding in (s.finding, back)),
            *(_is_in_use(face) for face in (s.face, theirs)),
        )
        .order_by(s.face.c.face_id)
    )


_SWAPPED = _swapped()

_other = s.face.alias("other")
_IS_COPY = select(literal(1)).where(s.surplus.c.face_token == s.finding.c.other_token).exists()
# It is about one face, whatever becomes of the other; and no likeness, so not to be accepted.
_IS_OF_ITSELF = s.finding.c.kind == FindingKind.NOT_ITSELF.value
_AS_THEN = or_(
    and_(s.face.c.status == Status.HELD.value, _is_in_use(s.face)),
    and_(
        s.face.c.face_token == s.finding.c.face_token,
        or_(
            _IS_OF_ITSELF,
            s.finding.c.other_face_id.is_(None),
            _other.c.face_token == s.finding.c.other_token,
            _other.c.former_token == s.finding.c.other_token,
            _IS_COPY,
        ),
    ),
)
_twin = s.finding.alias("twin")
# The same from the other face's side, which comes first.
_FROM_OTHER_SIDE = (
    select(literal(1))
    .where(
        _twin.c.face_id == s.finding.c.other_face_id,
        _twin.c.kind == s.finding.c.kind,
        _twin.c.other_token == s.finding.c.face_token,
        _twin.c.face_id < s.finding.c.face_id,
        ~_IS_OF_ITSELF,
    )
    .exists()
)


def _path_of(face: Any) -> Any:
    row = s.row.alias(f"row_of_{face.name}")
    return (
        select(func.max(row.c.path))
        .where(row.c.user_id == face.c.user_id, row.c.face_id == face.c.face_id)
        .scalar_subquery()
    )


_BOTH_FACES = s.finding.join(s.face, s.face.c.face_id == s.finding.c.face_id).outerjoin(
    _other, _other.c.face_id == s.finding.c.other_face_id
)
_IS_CURRENT = (_AS_THEN, or_(_IS_OF_ITSELF, ~_IS_ACCEPTED), ~_FROM_OTHER_SIDE)
_CURRENT = (
    select(
        s.finding,
        s.face.c.user_id,
        s.face.c.user_data,
        s.face.c.status,
        _path_of(s.face).label("image"),
        _other.c.user_data.label("other_user_data"),
        _other.c.status.label("other_status"),
        case((_other.c.face_id.is_not(None), _path_of(_other))).label("other_image"),
    )
    .select_from(_BOTH_FACES)
    .where(*_IS_CURRENT)
    .order_by(s.finding.c.score.desc().nulls_last(), s.finding.c.face_id, s.finding.c.other_token)
)
