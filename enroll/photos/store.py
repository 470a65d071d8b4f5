"""The photo store port: where a manifest's photos are, what is known of them, and their bytes.

`enroll.photos.open_store` chooses the adapter. Another one has to pass `tests/test_photo_store.py`.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from enroll.model import FileTimes, Unusable

NO_PHOTO = (-1, -1, -1)
"""What `PhotoStore.stat` gives where there is no photo."""

LEAST_TOGETHER = 8
"""Photos that a scan looks up together at least, on each thread: fewer may be looked up one by one.
"""

UNREADABLE = (0, 0, 0)
"""What it gives for a photo of which the store only says that it may not be looked at. No photo has
these numbers, so it is read, and that says why not."""


class UnusableError(Exception):
    """A photo that a store does not open, or that cannot be read to its end."""

    def __init__(self, unusable: Unusable) -> None:
        super().__init__(unusable.fault.message)
        self.unusable = unusable


def locate_below(root: str, image: str) -> str:
    """The path of what a manifest calls `image`, in a store whose paths are those of files."""
    if not image:
        return ""
    first = image.partition("/")[0]
    if image[0] != "/" != image[-1] and "." not in first and "//" not in image:
        joined = f"{root}/{image}"
        if "/." not in joined:
            return joined  # the usual case, at a quarter of normpath's cost
    joined = os.path.join(root, image)  # noqa: PTH118  # a Path costs 10x
    return os.path.normpath(joined)


def name_below(root: str, path: str) -> str:
    """What a path is called below a store's root; empty for one that leads out of it."""
    return path.removeprefix(f"{root}/") if path.startswith(f"{root}/") else ""


def empty_above(root: str, name: str, has_below: Callable[[str], bool]) -> str:
    """`PhotoStore.empty_above` for a name below the root, where folders are only parts of names:
    `has_below` says whether there is anything in one."""
    uppermost, folder = "", name
    while folder:
        folder = folder.rpartition("/")[0]
        if has_below(folder):
            break
        uppermost = f"{root}/{folder}" if folder else root
    return uppermost


class OpenPhoto(Protocol):
    """A photo that is open: always the same version, whatever replaces it meanwhile."""

    @property
    def times(self) -> FileTimes:
        """What was known of it when it was opened."""

    def part(self, at: int, length: int) -> bytes:
        """The bytes from `at` on; fewer than `length` at its end."""

    def content(self) -> bytes:
        """All of its bytes. Raises UnusableError with PhotoCode.CHANGED where it changed, or was
        replaced, since it was opened."""


class PhotoSource(Protocol):
    """Where photos can be opened."""

    def open(self, path: str) -> AbstractContextManager[OpenPhoto]:
        """Open a photo to read it.

        Raises UnusableError, on entry or in the block, with the reason for the user: MISSING,
        which names a similar name that exists, OUTSIDE, SYMLINK, NOT_A_FILE or UNREADABLE. Its
        `share_gone` says that the store does not answer. Raises ShortageError where this machine
        allows no further file or connection.
        """


class PhotoStore(PhotoSource, Protocol):
    """Where the photos of a manifest are. Every method may run on any thread.

    A path is absolute, begins with `root`, and has `/` between its parts: it is what the ledger
    keeps and what messages show. A path that leads out of the store is refused by every method that
    looks something up.
    """

    @property
    def root(self) -> str:
        """What a manifest's relative paths begin at: for a folder its absolute, resolved path."""

    def locate(self, image: str) -> str:
        """The path of what a manifest calls `image`; empty for an empty one.

        From the text alone: there need be no such photo, and the path may lead out of the store.
        """

    def stat(self, paths: Sequence[str]) -> array[int]:
        """What is known of each photo without reading it, as three numbers: those of FileTimes.

        Each is -1 where the store has no such photo, and 0 where the store only says that it may
        not be looked at. A store without mtime and ctime gives numbers that differ when the photo's
        content does, such as its CRC or 63 bits of its version. Raises LocalError where the store
        can no longer be reached.
        """

    def files(self) -> Iterator[str]:
        """Everything that the store holds, photos or not, in a fixed order: paths relative to the
        root. Raises ManifestError, LocalError and ShortageError where a part cannot be listed."""

    def check(self) -> None:
        """Raise ManifestError where the store is there, but can never be read."""

    def is_gone(self) -> bool:
        """Whether the store is missing, or another has taken its place since it was opened."""

    def is_empty(self) -> bool:
        """Whether there is nothing at all in the store, as where nothing is mounted. Raises
        ShortageError."""

    def is_reachable(self, path: str) -> bool:
        """Whether the part of the store that should hold a photo answers."""

    def empty_above(self, path: str) -> str:
        """The uppermost folder above a photo, up to the root, that is missing or empty, as the
        mount point of a share that is gone; an empty string where there is none."""
