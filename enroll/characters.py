"""Characters that nobody sees, and what a character is called. Pure."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

MARK = "\ufeff"
"""The byte-order mark: it belongs before a text, and has no width anywhere else."""

_WITHOUT_WIDTH = "Cf"
_BLANKS = frozenset({"Zs", "Zl", "Zp", "Cc"})
"""Unicode's categories of format characters, and of blanks, separators and controls."""

_CONTROL_NAMES = {
    "\0": "NUL",
    "\t": "TAB",
    "\n": "LINE FEED",
    "\r": "CARRIAGE RETURN",
    "\x1b": "ESCAPE",
    "\x7f": "DELETE",
    MARK: "BYTE-ORDER MARK",
}
"""Controls have no name in Unicode; these are the ones that people meet. The mark's name there,
ZERO WIDTH NO-BREAK SPACE, is one that it is no longer known by."""


class Unseen(NamedTuple):
    """A character that nobody sees, and its 0-based place in a text."""

    place: int
    character: str

    def __str__(self) -> str:
        return f"{character_name(self.character)} at position {self.place + 1}"


def is_unseen(character: str) -> bool:
    """Whether nobody sees it: it has no width, or is a blank that is not the space bar's."""
    return character != " " and unicodedata.category(character) in _BLANKS | {_WITHOUT_WIDTH}


def character_name(character: str) -> str:
    """What a person can look up: Unicode's name and the code point."""
    name = _CONTROL_NAMES.get(character, "") or unicodedata.name(character, "")
    if not name:
        name = "half a character" if "\ud800" <= character <= "\udfff" else "a control character"
    return f"{name} (U+{ord(character):04X})"


def find_unseen(text: str) -> Unseen | None:
    """The first character that nobody sees, or blank at an end."""
    inner = text.strip(" ")
    start = text.index(inner) if inner else 0
    for place, character in enumerate(text):
        at_an_end = not start <= place < start + len(inner)
        if is_unseen(character) or at_an_end:
            return Unseen(place, character)
    return None


def as_seen(text: str) -> str:
    """A text as it looks: without what has no width, each blank a space, and none at the ends."""
    if text.isascii() and text.isprintable():
        return text.strip(" ")
    kinds = [(character, unicodedata.category(character)) for character in text]
    shown = [" " if kind in _BLANKS else one for one, kind in kinds if kind != _WITHOUT_WIDTH]
    return "".join(shown).strip(" ")
