"""What became of a run's rows and calls: counted while it goes on, told when it has ended."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from enroll.errors import EnrollError
from enroll.ledger import RunPace
from enroll.model import CallKind, Candidate, Fault, SharedPhoto, Status

BAD = (Status.REJECTED, Status.INVALID, Status.FAILED)
"""Statuses that make exit code 1."""

SHARED_SHOWN = 3
"""Photos of several people that the summary names."""


class Latencies:
    """How long calls took: any number of them, in counts by size, each right to one percent."""

    _STEP = math.log(1.02)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count a call; what took less than a tenth of a millisecond took that."""
        self._counts[round(math.log(max(seconds, 1e-4)) / self._STEP)] += 1

    def quantile(self, share: float) -> float | None:
        """The seconds within which that share of the calls (0 to 1) ended; None without any."""
        rank = max(math.ceil(share * self._counts.total()), 1)
        for size, count in sorted(self._counts.items()):
            rank -= count
            if rank <= 0:
                return math.exp(size * self._STEP)
        return None


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts over the lines of one manifest in one run.

    `codes` counts the lines of a status by error code, `examples` has one message for each.
    `new_bad` are lines that were not in their bad state before. `adopted`, `not_applied` and
    `surplus` are faces whose doubts were settled, `in_doubt_now` those that are being settled,
    `others_in_doubt` those that stay so and are none of the manifest's; `unchecked` are faces that
    were sent again and could not be looked for once more.
    `renewed` are lines whose face was added anew with their text, `not_renewed` those of which that
    could not be done.
    `recognised` are due lines whose face turned out to be enrolled already. `due` is complete
    once `scanned` is set; until then `unscanned` lines, at most, may be due, too. `pace` is how the
    run goes now; `waited` counts moments by what was waited for. `undeleted` are faces of which it
    is not known whether they were deleted. Of a trial, `sampled` lines were
    drawn from those that are due and `left_out` not; `drawn` counts by what became of them.
    `service_took` and `calls_took` are how long answered calls of `add` took, by the service's own
    word and as a whole; those that it had no place for are left out.
    `precheck_warnings` are lines whose photos were sent although `--precheck` found a fault, by
    its code.
    """

    statuses: Counter[Status] = field(default_factory=Counter)
    codes: Counter[tuple[Status, str]] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    calls: Counter[CallKind] = field(default_factory=Counter)
    refused: int = 0
    service_took: Latencies = field(default_factory=Latencies)
    calls_took: Latencies = field(default_factory=Latencies)
    due: int = 0
    done: int = 0
    scanned: bool = False
    unscanned: int = 0
    sampled: int = 0
    left_out: int = 0
    drawn: Counter[Status] = field(default_factory=Counter)
    enrolled_now: int = 0
    renewed: int = 0
    not_renewed: int = 0
    recognised: int = 0
    new_bad: int = 0
    unchanged: int = 0
    user_data_changed: int = 0
    gone: int = 0
    kept: int = 0
    precheck_warnings: Counter[str] = field(default_factory=Counter)
    superseded: int = 0
    shared: int = 0
    shared_examples: list[SharedPhoto] = field(default_factory=list)
    adopted: int = 0
    not_applied: int = 0
    surplus: int = 0
    in_doubt_now: int = 0
    others_in_doubt: int = 0
    undeleted: int = 0
    pace: RunPace | None = None
    waited: Counter[str] = field(default_factory=Counter)
    unchecked: int = 0

    def count(self, status: Status, code: str, message: str, *, lines: int) -> None:
        """Add lines that ended as `status`."""
        self.statuses[status] += lines
        if code:
            self.codes[status, code] += lines
            self.examples.setdefault(code, message)

    @property
    def enrolled_before(self) -> int:
        """Lines that were enrolled before the run."""
        return self.unchanged + self.recognised + self.gone

    @property
    def bad(self) -> int:
        """Lines that are rejected, invalid or failed."""
        return sum(self.statuses[status] for status in BAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended: by itself when all of the rest is None.

    `stop` is what stopped it, `signal` the signal that did, `bound` the sentence of a bound
    that was met (`--limit`, `--give-up-after`). `scanned_after` is how many of the
    `seconds` the scan of the manifest took.
    """

    tally: Tally
    seconds: float
    scanned_after: float = 0.0
    stop: EnrollError | None = None
    signal: int | None = None
    bound: str | None = None


class Observer:
    """Hears how a run goes on, from the driver's thread, and does nothing about it: a subclass
    overrides what it wants to know. It must be quick and not raise."""

    def scanned(self, tally: Tally) -> None:
        """More of the manifest has been compared with the ledger."""

    def finished(self, row: Candidate, status: Status, code: str, message: str) -> None:
        """A due row has its outcome; it counts in `Tally.done` already."""

    def precheck_warning(self, row: Candidate, fault: Fault) -> None:
        """A due row's photo is sent although something is amiss with the face in it."""

    def ticked(self, tally: Tally) -> None:
        """Something may have happened; called a few times a second at most."""

    def waits(self, what: str) -> None:
        """Nothing has moved for a minute, because the run waits for what the sentence says."""

    def unreached(self, seconds: float, code: str, because: str) -> None:
        """The service has not been reached for so long; told again and again while it is so."""

    def reached(self) -> None:
        """The service is there again."""
