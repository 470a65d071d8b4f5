"""A number that is held just below where a service refuses: tried upwards, taken back. Pure.

The numbers are those of the design's simulation ("ceiling memory"); `benchmarks/throttle_cases.py`
shows what they come to.
"""

from __future__ import annotations

FIRST_INTERVAL_SECONDS = 2.0
"""From one try upwards to the next, while none was refused."""

LONGEST_INTERVAL_SECONDS = 30.0
"""The same after many that were: at four places and half a second a call, a try each 30 s that is
refused once is 0.4 % of the calls."""

AFTER_A_FALL_SECONDS = 8.0
"""The same while the value has fallen lately: what fell may rise again as suddenly. At six places
and half a second a call, a try each 8 s that is refused is 1 % of the calls of that while."""

LATELY_SECONDS = 900.0

PROOF_SECONDS = 1.0
"""How long a try goes without a refusal before it counts; never less than two calls take."""

CALLS_OF_A_PROOF = 2

PAUSES_OF_AN_INTERVAL = 50.0
"""Where a refusal costs a pause (`Retry-After`), a try comes so many pauses after the last: those
pauses are 2 % of the time then."""

AGAIN_CALLS = 8
"""Drops within so many calls' time follow each other."""


class Climb:
    """A value, and the tries to raise it. `value` is what holds now, `base` what is proved.

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
        """What holds now: the base, and what is being tried above it."""
        return self.base + self._tried

    @property
    def trying(self) -> bool:
        """Whether a try is under way."""
        return self._tried > 0

    def reached(self, now: float) -> None:
        """The value is used to the full: from now on a try is put to the test."""
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
