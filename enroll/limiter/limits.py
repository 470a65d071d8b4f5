"""How many calls may be in flight, and when. Pure: no clock and no I/O of its own."""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from enroll.limiter.rate import Spacing
from enroll.model import TIMEOUT, Answer, Verdict

REFUSAL_PAUSE_SECONDS = 0.25
"""The first pause after a refusal; it doubles with each further one. It is short compared with the
half second that a call takes, so little is lost where the limit was reached by chance."""

LONGEST_PAUSE_SECONDS = 60.0

BLOCKED_PAUSE_SECONDS = 0.25
"""The first pause after a call for which this machine had no file or thread left; it doubles while
none leaves in between."""

ROOM_SECONDS = 2.0
"""How often one more call is tried then."""

LONGEST_RETRY_AFTER_SECONDS = 300.0
"""The longest `Retry-After` that is obeyed; a service that asks for an hour is asked earlier."""


class CallEnd(Enum):
    """What the end of a call shows about the slot that it had."""

    SERVED = "served"
    """The service had room for it."""
    UNKNOWN = "unknown"
    """Nothing: the call was not sent, or its answer proves nothing."""
    REFUSED = "refused"
    """The service had no room for it."""
    BLOCKED = "blocked"
    """This machine could not send it."""


class Cap(StrEnum):
    """What keeps more calls from being in flight where it is not the service."""

    MAX_IN_FLIGHT = "--max-in-flight"
    AUTO = "the most that --max-in-flight auto goes up to"
    RATE = "--rate"
    MACHINE = "the open files and threads of this machine"


@dataclass(frozen=True, slots=True)
class Slot:
    """A call's slot in flight: how many were taken when the call left, its own included, and when
    that was (monotonic seconds). `refusals` are those that were known by then."""

    in_flight: int
    left_at: float
    refusals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterState:
    """What a display shows of a limiter.

    `ceiling` is the service's limit as far as it is proved, None before. `spacing` is calls a
    second where the service seems to count those, None where calls are not spaced out. `closed`
    is for how many seconds no call leaves because of refusals. `cap` is what limits the run where
    the service does not.
    """

    limit: int
    taken: int
    ceiling: int | None = None
    spacing: float | None = None
    closed: float = 0.0
    cap: Cap | None = None


class Limiter(ABC):
    """Says how many calls may be in flight. Whoever sends a call takes a slot first.

    `now` is monotonic seconds everywhere, and never less than before.
    """

    @property
    @abstractmethod
    def limit(self) -> int:
        """The number of slots, taken and free."""

    @property
    def spent(self) -> bool:
        """Whether no call may leave any more in this run."""
        return False

    @abstractmethod
    def free(self, now: float) -> int:
        """How many more calls may leave at `now`."""

    @abstractmethod
    def sent(self, now: float) -> Slot:
        """A call leaves; what to give back when it has ended."""

    @abstractmethod
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
        call until then, so its slot stays taken.
        """

    def answered(self, slot: Slot, answer: Answer, *, now: float, service_time: float) -> None:
        """A call has ended with this answer: `release` its slot by what that shows.

        `service_time` is UNIX seconds on the service's clock. The service may go on with a call
        whose time is over for us until its signature has expired.
        """
        end = CallEnd.SERVED if answer.served else CallEnd.UNKNOWN
        if answer.verdict is Verdict.REFUSED:
            end = CallEnd.REFUSED
        elif answer.verdict is Verdict.BLOCKED:
            end = CallEnd.BLOCKED
        held_until = None
        if answer.code == TIMEOUT and answer.expires > service_time:
            held_until = now + answer.expires - service_time
        self.release(slot, now, end, retry_after=answer.retry_after, held_until=held_until)

    @abstractmethod
    def opens_at(self, now: float) -> float | None:
        """When a call may leave that may not at `now`, even if none ends; None where that is not
        known, or where one may leave."""

    @abstractmethod
    def gauge(self, now: float) -> LimiterState:
        """What to show."""


class SlotLimiter(Limiter):
    """Counts slots: those of calls in flight, and those that ended calls still hold. How many there
    are, and what served and refused calls mean for that, is for a subclass."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._held: list[float] = []  # heap of the moments until which slots are held
        self._closed_until = -math.inf

    def taken(self, now: float) -> int:
        """How many slots are taken at `now`."""
        while self._held and self._held[0] <= now:
            heapq.heappop(self._held)
        return self._in_flight + len(self._held)

    def free(self, now: float) -> int:
        return 0 if now < self._closed_until else max(self.limit - self.taken(now), 0)

    def sent(self, now: float) -> Slot:
        self._in_flight += 1
        return Slot(self.taken(now), now)

    def release(
        self,
        slot: Slot,
        now: float,
        end: CallEnd,
        *,
        retry_after: float | None = None,
        held_until: float | None = None,
    ) -> None:
        if end is CallEnd.REFUSED:
            held_until = self._refused(slot, now, retry_after) or held_until
        self._in_flight -= 1
        if held_until is not None:
            heapq.heappush(self._held, held_until)
        if end is CallEnd.SERVED:
            self._served(slot, now)

    def opens_at(self, now: float) -> float | None:
        if now < self._closed_until:
            return self._closed_until
        return self._held[0] if self.taken(now) >= self.limit and self._held else None

    def gauge(self, now: float) -> LimiterState:
        closed = max(self._closed_until - now, 0.0)
        return LimiterState(limit=self.limit, taken=self.taken(now), closed=closed)

    @abstractmethod
    def _served(self, slot: Slot, now: float) -> None:
        """A call was served; its slot is free."""

    @abstractmethod
    def _refused(self, slot: Slot, now: float, retry_after: float | None) -> float | None:
        """A call was refused; until when its slot stays taken, if it does."""


class FixedLimiter(SlotLimiter):
    """A fixed number of slots; after a refusal no call leaves for a while, longer each time."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"at least one call must be allowed in flight, not {limit}")
        super().__init__()
        self._limit = limit
        self._pause = REFUSAL_PAUSE_SECONDS

    @property
    def limit(self) -> int:
        return self._limit

    def gauge(self, now: float) -> LimiterState:
        state = super().gauge(now)
        return replace(state, cap=Cap.MAX_IN_FLIGHT) if state.taken >= state.limit else state

    def _served(self, slot: Slot, now: float) -> None:
        self._pause = REFUSAL_PAUSE_SECONDS

    def _refused(self, slot: Slot, now: float, retry_after: float | None) -> None:
        pause = self._pause
        if retry_after is not None:
            pause = min(retry_after, LONGEST_RETRY_AFTER_SECONDS)
        # Calls that left together are refused together: only the first one lengthens the pause.
        if now >= self._closed_until:
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        self._closed_until = max(self._closed_until, now + pause)


class _Wrapper(Limiter):
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
        self._ended(end, now)

    def _ended(self, end: CallEnd, now: float) -> None:
        """A call has ended, and the limiter inside has its slot back."""

    def opens_at(self, now: float) -> float | None:
        return self._limiter.opens_at(now)

    def gauge(self, now: float) -> LimiterState:
        return self._limiter.gauge(now)


class Bounded(_Wrapper):
    """A limiter for a machine that allows a process only so many open files and threads.

    When it has none left for a call, no more calls may be in flight than there are then; if there
    are none, none leaves for a moment. After a while one more call is tried.
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

    def _ended(self, end: CallEnd, now: float) -> None:
        full = self._in_flight >= self._most
        self._in_flight -= 1
        if end is CallEnd.BLOCKED:
            self._allow_only(self._in_flight, now)
        else:
            self._pause = BLOCKED_PAUSE_SECONDS
            if full and self._most < self._top and now - self._changed_at >= ROOM_SECONDS:
                self._most, self._changed_at = self._most + 1, now

    def _allow_only(self, calls: int, now: float) -> None:
        self._most, self._changed_at = max(min(self._most, calls), 1), now
        if not calls:  # otherwise the next leaves when one of them has ended
            self._closed_until = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)

    def opens_at(self, now: float) -> float | None:
        if now < self._closed_until:
            return self._closed_until
        return super().opens_at(now)

    def gauge(self, now: float) -> LimiterState:
        inner = super().gauge(now)
        full = inner.limit > self._most and self._in_flight >= self._most
        cap = Cap.MACHINE if full or now < self._closed_until else inner.cap
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

    def _ended(self, end: CallEnd, now: float) -> None:
        self._left += end is CallEnd.BLOCKED  # it was not made


class RateLimiter(_Wrapper):
    """A limiter that lets only so many calls a second leave (`--rate`)."""

    def __init__(self, limiter: Limiter, *, rate: Callable[[float], float | None]) -> None:
        """`rate` gives the calls a second at a time, None for as many as there are slots."""
        super().__init__(limiter)
        self._rate = rate
        self._spaced: Spacing | None = None

    def _spacing(self, now: float) -> Spacing | None:
        """How calls are spaced out now. Another rate than before begins by itself: after a low one,
        the next call need not wait as long as that would have it wait."""
        rate = self._rate(now)
        if rate is None:
            self._spaced = None
        elif self._spaced is None or self._spaced.rate != rate:
            self._spaced = Spacing(rate)
        return self._spaced

    def free(self, now: float) -> int:
        slots, spacing = super().free(now), self._spacing(now)
        return slots if spacing is None else min(slots, spacing.free(now))

    def sent(self, now: float) -> Slot:
        if (spacing := self._spacing(now)) is not None:
            spacing.sent(now)
        return super().sent(now)

    def opens_at(self, now: float) -> float | None:
        by_slots, by_rate = super().opens_at(now), self._turn_at(now)
        if super().free(now) <= 0:
            return by_slots  # no slot is free, so its turn is not enough
        return max((at for at in (by_slots, by_rate) if at is not None), default=None)

    def _turn_at(self, now: float) -> float | None:
        spacing = self._spacing(now)
        return None if spacing is None else spacing.opens_at(now)

    def gauge(self, now: float) -> LimiterState:
        inner = super().gauge(now)
        waits = self._turn_at(now) is not None and super().free(now) > 0
        return replace(inner, cap=Cap.RATE) if waits else inner
