"""The service's clock, as its `Date` headers show it: signatures live by it, not by ours."""

from __future__ import annotations

DATE_RESOLUTION = 1.0
"""Seconds. `Date` is cut off to whole seconds, so its time was up to this much later."""


class ServiceClock:
    """How far the service's clock is ahead of ours, in seconds.

    Each answer bounds the offset from both sides: it was dated after its request left and
    before it arrived. The bounds of all answers are intersected, so short round trips count
    most and the resolution of a second averages out. An answer that contradicts what was
    learned starts anew, because one of the clocks has been set.

    Any thread may use it without a lock: the bounds are swapped whole, and an update that is
    lost to another thread's loses one bound of many.
    """

    def __init__(self) -> None:
        self._bounds: tuple[float, float] | None = None

    @property
    def offset(self) -> float:
        """Service minus ours, in seconds; 0.0 until an answer has told."""
        bounds = self._bounds
        return 0.0 if bounds is None else (bounds[0] + bounds[1]) / 2

    def learn(self, date: float, *, sent: float, received: float) -> None:
        """Take in an answer dated `date`; the call lasted from `sent` to `received` by ours."""
        earliest, latest = date - received, date + DATE_RESOLUTION - sent
        known = self._bounds
        if known is not None:
            low, high = max(known[0], earliest), min(known[1], latest)
            if low <= high:
                self._bounds = low, high
                return
        # `received` before `sent` means that our clock was set during the call.
        if earliest <= latest:
            self._bounds = earliest, latest
