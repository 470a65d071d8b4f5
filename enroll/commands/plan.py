"""`enroll plan`: what a run would do, without a call."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from enroll.addresses import is_url
from enroll.commands.plan_duplicates import Duplicates
from enroll.commands.plan_orphans import Orphans
from enroll.commands.plan_report import (
    REPORT_COLUMNS,
    REPORT_RULES,
    Drawn,
    Plan,
    PlanCounts,
    PlanReport,
    Rate,
)
from enroll.commands.plan_sizes import OtherSizes
from enroll.commands.run_input import check_beside_results, named_library
from enroll.commands.run_opening import retry_notes, unforgotten_notes
from enroll.errors import LocalError, UsageError
from enroll.ledger import WITHHELD, Ledger, LibraryIdentity, RunRecord, empty_ledger, ledger_at
from enroll.limiter.adaptive import FIRST_LIMIT
from enroll.manifest.manifest import open_manifest
from enroll.manifest.scan import CHUNK_ROWS, Scan, choose_photo_store
from enroll.manifest.suspects import NewPeople, suspect_notes, suspects_in
from enroll.model import OPEN, CallKind, Candidate, Fault, ScannedRow, Status
from enroll.photos import Glance, PhotoCode, check_installed, examine, glance, limit_memory, marks
from enroll.resources import share_out
from enroll.runner import transitions
from enroll.runner.health import PhotoRootCheck
from enroll.runner.sample import Sample
from enroll.runner.transitions import Policy
from enroll.settings import Lookalikes, Precheck, RunSettings, default_ledger_path
from enroll.text.files import Output
from enroll.text.tables import maybe_table
from enroll.text.wording import amount
from enroll.threads import Threads
from enroll.timetable import Timetable

ASSUMED_CALL_SECONDS = 1.9
"""Duration of a call if no run has measured it: the only figure that the vendor publishes."""

NO_LIBRARY = "Neither --group-id nor --ledger is given, so every row counts as new."

ENOUGH_CALLS = 20
"""`add` calls that a run must have made before the rate of its calls with a photo is used;
commands such as `verify` make none."""

MISSING_JUDGED = 1_000
"""Missing photos after which the plan checks whether their share is gone."""

RUNS_LOOKED_AT = 50
"""How many past runs are searched for such a rate: most nights have little to do."""


def make_plan(
    settings: RunSettings,
    *,
    rate: float | Timetable | None,
    full: bool = False,
    report: Path | None = None,
    orphans: Path | None = None,
    duplicates: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Compare the manifest with the ledger and read the head of every photo that is due.

    `rate` is calls a second, of a timetable its mean; None takes the last run's, or an assumption.
    With `full`, or if faces are looked for, photos are read and prepared as for a call; with a
    `sample`, only those that it draws. Nothing but the tables `report`, `orphans` and `duplicates`
    is written, and no call is made. `say` is given what reading photos from a bucket will take.
    Raises EnrollError as a run would.
    """
    check_installed(settings.preparation)
    limit_memory(settings.memory, max_pixels=settings.max_pixels)
    full = full or settings.precheck != Precheck.OFF or settings.sample is not None
    manifest = open_manifest(settings.manifest, **settings.manifest_options)
    path = settings.ledger
    if path is None and settings.group_id:
        path = default_ledger_path(settings.endpoint, settings.group_id)
    _check_outputs(
        {"report": report, "orphans": orphans, "duplicates": duplicates}, settings, ledger=path
    )
    there = path if path is not None and ledger_at(path).exists() else None
    identity = named_library(settings)
    with ExitStack() as stack:
        ledger = empty_ledger(identity) if path is None else ledger_at(path).scratch(identity)
        stack.callback(ledger.close)
        _check_library(ledger, identity, there)
        photos = choose_photo_store(settings.images, manifest, ledger)
        status = ledger.status(runs=RUNS_LOOKED_AT)
        plan = Plan(
            manifest=photos.manifest,
            ledger=there,
            store=photos.store,
            notes=[
                *manifest.notes,
                *photos.notes,
                *retry_notes(settings, ledger),
                *unforgotten_notes(ledger.forgetting.unfinished()),
                *([] if path else [NO_LIBRARY]),
            ],
            full=full,
            searches=settings.lookalikes is not Lookalikes.OFF,
            report=report,
            orphans=None if orphans is None else Orphans(photos.store, orphans),
            rate=_rate(rate, status.runs, settings.max_in_flight or ledger.ceiling or FIRST_LIMIT),
            doubts=sum(status.counts.get(one, 0) for one in OPEN),
        )
        if duplicates is not None:
            found = Duplicates(duplicates, photos.store, settings.preparation, ledger)
            plan.duplicates = stack.enter_context(closing(found))
        if is_url(photos.store.root):
            say(_requests(plan, settings.sample))
        with maybe_table(report, REPORT_COLUMNS, rules=REPORT_RULES) as table:
            planner = _Planner(plan, ledger, settings, PlanReport(table))
            planner.work()
        if (stop := planner.gone()) is not None:
            raise stop
        if plan.orphans is not None:
            plan.orphans.write()
        if plan.duplicates is not None:
            with _readers(settings) as readers:
                plan.duplicate_counts = plan.duplicates.write(readers)
    return plan


def _requests(plan: Plan, sample: int | None) -> str:
    """What a bucket's owner pays for, and a thin line waits for."""
    most = min(plan.manifest.rows_at_most, sample or plan.manifest.rows_at_most)
    if plan.full:
        read, requests = "Photos that are due are read", "a request (GET) each"
    else:
        read, requests = "The beginnings of due photos are read", "one or two requests (GET) each"
    return f"{read} from {plan.store.root}: {requests}, for at most {amount(most, 'row')}."


def _check_outputs(
    outputs: Mapping[str, Path | None], settings: RunSettings, *, ledger: Path | None
) -> None:
    """Raise UsageError for a table, by its option's name, that must not or cannot be written."""
    others: dict[str, Path] = {}
    for name, path in outputs.items():
        if path is not None:
            output = Output(path=path, option=f"--{name}")
            check_beside_results(output, settings, ledger=ledger, others=others)
            others[f"the {name}"] = path


def _readers(settings: RunSettings) -> Threads:
    return Threads(share_out(calls=0, readers=settings.reading).readers)


def _check_library(ledger: Ledger, wanted: LibraryIdentity, path: Path | None) -> None:
    found = ledger.identity()
    if wanted.group_id and (found.host, found.group_id) != (wanted.host, wanted.group_id):
        raise UsageError(
            f"The ledger {path} belongs to the library {found.group_id} at {found.host}, not to "
            f"{wanted.group_id} at {wanted.host}. Correct --ledger, --group-id or --endpoint."
        )


def _rate(asked: float | Timetable | None, runs: Sequence[RunRecord], max_in_flight: int) -> Rate:
    given = asked.mean if isinstance(asked, Timetable) else asked
    if given is not None:
        return Rate(given, "as asked")
    for run in runs:
        if run.end is None or run.end.calls.get(CallKind.ADD.value, 0) < ENOUGH_CALLS:
            continue
        calls = sum(run.end.calls.get(kind.value, 0) for kind in (CallKind.ADD, CallKind.SEARCH))
        if run.end.at > run.start.at:
            return Rate(calls * 1000 / (run.end.at - run.start.at), f"as in run {run.run}")
    assumed = max_in_flight / ASSUMED_CALL_SECONDS
    return Rate(assumed, f"assuming {max_in_flight} calls of {ASSUMED_CALL_SECONDS} s at a time")


class _Planner:
    """Goes through the manifest once, in chunks."""

    def __init__(
        self, plan: Plan, ledger: Ledger, settings: RunSettings, report: PlanReport
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._report = report
        self._reread = settings.checksum
        self._new_people = NewPeople(ledger)
        self._forgotten = ledger.block_list
        self._settings = settings
        self._look = partial(
            examine if plan.full else glance,
            store=plan.store,
            preparation=settings.preparation,
            outlines=plan.duplicates is not None,
        )
        self._holds = settings.precheck == Precheck.HOLD
        self._other_sizes = OtherSizes(plan.store, settings.preparation, seed=settings.seed)
        self._sample = None if settings.sample is None else Sample(settings.sample, settings.seed)
        self._policy = Policy(
            attempts=0,  # a plan makes no call
            multi_oriented_detection=settings.multi_oriented_detection,
            retry_codes=settings.retry,
            marks=marks(settings.preparation),
        )
        self._photo_root = PhotoRootCheck(plan.store, ledger)
        self._missing: dict[str, bool] = {}
        # 64 bits each, so that a million rows stay small: a hash of each photo, and of its person.
        self._likenesses = array("q")
        self._people = array("q")

    def gone(self) -> LocalError | None:
        """Why a run would stop: the photos' share is gone."""
        self._photo_root.on_scanned()
        stops = (
            self._photo_root.missing(path, was_there=was_there)
            for path, was_there in self._missing.items()
        )
        return next(filter(None, stops), None) or self._photo_root.lost()

    def work(self) -> None:
        """Look at every row."""
        plan = self._plan
        scan = Scan(plan.manifest.rows(CHUNK_ROWS), plan.store)
        if plan.report:  # each row says what is wrong with it, so all are looked at before
            self._report.suspects = suspects_in(plan.manifest.rows(CHUNK_ROWS), plan.store)
        with _readers(self._settings) as readers:
            while (rows := scan.next_chunk()) is not None:
                due = self._compare(rows)
                if self._sample is None:
                    self._look_at(due, readers, plan)
                else:
                    self._offer(due, self._sample)
                self._report.put()
            if self._sample is not None:
                self._look_at_sample(self._sample, readers)
                self._report.put()
            if plan.full:
                sizes = self._other_sizes.costs(readers)
                drawn = plan.drawn
                plan.sizes = [one.times(drawn.speaks_for) for one in sizes] if drawn else sizes
        if plan.report and plan.manifest.listing is not None:
            for path in plan.manifest.listing.other_files():
                self._report.other_file(path)
        plan.shared = self._shared()
        plan.notes = [*plan.notes, *suspect_notes(self._new_people.beside(scan.suspects))]

    def _look_at(self, due: Sequence[Candidate], readers: Threads, into: PlanCounts) -> None:
        looks = list(readers.map(self._look, [one.row.path for one in due]))
        if self._plan.duplicates is not None:
            self._plan.duplicates.looked((one.row.path for one in due), looks)
        for candidate, look in zip(due, looks, strict=True):
            content = self._count(candidate, look, into)
            if isinstance(into, Drawn):
                into.bytes_each.add(content)

    def _offer(self, due: Sequence[Candidate], sample: Sample) -> None:
        for candidate in due:
            if candidate.status is Status.ENROLLED:
                self._plan.to_read += candidate.lines
                self._report.compared(candidate, None)
            else:
                sample.offer(candidate)

    def _look_at_sample(self, sample: Sample, readers: Threads) -> None:
        """Read the sample; if it is all that is due, it counts as the whole."""
        plan, chosen = self._plan, sample.drawn()
        if sample.rows <= len(chosen):
            self._look_at(chosen, readers, plan)
            return
        plan.due, plan.calls = sample.offered, sample.rows
        plan.drawn = Drawn(size=len(chosen), of=sample.rows)
        once = [replace(one, lines=1) for one in chosen]
        self._look_at(once, readers, plan.drawn)

    def _compare(self, scanned: list[ScannedRow]) -> list[Candidate]:
        plan = self._plan
        plan.rows += len(scanned)
        if plan.orphans is not None:
            plan.orphans.use(scanned)
        if plan.duplicates is not None:
            plan.duplicates.add(scanned, self._forgotten)
        if any(row.times is not None for row in scanned):
            self._photo_root.on_seen()
        rows, withheld = self._forgotten.part(scanned)
        for row in withheld:
            self._refuse(Candidate(row=row), Status.WITHHELD, WITHHELD)
        compared = self._ledger.due_rows.compare(rows, run=None, reread=self._reread)
        plan.enrolled += compared.unchanged + compared.gone
        plan.user_data_changed += compared.user_data_changed
        plan.gone += compared.gone
        self._photo_root.on_lost(compared.gone_from)
        due: list[Candidate] = []
        new: list[Candidate] = []
        for candidate in compared.candidates:
            fault = plan.manifest.fault_of(candidate.row)
            if fault is not None:
                self._refuse(candidate, Status.INVALID, fault)
            elif transitions.is_due(candidate, self._policy):
                plan.looked_at += 1
                due.append(candidate)
                new += [candidate] if candidate.face_id is None else []
            else:
                known = Fault(code=candidate.code, message=candidate.message)
                self._refuse(candidate, candidate.status, known)
        self._new_people.look((one.row.line, one.row.user_id) for one in new)
        self._report.suspects = self._new_people.beside(self._report.suspects)
        known_people = self._ledger.faces_of(one.row.user_id for one in new)
        for one in new:
            faces = known_people[one.row.user_id]
            enrolled = any(face.status is Status.ENROLLED for face in faces)
            plan.people_known += enrolled and one.status is Status.PENDING
        return due

    def _refuse(
        self,
        candidate: Candidate,
        status: Status,
        fault: Fault,
        *,
        into: PlanCounts | None = None,
        look: Glance | None = None,
    ) -> None:
        """Count a row that would not be sent; `look` if its photo was read."""
        (into or self._plan).fault(status, fault, candidate.lines)
        self._report.not_sent(candidate, status, fault, look)

    def _count(self, candidate: Candidate, look: Glance | Fault, into: PlanCounts) -> int:
        """Count what would become of a row; returns how many bytes it would send."""
        if isinstance(look, Fault):
            if look.code == PhotoCode.MISSING and len(self._missing) < MISSING_JUDGED:
                self._missing[candidate.row.path] = candidate.was_there
            failed = look.code in (PhotoCode.MISSING, PhotoCode.UNREADABLE, PhotoCode.CHANGED)
            self._refuse(candidate, Status.FAILED if failed else Status.INVALID, look, into=into)
        elif candidate.status is Status.ENROLLED:
            # Touched since: read to see whether it has changed.
            self._plan.to_read += candidate.lines
            self._report.compared(candidate, look)
        elif look.precheck_fault is not None and self._holds:
            self._refuse(candidate, Status.INVALID, look.precheck_fault, into=into, look=look)
        else:
            into.sent(look, candidate.lines)
            self._other_sizes.sent(candidate.row.path, look)
            self._report.sent(candidate, look)
            if into is self._plan:
                self._likenesses.append(look.likeness)
                self._people.append(hash(candidate.row.user_id))
            return look.to_send
        return 0

    def _shared(self) -> int:
        """Photos that are listed under more than one user_id."""
        import pandas as pd  # noqa: PLC0415 - as in `Manifest.chunks`

        seen = pd.DataFrame({"likeness": self._likenesses, "person": self._people})
        people = seen.groupby("likeness")["person"].nunique()
        return int((people > 1).sum())
