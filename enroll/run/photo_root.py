"""Tells photos that are missing from a share that is gone.

A share is gone when photos that were there are not there. What was there is known from the ledger,
and from the scan of this very manifest; a photo that nobody has ever seen proves nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from enroll.errors import LocalError
from enroll.resources import shortage_in

MISSING_RUNNING = 20
"""Photos that were there and are not there, or missing where nothing is, that stop a run: the
breaker's streak."""

KNOWN_TRIED = 100
"""Photos on record that are looked for, drawn from all of them, when none has been seen yet."""


class KnownPhotos(Protocol):
    """What a ledger knows of photos that were read, in any run."""

    def knows_photos_below(self, folder: str) -> bool:
        """Whether a photo below this folder (an absolute path) has ever been read."""

    def some_photos_below(self, folder: str, *, most: int) -> Sequence[str]:
        """The paths of some of them, drawn by chance."""


class Share:
    """Watches the folders of a run's photos. Used on the driver's thread only."""

    def __init__(self, images: str, known: KnownPhotos) -> None:
        """`images` is the resolved images root, which is there."""
        self._images = images
        self._known = known
        self._device = Path(images).stat().st_dev
        self._found = False
        self._scanned = False
        self._asked = False
        self._missing = 0
        self._lost: Counter[str] = Counter()
        self._running = 0

    @property
    def certain(self) -> bool:
        """Whether a missing photo can be judged: a photo is there, or all were looked for."""
        return self._found or self._scanned

    def read(self) -> None:
        """A photo was read."""
        self._found = True
        self._running = 0

    def seen(self) -> None:
        """The scan has seen a photo."""
        self._found = True

    def scanned(self) -> None:
        """The scan has looked for every photo of the manifest."""
        self._scanned = True

    def lost(self, folders: Mapping[str, int]) -> None:
        """The scan has not found so many photos of enrolled rows in these folders."""
        self._lost.update(folders)

    def missing(self, path: str, *, was_there: bool) -> LocalError | None:
        """A photo is not there; what to stop the run with, if it is not the photo alone.

        `was_there` says that the scan saw it. To be asked once that is `certain`.
        """
        self._missing += 1
        self._running += was_there
        try:
            if Path(self._images).stat().st_dev != self._device:
                return self._gone(self._images)
        except OSError:
            return self._gone(self._images)
        folder = self._empty_above(path)
        if self._running >= MISSING_RUNNING:
            return self._gone(folder or str(Path(path).parent))
        if folder and self._lost_below(folder) >= MISSING_RUNNING:
            return self._gone(folder)
        return None if self._found else self._nothing_seen(folder)

    def unreachable(self, path: str, message: str) -> LocalError | None:
        """The same for a photo of which the file system says, with `message`, that its server or
        device is gone. A disk says so of a single bad file, too."""
        self._running += 1
        if answers(str(Path(path).parent)) and self._running < MISSING_RUNNING:
            return None
        return LocalError(
            f"The photos cannot be reached any more. {message} Mount the share again, "
            "then run the same command: every row that is not enrolled yet stays due."
        )

    def _nothing_seen(self, folder: str) -> LocalError | None:
        """What to stop with where no photo of the manifest has been seen."""
        known: Sequence[str] = ()
        if not self._asked:
            self._asked = True
            known = self._known.some_photos_below(self._images, most=KNOWN_TRIED)
            self._found = any(map(os.path.lexists, known))
        if self._found:
            return None
        if folder and self._known.knows_photos_below(folder):
            return self._gone(folder)
        if len(known) >= MISSING_RUNNING:
            return self._gone(self._images)
        if self._missing >= MISSING_RUNNING:
            return LocalError(
                f"The first {self._missing} photos are all missing below {self._images}. Mount "
                "the share, or name the folder of the photos with --images; every row stays due."
            )
        return None

    def _empty_above(self, path: str) -> str:
        """The uppermost folder above a photo, up to the root, that is missing or empty, as the
        mount point of a share that is gone is; empty where there is none."""
        uppermost = ""
        for folder in Path(path).parents:
            if not folder.is_relative_to(self._images) or _holds_something(folder):
                break
            uppermost = str(folder)
        return uppermost

    def _lost_below(self, folder: str) -> int:
        return sum(
            lost
            for name, lost in self._lost.items()
            if name == folder or name.startswith(folder.rstrip("/") + "/")
        )

    def _gone(self, folder: str) -> LocalError:
        return LocalError(
            f"The photos' folder {folder} is gone, which was there before. Mount the share again, "
            "then run the same command: every row that is not enrolled yet stays due."
        )


def answers(folder: str) -> bool:
    """Whether the file system of a folder still says what is in it."""
    try:
        with os.scandir(folder) as found:
            next(found, None)
    except OSError as error:
        return shortage_in(error) is not None  # then it has not been asked
    return True


def _holds_something(folder: Path) -> bool:
    try:
        with os.scandir(folder) as found:
            return next(found, None) is not None
    except OSError as error:
        return shortage_in(error) is not None  # then it cannot be told, and nothing is gone
