"""TIFF: what its directory says of the picture, checked against what Pillow makes of it.

A directory may say anything of where and how pixels lie, and decoders believe it: Pillow makes a
wrong picture of some layouts, keeps gigabytes for others, and shows the thumbnail of a camera's raw
file. So it is read here within bounds, and the decoder gets a new one that says what was checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from struct import pack

from PIL.TiffImagePlugin import OPEN_INFO

from enroll.photos import form
from enroll.photos.decision import RefusedError
from enroll.photos.directory import (
    LONG,
    SHORT,
    Directories,
    Entry,
    Read,
    Tag,
    Value,
    alone,
    refused,
)
from enroll.photos.form import EndMissingError
from enroll.photos.picture import LARGEST_PROFILE

MOST_PIECES = 100_000
"""Strips or tiles: a strip for each line and colour of the tallest pictures, or tiles of 32 pixels
of the largest. Each costs Pillow some microseconds, however small it is."""

_MOST_DIRECTORIES = 16
"""Directories that are searched for a camera's raw picture, which is among the first few."""

_LARGEST_TABLES = 65_536
"""Bytes of the tables of JPEGs in strips; they have some 600."""

_TILE_PIXELS = 1024 * 1024
"""A tile may be so large, however small the picture."""

_OVERLAP = 4
"""How many times the file its strips may be, if they overlap: libtiff reads each of them."""

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS: Mapping[int, str] = dict.fromkeys((_WHITE_IS_ZERO, _BLACK_IS_ZERO), "grey") | {
    _RGB: "RGB",
    _PALETTE: "palette",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    _LAB: "Lab",
}
_UNSIGNED, _SIGNED, _FLOAT, _UNKNOWN = 1, 2, 3, 4
_IN_WORDS: Mapping[int, str] = {_SIGNED: " signed", _FLOAT: " floating-point"}

_PLAIN, _OLD_JPEG, _JPEG = 1, 6, 7
_FAX = frozenset({2, 3, 4})
_COMPRESSIONS = frozenset({_PLAIN, 5, _OLD_JPEG, _JPEG, 8, 32773, 32946, 50000}) | _FAX
"""LZW, JPEG and deflate by two numbers each, PackBits, Zstandard, and those of fax."""

_RAW_COLOURS = frozenset({32803, 34892})
"""A filter of another colour before each pixel; a sensor's linear values."""

_RAW_COMPRESSIONS = frozenset({32767, 32769, 32770, 34713, 65000, 65535})
"""Those of Sony, Epson, Samsung, Nikon, Kodak and Pentax."""

_RAW_HEADS = (b"CR", b"IIII", b"MMMM")
"""The bytes at position 8 of Canon's CR2 and Phase One's IIQ."""

RAW = "camera's raw file"

_THUMBNAIL: Mapping[Tag, int] = {Tag.NEW_SUBFILE_TYPE: 1, Tag.SUBFILE_TYPE: 2}
"""What says of a picture that it is a small copy of another one in the file."""

_KEPT: Mapping[Tag, int] = {
    **dict.fromkeys((Tag.GROUP3, Tag.GROUP4, Tag.PREDICTOR, Tag.YCBCR_SAMPLING), 8),
    **dict.fromkeys((Tag.YCBCR_WEIGHTS, Tag.YCBCR_POSITION, Tag.BLACK_WHITE), 48),
    **dict.fromkeys((Tag.OLD_JPEG, Tag.OLD_JPEG_OFFSET, Tag.OLD_JPEG_BYTES), 8),
    **dict.fromkeys((Tag.OLD_JPEG_RESTART, Tag.OLD_JPEG_Q, Tag.OLD_JPEG_DC, Tag.OLD_JPEG_AC), 32),
    Tag.JPEG_TABLES: _LARGEST_TABLES,
    Tag.PROFILE: LARGEST_PROFILE,
}
"""Values that a decoder gets unchanged, and the most bytes of each."""

_USUAL_BLACK_WHITE = (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiff:
    """What the checked directory says: `end` is where the last strip ends."""

    size: tuple[int, int]
    orientation: int
    end: int
    order: str
    values: Mapping[int, Value] = field(repr=False)

    def alone(self, content: bytes) -> bytes:
        """A file of which a decoder sees this picture and nothing else."""
        return alone(content, self.order, self.values)


def walk(read: Read, length: int) -> Tiff:
    """What a file of `length` bytes says of its first picture.

    Raises EndMissingError, and RefusedError for what Pillow would show wrong or not at all.
    """
    file = Directories(read)
    if read(8, 4).startswith(_RAW_HEADS):
        raise refused(RAW)
    entries, after = file.at(file.first)
    if any(_is_raw(file, one) for one in (entries, *_others(file, entries, after))):
        raise refused(RAW)
    for tag, reduced in _THUMBNAIL.items():
        if file.numbers_if_sound(entries, tag, 1) == (reduced,):
            raise refused("TIFF whose first picture is a thumbnail")
    return _Picture(file, entries).checked(length)


def _others(file: Directories, entries: dict[int, Entry], after: int) -> Iterator[dict[int, Entry]]:
    """The directories behind the first one and within it."""
    todo, seen = [after, *_within(file, entries)], {0, file.first}
    for _ in range(_MOST_DIRECTORIES):
        todo = [place for place in todo if place not in seen]
        if not todo:
            return
        seen.add(todo[0])
        try:
            found, after = file.at(todo[0])
            todo += [after, *_within(file, found)]
        except (EndMissingError, RefusedError):
            continue  # it is not the one that is shown
        yield found


def _within(file: Directories, entries: dict[int, Entry]) -> tuple[int, ...]:
    return file.numbers_if_sound(entries, Tag.SUB_DIRECTORIES, _MOST_DIRECTORIES)


def _is_raw(file: Directories, entries: dict[int, Entry]) -> bool:
    if Tag.DNG_VERSION in entries or Tag.CFA in entries:
        return True
    marks = {Tag.PHOTOMETRIC: _RAW_COLOURS, Tag.COMPRESSION: _RAW_COMPRESSIONS}
    return any(
        not raw.isdisjoint(file.numbers_if_sound(entries, tag, 1)) for tag, raw in marks.items()
    )


class _Picture:
    """How a directory's picture is stored in the file."""

    def __init__(self, file: Directories, entries: dict[int, Entry]) -> None:
        self._file = file
        self._entries = entries
        self.size = self._one(Tag.WIDTH, 0), self._one(Tag.HEIGHT, 0)
        self.compression = self._one(Tag.COMPRESSION, _PLAIN)
        self.planar = self._one(Tag.PLANAR, 1)
        self.fill_order = self._one(Tag.FILL_ORDER, 1)
        self.samples = self._one(Tag.SAMPLES, 3 if self.compression == _OLD_JPEG else 1)
        self.bits = self._each(Tag.BITS, 1)
        formats = self._each(Tag.SAMPLE_FORMAT, _UNSIGNED)
        self.formats = tuple(_UNSIGNED if one == _UNKNOWN else one for one in formats)
        self.extra = self._all(Tag.EXTRA_SAMPLES, 8)
        self.photometric = self._one(Tag.PHOTOMETRIC, self._likely())
        if self.compression == _OLD_JPEG and self.samples == 3:
            self.photometric = _YCBCR

    def _one(self, tag: Tag, default: int) -> int:
        return next(iter(self._all(tag, 1)), default)

    def _all(self, tag: Tag, most: int) -> tuple[int, ...]:
        return self._file.numbers(self._entries[tag], most) if tag in self._entries else ()

    def _each(self, tag: Tag, default: int) -> tuple[int, ...]:
        """A number for each sample. The file may give a single one for all of them; Pillow ignores
        excess numbers."""
        found = self._all(tag, 8) or (default,)
        if len(found) == 1 and 1 <= self.samples <= 8:
            return found * self.samples
        return found[: max(self.samples, 1)]

    def _likely(self) -> int:
        """The colours where they are not said, as libtiff guesses them."""
        if self.samples >= 3:
            return _RGB
        return _WHITE_IS_ZERO if self.compression in _FAX else _BLACK_IS_ZERO

    def checked(self, length: int) -> Tiff:
        """What a decoder may know of it. Raises RefusedError and EndMissingError."""
        if not all(0 < side < 1 << 31 for side in self.size):
            raise refused("TIFF that does not say its size")
        if self.compression not in _COMPRESSIONS:
            raise refused(f"TIFF packed in a rare way (compression {self.compression})")
        if not (self._colours_are_known() and self._planes_are_known() and self._ycbcr_is_known()):
            raise refused(f"TIFF of a rare kind ({self._in_words()})")
        values: dict[int, Value] = {
            tag: value
            for tag, most in _KEPT.items()
            if tag in self._entries
            and (value := self._file.value(self._entries[tag], most)) is not None
        }
        values |= self._colours()
        pieces, end = self._pieces(length)
        found = self._file.numbers_if_sound(self._entries, Tag.ORIENTATION, 1)
        return Tiff(
            size=self.size,
            orientation=next((one for one in found if one in form.TURNED), form.UPRIGHT),
            end=end,
            order=self._file.order,
            values=values | pieces,
        )

    def _colours_are_known(self) -> bool:
        """Whether Pillow shows them as they are meant."""
        depth = self.bits[0]
        if not 1 <= self.samples <= 8 or len({*self.formats}) != 1:
            return False
        order = b"II" if self._file.order == "<" else b"MM"
        form = self.formats[:1]
        key = (order, self.photometric, form, self.fill_order, self.bits, self.extra)
        return key in OPEN_INFO and not (
            depth == 12  # it would be nearly black
            or (depth > 8 and self.photometric == _WHITE_IS_ZERO)  # a negative
            or (depth > 8 and self.fill_order != 1)
            or (depth < 32 and form == (_SIGNED,))  # taken for unsigned, or half as bright
            or (depth == 32 and form == (_UNSIGNED,))  # taken for signed
            or (depth == 32 and order == b"MM" and self.compression != _PLAIN)  # swapped twice
            or (depth > 1 and self.compression in _FAX)
            or (self.samples != 3 and self.compression == _OLD_JPEG)
            or (self.photometric == _CMYK and self._one(Tag.INKS, 1) != 1)
            or (self.photometric == _YCBCR and self.samples != 3)
        )

    def _planes_are_known(self) -> bool:
        """Whether Pillow combines colours that are stored apart."""
        if self.planar == 1 or self.samples == 1:
            return True
        narrow = self.bits[0] == 8 or self.compression != _PLAIN
        known = self.photometric in (_RGB, _CMYK) and self.extra in ((), (2,))
        return self.planar == 2 and narrow and known

    def _ycbcr_is_known(self) -> bool:
        """Whether colours are at each pixel, with nothing to be calculated that Pillow leaves out;
        libtiff does all of that where it unpacks."""
        if self.photometric != _YCBCR or self.compression != _PLAIN:
            return True
        black_white = self._all(Tag.BLACK_WHITE, 6)
        plain = Tag.YCBCR_WEIGHTS not in self._entries
        return (
            plain
            and black_white in ((), _USUAL_BLACK_WHITE)
            and self._all(Tag.YCBCR_SAMPLING, 2) == (1, 1)
        )

    def _in_words(self) -> str:
        colours = _COLOURS.get(self.photometric, f"colours {self.photometric}")
        apart = ", each colour by itself" if self.planar != 1 and self.samples > 1 else ""
        return f"{colours}, {self.bits[0]}{_IN_WORDS.get(self.formats[0], '')} bits{apart}"

    def _colours(self) -> dict[int, Value]:
        values: dict[int, Value] = {
            Tag.WIDTH: self._longs(self.size[:1]),
            Tag.HEIGHT: self._longs(self.size[1:]),
            Tag.BITS: self._shorts(self.bits),
            Tag.COMPRESSION: self._shorts([self.compression]),
            Tag.PHOTOMETRIC: self._shorts([self.photometric]),
            Tag.FILL_ORDER: self._shorts([self.fill_order]),
            Tag.SAMPLES: self._shorts([self.samples]),
            Tag.PLANAR: self._shorts([self.planar if self.samples > 1 else 1]),
            Tag.SAMPLE_FORMAT: self._shorts(self.formats),
        }
        if self.extra:
            values[Tag.EXTRA_SAMPLES] = self._shorts(self.extra)
        if self.photometric == _PALETTE:
            values[Tag.COLOUR_MAP] = self._shorts(self._colour_map())
        return values

    def _colour_map(self) -> Sequence[int]:
        """Of 16 bits: where no number is above 255 it is one of 8, by libtiff's rule."""
        wanted = 3 << self.bits[0]
        found = self._all(Tag.COLOUR_MAP, wanted + 1)
        if len(found) != wanted or not 0 <= min(found) <= max(found) < 1 << 16:
            raise refused("TIFF without a colour map that fits it")
        return found if max(found) > 255 else [257 * level for level in found]

    def _pieces(self, length: int) -> tuple[dict[int, Value], int]:
        """Where strips or tiles are, and where the last one ends. Raises RefusedError."""
        width, height = self.size
        shape: dict[int, Value]
        tiled = Tag.TILE_OFFSETS in self._entries
        if tiled:
            wide, high = self._one(Tag.TILE_WIDTH, 0), self._one(Tag.TILE_HEIGHT, 0)
            shape = {Tag.TILE_WIDTH: self._longs([wide]), Tag.TILE_HEIGHT: self._longs([high])}
            offsets_tag, bytes_tag = Tag.TILE_OFFSETS, Tag.TILE_BYTES
        else:
            wide, high = width, min(self._one(Tag.ROWS_PER_STRIP, height), height)
            shape = {Tag.ROWS_PER_STRIP: self._longs([high])}
            offsets_tag, bytes_tag = Tag.STRIP_OFFSETS, Tag.STRIP_BYTES
        if min(wide, high) <= 0 or wide * high > max(width * height, _TILE_PIXELS):
            raise refused("TIFF whose tiles or strips are not of a size that makes sense")
        planes = self.samples if self.planar == 2 else 1
        number = -(-width // wide) * -(-height // high) * planes
        if number > MOST_PIECES:
            raise refused(f"TIFF in {number:,} pieces")
        offsets = self._all(offsets_tag, number)
        if len(offsets) < number:
            raise refused("TIFF that does not say where all of its picture is")
        sizes = self._sizes(bytes_tag, offsets, (wide, high), tiled=tiled, length=length)
        end = max(at + size for at, size in zip(offsets, sizes, strict=True))
        held = [max(min(size, length - at), 0) for at, size in zip(offsets, sizes, strict=True)]
        if sum(held) > _OVERLAP * length:
            raise refused("TIFF whose pieces are the same bytes")
        if min(*offsets, *sizes) < 0 or end >= 1 << 32:
            raise refused("TIFF that says that its picture is elsewhere")
        return {**shape, offsets_tag: self._longs(offsets), bytes_tag: self._longs(sizes)}, end

    def _sizes(
        self,
        tag: Tag,
        offsets: Sequence[int],
        piece: tuple[int, int],
        *,
        tiled: bool,
        length: int,
    ) -> Sequence[int]:
        """The bytes of each strip or tile. What is not packed has as many as its pixels take."""
        if self.compression == _PLAIN:
            bits = self.bits[0] * (1 if self.planar == 2 else self.samples)
            line = -(-piece[0] * bits // 8)
            full = line * piece[1]
            if tiled:
                return [full] * len(offsets)
            down = -(-self.size[1] // piece[1])
            last = line * (self.size[1] - (down - 1) * piece[1])
            return [last if (each + 1) % down == 0 else full for each in range(len(offsets))]
        found = self._all(tag, len(offsets))
        if len(found) == len(offsets):
            return found
        if len(offsets) == 1:
            return [max(length - offsets[0], 0)]
        raise refused("TIFF that does not say how long its strips are")

    def _longs(self, numbers: Sequence[int]) -> Value:
        return Value(LONG, len(numbers), pack(f"{self._file.order}{len(numbers)}I", *numbers))

    def _shorts(self, numbers: Sequence[int]) -> Value:
        return Value(SHORT, len(numbers), pack(f"{self._file.order}{len(numbers)}H", *numbers))
