"""Ledgers in which rows are enrolled that nobody has sent, written as a run writes them."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

from enroll import __version__
from enroll.ledger import Changes, Ledger, LibraryIdentity, RunEnd, RunStart, ledger_at
from enroll.model import Event, EventKind, FaceRecord, FileTimes, PhotoRecord, RowRecord, Status
from enroll.photos import PhotoStore, open_store

from .archives import Archive
from .nginx import ADD_TIME, GROUP_ID

_AT_ONCE = 20_000


def fabricate(
    path: Path,
    archive: Archive,
    rows: int,
    *,
    enrolled: float = 1.0,
    store: PhotoStore | None = None,
) -> None:
    """A ledger in which this share of the archive's first `rows` is enrolled, with the photos' real
    times in their folder, or in `store`. The rest is not in it: a run that scans the manifest
    records it as pending.
    """
    store = store or open_store(archive.folder.resolve())
    identity = LibraryIdentity(host="127.0.0.1", group_id=GROUP_ID, add_time=ADD_TIME)
    ledger = ledger_at(path).open(identity, began_empty=True)
    try:
        start = replace(run_start(archive, archive.manifest(rows)), photo_root=store.root)
        run = ledger.start_run(start)
        count = round(rows * enrolled)
        lines = enumerate(archive.lines(count))
        while some := list(islice(lines, _AT_ONCE)):
            ledger.record(changes_of(ledger, archive, some, run=run, store=store))
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


def changes_of(
    ledger: Ledger,
    archive: Archive,
    lines: list[tuple[int, tuple[str, str, str]]],
    *,
    run: int,
    store: PhotoStore,
) -> Changes:
    """All that a run has recorded in the end of rows that it has enrolled."""
    paths = [store.locate(image) for _, (_, _, image) in lines]
    times = store.stat(paths)
    faces, rows, photos, events = [], [], [], []
    for place, (number, (user_id, user_data, _)) in enumerate(lines):
        photo, seen = paths[place], FileTimes(*times[3 * place : 3 * place + 3])
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
        photos.append(PhotoRecord(path=photo, times=seen, sha256=sha256))
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
