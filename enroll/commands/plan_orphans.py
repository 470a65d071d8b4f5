"""`enroll plan --orphans`: the photos of a store that no row of the manifest uses."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from enroll.manifest.rules import image_fault
from enroll.model import ScannedRow
from enroll.photos import PhotoStore, is_photo
from enroll.text.tables import BATCH, new_table
from enroll.visible import path_text

ORPHAN_COLUMNS = ("image", "bytes")
"""The columns of `--orphans`: the path below the photos' folder, and the file's size."""


class Orphans:
    """Finds them: 8 bytes are kept of each row, and nothing of a photo."""

    def __init__(self, store: PhotoStore, path: Path) -> None:
        """`path` is the table to write."""
        self.path = path
        self.count = 0
        self._store = store
        self._used = array("q")

    def use(self, rows: Iterable[ScannedRow]) -> None:
        """The rows' photos are used."""
        self._used.extend([hash(_real(row.path)) for row in rows if row.path])

    def write(self) -> None:
        """Write the photos that are not used, sorted. Raises LocalError, and ManifestError where
        the photos cannot be listed."""
        used = array("q")
        used.frombytes(np.sort(np.frombuffer(self._used, np.int64)).tobytes())
        unused = self._unused(used)
        rules = {"image": image_fault}
        with new_table(self.path, ORPHAN_COLUMNS, rules=rules, numbers={"bytes"}) as table:
            while some := list(islice(unused, BATCH)):
                sizes = self._store.stat([self._store.locate(image) for image in some])[::3]
                self.count += table.write(zip(map(path_text, some), sizes, strict=True))

    def _unused(self, used: array[int]) -> Iterator[str]:
        for image in self._store.files():
            if is_photo(image):
                key = hash(self._store.locate(image))
                at = bisect_left(used, key)
                if at == len(used) or used[at] != key:
                    yield image


def _real(path: str) -> str:
    """A photo's path without links to folders, as the store lists it."""
    folder, slash, name = path.rpartition("/")
    return _real_folder(folder) + slash + name


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder) if os.path.isdir(folder) else folder  # noqa: PTH112
