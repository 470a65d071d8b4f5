"""What an audit says: lines for people, a table of findings, and figures as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enroll.errors import EnrollError, ExitCode
from enroll.ledger import FindingKind, LedgerReader, Pair, iso_time
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.model import CallKind, Status
from enroll.session.resemblance import explained
from enroll.session.tally import by_kind
from enroll.text.logs import mask
from enroll.text.remedies import what_to_do
from enroll.text.tables import Cell, Rule, free_text, new_table
from enroll.text.wording import amount, columns, counted, facts

SHOWN = 10
"""How many findings are shown."""

MOST_READ = 20_000
"""Findings of each kind that are kept in memory; the others are only counted and written."""

FINDING_COLUMNS = (
    "finding",
    "score",
    "user_id",
    "user_data",
    "image",
    "face_token",
    "other_user_id",
    "other_user_data",
    "other_image",
    "other_face_token",
    "status",
    "found_at",
    "run",
)
"""The columns of a file of findings."""

_RULES: Mapping[str, Rule] = {
    "user_id": user_id_fault,
    "image": image_fault,
    "other_user_id": user_id_fault,
    "other_image": image_fault,
    **dict.fromkeys(("user_data", "other_user_data", "other_face_token"), free_text),
}

_HIGHER = (75, 80, 85)
"""Scores for --unlike: photos of one person mostly reach them, and the service recommends them."""

KINDS = (
    FindingKind.LOOKALIKE,
    FindingKind.UNLIKE_BEFORE,
    FindingKind.UNLIKE,
    FindingKind.NOT_ITSELF,
)
"""The kinds of findings, those first that are about two people."""

MEANINGS = {
    FindingKind.LOOKALIKE: "faces of two people that look alike",
    FindingKind.UNLIKE_BEFORE: "new photos that look like another person and not like the one "
    "before",
    FindingKind.UNLIKE: "photos of one person that do not look alike",
    FindingKind.NOT_ITSELF: "photos whose own face the library does not return first",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What an audit has done, and the current findings, of earlier audits, too: how many there are
    of each kind (`found`), and the first `MOST_READ` of each (`findings`).

    `chosen` faces were to be searched with, and `searched` of them were; `photos_gone`, `refused`
    (by code) and `too_new` ones could not be. `uncompared` ones were not compared with others of
    their person, because too many faces were more alike; a threshold above `cut_at` would leave
    them out, 0 if none would. `in_doubt` faces of the ledger wait for a run, and `not_audited`
    enrolled ones for another audit. `stop` is what ended it early, None if nothing.
    """

    ledger: Path
    endpoint: str
    group_id: str
    run: int
    chosen: int
    searched: int
    photos_gone: int
    too_new: int
    uncompared: int
    cut_at: float
    refused: Mapping[str, int]
    left: int
    enrolled: int
    in_doubt: int
    not_audited: int
    found: Mapping[FindingKind, int]
    findings: Sequence[Pair]
    calls: Mapping[CallKind, int]
    calls_refused: int
    stop: EnrollError | None = None

    @property
    def exit_code(self) -> ExitCode:
        """That of what stopped it, else 6 where faces are left because of --max-calls, else 1 for
        findings, else 0."""
        if self.stop is not None:
            return self.stop.exit_code
        if self.left:
            return ExitCode.ENDED_EARLY
        return ExitCode.SOME_ROWS_FAILED if self.findings else ExitCode.DONE

    @property
    def counts(self) -> dict[FindingKind, int]:
        """The findings by kind."""
        return {kind: self.found.get(kind, 0) for kind in KINDS}

    @property
    def people(self) -> int:
        """How many people the `findings` name."""
        named = {pair.user_id for pair in self.findings}
        named |= {pair.finding.other_user_id for pair in self.findings}
        return len(named - {""})

    def figures(self) -> dict[str, Any]:
        """What it has done in numbers, without anything that names a person."""
        together = explained(self.findings)
        return {
            "run": self.run,
            "chosen": self.chosen,
            "searched": self.searched,
            "left": self.left,
            "photos_gone": self.photos_gone,
            "too_new": self.too_new,
            "uncompared": self.uncompared,
            "refused": dict(self.refused),
            "in_doubt": self.in_doubt,
            "not_audited": self.not_audited,
            "findings": {kind.value: count for kind, count in self.counts.items()},
            "people": self.people,
            "swapped": len(together.swapped),
            "misplaced": len(together.misplaced),
            "calls": by_kind(self.calls),
            "calls_refused": self.calls_refused,
        }


def first_findings(ledger: LedgerReader) -> list[Pair]:
    """The current findings by kind, the first `MOST_READ` of each."""
    first: dict[FindingKind, list[Pair]] = {kind: [] for kind in KINDS}
    for pair in ledger.pairs():
        if len(of_kind := first[pair.finding.kind]) < MOST_READ:
            of_kind.append(pair)
    return [pair for of_kind in first.values() for pair in of_kind]


# A file of findings


def write_findings(path: Path, ledger: LedgerReader) -> None:
    """Write all current findings to a table, by kind. Raises what `new_table` raises."""
    with new_table(path, FINDING_COLUMNS, rules=_RULES, numbers={"run"}) as table:
        for kind in KINDS:
            table.write(_cells(pair) for pair in ledger.pairs() if pair.finding.kind is kind)


def _cells(pair: Pair) -> list[Cell]:
    finding = pair.finding
    return [
        finding.kind.value,
        _score(pair),
        pair.user_id,
        pair.user_data,
        pair.image,
        pair.face_token,
        finding.other_user_id,
        pair.other_user_data,
        pair.other_image,
        finding.other_token,
        pair.status.value,
        iso_time(pair.at),
        pair.run,
    ]


def _score(pair: Pair) -> str:
    return "" if pair.finding.score is None else f"{pair.finding.score:g}"


# Lines


def audited_lines(audited: Audited, *, shown: bool, file: Path | None) -> Iterator[str]:
    """An audit as lines. User ids and paths only if they may be `shown`; `file` is where all
    findings are."""
    calls = ", ".join(f"{count:,} {kind}" for kind, count in audited.calls.items())
    yield from facts(
        [
            ("Library", f"{audited.group_id} at {audited.endpoint}"),
            ("Ledger", f"{audited.ledger}, {amount(audited.enrolled, 'enrolled face')}"),
            ("Searched", f"with the photos of {audited.searched:,} of {_faces(audited)}"),
            ("Calls", calls),
        ],
        least=len("Endpoint"),  # aligned with what was shown before the first call
    )
    yield from _left_out(audited)
    yield ""
    left = f"{amount(audited.not_audited, 'enrolled face')} not audited."
    if not audited.findings:
        yield f"No finding so far; {left}" if audited.not_audited else "No finding."
        return
    yield from counted({kind: n for kind, n in audited.counts.items() if n}, MEANINGS)
    more = "at least " if sum(audited.counts.values()) > len(audited.findings) else ""
    about = f"  These are about {more}{amount(audited.people, 'person', 'people')}."
    yield f"{about} {left}" if audited.not_audited else about
    yield ""
    yield from _first_findings(audited, shown=shown, file=file)
    yield ""
    yield from _remedies(audited)


def _faces(audited: Audited) -> str:
    return f"{audited.chosen:,} chosen {'face' if audited.chosen == 1 else 'faces'}"


def _left_out(audited: Audited) -> Iterator[str]:
    if audited.in_doubt:
        yield (
            f"{amount(audited.in_doubt, 'face')} in doubt left out: `enroll run` settles doubts, "
            "and the next audit searches."
        )
    if audited.photos_gone:
        yield (
            f"{amount(audited.photos_gone, 'face')} left out, because the photo is gone or has "
            "changed: bring the photos up to date with `enroll run` or `enroll sync`, then audit "
            "again."
        )
    for code, count in audited.refused.items():
        remedy = what_to_do(code, Status.REJECTED.value, "")
        yield f"{amount(count, 'photo')} that the service does not search with: {code}. {remedy}"
    if audited.too_new:
        yield (
            f"{amount(audited.too_new, 'face')} left out, because the service does not show such "
            "new ones yet: audit again in ten minutes."
        )
    if audited.uncompared:
        above = (score for score in _HIGHER if score > audited.cut_at > 0)
        higher = next(above, None)
        remedy = (
            "" if higher is None else f" `enroll audit --again --unlike {higher}` compares them."
        )
        yield (
            f"{amount(audited.uncompared, 'photo')} not compared with another of the same person: "
            f"the service shows 100 faces, and all were more alike than --unlike.{remedy}"
        )
    if audited.left:
        yield f"{amount(audited.left, 'face')} left: `enroll audit` goes on with them."


def _first_findings(audited: Audited, *, shown: bool, file: Path | None) -> Iterator[str]:
    pairs = audited.findings

    def name(user_id: str) -> str:
        return user_id if shown else mask(user_id)

    def photo(pair: Pair) -> str:
        if shown and pair.image:
            return f"The photo {pair.image} of {name(pair.user_id)}"
        return f"A photo of {name(pair.user_id)}"

    together = explained(pairs)
    lines = [
        f"  Two photos of {name(one)} and {name(other)} are probably swapped: each looks like a "
        "photo of the other person, and not like one of their own."
        for one, other in together.swapped
    ]
    lines += [
        f"  {photo(pair)} probably shows {name(pair.finding.other_user_id)}: it looks like their "
        "photos, and not like the others of its own person."
        for pair in together.misplaced
    ]
    rows = [_row(pair, name, shown=shown) for pair in pairs[: max(SHOWN - len(lines), 0)]]
    yield from lines[:SHOWN]
    if rows:
        yield from columns(rows)
    if more := sum(audited.counts.values()) - len(rows):
        yield f"  and {amount(more, 'more finding')}"
    if file is not None:
        yield f"  All findings are in {file}."
    elif more or not shown:
        yield "  --findings FILE writes all, with ids, photos and tokens."


def _row(pair: Pair, name: Callable[[str], str], *, shown: bool) -> list[str]:
    finding = pair.finding
    other = name(finding.other_user_id) if finding.other_user_id else "nobody"
    if finding.kind is FindingKind.UNLIKE:
        other = ""
    images = [pair.image, pair.other_image] if shown else []
    notes = [
        "held" if pair.status is Status.HELD else "",
        "the other superseded" if pair.other_status is Status.SUPERSEDED else "",
    ]
    note = ", ".join(filter(None, notes))
    return ["", finding.kind.value, _score(pair), name(pair.user_id), other, *images, note]


def _remedies(audited: Audited) -> Iterator[str]:
    counts = audited.counts
    if counts[FindingKind.LOOKALIKE] or counts[FindingKind.UNLIKE_BEFORE]:
        yield (
            "One person under two ids, or a photo under the wrong id: correct the list, delete the "
            "faces of the wrong ids with `enroll remove --user-ids FILE`, and run again."
        )
        yield "Two people who do look alike, such as twins: `enroll audit --accept ID1,ID2`."
    if counts[FindingKind.UNLIKE]:
        yield (
            "Photos of one person that do not look alike: replace the wrong one, and run again. If "
            "both are right: `enroll audit --accept ID,ID`, twice the same id."
        )
    if any(pair.other_status is Status.SUPERSEDED for pair in audited.findings):
        yield "Superseded faces: `enroll remove --superseded` deletes all that no row points to."
    if counts[FindingKind.NOT_ITSELF]:
        yield (
            "The own face not first: `enroll verify` shows whether the library still holds it, "
            "`enroll verify --requeue-missing` makes it due again."
        )
