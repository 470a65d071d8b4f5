"""A manifest's rows compared with a ledger, the queue of due rows, and the kept scan."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Boolean,
    CompoundSelect,
    Connection,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from enroll.ledger import schema as s
from enroll.ledger.records import Comparison
from enroll.ledger.scan_cache import CachedScan, KeptPart, Part, PartCounts, content_of
from enroll.ledger.statements import (
    INSERT_DUE,
    INSERT_SCAN,
    Bulk,
    among_numbers,
    candidate,
    due_tuple,
    listed,
    queued_row,
    replacing,
    scan_tuples,
)
from enroll.model import Candidate, Row, ScannedRow, Status

_SAVE = replacing(s.scan_cache, ["only"])
_SAVE_PART = replacing(s.scan_cache_part, ["number"])
_SET_PART = update(s.scan_cache_part).where(s.scan_cache_part.c.number == bindparam("which"))


class SqlScanCache:
    """See `ScanCacheStore`; reads and writes within the ledger's own transactions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load_part(self, number: int) -> Part | None:
        found = self._connection.execute(
            select(s.scan_cache_part).where(s.scan_cache_part.c.number == number)
        ).one_or_none()
        if found is None:
            return None
        return Part(
            number=number,
            first_line=found.first_line,
            rows=found.rows,
            digest=found.digest,
            counts=None if found.counts is None else PartCounts.of(found.counts),
        )

    def save_part(self, part: Part) -> None:
        values = {
            "first_line": part.first_line,
            "rows": part.rows,
            "digest": part.digest,
            "counts": None,
        }
        self._connection.execute(_SAVE_PART, {"number": part.number, **values})

    def reopen_part(self, number: int) -> None:
        self._connection.execute(_SET_PART, {"which": number, "digest": None, "counts": None})

    def contents(self) -> Iterator[tuple[int, bytes]]:
        part = s.scan_cache_part.c
        for number, rows in self._connection.execute(select(part.number, part.rows)):
            yield number, content_of(rows)

    def replace_parts(self, parts: Iterable[Part | KeptPart]) -> None:
        # New numbers are negative until the parts that are not kept have been deleted.
        table, number = s.scan_cache_part, s.scan_cache_part.c.number
        for part in parts:
            if isinstance(part, Part):
                self.save_part(replace(part, number=-1 - part.number))
            else:
                moved = {"number": -1 - part.number, "first_line": part.first_line}
                self._connection.execute(update(table).where(number == part.was).values(moved))
        self._connection.execute(delete(table).where(number >= 0))
        self._connection.execute(update(table).values(number=-1 - number))

    def note_people(self, changed: Set[str] | None, *, people: int) -> None:
        if self._connection.scalar(select(s.compared_scan.c.people)) is None:
            return
        if changed is None:
            self._connection.execute(delete(s.compared_scan))
            self._connection.execute(delete(s.to_compare))
            return
        self._connection.execute(update(s.compared_scan).values(people=people))
        note = upsert(s.to_compare).on_conflict_do_nothing()
        if changed:
            self._connection.execute(note, [{"user_id": one} for one in changed])

    def complete_part(self, number: int, digest: bytes, counts: PartCounts) -> None:
        found = {"which": number, "digest": digest, "counts": counts.text()}
        self._connection.execute(_SET_PART, found)

    def save(self, record: CachedScan) -> None:
        path, size, mtime_ns = record.results or (None, None, None)
        values = {
            "fingerprint": record.fingerprint,
            "manifest": record.manifest,
            "parts": record.parts,
            "results_path": path,
            "results_size": size,
            "results_mtime_ns": mtime_ns,
        }
        self._connection.execute(_SAVE, {"only": 1, **values})

    def drop(self) -> None:
        for table in (s.scan_cache, s.scan_cache_part, s.compared_scan, s.to_compare):
            self._connection.execute(delete(table))


_ENROLLED = Status.ENROLLED.value

EARLY_ROWS = 20_000
"""Rows that are queued before the manifest is scanned: enough for the fastest service until the
scan finds more."""

TAKEN_AT_ONCE = 500
"""Rows that are taken from the queue into memory at a time."""


class SqlDueRows:
    """See `enroll.ledger.DueRows`; reads and writes within the ledger's own transactions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._place = 0
        self._early = False
        self._taken: deque[Candidate] = deque()

    def compare(
        self, rows: Sequence[ScannedRow], *, run: int | None, reread: bool = False
    ) -> Comparison:
        self._connection.execute(s.scan.delete())
        scanned = scan_tuples(rows)
        INSERT_SCAN.execute(self._connection, scanned)
        return self._compared(rows, run=run, reread=reread)

    def _compared(self, rows: Sequence[ScannedRow], *, run: int | None, reread: bool) -> Comparison:
        candidates, text_changed, early, new = [], 0, 0, False
        gone = Counter[str]()
        if self._early:
            early = self._connection.scalar(_EARLY_LINES) or 0
            self._connection.execute(_MEET_EARLY)
            self._connection.execute(_SCAN_WITHOUT_EARLY)
        by_key: dict[tuple[str, str], ScannedRow] = {}
        # Most rows are enrolled and as they were: those are counted by not being among these.
        for found in self._connection.execute(_NOT_UNCHANGED, {"reread": reread}):
            new = new or not found.known
            if found.gone:
                gone[found.path.rpartition("/")[0]] += found.lines
            elif found.unchanged:
                text_changed += found.lines
            else:
                by_key = by_key or {(row.user_id, row.path): row for row in reversed(rows)}
                candidates.append(candidate(found, by_key[found.user_id, found.path]))
        if run is not None and new:
            self._record_as_pending(run)
        return Comparison(
            unchanged=len(rows) - early - gone.total() - sum(one.lines for one in candidates),
            user_data_changed=text_changed,
            gone=gone.total(),
            candidates=candidates,
            early=early,
            gone_from=gone,
        )

    def add_early(self, mark: str, *, is_good: Callable[[Row], bool]) -> int:
        due = [
            Candidate(
                row=ScannedRow(
                    line=0,
                    user_id=found.user_id,
                    user_data=found.user_data,
                    image=found.path,
                    path=found.path,
                ),
                status=Status(found.status),
                code=found.code,
                face_id=found.face_id,
            )
            for found in self._connection.execute(_DUE_EARLY, {"mark": mark})
        ]
        good = [one for one in due if is_good(one.row)]
        self.add(good)
        early = [(one.row.user_id, one.row.path, 0) for one in good]
        _INSERT_EARLY.execute(self._connection, early)
        self._early = bool(good)
        return len(good)

    def early_repeats(self) -> list[tuple[Status, str, str, int]]:
        if not self._early:
            return []
        return [
            (Status(found.status), found.code, found.message, found.lines)
            for found in self._connection.execute(_EARLY_REPEATS)
        ]

    def _record_as_pending(self, run: int) -> None:
        columns = ["user_id", "path", "user_data", "status", "code", "message", "run"]
        self._connection.execute(
            upsert(s.row)
            .from_select(
                columns,
                select(
                    s.scan.c.user_id,
                    s.scan.c.path,
                    s.scan.c.user_data,
                    literal(Status.PENDING.value),
                    literal(""),
                    literal(""),
                    literal(run),
                ).where(literal(True)),  # else SQLite takes ON CONFLICT for a join's ON
            )
            .on_conflict_do_nothing()
        )

    def add(self, due: Iterable[Candidate]) -> None:
        queued = [due_tuple(one, place) for place, one in enumerate(due, start=self._place + 1)]
        self._place += len(queued)
        INSERT_DUE.execute(self._connection, queued)

    def take(self, count: int) -> list[Candidate]:
        if len(self._taken) < count:
            found = self._connection.execute(_NEXT_DUE, {"most": max(count, TAKEN_AT_ONCE)}).all()
            if found:
                self._connection.execute(_TAKE, {"last": found[-1].place})
            self._taken.extend(map(queued_row, found))
        return [self._taken.popleft() for _ in range(min(count, len(self._taken)))]

    def of_faces(self, face_ids: Collection[int]) -> list[Candidate]:
        found = self._connection.execute(_QUEUED_OF, {"faces": listed(face_ids)}).all()
        ahead = [due for due in self._taken if due.face_id in face_ids]
        return ahead + list(map(queued_row, found))


def _not_unchanged() -> Select[Any]:
    """Scanned rows that are not enrolled with the photo unchanged, or whose text has changed.

    Rows that `gone` or `unchanged` selects are enrolled; all others are candidates.
    """
    enrolled = func.coalesce(s.face.c.status, "") == _ENROLLED
    same_photo = func.coalesce(
        and_(
            s.photo.c.size == s.scan.c.size,
            s.photo.c.mtime_ns == s.scan.c.mtime_ns,
            s.photo.c.ctime_ns == s.scan.c.ctime_ns,
            s.photo.c.sha256 == s.row.c.sha256,
        ),
        False,
    )
    gone = and_(enrolled, s.scan.c.size.is_(None))
    renewed = and_(s.renewal.c.user_id == s.scan.c.user_id, s.renewal.c.path == s.scan.c.path)
    renews = select(literal(1)).where(renewed).exists()
    unchanged = and_(enrolled, same_photo, ~bindparam("reread", type_=Boolean), ~renews)
    other_text = and_(unchanged, s.face.c.user_data != s.scan.c.user_data)
    status = func.coalesce(s.face.c.status, s.row.c.status, Status.PENDING.value)
    return (
        select(
            s.scan.c.user_id,
            s.scan.c.path,
            s.scan.c.lines,
            status.label("status"),
            # An enrolled row may have kept its face for a reason of its own.
            func.coalesce(
                case((enrolled, func.nullif(s.row.c.code, ""))), s.face.c.code, s.row.c.code, ""
            ).label("code"),
            func.coalesce(s.face.c.message, s.row.c.message, "").label("message"),
            s.row.c.face_id,
            s.row.c.user_id.is_not(None).label("known"),
            same_photo.label("same_photo"),
            gone.label("gone"),
            unchanged.label("unchanged"),
            func.coalesce(s.row.c.user_data != s.scan.c.user_data, False).label("other_text"),
            s.face.c.multi_oriented_detection.label("turned"),
            s.face.c.refused_under,
            renews.label("renews"),
        )
        .select_from(
            s.scan.outerjoin(
                s.row,
                and_(s.row.c.user_id == s.scan.c.user_id, s.row.c.path == s.scan.c.path),
            )
            .outerjoin(s.face, s.face.c.face_id == s.row.c.face_id)
            .outerjoin(s.photo, s.photo.c.path == s.scan.c.path)
        )
        .where(or_(~unchanged, other_text))
        .order_by(s.scan.c.line)
    )


_NOT_UNCHANGED = _not_unchanged()

# What is due of a manifest that was compared before, taken from the ledger without scanning it.


def _due_early() -> CompoundSelect[Any]:
    """Some rows last written by a run of the same mark that are due whatever their photos are.

    Doubts are not among them: they are settled first, and the scan finds their rows.
    """
    again = [Status.PENDING.value, Status.FAILED.value]
    marked = select(s.run.c.run).where(s.run.c.scan_mark == bindparam("mark"))
    columns = [s.row.c.user_id, s.row.c.path, s.row.c.user_data]
    without_face = select(*columns, s.row.c.status, s.row.c.code, s.row.c.face_id).where(
        s.row.c.face_id.is_(None), s.row.c.status.in_(again), s.row.c.run.in_(marked)
    )
    with_face = (
        select(*columns, s.face.c.status, s.face.c.code, s.row.c.face_id)
        .join_from(
            s.face,
            s.row,
            and_(s.row.c.user_id == s.face.c.user_id, s.row.c.face_id == s.face.c.face_id),
        )
        .where(
            s.face.c.status.in_(again),
            s.face.c.status != _ENROLLED,  # so that the index on the others serves
            s.row.c.run.in_(marked),
        )
    )
    return union_all(without_face, with_face).limit(EARLY_ROWS)


_DUE_EARLY = _due_early()
_INSERT_EARLY = Bulk(insert(s.early))
_IS_EARLY = and_(s.early.c.user_id == s.scan.c.user_id, s.early.c.path == s.scan.c.path)
_EARLY_LINES = select(func.sum(s.scan.c.lines)).join_from(s.scan, s.early, _IS_EARLY)
_MEET_EARLY = (
    update(s.early).values(lines=s.early.c.lines + s.scan.c.lines).where(_IS_EARLY)  # UPDATE … FROM
)
_SCAN_WITHOUT_EARLY = delete(s.scan).where(select(literal(1)).where(_IS_EARLY).exists())
_EARLY_REPEATS = (
    select(
        func.coalesce(s.face.c.status, s.row.c.status).label("status"),
        func.coalesce(s.face.c.code, s.row.c.code).label("code"),
        func.coalesce(s.face.c.message, s.row.c.message).label("message"),
        (s.early.c.lines - 1).label("lines"),
    )
    .join_from(
        s.early, s.row, and_(s.row.c.user_id == s.early.c.user_id, s.row.c.path == s.early.c.path)
    )
    .outerjoin(s.face, s.face.c.face_id == s.row.c.face_id)
    .where(s.early.c.lines > 1)
)

_NEXT_DUE = select(s.due).order_by(s.due.c.place).limit(bindparam("most", type_=Integer))
_QUEUED_OF = select(s.due).where(s.due.c.face_id.in_(among_numbers("faces")))
_TAKE = delete(s.due).where(s.due.c.place <= bindparam("last", type_=Integer))
