"""Reading a SQLite ledger, also while a run in another process writes it."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    String,
    Table,
    and_,
    bindparam,
    func,
    select,
    union_all,
)

from enroll.errors import ExitCode
from enroll.expiry import ClockOffsets
from enroll.ledger import schema as s
from enroll.ledger.blocklist import BlockList
from enroll.ledger.forget import count_forgotten, forgotten_events, read_block_list
from enroll.ledger.records import (
    ErrorCount,
    LedgerStatus,
    LibraryIdentity,
    RunEnd,
    RunPace,
    RunRecord,
    RunStart,
    iso_time,
    shown_path,
)
from enroll.ledger.scan_cache import CachedScan
from enroll.model import Entry, Event, EventKind, RawAnswer, SendAs, Status
from enroll.visible import named_path, storable

PARAMETERS_AT_ONCE = 400
"""Pairs in one IN list. SQLite takes 32,766 parameters; long lists are slow to compile."""


class SqliteReader:
    """What can be asked of a SQLite ledger. One connection, one thread at a time."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()

    def identity(self) -> LibraryIdentity:
        columns = s.library.c
        # No other column: it is asked of a ledger that is not upgraded yet, too.
        found = self._one(select(columns.host, columns.group_id, columns.add_time))
        return LibraryIdentity(host=found.host, group_id=found.group_id, add_time=found.add_time)

    @property
    def photos_folder(self) -> str:
        return str(self._one(select(s.library.c.photos_folder)).photos_folder)

    @property
    def named_photos_folder(self) -> str:
        found = self._one(select(s.library))
        return str(found.photos_folder) if found.photos_folder_named else ""

    def photos_folder_of(self, manifest: str) -> tuple[str, bool] | None:
        columns = s.run.c
        query = (
            select(columns.photos_folder, columns.photos_folder_named)
            .where(columns.manifest == manifest, columns.photos_folder != "")
            .order_by(s.run.c.run.desc())
            .limit(1)
        )
        found = self._connection.execute(query).one_or_none()
        return None if found is None else (found.photos_folder, found.photos_folder_named)

    @property
    def block_list(self) -> BlockList:
        return read_block_list(self._connection)

    @property
    def ceiling(self) -> int | None:
        found = self._one(select(s.library.c.ceiling)).ceiling
        return None if found is None else int(found)

    def status(self, *, runs: int = 10) -> LedgerStatus:
        forgotten, unfinished = count_forgotten(self._connection)
        return LedgerStatus(
            forgotten=forgotten,
            unfinished=unfinished,
            identity=self.identity(),
            photos_folder=self.photos_folder,
            counts=self._counts(),
            ceiling=self.ceiling,
            errors=self._errors(),
            raw=[
                RawAnswer(**found._asdict())
                for found in self._connection.execute(
                    select(s.raw_answer).order_by(s.raw_answer.c.code, s.raw_answer.c.number)
                )
            ],
            runs=[
                _run_record(found)
                for found in self._connection.execute(
                    select(s.run).order_by(s.run.c.run.desc()).limit(runs)
                )
            ],
        )

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
        counts: Counter[Status] = Counter()
        for status, count in self._connection.execute(union_all(rest, faceless)):
            counts[Status(status)] += count
        faces = self._connection.scalar(select(func.count()).select_from(s.face)) or 0
        others = sum(count for _, count in self._connection.execute(rest))
        counts[Status.ENROLLED] = faces - others
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
        wanted = [status.value for status in statuses]
        photos_folder = self.photos_folder
        # One path for each face: the last by name, as a face may be pointed to by several rows.
        path = (
            select(func.max(s.row.c.path))
            .where(s.row.c.user_id == s.face.c.user_id, s.row.c.face_id == s.face.c.face_id)
            .scalar_subquery()
        )
        faces = select(s.face, path.label("path")).order_by(s.face.c.face_id)
        rows = (
            select(s.row).where(s.row.c.face_id.is_(None)).order_by(s.row.c.user_id, s.row.c.path)
        )
        if wanted:
            faces = faces.where(s.face.c.status.in_(wanted))
            rows = rows.where(s.row.c.status.in_(wanted))
        for found in self._connection.execute(faces.execution_options(yield_per=1000)):
            yield _face_entry(found, found.path or "", found.sha256, photos_folder)
        for found in self._connection.execute(rows.execution_options(yield_per=1000)):
            yield _row_entry(found, photos_folder)

    def entries_of(self, rows: Sequence[tuple[str, str]]) -> list[Entry | None]:
        photos_folder = self.photos_folder
        found = self._connection.execute(ENTRIES_OF, {"rows": json.dumps(rows)}).all()
        known = {(one.row_user_id, one.path): _joined_entry(one, photos_folder) for one in found}
        return [known.get(row) for row in rows]

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
        query = select(s.event, s.face.c.user_id).join(s.face).order_by(s.event.c.event)
        if user_id is not None:
            query = query.where(s.face.c.user_id == user_id)
        if since is not None:
            query = query.where(s.event.c.at >= since)
        if run is not None:
            query = query.where(s.event.c.run == run)
        for found in self._connection.execute(query.execution_options(yield_per=1000)):
            event = Event(
                at=found.at,
                kind=EventKind(found.kind),
                run=found.run,
                face_id=found.face_id,
                face_token=found.face_token,
                detail=found.detail,
            )
            yield event, found.user_id

    def has_run(self, began: int) -> bool:
        query = select(s.run.c.run).where(s.run.c.started_at == began).limit(1)
        return self._connection.scalar(query) is not None

    def unfinished(self, command: str) -> bool:
        query = (
            select(s.run.c.exit_code)
            .where(s.run.c.command == command)
            .order_by(s.run.c.run.desc())
            .limit(1)
        )
        last = self._connection.execute(query).one_or_none()
        return last is not None and last.exit_code not in (
            ExitCode.DONE,
            ExitCode.SOME_ROWS_FAILED,
        )

    def manifests(self) -> list[Path]:
        found = self._connection.execute(select(s.run.c.manifest).distinct())
        return [named_path(name) for (name,) in found if name]

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

    def _one(self, query: Select[Any]) -> Row[Any]:
        return self._connection.execute(query).one()


def _entries_of() -> Select[Any]:
    """Rows by their (user_id, path), given as JSON in `rows`, with their faces.

    Not with an IN of pairs: SQLite would go through the whole table for them.
    """
    wanted = func.json_each(bindparam("rows", type_=String)).table_valued("value", name="wanted")
    user_id, path = (func.json_extract(wanted.c.value, f"$[{place}]") for place in (0, 1))
    return (
        select(
            s.row.c.path,
            s.row.c.sha256.label("row_sha256"),
            s.row.c.status.label("row_status"),
            s.row.c.code.label("row_code"),
            s.row.c.message.label("row_message"),
            s.row.c.run.label("row_run"),
            s.row.c.user_id.label("row_user_id"),
            s.row.c.user_data.label("row_user_data"),
            s.face,
        )
        .select_from(wanted)
        .join(s.row, and_(s.row.c.user_id == user_id, s.row.c.path == path))
        .outerjoin(s.face, s.face.c.face_id == s.row.c.face_id)
    )


ENTRIES_OF = _entries_of()


def _face_entry(found: Row[Any], path: str, sha256: bytes | None, photos_folder: str) -> Entry:
    return Entry(
        user_id=found.user_id,
        user_data=found.user_data,
        image=shown_path(path, photos_folder),
        status=Status(found.status),
        face_token=found.face_token or "",
        error=found.code,
        message=found.message,
        attempts=found.attempts,
        request_id=found.request_id,
        sha256=sha256.hex() if sha256 else "",
        prepared=found.prepared,
        enrolled_at=iso_time(found.enrolled_at),
        run=found.run,
        time_used=found.time_used,
    )


def _row_entry(found: Row[Any], photos_folder: str) -> Entry:
    return Entry(
        user_id=found.user_id,
        user_data=found.user_data,
        image=shown_path(found.path, photos_folder),
        status=Status(found.status),
        error=found.code,
        message=found.message,
        sha256=found.sha256.hex() if found.sha256 else "",
        run=found.run,
    )


def _joined_entry(found: Row[Any], photos_folder: str) -> Entry:
    if found.face_id is not None:
        entry = _face_entry(found, found.path, found.row_sha256, photos_folder)
        if found.row_code:  # what keeps the row from another face than the one that it has
            entry = replace(entry, error=found.row_code, message=found.row_message)
        return entry
    return Entry(
        user_id=found.row_user_id,
        user_data=found.row_user_data,
        image=shown_path(found.path, photos_folder),
        status=Status(found.row_status),
        error=found.row_code,
        message=found.row_message,
        sha256=found.row_sha256.hex() if found.row_sha256 else "",
        run=found.row_run,
    )


def _run_record(found: Row[Any]) -> RunRecord:
    start = RunStart(
        at=found.started_at,
        host=found.host,
        user=found.user,
        pid=found.pid,
        version=found.version,
        manifest=found.manifest,
        manifest_sha256=found.manifest_sha256,
        options=found.options,
        command=found.command,
        endpoint=found.endpoint,
        timeout=found.timeout,
        send_as=SendAs(found.send_as),
        settle_after=found.settle_after,
        scan_mark=found.scan_mark,
        photos_folder=found.photos_folder,
        photos_folder_named=found.photos_folder_named,
        files=found.files,
    )
    end = None
    if found.ended_at is not None:
        end = RunEnd(
            at=found.ended_at,
            exit_code=found.exit_code,
            reason=found.reason,
            calls=found.calls,
            rows=found.rows,
            limit=found.limit,
        )
    pace = None if found.pace is None else RunPace(**found.pace)
    return RunRecord(
        run=found.run,
        start=start,
        end=end,
        pace=pace,
        offsets=offsets_of(found),
    )


def offsets_of(run: Row[Any]) -> ClockOffsets:
    """How a run judged the service's clock, as far as differences are believed."""
    return ClockOffsets(least=run.least_clock_offset, most=run.clock_offset).bounded()


def run_columns(start: RunStart) -> dict[str, Any]:
    """What a run begins with, by the columns of its table."""
    return {
        "started_at": start.at,
        "host": storable(start.host),
        "user": storable(start.user),
        "pid": start.pid,
        "version": start.version,
        "manifest": start.manifest,
        "manifest_sha256": start.manifest_sha256,
        "options": dict(start.options),
        "command": start.command,
        "endpoint": start.endpoint,
        "timeout": start.timeout,
        "send_as": start.send_as.value,
        "settle_after": start.settle_after,
        "scan_mark": start.scan_mark,
        "photos_folder": start.photos_folder,
        "photos_folder_named": start.photos_folder_named,
        "files": dict(start.files),
    }
