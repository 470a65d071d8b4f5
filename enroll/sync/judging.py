"""The difference of a sync found, written down, and refused: before any call, or in a dry run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

from enroll.beginning import ledger_path, results_path
from enroll.clock import now_ms
from enroll.errors import GuardError
from enroll.ledger import Change, ChangeKind, Counted, Followed, Ledger, LibraryIdentity
from enroll.ledger.files import ledger_exists, scratch_ledger
from enroll.ledger.reading import iso_time
from enroll.manifest.escape import escape
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.manifest.photofolder import FolderGoneError, NoFolderError, photos_folder
from enroll.manifest.results import csv_bytes
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.resources import shortage_in
from enroll.settings import SyncSettings, host_of
from enroll.sync import guards
from enroll.sync.difference import find_difference, know_listed
from enroll.sync.guards import Refusal, Seen
from enroll.text.logs import NAMELESS, mask
from enroll.text.newfile import new_file
from enroll.text.outputs import InUse, Output, check_output, try_folder
from enroll.visible import path_text

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
        ledger = scratch_ledger(path if ledger_exists(path) else None, identity_before(settings))
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
        self._images = Path()
        self.now = now_ms()
        self.counted = Counted()

    def find(self) -> Counted:
        """The difference. Raises GuardError where there is no folder of photos."""
        try:
            photos = photos_folder(self._settings.images, self._manifest, self._ledger)
        except (FolderGoneError, NoFolderError) as error:
            know_listed(self._manifest, self._ledger, Path(), self._settings, keep=self._keep)
            raise GuardError([f"Nothing was done. {error}"]) from error
        self._images = photos.path
        self.counted = find_difference(
            self._manifest,
            self._ledger,
            photos.path,
            self._settings,
            now=self.now,
            until=self._until,
            keep=self._keep,
        )
        if self._settings.differences is not None:
            changes = self._ledger.following.changes(images=str(photos.path))
            write_changes(changes, self._settings.differences)
        return self.counted

    def refuse(self) -> None:
        """Raise GuardError where the difference must not be carried out."""
        refusals = guards.judge(self.counted, self._settings)
        if refusals:
            seen = Seen(
                signs=self._ledger.following.signs(manifest=self.path),
                folder_empty=_is_empty(self._images),
            )
            lines, masked = (
                guards.refusal_lines(
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

        kinds = {kind for refusal in refusals for kind in guards.KINDS[refusal.guard]}
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


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as found:
            return next(found, None) is None
    except OSError as error:
        if (short := shortage_in(error)) is not None:
            raise short from error
        return True


def as_it_is(user_id: str) -> str:
    """For who may see user ids."""
    return user_id
