"""Finds how many calls the service takes at a time, and holds that number. Pure, as `throttle`.

The service refuses above a number that it does not tell, and nothing queues, so that how long a
call takes tells nothing: only refusals do. They are cheap (no work is done), but not free.

1. *Slow start*: one place more for each call that was served while the places are used, from
   `FIRST_LIMIT` or the ceiling that an earlier run found, up to the first refusal.
2. *Holding*: now and then one more is tried, and more boldly while that succeeds (`Climb`). A
   refusal of a try takes it back; any other takes a place away, or a fifth of them.
3. *A refused call keeps its place as long as a call takes.* Refusals come back at once; what they
   free would be refused again at once, some hundred times a second where the limit has fallen.
4. *Spacing*: where fewer calls are refused than were taken a moment ago, the service counts calls
   a second, or something else that places cannot hold. Then calls are spaced out, at the rate at
   which they were served, which is tried upwards in the same way. It ends when the places, and not
   the spacing, are what keeps calls from leaving.
"""

from __future__ import annotations

import math
from collections import deque

from enroll.climb import Climb
from enroll.throttle import (
    LONGEST_PAUSE_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    Cap,
    Gauge,
    Permit,
    Places,
    Spacing,
)

FIRST_LIMIT = 4
"""Places at the start where nothing is known: few enough for any account, and slow start doubles
them each time that a call takes."""

MOST_IN_FLIGHT = 512
"""Where `auto` stops: each call in flight has a thread, a socket and a photo of up to 2 MB, and
many systems give a process 1,024 files. At half a second a call that is a thousand a second."""

FULL = 0.9
"""Of the places; with so many taken, they count as used."""

AFTER_SLOW_START = 0.9
"""Of the number at which the first call was refused: it overshot by up to twice."""

FIRST_PAUSE_SECONDS = 1.0
"""After a refusal at one place, when nothing is left to take away; it doubles each time."""

CALL_SECONDS = 0.5
"""What a call is taken to last until one has been served."""

SMOOTHING = 1 / 8
"""The weight of the newest call in the smoothed call time; TCP's for round trips (RFC 6298)."""

BELOW_PROVEN = 0.7
"""A refusal at less than this of what was served together lately is not about places."""

PROVEN_SECONDS = 30.0
"""How long that is remembered, at least."""

STRANGE_REFUSALS = 3
"""So many of those within `PROVEN_SECONDS` turn spacing on."""

RATE_SECONDS = 10.0
"""Over which the rate is measured that spacing begins with."""

RATE_UNIT = 0.05
"""Of that rate: the first step upwards."""

UNSPACED_SECONDS = 10.0
"""After so long with all places taken spacing is turned off."""


class AdaptiveThrottle:
    """As many places as the service takes calls; starts small, or at what is known of it."""

    def __init__(self, *, known: int | None = None, most: int = MOST_IN_FLIGHT) -> None:
        """`known` is the ceiling that an earlier run found, `most` the most places there are."""
        self._most = most
        self._places = Places()
        self._slow_start = known is None
        self._climb = self._climb_from(FIRST_LIMIT if known is None else known)
        self._refusals = 0
        self._cut_at = -math.inf
        self._pause = FIRST_PAUSE_SECONDS
        self._closed_until = -math.inf
        self._call_seconds: float | None = None
        self._proven = _Lately()
        self._since_cut = 0  # the most that were served together of those that left since
        self._strange: deque[float] = deque(maxlen=STRANGE_REFUSALS)
        self._served: deque[float] = deque()
        self._spacing: Spacing | None = None
        self._rate: Climb | None = None
        self._full_since: float | None = None

    @property
    def limit(self) -> int:
        return int(self._climb.value)

    @property
    def ceiling(self) -> int | None:
        """The number of places that the service takes, as far as proved; None in slow start."""
        return None if self._slow_start else int(self._climb.base)

    @property
    def spent(self) -> bool:
        return False

    def free(self, now: float) -> int:
        if now < self._closed_until:
            return 0
        free = max(self.limit - self._places.taken(now), 0)
        return free if self._spacing is None else min(free, self._spacing.free(now))

    def sent(self, now: float) -> Permit:
        self._places.take()
        taken = self._places.taken(now)
        if taken >= self.limit:
            self._climb.reached(now)
        if self._spacing is not None:
            self._spacing.sent(now)
        return Permit(taken, now, self._refusals)

    def answered(
        self,
        permit: Permit,
        now: float,
        *,
        refused: bool,
        served: bool = True,
        retry_after: float | None = None,
        held_until: float | None = None,
    ) -> None:
        full = self._places.taken(now) >= FULL * self.limit
        if refused:
            self._refusals += 1
            if self._is_refused(permit, now, retry_after):
                held_until = permit.left_at + self.call_seconds
        self._places.give_back(held_until=held_until)
        if served and not refused:
            self._works(permit, now, full)

    def opens_at(self, now: float) -> float | None:
        if now < self._closed_until:
            return self._closed_until
        if self._places.taken(now) >= self.limit:
            return self._places.next_free()
        return None if self._spacing is None else self._spacing.opens_at(now)

    def gauge(self, now: float) -> Gauge:
        taken = self._places.taken(now)
        at_most = taken >= self.limit >= self._most
        return Gauge(
            limit=self.limit,
            taken=taken,
            ceiling=self.ceiling,
            spacing=None if self._spacing is None else self._spacing.rate,
            closed=max(self._closed_until - now, 0.0),
            cap=Cap.AUTO if at_most else None,
        )

    @property
    def call_seconds(self) -> float:
        """How long a call takes, smoothed."""
        return CALL_SECONDS if self._call_seconds is None else self._call_seconds

    # Calls that were served

    def _works(self, permit: Permit, now: float, full: bool) -> None:
        self._pause = FIRST_PAUSE_SECONDS
        took = now - permit.left_at
        self._call_seconds = self.call_seconds + SMOOTHING * (took - self.call_seconds)
        # Those that were refused meanwhile had no place there.
        together = permit.in_flight - (self._refusals - permit.refusals)
        self._proven.seen(together, now)
        if permit.left_at > self._cut_at:
            self._since_cut = max(self._since_cut, together)
        self._served.append(now)
        while self._served[0] < now - RATE_SECONDS:
            self._served.popleft()
        if self._rate is not None:
            self._space_less(now, full)
        elif not self._slow_start:
            self._climb.works(now, full=full, call_seconds=self.call_seconds)
        elif full and self.limit < self._most:
            self._climb.base += 1
        # At the most there is to be had, slow start just goes on: nothing is proved.

    def _space_less(self, now: float, full: bool) -> None:
        """With spacing on: try a higher rate, or do without."""
        assert self._rate is not None  # noqa: S101  # said by the caller
        if not full:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        elif now - self._full_since > UNSPACED_SECONDS:
            self._spacing = self._rate = self._full_since = None
            return
        self._rate.reached(now)
        self._rate.works(now, full=not full, call_seconds=self.call_seconds)
        self._set_rate()

    # Calls that were refused

    def _is_refused(self, permit: Permit, now: float, retry_after: float | None) -> bool:
        """Take a refusal into account; whether the call keeps its place for a while."""
        pause = 0.0
        if retry_after is not None:
            pause = min(retry_after, LONGEST_RETRY_AFTER_SECONDS)
            self._closed_until = max(self._closed_until, now + pause)
        if permit.left_at <= self._cut_at:
            return False  # it left before the last cut, which was about it, too
        strange = self._since_cut >= permit.in_flight and (
            permit.in_flight <= BELOW_PROVEN * self._proven.most(now) or self.limit == 1
        )
        self._cut_at, self._since_cut = now, 0
        if self._rate is not None:
            self._rate.refused(
                now, used=self._rate.base, call_seconds=self.call_seconds, pause=pause
            )
            self._set_rate()
            return False
        if strange:
            self._strange.append(now)
            full = len(self._strange) == STRANGE_REFUSALS
            if full and now - self._strange[0] < PROVEN_SECONDS:
                self._space_out(now)
                return False
        return self._fewer_places(permit, now, pause)

    def _fewer_places(self, permit: Permit, now: float, pause: float) -> bool:
        tried = self._climb.trying
        if self._slow_start:
            overshot = min(self.limit, permit.in_flight - 1)
            self._climb = self._climb_from(int(AFTER_SLOW_START * overshot))
            self._slow_start = False
        elif self.limit == 1:
            self._closed_until = max(self._closed_until, now + self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        else:
            self._climb.refused(
                now, used=permit.in_flight, call_seconds=self.call_seconds, pause=pause
            )
            self._climb.base = max(int(self._climb.base), 1)
        return not tried

    def _climb_from(self, base: int) -> Climb:
        return Climb(base, unit=1, share=1 / 8, least=1, most=self._most)

    def _space_out(self, now: float) -> None:
        """Turn spacing on, at the rate at which calls were served lately."""
        rate = max(len(self._served), 1) / RATE_SECONDS
        self._rate = Climb(rate, unit=rate * RATE_UNIT, share=0.4, least=0.01, most=math.inf)
        self._spacing = Spacing(rate)
        self._spacing.sent(now)
        # The rate holds from now on; the places are as many as were of use before.
        self._climb = self._climb_from(max(self._proven.most(now), self.limit))
        self._strange.clear()

    def _set_rate(self) -> None:
        if self._spacing is not None and self._rate is not None:
            self._spacing.rate = self._rate.value


class _Lately:
    """The largest of the numbers seen in the last while: between one and two `PROVEN_SECONDS`."""

    def __init__(self) -> None:
        self._began = -math.inf
        self._now = self._before = 0

    def seen(self, number: int, now: float) -> None:
        if now - self._began >= PROVEN_SECONDS:
            self._began, self._before, self._now = now, self._now, 0
        self._now = max(self._now, number)

    def most(self, now: float) -> int:
        return max(self._now, self._before)
