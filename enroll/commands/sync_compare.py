"""Compares a manifest with its ledger as a whole, before any call.

Photos are read if their content must be known. If anything is kept, it is who is back and what
files contain. A difference that is too large is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from enroll import clock
from enroll.commands import sync_guards
from enroll.commands.run_input import check_beside_results, ledger_path, named_library
from enroll.commands.sync_guards import Refusal, Seen
from enroll.commands.sync_report import write_row_diffs
from enroll.errors import GuardError, LocalError, TimeOverError
from enroll.ledger import (
    Changes,
    DiffCounts,
    Ledger,
    ReadFile,
    RowDiff,
    RowDiffKind,
    SyncResult,
    UnreadFile,
    ledger_at,
)
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.manifest.scan import (
    CHUNK_ROWS,
    FolderGoneError,
    NoFolderError,
    Scan,
    choose_photo_store,
)
from enroll.model import FaceRecord, Photo, PhotoRecord, Unusable, same_face
from enroll.photos import PhotoStore, open_store, read_photo
from enroll.resources import share_out
from enroll.settings import Precheck, Preparation, SyncSettings
from enroll.text.files import Output
from enroll.text.logs import NAMELESS, mask
from enroll.text.wording import duration
from enroll.threads import Threads
from enroll.visible import path_text

EXAMPLES = 3
"""Rows of each kind that a refusal names."""

READ_AT_ONCE = 500
"""Photos that are read per query of their people's faces."""

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestDifference:
    """How a manifest differs from a ledger, whose `diff` has the single rows and faces.

    `cutoff` is as `removal_cutoff` says, `store` where the photos are; `other_manifest` is the
    one that hardly anybody but the leavers was enrolled from, empty where there is none such.
    """

    counted: DiffCounts
    cutoff: int
    store: PhotoStore
    other_manifest: str


def preview(settings: SyncSettings, *, show_user_ids: bool = False) -> Iterator[SyncResult]:
    """What a sync would do, without a call; nothing but `differences` is written.

    Yields the difference, then raises GuardError if it would be refused.
    """
    check_differences(settings)
    manifest = open_manifest(
        settings.manifest,
        columns=settings.columns,
        encoding=settings.encoding,
        sheet=settings.sheet,
    )
    with closing(ledger_at(ledger_path(settings)).scratch(named_library(settings))) as ledger:
        found = compare(settings, manifest, ledger, keep=False)
        yield SyncResult(
            counted=found.counted, other_manifest=found.other_manifest, notes=manifest.notes
        )
        show = as_it_is if show_user_ids else mask
        refuse_too_much(found, settings, manifest, ledger, show=show)


def check_differences(settings: SyncSettings) -> None:
    """Raise UsageError for a file of differences that must not or cannot be written."""
    if settings.differences is None:
        return
    output = Output(path=settings.differences, option="--differences")
    check_beside_results(output, settings, ledger=ledger_path(settings))


def compare(
    settings: SyncSettings,
    manifest: Manifest,
    ledger: Ledger,
    *,
    until: float = math.inf,
    keep: bool = True,
) -> ManifestDifference:
    """Compare the whole manifest with the ledger, and write the differences where that is wanted.

    It has to end by `until` (monotonic seconds). Without `keep`, nothing of it stays in the ledger.
    Raises GuardError if the photos' folder is missing, TimeOverError, and LocalError if the photos
    cannot be reached.
    """
    now = clock.now_ms()
    try:
        store = choose_photo_store(settings.images, manifest, ledger).store
    except (FolderGoneError, NoFolderError) as error:
        _take_rows(settings, manifest, ledger, open_store("."), keep=keep)
        raise GuardError([f"Nothing was done. {error}"]) from error
    diff = ledger.diff
    withheld, returned = _take_rows(settings, manifest, ledger, store, keep=keep)
    diff.match_photos(reread=settings.checksum)
    _read_photos(settings, ledger, store, until, keep=keep)
    cutoff = removal_cutoff(now, settings.grace)
    diff.compare(now=now, cutoff=cutoff, withheld=ledger.block_list)
    counted = diff.counts()
    if settings.differences is not None:
        write_row_diffs(diff.row_diffs(photos_folder=store.root), settings.differences)
    return ManifestDifference(
        counted=replace(counted, rows=counted.rows + withheld, returned=returned),
        cutoff=cutoff,
        store=store,
        other_manifest=diff.other_manifest(_path_of(manifest)),
    )


def refuse_too_much(
    found: ManifestDifference,
    settings: SyncSettings,
    manifest: Manifest,
    ledger: Ledger,
    *,
    show: Callable[[str], str],
) -> None:
    """Raise GuardError if the difference must not be carried out; `show` turns a user id into what
    its message may show."""
    refusals = sync_guards.refusals(found.counted, settings)
    if not refusals:
        return
    seen = Seen(
        signs=ledger.diff.diagnose(manifest=_path_of(manifest)),
        folder_empty=found.store.is_empty(),
    )
    lines, masked = (
        sync_guards.refusal_lines(
            refusals,
            found.counted,
            replace(seen, examples=_examples(ledger, refusals, shown)),
            manifest=path_text(manifest.path),
        )
        for shown in (show, mask)
    )
    raise GuardError(lines, counts=found.counted.figures(), masked=masked)


def _examples(
    ledger: Ledger, refusals: Sequence[Refusal], show: Callable[[str], str]
) -> dict[RowDiffKind, list[str]]:
    def shown(change: RowDiff) -> str:
        name = show(change.user_id)
        if change.line:
            return f"{name} (line {change.line})"
        return "" if name == NAMELESS else name

    kinds = {kind for refusal in refusals for kind in sync_guards.KINDS[refusal.guard]}
    return {
        kind: list(dict.fromkeys(filter(None, map(shown, islice(found, EXAMPLES)))))
        for kind in kinds
        for found in [ledger.diff.row_diffs([kind], photos_folder="")]
    }


def _path_of(manifest: Manifest) -> str:
    """The manifest's path, as the ledger has it."""
    return path_text(manifest.path.absolute())


def as_it_is(user_id: str) -> str:
    """Shows user ids to those who may see them."""
    return user_id


def removal_cutoff(now: int, grace: float) -> int:
    """People gone since then or longer are to be removed (UNIX ms); `grace` is days.

    Up to an hour less is accepted, or a twentieth of a short grace: a nightly job may start a
    minute early.
    """
    wait = grace * DAY_MS
    return now - round(wait - min(HOUR_MS, wait / 20))


def _take_rows(
    settings: SyncSettings, manifest: Manifest, ledger: Ledger, store: PhotoStore, *, keep: bool
) -> tuple[int, int]:
    """Take the whole manifest, and `keep` that those are there who are in it, whatever becomes of
    the sync. How many rows are of people who were forgotten, and how many people had gone and are
    back."""
    diff, blocked = ledger.diff, ledger.block_list
    scan = Scan(manifest.rows(CHUNK_ROWS), store, concurrency=settings.readers)
    withheld = 0
    try:
        while (rows := scan.next_chunk()) is not None:
            free, forgotten = blocked.part(rows)  # who was forgotten is no joiner
            diff.add_rows(free)
            withheld += len(forgotten)
    finally:
        scan.close()
    returned = diff.count_returned()
    if keep:
        diff.forget_returned()
        ledger.commit()
    return withheld, returned


def _read_photos(
    settings: SyncSettings, ledger: Ledger, store: PhotoStore, until: float, *, keep: bool
) -> None:
    """Read photos that may have changed, as a run would.

    With `keep`, what the files contain stays known whatever becomes of the sync: neither the run
    nor the next sync reads unchanged ones again, so syncs with too little time still make progress.
    """
    preparation = replace(settings.preparation, precheck=Precheck.OFF)
    read = partial(_read, store=store, preparation=preparation)
    after = ("", "")
    with Threads(share_out(calls=0, readers=settings.readers).readers) as readers:
        while files := ledger.diff.unread(after=after, most=READ_AT_ONCE):
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
            ledger.diff.store_read(told)
            if keep:
                ledger.diff.store_same_faces(told)
                ledger.record(Changes(photos=records))
                ledger.commit()
            if over or clock.monotonic() >= until:
                raise TimeOverError(
                    f"--max-duration ({duration(settings.max_duration or 0.0)}) was over while "
                    "changed or touched photos were being read; no call was made. What was read "
                    "is kept: run the same command again to continue."
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
