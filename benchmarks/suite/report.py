"""What `enroll report` takes for a large ledger, of which many rows need a person."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from enroll import __version__
from enroll.cli.rehearsal import PEOPLE, portrait
from enroll.clock import now_ms
from enroll.ledger import Changes, LibraryIdentity, RunEnd, RunStart, ledger_at
from enroll.model import Event, EventKind, FaceRecord, RowRecord, Status

from .archives import Archive, kept

_AT_ONCE = 20_000

_REASONS = (
    (Status.REJECTED, "NO_FACE_FOUND", ""),
    (Status.INVALID, "PHOTO_TRUNCATED", "The last 12,345 bytes of the file are missing."),
    (Status.REJECTED, "INVALID_IMAGE_SIZE", ""),
    (Status.INVALID, "USER_DATA_TOO_LONG", "130 characters; the service takes 128."),
    (Status.FAILED, "PHOTO_UNREADABLE", "Permission denied."),
    (Status.IN_DOUBT, "TIMEOUT", ""),
)
DEPARTMENTS = ("Sales", "Production", "Quality assurance", "Research", "Canteen", "Night shift")


def portraits(folder: Path, rows: int) -> Archive:
    """So many photos, which show the demo's people in turn."""
    return kept(Archive(folder / "portraits", rows, [portrait(n) for n in range(PEOPLE)], None))


def fabricate(folder: Path, archive: Archive, rows: int) -> Path:
    """A ledger of so many rows, of which as many need a person as the archive has photos, and the
    manifest of all of them; returns the ledger. Enrolled rows have no photo."""
    manifest = folder / "staff.csv"
    with manifest.open("w", encoding="utf-8") as file:
        file.write("user_id,user_data,image,department\n")
        for number in range(rows):
            line = *_line(archive, number, rows), DEPARTMENTS[number * 7 % len(DEPARTMENTS)]
            file.write(f"{','.join(line)}\n")
    path = folder / "ledger.sqlite"
    identity = LibraryIdentity(host="127.0.0.1", group_id="staff", add_time="2026-01-01T00:00:00Z")
    ledger = ledger_at(path).open(identity, began_empty=True)
    try:
        root = archive.folder.resolve()
        start = RunStart(
            at=now_ms(),
            host="bench",
            user="bench",
            pid=os.getpid(),
            version=__version__,
            manifest=str(manifest.resolve()),
            manifest_sha256=hashlib.sha256(manifest.read_bytes()).hexdigest(),
            options={},
            photo_root=str(root),
            photo_root_named=True,
        )
        run = ledger.start_run(start)
        changes = _changes(archive, rows, root=f"{root}", run=run)
        while some := list(islice(changes, _AT_ONCE)):
            ledger.record(
                Changes(
                    faces=[face for face, _, _ in some],
                    rows=[row for _, row, _ in some],
                    events=[event for _, _, event in some if event],
                )
            )
            ledger.commit()
        counts = {Status.ENROLLED.value: rows - archive.rows}
        calls = {"add": rows, "list": 1}
        ledger.end_run(
            run, RunEnd(at=now_ms(), exit_code=1, reason="", calls=calls, rows=counts, limit=16)
        )
    finally:
        ledger.close()
    return path


def _line(archive: Archive, number: int, rows: int) -> tuple[str, str, str]:
    every = rows // archive.rows
    image = f"p/{number // 1000:04}/{number:08}.jpg"
    if number % every == 0 and number // every < archive.rows:
        image = archive.image(number // every)
    return f"E{number * 7919 % 10_000_019:08}", f"Given{number % 977} Family{number % 7001}", image


def _changes(
    archive: Archive, rows: int, *, root: str, run: int
) -> Iterator[tuple[FaceRecord, RowRecord, Event | None]]:
    every = rows // archive.rows
    at = now_ms()
    for number in range(rows):
        user_id, user_data, image = _line(archive, number, rows)
        sha256 = hashlib.sha256(b"%d" % number).digest()
        bad = number % every == 0 and number // every < archive.rows
        status, code, message = (
            _REASONS[number // every % len(_REASONS)] if bad else (Status.ENROLLED, "", "")
        )
        face = FaceRecord(
            face_id=number + 1,
            user_id=user_id,
            sha256=sha256,
            status=status,
            face_token=None if bad else sha256.hex()[:32],
            attempts=1,
            first_attempt_at=at,
            code=code,
            message=message,
            request_id=sha256.hex()[32:],
            prepared="" if number % 3 else "turned upright, shrunk",
            user_data=user_data,
            enrolled_at=None if bad else at + number,
            run=run,
        )
        row = RowRecord(
            user_id=user_id,
            path=f"{root}/{image}",
            user_data=user_data,
            face_id=number + 1,
            sha256=sha256,
            run=run,
        )
        event = Event(at=at, kind=EventKind.ENROLLED, run=run, face_id=number + 1)
        yield face, row, None if bad else event
