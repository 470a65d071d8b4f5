"""Which people may be meant by a photo's name: found in bounded memory, however many there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, islice, permutations, product

import numpy as np
from rapidfuzz import fuzz, process

from enroll.commands.match_scores import EXTRAS, MOST_JOINED, TITLES, Names

MOST = 24
"""People that one photo is compared with for one reason, such as the same name."""

_SIMILAR = 12
"""Similar names that a photo's name is compared with word for word."""

_LEAST_RATIO = 60
"""Per cent that two names have in common for that; `A. Müller` and `Anna Müller` have 80."""

_CELLS = 1 << 25
"""Bytes of a table of similarities."""


class Candidates:
    """People by their names."""

    def __init__(self, people: Sequence[Sequence[Names]]) -> None:
        """`people` has for each person all the forms of the name."""
        self._by_line: dict[str, list[int]] = defaultdict(list)
        self._by_words: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for person, forms in enumerate(people):
            for line in {_line(names) for names in forms}:
                self._by_line[line].append(person)
            for key in {key for names in forms for key in _word_keys(names)}:
                self._by_words[key].append(person)
        self._by_line.pop("", None)
        self._turns: dict[object, int] = defaultdict(int)

    def by_words(self, views: Sequence[Names]) -> set[int]:
        """People of whose name two words, or all written as one, are in a photo's name."""
        found: set[int] = set()
        for key in {key for names in views for key in _photo_keys(names)}:
            found.update(self._some(key, self._by_words.get(key, ())))
        return found

    def similar(
        self,
        photos: Sequence[Sequence[Names]],
        *,
        workers: int,
        progress: Callable[[int], None],
    ) -> Iterator[set[int]]:
        """For each photo the people with the most similar names; `photos` has the forms of its
        name. `progress` gets the number of photos that are done."""
        people = list(self._by_line)
        step = max(1, _CELLS // max(1, len(people)))
        for start in range(0, len(photos), step):
            chunk = [
                {_line(names) for names in views} - {""} for views in photos[start : start + step]
            ]
            distinct = list(dict.fromkeys(chain.from_iterable(chunk)))
            near = dict(zip(distinct, _nearest(distinct, people, workers), strict=True))
            for at, lines in enumerate(chunk, start + 1):
                found: set[int] = set()
                for other in (people[place] for line in lines for place in near[line]):
                    found.update(self._some(other, self._by_line[other]))
                yield found
                progress(at)

    def _some(self, key: object, people: Sequence[int]) -> Sequence[int]:
        """At most MOST of the people of one name, others for the next photo of that name."""
        if len(people) <= MOST:
            return people
        start = self._turns[key] % len(people)
        self._turns[key] += MOST
        return [*people[start : start + MOST], *people[: max(0, start + MOST - len(people))]]


def _nearest(chunk: Sequence[str], people: Sequence[str], workers: int) -> Iterator[list[int]]:
    """For each name of a chunk the places of the most similar people."""
    if not people:
        yield from ([] for _ in chunk)
        return
    table = process.cdist(
        chunk,
        people,
        scorer=fuzz.ratio,
        dtype=np.uint8,
        score_cutoff=_LEAST_RATIO,
        workers=workers,
    )
    for row in table:
        places = np.flatnonzero(row)
        if len(places) > _SIMILAR:
            order = np.argsort(row[places], kind="stable")[-_SIMILAR:]
            places = places[order]
        yield places.tolist()


def _line(names: Names) -> str:
    """A name on a line, the same in whichever order its words are written."""
    return " ".join(sorted(one.thin for one in names if one.plain not in EXTRAS))


def _word_keys(names: Names) -> Iterator[tuple[str, ...]]:
    """What a person is found by: every two words, and all words as one."""
    forms = [tuple(dict.fromkeys(one)) for one in names if one.plain not in TITLES]
    for one, other in combinations(forms, 2):
        for pair in product(one, other):
            yield tuple(sorted(pair))
    if len(forms) <= MOST_JOINED:
        for order in permutations(forms):
            yield from (("".join(some),) for some in islice(product(*order), MOST))


def _photo_keys(names: Names) -> Iterator[tuple[str, ...]]:
    forms = [tuple(dict.fromkeys(one)) for one in names if one.plain not in EXTRAS]
    for one, other in combinations(forms, 2):
        for pair in product(one, other):
            yield tuple(sorted(pair))
    yield from (("".join(some),) for some in islice(product(*forms), MOST))
