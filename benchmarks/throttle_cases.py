"""How well limits of calls in flight are held: ours beside others, in simulated time.

    python benchmarks/throttle_cases.py --minutes 30

Throughput is a share of what an oracle that knows the limit would have; after a minute of warm-up.
"""

from __future__ import annotations

import random
import runpy
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from enroll.limiter.adaptive import SHARE, STEEP, AdaptiveLimiter
from enroll.limiter.limits import FixedLimiter, Limiter, Slot, SlotLimiter
from enroll.limiter.rate import LONGEST_INTERVAL_SECONDS, PAUSES_OF_AN_INTERVAL, Climb

_model: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("simulated_service.py")))
Service, Simulation = _model["Service"], _model["Simulation"]


QUICK_STEP = "16→6→24 in 9 min"
"""The name of the case whose time is over after nine minutes."""


class Aimd(SlotLimiter):
    """The usual: one slot more for each round trip, ×0.9 at a refusal, once a round trip."""

    def __init__(self) -> None:
        super().__init__()
        self._slots = 4.0
        self._cut_at = float("-inf")

    @property
    def limit(self) -> int:
        return max(int(self._slots), 1)

    def _served(self, slot: Slot, now: float) -> None:
        self._slots += 1 / self._slots

    def _refused(self, slot: Slot, now: float, retry_after: float | None) -> None:
        if slot.left_at > self._cut_at:
            self._cut_at = now
            self._slots = max(self._slots * 0.9, 1.0)


def step(seed: int, *, each: float) -> Callable[[float], int]:
    """16 calls, then 6, then 24, for so many seconds each, at moments no try is tuned to."""
    chance = random.Random(seed)
    falls, rises = each + chance.uniform(0, 30), 2 * each + chance.uniform(0, 30)
    return lambda t: 16 if t < falls else 6 if t < rises else 24


def others(seed: int) -> Callable[[float], int]:
    """What others hold of 32 slots: 0 to 16, another number every 5 to 20 s."""
    chance, moments, at = random.Random(seed), [(0.0, 8)], 0.0
    while at < 3600:
        at += chance.uniform(5, 20)
        moments.append((at, chance.randint(0, 16)))

    begins = [since for since, _ in moments]
    return lambda t: moments[bisect_right(begins, t) - 1][1]


def lively(seed: int) -> Callable[[float], int]:
    """The same, but call by call: 12 in the mean, each of half a second."""
    chance, at = random.Random(seed), 0.0
    held: dict[int, int] = {}  # by twentieths of a second
    while at < 3600:
        at += chance.expovariate(24)
        until = at + chance.gammavariate(10, 0.05)
        for tick in range(int(at * 20), int(until * 20)):
            held[tick] = held.get(tick, 0) + 1
    return lambda t: min(held.get(int(t * 20), 0), 31)


def cases(seed: int) -> dict[str, Any]:
    """The services, by name; the last three count calls a second, not calls at a time."""
    return {
        "L=4": Service(limit=lambda t: 4),
        "L=16": Service(limit=lambda t: 16),
        "L=64": Service(limit=lambda t: 64),
        "L=100": Service(limit=lambda t: 100),
        "16→6→24": Service(limit=step(seed, each=600)),
        QUICK_STEP: Service(limit=step(seed, each=180)),
        "shared": Service(limit=lambda t: 32, others=others(seed)),
        "lively": Service(limit=lambda t: 32, others=lively(seed)),
        "20/s": Service(per_second=20),
        "5/s, 0.1 s": Service(per_second=5, call_seconds=0.1),
        "20/s, 0.2 s": Service(per_second=20, call_seconds=0.2),
    }


class PatientClimb(Climb):
    """Tries as seldom after a fall as else."""

    def refused(self, now: float, *, used: float, call_seconds: float, pause: float) -> None:
        tried, interval = self.trying, self._interval
        super().refused(now, used=used, call_seconds=call_seconds, pause=pause)
        if tried:
            self._interval = min(2 * interval, LONGEST_INTERVAL_SECONDS)
            self._next_try = now + max(self._interval, PAUSES_OF_AN_INTERVAL * pause)


class AsDesigned(AdaptiveLimiter):
    """Ceiling memory alone: refused calls give their slots back, calls are never spaced out, and
    after a fall no more is tried than else."""

    def _climb_from(self, base: int) -> Climb:
        return PatientClimb(base, unit=1, share=SHARE, least=1, most=self._most, steep=STEEP)

    def _refused(self, slot: Slot, now: float, retry_after: float | None) -> None:
        self._strange.clear()
        super()._refused(slot, now, retry_after)


THROTTLES: dict[str, Callable[[], Limiter]] = {
    "32 fixed with back-off": lambda: FixedLimiter(32),
    "AIMD ×0.9": Aimd,
    "ceiling memory alone": AsDesigned,
    "ours": AdaptiveLimiter,
}


@click.command()
@click.option("--minutes", default=30.0, show_default=True, help="Simulated time of each run.")
@click.option("--seeds", default=3, show_default=True, help="Runs of each case, averaged.")
def main(minutes: float, seeds: int) -> None:
    """Print throughput (% of the oracle's) / refused calls (%) for every throttle and case."""
    names = list(cases(0))
    click.echo(" | ".join(["", *names]))
    for title, make in THROTTLES.items():
        cells = []
        for name in names:
            runs = [
                Simulation(make(), cases(seed)[name], seed=seed).run(
                    60 * (min(minutes, 9) if name == QUICK_STEP else minutes)
                )
                for seed in range(seeds)
            ]
            share = sum(run.throughput for run in runs) / seeds
            refused = sum(run.refused_share for run in runs) / seeds
            cells.append(f"{share:.1f}/{refused:.2f}")
        click.echo(" | ".join([title, *cells]))


if __name__ == "__main__":
    main()
