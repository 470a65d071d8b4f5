"""Compares a whole manifest with its ledger before any call, and refuses a difference that is too
large.

Photos are read if their content must be known. All that is kept is who is back and what files
contain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from enroll import clock
from enroll.commands import sync_guards
from enroll.commands.run_input import (
    RunInput,
    check_beside_results,
    ledger_path,
    named_library,
    prepare,
    scan_record,
)
from enroll.commands.sync_guards import Refusal, Seen
from enroll.commands.sync_rows import TakenRows, take_all, take_few
from enroll.errors import GuardError, LocalError, TimeOverError
from enroll.ledger import (
    CachedScan,
    Changes,
    Ledger,
    ReadFile,
    RowDiff,
    RowDiffKind,
    SyncResult,
    UnreadFile,
    iso_time,
    ledger_at,
)
from enroll.manifest.carry_over import carry_over
from enroll.manifest.manifest import Manifest
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.manifest.scan import FolderGoneError, NoFolderError, Scanned, choose_photo_store
from enroll.manifest.suspects import NewPeople, Suspects, suspect_notes
from enroll.model import FaceRecord, Photo, PhotoRecord, Unusable, same_face
from enroll.photos import PhotoStore, open_store, read_photo, reconnect
from enroll.resources import share_out
from enroll.settings import Precheck, Preparation, SyncSettings
from enroll.text.files import Output
from enroll.text.logs import NAMELESS, mask
from enroll.text.tables import free_text, new_table
from enroll.text.wording import duration
from enroll.threads import Threads
from enroll.visible import path_text

EXAMPLES = 3
"""Rows of each kind that a refusal names."""

READ_AT_ONCE = 500
"""Photos that are read per query of their people's faces."""

ROWS_AT_ONCE = 1000
"""Differences that are written at a time."""

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestDifference:
    """How a manifest differs from a ledger, whose `diff` has the single rows and faces.

    `result` has the numbers, and no deletions yet; `now` is when they were found (UNIX ms),
    `cutoff` that of `removal_cutoff`, and `store` has the photos. `quiet` are the parts of the scan
    cache of which no row is to be added; None if everybody was compared. `suspects` are known if
    the scan was carried over from another manifest.
    """

    manifest: Manifest
    result: SyncResult
    now: int
    cutoff: int
    store: PhotoStore
    quiet: Mapping[int, Scanned] | None
    suspects: Suspects | None


def preview(settings: SyncSettings, *, show_user_ids: bool = False) -> Iterator[SyncResult]:
    """What a sync would do, without a call; nothing but `differences` is written.

    Yields the difference, then raises GuardError if it would be refused. Raises TimeOverError.
    """
    check_differences(settings)
    given = prepare(replace(settings, write_results=False))
    with closing(ledger_at(given.ledger).scratch(named_library(settings))) as ledger:
        found = compare(settings, given, ledger, keep=False)
        yield replace(found.result, notes=[*given.manifest.notes, *found.result.notes])
        refuse_too_much(found, settings, ledger, show_user_ids=show_user_ids)


def check_differences(settings: SyncSettings) -> None:
    """Raise UsageError for a file of differences that must not or cannot be written."""
    if settings.differences is None:
        return
    output = Output(path=settings.differences, option="--differences")
    check_beside_results(output, settings, ledger=ledger_path(settings))


def compare(
    settings: SyncSettings, given: RunInput, ledger: Ledger, *, keep: bool = True
) -> ManifestDifference:
    """Compare the whole manifest with the ledger, and write the differences if that is wanted.

    Without `keep`, nothing of it stays in the ledger. Raises GuardError if the photos' folder is
    missing, TimeOverError once `given.until` has passed, and LocalError if the photos cannot be
    reached.
    """
    now, manifest, diff = clock.now_ms(), given.manifest, ledger.diff
    try:
        photos = choose_photo_store(settings.images, manifest, ledger)
        manifest, store = photos.manifest, photos.store
    except (FolderGoneError, NoFolderError) as error:
        take_all(manifest, ledger, open_store("."), readers=settings.reading)
        _count_returned(ledger, keep=keep)
        raise GuardError([f"Nothing was done. {error}"]) from error
    scan = scan_record(settings, manifest, store, ledger.block_list)
    carried = carry_over(ledger, manifest, store, record=scan) if keep else None
    taken = _take_rows(settings, manifest, ledger, store, scan)
    returned = _count_returned(ledger, keep=keep)
    diff.match_photos(reread=settings.checksum)
    _read_photos(settings, ledger, store, given.until, keep=keep)
    cutoff = removal_cutoff(now, settings.grace)
    diff.compare(now=now, cutoff=cutoff, withheld=ledger.block_list, people=taken.people)
    counted = diff.counts()
    if settings.differences is not None:
        _write_row_diffs(diff.row_diffs(photo_root=store.root), settings.differences)
    suspects = carried or taken.suspects
    found = ManifestDifference(
        manifest=manifest,
        result=SyncResult(
            counted=replace(counted, rows=taken.lines, returned=returned),
            notes=list(suspect_notes(suspects if keep else _beside(suspects, ledger))),
        ),
        now=now,
        cutoff=cutoff,
        store=store,
        quiet=None if taken.people is None else taken.quiet_without(diff.changed_people()),
        suspects=carried,
    )
    return _with_other_manifest(found, settings, ledger)


def _beside(suspects: Suspects, ledger: Ledger) -> Suspects:
    """These, and joiners whose ids resemble some in the ledger; a run reports those itself."""
    new_people = NewPeople(ledger)
    joiners = ledger.diff.row_diffs([RowDiffKind.JOINER], photo_root="")
    while some := list(islice(joiners, ROWS_AT_ONCE)):
        new_people.look((one.line, one.user_id) for one in some)
    return new_people.beside(suspects)


def _take_rows(
    settings: SyncSettings, manifest: Manifest, ledger: Ledger, store: PhotoStore, scan: CachedScan
) -> TakenRows:
    """Take the rows to compare: few, if the scan cache has this `scan`."""
    cached, few = ledger.last_scan(), None
    as_it_was = not settings.checksum and settings.sample is None
    if cached is not None and cached.fingerprint == scan.fingerprint and as_it_was:
        few = take_few(ledger, cached, store, readers=settings.reading)
    return few or take_all(manifest, ledger, store, readers=settings.reading)


def _count_returned(ledger: Ledger, *, keep: bool) -> int:
    """How many people were absent and are back; with `keep` the ledger learns of these whatever the
    sync comes to."""
    returned = ledger.diff.count_returned()
    if keep:
        ledger.diff.forget_returned()
        ledger.commit()
    return returned


def _with_other_manifest(
    found: ManifestDifference, settings: SyncSettings, ledger: Ledger
) -> ManifestDifference:
    path = _path_of(found.manifest)
    if not ledger.diff.suspected_manifest(path):
        return found
    found = _of_everybody(found, settings, ledger)
    other = ledger.diff.other_manifest(path)
    return replace(found, result=replace(found.result, other_manifest=other))


def _of_everybody(
    found: ManifestDifference, settings: SyncSettings, ledger: Ledger
) -> ManifestDifference:
    """The same difference, after everybody was compared: its reasons are sought among all rows."""
    if found.quiet is None:
        return found
    diff, store = ledger.diff, found.store
    take_all(found.manifest, ledger, store, readers=settings.reading)
    diff.match_photos(reread=False)
    _read_photos(settings, ledger, store, math.inf, keep=False)
    diff.compare(now=found.now, cutoff=found.cutoff, withheld=ledger.block_list)
    return replace(found, quiet=None)


DIFF_COLUMNS = ("change", "user_id", "user_data", "image", "face_token", "since")
"""The columns of the --differences file."""


_DIFF_RULES = {"user_id": user_id_fault, "user_data": free_text, "image": image_fault}


def _write_row_diffs(diffs: Iterator[RowDiff], path: Path) -> None:
    """Write the differences to a table. Raises LocalError."""
    with new_table(path, DIFF_COLUMNS, rules=_DIFF_RULES) as table:
        table.write(
            (
                one.kind.value,
                one.user_id,
                one.user_data,
                one.image,
                one.face_token,
                iso_time(one.since),
            )
            for one in diffs
        )


def refuse_too_much(
    found: ManifestDifference, settings: SyncSettings, ledger: Ledger, *, show_user_ids: bool
) -> None:
    """Raise GuardError if the difference must not be carried out."""
    counted, manifest = found.result.counted, found.manifest
    refusals = sync_guards.refusals(counted, settings)
    if not refusals:
        return
    _of_everybody(found, settings, ledger)
    signs = ledger.diff.diagnose(manifest=_path_of(manifest))
    lines, masked = (
        sync_guards.refusal_lines(
            refusals,
            counted,
            Seen(
                signs=signs,
                folder_empty=found.store.is_empty(),
                examples=_examples(ledger, refusals, shown=shown),
            ),
            manifest=path_text(manifest.path),
        )
        for shown in (show_user_ids, False)
    )
    raise GuardError(lines, counts=counted.figures(), masked=masked)


def _examples(
    ledger: Ledger, refusals: Sequence[Refusal], *, shown: bool
) -> dict[RowDiffKind, list[str]]:
    """Some user ids of each kind that was refused, with their lines; masked unless `shown`."""
    examples: dict[RowDiffKind, list[str]] = {}
    for kind in {kind for refusal in refusals for kind in sync_guards.KINDS[refusal.guard]}:
        names = dict[str, None]()
        for one in islice(ledger.diff.row_diffs([kind], photo_root=""), EXAMPLES):
            name = one.user_id if shown else mask(one.user_id)
            if one.line:
                names[f"{name} (line {one.line})"] = None
            elif name != NAMELESS:
                names[name] = None
        examples[kind] = list(names)
    return examples


def _path_of(manifest: Manifest) -> str:
    """The manifest's path, as the ledger has it."""
    return path_text(manifest.path.absolute())


def removal_cutoff(now: int, grace: float) -> int:
    """People who have been absent since then or longer are to be removed (UNIX ms); `grace` is
    days.

    Up to an hour less is accepted, or a twentieth of a short grace: a nightly job may start a
    minute early.
    """
    wait = grace * DAY_MS
    return now - round(wait - min(HOUR_MS, wait / 20))


def _read_photos(
    settings: SyncSettings, ledger: Ledger, store: PhotoStore, until: float, *, keep: bool
) -> None:
    """Read photos that may have changed, as a run would.

    With `keep`, the ledger learns what the files contain whatever the sync comes to: neither the
    run nor the next sync reads unchanged ones again, so syncs with too little time still make
    progress.
    """
    preparation = replace(settings.preparation, precheck=Precheck.OFF)
    read = partial(_read, store=store, preparation=preparation)
    after = ("", "")
    with Threads(share_out(calls=0, readers=settings.reading).readers) as readers:
        while files := ledger.diff.unread(after=after, most=READ_AT_ONCE):
            faces = ledger.faces_of({file.user_id for file in files})
            done: list[ReadFile] = []
            records: list[PhotoRecord] = []
            photos = [readers.submit(read, file.path) for file in files]
            over = False
            for file, coming in zip(files, photos, strict=True):
                over = over or (bool(done) and clock.monotonic() >= until)
                if over and coming.cancel():
                    continue
                photo = coming.result()
                done.append(_read_file(file, photo, faces[file.user_id], store))
                if isinstance(photo, Photo):
                    record = PhotoRecord(path=file.path, times=photo.times, sha256=photo.sha256)
                    records.append(record)
            ledger.diff.store_read(done)
            if keep:
                ledger.diff.store_same_faces(done)
                ledger.record(Changes(photos=records))
                ledger.commit()
            if over or clock.monotonic() >= until:
                raise TimeOverError(
                    f"--max-duration ({duration(settings.max_duration or 0.0)}) was over while "
                    "photos that may have changed were being read; no call was made. "
                    f"{_KEPT[keep]}"
                )
            after = (files[-1].user_id, files[-1].path)


_KEPT = {
    True: "What was read is kept: run the same command again to continue.",
    False: "A dry run keeps nothing: give it more time.",
}
"""What to do after too little time, by whether what was read is kept."""


def _read(path: str, *, store: PhotoStore, preparation: Preparation) -> Photo | Unusable:
    photo = read_photo(path, store, preparation)
    return replace(photo, content=b"") if isinstance(photo, Photo) else photo


def _read_file(
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
            f"The photos can no longer be reached. {photo.fault.message} Nothing was done. "
            f"{reconnect(file.path)}, then run the same command."
        )
    content = photo.content
    return ReadFile(
        user_id=file.user_id,
        path=file.path,
        sha256=None if content is None else content.sha256,
        unusable=True,
    )
