"""What a run would do, told without a call: `enroll plan`."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from enroll import journey
from enroll.ceiling import FIRST_LIMIT
from enroll.enrollment import retry_notes
from enroll.errors import UsageError
from enroll.journey import Policy
from enroll.ledger import Ledger, LibraryIdentity, RunRecord
from enroll.ledger.files import scratch_ledger
from enroll.manifest import Manifest, open_manifest
from enroll.model import CallKind, Candidate, Fault, ScannedRow, Status
from enroll.photo import Glance, PhotoCode, examine, glance, marks
from enroll.photofolder import photos_folder
from enroll.rules import check_row
from enroll.scan import CHUNK_ROWS, Scan
from enroll.settings import RunSettings, default_ledger_path, host_of

ASSUMED_CALL_SECONDS = 1.9
"""How long a call takes where no run has measured it: the one answer that the vendor publishes."""

NO_LIBRARY = "Neither --group-id nor --ledger is given, so every row counts as new."

ENOUGH_CALLS = 20
"""Calls of `add` that a run must have made before its rate is believed. `verify` and its fellows
make none."""

RUNS_LOOKED_AT = 50
"""How far back such a run is looked for: most nights have little to do."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls a second, and where the figure comes from."""

    calls_per_second: float
    source: str


@dataclass(slots=True)
class Portion:
    """Photos to which the same is done: how many, their bytes, and at most how many are sent."""

    photos: int = 0
    before: int = 0
    after: int = 0


@dataclass(slots=True, kw_only=True)
class Plan:
    """Counts of a manifest's lines. `faults` counts by status and code, with one message each.

    `calls` of `add` and `content` (bytes, at most) are what a run would send, after the `opening`
    calls; `portions` are the photos by what is done to them, in words, none for nothing;
    `shared` photos look the same and stand under more than one user_id. `doubts` are faces of the
    whole ledger, whatever the manifest: a run looks for them before anything else. `people_known`
    are due rows that are new to the ledger, of people who have a face.
    """

    manifest: Manifest
    ledger: Path | None
    images: Path
    notes: Sequence[str]
    rate: Rate
    full: bool = False
    rows: int = 0
    enrolled: int = 0
    user_data_changed: int = 0
    gone: int = 0
    due: int = 0
    calls: int = 0
    to_read: int = 0
    content: int = 0
    shared: int = 0
    people_known: int = 0
    doubts: int = 0
    faults: Counter[tuple[Status, str]] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    portions: dict[str, Portion] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long the calls take at the rate."""
        return self.calls / self.rate.calls_per_second

    @property
    def opening(self) -> Sequence[CallKind]:
        """The calls that a run makes before the first photo."""
        if self.ledger and not self.calls:
            return (CallKind.GROUP_LIST,)
        return (CallKind.GROUP_LIST, CallKind.LIST)

    def fault(self, status: Status, fault: Fault, lines: int) -> None:
        """Count lines that would not be sent."""
        self.faults[status, fault.code] += lines
        self.examples.setdefault(fault.code, fault.message)


def make_plan(settings: RunSettings, *, rate: float | None, full: bool = False) -> Plan:
    """Compare the manifest with the ledger and look at the head of every photo that is due.

    `rate` is calls a second; None takes the last run's, or an assumption. With `full` photos are
    read and prepared as for a call. Nothing is written and nothing is called. Raises EnrollError
    as a run would.
    """
    manifest = open_manifest(
        settings.manifest,
        columns=settings.columns,
        encoding=settings.encoding,
        sheet=settings.sheet,
    )
    path = settings.ledger
    if path is None and settings.group_id:
        path = default_ledger_path(settings.endpoint, settings.group_id)
    there = path if path is not None and path.exists() else None
    identity = LibraryIdentity(
        host=host_of(settings.endpoint), group_id=settings.group_id, add_time=""
    )
    ledger = scratch_ledger(there, identity)
    try:
        _check_library(ledger, identity, there)
        photos = photos_folder(settings.images, manifest, ledger)
        status = ledger.status(runs=RUNS_LOOKED_AT)
        plan = Plan(
            manifest=manifest,
            ledger=there,
            images=photos.path,
            notes=[
                *manifest.notes,
                *photos.notes,
                *retry_notes(settings, ledger),
                *([] if path else [NO_LIBRARY]),
            ],
            full=full,
            rate=_rate(rate, status.runs, settings.max_in_flight or ledger.ceiling or FIRST_LIMIT),
            doubts=sum(status.counts.get(one, 0) for one in (Status.IN_DOUBT, Status.SENDING)),
        )
        _Planner(plan, ledger, settings).work()
    finally:
        ledger.close()
    return plan


def _check_library(ledger: Ledger, wanted: LibraryIdentity, path: Path | None) -> None:
    found = ledger.identity()
    if wanted.group_id and (found.host, found.group_id) != (wanted.host, wanted.group_id):
        raise UsageError(
            f"The ledger {path} is of the library {found.group_id} at {found.host}, not of "
            f"{wanted.group_id} at {wanted.host}. Correct --ledger, --group-id or --endpoint."
        )


def _rate(asked: float | None, runs: Sequence[RunRecord], max_in_flight: int) -> Rate:
    if asked is not None:
        return Rate(asked, "as asked")
    for run in runs:
        measured = _measured(run)
        if measured is not None:
            return Rate(measured, f"as in run {run.run}")
    assumed = max_in_flight / ASSUMED_CALL_SECONDS
    return Rate(assumed, f"assuming {max_in_flight} calls of {ASSUMED_CALL_SECONDS} s at a time")


def _measured(run: RunRecord) -> float | None:
    if run.end is None or run.end.calls.get(CallKind.ADD.value, 0) < ENOUGH_CALLS:
        return None
    seconds = (run.end.at - run.start.at) / 1000
    return float(run.end.calls[CallKind.ADD.value] / seconds) if seconds > 0 else None


class _Planner:
    """Goes through the manifest once, a chunk at a time."""

    def __init__(self, plan: Plan, ledger: Ledger, settings: RunSettings) -> None:
        self._plan = plan
        self._ledger = ledger
        self._reread = settings.checksum
        self._readers = settings.readers
        look = examine if plan.full else glance
        self._look = partial(look, images=str(plan.images), preparation=settings.preparation)
        self._policy = Policy(
            multi_oriented_detection=settings.multi_oriented_detection,
            retry_codes=settings.retry,
            marks=marks(settings.preparation),
        )
        # 64 bits each, so that a million rows stay small: what a photo looks like, and for whom.
        self._likenesses = array("q")
        self._people = array("q")

    def work(self) -> None:
        plan = self._plan
        scan = Scan(plan.manifest.rows(CHUNK_ROWS), str(plan.images))
        with ThreadPoolExecutor(self._readers) as readers:
            while (rows := scan.next_chunk()) is not None:
                due = self._compare(rows)
                looks = readers.map(self._look, [one.row.path for one in due])
                for candidate, look in zip(due, looks, strict=True):
                    self._count(candidate, look)
        plan.shared = self._shared()

    def _compare(self, rows: list[ScannedRow]) -> list[Candidate]:
        plan = self._plan
        compared = self._ledger.compare(rows, run=None, reread=self._reread)
        plan.rows += len(rows)
        plan.enrolled += compared.unchanged + compared.gone
        plan.user_data_changed += compared.user_data_changed
        plan.gone += compared.gone
        due: list[Candidate] = []
        new: list[Candidate] = []
        for candidate in compared.candidates:
            fault = check_row(candidate.row)
            if fault is not None:
                plan.fault(Status.INVALID, fault, candidate.lines)
            elif journey.is_due(candidate, self._policy):
                due.append(candidate)
                new += [candidate] if candidate.status is Status.PENDING else []
            else:
                known = Fault(code=candidate.code, message=candidate.message)
                plan.fault(candidate.status, known, candidate.lines)
        known_people = self._ledger.faces_of(one.row.user_id for one in new)
        for one in new:
            faces = known_people[one.row.user_id]
            plan.people_known += any(face.status is Status.ENROLLED for face in faces)
        return due

    def _count(self, candidate: Candidate, look: Glance | Fault) -> None:
        plan = self._plan
        if isinstance(look, Fault):
            failed = look.code in (PhotoCode.MISSING, PhotoCode.UNREADABLE)
            plan.fault(Status.FAILED if failed else Status.INVALID, look, candidate.lines)
            return
        if candidate.status is Status.ENROLLED:
            plan.to_read += candidate.lines  # touched since: read to see whether it has changed
            return
        plan.due += candidate.lines
        plan.calls += 1
        plan.content += look.to_send
        portion = plan.portions.setdefault(", ".join(look.deeds), Portion())
        portion.photos += 1
        portion.before += look.size
        portion.after += look.to_send
        self._likenesses.append(look.likeness)
        self._people.append(hash(candidate.row.user_id))

    def _shared(self) -> int:
        """Photos that stand under more than one user_id."""
        seen = pd.DataFrame({"likeness": self._likenesses, "person": self._people})
        people = seen.groupby("likeness")["person"].nunique()
        return int((people > 1).sum())
