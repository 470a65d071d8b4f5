"""Ledgers in which rows are enrolled that nobody has sent, written as a run writes them."""

from __future__ import annotations

import hashlib
import os
import time
from itertools import islice
from pathlib import Path

from enroll import __version__
from enroll.ledger import Changes, Ledger, LibraryIdentity, RunEnd, RunStart, ledger_at
from enroll.model import Event, EventKind, FaceRecord, FileTimes, PhotoRecord, RowRecord, Status

from .archives import Archive
from .nginx import ADD_TIME, GROUP_ID

_AT_ONCE = 20_000


def fabricate(path: Path, archive: Archive, rows: int, *, enrolled: float = 1.0) -> None:
    """A ledger in which this share of the archive's first `rows` is enrolled, with the photos' real
    times. The rest is not in it: a run that scans the manifest records it as pending.
    """
    identity = LibraryIdentity(host="127.0.0.1", group_id=GROUP_ID, add_time=ADD_TIME)
    ledger = ledger_at(path).open(identity, began_empty=True)
    try:
        run = ledger.start_run(run_start(archive, archive.manifest(rows)))
        count = round(rows * enrolled)
        lines = enumerate(archive.lines(count))
        while some := list(islice(lines, _AT_ONCE)):
            ledger.record(_changes(ledger, archive, some, run=run))
            ledger.commit()
        end = RunEnd(
            at=_now_ms(),
            exit_code=0,
            reason="",
            calls={"add": count},
            rows={Status.ENROLLED.value: count},
            limit=16,
        )
        ledger.end_run(run, end)
    finally:
        ledger.close()


def _changes(
    ledger: Ledger,
    archive: Archive,
    lines: list[tuple[int, tuple[str, str, str]]],
    *,
    run: int,
) -> Changes:
    folder = archive.folder.resolve()
    faces, rows, photos, events = [], [], [], []
    for number, (user_id, user_data, image) in lines:
        photo = f"{folder}/{image}"
        sha256 = hashlib.sha256(archive.content(number)).digest()
        face = _face(ledger.new_face_id(), user_id, user_data, sha256=sha256, run=run)
        faces.append(face)
        rows.append(
            RowRecord(
                user_id=user_id,
                path=photo,
                user_data=user_data,
                face_id=face.face_id,
                sha256=sha256,
                run=run,
            )
        )
        photos.append(PhotoRecord(path=photo, times=_times(photo), sha256=sha256))
        events.append(
            Event(
                at=_now_ms(),
                kind=EventKind.ENROLLED,
                run=run,
                face_id=face.face_id,
                face_token=face.face_token,
            )
        )
    return Changes(faces=faces, rows=rows, photos=photos, events=events)


def _face(face_id: int, user_id: str, user_data: str, *, sha256: bytes, run: int) -> FaceRecord:
    return FaceRecord(
        face_id=face_id,
        user_id=user_id,
        sha256=sha256,
        status=Status.ENROLLED,
        face_token=sha256.hex()[:32],
        attempts=1,
        first_attempt_at=_now_ms(),
        request_id=sha256.hex()[32:],
        user_data=user_data,
        enrolled_at=_now_ms(),
        run=run,
    )


def _times(photo: str) -> FileTimes:
    seen = os.lstat(photo)
    return FileTimes(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def run_start(archive: Archive, manifest: Path) -> RunStart:
    """The start of a run of a manifest with the archive's photos."""
    return RunStart(
        at=_now_ms(),
        host="bench",
        user="bench",
        pid=os.getpid(),
        version=__version__,
        manifest=str(manifest.resolve()),
        manifest_sha256=hashlib.sha256(manifest.read_bytes()).hexdigest(),
        options={},
        photo_root=str(archive.folder.resolve()),
    )


def _now_ms() -> int:
    return int(time.time() * 1000)
