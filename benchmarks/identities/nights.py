"""Nights on which some newcomers are no strangers, and some new photos show somebody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path

from enroll.sandbox import made_up_photo

from .audited import Judged, fault_table
from .oracle import Library, Pair, expected
from .phases import RESULTS, Phase, lines
from .staff import Fault, Photo, Row, Staff, another, write_manifest, write_photo
from .stand_in import faces_in

SCORE = 85.0
"""From which on --lookalikes holds a photo."""

_SWAPPED = "swapped"
"""What the message of both says of two people who are held for each other's faces."""

LIKE_BEFORE = 75.0
"""From which on a new photo resembles the face that it replaces."""

CHANGED = 0.01
"""Newcomers of a night, and people with a new photo of theirs: each this share of the staff."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row that is new, or whose photo is: `before` is what it was. With a fault it shows somebody
    whose face the library has under another id."""

    row: Row
    before: Row | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change: its status, error code and message. `rivals` are faces under other
    ids that it looks like, of the library and, in `tonight`, of what else is new; `own` is the
    score with the face that it replaces."""

    change: Change
    status: str
    error: str
    message: str
    rivals: Sequence[Pair]
    tonight: Sequence[Pair]
    own: float | None

    @property
    def held(self) -> bool:
        return self.status == "held"

    @property
    def like_before(self) -> bool:
        """It resembles the face that it replaces, so it may come."""
        return self.own is not None and self.own >= LIKE_BEFORE

    def wrong(self) -> Iterator[str]:
        """What should not be so."""
        person = self.change.row.user_id
        code = "LOOKALIKE" if self.change.before is None else "UNLIKE_BEFORE"
        if self.status not in ("held", "enrolled"):
            yield f"{person} is {self.status}: {self.error}"
        if self.held and self.error != code:
            yield f"{person} is held by {self.error}, not by {code}"
        if self.held and not (self.rivals or self.tonight):
            yield f"{person} is held and looks like nobody"
        if self.held and self.own is not None and self.own >= SCORE:
            yield f"{person} is held and looks like the face before: {self.own}"
        if not self.held and self.rivals and not self.like_before:
            best = max(self.rivals, key=lambda pair: pair.score)
            yield f"{person} is not held and looks like {best.other.user_id}: {best.score}"


@dataclass
class Nights:
    """A staff from night to night, and the faces that the library must hold."""

    staff: Staff
    folder: Path
    seed: int
    faces: list[Row] = field(default_factory=list)
    _touched: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Every row of the staff is enrolled."""
        self.faces = list(self.staff.rows)

    def change(self, *, faults: int) -> list[Change]:
        """Change the staff, and write manifest and photos. Only people whose one photo nothing is
        wrong with get another."""
        ordinary = self._ordinary()
        self.staff.chance.shuffle(ordinary)
        share = max(round(CHANGED * len(ordinary)), 1)
        changes = [Change(row) for row in self.staff.hire(share)]
        for fault in islice(cycle(Fault), faults):
            one, other = ordinary.pop(), ordinary.pop()
            if fault is Fault.DOUBLE:
                row = self.staff.file(self.staff.new_id(), another(one.photo))
                changes.append(Change(row, fault=fault))
            else:
                changes.append(self._replace(other, another(one.photo), fault))
            if fault is Fault.SWAPPED:
                changes.append(self._replace(one, another(other.photo), fault))
            self._touched |= {one.user_id, other.user_id}
        for row in ordinary[:share]:
            changes.append(self._replace(row, another(row.photo)))
        self._touched |= {change.row.user_id for change in changes}
        write_manifest(self.staff.rows, self.folder)
        for change in changes:
            write_photo(change.row, self.folder)
        return changes

    def judge(self, changes: Sequence[Change], phase: Phase) -> Judged:
        """Compare what became of the changes with what the scores show, and learn which faces the
        library holds now."""
        outcomes = self._outcomes(changes)
        wrong = [finding for outcome in outcomes for finding in outcome.wrong()]
        if phase.calls("search") != len(changes):
            wrong.append(f"{phase.calls('search'):,} searches for {len(changes):,} new photos")
        table = [
            *fault_table(
                ((one.change.fault, _shown(one), one.held) for one in outcomes if one.change.fault),
                done="held",
            ),
            "",
            *self._without_fault(outcomes),
            f"searches: {phase.calls('search'):,} for {len(changes):,} new photos",
        ]
        wrong += _swaps(outcomes)
        self._carry_out(outcomes)
        return Judged(table, [*wrong, *self._differences()])

    def _ordinary(self) -> list[Row]:
        """People of one photo, which shows nobody else; none that an earlier night changed."""
        ids = Counter(row.user_id for row in self.staff.rows)
        people = Counter(row.photo.person for row in self.staff.rows)
        return [
            row
            for row in self.staff.rows
            if ids[row.user_id] == people[row.photo.person] == 1
            and row.user_id not in self._touched
        ]

    def _replace(self, row: Row, photo: Photo, fault: Fault | None = None) -> Change:
        new = Row(row.user_id, photo, row.path)
        self.staff.rows[self.staff.rows.index(row)] = new
        return Change(new, before=row, fault=fault)

    def _outcomes(self, changes: Sequence[Change]) -> list[Outcome]:
        library = Library(self.faces, seed=self.seed)
        news = Library([change.row for change in changes], seed=self.seed)
        said = {line["image"]: line for line in lines(self.folder / RESULTS)}
        return [
            Outcome(
                change,
                status=said[change.row.path]["status"],
                error=said[change.row.path]["error"],
                message=said[change.row.path]["message"],
                rivals=library.looks_like(change.row, score=SCORE),
                tonight=news.looks_like(change.row, score=SCORE),
                own=(
                    None
                    if change.before is None
                    else library.score(change.before.photo, change.row.photo)
                ),
            )
            for change in changes
        ]

    def _without_fault(self, outcomes: Sequence[Outcome]) -> Iterator[str]:
        right = [one for one in outcomes if one.change.fault is None]
        newcomers = [one for one in right if one.change.before is None]
        chance = expected(len(newcomers) * len(self.faces), score=SCORE)
        held = sum(one.held for one in newcomers)
        yield f"{held:,} of {len(newcomers):,} other newcomers held; pairs by the rate: {chance}"
        others = [one for one in right if one.change.before is not None]
        yield f"{sum(one.held for one in others):,} of {len(others):,} people's own new photos held"
        let_in = sum(one.like_before and _shown(one) for one in outcomes if one.change.fault)
        yield f"{let_in:,} faults resemble the face that they replace, too"

    def _carry_out(self, outcomes: Sequence[Outcome]) -> None:
        """Take the photos that were not held into the library, for those that they replace."""
        replaced = {one.change.before for one in outcomes if not one.held}
        self.faces = [row for row in self.faces if row not in replaced]
        self.faces += [one.change.row for one in outcomes if not one.held]

    def _differences(self) -> Iterator[str]:
        """Faces that the library has and should not have, or lacks."""
        there = faces_in(self.folder)
        wanted = Counter(
            (row.user_id, sha256(made_up_photo(row.photo.person, row.photo.shot)).hexdigest())
            for row in self.faces
        )
        yield from (f"{user_id} has a face too many" for user_id, _ in (there - wanted))
        yield from (f"{user_id} lacks a face" for user_id, _ in (wanted - there))


def _swaps(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Swapped photos, both held and seen as each other's, that are not said to be swapped."""
    swapped = [one for one in outcomes if one.change.fault is Fault.SWAPPED]
    for one, other in zip(swapped[::2], swapped[1::2], strict=True):
        seen = all(each.held and _shown(each) for each in (one, other))
        if seen and not all(_SWAPPED in each.message for each in (one, other)):
            people = one.change.row.user_id, other.change.row.user_id
            yield f"{' and '.join(people)} are not said to be swapped"


def _shown(outcome: Outcome) -> bool:
    """Whether a fault can be seen: it looks like the person whom it shows."""
    return any(pair.same_person for pair in outcome.rivals)
