"""How ledger and library differ, as lines to read and as a CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from enroll.errors import ExitCode
from enroll.ledger import DifferenceKind, LibraryDifference, iso_time
from enroll.manifest.results import escape
from enroll.model import CallKind, Status
from enroll.session.library_listing import ListedLibrary
from enroll.text.files import new_file
from enroll.text.wording import amount, facts

DIFFERENCE_COLUMNS = (
    "difference",
    "face_token",
    "user_id",
    "library_user_id",
    "add_time",
    "image",
)
"""What a file of differences has; `user_id` is the ledger's."""

MEANINGS = {
    DifferenceKind.MISSING: "enrolled, but not in the library; --requeue-missing makes them due",
    DifferenceKind.UNKNOWN_FACE: "in the library, but not in the ledger",
    DifferenceKind.UNSETTLED: "the same, of people with a face in doubt; `enroll run` settles them",
    DifferenceKind.SURPLUS: "further copies of enrolled faces; --remove-surplus deletes them",
    DifferenceKind.OTHER_USER_ID: "in the library under another user_id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """How ledger and library compare.

    `seen` counts the faces of the library that were seen; `counts` are the ledger's entries by
    status, `differences` faces by kind, `unchecked` the faces of the ledger of which nothing is
    known, `calls` those made so far. `written_to` is the CSV of the differences, if there is one.
    """

    ledger: Path
    endpoint: str
    group_id: str
    listed: ListedLibrary
    seen: int
    counts: Mapping[Status, int]
    differences: Mapping[DifferenceKind, int]
    unchecked: int
    calls: Mapping[CallKind, int]
    written_to: Path | None = None

    @property
    def exit_code(self) -> ExitCode:
        """1 for differences, else 6 where not everything could be compared, else 0."""
        if any(self.differences.values()):
            return ExitCode.SOME_ROWS_FAILED
        return ExitCode.ENDED_EARLY if self.unchecked else ExitCode.DONE


def write_differences(differences: Iterable[LibraryDifference], path: Path) -> None:
    """Write them as CSV, readable by its owner alone. Raises LocalError and UsageError."""
    with new_file(path) as new:
        text = io.TextIOWrapper(new.file, encoding="utf-8", errors="backslashreplace", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(DIFFERENCE_COLUMNS)
        writer.writerows(map(_cells, differences))
        text.detach()


def _cells(one: LibraryDifference) -> list[str]:
    return [
        one.kind.value,
        escape(one.face_token),  # the library's text, as its user_id, is not ours
        one.user_id,
        escape(one.library_user_id),
        iso_time(one.add_time),
        one.image,
    ]


def verified_lines(found: Verified) -> list[str]:
    """What is said of a comparison."""
    return [line for part in _parts(found) for line in [*part, ""] if part][:-1]


def left_lines(found: Verified) -> list[str]:
    """The lines after differences were corrected."""
    left = sum(found.differences.values())
    return [f"{amount(left, 'difference')} left." if left else "No differences are left."]


def _parts(found: Verified) -> Iterator[list[str]]:
    in_library = sum(found.counts.get(one, 0) for one in (Status.ENROLLED, Status.SUPERSEDED))
    calls = ", ".join(f"{count:,} {kind}" for kind, count in found.calls.items())
    yield facts(
        [
            ("Library", f"{found.group_id} at {found.endpoint}, {_sight(found)}"),
            ("Ledger", f"{found.ledger}, {amount(in_library, 'face')} in the library"),
            ("Calls", calls),
        ]
    )
    yield list(_reach(found))
    yield list(_table(found.differences))
    if found.written_to is not None:
        yield [f"The differences are in {found.written_to}."]
    elif any(found.differences.values()):
        yield ["--differences FILE lists them."]


def _sight(found: Verified) -> str:
    seen = f"{amount(found.seen, 'face')} seen"
    return f"all {seen}" if found.listed.whole else f"only {seen}"


def _reach(found: Verified) -> Iterator[str]:
    """What could not be seen, and why."""
    listed = found.listed
    if not listed.whole:
        yield (
            f"`list` showed {amount(listed.faces, 'face')} and no more: {listed.because} "
            "Strangers and copies beyond these cannot be seen."
        )
    if found.unchecked:
        yield (
            f"{amount(found.unchecked, 'face')} of the ledger could not be compared. --deep looks "
            f"up each, with {amount(found.unchecked, 'call')} of face_info."
        )


def _table(differences: Mapping[DifferenceKind, int]) -> Iterator[str]:
    shown = [(kind, differences[kind]) for kind in DifferenceKind if differences.get(kind)]
    if not shown:
        yield "No difference."
        return
    wide = max(len(kind.value) for kind, _ in shown)
    deep = max(len(f"{count:,}") for _, count in shown)
    for kind, count in shown:
        yield f"  {kind.value:<{wide}}  {count:>{deep},}  {MEANINGS[kind]}"
