"""A number held just below where a service refuses, and calls a second sent evenly. Pure."""

from __future__ import annotations

import math

FIRST_INTERVAL_SECONDS = 2.0
"""The time from one try upwards to the next, while none was refused."""

LONGEST_INTERVAL_SECONDS = 30.0
"""The same after many that were: at four slots and half a second a call, a try each 30 s that is
refused once is 0.4 % of the calls."""

AFTER_A_FALL_SECONDS = 8.0
"""The same while the value has fallen recently: what fell may rise again as suddenly. At six slots
and half a second a call, a try each 8 s that is refused is 1 % of the calls in that time."""

LATELY_SECONDS = 900.0

PROOF_SECONDS = 1.0
"""How long a try goes without a refusal before it counts; never less than two calls take."""

CALLS_OF_A_PROOF = 2

PAUSES_OF_AN_INTERVAL = 50.0
"""Where a refusal costs a pause (`Retry-After`), a try comes so many pauses after the last, so that
pauses are 2 % of the time."""

AGAIN_CALLS = 8
"""Drops within so many calls' time follow each other."""


class Climb:
    """A value, and the tries to raise it. `value` is what applies now, `base` what is proved.

    The step of a try is `unit` first, and doubles with each that succeeds, up to `share` of the
    base; it is one unit again after a refusal.
    """

    def __init__(
        self,
        base: float,
        *,
        unit: float,
        share: float,
        least: float,
        most: float,
        steep: float,
        excess: float = 0.0,
    ) -> None:
        """`steep` is what the base is multiplied by at drops that follow each other.

        `excess` is for a value that is a rate (calls a second): how many calls have to leave
        beyond what the base allows before a try is proved.
        """
        self.base = min(max(base, least), most)
        self._unit = unit
        self._share = share
        self._least = least
        self._most = most
        self._steep = steep
        self._excess = excess
        self._step = unit
        self._tried = 0.0  # how much above the base is being tried
        self._tested_at: float | None = None
        self._interval = FIRST_INTERVAL_SECONDS
        self._next_try = float("-inf")
        self._dropped_at = float("-inf")

    @property
    def value(self) -> float:
        """What applies now: the base, and what is being tried above it."""
        return self.base + self._tried

    @property
    def trying(self) -> bool:
        """Whether a try is under way."""
        return self._tried > 0

    def reached(self, now: float) -> None:
        """The value is fully used: from now on a try is tested."""
        if self._tried and self._tested_at is None:
            self._tested_at = now

    def works(self, now: float, *, full: bool, call_seconds: float) -> None:
        """A call was served; `full` says that the value is what keeps more from being made."""
        if self._tried:
            proof = max(PROOF_SECONDS, CALLS_OF_A_PROOF * call_seconds, self._excess / self._tried)
            if self._tested_at is None or now - self._tested_at < proof:
                return
            self.base = self.value
            self._step = min(self._step * 2, max(self._unit, self.base * self._share))
            self._interval = FIRST_INTERVAL_SECONDS
            self._tried, self._next_try = 0.0, now
        if full and now >= self._next_try:
            self._tried = min(self._step, self._most - self.base)
            self._tested_at = None

    def refused(self, now: float, *, used: float, call_seconds: float, pause: float) -> None:
        """The service has refused a call at `used`; `pause` seconds is what that costs."""
        if self._tried:
            lately = now - self._dropped_at < LATELY_SECONDS
            longest = AFTER_A_FALL_SECONDS if lately else LONGEST_INTERVAL_SECONDS
            self._interval = min(self._interval * 2, longest)
        else:
            again = now - self._dropped_at < AGAIN_CALLS * call_seconds
            used = min(self.base, used)
            self.base = max(
                min(used * self._steep if again else used, used - self._unit), self._least
            )
            self._dropped_at = now
            self._interval = FIRST_INTERVAL_SECONDS
        self._tried, self._step = 0.0, self._unit
        self._next_try = now + max(self._interval, PAUSES_OF_AN_INTERVAL * pause)


CATCH_UP_SECONDS = 0.1
"""Spaced calls that could not leave in their turn may leave up to this much later, or one of them:
the loop sometimes wakes late, and the rate would not be reached otherwise."""

RATE_UNIT = 0.05
"""Share of the first rate: the first step upwards."""

RATE_SHARE = 0.4
"""Share of the rate: the largest step upwards."""

RATE_STEEP = 0.95
"""Factor of the rate when refusals follow each other; `STEEP` for slots."""

RATE_EXCESS = 1.5
"""A higher rate is proved when this many calls have left that the lower one would not have let."""

USELESS = 0.7
"""Share of the rate that spacing began with; below it, spacing is no remedy for refusals."""

LEAST_RATE = 0.01
"""Calls a second: the lowest rate."""

UNSPACED_SECONDS = 10.0
"""After this long with all slots taken, spacing is turned off."""


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
    upwards as slots are."""

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
        self.sent(now)  # the slot of the call that was refused

    def works(self, now: float, *, full: bool, call_seconds: float) -> None:
        """A call was served; `full` says that all slots are taken, so that the rate is not what
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
        """Whether slots alone would do."""
        return self._full_since is not None and now - self._full_since > UNSPACED_SECONDS

    @property
    def useless(self) -> bool:
        """Whether so many calls are refused that it is not their rate that counts."""
        return self._climb.base < USELESS * self._first
