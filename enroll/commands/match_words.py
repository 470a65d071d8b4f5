"""Words and numbers of a name or a file's name, in forms that can be compared. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

MAX_CHARACTERS = 200
"""Characters of a text that are compared; names are shorter, and a file's name has 255 bytes."""

MAX_WORDS = 12
"""Words of a text that are compared."""

_PLAIN = str.maketrans(
    {"ø": "o", "œ": "oe", "æ": "ae", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ı": "i"}
)
"""Letters that Unicode does not take apart, by what is written where they are missing."""

_WIDE = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
"""Letters for which two are written where they are missing. All others are as in _PLAIN."""

_DIGRAPH = re.compile(r"(?<=[bcdfghjklmnprstvwxyz])([aou])e(?=[b-df-hj-np-tv-z])(?!l[aes]?$)")
"""ae, oe or ue that may stand for an umlaut: not as in Bauer, Manuel, Michael or Zoe."""

_APOSTROPHES = re.compile("['’‘`´ʼ]")

_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d([-_. ]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"
    r"(?:[-_ T]?[0-2]\d[-_.:]?[0-5]\d[-_.:]?[0-5]\d(?:\d{3})?)?"
    r"|(?:0[1-9]|[12]\d|3[01])([-_. ])(?:0[1-9]|1[0-2])\2(?:19|20)\d\d)(?!\d)"
)
"""A day, with or without a time, as cameras and people write it."""


def word_set(text: str) -> frozenset[str]:
    """The words of a text, which are separated by blanks."""
    return frozenset(text.split())


COUNTED = word_set(
    "img imag image images dsc dscn dscf dscp pxl mvi sam gopr dji cimg hpim pict pic picture "
    "photo foto scan scanned screenshot bild wa whatsapp signal frame page untitled unnamed "
    "unbenannt neu new file datei p"
)
"""Words after which a number counts pictures and is no id."""


class Word(NamedTuple):
    """A word without case and marks. `plain` has ü as u, `wide` as ue; `thin` has ue as u, too."""

    plain: str
    wide: str
    thin: str

    @property
    def is_ideograph(self) -> bool:
        """Whether it is Chinese, Japanese or Korean: then it may be a whole name."""
        return _is_ideograph(self.plain[:1])

    def same(self, other: Word) -> bool:
        """Whether both are one word, written with or without umlauts and marks."""
        return self.plain in (other.plain, other.wide) or self.wide in (other.plain, other.wide)


@dataclass(frozen=True, slots=True)
class Key:
    """A text that may be somebody's id or number, and the words that it takes up, by place."""

    text: str
    words: frozenset[int]
    pieces: tuple[int, int]
    """The first and the last of the words and numbers that it is made of."""
    whole: bool
    """Whether it is the whole text."""
    counts: bool
    """Whether it is, by the word before it, the number of a picture."""


@dataclass(frozen=True, slots=True)
class Text:
    """What was written: its words in their order, and what may be an id or a number."""

    words: tuple[Word, ...]
    keys: tuple[Key, ...]


@lru_cache(maxsize=200_000)
def word(text: str) -> Word:
    """The forms of a word, which has letters and marks only."""
    folded = unicodedata.normalize("NFC", text.casefold())
    if folded.isascii():
        return Word(folded, folded, _thin(folded))
    plain = _bare(folded).translate(_PLAIN)
    wide = _bare(folded.translate(_WIDE)).translate(_PLAIN)
    return Word(plain, wide, _thin(wide))


def _bare(text: str) -> str:
    """Without the marks on Latin letters. In other scripts they are vowels, or tell letters
    apart."""
    bare, last = [], ""
    for one in unicodedata.normalize("NFD", text):
        if unicodedata.combining(one) == 0:
            last = one
        elif last.isascii() or last in "øœæłđðþħı":
            continue
        bare.append(one)
    return unicodedata.normalize("NFC", "".join(bare))


def _thin(text: str) -> str:
    return _DIGRAPH.sub(r"\1", text) if len(text) > 4 else text


def id_key(text: str) -> str:
    """An id as it is compared: letters and digits only, without case. Empty for a longer text than
    an id may be."""
    folded = _ascii_digits(unicodedata.normalize("NFKC", text[:MAX_CHARACTERS])).casefold()
    return "".join(one for one in folded if one.isalnum())


def digits_of(key: str) -> str:
    """The digits of an id, without leading zeros."""
    return "".join(one for one in key if one.isdecimal()).lstrip("0")


def read_text(text: str) -> Text:
    """The words and numbers of a text, up to MAX_WORDS each."""
    text = _ascii_digits(unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]))
    whole = id_key(text)
    text = _DATE.sub("/", _APOSTROPHES.sub("", text))
    pieces = list(_pieces(text))[: 2 * MAX_WORDS]
    places = {}
    words: list[Word] = []
    for at, (piece, _) in enumerate(pieces):
        if not piece.isdecimal() and len(words) < MAX_WORDS:
            places[at] = len(words)
            words.append(word(piece))
    keys = {key.text: key for key in _keys(pieces, places, whole)}
    if whole and whole not in keys:
        everything = (0, len(pieces))
        keys[whole] = Key(whole, frozenset(places.values()), everything, whole=True, counts=False)
    return Text(tuple(words), tuple(keys.values()))


def _ascii_digits(text: str) -> str:
    if text.isascii():
        return text
    return "".join(
        str(unicodedata.decimal(one)) if one.isdecimal() and not one.isascii() else one
        for one in text
    )


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """The words and numbers, each with the number of the run that it is part of: what stands
    between blanks and signs."""
    run = 0
    piece = ""
    kind = ""
    for one in text:
        now = _kind(one, kind)
        if not now:
            if piece:
                yield piece, run
            piece, run = "", run + 1
        elif piece and _ends(piece, kind, one, now):
            yield piece, run
            piece = one
        else:
            piece += one
        kind = now
    if piece:
        yield piece, run


def _kind(one: str, before: str) -> str:
    """What a character is: a digit, a letter of one of two scripts, or "" for a separator."""
    if one.isascii():
        return "digit" if one.isdecimal() else "letter" if one.isalpha() else ""
    category = unicodedata.category(one)
    if category[0] == "M":
        return before if before != "digit" else ""
    if category == "Nd":
        return "digit"
    if category[0] != "L":
        return ""
    return "ideograph" if _is_ideograph(one) else "letter"


def _is_ideograph(one: str) -> bool:
    """Whether a character is of Chinese, Japanese or Korean, where names have no blanks."""
    return (
        "\u3040" <= one <= "\u30ff"
        or "\u3400" <= one <= "\u9fff"
        or "\uac00" <= one <= "\ud7af"
        or "\uf900" <= one <= "\ufaff"
        or one == "々"
        or one >= "\U00020000"
    )


def _ends(piece: str, kind: str, one: str, now: str) -> bool:
    """Whether another word begins here: at another kind, and as in AnnaMüller."""
    return now != kind or (one.isupper() and piece[-1].islower())


def _keys(pieces: Sequence[tuple[str, int]], places: dict[int, int], whole: str) -> Iterator[Key]:
    """What may be an id: a run, a number, and up to five neighbours together, with a digit in
    them."""
    for start in range(len(pieces)):
        text = ""
        for end in range(start, min(start + 5, len(pieces))):
            text += pieces[end][0].casefold()
            if not any(piece.isdecimal() for piece, _ in pieces[start : end + 1]):
                continue
            if not (
                _at_edge(pieces, start, end) or (start == end and pieces[start][0].isdecimal())
            ):
                continue
            words = frozenset(places[at] for at in range(start, end + 1) if at in places)
            counts = start > 0 and pieces[start - 1][0].casefold() in COUNTED
            yield Key(text, words, (start, end), whole=text == whole, counts=counts)


def _at_edge(pieces: Sequence[tuple[str, int]], start: int, end: int) -> bool:
    """Whether these pieces are whole runs."""
    begins = start == 0 or pieces[start - 1][1] != pieces[start][1]
    ends = end + 1 == len(pieces) or pieces[end + 1][1] != pieces[end][1]
    return begins and ends
