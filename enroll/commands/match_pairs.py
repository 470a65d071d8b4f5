"""How well photos fit people, by the numbers and the names in the photos' names. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

from enroll.commands.match_candidates import MOST, Candidates
from enroll.commands.match_numbers import SHORTEST, Hit, NumberIndex, Numbers, Proof
from enroll.commands.match_scores import (
    EXTRAS,
    MAYBE_EXTRAS,
    NOTHING,
    SAME_SCORE,
    Compared,
    Likeness,
    Names,
    compare_names,
    has_umlaut,
)
from enroll.commands.match_words import Key, Word

SURE = 90.0
"""The least score of a sure proposal."""

CLOSE = 75.0
"""From this score on a photo may well be meant for somebody."""

PROPOSED = 55.0
"""The least score of a proposal."""

_WHOLE, _WITH_NAME, _WITHIN = 100.0, 99.0, 94.0
"""Scores of a number: alone, beside the person's name, beside nothing that can be compared."""
_ZEROS = 2.0
"""What is taken off where zeros or letters are missing."""
_DOUBTED = 85.0
"""At most, where something else in the photo's name speaks against it."""
_CONTRADICTED = 74.0
"""A number beside another name. Less than CLOSE: a name of somebody else counts more."""
_OF_ANOTHER = 72.0
"""At most, for a name beside the number of somebody else."""
_WEAK_NUMBER = 80.0
"""A number that may count photos, or is of several people."""
_RANKED_BEFORE = 10.0
"""How much higher a number ranks than a name."""
_COMPATIBLE = 70.0
"""The least score of a name that does not contradict a number."""

_COMMON_SHARE = 5
"""A word that is in no name of the list, but in one of this number of photos, is not a name."""
_COMMON_LEAST = 5
"""Photos that have such a word."""

_COUNTING_LEAST = 20
"""Photos with a person's name whose numbers show whether numbers are ids here."""
_COUNTING_SHARE = 50
"""If not even one in so many is the person's, they count photos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A row of the list: its `ids`, of which `user_id` is the first; the forms of its name, each in
    one script; and other words of its cells that a photo's name may have. `photo` is the photo
    that the list itself names, -1 if it is not there."""

    ids: tuple[str, ...]
    names: tuple[Names, ...]
    extras: frozenset[str] = frozenset()
    photo: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A photo by what its name says."""

    words: Names
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A person and a photo, by their places, and how well they fit, from 0 to 100.

    `name` is how alike their names are. `proved` says that it is a number that joins them. `why`
    is for people to read.
    """

    person: int
    photo: int
    score: float
    name: Compared
    why: str
    proved: bool = False

    @property
    def rank(self) -> float:
        """The score, with numbers ranked above names."""
        return self.score + (_RANKED_BEFORE if self.proved and self.score >= SURE else 0.0)


@dataclass(frozen=True, slots=True)
class _Read:
    """A photo's name as read beside the list: the numbers, and the other words by script, if any of
    them may be a name."""

    numbers: Numbers
    views: tuple[Names, ...]


def by_script(words: Names) -> tuple[Names, ...]:
    """The words in ideographs, which may be a whole name, apart from the others."""
    parts = (
        tuple(one for one in words if one.is_ideograph),
        tuple(one for one in words if not one.is_ideograph),
    )
    return tuple(part for part in parts if part)


def find_pairs(
    people: Sequence[Person],
    photos: Sequence[Photo],
    *,
    columns: Sequence[str],
    workers: int,
    progress: Callable[[int], None],
) -> Iterator[Pair]:
    """The pairs that may be proposed, at most MOST for each photo; `columns` are those of
    `Person.ids`. Photos that the list itself names are left out."""
    index = NumberIndex(columns, [person.ids for person in people])
    known = Counter(word.plain for one in people for word in {*_all_words(one)})
    seen = Counter(word.plain for photo in photos for word in set(photo.words))
    common = frozenset(
        word
        for word, count in seen.items()
        if count >= _COMMON_LEAST and count * _COMMON_SHARE >= len(photos) and word not in known
    )
    extras = EXTRAS | common | (MAYBE_EXTRAS - known.keys())
    scale = _Scale(people, extras, known=known, seen=seen)
    given = {person.photo for person in people}
    read = [_read(photo, index, extras) for photo in photos]
    candidates = Candidates([person.names for person in people])
    similar = candidates.similar([one.views for one in read], workers=workers, progress=progress)
    compared: list[dict[int, Compared]] = []
    for photo, (one, alike) in enumerate(zip(read, similar, strict=True)):
        meant = alike | candidates.by_words(one.views) | one.numbers.weak
        meant |= {hit.person for hit in one.numbers.hits}
        those = () if photo in given else sorted(meant)
        compared.append({person: scale.compare(person, one.views) for person in those})
    counting = _numbers_count_photos(read, compared)
    for photo, (one, names) in enumerate(zip(read, compared, strict=True)):
        pairs = [
            _pair(person, photo, one, name, counting=counting) for person, name in names.items()
        ]
        yield from sorted(pairs, key=lambda pair: -pair.score)[:MOST]


def _all_words(person: Person) -> Iterator[Word]:
    for names in person.names:
        yield from names


def _read(photo: Photo, index: NumberIndex, extras: Set[str]) -> _Read:
    numbers = index.read(photo.keys)
    rest = tuple(word for at, word in enumerate(photo.words) if at not in numbers.words)
    views = (view for view in by_script(rest) if any(one.plain not in extras for one in view))
    return _Read(numbers, tuple(views))


class _Scale:
    """Compares people with photos by name."""

    def __init__(
        self,
        people: Sequence[Person],
        extras: Set[str],
        *,
        known: Counter[str],
        seen: Counter[str],
    ) -> None:
        self._people = people
        self._extras = extras
        self._known = known
        self._seen = seen
        self._list_has_umlauts = any(has_umlaut(word) for one in people for word in _all_words(one))

    def compare(self, person: int, views: Sequence[Names]) -> Compared:
        """How alike their names are, in the script in which they are more so."""
        who = self._people[person]
        best: dict[bool, Compared] = {}
        for view in views:
            if all(one.plain in self._extras or one.plain in who.extras for one in view):
                continue  # such as the department
            script = view[0].is_ideograph
            for names in who.names:
                if names[0].is_ideograph == script:
                    found = self._judge(names, view, who.extras)
                    if script not in best or found.score > best[script].score:
                        best[script] = found
        if not best:
            return NOTHING
        first, *others = sorted(best.values(), key=lambda one: -one.score)
        if others and others[0].score < PROPOSED:
            return replace(first, score=min(first.score, _DOUBTED), likeness=Likeness.OTHER)
        return first

    def _judge(self, names: Names, view: Names, own: Set[str]) -> Compared:
        found = compare_names(names, view, self._extras)
        if found.likeness is Likeness.PART and own and found.words[1]:
            found = compare_names(names, view, self._extras | own)
        if found.likeness is Likeness.SPELLED and self._list_has_umlauts:
            added = sum(map(has_umlaut, view)) - sum(map(has_umlaut, names))
            if added > 0:  # Schaefer is the spelling here, so Schäfer is another person
                return replace(found, score=min(found.score, _DOUBTED), likeness=Likeness.NEAR)
        typed = found.words[1]
        if found.likeness is Likeness.SLIP and (self._known[typed] or self._seen[typed] > 1):
            # Others have this name: it is not typed wrong.
            return replace(found, score=_DOUBTED, likeness=Likeness.NEAR)
        return found


def _numbers_count_photos(read: Sequence[_Read], compared: Sequence[dict[int, Compared]]) -> bool:
    """Whether numbers beside names are not ids here, because they seldom fit the name."""
    own = other = 0
    for one, names in zip(read, compared, strict=True):
        same = [person for person, name in names.items() if name.score >= SAME_SCORE - 5]
        if len(same) == 1:
            if one.numbers.person == same[0]:
                own += 1
            elif one.numbers.hits or one.numbers.strange:
                other += 1
    return other >= _COUNTING_LEAST and own * _COUNTING_SHARE < other


def _pair(person: int, photo: int, read: _Read, name: Compared, *, counting: bool) -> Pair:
    """How well a person and a photo fit, by number and name."""
    numbers = read.numbers
    fits = name.score >= _COMPATIBLE
    score, why = name.score, _in_words(name)
    if counting and read.views:
        return Pair(person=person, photo=photo, score=score, name=name, why=why)
    hit = next((hit for hit in numbers.hits if hit.person == person), None)
    if hit is not None:
        score, why = _of_number(read, person, name)
        return Pair(person=person, photo=photo, score=score, name=name, why=why, proved=True)
    if numbers.hits:
        score = min(score, _OF_ANOTHER)
        why = f"The {numbers.hits[0].column} in the photo's name is another row's."
    elif person in numbers.weak and (fits or name is NOTHING) and score < _WEAK_NUMBER:
        score = _WEAK_NUMBER
        why = "The photo's name has a number of this row, which may count photos instead."
    elif numbers.strange and score > _DOUBTED:
        score = _DOUBTED
        why = f"{why[:-1]}, but the number {numbers.strange[0]} is not this row's."
    return Pair(person=person, photo=photo, score=score, name=name, why=why)


def _of_number(read: _Read, person: int, name: Compared) -> tuple[float, str]:
    """Score and reason of a number that this person alone has."""
    hit = next(hit for hit in read.numbers.hits if hit.person == person)
    why = hit.proof.value.format(column=hit.column)
    off = _ZEROS if hit.proof is Proof.ZEROS else 0.0
    if read.numbers.person is None:
        return _DOUBTED, "The photo's name has numbers of several rows."
    if name.score >= _COMPATIBLE:
        return _WITH_NAME - off, f"{why}, and {name.likeness.value}."
    if name is not NOTHING:
        return _CONTRADICTED, f"{why}, but another name."
    if hit.key.whole:
        return _WHOLE - off, f"{why}."
    if doubt := _doubt_of(hit, read):
        return _DOUBTED, f"{why}, {doubt}."
    return _WITHIN - off, f"{why}."


def _doubt_of(hit: Hit, read: _Read) -> str:
    """Why a number that no name confirms may not be a person's; empty if it is."""
    if read.numbers.others:
        return f"and another number, {read.numbers.others[0]}"
    if hit.counts_rows or (read.views and len(hit.key.text) <= SHORTEST):
        return "but no name confirms it, and it may count photos"
    return ""


def _in_words(name: Compared) -> str:
    person, photo = name.words
    said = name.likeness.value[0].upper() + name.likeness.value[1:]
    if person and photo:
        return f"{said}: {photo} for {person}."
    if person:
        return f"{said}: {person} is missing."
    return f"{said}: {photo} is added." if photo else f"{said}."
