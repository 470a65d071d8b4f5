"""Which photo each person is proposed, and which proposals are sure. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from enroll.commands.match_pairs import CLOSE, PROPOSED, SURE, Pair, Person, Photo, find_pairs
from enroll.commands.match_scores import Likeness

MARGIN = 5.0
"""How much better a sure proposal is than any other of its person or of its photo."""

_ALSO_THEIRS = 90.0
"""From this score on, another photo without an owner makes a person's own photo doubtful."""

_NAMED = 85.0
"""From this score on, a photo has somebody's name."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a proposal is not sure: a sentence, in which `{}` is the id of the other `person`, or the
    path of the other `photo`."""

    text: str
    person: int | None = None
    photo: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The photo that a person is proposed, if any, and why it is not sure, if so.

    `runner_up` is the person's next best photo.
    """

    pair: Pair | None
    runner_up: Pair | None = None
    doubt: Doubt | None = None

    @property
    def is_sure(self) -> bool:
        """Whether nothing speaks against it."""
        return self.pair is not None and self.doubt is None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A proposal for each person, in order, and the photos that are left, by their places, with the
    pair in which each would fit best, if there is one."""

    proposals: Sequence[Proposal]
    left: Mapping[int, Pair | None]


def propose(
    people: Sequence[Person],
    photos: Sequence[Photo],
    *,
    columns: Sequence[str],
    workers: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Propose photos; no photo is proposed twice.

    `columns` are the names of the columns that `Person.ids` come from, `workers` how many cores
    compare names, and `progress` gets the number of photos compared so far.
    """
    found = find_pairs(people, photos, columns=columns, workers=workers, progress=progress)
    served = {place for place, person in enumerate(people) if person.photo is not None}
    judge = _Judge(found, served)
    given = {person.photo for person in people}
    proposals = [judge.proposal(person) for person in range(len(people))]
    given.update(one.pair.photo for one in proposals if one.pair is not None)
    left = [photo for photo in range(len(photos)) if photo not in given]
    return Outcome(proposals, {photo: judge.best_of(photo) for photo in left})


class _Judge:
    """Assigns photos to people, the best pairs first, and looks for what speaks against it."""

    def __init__(self, pairs: Iterator[Pair], served: Set[int]) -> None:
        """`served` are people who have a photo by the list."""
        self._served = served
        self._of_person: dict[int, list[Pair]] = defaultdict(list)
        self._of_photo: dict[int, list[Pair]] = defaultdict(list)
        self._given: dict[int, Pair] = {}
        taken = set()
        worth = (pair for pair in pairs if pair.score >= PROPOSED)
        for pair in sorted(worth, key=lambda pair: (-pair.rank, pair.person, pair.photo)):
            self._of_person[pair.person].append(pair)
            self._of_photo[pair.photo].append(pair)
            if pair.person in served or pair.person in self._given:
                continue
            if pair.photo not in taken:
                self._given[pair.person] = pair
                taken.add(pair.photo)

    def proposal(self, person: int) -> Proposal:
        """The proposal for a person."""
        pair = self._given.get(person)
        pairs = self._of_person.get(person, [])
        runner_up = next((other for other in pairs if other is not pair), None)
        doubt = None if pair is None else next(self._doubts(pair), None)
        return Proposal(pair=pair, runner_up=runner_up, doubt=doubt)

    def best_of(self, photo: int) -> Pair | None:
        """The best pair of a photo."""
        return next(iter(self._of_photo.get(photo, ())), None)

    def _doubts(self, pair: Pair) -> Iterator[Doubt]:
        if pair.score < SURE:
            yield Doubt(pair.why)
        for other in self._of_photo[pair.photo]:
            if other is not pair and (text := self._may_be_meant(pair, other)):
                yield Doubt(text, person=other.person)
        for other in self._of_person[pair.person]:
            if other is not pair and (text := self._may_be_theirs(pair, other)):
                yield Doubt(text, photo=other.photo)

    def _may_be_meant(self, pair: Pair, other: Pair) -> str:
        """Why the photo may be meant for another person; empty if not."""
        if other.rank > pair.rank - MARGIN:
            return "The row of {} fits this photo as well."
        if pair.proved and other.name.score > max(pair.name.score + MARGIN, _NAMED):
            return "The photo has the number of this row, but the name of {}."
        if other.score < CLOSE:
            return ""
        if pair.name.likeness is Likeness.SLIP and not pair.proved:
            return "The row of {} has a similar name."
        return "" if self._is_settled(other) else "{} may be meant, and has no better photo."

    def _may_be_theirs(self, pair: Pair, other: Pair) -> str:
        """Why another photo may be the person's own; empty if not."""
        if other.rank > pair.rank - MARGIN:
            return "The photo {} fits this row as well."
        exact = pair.proved or pair.name.likeness is not Likeness.SLIP
        if other.score < (_ALSO_THEIRS if exact else CLOSE) or pair.proved:
            return ""
        best = self._of_photo[other.photo][0]
        if best is not other and best.rank > other.rank:
            return ""
        return "The photo {} may be this row's, too: it fits no other row better."

    def _is_settled(self, pair: Pair) -> bool:
        """Whether the person of a pair has a better photo, which fits nobody else better."""
        if pair.person in self._served:
            return True
        best = self._of_person[pair.person][0]
        return best.rank > pair.rank and self._of_photo[best.photo][0] is best
