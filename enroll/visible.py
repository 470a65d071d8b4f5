r"""Makes text from outside safe to be shown, logged and stored. No output.

A file's name may be any bytes. Python represents those that are not UTF-8 as lone surrogates, which
no database, JSON or terminal accepts. The file system gets the bytes, everything else gets `\xfc`.
A service, a proxy or a list may send characters that control a terminal or reverse its text; they
are made visible.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from typing import Any, NamedTuple

BYTE_ORDER_MARK = "\ufeff"
"""The byte-order mark: it belongs at the start of a text, and is invisible anywhere else."""

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
    BYTE_ORDER_MARK: "BYTE-ORDER MARK",
}
"""Control characters have no name in Unicode; these are the common ones. The byte-order mark's name
there, ZERO WIDTH NO-BREAK SPACE, is obsolete."""


class Invisible(NamedTuple):
    """An invisible character, and its 0-based place in a text."""

    place: int
    character: str

    def __str__(self) -> str:
        return f"{character_name(self.character)} at position {self.place + 1}"


def is_invisible(character: str) -> bool:
    """Whether a character has no width, or is a blank other than the space."""
    return character != " " and unicodedata.category(character) in _BLANKS | {_WITHOUT_WIDTH}


def character_name(character: str) -> str:
    """A character's name and code point in Unicode."""
    name = _CONTROL_NAMES.get(character, "") or unicodedata.name(character, "")
    if not name:
        name = "half a character" if "\ud800" <= character <= "\udfff" else "a control character"
    return f"{name} (U+{ord(character):04X})"


def find_invisible(text: str) -> Invisible | None:
    """The first invisible character, or the first blank at either end."""
    inner = text.strip(" ")
    start = text.index(inner) if inner else 0
    for place, character in enumerate(text):
        at_an_end = not start <= place < start + len(inner)
        if is_invisible(character) or at_an_end:
            return Invisible(place, character)
    return None


def as_seen(text: str) -> str:
    """A text as it looks: without invisible characters, blanks as spaces, and none at the ends."""
    if text.isascii() and text.isprintable():
        return text.strip(" ")
    kinds = [(character, unicodedata.category(character)) for character in text]
    shown = [" " if kind in _BLANKS else one for one, kind in kinds if kind != _WITHOUT_WIDTH]
    return "".join(shown).strip(" ")


_HALVES = re.compile("[\ud800-\udfff]")
_BYTES = re.compile("[\udc80-\udcff]")
ESCAPED_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def storable(text: str) -> str:
    r"""`text` as valid UTF-8: a byte that was not UTF-8 becomes `\xfc`, another lone surrogate
    `\ud83d`."""
    return _HALVES.sub(lambda found: _escape(found[0]), text)


def path_text(path: str | os.PathLike[str]) -> str:
    """A path as text for a database, a file or a log; `addresses.named_path` is the inverse."""
    return storable(os.fspath(path))


def visible(text: str) -> str:
    r"""`text` on one line, with everything visible: control characters, line ends, marks that
    change the direction of writing, and other invisible characters are written as `\x1b` or
    `\u202e`.

    Visible characters stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON that can be shown, logged and stored.

    What `visible` escapes is escaped as in JSON; bytes that are not UTF-8 are written as by
    `storable`.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.replace("\n", "").isprintable():  # line ends are those of the indent only
        return text
    return "".join(one if one.isprintable() or one == "\n" else _escape_json(one) for one in text)


def _escape(one: str) -> str:
    number = ord(one)
    if one in _SHORT:
        return _SHORT[one]
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _escape_json(one: str) -> str:
    if _BYTES.match(one):
        return _escape(one).replace("\\", "\\\\")
    return f"\\u{ord(one):04x}" if one.isascii() else json.dumps(one)[1:-1]
