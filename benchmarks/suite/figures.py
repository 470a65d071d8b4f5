"""What was measured: medians over the rounds, with ratios to ours, as a table and as CSV."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enroll.text.wording import columns

OURS = "enroll"
"""The way to which the ratios of a case are."""

HEAD = ("case", "way", "measure", "value", "unit", "low", "high", "rounds", "ratio", "target")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measure of a case done one way: the median, and the extremes, of so many rounds."""

    case: str
    way: str
    measure: str
    value: float
    unit: str
    low: float
    high: float
    rounds: int
    target: str = ""


def figure(
    case: str, way: str, measure: str, *, values: Sequence[float], unit: str, target: str = ""
) -> Figure:
    """The figure of the values of all rounds; `target` is put to ours alone."""
    return Figure(
        case=case,
        way=way,
        measure=measure,
        value=statistics.median(values),
        unit=unit,
        low=min(values),
        high=max(values),
        rounds=len(values),
        target=target if way == OURS else "",
    )


def rows(figures: Iterable[Figure]) -> list[tuple[str, ...]]:
    """The cells of every figure, in the order of HEAD; `ratio` is value / ours."""
    figures = list(figures)
    ours = {(one.case, one.measure): one.value for one in figures if one.way == OURS}
    return [
        (
            one.case,
            one.way,
            one.measure,
            _number(one.value),
            one.unit,
            _number(one.low),
            _number(one.high),
            str(one.rounds),
            _ratio(one, ours),
            one.target,
        )
        for one in figures
    ]


def table(figures: Iterable[Figure]) -> list[str]:
    """The figures as lines for people."""
    return columns([HEAD, *rows(figures)])


def write_csv(path: Path, figures: Iterable[Figure]) -> None:
    """The figures as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEAD, *rows(figures)])


def _ratio(one: Figure, ours: Mapping[tuple[str, str], float]) -> str:
    base = ours.get((one.case, one.measure), 0.0)
    return "" if one.way == OURS or not base else f"{one.value / base:.2f}"


def _number(value: float) -> str:
    """Three digits that mean something, more where it is a whole number."""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
