"""Faces that resemble another person, as a report shows them: pairs, in groups."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from enroll.ledger import FindingKind, Pair
from enroll.model import Status
from enroll.report.lines import Line, shown_texts
from enroll.session.resemblance import explained

READ_PAIRS = 20_000
"""Pairs of each kind that a report reads: nobody compares more faces by eye."""


class PairGroup(StrEnum):
    """What pairs are grouped by, in the order of a report; its texts name each."""

    SWAPPED = "swapped"
    """Each of two people has a photo that shows the other."""
    REPLACEMENT = "replacement"
    """Somebody's new photo looks like another person, and not like the present face."""
    NEWCOMER = "newcomer"
    """A photo that is held, of somebody without a face, looks like another person."""
    LOOKALIKE = "lookalike"
    UNLIKE = "unlike"
    NOT_ITSELF = "not_itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One face of a pair. Texts are safe to show, and masked where that is asked for; `photo` is
    the recorded path, empty where none is known.

    `number` is of the photo's row, 0 if it has none; `group` of any row of the person, None if
    there is none; `value` is the group unmasked. `status` is the face's, None where the ledger does
    not know it. `misplaced` photos are probably not of this person. `withheld` says that nothing of
    this side may be shown.
    """

    user_id: str
    user_data: str
    image: str
    number: int
    group: str | None
    value: str | None = field(repr=False)
    photo: str = field(repr=False)
    status: Status | None
    misplaced: bool = False
    withheld: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FacePair:
    """Two faces that a person has to compare.

    `scores` has one number, two for photos that were swapped, none where the search did not show
    the other face. `ids` are the user ids as they are typed, None where they may not be shown.
    """

    group: PairGroup
    scores: Sequence[float]
    sides: tuple[Side, Side]
    ids: tuple[str, str] | None

    @property
    def values(self) -> set[str]:
        """The values of --by of both people, as far as these have rows."""
        return {side.value for side in self.sides if side.value is not None}

    def of_file(self, value: str, *, masked: bool) -> FacePair:
        """This pair in the file of one value of --by.

        Of anybody else it says what a comparison takes: picture, id and group. Masked, nothing.
        """
        one, other = (
            side if side.value == value else _of_elsewhere(side, masked=masked)
            for side in self.sides
        )
        return replace(self, sides=(one, other))


def _of_elsewhere(side: Side, *, masked: bool) -> Side:
    bare = replace(side, user_data="", image="", number=0)
    if not masked:
        return bare
    return replace(
        bare, user_id="", photo="", group=None, status=None, misplaced=False, withheld=True
    )


class PairsOfFaces:
    """The pairs of a ledger, and the rows of their people, which are added one at a time."""

    def __init__(
        self, found: Iterable[Pair], statuses: Collection[Status], *, root: str, masked: bool
    ) -> None:
        """Without `statuses`, all pairs. Relative paths of photos are taken to lie in `root`, where
        that is not empty."""
        counts: Counter[FindingKind] = Counter()
        self._pairs: list[Pair] = []
        for pair in found:
            if not statuses or pair.status in statuses:
                counts[pair.finding.kind] += 1
                if counts[pair.finding.kind] <= READ_PAIRS:
                    self._pairs.append(pair)
        self.more = any(count > READ_PAIRS for count in counts.values())
        self.people = frozenset(
            user_id for pair in self._pairs for user_id in (pair.user_id, _other(pair))
        )
        self._root, self._masked = root, masked
        self._rows: dict[str, list[tuple[str, Line]]] = defaultdict(list)

    def add(self, user_id: str, value: str, line: Line) -> None:
        """Note a row of one of the `people`, with its value of --by."""
        self._rows[user_id].append((value, line))

    def shown(self) -> Iterator[FacePair]:
        """All pairs by group, and in a group those first that are most certain: with the highest
        score, or the lowest where photos should resemble each other."""
        found = list(self._grouped())
        order = list(PairGroup)
        found.sort(key=lambda pair: (order.index(pair.group), _rank(pair)))
        yield from found

    def _grouped(self) -> Iterator[FacePair]:
        known = explained(self._pairs)
        swapped = set(known.swapped)
        misplaced = {pair.face_token for pair in known.misplaced}
        back_of = _held_for_each_other(self._pairs)
        for pair in self._pairs:
            people = min(pair.user_id, _other(pair)), max(pair.user_id, _other(pair))
            back = back_of.get(id(pair))
            if back is None:
                group = _group(pair)
                if group is PairGroup.LOOKALIKE and people in swapped:
                    group = PairGroup.SWAPPED
                yield self._shown(pair, group, misplaced)
            elif pair.user_id == people[0]:  # once for both
                yield self._both(pair, back)

    def _shown(self, pair: Pair, group: PairGroup, misplaced: Collection[str] = ()) -> FacePair:
        finding, other = pair.finding, _other(pair)
        one = self._side(pair.user_id, pair.user_data, pair.image, pair.status)
        two = self._side(other, pair.other_user_data, pair.other_image, pair.other_status)
        return FacePair(
            group=group,
            scores=() if finding.score is None else (finding.score,),
            sides=(
                replace(one, misplaced=pair.face_token in misplaced),
                replace(two, misplaced=finding.other_token in misplaced),
            ),
            ids=None if self._masked else (pair.user_id, other),
        )

    def _both(self, pair: Pair, back: Pair) -> FacePair:
        """Two new photos that were swapped: the faces that they resemble are shown no more, as
        their photos' files may have been replaced by these."""
        one, other = (self._shown(found, PairGroup.SWAPPED) for found in (pair, back))
        return replace(
            one, scores=(*one.scores, *other.scores), sides=(one.sides[0], other.sides[0])
        )

    def _side(self, user_id: str, user_data: str, image: str, status: Status | None) -> Side:
        rows = self._rows.get(user_id, ())
        own = next((one for one in rows if one[1].photo == image), None)
        row = own or next(iter(rows), None)
        shown_id, shown_data, path = shown_texts(user_id, user_data, image, masked=self._masked)
        return Side(
            user_id=shown_id,
            user_data=shown_data,
            image=path,
            number=row[1].number if row is not None and (own or not image) else 0,
            group=None if row is None else row[1].group,
            value=None if row is None else row[0],
            photo=os.path.join(self._root, image) if image else "",  # noqa: PTH118  # also a ZIP's
            status=status,
        )


def _other(pair: Pair) -> str:
    return pair.finding.other_user_id


def _group(pair: Pair) -> PairGroup:
    match pair.finding.kind:
        case FindingKind.UNLIKE_BEFORE:
            return PairGroup.REPLACEMENT
        case FindingKind.LOOKALIKE if pair.status is Status.HELD:
            return PairGroup.NEWCOMER
        case FindingKind.LOOKALIKE:
            return PairGroup.LOOKALIKE
        case FindingKind.UNLIKE:
            return PairGroup.UNLIKE
        case FindingKind.NOT_ITSELF:
            return PairGroup.NOT_ITSELF


def _rank(pair: FacePair) -> float:
    best = max(pair.scores, default=-1.0)
    return best if pair.group is PairGroup.UNLIKE else -best


def _held_for_each_other(pairs: Sequence[Pair]) -> dict[int, Pair]:
    """By `id` of a pair: the one that says the same of the other person's new photo."""
    new: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        if _group(pair) is PairGroup.REPLACEMENT:
            new.setdefault((pair.user_id, _other(pair)), pair)
    return {
        id(pair): new[other, user_id]
        for (user_id, other), pair in new.items()
        if (other, user_id) in new
    }
