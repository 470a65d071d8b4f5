"""The photos of all manifests of a ledger, each opened in the folder or archive where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Lock

from enroll.photos.store import OpenPhoto, PhotoStore


@dataclass(frozen=True, slots=True)
class _Root:
    store: PhotoStore
    there: bool
    """Whether it held anything when it was first looked at."""


class AllPhotos:
    """Several photo stores as one. Safe to share between threads."""

    def __init__(self, roots: Sequence[str], *, open_store: Callable[[str], PhotoStore]) -> None:
        """`roots` are those of the stores, at least one, the one that matters most first."""
        self.roots = roots
        self._open_store = open_store
        self._lock = Lock()
        self._opened: dict[str, _Root] = {}

    def open(self, path: str) -> AbstractContextManager[OpenPhoto]:
        """See `PhotoStore.open`. A path in none of the stores is OUTSIDE."""
        return self._root_of(path).store.open(path)

    def none_is_there(self) -> bool:
        """Whether all stores are missing or empty. Raises ShortageError."""
        return not any(self._root(root).there for root in self.roots)

    def is_lost(self, path: str) -> bool:
        """Whether the store of this photo was there, and is missing or empty now. Raises
        ShortageError."""
        root = self._root_of(path)
        return root.there and not _holds_something(root.store)

    def _root_of(self, path: str) -> _Root:
        around = [root for root in self.roots if path.startswith(f"{root.rstrip('/')}/")]
        return self._root(max(around, key=len, default=self.roots[0]))

    def _root(self, root: str) -> _Root:
        with self._lock:
            if root not in self._opened:
                store = self._open_store(root)
                self._opened[root] = _Root(store, _holds_something(store))
            return self._opened[root]


def _holds_something(store: PhotoStore) -> bool:
    return not (store.is_gone() or store.is_empty())
