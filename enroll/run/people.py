"""One face of a person at a time: who is busy, and which rows wait for that."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

from enroll.model import Candidate


class People:
    """Persons with a face that is on its way or in doubt.

    A row that waits is kept without its photo, so that many of them hold no memory.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Candidate]] = {}

    def __bool__(self) -> bool:
        """Whether anybody is busy."""
        return bool(self._waiting)

    def occupy(self, user_id: str) -> None:
        """A face of this person is under way from now on."""
        self._waiting.setdefault(user_id, deque())

    def park(self, due: Candidate) -> bool:
        """Keep a row back if its person is busy; whether so."""
        waiting = self._waiting.get(due.row.user_id)
        if waiting is None:
            return False
        waiting.append(due)
        return True

    def parked(self) -> Iterator[Candidate]:
        """Every row that waits."""
        return chain.from_iterable(self._waiting.values())

    def free(self, user_id: str) -> deque[Candidate]:
        """The person's face has its outcome; the rows that have waited for that."""
        return self._waiting.pop(user_id, deque())
