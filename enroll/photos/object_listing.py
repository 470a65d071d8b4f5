"""What a listing of many objects says of each, kept in 24 bytes, and when listing them is worth it.

A request lists a thousand objects, and takes as long as 25 requests for one object each that
several threads make. So after every so many photos that were asked for, that many more objects are
listed, in the order of their names. It is not known beforehand how many others lie between those of
the manifest; this way it costs at most about twice what the better way would have.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from enroll import clock
from enroll.photos.listing import is_photo
from enroll.photos.store import LEAST_TOGETHER, NO_PHOTO

if TYPE_CHECKING:
    from obstore import ObjectMeta

Numbers = tuple[int, int, int]
"""What is known of a photo without reading it: see `PhotoStore.stat`."""

LISTED_FOR_ONE = 40
"""Objects that are listed for each photo that is asked for."""

JUST_LISTED_SECONDS = 5.0
"""Fewer photos than LEAST_TOGETHER are asked for, and so known as they are now, unless the listing
is not older than that: it was made for the photos before them."""

LISTED_SECONDS = 600.0
"""How long a listing counts. A photo that is replaced meanwhile counts as unchanged; the next
command notices it."""


_SEGMENT = 100_000
"""Objects that are sorted together: sorting takes as much memory again."""

_HUGE = 2**32 - 1
"""The size of objects that are asked for: they are too large, or of before 1970 or after 2106."""

_ASK = (_HUGE, 0, 0)


def is_folder(meta: ObjectMeta) -> bool:
    """Whether it may be what is made for a folder: an empty object with a slash at its end, which
    obstore leaves out. Such a name is out of order."""
    return not meta["size"] and not is_photo(meta["path"])


def numbers_of(meta: ObjectMeta) -> Numbers:
    """Size, time of modification in nanoseconds, and 63 bits of the ETag. A listing has no version,
    its times are more precise than those of other answers, and some stores quote ETags only there.
    """
    tag = (meta["e_tag"] or meta["version"] or "").removeprefix("W/").strip('"')
    digest = hashlib.blake2b(tag.encode(), digest_size=8).digest()
    seconds = int(meta["last_modified"].timestamp())
    return meta["size"], seconds * 10**9, int.from_bytes(digest) >> 1


class _Segment(NamedTuple):
    """Objects that were listed together, sorted by the hashes of their names."""

    hashes: NDArray[np.int64]
    sizes: NDArray[np.uint32]
    seconds: NDArray[np.uint32]
    tags: NDArray[np.int64]


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
        few, age = len(names) < LEAST_TOGETHER, clock.monotonic() - self._since
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
        """List this many more, or at least as many as before up to the name that comes last."""
        before, last, ordered = self._count, self._last, self._ordered
        hashes, sizes, seconds, tags = columns = array("q"), array("I"), array("I"), array("q")
        for page in self._pages(last):
            for name, (size, mtime_ns, tag) in page:
                hashes.append(hash(name))
                second = mtime_ns // 10**9
                odd = size > _HUGE or not 0 <= second <= _HUGE
                sizes.append(_HUGE if odd else size)
                seconds.append(0 if odd else second)
                tags.append(tag)
                ordered = ordered and name > last
                last = name
            self._count += len(page)
            if len(hashes) >= _SEGMENT:
                self._keep(columns)
            if self._count - before >= (before if last >= furthest else most):
                break
        else:
            self._complete = True
        self._keep(columns)
        self._last, self._ordered = last, ordered
        if not self._ordered and not self._complete:  # where it can go on is not known
            self.give_up()

    def _keep(self, columns: tuple[array[int], ...]) -> None:
        """Make a segment of what was listed, and empty the columns."""
        if columns[0]:
            order = np.argsort(np.frombuffer(columns[0], np.int64))
            kinds = (np.int64, np.uint32, np.uint32, np.int64)
            kept = (
                np.frombuffer(one, kind)[order] for one, kind in zip(columns, kinds, strict=True)
            )
            self._segments.append(_Segment(*kept))
            del order
        for column in columns:
            del column[:]

    def _found(self, names: Sequence[str]) -> Iterator[Numbers | None]:
        wanted = np.fromiter(map(hash, names), np.int64, len(names))
        known: list[Any] = [None] * len(names)
        for segment in self._segments:
            places = np.searchsorted(segment.hashes, wanted)
            places[places == len(segment.hashes)] = 0
            there = np.flatnonzero(segment.hashes[places] == wanted)
            for at, place in zip(there.tolist(), places[there].tolist(), strict=True):
                size = int(segment.sizes[place])
                numbers = size, int(segment.seconds[place]) * 10**9, int(segment.tags[place])
                known[at] = numbers if size < _HUGE else _ASK
        for name, numbers in zip(names, known, strict=True):
            listed = self._complete or name <= self._last
            if numbers is None:
                yield NO_PHOTO if listed else None
            else:
                yield None if numbers is _ASK else numbers
