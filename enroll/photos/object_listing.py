"""What a listing of many objects says of each, kept in 32 bytes, and when listing them is worth it.

A request lists a thousand objects, and takes as long as 25 requests for one object each that
several threads make. So after every so many photos that were asked for, that many more objects are
listed, in the order of their names. It is not known beforehand how many others lie between those of
the manifest; this way it costs at most about twice what the better way would have.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from enroll import clock
from enroll.photos.store import NO_PHOTO

Numbers = tuple[int, int, int]
"""What is known of a photo without reading it: see `PhotoStore.stat`."""

LISTED_FOR_ONE = 40
"""Objects that are listed for each photo that is asked for."""

FEW, JUST_LISTED_SECONDS = 25, 5.0
"""Fewer photos than that at a time are asked for, and so known as they are now, unless the listing
is not older than that: it was made for the photos before them."""

LISTED_SECONDS = 600.0
"""How long a listing counts. A photo that is replaced meanwhile counts as unchanged; the next
command notices it."""


class _Segment(NamedTuple):
    """Objects that were listed together, sorted by the hashes of their names."""

    hashes: NDArray[np.int64]
    numbers: NDArray[np.int64]
    """Three columns."""


class Listing:
    """The objects below a root, as far as they were listed. Not for several threads at once."""

    def __init__(self, pages: Callable[[str], Iterator[list[tuple[str, Numbers]]]]) -> None:
        """`pages` lists the objects with names after a given one; an empty one gives all."""
        self._pages = pages
        self._useless = False
        self._begin()

    def _begin(self) -> None:
        self._since = clock.monotonic()
        self._asked = self._count = 0
        self._segments: list[_Segment] = []
        self._last = ""
        self._ordered, self._complete = True, False

    def give_up(self) -> None:
        """List nothing any more: the store does not list them, or a name cannot be read."""
        self._begin()
        self._useless = True

    def find(self, names: Sequence[str]) -> dict[str, Numbers | None]:
        """What is known of each, NO_PHOTO where there is none; None for one to be asked for.
        Raises what `pages` raises."""
        few, age = len(names) < FEW, clock.monotonic() - self._since
        if self._useless or not names or (few and age > JUST_LISTED_SECONDS):
            return dict.fromkeys(names)
        if not few:
            self._extend(names, age)
        return dict(zip(names, self._found(names), strict=True))

    def _extend(self, names: Sequence[str], age: float) -> None:
        """List more where that is worth it, or all again."""
        if age > LISTED_SECONDS:
            self._begin()
        self._asked += len(names)
        worth = self._asked * LISTED_FOR_ONE
        furthest = max(names)
        if not self._complete and furthest > self._last and worth >= 2 * self._count:
            self._go_on(worth - self._count, furthest)

    def _go_on(self, most: int, furthest: str) -> None:
        """List so many more, or at least as many as before up to the name that comes last."""
        hashes, numbers = array("q"), array("q")
        last, ordered = self._last, self._ordered
        for page in self._pages(last):
            for name, known in page:
                hashes.append(hash(name))
                numbers.extend(known)
                ordered = ordered and name > last
                last = name
            if len(hashes) >= (self._count if last >= furthest else most):
                break
        else:
            self._complete = True
        self._last, self._ordered = last, ordered
        self._count += len(hashes)
        if hashes:
            order = np.argsort(found := np.frombuffer(hashes, np.int64))
            columns = np.frombuffer(numbers, np.int64).reshape(-1, 3)
            self._segments.append(_Segment(found[order], columns[order]))
        if not self._ordered and not self._complete:  # where it can go on is not known
            self.give_up()

    def _found(self, names: Sequence[str]) -> Iterator[Numbers | None]:
        wanted = np.fromiter(map(hash, names), np.int64, len(names))
        known: list[Any] = [None] * len(names)
        for segment in self._segments:
            places = np.searchsorted(segment.hashes, wanted)
            places[places == len(segment.hashes)] = 0
            there = np.flatnonzero(segment.hashes[places] == wanted)
            for at, numbers in zip(there, segment.numbers[places[there]].tolist(), strict=True):
                known[at] = tuple(numbers)
        for name, numbers in zip(names, known, strict=True):
            listed = self._complete or name <= self._last
            yield NO_PHOTO if numbers is None and listed else numbers
