"""The ledger in a SQLite file: WAL, synchronous=FULL, one writer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    Insert,
    Integer,
    Select,
    and_,
    bindparam,
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
from sqlalchemy.exc import DatabaseError

from enroll.errors import LocalError
from enroll.expiry import DEFAULT_TIMEOUT, expiry_after_death
from enroll.ledger import INTERRUPTED, SURVEY, Changes, Comparison, RunEnd, RunPace, RunStart
from enroll.ledger import schema as s
from enroll.ledger.columns import (
    INSERT_DUE,
    INSERT_SCAN,
    Buffer,
    candidate,
    due_tuple,
    face_record,
    queued_row,
    scan_tuples,
)
from enroll.ledger.moved import LedgerFile
from enroll.ledger.reading import PARAMETERS_AT_ONCE, SqliteReader, sentences, shown_path
from enroll.ledger.surveys import SqliteSurveys
from enroll.model import (
    Candidate,
    Event,
    EventKind,
    FaceRecord,
    ScannedRow,
    SharedPhoto,
    Status,
)

_ENROLLED = Status.ENROLLED.value

EARLY_ROWS = 20_000
"""Rows that are queued before the manifest is scanned: enough for the fastest service until the
scan has come to more."""


class SqliteLedger(SqliteReader):
    """The driver's side of a SQLite ledger; see `enroll.ledger.Ledger` for the contract."""

    def __init__(self, connection: Connection, path: str) -> None:
        super().__init__(connection, path)
        self._unwritten = Buffer()  # recorded, not in the open transaction yet
        self._written = Buffer()  # in the open transaction, not committed
        self._place = 0
        self._early = False
        self._surveys = SqliteSurveys(connection, path)
        self._run: int | None = None
        self._pace: RunPace | None = None
        self._ceiling: int | None = None  # found, and not on the disk yet
        self._file = LedgerFile(Path(path)) if Path(path).is_file() else None
        with sentences(path):
            s.scan_metadata.create_all(connection)
            self._last_face_id: int = connection.scalar(select(func.max(s.face.c.face_id))) or 0
            connection.commit()

    @property
    def surveys(self) -> SqliteSurveys:
        return self._surveys

    @property
    def began_empty(self) -> bool:
        return bool(self._one(select(s.library.c.began_empty)).began_empty)

    def begins(self, *, empty: bool) -> None:
        with sentences(self._path):
            self._connection.execute(update(s.library).values(began_empty=empty))

    @property
    def holds_back(self) -> bool:
        return bool(self._unwritten or self._written)

    def start_run(
        self, start: RunStart, *, images: str, given: bool, clock_offset: float = 0.0
    ) -> int:
        with sentences(self._path):
            number: int = (self._connection.scalar(select(func.max(s.run.c.run))) or 0) + 1
            died = self._connection.execute(
                select(s.run).order_by(s.run.c.run.desc()).limit(1)
            ).one_or_none()
            self._connection.execute(
                insert(s.run).values(
                    run=number,
                    started_at=start.at,
                    alive_at=start.at,
                    clock_offset=clock_offset,
                    host=start.host,
                    user=start.user,
                    pid=start.pid,
                    version=start.version,
                    manifest=start.manifest,
                    manifest_sha256=start.manifest_sha256,
                    options=dict(start.options),
                )
            )
            self._connection.execute(update(s.library).values(images=images, images_given=given))
            if died is not None:
                alive_at = died.alive_at / 1000 + died.clock_offset
                timeout = died.options.get("timeout", DEFAULT_TIMEOUT)
                expires = expiry_after_death(alive_at, timeout=timeout)
                self._doubt_what_a_dead_run_left(number, at=start.at, expires=expires)
            survey = self._surveys.survey()
            if survey is None or survey.fingerprint != start.options.get(SURVEY):
                self._surveys.drop_survey()
            self._connection.commit()
        self._run = number
        return number

    def _doubt_what_a_dead_run_left(self, run: int, *, at: int, expires: float) -> None:
        left = s.face.c.status == Status.SENDING.value
        message = "The run ended while this call was under way; the service may have the face."
        self._connection.execute(
            insert(s.event).from_select(
                ["at", "kind", "run", "face_id", "detail"],
                select(
                    literal(at),
                    literal(EventKind.IN_DOUBT.value),
                    literal(run),
                    s.face.c.face_id,
                    literal(INTERRUPTED),
                ).where(left),
            )
        )
        self._connection.execute(
            update(s.face)
            .where(left)
            .values(
                status=Status.IN_DOUBT.value, code=INTERRUPTED, message=message, expires=expires
            )
        )

    def end_run(self, run: int, end: RunEnd) -> None:
        self.commit()
        with sentences(self._path):
            self._connection.execute(
                update(s.run)
                .where(s.run.c.run == run)
                .values(
                    ended_at=end.at,
                    exit_code=end.exit_code,
                    reason=end.reason,
                    calls=dict(end.calls),
                    rows=dict(end.rows),
                    limit=end.limit,
                )
            )
            self._connection.commit()

    def compare(
        self, rows: Sequence[ScannedRow], *, run: int | None, reread: bool = False
    ) -> Comparison:
        self._flush()
        with sentences(self._path):
            self._connection.execute(s.scan.delete())
            scanned = scan_tuples(rows)
            INSERT_SCAN.execute(self._connection, scanned)
            return self._compared(rows, run=run, reread=reread)

    def _compared(self, rows: Sequence[ScannedRow], *, run: int | None, reread: bool) -> Comparison:
        candidates, text_changed, gone, early, new = [], 0, 0, 0, False
        if self._early:
            early = self._connection.scalar(_EARLY_LINES) or 0
            self._connection.execute(_MEET_EARLY)
            self._connection.execute(_SCAN_WITHOUT_EARLY)
        by_key: dict[tuple[str, str], ScannedRow] = {}
        # Most rows are enrolled and as they were: those are counted by not being among these.
        for found in self._connection.execute(_NOT_UNCHANGED, {"reread": reread}):
            new = new or not found.known
            if found.gone:
                gone += found.lines
            elif found.unchanged:
                text_changed += found.lines
            else:
                by_key = by_key or {(row.user_id, row.path): row for row in reversed(rows)}
                candidates.append(candidate(found, by_key[found.user_id, found.path]))
        if run is not None and new:
            self._record_as_pending(run)
        return Comparison(
            unchanged=len(rows) - early - gone - sum(one.lines for one in candidates),
            user_data_changed=text_changed,
            gone=gone,
            candidates=candidates,
            early=early,
        )

    def queue_early(self, mark: str) -> int:
        with sentences(self._path):
            self._connection.execute(_QUEUE_EARLY, {"mark": mark, "place": self._place})
            self._connection.execute(_REMEMBER_EARLY)
            count: int = self._connection.scalar(select(func.count()).select_from(s.early)) or 0
        self._place += count
        self._early = count > 0
        return count

    def early_repeats(self) -> list[tuple[Status, str, str, int]]:
        if not self._early:
            return []
        self._flush()
        with sentences(self._path):
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
                ).where(literal(True)),  # SQLite cannot tell ON CONFLICT from a join's ON else
            )
            .on_conflict_do_nothing()
        )

    def queue(self, due: Iterable[Candidate]) -> None:
        queued = [due_tuple(one, place) for place, one in enumerate(due, start=self._place + 1)]
        self._place += len(queued)
        with sentences(self._path):
            INSERT_DUE.execute(self._connection, queued)

    def next_due(self, count: int) -> list[Candidate]:
        with sentences(self._path):
            found = self._connection.execute(
                select(s.due).order_by(s.due.c.place).limit(count)
            ).all()
            if found:
                self._connection.execute(s.due.delete().where(s.due.c.place <= found[-1].place))
        return [queued_row(row) for row in found]

    def new_face_id(self) -> int:
        self._last_face_id += 1
        return self._last_face_id

    def faces_of(self, user_ids: Iterable[str]) -> dict[str, list[FaceRecord]]:
        self._flush()
        wanted = list(dict.fromkeys(user_ids))
        faces: dict[str, list[FaceRecord]] = {user_id: [] for user_id in wanted}
        for start in range(0, len(wanted), PARAMETERS_AT_ONCE):
            query = select(s.face).where(
                s.face.c.user_id.in_(wanted[start : start + PARAMETERS_AT_ONCE])
            )
            with sentences(self._path):
                for found in self._connection.execute(query):
                    faces[found.user_id].append(face_record(found._asdict()))
        return faces

    def holders_of(self, face_tokens: Sequence[str]) -> dict[str, int]:
        if not face_tokens:
            return {}
        self._flush()
        query = union_all(
            *(
                select(table.c.face_token, table.c.face_id).where(
                    table.c.face_token.in_(face_tokens)
                )
                for table in (s.face, s.surplus)
            )
        )
        with sentences(self._path):
            return {found.face_token: found.face_id for found in self._connection.execute(query)}

    def open_faces(self) -> list[FaceRecord]:
        self._flush()
        wanted = or_(s.face.c.status == Status.IN_DOUBT.value, s.face.c.recheck)
        return self._faces_where(select(s.face).where(wanted).order_by(s.face.c.face_id))

    def newest_enrolled(self, count: int) -> list[FaceRecord]:
        self._flush()
        enrolled = s.face.c.status == _ENROLLED
        newest = select(s.face).where(enrolled).order_by(s.face.c.face_id.desc()).limit(count)
        return self._faces_where(newest)

    def _faces_where(self, query: Select[Any]) -> list[FaceRecord]:
        with sentences(self._path):
            return [face_record(found._asdict()) for found in self._connection.execute(query)]

    def paths_of(self, face_ids: Sequence[int]) -> dict[int, list[str]]:
        self._flush()
        return super().paths_of(face_ids)

    def knows_a_face(self) -> bool:
        self._flush()
        perhaps = s.face.c.status.in_([Status.SENDING.value, Status.IN_DOUBT.value])
        query = select(s.face.c.face_id).where(
            or_(s.face.c.face_token.is_not(None), perhaps, s.face.c.recheck)
        )
        with sentences(self._path):
            return self._connection.scalar(query.limit(1)) is not None

    def token_count(self) -> int:
        copies = select(func.count()).select_from(s.surplus)
        with sentences(self._path):
            return self.enrolled_count() + (self._connection.scalar(copies) or 0)

    def enrolled_count(self) -> int:
        self._flush()
        query = select(func.count()).select_from(s.face).where(s.face.c.face_token.is_not(None))
        with sentences(self._path):
            return self._connection.scalar(query) or 0

    def record(self, changes: Changes) -> None:
        self._unwritten.add(changes)

    def commit(self, *, ahead: float = 0.0) -> None:
        alive_at = time.time_ns() // 1_000_000 + round(ahead * 1000)
        self._flush()
        with self._taking_back():
            if self._run is not None:
                pace = None if self._pace is None else asdict(self._pace)
                self._connection.execute(
                    update(s.run)
                    .where(s.run.c.run == self._run)
                    .values(alive_at=alive_at, pace=pace)
                )
            if self._ceiling is not None:
                self._connection.execute(update(s.library).values(ceiling=self._ceiling))
            self._connection.commit()
        self._ceiling = None
        self._written.clear()
        if self._file is not None:
            self._file.check(self._connection)

    def remember_ceiling(self, ceiling: int) -> None:
        self._ceiling = ceiling

    def note_pace(self, pace: RunPace) -> None:
        self._pace = pace

    def _flush(self) -> None:
        """Write what was recorded into the open transaction, parents before children."""
        new = self._unwritten
        if not new:
            return
        with self._taking_back():
            new.write(self._connection)
        self._written.take(new)

    @contextmanager
    def _taking_back(self) -> Iterator[None]:
        """On an error roll back, and hold what was lost by it for the next try."""
        try:
            with sentences(self._path):
                yield
        except LocalError:
            with suppress(DatabaseError):
                self._connection.rollback()
            self._written.take(self._unwritten)
            self._unwritten, self._written = self._written, Buffer()
            raise

    def supersede(self, user_ids: Iterable[str], *, at: int, run: int) -> int:
        self._flush()
        pointed_to = (
            select(literal(1))
            .where(s.row.c.user_id == s.face.c.user_id, s.row.c.face_id == s.face.c.face_id)
            .exists()
        )
        count = 0
        for user_id in user_ids:
            left = and_(s.face.c.user_id == user_id, s.face.c.status == _ENROLLED, ~pointed_to)
            with sentences(self._path):
                for found in self._connection.execute(select(s.face).where(left)).all():
                    face = face_record(found._asdict())
                    self.record(_superseded(face, at=at, run=run))
                    count += 1
        self._flush()
        return count

    def people_with_several(self) -> list[str]:
        self._flush()
        query = (
            select(s.face.c.user_id)
            .where(s.face.c.status == _ENROLLED)
            .group_by(s.face.c.user_id)
            .having(func.count() > 1)
        )
        with sentences(self._path):
            return [found.user_id for found in self._connection.execute(query)]

    def knows_photos_below(self, folder: str) -> bool:
        # "0" is the character after "/": the range is every path that begins with the folder.
        below = and_(s.photo.c.path > folder + "/", s.photo.c.path < folder + "0")
        with sentences(self._path):
            found = self._connection.execute(select(s.photo.c.path).where(below).limit(1))
            return found.first() is not None

    def shared_photos(self, run: int) -> int:
        self._flush()
        shared = _shared(run).subquery()
        with sentences(self._path):
            return self._connection.scalar(select(func.count()).select_from(shared)) or 0

    def examples_of_shared(self, run: int, *, most: int) -> list[SharedPhoto]:
        self._flush()
        row, face = s.row.c, s.face.c
        examples = []
        with sentences(self._path):
            for found in self._connection.execute(_shared(run).limit(most)).all():
                of_two = select(face.user_id, func.min(row.path).label("path")).where(
                    face.face_id.in_([found.first, found.last]),
                    row.user_id == face.user_id,
                    row.face_id == face.face_id,
                )
                people = self._connection.execute(of_two.group_by(face.face_id)).all()
                if people:  # rows may be of one person only, by now
                    ids = tuple(one.user_id for one in people)
                    path = shown_path(people[0].path, self.images)
                    examples.append(SharedPhoto(path=path, user_ids=ids, people=found.people))
        return examples


def _not_unchanged() -> Select[Any]:
    """Rows of the scan that are not enrolled with the photo as it was, or whose text has changed.

    `gone` and `unchanged` tell what is enrolled; what is neither is a candidate.
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
    unchanged = and_(enrolled, same_photo, ~bindparam("reread", type_=Boolean))
    other_text = and_(unchanged, s.face.c.user_data != s.scan.c.user_data)
    status = func.coalesce(s.face.c.status, s.row.c.status, Status.PENDING.value)
    return (
        select(
            s.scan.c.user_id,
            s.scan.c.path,
            s.scan.c.lines,
            status.label("status"),
            func.coalesce(s.face.c.code, s.row.c.code, "").label("code"),
            func.coalesce(s.face.c.message, s.row.c.message, "").label("message"),
            s.row.c.face_id,
            s.row.c.user_id.is_not(None).label("known"),
            same_photo.label("same_photo"),
            gone.label("gone"),
            unchanged.label("unchanged"),
            s.face.c.multi_oriented_detection.label("turned"),
            s.face.c.refused_under,
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


def _queue_early() -> Insert:
    """Some rows last written by a run of the same mark that are due whatever their photos are.

    Doubts are not among them: they are settled first, and their rows come up in the scan.
    """
    again = [Status.PENDING.value, Status.FAILED.value]
    marked = select(s.run.c.run).where(s.run.c.options[SURVEY].as_string() == bindparam("mark"))
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
    found = union_all(without_face, with_face).limit(EARLY_ROWS).subquery()
    place = bindparam("place", type_=Integer) + func.row_number().over()
    return insert(s.due).from_select(
        ["place", "user_id", "path", "user_data", "line", "lines", "status", "code", "face_id"],
        select(
            place,
            found.c.user_id,
            found.c.path,
            found.c.user_data,
            literal(0),
            literal(1),
            found.c.status,
            found.c.code,
            found.c.face_id,
        ),
    )


_QUEUE_EARLY = _queue_early()
_REMEMBER_EARLY = insert(s.early).from_select(
    ["user_id", "path", "lines"], select(s.due.c.user_id, s.due.c.path, literal(0))
)
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


def _shared(run: int) -> Select[int, int, int]:
    """Each content that is enrolled for several people, one of them by this run."""
    face = s.face.c
    return (
        select(
            func.min(face.face_id).label("first"),
            func.max(face.face_id).label("last"),
            func.count().label("people"),
        )
        .where(face.status == _ENROLLED)
        .group_by(face.sha256)
        .having(func.count() > 1, func.max(face.run) == run)
        .order_by(func.min(face.face_id))
    )


def _superseded(face: FaceRecord, *, at: int, run: int) -> Changes:
    return Changes(
        faces=[replace(face, status=Status.SUPERSEDED, run=run)],
        events=[
            Event(
                at=at,
                kind=EventKind.SUPERSEDED,
                run=run,
                face_id=face.face_id,
                face_token=face.face_token,
            )
        ],
    )
