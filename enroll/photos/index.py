"""All photos of a store by name, to find those that match a pattern regardless of letter case,
Unicode form and suffix.

A pattern is a relative path without a suffix, such as `Sales/4711*`. `*` stands for any characters
of one part of the path, but never continues or joins a word or a number: `1*` matches `1_b` and
not `10`, so that one person's photo is not taken for another's. `[x]` is the character x.
"""

from __future__ import annotations

import difflib
import hashlib
import heapq
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from unicodedata import category, normalize

import numpy as np

from enroll.photos.listing import PHOTO_SUFFIXES, is_photo, suffix_of

Pattern = Sequence[Sequence[str]]
"""The parts of a path, each as its folded pieces between stars."""

_BLOCK = 32
"""Entries of the index between two that are found by bisection."""

_WORD_BYTES = 16
"""Bytes of a word and what follows it that are compared before the whole name is."""

_AT_ONCE = 50_000
"""Names that are Python's objects at a time, while they are sorted or their words are found."""

_NEIGHBOURS = 40
"""Names beside a missing one that are compared with it."""

_MOST_FOLDERS = 2_000
"""Folders whose names are compared with that of a missing one."""

_LIKENESS = 0.6
"""The similarity (0 to 1) from which on a name is worth mentioning for a missing one."""

_ESCAPES = {"[*]": "\udc2a", "[/]": "\udc2f", "[[]": "\udc5b", "[.]": "\udc2e"}
"""Literal characters in a pattern; no name in UTF-8 has what they become meanwhile."""
_PLAIN = {stand_in: escaped[1] for escaped, stand_in in _ESCAPES.items()}

_ASCII_WORDS = re.compile(r"[a-z]+|[0-9]+")
_UNUSUAL = re.compile("[*\x00-\x1f\x7f\ud800-\udfff]")
"""What is in no path that can be found: a star, which would look like a pattern, and what no row
may have."""
_SPECIAL = re.compile(r"[*\[/]")


def fold(text: str) -> str:
    """A name without the differences that do not count: case and Unicode form."""
    if text.isascii():
        return text.lower()
    return normalize("NFC", normalize("NFD", text).casefold())


def escaped(cell: str) -> str:
    """A text as a pattern that matches only this text, within one part of a path."""
    if cell.strip(".") == "":
        return cell.replace(".", "[.]")  # `..` is no name
    return _SPECIAL.sub(lambda found: f"[{found[0]}]", cell)


def without_suffix(name: str) -> str:
    """A path or pattern without the suffix of a photo, or `.*`."""
    if name.endswith("*"):
        return name.removesuffix(".*")
    suffix = suffix_of(name)
    return name[: -len(suffix) - 1] if suffix in PHOTO_SUFFIXES else name


def parse_pattern(text: str) -> Pattern:
    """The parts and pieces of a pattern."""
    if "[" not in text:
        return [part.split("*") for part in fold(without_suffix(text)).split("/")]
    for escape, stand_in in _ESCAPES.items():
        text = text.replace(escape, stand_in)
    parts = [part.split("*") for part in fold(without_suffix(text)).split("/")]
    return [
        ["".join(_PLAIN.get(one, one) for one in piece) for piece in pieces] for pieces in parts
    ]


class PhotoIndex:
    """Photos by their folded paths, in about 60 bytes each; immutable.

    `digest` tells any other set of names.
    """

    def __init__(self, files: Iterable[str], *, depth: int, words_of: int | None = None) -> None:
        """Index those of `files`, paths relative to a store's root, that are photos and have
        `depth` parts. `words_of` is the part whose words begin what is looked for, where a star
        comes before it."""
        self._depth = depth
        self._starts, self._firsts = array("I"), list[bytes]()
        self._folders: list[str] = []
        self._count = 0
        names = bytearray()
        for entry in _sorted(_entries(files, depth)):
            if self._count % _BLOCK == 0:
                self._starts.append(len(names))
                self._firsts.append(entry)
                self._add_folder(entry)
            names += b"\n" + entry
            self._count += 1
        names += b"\n"
        self._names = names
        """Every entry is between two line ends."""
        self.digest = hashlib.sha256(self._names).hexdigest()
        self._words = None if words_of is None else _Words(self._entries_at(), words_of)

    def __len__(self) -> int:
        return self._count

    def find(self, pattern: Pattern, *, most: int) -> list[str]:
        """The first photos that match, in the order of their folded paths."""
        found: list[str] = []
        if len(pattern) != self._depth:
            return found
        for name, path in self._candidates(pattern):
            if _matches(pattern, name.split("/")):
                found.append(path)
                if len(found) == most:
                    break
        return found

    def nearest(self, pattern: Pattern) -> str:
        """The photo whose path is most like a pattern that nothing matches; "" for none."""
        wanted = "/".join("*".join(pieces) for pieces in pattern)
        starts = [self._place_of(_literal_start(pattern)), *self._in_like_folders(pattern)]
        near = [entry for start in starts for entry in self._around(start)]
        likeness = difflib.SequenceMatcher(b=wanted.replace("*", ""), autojunk=False)
        best, best_path = _LIKENESS, ""
        for name, path in near:
            likeness.set_seq1(name)
            if likeness.quick_ratio() > best and (ratio := likeness.ratio()) > best:
                best, best_path = ratio, path
        return best_path

    def _candidates(self, pattern: Pattern) -> Iterator[tuple[str, str]]:
        """Names that may match, and their paths."""
        if self._words is not None:
            places = self._words.find(pattern)
            if places is not None:
                return (self._entry_at(place) for place in places)
        return self._starting(_literal_start(pattern))

    def _starting(self, start: bytes) -> Iterator[tuple[str, str]]:
        """The entries that begin with these bytes."""
        at = self._place_of(start)
        begin = b"\n" + start
        while self._names.startswith(begin, at):
            end = self._names.find(b"\n", at + 1)
            if end < 0:
                return
            yield _entry(self._names[at + 1 : end])
            at = end

    def _place_of(self, start: bytes) -> int:
        """Where the first entry begins that begins with these bytes; where it would be, about, if
        there is none."""
        block = max(bisect_left(self._firsts, start) - 1, 0)
        if block >= len(self._starts):
            return len(self._names)
        behind = block + 2
        end = self._starts[behind] if behind < len(self._starts) else len(self._names)
        at = self._names.find(b"\n" + start, self._starts[block], end)
        return at if at >= 0 else self._starts[block]

    def _around(self, at: int) -> Iterator[tuple[str, str]]:
        for _ in range(_NEIGHBOURS // 2):
            at = max(self._names.rfind(b"\n", 0, at), 0)
        for _ in range(_NEIGHBOURS + _BLOCK):
            end = self._names.find(b"\n", at + 1)
            if end < 0:
                return
            yield _entry(self._names[at + 1 : end])
            at = end

    def _add_folder(self, entry: bytes) -> None:
        folder = _entry(entry)[0].rpartition("/")[0]
        if len(self._folders) < _MOST_FOLDERS and folder not in self._folders[-1:]:
            self._folders.append(folder)

    def _in_like_folders(self, pattern: Pattern) -> Iterator[int]:
        """Where the name that is looked for would be in folders with a similar name."""
        wanted = "/".join("".join(pieces) for pieces in pattern[:-1])
        for folder in difflib.get_close_matches(wanted, self._folders, n=3, cutoff=_LIKENESS):
            yield self._place_of(f"{folder}/{pattern[-1][0]}".encode())

    def _entry_at(self, place: int) -> tuple[str, str]:
        return _entry(self._names[place + 1 : self._names.find(b"\n", place + 1)])

    def _entries_at(self) -> Iterator[tuple[int, str]]:
        """The names, and where their entries begin."""
        at = 0
        while (end := self._names.find(b"\n", at + 1)) >= 0:
            yield at, _entry(self._names[at + 1 : end])[0]
            at = end


class _Words:
    """The words and numbers in a part of each path, and where the path's entry is."""

    def __init__(self, names: Iterator[tuple[int, str]], part: int) -> None:
        self._part = part
        words, places = [np.empty(0, f"S{_WORD_BYTES}")], [np.empty(0, np.uint32)]
        while some := list(islice(names, _AT_ONCE)):
            found = [
                (place, text[at:].encode()[:_WORD_BYTES])
                for place, name in some
                for text in [name.split("/")[part]]
                for at in _word_starts(text)
            ]
            words.append(np.array([word for _, word in found], f"S{_WORD_BYTES}"))
            places.append(np.array([place for place, _ in found], np.uint32))
        joined = np.concatenate(words)
        del words
        order = np.argsort(joined, kind="stable")
        self._words = joined[order]
        self._places = np.concatenate(places)[order]

    def find(self, pattern: Pattern) -> list[int] | None:
        """Where the entries of names are that have the longest piece of the pattern, in their
        order; None if it has no word."""
        pieces = (
            piece[at:] for piece in pattern[self._part] for at in islice(_word_starts(piece), 1)
        )
        wanted = max(pieces, key=len, default="").encode()[:_WORD_BYTES]
        if not wanted:
            return None
        first = self._words.searchsorted(wanted, side="left")
        # No UTF-8 has this byte, so it is behind all that begins with what is wanted.
        last = self._words.searchsorted(wanted.ljust(_WORD_BYTES, b"\xff"), side="right")
        return sorted(set(self._places[first:last].tolist()))


def _entries(files: Iterable[str], depth: int) -> Iterator[bytes]:
    for path in files:
        if path.count("/") == depth - 1 and is_photo(path) and not _UNUSUAL.search(path):
            yield f"{fold(without_suffix(path))}\0{path}".encode()


def _sorted(entries: Iterator[bytes]) -> Iterator[bytes]:
    """The entries in order, of which few are objects at a time."""
    runs = []
    while some := sorted(islice(entries, _AT_ONCE)):
        runs.append(b"\n".join(some))
        del some
    return heapq.merge(*map(_lines, runs)) if len(runs) > 1 else _lines(b"".join(runs))


def _lines(run: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(run):
        end = run.find(b"\n", at)
        end = len(run) if end < 0 else end
        yield run[at:end]
        at = end + 1


def _entry(entry: bytes | bytearray) -> tuple[str, str]:
    name, _, path = entry.decode().partition("\0")
    return name, path


def _literal_start(pattern: Pattern) -> bytes:
    """What every match begins with; the whole name, and its end, if there is no star."""
    start = ""
    for number, pieces in enumerate(pattern):
        start += ("/" if number else "") + pieces[0]
        if len(pieces) > 1:
            return start.encode()
    return f"{start}\0".encode()


def _matches(pattern: Pattern, names: Sequence[str]) -> bool:
    for pieces, name in zip(pattern, names, strict=True):
        if not (name == pieces[0] if len(pieces) == 1 else _part_matches(pieces, name)):
            return False
    return True


def _part_matches(pieces: Sequence[str], text: str) -> bool:
    """Whether pieces, with stars between them, are all of a text. The first place where a piece may
    be leaves the most room for the others, so no other has to be tried."""
    first, *between = pieces
    if not between:
        return text == first
    last, at = between.pop(), len(first)
    if not (text.startswith(first) and _is_edge(text, at)):
        return False
    for piece in between:
        place = text.find(piece, at)
        while place >= 0 and not (_is_edge(text, place) and _is_edge(text, place + len(piece))):
            place = text.find(piece, place + 1)
        if place < 0:
            return False
        at = place + len(piece)
    end = len(text) - len(last)
    return at <= end and text.endswith(last) and _is_edge(text, end)


def _is_edge(text: str, at: int) -> bool:
    """Whether no word and no number goes on at this place."""
    if not 0 < at < len(text):
        return True
    kind = _kind(text[at])
    return not kind or kind != _kind(text[at - 1])


def _kind(character: str) -> str:
    """Whether a character is of a word or a number; empty for what separates them."""
    if character.isdecimal():
        return "number"
    return "word" if character.isalpha() or category(character)[0] == "M" else ""


def _word_starts(text: str) -> Iterator[int]:
    if text.isascii():
        return (found.start() for found in _ASCII_WORDS.finditer(text))
    return (at for at, one in enumerate(text) if _kind(one) and (not at or _is_edge(text, at)))
