"""A trial (`--sample`): which rows it draws, and what those say of all rows that are due."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from enroll.model import CallKind, Candidate, Status
from enroll.session.tally import BAD, Ended
from enroll.text.wording import amount, duration

SURE = 1.96
"""Standard errors on either side of a share that hold 95 of 100 such trials."""


T = TypeVar("T")


class Reservoir(Generic[T]):
    """Draws `size` of the things that it is offered, each as likely as any other (reservoir
    sampling, Vitter's algorithm R), the same ones for the same `seed` and things."""

    def __init__(self, size: int, seed: int) -> None:
        self.drawn: list[T] = []
        self.offered = 0
        self._size = size
        self._random = random.Random(seed)  # noqa: S311  # which rows, not which keys

    def offer(self, one: T) -> None:
        """Take one more into account."""
        self.offered += 1
        if len(self.drawn) < self._size:
            self.drawn.append(one)
            return
        place = self._random.randrange(self.offered)
        if place < self._size:
            self.drawn[place] = one


class Sample:
    """The rows that a trial draws."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        """The most rows that are drawn."""
        self._rows: Reservoir[Candidate] = Reservoir(size, seed)
        self.offered = 0
        """Lines of all rows that were offered."""

    def offer(self, row: Candidate) -> None:
        """Take a row into account."""
        self.offered += row.lines
        self._rows.offer(row)

    @property
    def rows(self) -> int:
        """Rows that were offered, those that say the same counted once."""
        return self._rows.offered

    def drawn(self) -> list[Candidate]:
        """The rows that were drawn, in the order of the manifest."""
        return sorted(self._rows.drawn, key=lambda row: row.row.line)


def likely_share(count: int, of: int) -> tuple[float, float]:
    """Bounds within which a share lies that was seen as `count` of `of` (Wilson's interval)."""
    if not of:
        return 0.0, 1.0
    share, square = count / of, SURE**2
    middle = share + square / (2 * of)
    spread = SURE * math.sqrt(share * (1 - share) / of + square / (4 * of**2))
    low, high = (middle - spread) / (1 + square / of), (middle + spread) / (1 + square / of)
    return max(low, 0.0), min(high, 1.0)


def likely_count(count: int, drawn: int, of: int) -> str:
    """For people, how many of all there are of what was seen `count` times among those drawn."""
    low, high = (of * share for share in likely_share(count, drawn))
    low, high = max(low, count), min(high, of - (drawn - count))  # some have been seen
    return f"about {of * count / drawn:,.0f} ({low:,.0f} to {high:,.0f})"


@dataclass(slots=True)
class Spread:
    """The measurements of the rows drawn: enough to estimate the sum over all rows."""

    rows: int = 0
    total: int = 0
    _squares: int = 0

    def add(self, value: int) -> None:
        """Take one more row into account."""
        self.rows += 1
        self.total += value
        self._squares += value * value

    def likely_sum(self, of: int) -> tuple[float, float, float]:
        """The likely sum for `of` rows, and the bounds within which it lies (normal distribution of
        the mean, drawn without putting back)."""
        mean = self.total / self.rows
        varies = max(self._squares / self.rows - mean * mean, 0.0) * self.rows
        error = math.sqrt(varies / max(self.rows - 1, 1) / self.rows) if self.rows > 1 else mean
        error *= math.sqrt(max(of - self.rows, 0) / max(of - 1, 1))
        return of * mean, max(of * (mean - SURE * error), self.total), of * (mean + SURE * error)


_ONCE_A_RUN = (CallKind.GROUP_LIST, CallKind.LIST)

_TOLD = (Status.ENROLLED, *BAD, Status.IN_DOUBT)


def trial_lines(ended: Ended) -> Iterator[str]:
    """What the trial says of all rows that were due."""
    tally = ended.tally
    due, done = tally.sampled + tally.left_out, tally.drawn.total()
    if not tally.sampled or not done:
        return
    yield (
        f"A trial of {amount(done, 'row')}, drawn from the {due:,} that are due. Of all of them, "
        "with 95 % confidence:"
    )
    for status in _TOLD:
        count = tally.drawn[status]
        if count or status is Status.REJECTED:
            yield f"  {status.value:<9} {likely_count(count, done, due)}"
    # What is called once a run is no row's, and neither is what finding the limit took.
    once = sum(tally.calls[kind] for kind in _ONCE_A_RUN)
    calls = (tally.calls.total() - once - tally.refused) / done
    yield f"  calls     about {once + calls * due:,.0f}, {calls:.2f} a row"
    sending = ended.seconds - ended.scanned_after
    if sending > 0:
        rate = done / sending
        yield (
            f"  time      about {duration(due / rate)} at this trial's {rate:.1f} rows a second, "
            "finding the limit included"
        )
