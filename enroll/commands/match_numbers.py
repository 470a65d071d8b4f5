"""Which people the numbers in photos' names belong to. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from enroll.commands.match_words import Key, digits_of, id_key

SHORTEST = 3
"""Characters of an id that a photo's name may prove; shorter ones may count photos."""


class Proof(Enum):
    """What a number in a photo's name says; the values are for people to read."""

    WHOLE = "The photo's name is the {column}"
    WITHIN = "The photo's name has the {column}"
    ZEROS = "The photo's name has the {column} but for leading zeros or letters that all have"


@dataclass(frozen=True, slots=True)
class Hit:
    """A number in a photo's name that one person has, and the column that it is in.

    `counts_rows` says that the column may just number the rows, as other numbers may, too.
    """

    person: int
    proof: Proof
    column: str
    key: Key
    counts_rows: bool


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the numbers in a photo's name say.

    `hits` are those that one person alone has. `weak` are people whose number is there, but may
    count photos, or is of several people. `others` are further numbers, and `strange` those of them
    that look like ids. `words` are the places of the words that belong to a hit's number.
    """

    hits: tuple[Hit, ...]
    weak: frozenset[int]
    others: tuple[str, ...]
    strange: tuple[str, ...]
    words: frozenset[int]

    @property
    def person(self) -> int | None:
        """The person named by the hits, if they all name the same one."""
        people = {hit.person for hit in self.hits}
        return people.pop() if len(people) == 1 else None


class NumberIndex:
    """People by their ids and numbers."""

    def __init__(self, columns: Sequence[str], ids: Iterable[Sequence[str]]) -> None:
        """`ids` has for each person the cells of these columns; the first is `user_id`."""
        self._columns = columns
        self._exact: dict[str, dict[int, int]] = defaultdict(dict)
        cells: list[list[str]] = [[] for _ in columns]
        for person, row in enumerate(ids):
            for place, cell in enumerate(row):
                key = id_key(cell)
                if key and (place == 0 or "@" in cell or any(map(str.isdecimal, key))):
                    self._exact[key].setdefault(person, place)
                cells[place].append(key)
        self._loose: dict[str, dict[int, int]] = defaultdict(dict)
        self._lengths: set[int] = set()
        self._counting: set[int] = set()
        for place, column in enumerate(cells):
            self._add_digits(place, column)

    def _add_digits(self, place: int, column: Sequence[str]) -> None:
        """Take up the digits alone of a column, if its ids differ in nothing else, and do not just
        number the rows: a photo's number may, too."""
        letters = {"".join(one for one in key if not one.isdecimal()) for key in column if key}
        self._lengths.update(sum(map(str.isdecimal, key)) for key in column)
        digits = [digits_of(key) for key in column]
        numbers = [int(one) for one in digits if 0 < len(one) < _LONG_NUMBER]
        if numbers and max(numbers) <= 2 * len(numbers):
            self._counting.add(place)
        if len(letters) != 1 or place in self._counting:
            return
        for person, text in enumerate(digits):
            if text:
                self._loose[text].setdefault(person, place)

    def read(self, keys: Sequence[Key]) -> Numbers:
        """What the numbers of a photo's name say."""
        found: list[tuple[Key, dict[int, int], bool]] = []
        for key in sorted(keys, key=lambda key: key.pieces[0] - key.pieces[1]):
            if any(_within(key, longer) for longer, _, _ in found):
                continue
            if people := self._exact.get(key.text):
                found.append((key, people, True))
            elif key.text.isdecimal() and (people := self._loose.get(digits_of(key.text))):
                found.append((key, people, False))
        hits: list[Hit] = []
        weak: set[int] = set()
        for key, people, exact in found:
            text = key.text if exact else digits_of(key.text)
            if len(people) == 1 and len(text) >= SHORTEST and not key.counts:
                (person, place) = next(iter(people.items()))
                proof = Proof.ZEROS if not exact else Proof.WHOLE if key.whole else Proof.WITHIN
                counts_rows = place in self._counting and key.text.isdecimal()
                hits.append(Hit(person, proof, self._columns[place], key, counts_rows))
            elif len(people) <= _MOST_WEAK:
                weak.update(people)
        others = tuple(
            key.text
            for key in keys
            if key.text.isdecimal()
            and len(key.text) >= SHORTEST
            and not key.counts
            and not any(_within(key, hit.key) for hit in hits)
        )
        strange = tuple(text for text in others if len(text) in self._lengths)
        words = frozenset(place for hit in hits for place in hit.key.words)
        return Numbers(tuple(hits), frozenset(weak), others, strange, words)


_LONG_NUMBER = 15
"""Digits of a number that numbers no rows."""

_MOST_WEAK = 5
"""People who share a number; one of more people is no proposal."""


def _within(key: Key, longer: Key) -> bool:
    return longer.pieces[0] <= key.pieces[0] and key.pieces[1] <= longer.pieces[1]
