"""A manifest held against a ledger as a whole, with photos read where their content must be known.

Nothing is called. What is kept, if anything is to be, is who is there again and what files hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from enroll import clock
from enroll.engine.threads import Threads
from enroll.errors import LocalError, TimeOverError
from enroll.ledger import Changes, Counted, Ledger, ReadFile, UnreadFile
from enroll.manifest.manifest import Manifest
from enroll.manifest.scan import CHUNK_ROWS, Scan
from enroll.model import FaceRecord, Photo, PhotoRecord, Unusable
from enroll.photos import PhotoStore, read_photo
from enroll.resources import share_out
from enroll.run.transitions import same_face
from enroll.settings import Precheck, Preparation, SyncSettings
from enroll.text.wording import duration

READ_AT_ONCE = 500
"""Photos that are read before their people's faces are asked for."""

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


def removal_cutoff(now: int, grace: float) -> int:
    """Who is gone since then or longer is to be removed (UNIX ms); `grace` is days.

    An hour is forgiven, or a twentieth of a short grace: a nightly job may begin a minute early.
    """
    wait = grace * DAY_MS
    return now - round(wait - min(HOUR_MS, wait / 20))


def find_difference(
    manifest: Manifest,
    ledger: Ledger,
    store: PhotoStore,
    settings: SyncSettings,
    *,
    now: int,
    until: float = math.inf,
    keep: bool,
) -> Counted:
    """Hold the whole manifest against the ledger, whose `following` knows the difference then.

    `until` (monotonic seconds) is when it has to end. Without `keep` nothing is written. Raises
    TimeOverError then, and LocalError where the photos cannot be reached.
    """
    following, blocked = ledger.following, ledger.block_list
    withheld, returned = know_listed(manifest, ledger, store, settings, keep=keep)
    following.know_photos(reread=settings.checksum)
    _read_photos(ledger, store, settings, until, keep=keep)
    cutoff = removal_cutoff(now, settings.grace)
    following.compare(now=now, cutoff=cutoff, withheld=blocked)
    counted = following.counted()
    return replace(counted, rows=counted.rows + withheld, returned=returned)


def know_listed(
    manifest: Manifest, ledger: Ledger, store: PhotoStore, settings: SyncSettings, *, keep: bool
) -> tuple[int, int]:
    """Take the whole manifest, and `keep` that those are there who stand in it, whatever becomes of
    the night. How many rows are of people who were forgotten, and how many people had gone and are
    back."""
    following, blocked = ledger.following, ledger.block_list
    scan = Scan(manifest.rows(CHUNK_ROWS), store, at_once=settings.readers)
    withheld = 0
    try:
        while (rows := scan.next_chunk()) is not None:
            free, forgotten = blocked.part(rows)  # who was forgotten is no joiner
            following.take(free)
            withheld += len(forgotten)
    finally:
        scan.close()
    returned = following.returned()
    if keep:
        following.unmark()
        ledger.commit()
    return withheld, returned


def _read_photos(
    ledger: Ledger, store: PhotoStore, settings: SyncSettings, until: float, *, keep: bool
) -> None:
    """Read what may be another photo than before, as a run would.

    With `keep` it stays known what the files are, whatever becomes of the night: neither the run
    nor the next night reads those again that are as they were, and nights that are too short get on
    all the same.
    """
    preparation = replace(settings.preparation, precheck=Precheck.OFF)
    read = partial(_read, store=store, preparation=preparation)
    after = ("", "")
    with Threads(share_out(calls=0, readers=settings.readers).readers) as readers:
        while files := ledger.following.unread(after=after, most=READ_AT_ONCE):
            faces = ledger.faces_of({file.user_id for file in files})
            told: list[ReadFile] = []
            records: list[PhotoRecord] = []
            photos = [readers.submit(read, file.path) for file in files]
            over = False
            for file, coming in zip(files, photos, strict=True):
                over = over or (bool(told) and clock.monotonic() >= until)
                if over and coming.cancel():
                    continue
                photo = coming.result()
                told.append(_told(file, photo, faces[file.user_id], store))
                if isinstance(photo, Photo):
                    record = PhotoRecord(path=file.path, times=photo.times, sha256=photo.sha256)
                    records.append(record)
            ledger.following.read(told)
            if keep:
                ledger.following.keep(told)
                ledger.record(Changes(photos=records))
                ledger.commit()
            if over or clock.monotonic() >= until:
                raise TimeOverError(
                    f"--max-duration ({duration(settings.max_duration or 0.0)}) was over while "
                    "photos were read that have changed or were touched; nothing was called. What "
                    "was read is kept: run the same command again to go on."
                )
            after = (files[-1].user_id, files[-1].path)


def _read(path: str, *, store: PhotoStore, preparation: Preparation) -> Photo | Unusable:
    photo = read_photo(path, store, preparation)
    return replace(photo, content=b"") if isinstance(photo, Photo) else photo


def _told(
    file: UnreadFile, photo: Photo | Unusable, faces: Sequence[FaceRecord], store: PhotoStore
) -> ReadFile:
    if isinstance(photo, Photo):
        face = same_face(faces, photo)
        return ReadFile(
            user_id=file.user_id,
            path=file.path,
            sha256=photo.sha256,
            face_id=None if face is None else face.face_id,
        )
    if photo.share_gone and not store.is_reachable(file.path):
        raise LocalError(
            f"The photos cannot be reached any more. {photo.fault.message} Mount the share again, "
            "then run the same command: nothing was done."
        )
    content = photo.content
    return ReadFile(
        user_id=file.user_id,
        path=file.path,
        sha256=None if content is None else content.sha256,
        unusable=True,
    )
