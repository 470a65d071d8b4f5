"""When one error over and over has to stop a run, and when calls must go one at a time. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from enroll.model import Answer, Verdict

RUNNING = 20
"""The same error so many times running stops the run: a handful of calls, and more
than a few bad rows that happen to stand together."""

WINDOW = 100
"""Answers that are looked back on for the same error now and then in between."""

MOST = 90
"""The same error so many times among the last WINDOW answers stops the run."""

UNKNOWN_RUNNING = 10
"""So many answers that prove nothing, with no definite one between: one call at a time."""

LONGEST_CAUTION = 60.0
"""Seconds between two calls that go one at a time, at the most."""


@dataclass(slots=True)
class Breaker:
    """Hears every answer to an `add` call that was let in."""

    _last: deque[str] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _running: int = 0
    _unknown: int = 0
    _caution: float = 1.0
    _not_before: float = float("-inf")

    def heard(self, answer: Answer, *, rejected: bool, now: float) -> str | None:
        """Take an answer into account; the code to stop the run for, if it has come too often.

        `rejected` says that a rule made it a rejection, as known codes are: those never stop a
        run, as a bad row must not.
        """
        definite = answer.verdict in (Verdict.APPLIED, Verdict.REJECTED)
        if definite:
            self._unknown = 0
            self._caution = 1.0
        elif answer.verdict is Verdict.UNKNOWN:
            self._unknown += 1
            # Calls that were in flight together count, but only the first lengthens the wait.
            if self._unknown >= UNKNOWN_RUNNING and now >= self._not_before:
                self._not_before = now + self._caution
                self._caution = min(2 * self._caution, LONGEST_CAUTION)
        code = "" if definite or rejected else answer.code
        self._running = self._running + 1 if self._last and self._last[-1] == code else 1
        self._last.append(code)
        if code and (self._running >= RUNNING or self._last.count(code) >= MOST):
            return code
        return None

    def may_send(self, in_flight: int, now: float) -> bool:
        """Whether one more call may leave, beside so many that are in flight."""
        if self._unknown < UNKNOWN_RUNNING:
            return True
        return in_flight == 0 and now >= self._not_before

    def next_due(self) -> float | None:
        """When the next call may leave, if they go one at a time (monotonic seconds)."""
        return self._not_before if self._unknown >= UNKNOWN_RUNNING else None
