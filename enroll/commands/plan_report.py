"""What a plan finds: as lines to read, and as a table that says for each row what would be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

from enroll.addresses import is_url
from enroll.commands.plan_duplicates import DuplicateCounts, Duplicates
from enroll.commands.plan_orphans import Orphans
from enroll.commands.plan_sizes import SizeCost, size_lines
from enroll.errors import EnrollError, ExitCode
from enroll.manifest.manifest import Manifest
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.manifest.suspects import NONE
from enroll.model import CallKind, Candidate, FaceMeasures, Fault, Status
from enroll.photos import Glance, PhotoStore
from enroll.runner.sample import Spread, likely_count
from enroll.session.tally import by_kind
from enroll.text.remedies import sentence, what_to_do
from enroll.text.tables import Cell, Table, free_text
from enroll.text.wording import (
    amount,
    columns,
    counted,
    doubtful_lines,
    duration,
    error_table,
    facts,
    size,
)

REPORT_COLUMNS = (
    *("line", "lines", "user_id", "image", "plan", "status", "error", "message"),
    *("bytes", "bytes_to_send", "width", "height"),
    *("face_width", "face_sharpness", "face_shadows", "face_highlights"),
    *("face_margin", "face_tilt"),
)
"""The columns of `enroll plan --report`."""

REPORT_RULES = {"user_id": user_id_fault, "image": image_fault, "message": free_text}

AS_IT_IS = "sent as it is"
REFUSED = "not sent"
COMPARED = "read and compared"
NOT_A_PHOTO = "not a photo"


@dataclass(slots=True)
class Portion:
    """Photos to which the same is done: how many, their bytes, and how many are sent."""

    photos: int = 0
    before: int = 0
    after: int = 0


@dataclass(slots=True, kw_only=True)
class PlanCounts:
    """Counts of a manifest's lines. `faults` counts by status and code, with one message each.

    A run would make `calls` of `add` and send `content` bytes, which are approximate if only heads
    were read. `portions` are the photos by what is done to them, as text; `doubtful` counts lines,
    by code, that would be sent although the face looks doubtful.
    """

    due: int = 0
    calls: int = 0
    content: int = 0
    faults: Counter[tuple[Status, str]] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    portions: dict[str, Portion] = field(default_factory=dict)
    doubtful: Counter[str] = field(default_factory=Counter)

    def fault(self, status: Status, fault: Fault, lines: int) -> None:
        """Count lines that would not be sent."""
        self.faults[status, fault.code] += lines
        self.examples.setdefault(fault.code, fault.message)

    def sent(self, look: Glance, lines: int) -> None:
        """Count lines whose photo would be sent."""
        self.due += lines
        self.calls += 1
        self.content += look.to_send
        portion = self.portions.setdefault(", ".join(look.edits), Portion())
        portion.photos += 1
        portion.before += look.size
        portion.after += look.to_send
        if look.precheck_fault is not None:
            self.doubtful[look.precheck_fault.code] += lines


@dataclass(slots=True, kw_only=True)
class Drawn(PlanCounts):
    """The same for `size` rows drawn at random from `of`, each counted once; `bytes_each` has the
    bytes that each would send, 0 if it is refused."""

    size: int
    of: int
    bytes_each: Spread = field(default_factory=Spread)

    @property
    def speaks_for(self) -> float:
        """How many due rows each of those drawn speaks for."""
        return self.of / self.size


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls a second, and where the figure comes from."""

    calls_per_second: float
    source: str


@dataclass(slots=True, kw_only=True)
class Plan(PlanCounts):
    """What a run would do with a manifest, counted in its lines.

    The `add` calls follow the `opening` calls. `looked_at` are rows whose photo a run has to read,
    whatever the result; it lists the library before them. `shared` photos look the same and are
    listed under several user ids. `doubts` are faces in doubt in the whole ledger: a run looks for
    them first. With `searches`, a search comes before each `add`. `people_known` are due rows that
    are new to the ledger, of people who have a face. With `full`, photos were read and prepared,
    and `sizes` says what other sizes would cost. With a sample, `drawn` is its result; `due` and
    `calls` then cover all rows, and nothing is known of their photos.
    """

    manifest: Manifest
    ledger: Path | None
    store: PhotoStore
    notes: Sequence[str]
    rate: Rate
    full: bool = False
    searches: bool = False
    rows: int = 0
    enrolled: int = 0
    user_data_changed: int = 0
    gone: int = 0
    looked_at: int = 0
    to_read: int = 0
    shared: int = 0
    people_known: int = 0
    doubts: int = 0
    drawn: Drawn | None = None
    sizes: Sequence[SizeCost] = ()
    report: Path | None = None
    orphans: Orphans | None = None
    duplicates: Duplicates | None = None
    duplicate_counts: DuplicateCounts | None = None

    exit_code: ClassVar[ExitCode] = ExitCode.DONE
    stop: ClassVar[EnrollError | None] = None

    @property
    def seconds(self) -> float:
        """How long the calls take at the rate."""
        share = 1.0 if self.drawn is None else self.drawn.calls / self.drawn.size
        calls = 2 * self.calls if self.searches else self.calls
        return calls * share / self.rate.calls_per_second

    @property
    def opening(self) -> Sequence[CallKind]:
        """The calls that a run makes before the first photo."""
        if self.ledger and not self.looked_at:
            return (CallKind.GROUP_LIST,)
        return (CallKind.GROUP_LIST, CallKind.LIST)

    def figures(self) -> dict[str, Any]:
        """The plan in numbers. With a sample, the bytes are estimated from it, and `errors` are
        those of the rows that it drew and of rows whose photo is not looked at."""
        drawn, content = self.drawn, float(self.content)
        faults = self.faults
        if drawn is not None:
            content, _, _ = drawn.bytes_each.likely_sum(drawn.of)
            faults = faults + drawn.faults
        calls = Counter(self.opening)
        calls[CallKind.ADD] = self.calls
        calls[CallKind.SEARCH] = self.calls if self.searches else 0
        duplicates = self.duplicate_counts
        return {
            "rows": self.rows,
            "due": self.due,
            "enrolled": self.enrolled,
            "to_compare": self.to_read,
            "not_sent": faults.total(),
            "errors": {str(code): count for (_, code), count in sorted(faults.items())},
            "doubtful": dict(self.doubtful if drawn is None else drawn.doubtful),
            "sampled": None if drawn is None else drawn.size,
            "in_doubt": self.doubts,
            "user_data_changed": self.user_data_changed,
            "gone": self.gone,
            "shared_photos": self.shared,
            "orphans": None if self.orphans is None else self.orphans.count,
            "duplicates": None if duplicates is None else duplicates.shared + duplicates.repeated,
            "calls": by_kind(calls),
            "bytes": round(content),
            "calls_per_second": self.rate.calls_per_second,
            "call_seconds": round(self.seconds, 3),
        }


def plan_lines(plan: Plan) -> list[str]:
    """The plan as lines, a blank one between its parts."""
    return [line for part in _parts(plan) for line in [*part, ""] if part][:-1]


def _parts(plan: Plan) -> Iterator[list[str]]:
    yield [
        f"Planned from {plan.manifest.path}, {amount(plan.rows, 'row')}. No calls were made.",
        *(f"Note: {note}" for note in plan.notes),
    ]
    yield counted(
        {
            "due": plan.due,
            "touched since, to be read and compared": plan.to_read,
            "already enrolled": plan.enrolled,
            "not sent (see below)": plan.faults.total(),
        }
    )
    if plan.drawn is not None:
        yield list(_drawn(plan.drawn))
    if plan.portions:
        yield [
            "What is done to the photos, how many, bytes before and "
            + ("after" if plan.full else "(about) after"),
            *_indented(
                (words or "sent as they are", f"{one.photos:,}", size(one.before), size(one.after))
                for words, one in _by_number(plan)
            ),
        ]
    errors = [
        (status.value, str(code), count, plan.examples.get(code, ""))
        for (status, code), count in plan.faults.most_common()
    ]
    if errors:
        yield ["What would not be sent, how often, and what to do", *error_table(errors)]
    yield list(doubtful_lines(plan.doubtful, "sent anyway"))
    yield list(_remarks(plan))
    yield _estimates(plan)
    yield list(size_lines(plan.sizes, plan.rate.calls_per_second))


def _estimates(plan: Plan) -> list[str]:
    drawn, about = plan.drawn, ""
    adds = f"{plan.calls:,}"
    to_send = f"{'' if plan.full else 'about '}{size(plan.content)}"
    if drawn is not None:
        about = "about "
        adds = likely_count(drawn.calls, drawn.size, drawn.of)
        likely, low, high = drawn.bytes_each.likely_sum(drawn.of)
        to_send = f"about {size(likely)} ({size(low)} to {size(high)})"
    with_photo = [f"{adds} search"] * plan.searches + [f"{adds} add"]
    rate = f"{plan.rate.calls_per_second:.1f} calls a second ({plan.rate.source})"
    return facts(
        [
            ("Calls", ", ".join([*(f"1 {kind}" for kind in plan.opening), *with_photo])),
            ("To send", f"{to_send} of photos{', twice' if plan.searches else ''}"),
            (
                "Time",
                f"{about}{duration(plan.seconds)} at {rate}",
            ),
            ("Photos", plan.store.root),
            *_requests(plan),
            ("Ledger", str(plan.ledger) if plan.ledger else "none yet"),
            *_table_facts(plan),
        ]
    )


def _requests(plan: Plan) -> Iterator[tuple[str, str]]:
    if is_url(plan.store.root):
        gets = amount(plan.looked_at, "request")
        yield "Requests", f"a run reads due photos from the bucket with {gets} (GET)"


def _table_facts(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.report is not None:
        yield "Report", str(plan.report)
    if (orphans := plan.orphans) is not None:
        yield "Orphans", f"{amount(orphans.count, 'photo')} that no row uses, in {orphans.path}"
    if plan.duplicates is not None and (counts := plan.duplicate_counts) is not None:
        unread = f"; {amount(counts.unread, 'photo')} could not be read" if counts.unread else ""
        yield "Duplicates", f"{counts.words}, in {plan.duplicates.path}{unread}"


def _drawn(drawn: Drawn) -> Iterator[str]:
    """What a sample says about all photos that are due."""
    yield (
        f"A sample of {amount(drawn.size, 'photo')}, drawn from the {drawn.of:,} that are due, was "
        "read and prepared. Of all of them, with 95 % confidence:"
    )
    outcomes = [(words or "sent as they are", one.photos, "") for words, one in _by_number(drawn)]
    outcomes += [
        (f"{status.value}, {code}", count, what_to_do(code, status, drawn.examples.get(code, "")))
        for (status, code), count in drawn.faults.most_common()
    ]
    outcomes += [
        (f"sent, {code}", count, "looks doubtful") for code, count in sorted(drawn.doubtful.items())
    ]
    yield from _indented(
        (words, likely_count(count, drawn.size, drawn.of), hint) for words, count, hint in outcomes
    )


def _by_number(counts: PlanCounts) -> list[tuple[str, Portion]]:
    return sorted(counts.portions.items(), key=lambda one: -one[1].photos)


def _indented(rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in columns(list(rows))]


def _remarks(plan: Plan) -> Iterator[str]:
    if plan.doubts:
        are = "is" if plan.doubts == 1 else "are"
        yield (
            f"{amount(plan.doubts, 'face')} in doubt {are} settled first, with list or search "
            "calls that are not counted here."
        )
    if plan.people_known:
        yield (
            f"{amount(plan.people_known, 'due row')} of people who already have a face: a photo "
            "that was only moved or renamed is recognised when it is read, and costs no call."
        )
    if plan.shared:
        check = "check the manifest" if plan.duplicates else "--duplicates FILE lists them"
        yield (
            f"{amount(plan.shared, 'photo')} under more than one user_id, enrolled for each: "
            f"{check}."
        )
    if plan.user_data_changed:
        yield (
            f"{amount(plan.user_data_changed, 'enrolled row')} whose user_data differs from the "
            "library's: left as enrolled, because the service cannot update it."
        )
    if plan.gone:
        yield f"{amount(plan.gone, 'enrolled row')} whose photo is no longer there."


class PlanReport:
    """Collects what would become of each row, one line each."""

    def __init__(self, table: Table | None) -> None:
        """Without a table, nothing is written."""
        self._table = table
        self.suspects = NONE
        """The rows that are probably mistakes, as far as they are known."""
        self._lines: list[tuple[int, *tuple[Cell, ...]]] = []

    def put(self) -> None:
        """Write what was collected since the last time, in the manifest's order."""
        if self._table is not None:
            self._table.write(sorted(self._lines, key=itemgetter(0)))
        self._lines.clear()

    def other_file(self, path: str) -> None:
        """A file of a folder that is not a photo; written at once."""
        if self._table is not None:
            cells = ["", "", "", path, NOT_A_PHOTO]
            self._table.write([cells + [""] * (len(REPORT_COLUMNS) - len(cells))])

    def not_sent(
        self, row: Candidate, status: Status, fault: Fault, look: Glance | None = None
    ) -> None:
        """A row that would not be sent, and why; `look` if its photo could be read."""
        self._write(row, REFUSED, (status.value, fault), look)

    def compared(self, row: Candidate, look: Glance | None) -> None:
        """An enrolled row whose file was touched: it is read to see whether it changed."""
        self._write(row, COMPARED, None, look)

    def sent(self, row: Candidate, look: Glance) -> None:
        """A row that would be sent, perhaps with a doubt about the face in its photo."""
        amiss = None if look.precheck_fault is None else ("", look.precheck_fault)
        self._write(row, ", ".join(look.edits) or AS_IT_IS, amiss, look)

    def _write(
        self, row: Candidate, plan: str, amiss: tuple[str, Fault] | None, look: Glance | None
    ) -> None:
        if self._table is None:
            return
        fault = self.suspects.fault_of(row.row.line) or Fault(code="", message="")
        status, fault = ("", fault) if amiss is None else amiss
        times, pixels = row.row.times, look and look.pixels
        self._lines.append(
            (
                row.row.line,
                row.lines,
                row.row.user_id,
                row.row.image,
                plan,
                status,
                str(fault.code),
                sentence(fault.code, status, fault.message),
                None if times is None else times.size,
                look.to_send if look is not None and plan not in (REFUSED, COMPARED) else None,
                *(pixels or (None, None)),
                *_measured(None if look is None else look.face),
            )
        )


def _measured(face: FaceMeasures | None) -> tuple[Cell, ...]:
    """What the precheck measured: the margin in percent of the face's width."""
    if face is None:
        return (None,) * 6
    return (
        *(face.width, round(face.sharpness), face.shadows, face.highlights),
        *(round(100 * face.margin), round(face.tilt)),
    )
