"""Photos inside a list: a column that holds each row's photo as Base64 text.

A pass over the list notes where each photo is, its size and a digest, some 80 bytes a row. A photo
is decoded when it is opened, from the list itself where that can be read at any place, else from an
unnamed copy of the cells.
"""

from __future__ import annotations

import binascii
import csv
import os
import re
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from threading import Lock
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np

from enroll.manifest.bounds import BLOCK, MAX_CELL_LENGTH, MAX_PHOTO_LINE_LENGTH, ScratchFile
from enroll.manifest.records import open_text
from enroll.manifest.source import Source
from enroll.model import Fault, FileTimes, Status, Unusable
from enroll.photos import PhotoCode, PhotoStore
from enroll.photos.store import NO_PHOTO, UnusableError

EMBEDDED_ROOT = "/(in the list)"
"""The root of photos inside lists. It is the same for every list, so that tomorrow's export has the
same photos; there is no such folder."""

_DATA_URL = re.compile(r"data:[^,]{0,200}?(;base64)?,", re.IGNORECASE)
_NO_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_LARGE = Lock()
_LARGE_BYTES = 1 << 20
"""While it is decoded, a photo takes six times its size; larger ones are decoded one by one."""

_URL_SAFE = str.maketrans("-_", "+/")

_LINE_BY_LINE = frozenset(
    {"ascii", "us-ascii", "utf-8", "utf8", "utf-8-sig", "cp1252", "windows-1252", "latin-1"}
    | {"iso-8859-1", "iso-8859-15", "gb18030"}
)
"""Codecs in which the byte 0x0A is always a line end, so that bytes can be split into lines."""


class NotBase64Error(Exception):
    """A cell that is no photo as Base64 text; a sentence."""


def decoded(text: str) -> bytes:
    """The bytes of Base64 text, which may have line breaks and begin as a data URL. Raises
    NotBase64Error."""
    found = _DATA_URL.match(text)
    if found is not None and found[1] is None:
        raise NotBase64Error("The photo is a data URL without ';base64'. Export it as Base64.")
    plain = "".join(text[found.end() if found else 0 :].split()).translate(_URL_SAFE)
    if bad := _NO_BASE64.search(plain):
        raise NotBase64Error(
            f"The photo is not Base64 text: it has {bad[0]!r} after {bad.start():,} characters. "
            "Export it again."
        )
    try:
        return binascii.a2b_base64(plain, strict_mode=True)
    except binascii.Error as error:
        cut = " by a spreadsheet" if len(text) == MAX_CELL_LENGTH else ""
        why = f"probably cut off{cut}" if "=" not in plain else "damaged"
        raise NotBase64Error(
            f"The photo is not valid Base64 text: it was {why} ({len(plain):,} characters). "
            "Export it again."
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoColumn:
    """A list's column of photos.

    `place` is its number among the columns, `user_id` makes a record's user_id of its cells, and
    `records` is how many records come after the header, blank lines included.
    """

    source: Source
    codec: str
    delimiter: str
    above: int
    header_record: int
    records: int
    place: int
    user_id: Callable[[Sequence[str]], str]

    def photo(self, cells: Sequence[str]) -> str:
        """The photo of a record; "" for none."""
        return cells[self.place].strip() if len(cells) > self.place else ""


class EmbeddedPhotos:
    """The photos inside a list; see `PhotoStore`.

    A row's image is its user_id, with a number for each further photo of the person: it does not
    depend on where the row is, so that tomorrow's export has the same images.
    """

    root = EMBEDDED_ROOT
    found_by = ""
    notes = ()

    def __init__(self, column: PhotoColumn) -> None:
        """Read the whole list. Raises ManifestError, and LocalError if there is no room for a copy
        of it."""
        self._cells, noted = _note_photos(column)
        self._lines = np.asarray(noted.lines)
        self._times = np.asarray(noted.times).reshape(-1, 3)
        self._places = np.asarray(noted.places).reshape(-1, 2)
        people = np.asarray(noted.people).reshape(-1, 2)
        self._order = np.argsort(people[:, 0], kind="stable")
        self._people = people[self._order]
        self._numbers = _numbers_of_each(self._people[:, 0], self._order)

    def explained(self, store: PhotoStore) -> PhotoStore:
        return store

    def images(self, lines: Sequence[int], user_ids: Sequence[str], images: list[str]) -> list[str]:
        """The images of rows; "" for a row without a photo."""
        wanted = np.asarray(lines)
        slots = np.searchsorted(self._lines, wanted)
        slots[slots == len(self._lines)] = 0
        there = self._lines[slots] == wanted if len(self._lines) else np.zeros(len(wanted), bool)
        numbers = np.where(there, self._numbers[slots] if len(self._lines) else 0, 0).tolist()
        return [
            image_name(user_id, number) if number else ""
            for user_id, number in zip(user_ids, numbers, strict=True)
        ]

    def locate(self, image: str) -> str:
        return f"{self.root}/{image}" if image else ""

    def stat(self, paths: Sequence[str]) -> array[int]:
        times = array("q")
        for path in paths:
            slot = self._slot(path)
            times.extend(NO_PHOTO if slot is None else self._times[slot].tolist())
        return times

    def files(self) -> Iterator[str]:
        return iter(())

    @contextmanager
    def open(self, path: str) -> Iterator[EmbeddedPhoto]:
        slot = self._slot(path)
        if slot is None:
            message = "The list has no photo for this row. Export it again."
            raise UnusableError(_failed(PhotoCode.MISSING, message))
        start, length = self._places[slot].tolist()
        read = partial(self._cells.read, start, length)
        yield EmbeddedPhoto(read, FileTimes(*self._times[slot].tolist()))

    def check(self) -> None:
        """Nothing: the whole list was read."""

    def is_gone(self) -> bool:
        return False

    def is_empty(self) -> bool:
        return not len(self._lines)

    def is_reachable(self, path: str) -> bool:
        return True

    def empty_above(self, path: str) -> str:
        return ""

    def _slot(self, path: str) -> int | None:
        """Which photo a path means; None for none."""
        name, _, number = path.removeprefix(f"{self.root}/").partition("/")
        first, second = _hashes(name)
        if not (number or "1").isdecimal():
            return None
        at = int(np.searchsorted(self._people[:, 0], first)) + int(number or 1) - 1
        if not 0 <= at < len(self._people) or self._people[at].tolist() != [first, second]:
            return None
        return int(self._order[at])


class EmbeddedPhoto:
    """A photo inside a list, decoded when it is read; see `OpenPhoto`."""

    def __init__(self, read: Callable[[], str], times: FileTimes) -> None:
        self.times = times
        self._read = read
        self._content: bytes | None = None

    def part(self, at: int, length: int) -> bytes:
        if self._content is None:
            self._content = self.content()
        return self._content[at : at + length]

    def content(self) -> bytes:
        with _LARGE if self.times.size > _LARGE_BYTES else nullcontext():
            return self._decoded()

    def _decoded(self) -> bytes:
        text = self._read()
        if _times_of(text) != self.times:
            message = "The list changed while it was being read."
            raise UnusableError(_failed(PhotoCode.CHANGED, message))
        try:
            return decoded(text)
        except NotBase64Error as error:
            fault = Fault(code=PhotoCode.NOT_BASE64, message=str(error))
            raise UnusableError(Unusable(status=Status.INVALID, fault=fault)) from error


def image_name(user_id: str, number: int = 1) -> str:
    """What a row's photo is called: the user_id, or `user_id/2` for a person's second photo."""
    name = quote(user_id, safe="", errors="replace") or "nobody"
    return name if number == 1 else f"{name}/{number}"


@dataclass(frozen=True, slots=True)
class _Noted:
    """What is noted of each photo: its line; start and length of its text; size and digest of the
    text as three numbers; and two hashes of its person."""

    lines: array[int]
    places: array[int]
    times: array[int]
    people: array[int]


class _InList:
    """Reads cells again from the list itself."""

    def __init__(self, column: PhotoColumn) -> None:
        descriptor = os.open(column.source.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor
        self._column = column

    def read(self, start: int, length: int) -> str:
        """The photo's cell of the record with these bytes; "" if the list has changed."""
        column = self._column
        text = os.pread(self._descriptor, length, start).decode(column.codec, "replace")
        lines = (f"{line}\n" for line in text.split("\n"))
        csv.field_size_limit(max(csv.field_size_limit(), length))
        try:
            return column.photo(next(csv.reader(lines, delimiter=column.delimiter), []))
        except csv.Error:
            return ""

    def note(self) -> _Noted | None:
        """Note every photo; None if the list cannot be split into lines by its bytes."""
        column = self._column
        noted = _Noted(array("q"), array("q"), array("q"), array("q"))
        with open(self._descriptor, "rb", BLOCK, closefd=False) as file:
            file.seek(0)
            lines = _Lines(file, column)
            reader: Any = csv.reader(lines, delimiter=column.delimiter, strict=True)
            try:
                count = 0
                for line, cells, start, end in _records(reader, column, lambda: lines.at):
                    count += 1
                    if photo := column.photo(cells):
                        _note(noted, column, cells, photo, line=line, place=(start, end - start))
            except (csv.Error, UnicodeDecodeError):
                return None
        return noted if count == column.records else None


class _Lines:
    """The lines of a list, split by bytes; `at` is where the next one begins."""

    def __init__(self, file: BinaryIO, column: PhotoColumn) -> None:
        self.at = 0
        self._file = file
        self._codec = column.codec
        for _ in range(column.above):
            next(self, "")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_PHOTO_LINE_LENGTH)
        if not line:
            raise StopIteration
        self.at += len(line)
        return line.decode(self._codec)


class _Copied:
    """Reads cells from a copy, where the list is packed, a workbook, or in a wide encoding."""

    def __init__(self, column: PhotoColumn) -> None:
        self._copy = ScratchFile(column.source.path)
        self._column = column

    def read(self, start: int, length: int) -> str:
        """The photo's cell that was copied there."""
        return self._copy.read_range(start, start + length).decode()

    def note(self) -> _Noted:
        """Copy and note every photo. Raises ManifestError and LocalError."""
        column = self._column
        noted = _Noted(array("q"), array("q"), array("q"), array("q"))
        with open_text(column.source, column.codec, above=column.above) as (_, text):
            reader = csv.reader(iter(text), delimiter=column.delimiter, strict=True)
            for line, cells, _, _ in _records(reader, column, lambda: 0):
                if photo := column.photo(cells):
                    start, packed = self._copy.size, photo.encode("utf-8", "replace")
                    self._copy.write(packed)
                    _note(noted, column, cells, photo, line=line, place=(start, len(packed)))
        return noted


def _note_photos(column: PhotoColumn) -> tuple[_InList | _Copied, _Noted]:
    if _can_be_addressed(column):
        in_list = _InList(column)
        if (noted := in_list.note()) is not None:
            return in_list, noted
    copied = _Copied(column)
    return copied, copied.note()


def _can_be_addressed(column: PhotoColumn) -> bool:
    """Whether the list's text is the file's bytes, in lines."""
    source = column.source
    if source.is_converted or source.is_copied or column.codec.lower() not in _LINE_BY_LINE:
        return False
    with source.open() as content, source.path.open("rb") as file:
        return content.read(BLOCK) == file.read(BLOCK)


def _records(
    reader: Any, column: PhotoColumn, at: Callable[[], int]
) -> Iterator[tuple[int, list[str], int, int]]:
    """The records after the header: their line, their cells, and where they begin and end."""
    line, start = column.above, at()
    for record, cells in enumerate(reader):
        first, line, end = line + 1, column.above + reader.line_num, at()
        if record > column.header_record:
            yield (record + 1 if column.source.is_converted else first), cells, start, end
        start = end


def _note(
    noted: _Noted,
    column: PhotoColumn,
    cells: Sequence[str],
    photo: str,
    *,
    line: int,
    place: tuple[int, int],
) -> None:
    times = _times_of(photo)
    noted.lines.append(line)
    noted.places.extend(place)
    noted.times.extend((times.size, times.mtime_ns, times.ctime_ns))
    noted.people.extend(_hashes(image_name(column.user_id(cells))))


def _times_of(photo: str) -> FileTimes:
    """What is known of a photo: how many bytes it has, and 126 bits of a digest of its text, in
    which line breaks do not count."""
    found = _DATA_URL.match(photo)
    text = "".join(photo[found.end() if found else 0 :].split()).encode("utf-8", "replace")
    digest = blake2b(text, digest_size=16).digest()
    first, second = (int.from_bytes(half, "big") >> 1 for half in (digest[:8], digest[8:]))
    return FileTimes(len(text) * 3 // 4 - text[-2:].count(b"="), first, second)


def _hashes(name: str) -> tuple[int, int]:
    return hash(name), hash(f"{name}/")


def _numbers_of_each(people: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For each photo in the list's order its number among those of its person, from 1 on; `people`
    are sorted by `order`."""
    numbers = np.ones(len(people), np.int64)
    if len(people):
        begins = np.flatnonzero(np.diff(people, prepend=~people[0]))
        counts = np.diff(begins, append=len(people))
        numbers[order] = np.arange(len(people)) - np.repeat(begins, counts) + 1
    return numbers


def _failed(code: PhotoCode, message: str) -> Unusable:
    return Unusable(status=Status.FAILED, fault=Fault(code=code, message=message))
