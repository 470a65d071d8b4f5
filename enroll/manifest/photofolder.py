"""Which folder a manifest's relative photo paths begin at, when --images does not say it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enroll.errors import LocalError, UsageError
from enroll.ledger import LedgerReader
from enroll.manifest.manifest import Manifest
from enroll.photos import locate
from enroll.visible import path_text

ROOT = "root"
NAMED = "root_named"
"""Among the options of a run on record: its photos' folder, and whether --images named it."""

ROWS_TRIED = 20
"""Rows whose photos are looked for in two folders, to tell whose manifest it is."""


class FolderGoneError(LocalError):
    """The photos' folder was there in an earlier run."""


class NoFolderError(UsageError):
    """The photos' folder never was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotosFolder:
    """The folder, resolved. `named` says that --images named it, now or in an earlier run;
    `inherited` that an earlier run decided. `notes` are sentences for the user."""

    path: Path
    named: bool
    inherited: bool
    notes: Sequence[str] = ()

    def record(self) -> dict[str, object]:
        """What the ledger keeps of it among a run's options."""
        return {ROOT: str(self.path), NAMED: self.named}


def photos_folder(given: Path | None, manifest: Manifest, ledger: LedgerReader) -> PhotosFolder:
    """The folder of this manifest's photos; `given` is --images.

    Without it, what the last run of the same manifest used; for a manifest that is new to the
    ledger, as a dated export is, the folder that --images named last, else the manifest's own.
    Raises UsageError where its own folder has such photos, too, so that one would enroll other
    people's, and for a folder that never was; LocalError for one that was there before.
    """
    own = resolved(manifest.path.parent)
    before = ledger.folder_of(path_text(manifest.path.absolute()))
    last_named = ledger.images_given
    if given is not None:
        found = PhotosFolder(path=resolved(given), named=True, inherited=False)
    elif before is not None:
        path, named = Path(before[0]), before[1]
        notes = [] if path == own else [f"Photos are looked for below {path}, as in the last run."]
        found = PhotosFolder(path=path, named=named, inherited=bool(notes), notes=notes)
    elif last_named and Path(last_named) != own:
        _refuse_two(manifest, own, Path(last_named))
        note = f"Photos are looked for below {last_named}, as in the last run that was told."
        found = PhotosFolder(path=Path(last_named), named=True, inherited=True, notes=[note])
    else:
        found = PhotosFolder(path=own, named=bool(last_named), inherited=False)
    return _checked(found, known=(last_named, ledger.images, before[0] if before else ""))


def _refuse_two(manifest: Manifest, own: Path, named: Path) -> None:
    rows = next(manifest.rows(ROWS_TRIED), [])
    relative = [row.image for row in rows if row.image and not row.image.startswith("/")]
    if any(Path(locate(str(own), image)).is_file() for image in relative):
        raise UsageError(
            f"The photos of {manifest.path} may be those below {own}, the manifest's own folder, "
            f"or those below {named}, which --images named in an earlier run of another manifest. "
            f"Say which: --images {own} or --images {named}."
        )


def _checked(found: PhotosFolder, *, known: tuple[str, ...]) -> PhotosFolder:
    path = found.path
    if path_text(path) != str(path):
        raise UsageError(
            f"The name of the photos' folder {path_text(path)} is not in UTF-8, as the manifest's "
            "paths are. Rename the folder, or name another with --images."
        )
    if path.is_dir():
        return found
    if str(path) in known:
        raise FolderGoneError(
            f"The photos' folder {path} is gone, which was there in an earlier run. Mount the "
            "share again, then run the same command; every row stays due."
        )
    raise NoFolderError(f"The photos' folder {path} does not exist. Correct --images.")


def resolved(folder: Path) -> Path:
    """Where a folder lies, whatever links lead there; one of links in a circle as it is."""
    return Path(os.path.realpath(folder))
