"""Rows that are probably mistakes, which only many rows together show: ids that a spreadsheet has
changed, and people with several texts.

A spreadsheet reads an id of digits as a number. It drops the zeros before it, and keeps 15 digits:
`00123` becomes 123, and of 20 digits the last five become zeros.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from enroll.ledger import Ledger
from enroll.manifest.celltext import EXACT_DIGITS
from enroll.manifest.conflicts import Numbers, differing
from enroll.manifest.rules import MAX_USER_ID_BYTES
from enroll.model import Fault, Row
from enroll.photos import PhotoStore
from enroll.text.wording import amount

SHOWN = 3
"""Rows that a note names."""

_DEVIATIONS = 10
"""By how many standard deviations more ids must end in zeros than would by chance: of 16 digits
a tenth do."""

_Lines = Sequence[int]
"""1-based numbers of lines, in their order."""


class SuspectCode(StrEnum):
    """What is wrong with a row, in the plan's report."""

    USER_ID_ZEROS = "USER_ID_ZEROS"
    """The user_id differs from another one, in the list or the ledger, only in the zeros before
    it."""
    USER_ID_SHORTENED = "USER_ID_SHORTENED"
    """The user_id has only zeros after its fifteenth digit, like too many others in the list."""
    USER_DATA_DIFFERS = "USER_DATA_DIFFERS"
    """An earlier row of the person has another user_data."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows, each with an earlier one that it is at odds with."""

    lines: _Lines = ()
    firsts: _Lines = ()

    def __len__(self) -> int:
        return len(self.lines)

    def first_of(self, line: int) -> int | None:
        """The earlier row of this one, if it is among them."""
        return self.firsts[bisect_left(self.lines, line)] if _holds(self.lines, line) else None

    def examples(self, words: str) -> str:
        """`line 7 {words} line 2, …`."""
        shown = zip(self.lines[:SHOWN], self.firsts[:SHOWN], strict=True)
        return _and_more([f"line {line:,} {words} line {one:,}" for line, one in shown], len(self))


@dataclass(frozen=True, slots=True)
class KnownOtherwise:
    """A row whose `user_id`, of so many `digits`, the ledger knows with `known` digits."""

    line: int
    digits: int
    known: int

    def __str__(self) -> str:
        digits = f" ({amount(self.known, 'digit')} in the ledger, {self.digits} here)"
        return f"line {self.line:,}{digits if self.known else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """The suspicious rows of a list.

    `repeats` have the person and photo of an earlier row and another text, which is ignored;
    `texts` another photo of the person and another text. `zeros` have an id that an earlier row
    has with more or fewer zeros before it; `known_zeros` one that the ledger has so, with
    `examples`. The ids of `shortened` have lost their last digits.
    """

    repeats: Pairs = Pairs()
    texts: Pairs = Pairs()
    zeros: Pairs = Pairs()
    known_zeros: _Lines = ()
    examples: Sequence[KnownOtherwise] = ()
    shortened: _Lines = ()

    def fault_of(self, line: int) -> Fault | None:
        """What is wrong with a row, as a sentence."""
        if _holds(self.known_zeros, line):
            return Fault(
                code=SuspectCode.USER_ID_ZEROS,
                message="The ledger knows this user_id with more or fewer zeros before it; if a "
                "spreadsheet has removed them, enter or import the ids as text.",
            )
        if (first := self.zeros.first_of(line)) is not None:
            return Fault(
                code=SuspectCode.USER_ID_ZEROS,
                message=f"The user_id of line {first:,} differs only in the zeros before it; "
                "correct the wrong one.",
            )
        if _holds(self.shortened, line):
            return Fault(
                code=SuspectCode.USER_ID_SHORTENED,
                message=f"The user_id has only zeros after its {EXACT_DIGITS}th digit, as if a "
                "spreadsheet had rounded it; enter or import the ids as text.",
            )
        if (first := self.texts.first_of(line)) is not None:
            return Fault(
                code=SuspectCode.USER_DATA_DIFFERS,
                message=f"Line {first:,} gives this person another user_data; correct the wrong "
                "one.",
            )
        return None


NONE = Suspects()


class SuspectSearch:
    """Looks for suspicious rows among any number: 40 bytes are kept of each."""

    def __init__(self) -> None:
        # Hashes: of person and photo, of the text, the person, and the digits of the person's id.
        self._keys = array("q")
        self._texts = array("q")
        self._people = array("q")
        self._digits = array("q")
        self._lines = array("q")
        self._long_ids = _LongIds()

    def add(self, rows: Sequence[Row], paths: Sequence[str]) -> None:
        """Take more rows into account, whose photos are at these paths."""
        self._keys.extend(
            [hash((row.user_id, path)) for row, path in zip(rows, paths, strict=True)]
        )
        self._texts.extend([hash(row.user_data) for row in rows])
        self._people.extend([hash(row.user_id) for row in rows])
        self._lines.extend([row.line for row in rows])
        for row in rows:
            digits = _digits_of(row.user_id)
            self._digits.append(hash(digits or row.user_id))
            if len(digits) > EXACT_DIGITS:
                self._long_ids.add(row.line, digits)

    def people(self) -> int:
        """How many people the rows so far are of."""
        people = np.sort(np.asarray(self._people))
        return int(np.count_nonzero(np.diff(people, prepend=~people[:1])))

    def found(self) -> Suspects:
        """The suspicious rows so far, in their order."""
        if not self._lines:
            return NONE
        repeats, firsts = differing(self._keys, self._texts)
        texts, first_texts = differing(self._people, self._texts)
        others = ~np.isin(texts, repeats)
        return Suspects(
            repeats=self._pairs(repeats, firsts),
            texts=self._pairs(texts[others], first_texts[others]),
            zeros=self._pairs(*differing(self._digits, self._people)),
            shortened=self._long_ids.shortened(),
        )

    def _pairs(self, rows: Numbers, firsts: Numbers) -> Pairs:
        lines = np.asarray(self._lines)
        return Pairs(_array(lines[rows]), _array(lines[firsts]))


def suspects_in(chunks: Iterable[Sequence[Row]], store: PhotoStore) -> Suspects:
    """The suspicious rows of a whole list."""
    search = SuspectSearch()
    for rows in chunks:
        search.add(rows, [store.locate(row.image) for row in rows])
    return search.found()


class _LongIds:
    """Ids of more digits than a spreadsheet keeps, without the zeros before them."""

    def __init__(self) -> None:
        self._lines = array("q")
        self._ids = array("q")  # hashes
        self._beyond = array("b")  # digits after the fifteenth, below zero if any of them is not 0

    def add(self, line: int, digits: str) -> None:
        beyond = min(len(digits) - EXACT_DIGITS, MAX_USER_ID_BYTES)
        self._lines.append(line)
        self._ids.append(hash(digits))
        self._beyond.append(-beyond if digits[EXACT_DIGITS:].strip("0") else beyond)

    def shortened(self) -> _Lines:
        """The lines of those that end in zeros, if that are more ids than would by chance."""
        if not self._lines:
            return ()
        beyond = np.asarray(self._beyond)
        _, once = np.unique(np.asarray(self._ids), return_index=True)
        by_chance = float(np.sum(10.0 ** -np.abs(beyond[once].astype(float))))
        if np.sum(beyond[once] > 0) <= by_chance + _DEVIATIONS * math.sqrt(by_chance):
            return ()
        return _array(np.asarray(self._lines)[beyond > 0])


def _digits_of(user_id: str) -> str:
    """The digits of a whole number without the zeros before them; empty for any other id."""
    return user_id.lstrip("0") if user_id.isascii() and user_id.isdigit() else ""


def _array(lines: Numbers) -> array[int]:
    return array("q", lines.astype(np.int64).tobytes())


def _holds(lines: _Lines, line: int) -> bool:
    at = bisect_left(lines, line)
    return at < len(lines) and lines[at] == line


# Compared with the ledger


@dataclass(slots=True)
class NewPeople:
    """Looks for suspicious ids among people who are new to a ledger. Once one of them is a number,
    8 bytes are kept of each such id of the ledger."""

    ledger: Ledger
    known_zeros: array[int] = field(default_factory=lambda: array("q"))
    examples: list[KnownOtherwise] = field(default_factory=list)
    _long_ids: _LongIds = field(default_factory=_LongIds)
    _known: Numbers | None = None

    def look(self, rows: Iterable[tuple[int, str]]) -> None:
        """Look at more rows, by line and user_id: those that the ledger does not know."""
        numeric = [(*row, digits) for row in sorted(rows) if (digits := _digits_of(row[1]))]
        if not numeric:
            return
        if self._known is None:
            self._known = self._read_known()
        for line, _, digits in numeric:
            if len(digits) > EXACT_DIGITS:
                self._long_ids.add(line, digits)
        hashes = np.asarray([hash(digits) for _, _, digits in numeric])
        nearest = self._known[np.searchsorted(self._known, hashes) % len(self._known)]
        found = [numeric[place] for place in np.flatnonzero(nearest == hashes).tolist()]
        faces = self.ledger.faces_of({user_id for _, user_id, _ in found}) if found else {}
        for line, user_id, digits in found:
            if not any(face.face_token for face in faces[user_id]):
                self.known_zeros.append(line)
                if len(self.examples) < SHOWN:
                    known = self._known_digits(digits)
                    self.examples.append(KnownOtherwise(line, len(user_id), known))

    def beside(self, found: Suspects) -> Suspects:
        """These as well as those of the whole list."""
        return replace(
            found,
            known_zeros=self.known_zeros,
            examples=self.examples,
            shortened=found.shortened or self._long_ids.shortened(),
        )

    def _read_known(self) -> Numbers:
        hashes = array("q", [0])  # never empty, and no number's hash
        for some in self.ledger.significant_digits():
            hashes.extend(map(hash, some))
        return np.unique(np.asarray(hashes))

    def _known_digits(self, digits: str) -> int:
        """How long the id is that the ledger has."""
        padded = [digits.zfill(wide) for wide in range(len(digits), MAX_USER_ID_BYTES + 1)]
        faces = self.ledger.faces_of(padded)
        return next((len(one) for one in padded if any(f.face_token for f in faces[one])), 0)


# Notes

_AS_TEXT = (
    "enter or import the ids as text, and export the list again. If the ids are right, nothing "
    "needs to be done."
)


def suspect_notes(found: Suspects, *, urgent: bool = False) -> Iterator[str]:
    """The sentences about suspicious rows; only what is a mistake in any list if `urgent`."""
    yield from id_notes(found)
    if found.repeats:
        yield (
            f"{amount(len(found.repeats), 'row')} with the user_id and image of an earlier row, "
            f"but another user_data, which is ignored: {found.repeats.examples('repeats')}."
        )
    if found.texts and not urgent:  # they may describe the photos
        yield (
            f"{amount(len(found.texts), 'row')} with another user_data than the first row of the "
            f"same user_id: {found.texts.examples('and')}. Each photo is enrolled with the "
            "user_data of its own row. Correct the user_data, or the user_id if they are different "
            "people."
        )


def id_notes(found: Suspects) -> Iterator[str]:
    """Those about ids, which would be enrolled as other people."""
    if found.known_zeros:
        rows = amount(len(found.known_zeros), "row")
        yield (
            f"{rows} of new people whose user_id the ledger knows with more or fewer zeros before "
            f"it: {_and_more(list(map(str, found.examples)), len(found.known_zeros))}. They count "
            f"as other people. If a spreadsheet has removed the zeros, {_AS_TEXT}"
        )
    if found.zeros:
        yield (
            f"{amount(len(found.zeros), 'row')} with the user_id of an earlier row, but for the "
            f"zeros before it: {found.zeros.examples('and')}. They count as different people. If "
            f"a spreadsheet has removed zeros, {_AS_TEXT}"
        )
    if found.shortened:
        lines = [f"line {line:,}" for line in found.shortened[:SHOWN]]
        yield (
            f"{amount(len(found.shortened), 'row')} whose user_id has only zeros after its "
            f"{EXACT_DIGITS}th digit: {_and_more(lines, len(found.shortened))}. If a spreadsheet "
            f"has rounded the ids, several people may share one: {_AS_TEXT}"
        )


def _and_more(shown: Sequence[str], count: int) -> str:
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return ", ".join(shown) + more
