"""What became of a run's rows and calls: counted during the run, reported at its end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from enroll.errors import EnrollError
from enroll.ledger import RunPace
from enroll.manifest.suspects import NONE, Suspects
from enroll.model import CallKind, Candidate, Fault, SharedPhoto, Status

BAD = (Status.REJECTED, Status.INVALID, Status.FAILED, Status.HELD)
"""Statuses that make exit code 1."""

SHARED_SHOWN = 3
"""Photos of several people that the summary names."""


class Latencies:
    """How long calls took: any number of them, counted in buckets accurate to one percent."""

    _STEP = math.log(1.02)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count a call; less than a tenth of a millisecond counts as that."""
        self._counts[round(math.log(max(seconds, 1e-4)) / self._STEP)] += 1

    def quantile(self, share: float) -> float | None:
        """The seconds within which `share` (0 to 1) of the calls ended; None without any calls."""
        rank = max(math.ceil(share * self._counts.total()), 1)
        for size, count in sorted(self._counts.items()):
            rank -= count
            if rank <= 0:
                return math.exp(size * self._STEP)
        return None


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts over the lines of one manifest in one run.

    Lines: `codes` counts the lines of each status by error code, and `examples` has one message
    for each code. `new_bad` lines were not in their bad state before. `renewed` lines had their
    face added again with the new text; for `not_renewed` lines that failed. `recognised` are due
    lines whose face turned out to be enrolled already. `warnings` counts the lines whose photos
    were sent although `--precheck` or `--lookalikes` found a fault, by its code. `due` is complete
    once `scanned` is set; until then, up to `unscanned` more lines may be due. This run processes
    `expected` lines, at most so many until `scanned` is set: those due, or as many as `--limit` or
    `--sample` allows.

    `held_now` counts the lines that were held in this run, by code. `swapped` are pairs of people
    who are held because each new photo looks like the other's present face; this run has held at
    least one of them.

    `suspects` are lines that are probably mistakes.
    The manifest has at most `rows` lines, as blank ones count. A run that ends before it has
    compared them all leaves up to `not_reached` of them without a status.

    Faces: `adopted`, `not_applied` and `surplus` are faces whose doubt was settled, `in_doubt_now`
    those whose doubt is being settled, and `others_in_doubt` those that remain in doubt and are not
    in the manifest. `unchecked` faces were sent again and could not be looked for once more. For
    `undeleted` faces it is unknown whether they were deleted. `behind` people have another text in
    the library than in the manifest, because a call of an earlier run had to be settled first.

    Pace: `pace` is how the run is going now; `waited` counts moments by what was waited for.
    `service_took` and `calls_took` are the durations of answered `add` calls, as reported by the
    service and as a whole; calls that the service had no slot for are left out.

    In a trial, `sampled` of the due lines were drawn and `left_out` were not; `drawn` counts the
    drawn lines by outcome.
    """

    statuses: Counter[Status] = field(default_factory=Counter)
    codes: Counter[tuple[Status, str]] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    calls: Counter[CallKind] = field(default_factory=Counter)
    refused: int = 0
    service_took: Latencies = field(default_factory=Latencies)
    calls_took: Latencies = field(default_factory=Latencies)
    suspects: Suspects = NONE
    rows: int = 0
    not_reached: int = 0
    due: int = 0
    done: int = 0
    scanned: bool = False
    unscanned: int = 0
    expected: int = 0
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
    warnings: Counter[str] = field(default_factory=Counter)
    superseded: int = 0
    held_now: Counter[str] = field(default_factory=Counter)
    swapped: list[tuple[str, str]] = field(default_factory=list)
    shared: int = 0
    shared_examples: list[SharedPhoto] = field(default_factory=list)
    adopted: int = 0
    not_applied: int = 0
    surplus: int = 0
    in_doubt_now: int = 0
    others_in_doubt: int = 0
    undeleted: int = 0
    behind: int = 0
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
        """Lines that are rejected, invalid, failed or held."""
        return sum(self.statuses[status] for status in BAD)


def by_kind(calls: Mapping[CallKind, int]) -> dict[str, int]:
    """Calls as figures have them: all kinds, by name."""
    return {kind.value: calls.get(kind, 0) for kind in CallKind}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended: by itself if `stop`, `signal` and `bound` are all None.

    `stop` is the error that stopped it, `signal` the signal that did, `bound` a sentence about the
    bound that was reached (`--limit`, `--give-up-after`), and `away` says that it is the latter.
    The scan of the manifest took `scanned_after` of the `seconds`.
    """

    tally: Tally
    seconds: float
    scanned_after: float = 0.0
    stop: EnrollError | None = None
    signal: int | None = None
    bound: str | None = None
    away: bool = False


class Observer:
    """Is notified of a run's progress, on the thread that drives it. This base class does nothing;
    a subclass overrides the methods it needs. They must be quick and not raise."""

    def scanned(self, tally: Tally) -> None:
        """More of the manifest has been compared with the ledger."""

    def suspected(self, note: str) -> None:
        """The ids of some rows are probably wrong; the sentence says which, why and what to do."""

    def finished(self, row: Candidate, status: Status, code: str, message: str) -> None:
        """A due row has its outcome, and is already counted in `Tally.done`."""

    def warned(self, row: Candidate, fault: Fault) -> None:
        """A due row's photo is sent although something is wrong with the face in it."""

    def ticked(self, tally: Tally) -> None:
        """Something may have happened; called a few times a second at most."""

    def waits(self, what: str) -> None:
        """Nothing has moved for a minute, or will, because the run waits for what the sentence
        says."""

    def unreached(self, seconds: float, code: str, because: str) -> None:
        """The service has been out of reach for `seconds`; called repeatedly while that lasts."""

    def reached(self) -> None:
        """The service can be reached again."""
