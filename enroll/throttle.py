"""How many calls may be in flight, and when. Pure: no clock and no I/O of its own."""

from __future__ import annotations

from typing import Protocol

REFUSAL_PAUSE_SECONDS = 0.25
"""The first pause after a refusal; it doubles with each further one. Ours: short against the
half second that a call takes, so that little is lost where the limit was met by chance."""

LONGEST_PAUSE_SECONDS = 60.0


class Throttle(Protocol):
    """Gives out places in flight. The driver takes a place before it hands a call out."""

    def free(self, now: float) -> int:
        """How many more calls may leave at `now` (monotonic seconds)."""

    def sent(self, now: float) -> None:
        """A call left."""

    def answered(self, now: float, *, refused: bool, retry_after: float | None = None) -> None:
        """A call that left has ended; `refused` when the service had no place for it."""

    def opens_at(self, now: float) -> float | None:
        """When a pause that is on at `now` ends; None when none is on."""

    @property
    def limit(self) -> int:
        """The number of places, taken and free."""

    @property
    def spent(self) -> bool:
        """Whether no call may leave any more in this run."""


class FixedThrottle:
    """A fixed number of places; after a refusal no call leaves for a while, longer each time."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"at least one call must be allowed in flight, not {limit}")
        self._limit = limit
        self._in_flight = 0
        self._pause = REFUSAL_PAUSE_SECONDS
        self._closed_until = float("-inf")

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def spent(self) -> bool:
        return False

    def free(self, now: float) -> int:
        return 0 if now < self._closed_until else self._limit - self._in_flight

    def sent(self, now: float) -> None:
        self._in_flight += 1

    def answered(self, now: float, *, refused: bool, retry_after: float | None = None) -> None:
        self._in_flight -= 1
        if not refused:
            self._pause = REFUSAL_PAUSE_SECONDS
            return
        pause = self._pause if retry_after is None else retry_after
        # Calls that left together are refused together: only the first one lengthens the pause.
        if now >= self._closed_until:
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        self._closed_until = max(self._closed_until, now + pause)

    def opens_at(self, now: float) -> float | None:
        return self._closed_until if now < self._closed_until else None


class Metered:
    """A throttle that lets only so many calls leave in all (`--max-calls`)."""

    def __init__(self, throttle: Throttle, *, left: int) -> None:
        """`left` is how many calls may still leave."""
        self._throttle = throttle
        self._left = max(left, 0)

    @property
    def limit(self) -> int:
        return self._throttle.limit

    @property
    def spent(self) -> bool:
        """Whether no further call may leave."""
        return self._left == 0

    def free(self, now: float) -> int:
        return min(self._throttle.free(now), self._left)

    def sent(self, now: float) -> None:
        self._left -= 1
        self._throttle.sent(now)

    def answered(self, now: float, *, refused: bool, retry_after: float | None = None) -> None:
        self._throttle.answered(now, refused=refused, retry_after=retry_after)

    def opens_at(self, now: float) -> float | None:
        return self._throttle.opens_at(now)
