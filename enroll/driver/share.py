"""Tells a photo that is missing from a share that is gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from enroll.errors import LocalError
from enroll.resources import shortage_in

MISSING_RUNNING = 20
"""Photos missing one after the other, and none found, that stop a run: the breaker's streak."""


class Share:
    """Watches the folders of a run's photos.

    `knows_photos_below` tells of a folder (an absolute path) whether photos were read there
    before, in this run or another.
    """

    def __init__(self, images: str, knows_photos_below: Callable[[str], bool]) -> None:
        self._images = images
        self._knows_photos_below = knows_photos_below
        self._device = Path(images).stat().st_dev
        self._found = False
        self._missing = 0

    def found(self) -> None:
        """A photo was there."""
        self._found = True

    def missing(self, path: str) -> LocalError | None:
        """A photo was not there; what to stop the run with, if it is not the photo alone."""
        self._missing += 1
        try:
            if Path(self._images).stat().st_dev != self._device:
                return self._gone(self._images)
        except OSError:
            return self._gone(self._images)
        folder = str(Path(path).parent)
        if not _holds_something(folder) and self._knows_photos_below(folder):
            return self._gone(folder)
        if not self._found and self._missing >= MISSING_RUNNING:
            return LocalError(
                f"The first {self._missing} photos are all missing below {self._images}. Mount "
                "the share, or name the folder of the photos with --images; every row stays due."
            )
        return None

    def _gone(self, folder: str) -> LocalError:
        return LocalError(
            f"The photos' folder {folder} is gone, which was there before. Mount the share again, "
            "then run the same command: every row that is not enrolled yet stays due."
        )


def _holds_something(folder: str) -> bool:
    """Whether a folder is there and not empty: the mount point of a share that is gone is."""
    try:
        with os.scandir(folder) as found:
            return next(found, None) is not None
    except OSError as error:
        return shortage_in(error) is not None  # then it cannot be told, and nothing is gone
