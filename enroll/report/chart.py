"""The runs as charts: numbers for the template's SVG, from what the ledger has on record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from enroll.ledger import RunRecord
from enroll.text.wording import duration

WIDTH, HEIGHT = 720.0, 100.0
"""Of a panel, in the SVG's units."""

LEAST_POINTS = 4
"""Of a run's course: fewer make no curve."""

RUNS_DRAWN = 3
"""Runs of which the course is drawn: the latest with one."""

_STEPS = (1, 2, 3, 4, 5, 10)


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of a scale and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What was answered and refused in a span of time, as a column."""

    x: float
    width: float
    answered: float
    refused: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One run over time: calls in flight as a line, answers and refusals as columns below it."""

    run: int
    line: str
    area: str
    bars: Sequence[Bar]
    flight_ticks: Sequence[Tick]
    rate_ticks: Sequence[Tick]
    time_ticks: Sequence[Tick]
    limit: float | None


def courses(runs: Sequence[RunRecord]) -> list[Course]:
    """The latest runs whose course is on record, the latest first."""
    drawn = [course for run in runs if (course := _course(run)) is not None]
    return drawn[:RUNS_DRAWN]


def _course(run: RunRecord) -> Course | None:
    if len(run.course) < LEAST_POINTS:
        return None
    points = [(0.0, 0.0, 0, 0), *run.course]
    seconds = points[-1][0]
    if seconds <= 0:
        return None
    ceiling = None if run.pace is None else run.pace.ceiling
    flight_ticks = _ticks(max(ceiling or 0, *(in_flight for _, in_flight, _, _ in points)))
    rates = []
    for (at, _, calls, refused), (then, _, more, more_refused) in pairwise(points):
        span = max(then - at, 0.05)
        turned_down = (more_refused - refused) / span
        rates.append((at, then, max((more - calls) / span - turned_down, 0.0), turned_down))
    rate_ticks = _ticks(max(answered + refused for _, _, answered, refused in rates))

    def x(at: float) -> float:
        return round(at / seconds * WIDTH, 1)

    def y(value: float, ticks: Sequence[tuple[float, str]]) -> float:
        return round(HEIGHT - value / ticks[-1][0] * HEIGHT, 1)

    # A point says how many were in flight on average since the one before.
    steps = [
        f"{x(at)},{y(flight, flight_ticks)} {x(then)},{y(flight, flight_ticks)}"
        for (at, _, _, _), (then, flight, _, _) in pairwise(points)
    ]
    line = " ".join(steps)
    return Course(
        run=run.run,
        line=line,
        area=f"0,{HEIGHT} {line} {WIDTH},{HEIGHT}",
        bars=[
            Bar(
                x=x(at),
                width=max(round(x(then) - x(at) - 0.6, 1), 0.4),
                answered=round(HEIGHT - y(answered, rate_ticks), 1),
                refused=round(HEIGHT - y(refused, rate_ticks), 1),
            )
            for at, then, answered, refused in rates
        ],
        flight_ticks=[Tick(y(value, flight_ticks), label) for value, label in flight_ticks],
        rate_ticks=[Tick(y(value, rate_ticks), label) for value, label in rate_ticks],
        time_ticks=[
            Tick(0.0, "0"),
            *(
                Tick(x(share * seconds), duration(share * seconds))
                for share in (0.25, 0.5, 0.75, 1)
            ),
        ],
        limit=None if ceiling is None else y(ceiling, flight_ticks),
    )


def _ticks(most: float) -> list[tuple[float, str]]:
    """Two or three round numbers from 0 to at least `most`."""
    most = max(most, 1.0)
    step = 1.0
    while True:
        for factor in _STEPS:
            if most <= 2 * factor * step:
                return [(n * factor * step, f"{n * factor * step:,.0f}") for n in range(3)]
        step *= 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run in the table of runs, with its calls as shares of the largest run's, in percent."""

    record: RunRecord
    calls: int
    answered: int
    refused: int
    answered_share: float
    refused_share: float
    took: str


def run_rows(runs: Sequence[RunRecord]) -> list[RunRow]:
    """Runs that made calls, the latest first."""
    counted = []
    for run in runs:
        calls = run.pace.calls if run.pace is not None else 0
        if run.end is not None:
            calls = sum(run.end.calls.values())
        counted.append((run, calls, min(run.pace.refused, calls) if run.pace is not None else 0))
    most = max((calls for _, calls, _ in counted), default=0) or 1
    return [
        RunRow(
            record=run,
            calls=calls,
            answered=calls - refused,
            refused=refused,
            answered_share=round(100 * (calls - refused) / most, 2),
            refused_share=round(100 * refused / most, 2),
            took="" if run.end is None else duration((run.end.at - run.start.at) / 1000),
        )
        for run, calls, refused in counted
    ]
