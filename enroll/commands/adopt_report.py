"""Reports an adoption, as lines to read and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from enroll.commands.adopt_decisions import Decision, Outcome, OwnScore
from enroll.errors import EnrollError, ExitCode
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.model import CallKind, ScannedRow
from enroll.session.library_faces import ListedLibrary, faces_seen
from enroll.session.tally import by_kind
from enroll.text.tables import Table, free_text
from enroll.text.wording import amount, counted, facts

REPORT_COLUMNS = ("line", "user_id", "image", "outcome", "face_token", "score", "detail")
"""The columns of an adoption's report."""

REPORT_RULES = {
    "user_id": user_id_fault,
    "image": image_fault,
    "face_token": free_text,
    "detail": free_text,
}

MEANINGS = {
    Outcome.ADOPTED: "their faces are in the ledger now",
    Outcome.KNOWN: "the ledger already knew their faces",
    Outcome.NOT_FOUND: "the library has another photo of the person; `enroll run` adds this one",
    Outcome.CONTESTED: "their faces went to other photos that look the same; `run` adds these",
    Outcome.UNCLEAR: (
        "too many faces match equally well; `enroll run` adds them, perhaps a second time"
    ),
    Outcome.IN_DOUBT: "a face of the person is in doubt; `enroll run` settles it",
    Outcome.NO_SCORE: "not decided: the score that a photo gets for its own face could not be "
    "learned; adopt with --score",
    Outcome.UNUSABLE: "no photo to search with",
    Outcome.FAILED: "the search failed; run `enroll adopt` again",
}


@dataclass(slots=True, kw_only=True)
class Adoption:
    """The outcome of an adoption, counted in rows of the manifest; identical rows count once.

    `known` lines were enrolled before, `invalid` ones never can be, `withheld` ones belong to
    people who were forgotten. `rows` are all others; `to_search` of them may have a face in the
    library and take a call each, and `outcomes` counts how these ended. `surplus` counts further
    copies of adopted faces, `unknown` the library's faces that the ledger still does not know,
    `to_look_at` the rows that a person should look at. `run` is the command's number in the ledger,
    None if nothing was recorded. `calls` were made; the account's limit refused `calls_refused` of
    them.
    """

    ledger: Path
    photo_root: str
    group_id: str
    endpoint: str
    listed: ListedLibrary
    notes: tuple[str, ...] = ()
    known: int = 0
    invalid: int = 0
    withheld: int = 0
    rows: int = 0
    to_search: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    surplus: int = 0
    unknown: int = 0
    to_look_at: int = 0
    own: OwnScore | None = None
    run: int | None = None
    calls: Mapping[CallKind, int] = field(default_factory=dict)
    calls_refused: int = 0

    stop: ClassVar[EnrollError | None] = None

    @property
    def finished(self) -> bool:
        """Whether every row's question was answered: does the library hold its face?"""
        return not (self.outcomes[Outcome.FAILED] or self.outcomes[Outcome.NO_SCORE])

    @property
    def exit_code(self) -> ExitCode:
        """4 if it is not finished, else 1 if rows should be looked at before a run, else 0.

        A run refuses a ledger whose last adoption ended with anything but 0 or 1. So a row whose
        person has a face in doubt counts as one to look at: the run has to settle the doubt.
        """
        if not self.finished:
            return ExitCode.IN_DOUBT
        well = self.outcomes[Outcome.ADOPTED] + self.outcomes[Outcome.KNOWN]
        plain = well == self.outcomes.total() and not self.surplus
        return ExitCode.DONE if plain else ExitCode.SOME_ROWS_FAILED

    def figures(self) -> dict[str, Any]:
        """The adoption in numbers."""
        counted = ("rows", "known", "invalid", "withheld", "to_search", "surplus", "unknown")
        return {
            "run": self.run,
            "seen": self.listed.faces,
            "listed_whole": self.listed.whole,
            **{name: getattr(self, name) for name in counted},
            "outcomes": {one.value: self.outcomes[one] for one in Outcome},
            "to_review": self.to_look_at,
            "calls": by_kind(self.calls),
            "calls_refused": self.calls_refused,
        }


class Remarks:
    """A table of the rows that a person should look at; `count` says how many there are."""

    def __init__(self, table: Table | None) -> None:
        """Without a table, nothing is written."""
        self._table = table
        self.count = 0

    def row(self, row: ScannedRow, decision: Decision, detail: str) -> None:
        """Write down the outcome of a row, unless it needs no review."""
        plain = decision.outcome in (Outcome.ADOPTED, Outcome.KNOWN)
        copies = len(decision.surplus)
        if plain and not (copies or decision.alike):
            return
        self.count += 1
        if self._table is None:
            return
        details = [detail] * bool(detail)
        if copies:
            further = amount(copies, "further copy", "further copies")
            details.append(f"{further} recorded as surplus")
        if decision.alike:
            details.append("other photos of the person look the same")
        self._table.write(
            [
                (
                    row.line,
                    row.user_id,
                    row.image,
                    decision.outcome.value,
                    decision.face_token,
                    f"{decision.score:g}" if decision.score else "",
                    "; ".join(details),
                )
            ]
        )


def opening_lines(adoption: Adoption) -> list[str]:
    """The lines before the first search."""
    listed = adoption.listed
    seen = faces_seen(listed.faces, whole=listed.whole)
    lines = facts(
        [
            ("Library", f"{adoption.group_id} at {adoption.endpoint}, {seen}"),
            ("Ledger", str(adoption.ledger)),
            ("Photos", adoption.photo_root),
        ],
        least=len("Endpoint"),  # aligned with what was shown before the first call
    )
    lines += adoption.notes
    if not listed.whole:
        lines.append(f"`list` is incomplete: {listed.because} So every row is searched for.")
    left_out = [
        (adoption.known, "line", "enrolled before"),
        (adoption.invalid, "row", "invalid"),
        (adoption.withheld, "line", "withheld"),
        (adoption.rows - adoption.to_search, "row", "of people without a face in the library"),
    ]
    counts = [f"{amount(count, noun)} {what}" for count, noun, what in left_out if count]
    lines += [f"{', '.join(counts)}."] * bool(counts)
    lines.append(f"{amount(adoption.to_search, 'row')} to search for, with a call each.")
    return lines


def adopted_lines(adoption: Adoption, report: Path | None) -> list[str]:
    """The lines at the end."""
    shown = {one: adoption.outcomes[one] for one in Outcome if adoption.outcomes[one]}
    lines = counted(shown, MEANINGS) or [
        "No row has a face in the library that the ledger does not know."
        if adoption.known
        else "No row has a face in the library."
    ]
    if adoption.surplus:
        copies = amount(adoption.surplus, "further copy", "further copies")
        lines.append(
            f"{copies} of these faces recorded as surplus: `enroll verify --remove-surplus` "
            "deletes them."
        )
    if adoption.unknown:
        lines.append(
            f"{amount(adoption.unknown, 'face')} of the library still unknown to the ledger: "
            "`enroll verify --differences FILE` lists them."
        )
    if report is not None:
        lines.append(
            f"{amount(adoption.to_look_at, 'row')} to review in {report}."
            if adoption.to_look_at
            else f"No row needs review: {report} has only its header."
        )
    if not adoption.finished:
        lines.append(
            "The adoption is not finished: run the same command again. Until then `enroll run` "
            "refuses the ledger."
        )
    made = ", ".join(f"{count:,} {kind}" for kind, count in adoption.calls.items())
    return [*lines, f"Calls: {made}"]
