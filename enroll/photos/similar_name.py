"""A file whose name differs from a missing photo's in case, Unicode form or unseen characters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import islice
from threading import Lock
from unicodedata import is_normalized, normalize

from enroll.errors import ShortageError
from enroll.resources import retry_on_shortage
from enroll.visible import as_seen, find_invisible

MOST_NAMES = 100_000
"""Names that are kept of all folders together: some 30 MB."""

MOST_FOLDERS = 1_000
"""Folders that are listed, each once, in the life of a process: a manifest whose photos are all
missing must not cost a listing per row. With so many, what is wrong has become clear."""


def describe_similar(path: str) -> str:
    """Describe a file beside the missing `path` that looks the same but for case; empty where there
    is none, or where the bounds are reached."""
    folder, _, name = path.rpartition("/")
    there = _LISTED.names(folder).get(folded(name), "")
    if not there or there == name or not os.path.lexists(f"{folder}/{there}"):
        return ""
    return describe_difference(there, name)


def describe_difference(there: str, name: str) -> str:
    """Describe the name `there`, which looks the same as `name` but for case."""
    if normalize("NFC", there) == normalize("NFC", name):
        form = "NFC" if is_normalized("NFC", there) else "decomposed (NFD)"
        return f"{there!r}, the same letters in another Unicode form, {form}"
    if as_seen(there) == there and (unseen := find_invisible(name)):
        return f"{there!r}, without the {unseen} of the name {name!r}"
    if unseen := find_invisible(there):
        return f"{there!r}, whose name has {unseen}"
    return f"{there!r}, which differs in case only"


def describe_unseen(path: str, images: str) -> str:
    """Describe the first unseen character in a photo's path; empty where there is none. `images` is
    the root of relative paths, which does not come from the manifest."""
    for part in path.removeprefix(images).split("/"):
        if unseen := find_invisible(part):
            return f"{part!r} has {unseen}"
    return ""


def folded(name: str) -> str:
    """A name as it looks, without its case and in one Unicode form."""
    return normalize("NFC", normalize("NFD", as_seen(name)).casefold())


def _names_in(folder: str, most: int) -> list[str]:
    with os.scandir(folder) as found:
        return [one.name for one in islice(found, most)]


class Listings:
    """The names in folders, by their form without case; for any thread."""

    def __init__(
        self,
        names_in: Callable[[str, int], Iterable[str]] = _names_in,
        *,
        folders: int = MOST_FOLDERS,
        names: int = MOST_NAMES,
    ) -> None:
        """`names_in` gives at most so many names in a folder."""
        self._names_in = names_in
        self._lock = Lock()
        self._folders: dict[str, dict[str, str]] = {}
        self._most_folders = folders
        self._left = names

    def names(self, folder: str) -> dict[str, str]:
        """A folder's names; none where it cannot be listed, or the bounds are reached."""
        with self._lock:
            if folder not in self._folders:
                if self._left <= 0 or len(self._folders) >= self._most_folders:
                    return {}
                self._folders[folder] = self._list(folder)
                self._left -= len(self._folders[folder])
            return self._folders[folder]

    def _list(self, folder: str) -> dict[str, str]:
        try:
            found = retry_on_shortage(lambda: self._names_in(folder, self._left))
        except ShortageError:
            raise
        except Exception:  # noqa: BLE001  # whatever it is, the message just says less
            return {}
        return {folded(name): name for name in found}


_LISTED = Listings()
