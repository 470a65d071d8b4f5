"""What a search with each photo must find: the scores that the stand-in draws, asked for here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from enroll.sandbox.matchers import ModelMatcher

from .staff import Photo, Row

RATES = {75.0: 1e-3, 80.0: 1e-4, 85.0: 1e-5, 90.0: 1e-6}
"""How often two people get such a score, as the vendor says."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos under different ids, and their score."""

    one: Row
    other: Row
    score: float

    @property
    def ids(self) -> frozenset[str]:
        return frozenset((self.one.user_id, self.other.user_id))

    @property
    def same_person(self) -> bool:
        return self.one.photo.person == self.other.photo.person


class Library:
    """The faces of a library, and how alike the stand-in takes photos to be."""

    def __init__(self, rows: Sequence[Row], *, seed: int) -> None:
        self.rows = list(rows)
        self._matcher = ModelMatcher(seed)
        self._known = np.array([_likeness(row.photo) for row in rows], dtype=np.float32)

    def scores(self, photo: Photo, *, start: int = 0) -> NDArray[np.float64]:
        """Of a photo and each face, from the one at `start` on; three decimals, as in answers."""
        likeness = np.array(_likeness(photo), dtype=np.float32)
        return np.round(self._matcher.scores(self._known[start:], likeness), 3)

    def score(self, one: Photo, other: Photo) -> float:
        """Of two photos."""
        known, likeness = (np.array(_likeness(photo), dtype=np.float32) for photo in (one, other))
        return float(np.round(self._matcher.scores(known[np.newaxis], likeness), 3)[0])

    def looks_like(self, row: Row, *, score: float) -> list[Pair]:
        """The faces under other ids that have this score or more with the row's photo."""
        return self._pairs(row, score=score, start=0)

    def lookalikes(self, *, score: float) -> list[Pair]:
        """All pairs of faces under different ids that have this score or more."""
        return [
            pair
            for place, row in enumerate(self.rows)
            for pair in self._pairs(row, score=score, start=place + 1)
        ]

    def _pairs(self, row: Row, *, score: float, start: int) -> list[Pair]:
        scores = self.scores(row.photo, start=start)
        return [
            Pair(row, self.rows[start + place], float(scores[place]))
            for place in np.flatnonzero(scores >= score)
            if self.rows[start + place].user_id != row.user_id
        ]

    def strangers(self) -> int:
        """How many pairs of photos show different people under different ids."""
        people: dict[int, int] = {}
        ids: dict[str, int] = {}
        both: dict[tuple[int, str], int] = {}
        for row in self.rows:
            person, key = row.photo.person, (row.photo.person, row.user_id)
            people[person] = people.get(person, 0) + 1
            ids[row.user_id] = ids.get(row.user_id, 0) + 1
            both[key] = both.get(key, 0) + 1
        alike = _among(people) + _among(ids) - _among(both)
        return len(self.rows) * (len(self.rows) - 1) // 2 - alike


@dataclass(frozen=True, slots=True)
class Expected:
    """A number of false pairs, and its standard deviation."""

    number: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.number:,.1f} ± {self.deviation:,.1f}"


def expected(comparisons: int, *, score: float) -> Expected:
    """How many of so many comparisons of different people the vendor's rates let pass."""
    exponent = np.interp(score, list(RATES), [np.log10(rate) for rate in RATES.values()])
    number = comparisons * 10.0 ** float(exponent)
    return Expected(number, sqrt(number))


def _likeness(photo: Photo) -> tuple[int, int]:
    return photo.person, photo.shot


def _among(counts: dict[int, int] | dict[str, int] | dict[tuple[int, str], int]) -> int:
    """Pairs within each of the groups."""
    return sum(count * (count - 1) // 2 for count in counts.values())
