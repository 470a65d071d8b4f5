"""How many calls may be in flight, and when. Pure: no clock and no I/O of its own."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Protocol

from enroll.limiter.rate import Spacing
from enroll.model import TIMEOUT, Answer, Verdict

REFUSAL_PAUSE_SECONDS = 0.25
"""The first pause after a refusal; it doubles with each further one. Ours: short against the
half second that a call takes, so that little is lost where the limit was met by chance."""

LONGEST_PAUSE_SECONDS = 60.0

BLOCKED_PAUSE_SECONDS = 0.25
"""The first pause after a call for which this machine had no file or thread left; doubled each time
that none leaves in between."""

ROOM_SECONDS = 2.0
"""How often it is tried then whether there is room for one call more."""

LONGEST_RETRY_AFTER_SECONDS = 300.0
"""The most of a `Retry-After` that is obeyed: a service that asks for an hour is asked again."""


class CallEnd(Enum):
    """What the end of a call shows of the place that it had."""

    SERVED = "served"
    """The service had one."""
    UNKNOWN = "unknown"
    """Nothing: the call did not leave, or its answer proves nothing."""
    REFUSED = "refused"
    """The service had none."""
    BLOCKED = "blocked"
    """This machine did not let the call leave."""


class Cap(StrEnum):
    """What of ours, and not the service, keeps more calls from being in flight."""

    MAX_IN_FLIGHT = "--max-in-flight"
    AUTO = "the most that --max-in-flight auto goes up to"
    RATE = "--rate"
    MACHINE = "the open files and threads of this machine"


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that was given out: how many were taken when the call left, its own among them, and
    when that was (monotonic seconds). `refusals` are those that had been heard of by then."""

    in_flight: int
    left_at: float
    refusals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterState:
    """What a display shows of a limiter.

    `ceiling` is the service's limit as far as it is proved, None before. `spacing` is calls a
    second where the service seems to count those, None where calls are not spaced out. `closed`
    is how many seconds no call leaves because of refusals. `cap` is what of ours limits the run.
    """

    limit: int
    taken: int
    ceiling: int | None = None
    spacing: float | None = None
    closed: float = 0.0
    cap: Cap | None = None


class Limiter(Protocol):
    """Gives out places in flight. The driver takes a place before it hands a call out.

    `now` is monotonic seconds everywhere, and never less than before.
    """

    def free(self, now: float) -> int:
        """How many more calls may leave at `now`."""

    def sent(self, now: float) -> Slot:
        """A call leaves; what to hand back when it has ended."""

    def release(
        self,
        slot: Slot,
        now: float,
        end: CallEnd,
        *,
        retry_after: float | None = None,
        held_until: float | None = None,
    ) -> None:
        """A call has ended: give its slot back.

        `retry_after` is seconds; `held_until` (monotonic) says that the service may go on with the
        call for so long, and its place stays taken.
        """

    def opens_at(self, now: float) -> float | None:
        """When a call may leave again that may not at `now`, even if none ends; None where that
        is not known, or where one may leave."""

    def gauge(self, now: float) -> LimiterState:
        """What to show."""

    @property
    def limit(self) -> int:
        """The number of places, taken and free."""

    @property
    def spent(self) -> bool:
        """Whether no call may leave any more in this run."""


def release(
    limiter: Limiter, slot: Slot, answer: Answer, *, now: float, service_time: float
) -> None:
    """Give a call's slot back. `now` is monotonic, `service_time` UNIX seconds on the service's
    clock.

    The service may go on with a call that we have given up on, until its signature has expired.
    """
    end = CallEnd.SERVED if answer.served else CallEnd.UNKNOWN
    if answer.verdict is Verdict.REFUSED:
        end = CallEnd.REFUSED
    elif answer.verdict is Verdict.BLOCKED:
        end = CallEnd.BLOCKED
    held_until = None
    if answer.code == TIMEOUT and answer.expires > service_time:
        held_until = now + answer.expires - service_time
    limiter.release(slot, now, end, retry_after=answer.retry_after, held_until=held_until)


class Places:
    """Places that are taken: by calls in flight, and by calls that have ended for us only."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._held: list[float] = []

    def taken(self, now: float) -> int:
        """How many are taken at `now`."""
        while self._held and self._held[0] <= now:
            heapq.heappop(self._held)
        return self._in_flight + len(self._held)

    def take(self) -> None:
        """Take one for a call that leaves."""
        self._in_flight += 1

    def give_back(self, *, held_until: float | None = None) -> None:
        """A call has ended; its place is free, or is so from `held_until` on."""
        self._in_flight -= 1
        if held_until is not None:
            heapq.heappush(self._held, held_until)

    def next_free(self) -> float | None:
        """When the first of those becomes free that no call holds any more."""
        return self._held[0] if self._held else None


class FixedLimiter:
    """A fixed number of places; after a refusal no call leaves for a while, longer each time."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"at least one call must be allowed in flight, not {limit}")
        self._limit = limit
        self._places = Places()
        self._pause = REFUSAL_PAUSE_SECONDS
        self._closed_until = -math.inf

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def spent(self) -> bool:
        return False

    def free(self, now: float) -> int:
        if now < self._closed_until:
            return 0
        return max(self._limit - self._places.taken(now), 0)

    def sent(self, now: float) -> Slot:
        self._places.take()
        return Slot(self._places.taken(now), now)

    def release(
        self,
        slot: Slot,
        now: float,
        end: CallEnd,
        *,
        retry_after: float | None = None,
        held_until: float | None = None,
    ) -> None:
        self._places.give_back(held_until=held_until)
        if end is not CallEnd.REFUSED:
            if end is CallEnd.SERVED:
                self._pause = REFUSAL_PAUSE_SECONDS
            return
        pause = self._pause
        if retry_after is not None:
            pause = min(retry_after, LONGEST_RETRY_AFTER_SECONDS)
        # Calls that left together are refused together: only the first one lengthens the pause.
        if now >= self._closed_until:
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        self._closed_until = max(self._closed_until, now + pause)

    def opens_at(self, now: float) -> float | None:
        if now < self._closed_until:
            return self._closed_until
        return None if self.free(now) else self._places.next_free()

    def gauge(self, now: float) -> LimiterState:
        taken = self._places.taken(now)
        return LimiterState(
            limit=self._limit,
            taken=taken,
            closed=max(self._closed_until - now, 0.0),
            cap=Cap.MAX_IN_FLIGHT if taken >= self._limit else None,
        )


class _Wrapper:
    """A limiter with another one inside, which it bounds further."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    @property
    def limit(self) -> int:
        return self._limiter.limit

    @property
    def spent(self) -> bool:
        return self._limiter.spent

    def free(self, now: float) -> int:
        return self._limiter.free(now)

    def sent(self, now: float) -> Slot:
        return self._limiter.sent(now)

    def release(
        self,
        slot: Slot,
        now: float,
        end: CallEnd,
        *,
        retry_after: float | None = None,
        held_until: float | None = None,
    ) -> None:
        self._limiter.release(slot, now, end, retry_after=retry_after, held_until=held_until)

    def opens_at(self, now: float) -> float | None:
        return self._limiter.opens_at(now)

    def gauge(self, now: float) -> LimiterState:
        return self._limiter.gauge(now)


class Bounded(_Wrapper):
    """A limiter for a machine that lets a process have so many open files and threads.

    Where it had none left for a call, no more calls may be in flight than there are then; where
    there are none, none leaves for a moment. In time one call more is tried.
    """

    def __init__(self, limiter: Limiter, *, most: int) -> None:
        super().__init__(limiter)
        self._top = self._most = max(most, 1)
        self._in_flight = 0
        self._pause = BLOCKED_PAUSE_SECONDS
        self._closed_until = -math.inf
        self._changed_at = -math.inf

    @property
    def limit(self) -> int:
        return min(super().limit, self._most)

    def free(self, now: float) -> int:
        if now < self._closed_until:
            return 0
        return max(min(super().free(now), self._most - self._in_flight), 0)

    def sent(self, now: float) -> Slot:
        self._in_flight += 1
        return super().sent(now)

    def release(
        self,
        slot: Slot,
        now: float,
        end: CallEnd,
        *,
        retry_after: float | None = None,
        held_until: float | None = None,
    ) -> None:
        super().release(slot, now, end, retry_after=retry_after, held_until=held_until)
        full = self._in_flight >= self._most
        self._in_flight -= 1
        if end is CallEnd.BLOCKED:
            self._has_room_for(self._in_flight, now)
        else:
            self._pause = BLOCKED_PAUSE_SECONDS
            if full and self._most < self._top and now - self._changed_at >= ROOM_SECONDS:
                self._most, self._changed_at = self._most + 1, now

    def _has_room_for(self, calls: int, now: float) -> None:
        self._most, self._changed_at = max(min(self._most, calls), 1), now
        if not calls:  # else the next leaves when one of them has ended
            self._closed_until = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)

    def opens_at(self, now: float) -> float | None:
        if now < self._closed_until:
            return self._closed_until
        return super().opens_at(now)

    def gauge(self, now: float) -> LimiterState:
        inner = super().gauge(now)
        ours = inner.limit > self._most and (self._in_flight >= self._most)
        cap = Cap.MACHINE if ours or now < self._closed_until else inner.cap
        return replace(inner, limit=self.limit, cap=cap)


class CallBudget(_Wrapper):
    """A limiter that lets only so many calls leave in all (`--max-calls`)."""

    def __init__(self, limiter: Limiter, *, left: int) -> None:
        """`left` is how many calls may still leave."""
        super().__init__(limiter)
        self._left = max(left, 0)

    @property
    def spent(self) -> bool:
        """Whether no further call may leave."""
        return self._left == 0

    def free(self, now: float) -> int:
        return min(super().free(now), self._left)

    def sent(self, now: float) -> Slot:
        self._left -= 1
        return super().sent(now)

    def release(
        self,
        slot: Slot,
        now: float,
        end: CallEnd,
        *,
        retry_after: float | None = None,
        held_until: float | None = None,
    ) -> None:
        self._left += end is CallEnd.BLOCKED  # it was not made
        super().release(slot, now, end, retry_after=retry_after, held_until=held_until)


class RateLimiter(_Wrapper):
    """A limiter that lets only so many calls a second leave (`--rate`)."""

    def __init__(self, limiter: Limiter, *, rate: float) -> None:
        """`rate` is calls a second."""
        super().__init__(limiter)
        self._spacing = Spacing(rate)

    def free(self, now: float) -> int:
        return min(super().free(now), self._spacing.free(now))

    def sent(self, now: float) -> Slot:
        self._spacing.sent(now)
        return super().sent(now)

    def opens_at(self, now: float) -> float | None:
        moments = (super().opens_at(now), self._spacing.opens_at(now))
        if super().free(now) <= 0:
            return moments[0]  # its turn alone is of no use to a call
        return max((moment for moment in moments if moment is not None), default=None)

    def gauge(self, now: float) -> LimiterState:
        inner = super().gauge(now)
        waits = self._spacing.opens_at(now) is not None and super().free(now) > 0
        return replace(inner, cap=Cap.RATE) if waits else inner
