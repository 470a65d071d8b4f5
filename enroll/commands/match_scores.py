"""How alike the names of a person and of a photo are. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import permutations

from rapidfuzz.distance import OSA

from enroll.commands.match_words import Word, word_set

Names = tuple[Word, ...]
"""The words of a name, in their order."""


class Likeness(Enum):
    """In what two names differ at most; the values are for people to read."""

    SAME = "the same name"
    SPELLED = "the same name, written in another way"
    MIDDLE = "the same name, with an initial in the middle"
    SLIP = "the same name but for a slip of the keyboard"
    ONE_WORD = "only one word to compare"
    INITIAL = "only an initial of the name"
    NEAR = "a similar name"
    PART = "only a part of the name"
    OTHER = "another name"


@dataclass(frozen=True, slots=True)
class Compared:
    """How alike two names are: 0 to 100, and in what they differ; `words` are the two that differ
    most, of the person and of the photo."""

    score: float
    likeness: Likeness
    words: tuple[str, str] = ("", "")


NOTHING = Compared(0.0, Likeness.OTHER)

SAME_SCORE = 100.0
_SPELLED_SCORE = 97.0
_THIN_SCORE = 95.0
_MIDDLE_SCORE = 94.0
_SLIP_SCORE = 92.0
_ONE_WORD_SCORE = 85.0
_INITIAL_SCORE = 84.0
_NEAR_SCORE = 86.0
"""Of a similar name, times how similar it is."""
_NEAR_LEAST = 77.0
"""Of names that are a single letter apart."""
_PART_LEAST = 76.0
"""Of a name of which at least two words are there."""
_SINGLE_SCORE = 70.0
"""Of a name of which one word is there."""
_OTHER_SCORE = 70.0
"""Of two names that each have words which the other lacks, times how similar they are."""

_LEAST_SIMILARITY = 0.5
"""Below it two words are not the same word typed wrong."""

TITLES = word_set(
    "dr drs prof professor dipl ing dipling frau hr fr mr mrs ms miss mx msc bsc mba phd med rer "
    "habil lic"
)
"""Words that may be left out of a name. Jr and III may not: they tell father and son apart; nor may
titles that are names as well, such as Herr, Phil and Nat."""

MAYBE_EXTRAS = word_set("herr sir small large")
"""Words that are like those of EXTRAS where nobody in the list has such a name."""

EXTRAS = TITLES | word_set(
    "img image images dsc dscn dscf pic picture photo photos foto fotos bild bilder portrait "
    "portrat portraet passbild passfoto headshot avatar profile profil scan copy kopie copie final "
    "crop cropped edit edited web print jpg jpeg png badge ausweis id nr emp user "
    "whatsapp screenshot kopia bearbeitet zugeschnitten 照片 相片 头像 证件照 员工"
)
"""Words that a photo's name may have besides a name."""

_SHORTEST_JOINED = 7
"""Letters of a name written as one word; a shorter one may be another name: Lian for Li An."""

MOST_JOINED = 4
"""Words that are tried in every order as one."""


def compare_names(person: Names, photo: Names, extras: Container[str] = EXTRAS) -> Compared:
    """How alike two names are, each of at least one word; words of `extras` that only the photo has
    do not count."""
    if sorted(person) == sorted(photo):
        return _whole(SAME_SCORE, Likeness.SAME, person)
    left = _Left(list(person), list(photo))
    left.take_pairs(Word.same)
    joined = left.take_joined()
    thin = left.take_pairs(_same_but_for_e)
    left.forgive(TITLES, extras)
    if not left.matched and not (left.person and left.photo):
        return NOTHING  # titles only
    if left.is_empty():
        if 0 < joined < _SHORTEST_JOINED and min(len(person), len(photo)) == 1:
            return Compared(_ONE_WORD_SCORE, Likeness.ONE_WORD)
        return _whole(_THIN_SCORE if thin else _SPELLED_SCORE, Likeness.SPELLED, left.matched)
    initials = left.take_pairs(_is_initial)
    if initials and left.is_empty():
        middle = all(_is_in_the_middle(pair, person, photo) for pair in initials)
        return _compare_initials(left.matched, initials[0], middle=middle)
    return _compare_rest(left, initials)


def _whole(score: float, likeness: Likeness, words: Sequence[Word]) -> Compared:
    """A name that is there as a whole; a single word says little unless it is a whole name."""
    words = [one for one in words if one.plain not in TITLES]
    if len(words) > 1 or any(one.is_ideograph and len(one.plain) > 1 for one in words):
        return Compared(score, likeness)
    return Compared(_ONE_WORD_SCORE, Likeness.ONE_WORD)


def _compare_initials(matched: Sequence[Word], initial: Pair, *, middle: bool) -> Compared:
    """Compare two names that differ in an initial, which may be in the `middle` of the name."""
    equal = [one for one in matched if len(one.plain) > 1]
    if middle and len(equal) >= 2:
        return Compared(_MIDDLE_SCORE, Likeness.MIDDLE)
    score = _INITIAL_SCORE if any(len(one.plain) > 2 for one in equal) else _SINGLE_SCORE / 2
    return Compared(score, Likeness.INITIAL, _plain(initial))


def _compare_rest(left: _Left, initials: Sequence[Pair]) -> Compared:
    """Compare two names of which some words have no equal."""
    near = left.take_near()
    equal = _letters(left.matched) + len(initials)
    alike = equal + sum(len(one.plain) * similarity(one, other) for one, other in near)
    paired = equal + sum(max(len(one.plain), len(other.plain)) for one, other in near)
    mean = sum(alike / (paired + _letters(rest)) for rest in (left.person, left.photo)) / 2
    if left.person and left.photo:
        return Compared(
            _OTHER_SCORE * mean, Likeness.OTHER, _plain((left.person[0], left.photo[0]))
        )
    if left.is_empty():
        return _compare_near(left, near, mean, alone=not initials)
    words = " ".join(one.plain for one in left.person), " ".join(one.plain for one in left.photo)
    score = 40 + 44 * mean
    if near or len(left.matched) < 2:
        return Compared(min(score, _SINGLE_SCORE), Likeness.PART, words)
    return Compared(max(score, _PART_LEAST), Likeness.PART, words)


def _compare_near(left: _Left, near: Sequence[Pair], mean: float, *, alone: bool) -> Compared:
    """Compare two names whose words are all paired, `near` those that are not equal; `alone` if
    the rest are equal."""
    (one, other), words = near[0], _plain(near[0])
    score = _NEAR_SCORE * mean
    if len(near) == 1 and alone and left.matched and not one.is_ideograph:
        if is_slip(one.plain, other.plain, swapped_only=len(left.matched) < 2):
            return Compared(_SLIP_SCORE, Likeness.SLIP, words)
        if OSA.distance(one.plain, other.plain) == 1:
            score = max(score, _NEAR_LEAST)
    return Compared(score, Likeness.NEAR, words)


Pair = tuple[Word, Word]
"""A word of the person and a word of the photo."""


class _Left:
    """The words of two names that have no partner yet, and the matched ones."""

    def __init__(self, person: list[Word], photo: list[Word]) -> None:
        self.person = person
        self.photo = photo
        self.matched: list[Word] = []

    def is_empty(self) -> bool:
        """Whether every word has a partner."""
        return not self.person and not self.photo

    def take_pairs(self, fits: Callable[[Word, Word], bool]) -> list[Pair]:
        """Take out the words that fit each other; returns them. Equal ones count as matched."""
        found = []
        for one in tuple(self.person):
            other = next((other for other in self.photo if fits(one, other)), None)
            if other is not None:
                self.person.remove(one)
                self.photo.remove(other)
                found.append((one, other))
        if fits is not _is_initial:
            self.matched += [one for one, _ in found if one.plain not in TITLES]
        return found

    def take_joined(self) -> int:
        """Take out words that are written as one on the other side: Anna Maria, Annamaria. Returns
        the letters of the shortest such word, 0 for none; ideographs do not count."""
        lengths = []
        for parts, wholes in ((self.person, self.photo), (self.photo, self.person)):
            for whole in tuple(wholes):
                if used := _parts_of(whole, parts):
                    lengths += [] if whole.is_ideograph else [len(whole.plain)]
                    wholes.remove(whole)
                    for part in used:
                        parts.remove(part)
                    self.matched += used
        return min(lengths, default=0)

    def forgive(self, titles: Container[str], extras: Container[str]) -> None:
        """Take out words that may be missing on the other side."""
        self.person[:] = [one for one in self.person if one.plain not in titles]
        self.photo[:] = [one for one in self.photo if one.plain not in extras]

    def take_near(self) -> list[Pair]:
        """Take out the words that are similar, the most similar first; returns them."""
        found = []
        ranked = sorted(
            ((similarity(one, other), one, other) for one in self.person for other in self.photo),
            reverse=True,
        )
        for alike, one, other in ranked:
            if alike >= _LEAST_SIMILARITY and one in self.person and other in self.photo:
                self.person.remove(one)
                self.photo.remove(other)
                found.append((one, other))
        return found


def _parts_of(whole: Word, parts: Sequence[Word]) -> Sequence[Word]:
    """Two to four of these words that make up the whole; none if there are no such."""
    short = [one for one in parts if len(one.plain) < len(whole.plain)]
    if not 2 <= len(short) <= MOST_JOINED:
        return ()
    for count in range(2, len(short) + 1):
        for some in permutations(short, count):
            for form in ("plain", "wide"):
                if "".join(getattr(one, form) for one in some) == getattr(whole, form):
                    return some
    return ()


def has_umlaut(one: Word) -> bool:
    """Whether a word is written with an umlaut, or a letter that is treated like one."""
    return one.plain != one.wide


def _same_but_for_e(one: Word, other: Word) -> bool:
    return one.thin == other.thin


def _is_initial(one: Word, other: Word) -> bool:
    """Whether one is the first letter of the other."""
    short, long = sorted((one, other), key=lambda word: len(word.plain))
    if len(short.plain) != 1 or len(long.plain) == 1 or short.is_ideograph:
        return False
    return short.plain in (long.plain[0], long.wide[0])


def _is_in_the_middle(pair: Pair, person: Names, photo: Names) -> bool:
    """Whether an initial is between other words, so that it is not that of a surname."""
    one, other = pair
    name, initial = (person, one) if len(one.plain) == 1 else (photo, other)
    return 0 < name.index(initial) < len(name) - 1


def _plain(pair: Pair) -> tuple[str, str]:
    return pair[0].plain, pair[1].plain


def _letters(words: Iterable[Word]) -> int:
    return sum(len(one.plain) for one in words)


@lru_cache(maxsize=500_000)
def similarity(one: Word, other: Word) -> float:
    """How similar two words are, 0 to 1."""
    if one.is_ideograph != other.is_ideograph:
        return 0.0
    return max(
        OSA.normalized_similarity(one.plain, other.plain),
        OSA.normalized_similarity(one.wide, other.wide),
    )


_LONG, _LONG_SWAPPED = 7, 5
"""Letters from which on a word with a single slip is rarely another name: for any slip, and for
two letters in the wrong order."""

_VOWELS = frozenset("aeiouy")

_SOUND_ALIKE = tuple(
    map(frozenset, ("aeiouy", "ckgqx", "dt", "bp", "fvw", "szxc", "ijy", "mn", "lr"))
)

_COME_AND_GO = _VOWELS | frozenset("hcdt")
"""Letters that names are spelled with and without: Nielsen, Esther, Schmidt."""


def is_slip(one: str, other: str, *, swapped_only: bool) -> bool:
    """Whether two words differ by what looks like one typing error, not as two names do.

    Names that differ by a letter mostly do so at an end (Jan, Jana), or by a doubled letter
    (Hansen, Hanssen), a vowel (Meyer, Mayer), or a consonant that sounds alike (Marco, Marko).
    Some differ by any letter (Walter, Walker), but none by the order of two in the middle.
    """
    short, long = sorted((one, other), key=len)
    if not (one.isascii() and other.isascii()) or OSA.distance(short, long) != 1:
        return False
    start = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), 0)
    if len(short) == len(long) and short[start + 1 :] != long[start + 1 :]:
        return len(short) >= _LONG_SWAPPED and 0 < start < len(long) - 3
    if swapped_only or len(short) < _LONG or not 0 < start < len(long) - 2:
        return False
    if len(short) != len(long):
        return long[start] not in _COME_AND_GO and long[start] != long[start - 1]
    pair = {short[start], long[start]}
    return not any(pair <= alike for alike in _SOUND_ALIKE)
