"""Calls a second: let out evenly, at a rate that is given or found. Pure."""

from __future__ import annotations

import math

from enroll.limiter.climb import Climb

CATCH_UP_SECONDS = 0.1
"""Spaced calls that could not leave in their turn are made up for so long, or one of them: the
driver wakes late now and then, and the rate would be missed by that."""

RATE_UNIT = 0.05
"""Of that rate: the first step upwards."""

RATE_SHARE = 0.4
"""Of the rate: the largest."""

RATE_STEEP = 0.95
"""By what the rate is multiplied where refusals follow each other; `STEEP` for places."""

RATE_EXCESS = 1.5
"""A higher rate is proved when so many calls have left that the lower one would have kept."""

USELESS = 0.7
"""Of the rate that spacing began with: below it spacing is no remedy for what is refused."""

LEAST_RATE = 0.01
"""Calls a second: what spacing does not go below."""

UNSPACED_SECONDS = 10.0
"""After so long with all places taken spacing is turned off."""


class Spacing:
    """Lets so many calls a second leave, evenly."""

    def __init__(self, rate: float) -> None:
        """`rate` is calls a second."""
        self.rate = rate
        self._next: float | None = None

    def free(self, now: float) -> int:
        """How many calls may leave at `now`."""
        if self._next is None:
            return 1
        behind = now - max(self._next, now - self._catch_up)
        return 0 if behind < 0 else 1 + int(behind * self.rate)

    def sent(self, now: float) -> None:
        """A call leaves."""
        turn = now if self._next is None else max(self._next, now - self._catch_up)
        self._next = turn + 1 / self.rate

    def opens_at(self, now: float) -> float | None:
        """When the next call may leave; None where one may at `now`."""
        return None if self._next is None or now >= self._next else self._next

    @property
    def _catch_up(self) -> float:
        return max(CATCH_UP_SECONDS, 1 / self.rate)


class FoundRate(Spacing):
    """The rate at which a service takes calls: begins with what it took lately, and is tried
    upwards as places are."""

    def __init__(self, rate: float, *, now: float) -> None:
        super().__init__(rate)
        self._first = rate
        self._full_since: float | None = None
        self._climb = Climb(
            rate,
            unit=rate * RATE_UNIT,
            share=RATE_SHARE,
            least=LEAST_RATE,
            most=math.inf,
            steep=RATE_STEEP,
            excess=RATE_EXCESS,
        )
        self.sent(now)  # the place of the call that was refused

    def works(self, now: float, *, full: bool, call_seconds: float) -> None:
        """A call was served; `full` says that all places are taken, so that the rate is not what
        keeps more from leaving."""
        if not full:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        self._climb.reached(now)
        self._climb.works(now, full=not full, call_seconds=call_seconds)
        self.rate = self._climb.value

    def refused(self, now: float, *, call_seconds: float, pause: float) -> None:
        """A call was refused all the same; `pause` seconds is what that costs."""
        used = self._climb.base
        self._climb.refused(now, used=used, call_seconds=call_seconds, pause=pause)
        self.rate = self._climb.value

    def needless(self, now: float) -> bool:
        """Whether places alone would do."""
        return self._full_since is not None and now - self._full_since > UNSPACED_SECONDS

    @property
    def useless(self) -> bool:
        """Whether so many calls are refused that it is not their rate that counts."""
        return self._climb.base < USELESS * self._first
