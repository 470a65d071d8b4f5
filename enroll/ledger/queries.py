"""Reading a ledger, also while a run in another process writes it."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    FromClause,
    Row,
    Select,
    String,
    Table,
    and_,
    bindparam,
    case,
    func,
    select,
    union_all,
)

from enroll.addresses import named_path
from enroll.errors import ExitCode
from enroll.expiry import ClockOffsets
from enroll.ledger import schema as s
from enroll.ledger.blocklist import BlockList
from enroll.ledger.diff_queries import holds_a_token
from enroll.ledger.findings import count_audits, current_findings
from enroll.ledger.forget import count_forgotten, forgotten_events, read_block_list
from enroll.ledger.records import (
    AuditCounts,
    ErrorCount,
    LedgerStatus,
    LibraryIdentity,
    Pair,
    RunEnd,
    RunPace,
    RunRecord,
    RunStart,
    iso_time,
    shown_path,
)
from enroll.ledger.scan_cache import CachedScan
from enroll.ledger.statements import HOLDERS_OF, ListsOf, among_numbers, face_record, listed
from enroll.model import RESULTS, Entry, Event, EventKind, FaceRecord, RawAnswer, SendAs, Status
from enroll.visible import storable

_IDENTITY = select(s.library.c.host, s.library.c.group_id, s.library.c.add_time)
_PHOTO_ROOT_OF = (
    select(s.run.c.photo_root, s.run.c.photo_root_named)
    .where(s.run.c.manifest == bindparam("name"), s.run.c.photo_root != "")
    .order_by(s.run.c.run.desc())
    .limit(1)
)
_LAST_EXIT_CODE = (
    select(s.run.c.exit_code)
    .where(s.run.c.command == bindparam("name"))
    .order_by(s.run.c.run.desc())
    .limit(1)
)


class SqlReader:
    """What can be asked of a ledger. One connection, one thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()

    def identity(self) -> LibraryIdentity:
        return LibraryIdentity(**self._connection.execute(_IDENTITY).one()._asdict())

    @property
    def photo_root(self) -> str:
        return self._connection.scalar(select(s.library.c.photo_root)) or ""

    @property
    def named_photo_root(self) -> str:
        named = select(s.library.c.photo_root).where(s.library.c.photo_root_named)
        return self._connection.scalar(named) or ""

    def photo_root_of(self, manifest: str) -> tuple[str, bool] | None:
        named = {"name": manifest}
        found = self._connection.execute(_PHOTO_ROOT_OF, named).one_or_none()
        return None if found is None else (found.photo_root, found.photo_root_named)

    @property
    def photo_roots(self) -> list[str]:
        query = (
            select(s.run.c.photo_root)
            .where(s.run.c.photo_root != "")
            .group_by(s.run.c.photo_root)
            .order_by(func.max(s.run.c.run).desc())
        )
        return list(self._connection.scalars(query))

    @property
    def block_list(self) -> BlockList:
        return read_block_list(self._connection)

    @property
    def ceiling(self) -> int | None:
        return self._connection.scalar(select(s.library.c.ceiling))

    def status(self, *, runs: int = 10) -> LedgerStatus:
        forgotten, unfinished = count_forgotten(self._connection)
        return LedgerStatus(
            forgotten=forgotten,
            unfinished=unfinished,
            audits=self.audits(),
            identity=self.identity(),
            photo_root=self.photo_root,
            counts=self._counts(),
            ceiling=self.ceiling,
            errors=self._errors(),
            raw=[
                RawAnswer(**found._asdict())
                for found in self._connection.execute(
                    select(s.raw_answer).order_by(s.raw_answer.c.code, s.raw_answer.c.number)
                )
            ],
            runs=self.runs(runs),
        )

    def runs(self, count: int = 10) -> list[RunRecord]:
        found = self._connection.execute(newest_runs(count))
        return [_run_record(one) for one in found]

    def _counts(self) -> dict[Status, int]:
        rest = (
            select(s.face.c.status, func.count())
            .where(s.face.c.status != Status.ENROLLED.value)
            .group_by(s.face.c.status)
        )
        faceless = (
            select(s.row.c.status, func.count())
            .where(s.row.c.face_id.is_(None))
            .group_by(s.row.c.status)
        )
        others = {Status(status): n for status, n in self._connection.execute(rest)}
        faces = self._connection.scalar(select(func.count()).select_from(s.face)) or 0
        counts = Counter(others) + Counter({Status.ENROLLED: faces - sum(others.values())})
        counts.update({Status(status): n for status, n in self._connection.execute(faceless)})
        return {status: counts[status] for status in Status if counts[status]}

    def _errors(self) -> list[ErrorCount]:
        def grouped(table: Table) -> Select[Any]:
            return select(
                table.c.status, table.c.code, func.count().label("n"), func.max(table.c.message)
            ).group_by(table.c.status, table.c.code)

        faces = grouped(s.face).where(s.face.c.status != Status.ENROLLED.value, s.face.c.code != "")
        rows = grouped(s.row).where(s.row.c.face_id.is_(None), s.row.c.code != "")
        found = self._connection.execute(union_all(faces, rows))
        errors = [
            ErrorCount(status=Status(status), code=code, count=count, message=message)
            for status, code, count, message in found
        ]
        return sorted(errors, key=lambda error: (-error.count, error.code))

    def entries(self, statuses: Iterable[Status] = ()) -> Iterator[Entry]:
        photo_root = self.photo_root
        faces, rows = _FACES, _ROWS.where(s.row.c.face_id.is_(None))
        if wanted := [status.value for status in statuses]:
            faces = faces.where(s.face.c.status.in_(wanted))
            rows = rows.where(s.row.c.status.in_(wanted))
        for query in (faces, rows.order_by(s.row.c.user_id, s.row.c.path)):
            for found in self._connection.execute(query.execution_options(yield_per=1000)):
                yield _entry(found, photo_root)

    def entries_of(self, rows: Sequence[tuple[str, str]]) -> list[Entry | None]:
        photo_root = self.photo_root
        found = self._connection.execute(_ROWS_OF, {"rows": json.dumps(rows)})
        known = {(one.user_id, one.path): _entry(one, photo_root) for one in found}
        return [known.get(row) for row in rows]

    def pairs(self) -> Iterator[Pair]:
        yield from current_findings(self._connection, self.photo_root)

    def audits(self) -> AuditCounts:
        return count_audits(self._connection)

    def repeated_photos(self, *, most: int) -> list[str]:
        face = s.face.c
        query = (
            select(face.sha256)
            .where(face.status == Status.ENROLLED.value)
            .group_by(face.sha256)
            .having(func.count() > 1)
            .order_by(func.min(face.face_id))
            .limit(most)
        )
        return [sha256.hex() for sha256 in self._connection.scalars(query)]

    def photos_failed_with(self, code: str) -> list[str]:
        row = s.row.c
        failed = (row.face_id.is_(None), row.status == Status.FAILED.value, row.code == code)
        return list(self._connection.scalars(select(row.path).where(*failed).distinct()))

    def significant_digits(self) -> Iterator[Sequence[str]]:
        for some in self._connection.scalars(_DIGITS):
            yield some.split(",")

    def history(
        self, *, user_id: str | None = None, since: int | None = None, run: int | None = None
    ) -> Iterator[tuple[Event, str]]:
        forgotten = forgotten_events(self._connection, user_id=user_id, since=since, run=run)
        yield from heapq.merge(
            self._events(user_id=user_id, since=since, run=run),
            [(event, "") for event in forgotten],
            key=lambda told: told[0].at,
        )

    def _events(
        self, *, user_id: str | None, since: int | None, run: int | None
    ) -> Iterator[tuple[Event, str]]:
        columns = [column for column in s.event.c if not column.primary_key]
        query = select(*columns, s.face.c.user_id).join(s.face).order_by(s.event.c.event)
        if user_id is not None:
            query = query.where(s.face.c.user_id == user_id)
        if since is not None:
            query = query.where(s.event.c.at >= since)
        if run is not None:
            query = query.where(s.event.c.run == run)
        for found in self._connection.execute(query.execution_options(yield_per=1000)):
            told = found._asdict()
            user_id = told.pop("user_id")
            yield Event(**{**told, "kind": EventKind(found.kind)}), user_id

    def has_run(self, began: int) -> bool:
        query = select(s.run.c.run).where(s.run.c.started_at == began).limit(1)
        return self._connection.scalar(query) is not None

    def unfinished(self, command: str) -> bool:
        last = self._connection.execute(_LAST_EXIT_CODE, {"name": command}).one_or_none()
        return last is not None and last.exit_code not in (
            ExitCode.DONE,
            ExitCode.SOME_ROWS_FAILED,
        )

    def manifests(self) -> list[Path]:
        found = self._connection.execute(select(s.run.c.manifest).distinct())
        return [named_path(name) for (name,) in found if name]

    def results(self) -> list[Path]:
        found = self._connection.scalars(select(s.run.c.files[RESULTS].as_string()).distinct())
        return [named_path(name) for name in found if name]

    def last_scan(self) -> CachedScan | None:
        found = self._connection.execute(select(s.scan_cache)).one_or_none()
        if found is None:
            return None
        results = None
        if found.results_path is not None:
            results = (found.results_path, found.results_size, found.results_mtime_ns)
        return CachedScan(
            fingerprint=found.fingerprint,
            manifest=found.manifest,
            parts=found.parts,
            results=results,
        )

    def faces_with(self, face_tokens: Sequence[str]) -> dict[str, FaceRecord]:
        found = self._connection.execute(HOLDERS_OF, {"tokens": listed(face_tokens)})
        holders = {holder.face_token: holder.face_id for holder in found}
        query = select(s.face).where(s.face.c.face_id.in_(among_numbers("faces")))
        faces = self._connection.execute(query, {"faces": listed(holders.values())})
        by_id = {face.face_id: face_record(face) for face in faces}
        return {token: by_id[face_id] for token, face_id in holders.items()}

    def paths_of(self, face_ids: Sequence[int]) -> dict[int, list[str]]:
        paths: dict[int, list[str]] = {face_id: [] for face_id in face_ids}
        query = (
            select(s.row.c.face_id, s.row.c.path)
            .join_from(
                s.face,
                s.row,
                and_(s.row.c.user_id == s.face.c.user_id, s.row.c.face_id == s.face.c.face_id),
            )
            .where(s.face.c.face_id.in_(face_ids))
        )
        for found in self._connection.execute(query):
            paths[found.face_id].append(found.path)
        return paths


def path_of_face() -> Any:
    """A path of the face: the last by name, as several rows may point to it."""
    return (
        select(func.max(s.row.c.path))
        .where(s.row.c.user_id == s.face.c.user_id, s.row.c.face_id == s.face.c.face_id)
        .correlate(s.face)
        .scalar_subquery()
    )


def _entries_of_rows(rows: FromClause) -> Select[Any]:
    """What the entry of each row says: its own values, or those of its face; a code of its own
    keeps a row from another face than the one that it has."""
    row, face = s.row.c, s.face.c
    return select(
        row.user_id,
        row.path,
        row.sha256,
        func.coalesce(face.user_data, row.user_data).label("user_data"),
        func.coalesce(face.status, row.status).label("status"),
        func.coalesce(func.nullif(row.code, ""), face.code, "").label("code"),
        case((row.code != "", row.message), else_=func.coalesce(face.message, row.message)).label(
            "message"
        ),
        func.coalesce(face.run, row.run).label("run"),
        func.coalesce(face.attempts, 0).label("attempts"),
        func.coalesce(face.request_id, "").label("request_id"),
        func.coalesce(face.prepared, "").label("prepared"),
        face.face_token,
        face.enrolled_at,
        face.time_used,
    ).select_from(rows.outerjoin(s.face, face.face_id == row.face_id))


def _wanted() -> FromClause:
    """Rows by their (user_id, path), given as JSON in `rows`.

    Not with an IN of pairs: SQLite would go through the whole table for them.
    """
    wanted = ListsOf(bindparam("rows", type_=String)).table_valued("value", name="wanted")
    user_id, path = (func.json_extract(wanted.c.value, f"$[{place}]") for place in (0, 1))
    return wanted.join(s.row, and_(s.row.c.user_id == user_id, s.row.c.path == path))


_FACES = select(s.face, path_of_face().label("path")).order_by(s.face.c.face_id)
_ROWS = _entries_of_rows(s.row)
# A thousand at a time: fetching them one by one would take three times as long.
_DIGITS = (
    select(func.group_concat(func.ltrim(s.face.c.user_id, "0")))
    .where(holds_a_token(), func.ltrim(s.face.c.user_id, "0123456789") == "")
    .group_by(s.face.c.face_id.op("/")(1000))
)
_ROWS_OF = _entries_of_rows(_wanted())


def _entry(found: Row[Any], photo_root: str) -> Entry:
    return Entry(
        user_id=found.user_id,
        user_data=found.user_data,
        image=shown_path(found.path or "", photo_root),
        status=Status(found.status),
        face_token=found.face_token or "",
        error=found.code,
        message=found.message,
        attempts=found.attempts,
        request_id=found.request_id,
        sha256=found.sha256.hex() if found.sha256 else "",
        prepared=found.prepared,
        enrolled_at=iso_time(found.enrolled_at),
        run=found.run,
        time_used=found.time_used,
    )


def _named_as_columns(record: type) -> list[str]:
    """The fields of a record that are columns of the same name in the table of runs."""
    return [field.name for field in fields(record) if field.name in s.run.c]


_START = _named_as_columns(RunStart)
_END = _named_as_columns(RunEnd)


@cache
def newest_runs(count: int) -> Select[Any]:
    """The last runs, the newest first."""
    return select(s.run).order_by(s.run.c.run.desc()).limit(count)


def start_columns(start: RunStart) -> dict[str, Any]:
    """What a run begins with, by the columns of its table."""
    told = {name: getattr(start, name) for name in _START}
    text = {"host": storable(start.host), "user": storable(start.user)}
    return {**told, **text, "started_at": start.at}


def end_columns(end: RunEnd) -> dict[str, Any]:
    """How a run ends, by the columns of its table."""
    told = {name: getattr(end, name) for name in _END}
    return {**told, "reason": storable(end.reason), "ended_at": end.at}


def _run_record(found: Row[Any]) -> RunRecord:
    start = {name: getattr(found, name) for name in _START}
    start["send_as"] = SendAs(found.send_as)
    end = None
    if found.ended_at is not None:
        end = RunEnd(at=found.ended_at, **{name: getattr(found, name) for name in _END})
    pace = dict(found.pace or {})
    course = [tuple(point) for point in pace.pop("course", ())]
    return RunRecord(
        run=found.run,
        start=RunStart(at=found.started_at, **start),
        end=end,
        pace=RunPace(**pace) if pace else None,
        course=course,
        offsets=offsets_of(found),
    )


def offsets_of(run: Row[Any]) -> ClockOffsets:
    """How a run judged the service's clock, as far as differences are believed."""
    return ClockOffsets(least=run.least_clock_offset, most=run.most_clock_offset).bounded()
