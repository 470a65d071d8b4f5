"""What a sync found to be different, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

from enroll import clock
from enroll.commands import sync_guards
from enroll.commands.run_opening import ledger_path, results_path
from enroll.commands.sync_diff import find_difference, know_listed
from enroll.commands.sync_guards import Refusal, Seen, about_another
from enroll.errors import GuardError
from enroll.ledger import (
    Change,
    ChangeKind,
    Counted,
    Followed,
    Ledger,
    LibraryIdentity,
    iso_time,
    ledger_at,
)
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.manifest.results import csv_bytes, escape
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.manifest.scan import FolderGoneError, NoFolderError, photos_folder
from enroll.photos import PhotoStore, open_store
from enroll.settings import SyncSettings, host_of
from enroll.text.files import InUse, Output, check_output, new_file, try_folder
from enroll.text.logs import NAMELESS, mask
from enroll.text.wording import amount
from enroll.visible import path_text


def difference_lines(counted: Counted) -> Iterator[str]:
    """A difference, a line each."""
    yield f"  {counted.joiners:>9,}  joiners: rows of people who have no face in the library"
    yield f"  {counted.photos:>9,}  new photos of people who have one"
    yield f"  {counted.user_data:>9,}  rows with another user_data"
    if counted.held_back:
        yield (
            f"  {counted.held_back:>9,}  further ones, which cannot be added as their photo is not "
            "there"
        )
    yield f"  {counted.dropped:>9,}  faces of people in the manifest whose row is gone"
    if counted.superseded:
        yield f"  {counted.superseded:>9,}  faces that another command has superseded"
    yield f"  {counted.leaving:>9,}  leavers to be removed now"
    yield f"  {counted.waiting:>9,}  leavers whose grace is not over"
    if counted.newly_gone:
        yield f"  {counted.newly_gone:>9,}  of all leavers gone for the first time"
    if counted.returned:
        yield f"  {counted.returned:>9,}  leavers who are back"
    if counted.missing:
        yield f"  {counted.missing:>9,}  photos that are not there"


def strange_lines(found: Followed) -> Iterator[str]:
    """What somebody has to see of a sync although all was done."""
    if found.other_manifest:
        gone = found.counted.waiting + found.counted.leaving
        count = amount(gone, "leaver is", "leavers are")
        yield f"{count} probably none. {about_another(found.other_manifest)}"


def followed_lines(found: Followed) -> Iterator[str]:
    """What a summary says of a sync."""
    yield "How the manifest differed from the ledger"
    yield from difference_lines(found.counted)
    if found.replaced:
        yield f"{amount(found.replaced, 'face')} that others have taken the place of deleted."
    if found.people:
        faces = amount(found.faces, "face")
        yield f"{amount(found.people, 'leaver')} removed, with {faces}."
    if (left := found.counted.leaving - found.people) > 0:
        yield f"{amount(left, 'leaver')} not removed yet: the next sync goes on."
    if found.kept:
        yield (
            f"{amount(found.kept, 'person', 'people')} with a face that is to go: kept until all "
            "their rows are enrolled, or the next sync comes to it."
        )


CHANGE_COLUMNS = ("change", "user_id", "user_data", "image", "face_token", "since")
"""What a file of differences has."""


EXAMPLES = 3
"""Rows of a kind that a refusal names."""


def preview(settings: SyncSettings, *, show_user_ids: bool = False) -> Iterator[Followed]:
    """What a sync would do, told without a call; nothing is written but `differences`.

    Yields the difference, then raises GuardError where it would be refused.
    """
    check_differences(settings)
    manifest = open_manifest(
        settings.manifest,
        columns=settings.columns,
        encoding=settings.encoding,
        sheet=settings.sheet,
    )
    path = ledger_path(settings)
    with ExitStack() as stack:
        ledger = ledger_at(path).scratch(identity_before(settings))
        stack.callback(ledger.close)
        show = as_it_is if show_user_ids else mask
        judge = Judge(settings, manifest, ledger, show=show, keep=False)
        counted = judge.find()
        other = ledger.following.other_manifest(judge.path)
        yield Followed(counted=counted, other_manifest=other, notes=manifest.notes)
        judge.refuse()


def check_differences(settings: SyncSettings) -> None:
    """Raise UsageError for a file of differences that must not or cannot be written."""
    if settings.differences is None:
        return
    output = Output(path=settings.differences, option="--differences")
    files = dict(settings.in_use)
    files = {what: path for what, path in files.items() if path is not settings.differences}
    if (results := results_path(settings)) is not None:
        files["the results"] = results
    in_use = InUse(ledger=ledger_path(settings), manifests=[settings.manifest], files=files)
    check_output(output, in_use)
    try_folder(output)


class Judge:
    """Finds a difference, writes it down, and refuses it."""

    def __init__(
        self,
        settings: SyncSettings,
        manifest: Manifest,
        ledger: Ledger,
        *,
        show: Callable[[str], str],
        until: float = math.inf,
        keep: bool = True,
    ) -> None:
        """Without `keep` the ledger is only looked at."""
        self._settings = settings
        self._keep = keep
        self._until = until
        self._manifest = manifest
        self._ledger = ledger
        self._show = show
        self._store: PhotoStore | None = None
        self.now = clock.now_ms()
        self.counted = Counted()

    def find(self) -> Counted:
        """The difference. Raises GuardError where there is no folder of photos."""
        try:
            photos = photos_folder(self._settings.images, self._manifest, self._ledger)
        except (FolderGoneError, NoFolderError) as error:
            know_listed(
                self._manifest, self._ledger, open_store("."), self._settings, keep=self._keep
            )
            raise GuardError([f"Nothing was done. {error}"]) from error
        self._store = photos.store
        self.counted = find_difference(
            self._manifest,
            self._ledger,
            photos.store,
            self._settings,
            now=self.now,
            until=self._until,
            keep=self._keep,
        )
        if self._settings.differences is not None:
            changes = self._ledger.following.changes(images=photos.store.root)
            write_changes(changes, self._settings.differences)
        return self.counted

    def refuse(self) -> None:
        """Raise GuardError where the difference must not be carried out."""
        refusals = sync_guards.judge(self.counted, self._settings)
        if refusals:
            seen = Seen(
                signs=self._ledger.following.signs(manifest=self.path),
                folder_empty=self._store is not None and self._store.is_empty(),
            )
            lines, masked = (
                sync_guards.refusal_lines(
                    refusals,
                    self.counted,
                    replace(seen, examples=self._examples(refusals, show)),
                    manifest=path_text(self._manifest.path),
                )
                for show in (self._show, mask)
            )
            raise GuardError(lines, counts=self.counted.figures(), masked=masked)

    def _examples(
        self, refusals: list[Refusal], show: Callable[[str], str]
    ) -> dict[ChangeKind, list[str]]:
        def shown(change: Change) -> str:
            name = show(change.user_id)
            if change.line:
                return f"{name} (line {change.line})"
            return "" if name == NAMELESS else name

        kinds = {kind for refusal in refusals for kind in sync_guards.KINDS[refusal.guard]}
        return {
            kind: list(dict.fromkeys(filter(None, map(shown, islice(found, EXAMPLES)))))
            for kind in kinds
            for found in [self._ledger.following.changes([kind], images="")]
        }

    @property
    def path(self) -> str:
        """The manifest's, as the ledger has it."""
        return path_text(self._manifest.path.absolute())


def write_changes(changes: Iterator[Change], path: Path) -> None:
    """Write them as CSV, readable by its owner alone. Raises LocalError."""
    with new_file(path) as new:
        new.file.write(csv_bytes([CHANGE_COLUMNS]))
        while some := list(islice(changes, 1000)):
            new.file.write(
                csv_bytes(
                    (
                        one.kind.value,
                        escape(one.user_id, user_id_fault),
                        escape(one.user_data),
                        escape(one.image, image_fault),
                        one.face_token,
                        iso_time(one.since),
                    )
                    for one in some
                )
            )


def identity_before(settings: SyncSettings) -> LibraryIdentity:
    """What is known of the library before the service was asked."""
    return LibraryIdentity(host=host_of(settings.endpoint), group_id=settings.group_id, add_time="")


def as_it_is(user_id: str) -> str:
    """For who may see user ids."""
    return user_id
