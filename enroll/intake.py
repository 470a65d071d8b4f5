"""From the manifest to rows whose photos have been read: scanned, compared, queued, read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from enroll import journey
from enroll.journey import Policy
from enroll.model import Candidate, Photo, ScannedRow, Status, Unusable
from enroll.photo import read_photo
from enroll.recorder import Recorder
from enroll.rules import check_row
from enroll.scan import Scan


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A due row and what reading its photo came to."""

    due: Candidate
    photo: Photo | Unusable


class Submit(Protocol):
    """Runs a task on an executor; later the driver calls `heard` with its value."""

    def __call__(
        self, executor: Executor, heard: Callable[[Any], None], task: Callable[..., Any], *args: Any
    ) -> None: ...


class Intake:
    """Keeps rows read ahead. Every method runs on the driver's thread."""

    def __init__(
        self,
        scan: Scan,
        recorder: Recorder,
        *,
        policy: Policy,
        images: str,
        limit: int | None,
        reread: bool,
    ) -> None:
        """`images` is the resolved images root; `limit` the most rows to take up, if any."""
        self._scan = scan
        self._recorder = recorder
        self._policy = policy
        self._images = images
        self._limit = limit
        self._reread = reread
        self._scanning = False
        self._queued = 0
        self._taken = 0
        self._again: deque[Candidate] = deque()
        self.reading = 0
        """Photos that are being read."""
        self.read: deque[ReadRow] = deque()
        """Rows whose photo has been read, in the order in which that happened."""

    @property
    def scanned(self) -> bool:
        """Whether the whole manifest has been compared with the ledger."""
        return self._recorder.tally.scanned

    @property
    def left(self) -> int:
        """Due rows that have not been taken up."""
        return self._queued - self._taken

    @property
    def waiting(self) -> int:
        """Rows that were taken up and whose photo has to be read (again)."""
        return len(self._again)

    @property
    def may_take(self) -> int:
        """Due rows that may still be taken up: all, or what `limit` leaves of them."""
        return self.left if self._limit is None else min(self.left, self._limit - self._taken)

    def scan_on(self, submit: Submit, executor: Executor) -> None:
        """Have the next rows of the manifest read, unless that is under way or done."""
        if not self._scanning and not self.scanned:
            self._scanning = True
            submit(executor, self._hear_rows, self._scan.next_chunk)

    def read_later(self, due: Candidate) -> None:
        """Take a row up again, before those that have not been taken up yet."""
        self._again.append(due)

    def feed(
        self, submit: Submit, executor: Executor, *, room: int, park: Callable[[Candidate], bool]
    ) -> None:
        """Have the photos of the next due rows read, at most `room`.

        `park` keeps a row that has to wait for another of its person, and says whether so.
        """
        taken = [self._again.popleft() for _ in range(min(room, len(self._again)))]
        fresh = min(room - len(taken), self.may_take)
        if fresh > 0:
            found = self._recorder.ledger.next_due(fresh)
            self._taken += len(found)
            taken += found
        for due in taken:
            if park(due):
                continue
            self.reading += 1
            submit(executor, partial(self._hear_photo, due), read_photo, due.row.path, self._images)

    def _hear_photo(self, due: Candidate, photo: Photo | Unusable) -> None:
        self.reading -= 1
        self.read.append(ReadRow(due, photo))

    def _hear_rows(self, rows: list[ScannedRow] | None) -> None:
        self._scanning = False
        if rows is None:
            self._recorder.tally.scanned = True
        else:
            self._compare(rows)
        self._recorder.observer.scanned(self._recorder.tally)

    def _compare(self, rows: list[ScannedRow]) -> None:
        recorder, tally = self._recorder, self._recorder.tally
        compared = recorder.ledger.compare(rows, run=recorder.run, reread=self._reread)
        recorder.noted()
        tally.unchanged += compared.unchanged
        tally.user_data_changed += compared.user_data_changed
        tally.gone += compared.gone
        tally.statuses[Status.ENROLLED] += compared.unchanged + compared.gone
        due = []
        for candidate in compared.candidates:
            fault = check_row(candidate.row)
            known = fault is not None and (candidate.status, candidate.code) == (
                Status.INVALID,
                fault.code,
            )
            if known:
                tally.count(
                    candidate.status, candidate.code, candidate.message, lines=candidate.lines
                )
            elif fault is not None:
                tally.due += candidate.lines
                recorder.row_ends(candidate, Status.INVALID, fault.code, fault.message)
            elif journey.is_due(candidate, self._policy):
                tally.due += candidate.lines
                due.append(candidate)
            else:
                tally.count(
                    candidate.status, candidate.code, candidate.message, lines=candidate.lines
                )
        recorder.ledger.queue(due)
        self._queued += len(due)
