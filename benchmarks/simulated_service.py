"""A service with a hidden limit, and a client that keeps it busy, in simulated time.

Nothing waits: a heap of events stands for half an hour within a second or so. The same seed gives
the same run. Times are seconds.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from enroll.limiter.limits import CallEnd, Limiter, Slot

NETWORK_SECONDS = 0.01
"""One way between client and service."""

CALL_SECONDS = 0.5
"""What a call takes in the mean, both ways and the answer included."""

SPREAD = 0.3
"""The standard deviation of that, as a share of it."""


class _Event(Enum):
    ARRIVES = "arrives"  # a call, at the service
    LEAVES = "leaves"  # the service has done its work
    ANSWERED = "answered"
    WAKES = "wakes"  # the client, to send what it may now


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the service does: `limit(t)` calls at a time, of which others hold `others(t)`, and at
    most `per_second` in each second of its clock."""

    limit: Callable[[float], int] = lambda t: 1_000_000
    others: Callable[[float], int] = lambda t: 0
    per_second: int | None = None
    call_seconds: float = CALL_SECONDS
    retry_after: float | None = None


@dataclass(kw_only=True)
class Outcome:
    """What came of a run from `warm_up` on: calls served and refused, and what an oracle that
    knows the limit would have had served. `limits` are (time, limit of the throttle)."""

    served: int = 0
    refused: int = 0
    ideal: float = 0.0
    limits: list[tuple[float, int]] = field(default_factory=list)
    worst_excess: int = 0
    """By how many more calls were in flight at a sending than the limit was then."""

    @property
    def throughput(self) -> float:
        """As % of the oracle's."""
        return 100 * self.served / self.ideal

    @property
    def refused_share(self) -> float:
        """As % of all calls."""
        calls = self.served + self.refused
        return 100 * self.refused / calls if calls else 0.0


class Simulation:
    """One client with endless work, one service. `limiter` decides when calls leave."""

    def __init__(self, limiter: Limiter, service: Service, *, seed: int) -> None:
        self._limiter = limiter
        self._service = service
        self._chance = random.Random(seed)
        self._events: list[tuple[float, int, _Event, Slot | None, bool]] = []
        self._order = itertools.count()
        self._busy = 0  # calls that the service works on
        self._second = -1
        self._in_second = 0
        self._in_flight = 0
        self._woken = float("-inf")

    def serve(self, service: Service) -> None:
        """From now on it is another service."""
        self._service = service

    def run(self, seconds: float, *, warm_up: float = 60.0) -> Outcome:
        """Let time pass up to that moment; what comes before `warm_up` does not count."""
        outcome = Outcome(ideal=self._ideal(warm_up, seconds))
        if not self._events:
            self._at(0.0, _Event.WAKES)
        while self._events and self._events[0][0] <= seconds:
            now, _, event, slot, refused = heapq.heappop(self._events)
            if event is _Event.ARRIVES:
                assert slot is not None
                self._arrives(now, slot)
            elif event is _Event.LEAVES:
                self._busy -= 1
            elif event is _Event.ANSWERED:
                assert slot is not None
                self._in_flight -= 1
                self._limiter.release(
                    slot,
                    now,
                    CallEnd.REFUSED if refused else CallEnd.SERVED,
                    retry_after=self._service.retry_after if refused else None,
                )
                if now >= warm_up:
                    outcome.refused += refused
                    outcome.served += not refused
            self._send(now, outcome)
        return outcome

    def _ideal(self, warm_up: float, seconds: float) -> float:
        service, ideal = self._service, 0.0
        for second in range(int(warm_up), int(seconds)):
            places = service.limit(second) - service.others(second)
            rate = places / service.call_seconds
            ideal += rate if service.per_second is None else min(rate, service.per_second)
        return ideal

    def _at(
        self, at: float, event: _Event, slot: Slot | None = None, refused: bool = False
    ) -> None:
        heapq.heappush(self._events, (at, next(self._order), event, slot, refused))

    def _send(self, now: float, outcome: Outcome) -> None:
        while self._limiter.free(now) > 0:
            slot = self._limiter.sent(now)
            self._in_flight += 1
            excess = self._in_flight - self._limiter.limit
            outcome.worst_excess = max(outcome.worst_excess, excess)
            self._at(now + self._way(), _Event.ARRIVES, slot)
        opens_at = self._limiter.opens_at(now)
        if opens_at is not None and not now < self._woken <= opens_at:
            self._woken = max(opens_at, now + 1e-6)
            self._at(self._woken, _Event.WAKES)
        if not outcome.limits or outcome.limits[-1][1] != self._limiter.limit:
            outcome.limits.append((now, self._limiter.limit))

    def _arrives(self, now: float, slot: Slot) -> None:
        service = self._service
        if int(now) != self._second:
            self._second, self._in_second = int(now), 0
        full = self._busy + service.others(now) >= service.limit(now)
        too_many = service.per_second is not None and self._in_second >= service.per_second
        if full or too_many:
            self._at(now + self._way(), _Event.ANSWERED, slot, refused=True)
            return
        self._in_second += 1
        self._busy += 1
        mean = service.call_seconds - 2 * NETWORK_SECONDS
        took = self._chance.gammavariate(SPREAD**-2, mean * SPREAD**2)
        self._at(now + took, _Event.LEAVES)
        self._at(now + took + self._way(), _Event.ANSWERED, slot)

    def _way(self) -> float:
        return NETWORK_SECONDS * self._chance.uniform(0.5, 1.5)
