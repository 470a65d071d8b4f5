"""The driver's side of a ledger, in the SQL that both databases share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from enroll import clock
from enroll.errors import LocalError
from enroll.expiry import DEFAULT_TIMEOUT, ClockOffsets, expiry_after_death, latest_expiry
from enroll.ledger import schema as s
from enroll.ledger.deletions import SqlDeletions
from enroll.ledger.diff import SqlManifestDiff
from enroll.ledger.findings import SqlFindings
from enroll.ledger.forget import SqlForgetting
from enroll.ledger.queries import (
    SqlReader,
    end_columns,
    newest_runs,
    offsets_of,
    start_columns,
)
from enroll.ledger.queue import SqlDueRows, SqlScanCache
from enroll.ledger.records import (
    INTERRUPTED,
    Changes,
    Point,
    RunEnd,
    RunPace,
    RunStart,
    shown_path,
)
from enroll.ledger.statements import HOLDERS_OF, among, face_record, listed, write
from enroll.model import OPEN, Event, EventKind, FaceRecord, SharedPhoto, Status

_ENROLLED = Status.ENROLLED.value


_LAST_FACE_ID = select(func.max(s.face.c.face_id))
_LONGEST_TIMEOUT = select(func.max(s.run.c.timeout))
_START = insert(s.run)
_END = update(s.run).where(s.run.c.run == bindparam("number"))
_NOTE = update(s.library)

_IS_LEFT = s.face.c.status == Status.SENDING.value
_RECORD_DOUBTS = insert(s.event).from_select(
    ["at", "kind", "run", "face_id", "detail"],
    select(
        bindparam("when", type_=s.event.c.at.type),
        literal(EventKind.IN_DOUBT.value),
        bindparam("number", type_=s.event.c.run.type),
        s.face.c.face_id,
        literal(INTERRUPTED),
    ).where(_IS_LEFT),
)
_EXPIRES, _EXPIRY_BOUND = s.face.c.expires, bindparam("bound", type_=s.face.c.expires.type)
_DOUBT_WHAT_IS_LEFT = (
    update(s.face)
    .where(_IS_LEFT)
    .values(
        status=Status.IN_DOUBT.value,
        code=INTERRUPTED,
        message="The run ended while this call was in flight; the service may have the face.",
        # What the intent says holds; the other is for one that says nothing.
        expires=case((_EXPIRES > _EXPIRY_BOUND, _EXPIRES), else_=_EXPIRY_BOUND),
    )
)
_BOUND = [
    update(s.face).where(some, _EXPIRES > _EXPIRY_BOUND).values(expires=_EXPIRY_BOUND)
    # Each condition as its index has it.
    for some in (s.face.c.status != literal(_ENROLLED, literal_execute=True), s.face.c.recheck)
]
_OPEN_FACES = (
    select(s.face)
    .where(or_(s.face.c.status == Status.IN_DOUBT.value, s.face.c.recheck))
    .order_by(s.face.c.face_id)
)
_A_KNOWN_FACE = (
    select(s.face.c.face_id)
    .where(
        or_(
            s.face.c.face_token.is_not(None),
            s.face.c.status.in_([status.value for status in OPEN]),
            s.face.c.recheck,
        )
    )
    .limit(1)
)


class SqlLedger(SqlReader):
    """See `enroll.ledger.Ledger` for the contract."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._unwritten: list[Changes] = []  # recorded, not in the open transaction yet
        self._written: list[Changes] = []  # in the open transaction, not committed
        self._make_scratch()
        self._due_rows = SqlDueRows(connection)
        self._scan_cache = SqlScanCache(connection)
        self._deletions = SqlDeletions(connection)
        self._diff = SqlManifestDiff(connection)
        self._findings = SqlFindings(connection)
        self._forgetting = SqlForgetting(connection)
        self._run: int | None = None
        self._offsets = ClockOffsets()
        self._pace: dict[str, Any] | None = None
        self._library: dict[str, float] = {}  # found about the library, and not on the disk yet
        self._last_face_id: int = connection.scalar(_LAST_FACE_ID) or 0
        connection.commit()

    def _make_scratch(self) -> None:
        s.create_tables(self._connection, s.scratch_metadata)

    @property
    def scan_cache(self) -> SqlScanCache:
        return self._scan_cache

    @property
    def due_rows(self) -> SqlDueRows:
        self._flush()
        return self._due_rows

    @property
    def deletions(self) -> SqlDeletions:
        self._flush()
        return self._deletions

    @property
    def diff(self) -> SqlManifestDiff:
        self._flush()
        return self._diff

    @property
    def findings(self) -> SqlFindings:
        self._flush()
        return self._findings

    @property
    def forgetting(self) -> SqlForgetting:
        self._flush()
        return self._forgetting

    @property
    def began_empty(self) -> bool:
        return bool(self._connection.scalar(select(s.library.c.began_empty)))

    def begins(self, *, empty: bool) -> None:
        self._connection.execute(update(s.library).values(began_empty=empty))

    @property
    def holds_back(self) -> bool:
        return bool(self._unwritten or self._written)

    def start_run(self, start: RunStart, *, offsets: ClockOffsets | None = None) -> int:
        died = self._connection.execute(newest_runs(1)).one_or_none()
        number: int = 1 if died is None else died.run + 1
        if offsets is None:
            offsets = ClockOffsets() if died is None else offsets_of(died)
        values = {
            "run": number,
            "alive_at": start.at,
            "least_clock_offset": offsets.least,
            "most_clock_offset": offsets.most,
            **start_columns(start),
        }
        self._connection.execute(_START, values)
        if start.photo_root:
            root = {"photo_root": start.photo_root, "photo_root_named": start.photo_root_named}
            self._connection.execute(_NOTE, root)
        if died is not None:
            alive_at = died.alive_at / 1000 + offsets_of(died).most
            expires = expiry_after_death(alive_at, timeout=died.timeout)
            self._doubt_what_a_dead_run_left(number, at=start.at, expires=expires)
            self._bound_expiries(at=start.at)
        scan = self.last_scan()
        if scan is None or scan.fingerprint != start.scan_mark:
            self._scan_cache.drop()
        self._connection.commit()
        self._run, self._offsets = number, offsets
        return number

    def _doubt_what_a_dead_run_left(self, run: int, *, at: int, expires: float) -> None:
        self._connection.execute(_RECORD_DOUBTS, {"when": at, "number": run})
        self._connection.execute(_DOUBT_WHAT_IS_LEFT, {"bound": expires})

    def _bound_expiries(self, *, at: int) -> None:
        """Cut to the bound what cannot be the expiry of a call that was made before `at`."""
        timeout = self._connection.scalar(_LONGEST_TIMEOUT)
        latest = latest_expiry(at / 1000, timeout=timeout or DEFAULT_TIMEOUT)
        for statement in _BOUND:
            self._connection.execute(statement, {"bound": latest})

    def end_run(self, run: int, end: RunEnd) -> None:
        self.commit()
        self._connection.execute(_END, {"number": run, **end_columns(end)})
        self._connection.commit()

    def new_face_id(self) -> int:
        self._last_face_id += 1
        return self._last_face_id

    def faces_of(self, user_ids: Iterable[str]) -> dict[str, list[FaceRecord]]:
        faces: dict[str, list[FaceRecord]] = {user_id: [] for user_id in user_ids}
        for face in self._faces_where(_FACES_OF, people=listed(faces)):
            faces[face.user_id].append(face)
        return faces

    def holders_of(self, face_tokens: Sequence[str]) -> dict[str, int]:
        if not face_tokens:
            return {}
        self._flush()
        found = self._connection.execute(HOLDERS_OF, {"tokens": listed(face_tokens)}).all()
        return {holder.face_token: holder.face_id for holder in found}

    def open_faces(self) -> list[FaceRecord]:
        return self._faces_where(_OPEN_FACES)

    def newest_enrolled(self, count: int) -> list[FaceRecord]:
        enrolled = s.face.c.status == _ENROLLED
        newest = select(s.face).where(enrolled).order_by(s.face.c.face_id.desc()).limit(count)
        return self._faces_where(newest)

    def _faces_where(self, query: Select[Any], **values: str) -> list[FaceRecord]:
        self._flush()
        return [face_record(found) for found in self._connection.execute(query, values)]

    def paths_of(self, face_ids: Sequence[int]) -> dict[int, list[str]]:
        self._flush()
        return super().paths_of(face_ids)

    def knows_a_face(self) -> bool:
        self._flush()
        return self._connection.scalar(_A_KNOWN_FACE) is not None

    def token_count(self) -> int:
        copies = select(func.count()).select_from(s.surplus)
        former = select(func.count()).where(s.face.c.former_token.is_not(None))
        return self.enrolled_count() + self._count(copies) + self._count(former)

    def enrolled_count(self) -> int:
        return self._count(select(func.count()).where(s.face.c.face_token.is_not(None)))

    def _count(self, query: Select[int], **values: int) -> int:
        self._flush()
        return self._connection.scalar(query, values) or 0

    def record(self, changes: Changes) -> None:
        if changes:
            self._unwritten.append(changes)

    def commit(self, *, ahead: float = 0.0, offsets: ClockOffsets | None = None) -> None:
        if offsets is not None:
            self._offsets = self._offsets.including(offsets)
        alive_at = clock.time_ns() // 1_000_000 + round(ahead * 1000)
        self._flush()
        with self._taking_back():
            if self._run is not None:
                alive = {
                    "number": self._run,
                    "at": alive_at,
                    "least": self._offsets.least,
                    "most": self._offsets.most,
                    "how": self._pace,
                }
                self._sign(alive)
            if self._library:
                self._connection.execute(_NOTE, self._library)
            self._connection.commit()
        self._library.clear()
        self._written.clear()

    def rest(self) -> None:
        """A file keeps nobody waiting."""

    def _sign(self, alive: dict[str, Any]) -> None:
        """Write the run's sign of life into the open transaction."""
        self._connection.execute(ALIVE, alive)

    def remember_ceiling(self, ceiling: int) -> None:
        self._library["ceiling"] = ceiling

    @property
    def lag(self) -> float:
        if (known := self._library.get("lag")) is not None:
            return known
        return self._connection.scalar(select(s.library.c.lag)) or 0.0

    def remember_lag(self, lag: float) -> None:
        self._library["lag"] = lag

    def note_pace(self, pace: RunPace, course: Sequence[Point] = ()) -> None:
        self._pace = {**asdict(pace), "course": course}

    def _flush(self) -> None:
        """Write what was recorded into the open transaction, parents before children."""
        if not self._unwritten:
            return
        with self._taking_back():
            if self._run is None and any(one.faces or one.rows for one in self._unwritten):
                self._scan_cache.drop()  # nobody has said whether it holds beside this
            write(self._connection, self._unwritten)
        self._written += self._unwritten
        self._unwritten = []

    @contextmanager
    def _taking_back(self) -> Iterator[None]:
        """On an error roll back, and hold what was lost by it for the next try."""
        try:
            yield
        except LocalError:
            with suppress(LocalError):
                self._connection.rollback()
            self._unwritten, self._written = self._written + self._unwritten, []
            raise

    def supersede(self, *, at: int, run: int) -> int:
        left = self._faces_where(_LEFT)
        for face in left:
            superseded = Event(
                at=at,
                kind=EventKind.SUPERSEDED,
                run=run,
                face_id=face.face_id,
                face_token=face.face_token,
            )
            marked = replace(face, status=Status.SUPERSEDED, run=run)
            self.record(Changes(faces=[marked], events=[superseded]))
        self._flush()
        return len(left)

    def knows_photos_below(self, folder: str) -> bool:
        query = select(s.photo.c.path).where(_below(folder)).limit(1)
        return self._connection.execute(query).first() is not None

    def some_photos_below(self, folder: str, *, most: int) -> list[str]:
        query = select(s.photo.c.path).where(_below(folder)).order_by(func.random()).limit(most)
        return list(self._connection.scalars(query))

    def shared_photos(self, run: int) -> int:
        return self._count(_COUNT_SHARED, number=run)

    def examples_of_shared(self, run: int, *, most: int) -> list[SharedPhoto]:
        self._flush()
        row, face = s.row.c, s.face.c
        examples = []
        for found in self._connection.execute(_SHARED.limit(most), {"number": run}).all():
            of_two = select(face.user_id, func.min(row.path).label("path")).where(
                face.face_id.in_([found.first, found.last]),
                row.user_id == face.user_id,
                row.face_id == face.face_id,
            )
            people = self._connection.execute(
                of_two.group_by(face.face_id).order_by(face.face_id)
            ).all()
            if people:  # rows may be of one person only, by now
                ids = tuple(one.user_id for one in people)
                path = shown_path(people[0].path, self.photo_root)
                examples.append(SharedPhoto(path=path, user_ids=ids, people=found.people))
        return examples


_POINTED_TO = (
    select(literal(1))
    .where(s.row.c.user_id == s.face.c.user_id, s.row.c.face_id == s.face.c.face_id)
    .exists()
)
# A CASE, so that PostgreSQL asks it of the few faces that are left, and joins no rows for it.
_NOT_POINTED_TO = case((_POINTED_TO, False), else_=True).is_(True)
# The enrolled faces without a row of people who have another one. Who has several is answered by an
# index alone; nearly everybody has one. PostgreSQL expects the opposite, and would begin with all
# faces and their rows.
_SEVERAL = (
    select(s.face.c.user_id)
    .group_by(s.face.c.user_id)
    .having(func.count() > 1)
    .cte("several")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
_SEVERAL_ENROLLED = (
    select(s.face.c.user_id)
    .where(s.face.c.status == _ENROLLED, s.face.c.user_id.in_(select(_SEVERAL.c.user_id)))
    .group_by(s.face.c.user_id)
    .having(func.count() > 1)
)
# What is held may show somebody else: the face that it would replace stays in use.
_HOLDS_A_NEW_ONE = select(s.face.c.user_id).where(
    s.face.c.status == Status.HELD.value,
    s.face.c.status != _ENROLLED,  # so that the index on the others serves
    _POINTED_TO,
)
_LEFT = (
    select(s.face)
    .where(
        s.face.c.status == _ENROLLED,
        _NOT_POINTED_TO,
        s.face.c.user_id.in_(_SEVERAL_ENROLLED),
        s.face.c.user_id.not_in(_HOLDS_A_NEW_ONE),
    )
    .order_by(s.face.c.face_id)
)
_FACES_OF = (
    select(s.face)
    .where(s.face.c.user_id.in_(among("people")))
    .order_by(s.face.c.user_id, s.face.c.sha256)  # as their index has them
)


ALIVE = (
    update(s.run)
    .where(s.run.c.run == bindparam("number"))
    .values(
        alive_at=bindparam("at"),
        least_clock_offset=bindparam("least"),
        most_clock_offset=bindparam("most"),
        pace=bindparam("how"),
    )
)


def _below(folder: str) -> ColumnElement[bool]:
    # "0" is the character after "/": the range is every path that begins with the folder.
    above = folder.rstrip("/")
    return and_(s.photo.c.path > above + "/", s.photo.c.path < above + "0")


# Each content that is enrolled for several people, one of them by the run of this number.
_SHARED = (
    select(
        func.min(s.face.c.face_id).label("first"),
        func.max(s.face.c.face_id).label("last"),
        func.count().label("people"),
    )
    # Who has gone may have another id by now, and what was replaced is about to go.
    .where(
        s.face.c.status == _ENROLLED,
        s.face.c.user_id.not_in(select(s.absence.c.user_id)),
        s.face.c.face_id.not_in(select(s.face_to_delete.c.face_id)),
    )
    .group_by(s.face.c.sha256)
    .having(func.count() > 1, func.max(s.face.c.run) == bindparam("number"))
    .order_by(func.min(s.face.c.face_id))
)
_COUNT_SHARED = select(func.count()).select_from(_SHARED.subquery())
