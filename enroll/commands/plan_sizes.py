"""What other sizes of `--max-side` would cost: bytes to send, and the upload that they take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from enroll.model import Unusable
from enroll.photos import Edit, Glance, PhotoStore, read_photo
from enroll.runner.sample import Reservoir
from enroll.settings import Precheck, Preparation
from enroll.text.wording import columns, duration, percent, size
from enroll.threads import Threads

SIDES = (4096, 2048, 1280)
"""The values of `--max-side` that are compared: the default, half of it, and a size at which a face
of a tenth of the width still has 128 pixels."""

MOST_PREPARED = 200
"""Photos that are prepared at each of the other sizes, at most."""

ALWAYS_PREPARED = 8
"""So many of them even if that takes longer than the plan may, a few seconds: from fewer of very
different photos the bytes are off by a fifth."""

_DECODED_SHARE, _UNCHANGED_SHARE = 8, 60
"""One in so many is prepared at each other size, of photos that are decoded at the size in force
and of those that are not, so that a plan takes about a sixth longer. Two smaller sizes of a photo
take 1.3 times as long as decoding and encoding it at the size in force, and ten times as long as
reading it."""

_LARGER_SHARE = 8
"""At a larger size, preparing a photo takes up to so many times as long as at the one in force."""

_WORTH_SAYING = 0.02
"""Share of the bytes below which a difference is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeCost:
    """What a run would send with this `--max-side`: bytes, in so many `add` calls.

    Estimates unless `exact`: `prepared` of the `larger` photos were prepared at this size, those
    that are longer than the smallest one. `in_force` is the size that was asked for.
    """

    side: int
    content: float
    calls: float
    prepared: int
    larger: int
    exact: bool
    in_force: bool = False

    def times(self, factor: float) -> SizeCost:
        """The likely cost of `factor` times as many photos, of which these are a random sample."""
        content, calls = self.content * factor, self.calls * factor
        return replace(self, content=content, calls=calls, exact=False)


@dataclass(frozen=True, slots=True)
class _Larger:
    """A photo that other sizes change: the bytes sent at the size in force, and its longest side in
    pixels, None if its head does not say."""

    path: str
    to_send: int
    side: int | None

    def is_changed(self, side: int, other: int) -> bool:
        """Whether it may differ at one size from what it is at the other."""
        return self.side is None or self.side > min(side, other)


class OtherSizes:
    """Takes note of the photos that would be sent, and then prepares some of them at other sizes.

    Those that are no longer than the smallest size are the same at each of them, and cost nothing.
    """

    def __init__(self, store: PhotoStore, preparation: Preparation, *, seed: int) -> None:
        """`preparation` is the one in force; `seed` decides which photos are drawn."""
        self._store = store
        # Faces were looked for at the size in force; that would take too long at each.
        self._preparation = replace(preparation, precheck=Precheck.OFF)
        self._in_force = preparation.max_side
        self._drawn: Reservoir[_Larger] = Reservoir(MOST_PREPARED, seed)
        self._longest = self._decoded = 0
        self._photos = self._bytes = self._bytes_of_larger = 0

    def sent(self, path: str, look: Glance) -> None:
        """Count a photo that would be sent at the size in force."""
        self._photos += 1
        self._bytes += look.to_send
        self._decoded += not set(look.edits) <= {Edit.STRIPPED}
        larger = _Larger(path, look.to_send, None if look.pixels is None else max(look.pixels))
        if larger.is_changed(min(SIDES), self._in_force):
            self._longest = max(self._longest, larger.side or max(SIDES))
            self._bytes_of_larger += look.to_send
            self._drawn.offer(larger)

    def costs(self, readers: Threads) -> Sequence[SizeCost]:
        """What each size costs, the largest first; nothing if that makes hardly any difference."""
        if not self._drawn.offered:
            return []
        if_larger = self._longest > self._in_force
        sides = {self._in_force, *(one for one in SIDES if one < self._in_force or if_larger)}
        costs = [self._cost(side, readers) for side in sorted(sides, reverse=True)]
        contents = [one.content for one in costs]
        return costs if max(contents) - min(contents) >= _WORTH_SAYING * self._bytes else []

    def _cost(self, side: int, readers: Threads) -> SizeCost:
        """At one size: what all larger photos have in bytes, times what those drawn become."""
        larger, calls = self._drawn.offered, self._photos
        now = SizeCost(
            side=side,
            content=self._bytes,
            calls=calls,
            prepared=larger,
            larger=larger,
            exact=True,
            in_force=True,
        )
        if side == self._in_force:
            return now
        chosen = self._chosen(side)
        prepared = list(readers.map(partial(self._bytes_at, side), chosen))
        before, after = sum(one.to_send for one in chosen), sum(one or 0 for one in prepared)
        return replace(
            now,
            content=self._bytes + (after - before) * (self._bytes_of_larger / before),
            calls=calls - larger * sum(one is None for one in prepared) / len(chosen),
            prepared=len(chosen),
            exact=len(chosen) == larger,
            in_force=False,
        )

    def _chosen(self, side: int) -> Sequence[_Larger]:
        """Some of those drawn: as many as the plan has time for, evenly from the smallest photo to
        the largest, so that a few are like all of them."""
        drawn, larger = self._drawn.drawn, self._drawn.offered
        affordable = max(
            self._decoded // _DECODED_SHARE + larger // _UNCHANGED_SHARE, ALWAYS_PREPARED
        )
        if side > self._in_force:
            affordable = max(larger // _LARGER_SHARE, 1)
        if affordable >= len(drawn):
            return drawn
        ordered = sorted(drawn, key=lambda one: (one.side or 0, one.to_send, one.path))
        step = len(ordered) / affordable
        return [ordered[int((number + 0.5) * step)] for number in range(affordable)]

    def _bytes_at(self, side: int, one: _Larger) -> int | None:
        """What would be sent of a photo; None if nothing."""
        if not one.is_changed(side, self._in_force):
            return one.to_send
        found = read_photo(one.path, self._store, replace(self._preparation, max_side=side))
        return None if isinstance(found, Unusable) else len(found.content)


def size_lines(costs: Sequence[SizeCost], calls_per_second: float) -> Iterator[str]:
    """The costs as a table, what they assume, and what the smallest size saves."""
    if not costs:
        return
    yield "What other sizes would cost"
    heads = ("--max-side", "to send", "time", "upload", "")
    rows = [heads, *(_row(one, calls_per_second) for one in costs)]
    yield from (f"  {line}" for line in columns(rows))
    yield (
        "The time is that of the calls at the rate above, whatever their size. It holds if your "
        "line carries that upload; if it carries less, calls take longer."
    )
    smallest, now = costs[-1], next(one for one in costs if one.in_force)
    saved = now.content - smallest.content
    if saved >= _WORTH_SAYING * now.content:
        about = "" if smallest.exact and now.exact else "about "
        share = percent(round(saved), round(now.content))
        yield f"--max-side {smallest.side} would send {about}{size(saved)} less ({share})."


def _row(one: SizeCost, calls_per_second: float) -> Sequence[str]:
    seconds = one.calls / calls_per_second
    remark = "" if one.exact else f"from {one.prepared:,} of {one.larger:,} larger photos"
    return (
        str(one.side),
        f"{'' if one.exact else 'about '}{size(one.content)}",
        duration(seconds),
        _upload(one.content, seconds),
        "in force" if one.in_force else remark,
    )


def _upload(content: float, seconds: float) -> str:
    """The upload that a rate takes, in bits a second."""
    mega = content * 8 / seconds / 1e6 if seconds else 0.0
    return f"{mega:,.0f} Mbit/s" if mega >= 9.95 else f"{max(mega, 0.1):.1f} Mbit/s"
