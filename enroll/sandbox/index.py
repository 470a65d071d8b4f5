"""Ranks the faces of one library by likeness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .faces import LIKENESS_LENGTH, Likeness

# Grey crops of any two upright faces are alike to begin with. The power spreads the scores so
# that different people mostly stay below the vendor's recommended thresholds of 75 to 90.
_SPREAD = 12


class LikenessIndex:
    """A matrix with a row a face. Not safe to share between threads; its library locks."""

    def __init__(self) -> None:
        self._matrix: NDArray[np.float32] = np.empty((64, LIKENESS_LENGTH), dtype=np.float32)
        self._visible_from: NDArray[np.float64] = np.empty(64, dtype=np.float64)
        self._tokens: list[str] = []
        self._row_of: dict[str, int] = {}

    def add(self, token: str, likeness: Likeness, *, visible_from: float = 0.0) -> None:
        """Make the face findable from `visible_from` on (UNIX seconds)."""
        row = len(self._tokens)
        if row == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.empty_like(self._matrix)])
            self._visible_from = np.concatenate(
                [self._visible_from, np.empty_like(self._visible_from)]
            )
        self._matrix[row] = likeness
        self._visible_from[row] = visible_from
        self._tokens.append(token)
        self._row_of[token] = row

    def remove(self, token: str) -> None:
        """Take a face out; the last row takes its place."""
        row, last = self._row_of.pop(token), len(self._tokens) - 1
        if row != last:
            self._matrix[row] = self._matrix[last]
            self._visible_from[row] = self._visible_from[last]
            self._tokens[row] = self._tokens[last]
            self._row_of[self._tokens[row]] = row
        self._tokens.pop()

    def search(
        self, likeness: Likeness, *, now: float, limit: int, threshold: float
    ) -> list[tuple[str, float]]:
        """Tokens and scores (0 to 100, three decimals), best first; 100 is the same picture."""
        count = len(self._tokens)
        cosines = np.clip(self._matrix[:count] @ likeness, 0.0, 1.0).astype(np.float64)
        scores = np.round(100.0 * cosines**_SPREAD, 3)
        scores[self._visible_from[:count] > now] = -1.0
        best = np.argsort(-scores, kind="stable")[:limit]
        return [
            (self._tokens[row], float(scores[row]))
            for row in best
            if scores[row] >= max(threshold, 0.0)
        ]
