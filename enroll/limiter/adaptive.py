"""Finds how many calls the service takes at a time, and holds that number. Pure, as `limiter`.

The service refuses above a number that it does not publish, and nothing queues, so how long a call
takes says nothing; only refusals do. They are cheap (no work is done), but not free.

1. *Slow start*: one more slot for each call that was served while all slots are used, from
   `FIRST_LIMIT` or the ceiling that an earlier run found, up to the first refusal.
2. *Holding*: now and then one more is tried, and larger steps while that succeeds (`Climb`). A
   refusal of a try takes it back; any other takes a slot away, or a fifth of them.
3. *A refused call keeps its slot as long as a call takes.* Refusals come back at once. Calls that
   followed at once would be refused, too, and slots would be cut far below what the service takes
   again a moment later, where it counts calls in each second.
4. *Spacing*: a call is refused although no more were in flight than were served together since
   the last cut. Once, that is a limit that has fallen; repeatedly, it is a service that counts
   calls a second, which slots cannot limit. Then calls are spaced out (`FoundRate`), until slots
   are what keeps them from leaving, or spacing has proved to be no remedy.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from enroll.limiter.limits import (
    LONGEST_PAUSE_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    Bounded,
    Cap,
    FixedLimiter,
    Limiter,
    LimiterState,
    Slot,
    SlotLimiter,
)
from enroll.limiter.rate import Climb, FoundRate

FIRST_LIMIT = 4
"""Slots at the start where nothing is known: few enough for any account, and slow start doubles
them in the time that a call takes."""

MOST_IN_FLIGHT = 512
"""Where `auto` stops: each call in flight has a thread, a socket and a photo of up to 2 MB, and
many systems give a process 1,024 files. At half a second a call that is a thousand a second."""

FULL = 0.9
"""Share of the slots; with so many taken, they count as used."""

AFTER_SLOW_START = 0.9
"""Share of the number at which the first call was refused: slow start overshoots up to twice."""

FIRST_PAUSE_SECONDS = 1.0
"""The pause after a refusal at one slot, when none is left to take away; it doubles each time."""

CALL_SECONDS = 0.5
"""Assumed duration of a call until one has been served."""

SMOOTHING = 1 / 8
"""The weight of the newest call in the smoothed call time; TCP's for round trips (RFC 6298)."""

STRANGE_REFUSALS = 4
"""So many refusals that cannot be about slots, within `STRANGE_SPANS` spans, turn spacing on."""

SPAN_SECONDS = 2.0
"""A span; it is never less than `SPAN_CALLS` calls take. Long compared with the second in which
such services count, short compared with changes in what others leave of the slots."""

SPAN_CALLS = 4

STRANGE_SPANS = 5

SHARE = 1 / 8
"""Share of the slots: the largest step upwards."""

STEEP = 0.8
"""Factor of the slots when refusals follow each other: the service's limit has fallen by much."""

RATE_SECONDS = 10.0
"""The time over which the rate is measured that spacing begins with."""

NO_SPACING_SECONDS = 600.0
"""For how long spacing is not tried again after it was of no use."""


class AdaptiveLimiter(SlotLimiter):
    """As many slots as the service takes calls; starts small, or at what is known."""

    def __init__(self, *, known: int | None = None, most: int = MOST_IN_FLIGHT) -> None:
        """`known` is the ceiling that an earlier run found, `most` the most slots there are."""
        super().__init__()
        self._most = most
        self._slow_start = known is None
        self._climb = self._climb_from(FIRST_LIMIT if known is None else known)
        self._full = False
        self._refusals = 0
        self._cut_at = -math.inf
        self._pause = FIRST_PAUSE_SECONDS
        self.call_seconds = CALL_SECONDS
        """How long a call takes, smoothed."""
        self._proven = _Lately()
        self._since_cut = 0  # the most that were served together of those that left since
        self._strange: deque[float] = deque(maxlen=STRANGE_REFUSALS)
        self._served_at: deque[float] = deque()
        self._spacing: FoundRate | None = None
        self._no_spacing_until = -math.inf

    @property
    def limit(self) -> int:
        return int(self._climb.value)

    @property
    def ceiling(self) -> int | None:
        """The number of calls that the service takes at a time, as far as it is proved: None during
        slow start, and where it counts calls a second."""
        if self._slow_start or self._spacing is not None:
            return None
        return int(self._climb.base)

    def free(self, now: float) -> int:
        free = super().free(now)
        return free if self._spacing is None else min(free, self._spacing.free(now))

    def sent(self, now: float) -> Slot:
        taken = super().sent(now).in_flight
        # As it is after the last call that left: answers are processed several at a time.
        self._full = taken >= FULL * self.limit
        if taken >= self.limit:
            self._climb.reached(now)
        if self._spacing is not None:
            self._spacing.sent(now)
        return Slot(taken, now, self._refusals)

    def opens_at(self, now: float) -> float | None:
        if self._spacing is None or super().free(now) == 0:
            return super().opens_at(now)
        return self._spacing.opens_at(now)

    def gauge(self, now: float) -> LimiterState:
        state = super().gauge(now)
        return replace(
            state,
            ceiling=self.ceiling,
            spacing=None if self._spacing is None else self._spacing.rate,
            cap=Cap.AUTO if state.taken >= self.limit >= self._most else None,
        )

    @property
    def _span(self) -> float:
        return max(SPAN_SECONDS, SPAN_CALLS * self.call_seconds)

    # Calls that were served

    def _served(self, slot: Slot, now: float) -> None:
        full = self._full
        self._pause = FIRST_PAUSE_SECONDS
        self.call_seconds += SMOOTHING * (now - slot.left_at - self.call_seconds)
        # Calls that were refused meanwhile were not served together with it.
        together = slot.in_flight - (self._refusals - slot.refusals)
        self._proven.seen(together, now, span=self._span)
        if slot.left_at > self._cut_at:
            self._since_cut = max(self._since_cut, together)
        self._served_at.append(now)
        while self._served_at[0] < now - RATE_SECONDS:
            self._served_at.popleft()
        if self._spacing is not None:
            self._spacing.works(now, full=full, call_seconds=self.call_seconds)
            if self._spacing.needless(now):
                self._spacing = None
        elif not self._slow_start:
            self._climb.works(now, full=full, call_seconds=self.call_seconds)
        elif full and self.limit < self._most:
            self._climb.base += 1
        # At `most`, slow start just goes on: nothing is proved.

    # Calls that were refused

    def _refused(self, slot: Slot, now: float, retry_after: float | None) -> float | None:
        self._refusals += 1
        keeps_its_slot = self._is_about_slots(slot, now, retry_after)
        return slot.left_at + self.call_seconds if keeps_its_slot else None

    def _is_about_slots(self, slot: Slot, now: float, retry_after: float | None) -> bool:
        """Take a refusal into account; whether the call keeps its slot for a while."""
        pause = 0.0
        if retry_after is not None:
            pause = min(retry_after, LONGEST_RETRY_AFTER_SECONDS)
            self._closed_until = max(self._closed_until, now + pause)
        if slot.left_at <= self._cut_at:
            return False  # it left before the last cut, which was about it, too
        strange = self._since_cut >= slot.in_flight
        self._cut_at, self._since_cut = now, 0
        if self._spacing is not None:
            self._spacing.refused(now, call_seconds=self.call_seconds, pause=pause)
            if self._spacing.useless:
                self._spacing, self._no_spacing_until = None, now + NO_SPACING_SECONDS
                self._climb = self._climb_from(self.taken(now))
            return False
        if strange and now >= self._no_spacing_until:
            self._strange.append(now)
            full = len(self._strange) == STRANGE_REFUSALS
            if full and now - self._strange[0] < STRANGE_SPANS * self._span:
                self._space_out(now)
                return False
        return self._take_slots_away(slot, now, pause)

    def _take_slots_away(self, slot: Slot, now: float, pause: float) -> bool:
        tried = self._climb.trying
        if self._slow_start:
            overshot = min(self.limit, slot.in_flight - 1)
            self._climb = self._climb_from(int(AFTER_SLOW_START * overshot))
            self._slow_start = False
        elif self.limit == 1:
            self._closed_until = max(self._closed_until, now + self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        else:
            self._climb.refused(
                now, used=slot.in_flight, call_seconds=self.call_seconds, pause=pause
            )
            self._climb.base = max(int(self._climb.base), 1)
        return not tried

    def _climb_from(self, base: int) -> Climb:
        return Climb(base, unit=1, share=SHARE, least=1, most=self._most, steep=STEEP)

    def _space_out(self, now: float) -> None:
        """Turn spacing on, at the rate at which calls were served recently."""
        rate = max(len(self._served_at), 1) / RATE_SECONDS
        self._spacing = FoundRate(rate, now=now)
        # The rate limits from now on; if all slots were taken, spacing would be turned off again.
        enough = math.ceil(2 * rate * self.call_seconds)
        self._climb = self._climb_from(max(self._proven.most, self.limit, enough))
        self._strange.clear()


def limiter_for(
    max_in_flight: int | None, *, known: int | None = None, most: int | None = None
) -> Limiter:
    """The limiter of `--max-in-flight`: so many slots, or (None) as many as the account takes, of
    which `known` were found before; never more than `most`, which this machine allows."""
    if max_in_flight is None:
        found: Limiter = AdaptiveLimiter(known=known)
    else:
        found = FixedLimiter(max_in_flight)
    wanted = max_in_flight or MOST_IN_FLIGHT
    return Bounded(found, most=wanted if most is None else most)


class _Lately:
    """The largest number seen during the last one to two spans."""

    def __init__(self) -> None:
        self._began = -math.inf
        self._now = self._before = 0

    def seen(self, number: int, now: float, *, span: float) -> None:
        """A number; `span` is seconds."""
        if now - self._began >= span:
            self._began, self._before, self._now = now, self._now, 0
        self._now = max(self._now, number)

    @property
    def most(self) -> int:
        return max(self._now, self._before)
