"""A TIFF's directories, read within bounds, and a new one written behind the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import calcsize, error, pack, unpack_from

from enroll.photos import decision
from enroll.photos.decision import RefusedError
from enroll.photos.form import EndMissingError

Read = Callable[[int, int], bytes]
"""(at, length) → the bytes that a file has there, fewer at its end."""

MOST_ENTRIES = 4_096
"""Entries of a directory; cameras write some 60."""


class Tag(IntEnum):
    """The entries that matter here (TIFF 6.0, and additions by Adobe and libtiff)."""

    NEW_SUBFILE_TYPE = 254
    SUBFILE_TYPE = 255
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTES = 279
    PLANAR = 284
    GROUP3 = 292
    GROUP4 = 293
    PREDICTOR = 317
    COLOUR_MAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    SUB_DIRECTORIES = 330
    INKS = 332
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347
    OLD_JPEG = 512
    OLD_JPEG_OFFSET = 513
    OLD_JPEG_BYTES = 514
    OLD_JPEG_RESTART = 515
    OLD_JPEG_Q = 519
    OLD_JPEG_DC = 520
    OLD_JPEG_AC = 521
    YCBCR_WEIGHTS = 529
    YCBCR_SAMPLING = 530
    YCBCR_POSITION = 531
    BLACK_WHITE = 532
    CFA = 33422
    PROFILE = 34675
    DNG_VERSION = 50706


SHORT, LONG = 3, 4
_RATIONAL = 5

_LAYOUTS: Mapping[int, str] = (
    {1: "B", SHORT: "H", LONG: "I", _RATIONAL: "II", 6: "b", 7: "B"}
    | {8: "h", 9: "i", 13: "I"}
    | {16: "Q", 17: "q", 18: "Q"}  # of a BigTIFF
)
"""Types of numbers and bytes, and how struct unpacks one; text and floating point are not read."""


def refused(what: str) -> RefusedError:
    """A TIFF that is not converted, named so that `The photo is a` goes before it."""
    return RefusedError(decision.foreign(f"a {what}"))


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a directory: the type of its values, their number, and where they are."""

    kind: int
    count: int
    at: int


@dataclass(frozen=True, slots=True)
class Value:
    """What an entry of a new directory holds."""

    kind: int
    count: int
    packed: bytes


class Directories:
    """A TIFF's directories and their values, in the byte order and width of numbers of its header.

    Raises EndMissingError where there is no header.
    """

    def __init__(self, read: Read) -> None:
        head = read(0, 16)
        self._read = read
        self.order = "<" if head[:2] == b"II" else ">"
        try:
            (version,) = unpack_from(f"{self.order}H", head, 2)
            self._wide = version == 43
            layout, at = ("Q", 8) if self._wide else ("I", 4)
            (self.first,) = unpack_from(self.order + layout, head, at)
        except error as why:
            raise EndMissingError from why
        self._offset, self._room = ("Q", 8) if self._wide else ("I", 4)

    def at(self, place: int) -> tuple[dict[int, Entry], int]:
        """The entries by tag of the directory at `place`, and where the next one is, 0 for nowhere.

        Raises EndMissingError, and RefusedError for more than MOST_ENTRIES.
        """
        counting, each = ("Q", "HHQ8s") if self._wide else ("H", "HHI4s")
        begin, size = place + calcsize(f"={counting}"), calcsize(f"={each}")
        (entries,) = self._unpacked(counting, place, 1)
        if entries > MOST_ENTRIES:
            raise refused(f"TIFF with {entries:,} tags")
        content = self._bytes(begin, entries * size + self._room)
        if len(content) < entries * size:
            raise EndMissingError
        found: dict[int, Entry] = {}
        for number in range(entries):
            tag, kind, count, _ = unpack_from(self.order + each, content, number * size)
            value = (number + 1) * size - self._room
            where = begin + value
            if count * calcsize("=" + _LAYOUTS.get(kind, "B")) > self._room:
                (where,) = unpack_from(self.order + self._offset, content, value)
            found.setdefault(tag, Entry(kind, count, where))
        if len(content) < entries * size + self._room:
            return found, 0  # some writers end their file without it
        (after,) = unpack_from(self.order + self._offset, content, entries * size)
        return found, after

    def numbers(self, entry: Entry, most: int) -> tuple[int, ...]:
        """Values of an entry, at most the first `most`; a ratio is two numbers.

        Raises EndMissingError, and RefusedError where they are no numbers.
        """
        layout = _LAYOUTS.get(entry.kind)
        if layout is None:
            raise refused("TIFF whose tags are of no type that there is")
        return self._unpacked(layout[0], entry.at, min(entry.count, most) * len(layout))

    def numbers_if_sound(
        self, entries: Mapping[int, Entry], tag: Tag, most: int
    ) -> tuple[int, ...]:
        """The numbers of an entry that a picture can do without: none where there is no such entry,
        or where they cannot be read."""
        try:
            return self.numbers(entries[tag], most)
        except (KeyError, EndMissingError, RefusedError):
            return ()

    def value(self, entry: Entry, largest: int) -> Value | None:
        """An entry's value, still packed; None where it has more than `largest` bytes, is of no
        known type, or is beyond the end of the file."""
        size = entry.count * calcsize("=" + _LAYOUTS.get(entry.kind, "0s"))
        if not 0 < size <= largest:
            return None
        packed = self._bytes(entry.at, size)
        return Value(entry.kind, entry.count, packed) if len(packed) == size else None

    def _unpacked(self, each: str, at: int, count: int) -> tuple[int, ...]:
        layout = f"{self.order}{count}{each}"
        try:
            return unpack_from(layout, self._bytes(at, calcsize(layout)))
        except error as why:
            raise EndMissingError from why

    def _bytes(self, at: int, length: int) -> bytes:
        return self._read(at, length) if at < 1 << 62 else b""


def alone(content: bytes, order: str, values: Mapping[int, Value]) -> bytes:
    """A TIFF that holds `content` where it was, and behind it one directory with these values by
    tag."""
    padding = bytes(len(content) % 2)
    at = len(content) + len(padding)
    head = (b"II*\0" if order == "<" else b"MM\0*") + pack(f"{order}I", at)
    entries, behind = [], bytearray()
    after = at + 2 + 12 * len(values) + 4
    for tag, value in sorted(values.items()):
        place = value.packed.ljust(4, b"\0")
        if len(place) > 4:
            place = pack(f"{order}I", after + len(behind))
            behind += value.packed + bytes(len(value.packed) % 2)
        entries.append(pack(f"{order}HHI", tag, value.kind, value.count) + place)
    directory = [pack(f"{order}H", len(values)), *entries, bytes(4), bytes(behind)]
    return b"".join([head, memoryview(content)[8:], padding, *directory])
