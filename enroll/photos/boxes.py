"""AVIF and HEIC: which of a file's items are the picture that is shown, and where its bytes are.

A file's table of items (ISO/IEC 14496-12 and 23008-12) may hold thumbnails, metadata, animations
and mistakes beside the picture. A new one is written for AVIF, of the picture and its transparency
alone: libavif refuses a whole file for a mistake in what is not shown, and takes time in the square
of the number of items. libheif has bounds of its own, and overlooks more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from struct import error, pack, unpack_from

from enroll.photos.form import EndMissingError

MOST_BOXES = 10_000
"""Boxes of one kind within another, and entries of a table. A picture of 100 megapixels in tiles of
512 pixels has some 400 items."""

MOST_ENTRIES = 100_000
"""The same for all tables together."""

MOST_ITEMS = 1_000
"""Items that a picture is made of; libheif's bound, too."""

_MOST_PROPERTIES = 250
"""Of an item, whose number is written in one byte."""

_TILES, _ALPHA, _PREMULTIPLIED = b"dimg", b"auxl", b"prem"

_METADATA = frozenset({b"Exif", b"mime"})

_ALPHA_KINDS = (
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0",
    b"urn:mpeg:hevc:2015:auxid:1\0",
)

Box = tuple[bytes, int, int]
"""Its kind, and where its content begins and ends."""

Reference = tuple[bytes, int, list[int]]
"""Its kind, the item that it is of, and those that it is to."""

Crop = tuple[int, int, int, int]
"""Left, top, right and bottom of what is shown, in pixels."""


class NotBoxesError(Exception):
    """The boxes make no sense, or there are more than can be the picture's."""


@dataclass(slots=True)
class Item:
    """`kind` is its codec, or how it is derived; `parts` are (at, length) in the file; `properties`
    are (number, whether a decoder has to know it), from 1 on."""

    kind: bytes = b""
    parts: list[tuple[int, int]] = field(default_factory=list)
    properties: list[tuple[int, bool]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The picture that is shown.

    `size` is without its `crop` (left, top, right, bottom); `end` is where the last of its bytes
    stand. `items` are those that it is made of, first the picture itself.
    """

    size: tuple[int, int] | None
    crop: Crop | None
    end: int
    items: Mapping[int, Item] = field(repr=False)
    references: list[Reference] = field(repr=False)
    properties: list[bytes] = field(repr=False)
    metadata: list[int] = field(repr=False)
    """Where the kinds of items with text and EXIF are."""

    def without_metadata(self, content: bytes) -> bytes:
        """The same file, of which a decoder copies no metadata; the very bytes if it has none."""
        if not self.metadata:
            return content
        pieces: list[bytes | memoryview] = []
        at = 0
        for place in self.metadata:
            pieces += [memoryview(content)[at:place], b"skip"]
            at = place + len(b"skip")
        return b"".join([*pieces, memoryview(content)[at:]])


def framed(kind: bytes, content: bytes) -> bytes:
    """A box."""
    return pack(">I", 8 + len(content)) + kind + content


def walk(content: bytes) -> Picture:
    """What the table of items says of the picture that is shown. Raises EndMissingError and
    NotBoxesError."""
    meta = next(
        (box for box in _boxes(content, 0, len(content), whole=False) if box[0] == b"meta"), None
    )
    if meta is None or meta[2] > len(content):
        raise EndMissingError
    try:
        return _Table(content, *meta[1:]).picture()
    except (error, IndexError) as why:
        raise NotBoxesError from why


def _boxes(content: bytes, at: int, end: int, *, whole: bool = True) -> Iterator[Box]:
    """The boxes from `at` to `end`. Of a file (`whole=False`) the last one may go beyond its end,
    or be none: cameras leave other things behind their boxes."""
    for _ in range(MOST_BOXES):
        if at + 8 > end:
            return
        length, kind, begin = (
            int.from_bytes(content[at : at + 4], "big"),
            content[at + 4 : at + 8],
            at + 8,
        )
        if length == 1:
            length, begin = int.from_bytes(content[at + 8 : at + 16], "big"), at + 16
        elif length == 0:
            length = end - at
        if length < begin - at or (whole and at + length > end):
            if whole:
                raise NotBoxesError
            return
        yield kind, begin, at + length
        at += length
    raise NotBoxesError


def largest_size(head: bytes) -> tuple[int, int] | None:
    """Width and height by a file's first bytes; None where they do not say."""
    largest = None
    at = head.find(b"ispe")
    while at >= 0 and at + 16 <= len(head):  # one of each picture and tile: the largest is it
        width, height = unpack_from(">II", head, at + 8)
        largest = max(largest or (0, 0), (width, height), key=lambda size: size[0] * size[1])
        at = head.find(b"ispe", at + 4)
    return largest


class _Table:
    """A `meta` box, read."""

    def __init__(self, content: bytes, at: int, end: int) -> None:
        self._content = content
        self._entries = 0
        boxes: dict[bytes, Box] = {}
        for box in _boxes(content, at + 4, end):
            boxes.setdefault(box[0], box)
        self._boxes = boxes
        self.items: dict[int, Item] = {}
        self._metadata: list[int] = []
        self.references: list[Reference] = []
        self._properties: list[Box] = []
        self._read_kinds()
        self._read_places()
        self._read_properties()
        self._read_references()

    def _count(self, entries: int) -> None:
        """Bound what is read in all of the tables together."""
        self._entries += entries
        if self._entries > MOST_ENTRIES:
            raise NotBoxesError

    def _fields(self, layout: str, at: int) -> tuple[int, ...]:
        found: tuple[int, ...] = unpack_from(">" + layout, self._content, at)
        return found

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self._content[at : at + size], "big")

    def _inside(self, kind: bytes) -> tuple[int, int, int, int]:
        """Where a box of the table begins and ends behind its version and flags, and these."""
        if kind not in self._boxes:
            raise NotBoxesError
        _, at, end = self._boxes[kind]
        (both,) = self._fields("I", at)
        return at + 4, end, both >> 24, both & 0xFFFFFF

    def _read_kinds(self) -> None:
        at, end, version, _ = self._inside(b"iinf")
        for kind, begin, _ in _boxes(self._content, at + (4 if version else 2), end):
            if kind != b"infe" or self._content[begin] not in (2, 3):
                continue
            wide = 4 if self._content[begin] == 3 else 2
            number, at = self._number(begin + 4, wide), begin + 6 + wide
            self.items[number] = Item(self._content[at : at + 4])
            if self.items[number].kind in _METADATA:
                self._metadata.append(at)

    def _read_places(self) -> None:
        at, end, version, _ = self._inside(b"iloc")
        sizes, more = self._fields("BB", at)
        offset, length, base, index = sizes >> 4, sizes & 15, more >> 4, more & 15 if version else 0
        wide = 4 if version == 2 else 2
        count, at = self._number(at + 2, wide), at + 2 + wide
        for _ in range(count):
            number, at = self._number(at, wide), at + wide
            method, at = (self._number(at, 2) & 15, at + 2) if version else (0, at)
            start, at = self._number(at + 2, base), at + 2 + base
            extents, at = self._number(at, 2), at + 2
            self._count(1 + extents)
            if at > end:
                raise NotBoxesError
            item = self.items.get(number, Item())
            for _ in range(extents):
                at += index
                place = start + self._number(at, offset)
                size = self._number(at + offset, length)
                at += offset + length
                item.parts.append(self._placed(method, place, size))

    def _placed(self, method: int, place: int, size: int) -> tuple[int, int]:
        """Where bytes are that are declared to be in the file, or in the table's own box."""
        if method == 0:
            return place, size or max(len(self._content) - place, 0)
        if method == 1 and b"idat" in self._boxes:
            _, at, end = self._boxes[b"idat"]
            return at + place, size or max(end - at - place, 0)
        raise NotBoxesError

    def _read_properties(self) -> None:
        if b"iprp" not in self._boxes:
            raise NotBoxesError
        _, at, end = self._boxes[b"iprp"]
        for kind, begin, after in _boxes(self._content, at, end):
            if kind == b"ipco" and not self._properties:
                self._properties = list(_boxes(self._content, begin, after))
            elif kind == b"ipma":
                self._read_owners(begin, after)

    def _read_owners(self, at: int, end: int) -> None:
        (both, count) = self._fields("II", at)
        at, wide, each = at + 8, 4 if both >> 24 else 2, 2 if both & 1 else 1
        for _ in range(count):
            number, owned = self._number(at, wide), self._number(at + wide, 1)
            at += wide + 1
            self._count(1 + owned)
            if at + owned * each > end:
                raise NotBoxesError
            item = self.items.get(number, Item())
            for _ in range(owned):
                found, at = self._number(at, each), at + each
                mark = 1 << (8 * each - 1)
                item.properties.append((found & (mark - 1), bool(found & mark)))

    def _read_references(self) -> None:
        if b"iref" not in self._boxes:
            return
        at, end, version, _ = self._inside(b"iref")
        wide = 4 if version else 2
        for kind, begin, after in _boxes(self._content, at, end):
            number, count = self._number(begin, wide), self._number(begin + wide, 2)
            if begin + wide + 2 + count * wide > after:
                raise NotBoxesError
            self._count(1 + count)
            places = range(begin + wide + 2, begin + wide + 2 + count * wide, wide)
            self.references.append((kind, number, [self._number(place, wide) for place in places]))

    def picture(self) -> Picture:
        """The item that is shown, with all that it is made of."""
        at, _, version, _ = self._inside(b"pitm")
        shown = self._number(at, 4 if version else 2)
        alpha = self._alpha_of(shown)
        wanted, references = self._with_parts([shown] if alpha is None else [shown, alpha])
        if alpha is not None:
            self._give_size(alpha, shown)
            references.append((_ALPHA, alpha, [shown]))
            if any(kind == _PREMULTIPLIED and one == shown for kind, one, _ in self.references):
                references.append((_PREMULTIPLIED, shown, [alpha]))
        parts = [part for one in wanted for part in self._item(one).parts]
        held = sum(max(min(length, len(self._content) - at), 0) for at, length in parts)
        if held > len(self._content):  # they overlap
            raise NotBoxesError
        owned = {number for one in wanted for number, _ in self._item(one).properties if number}
        # The crop is made here: libavif leaves it to others, and refuses some.
        used = sorted(number for number in owned if self._property(number)[0] != b"clap")
        numbers = {number: new for new, number in enumerate(used, start=1)}
        size = self._size_of(shown)
        return Picture(
            size=size,
            crop=None if size is None else self._crop_of(shown, size),
            end=max((at + length for at, length in parts), default=0),
            items={one: self._renumbered(one, numbers) for one in wanted},
            references=references,
            metadata=self._metadata,
            properties=[self._whole(self._property(number)) for number in used],
        )

    def _item(self, number: int) -> Item:
        if number not in self.items:
            raise NotBoxesError
        return self.items[number]

    def _with_parts(self, whole: list[int]) -> tuple[list[int], list[Reference]]:
        """These items, those that they are put together from, and how."""
        parts = {one: to for kind, one, to in self.references if kind == _TILES}
        wanted, references = list(whole), []
        for one in wanted:  # grows
            if one in parts:
                references.append((_TILES, one, parts[one]))
                wanted += [part for part in dict.fromkeys(parts[one]) if part not in wanted]
            if len(wanted) > MOST_ITEMS or len(self._item(one).properties) >= _MOST_PROPERTIES:
                raise NotBoxesError
        return wanted, references

    def _renumbered(self, one: int, numbers: Mapping[int, int]) -> Item:
        item = self._item(one)
        owned = [(numbers[number], must) for number, must in item.properties if number in numbers]
        return Item(item.kind, item.parts, owned)

    def _property(self, number: int) -> Box:
        if not 0 < number <= len(self._properties):
            raise NotBoxesError
        return self._properties[number - 1]

    def _whole(self, box: Box) -> bytes:
        kind, at, end = box
        return framed(kind, self._content[at:end])

    def _of(self, one: int, kind: bytes) -> Box | None:
        """An item's property of this kind."""
        found = (self._property(number) for number, _ in self._item(one).properties if number)
        return next((box for box in found if box[0] == kind), None)

    def _alpha_of(self, shown: int) -> int | None:
        """The item that holds the transparency of another one."""
        for kind, number, to in self.references:
            if kind == _ALPHA and shown in to and number in self.items:
                box = self._of(number, b"auxC")
                if box is not None and self._content.startswith(_ALPHA_KINDS, box[1] + 4, box[2]):
                    return number
        return None

    def _give_size(self, alpha: int, shown: int) -> None:
        """Say of transparency that it is as large as its picture, where nothing is said."""
        if self._of(alpha, b"ispe") is None:
            sizes = [
                (number, must)
                for number, must in self._item(shown).properties
                if number and self._property(number)[0] == b"ispe"
            ]
            self._item(alpha).properties[:0] = sizes

    def _size_of(self, shown: int) -> tuple[int, int] | None:
        box = self._of(shown, b"ispe")
        return None if box is None else self._fields("II", box[1] + 4)  # type: ignore[return-value]

    def _crop_of(self, shown: int, size: tuple[int, int]) -> Crop | None:
        """What its clean aperture leaves of a picture; None for all of it, or where it makes no
        sense, as decoders have it."""
        box = self._of(shown, b"clap")
        if box is None:
            return None
        numbers = self._fields("8i", box[1])
        if not all(numbers[1::2]):
            return None
        wide, high, right, down = (Fraction(*numbers[at : at + 2]) for at in range(0, 8, 2))
        left, top = round((size[0] - wide) / 2 + right), round((size[1] - high) / 2 + down)
        crop = (
            *(max(left, 0), max(top, 0)),
            *(min(left + round(wide), size[0]), min(top + round(high), size[1])),
        )
        empty = crop[0] >= crop[2] or crop[1] >= crop[3]
        return None if empty or crop == (0, 0, *size) else crop


_FILE_TYPE = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"

_HANDLER = b"\0\0\0\0pict" + bytes(12) + b"\0"


def alone_of(picture: Picture, content: bytes) -> bytes:
    """A file of this picture of `content`, and of nothing else."""
    data: list[memoryview] = []
    places, at = [], len(_FILE_TYPE) + 8
    for item in picture.items.values():
        parts = [memoryview(content)[begin : begin + length] for begin, length in item.parts]
        size = sum(len(part) for part in parts)
        places.append((at, size))
        data += parts
        at += size
    mdat = pack(">I", 8 + sum(len(part) for part in data)) + b"mdat"
    return b"".join([_FILE_TYPE, mdat, *data, _table(picture, places)])


def _table(picture: Picture, places: list[tuple[int, int]]) -> bytes:
    numbers = {one: number for number, one in enumerate(picture.items, start=1)}
    infos, located, owned = [], b"", b""
    for number, (item, place) in enumerate(zip(picture.items.values(), places, strict=True), 1):
        infos.append(framed(b"infe", pack(">IHH", 2 << 24, number, 0) + item.kind + b"\0"))
        located += pack(">HHHII", number, 0, 1, *place)
        owned += pack(">HB", number, len(item.properties))
        owned += b"".join(pack(">H", which | must << 15) for which, must in item.properties)
    references = b"".join(
        framed(kind, pack(f">HH{len(to)}H", numbers[one], len(to), *(numbers[each] for each in to)))
        for kind, one, to in picture.references
    )
    count = len(picture.items)
    properties = framed(b"ipco", b"".join(picture.properties))
    parts = [
        framed(b"hdlr", bytes(4) + _HANDLER),
        framed(b"pitm", pack(">IH", 0, 1)),
        framed(b"iloc", pack(">IHH", 0, 0x4400, count) + located),
        framed(b"iinf", pack(">IH", 0, count) + b"".join(infos)),
        framed(b"iref", bytes(4) + references) if references else b"",
        framed(b"iprp", properties + framed(b"ipma", pack(">II", 1, count) + owned)),
    ]
    return framed(b"meta", bytes(4) + b"".join(parts))
