"""What the structure of a file other than JPEG or PNG says of its picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from struct import error, pack, unpack_from

from enroll.model import Fault
from enroll.photos import boxes, decision, form, tiff
from enroll.photos.boxes import Picture, framed
from enroll.photos.colour import LARGEST_PROFILE
from enroll.photos.decision import Seen
from enroll.photos.decode import Source
from enroll.photos.directory import EndMissingError, UnsupportedError
from enroll.photos.form import Form

_FILE_HEADER = 14

_OS2_HEADER, _USUAL_HEADER, _LONGEST_HEADER = 12, 40, 124

_USUAL_HEADERS = frozenset({_USUAL_HEADER, 108, _LONGEST_HEADER})
"""Windows' own, in the versions that programs write."""

_COMPRESSION_NONE = 0


@dataclass(frozen=True, slots=True)
class Bmp:
    """Size in pixels, bytes up to the end of the last line, whether all decoders show it alike."""

    size: tuple[int, int]
    length: int
    common: bool


def walk_bmp(head: bytes) -> Bmp | None:
    """What a BMP's header says; None where it is none. `length` is 0 where it is packed."""
    try:
        pixels, header = unpack_from("<II", head, 10)
        colours = 0
        if header == _OS2_HEADER:
            width, height, planes, bits = unpack_from("<HHHH", head, 18)
            packing = _COMPRESSION_NONE
        elif _USUAL_HEADER <= header <= _LONGEST_HEADER:
            width, height, planes, bits, packing = unpack_from("<iiHHI", head, 18)
            (colours,) = unpack_from("<I", head, 46)
        else:
            return None
    except error:
        return None
    if width <= 0 or not height or planes != 1 or bits not in (1, 4, 8, 16, 24, 32):
        return None
    stride = (width * bits + 31) // 32 * 4
    plain = packing == _COMPRESSION_NONE
    length = pixels + stride * abs(height) if plain else 0
    # 32 bits may or may not hold alpha, and 16 bits are read in two ways.
    common = plain and header in _USUAL_HEADERS and bits in (1, 4, 8, 24)
    if bits <= 8:  # fewer colours than pixels can name: decoders differ on the others
        common &= colours in (0, 1 << bits)
        begin = _FILE_HEADER + header + (4 << bits)
    else:
        common &= colours <= 256
        begin = _FILE_HEADER + header + 4 * colours
    return Bmp((width, abs(height)), length, common=common and pixels >= begin)


MOST_BLOCKS = 100_000
"""Blocks of up to 255 bytes before the picture: 25 MB of comments. Each is a step of Python's."""

_EXTENSION, _PICTURE, _TRAILER = 0x21, 0x2C, 0x3B
_CONTROL = 0xF9
"""The extension that says which colour is transparent."""


class NotAGifError(Exception):
    """There is no picture in it, or too much before it."""


@dataclass(frozen=True, slots=True)
class Gif:
    """The size of the canvas with its first picture, and where the parts begin and end that show
    it."""

    size: tuple[int, int]
    parts: tuple[tuple[int, int], ...] = field(repr=False)

    def alone(self, content: bytes) -> bytes:
        """A file without what precedes its first picture."""
        return b"".join(memoryview(content)[at:end] for at, end in self.parts)


def walk_gif(content: bytes) -> Gif:
    """Go through the blocks up to the first picture. Raises EndMissingError and NotAGifError."""
    try:
        return _walked(content)
    except (error, IndexError) as why:
        raise EndMissingError from why


def canvas_of(head: bytes) -> tuple[int, int]:
    """The size by the file's first bytes, of which a picture may be larger."""
    width, height = unpack_from("<HH", head, 6)
    return width, height


def _walked(content: bytes) -> Gif:
    width, height, flags = unpack_from("<HHB", content, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    parts = [(0, at)]
    control: tuple[int, int] | None = None
    label, begin = None, at
    for _ in range(MOST_BLOCKS):
        if label is not None:  # within an extension
            length = content[at]
            at += 1 + length
            if not length:
                control = (begin, at) if label == _CONTROL else control
                label = None
        elif content[at] == _EXTENSION:
            label, begin, at = content[at + 1], at, at + 2
        elif content[at] == _PICTURE:
            left, top, wide, high = unpack_from("<HHHH", content, at + 1)
            parts += [control] if control is not None else []
            size = max(width, left + wide), max(height, top + high)
            return Gif(size, (*parts, (at, len(content))))
        elif content[at] == _TRAILER:
            raise NotAGifError("there is no picture in it")
        else:
            at += 1  # decoders skip what is no block
    raise NotAGifError(f"there are more than {MOST_BLOCKS:,} blocks before its picture")


MOST_CHUNKS = 10_000
"""A picture has up to six, an animation as many as it has pictures."""

_ICC, _ALPHA, _EXIF, _ANIMATION = 0x20, 0x10, 0x08, 0x02
"""Flags of `VP8X`. That of metadata goes with it."""

_STILL = (b"VP8 ", b"VP8L")
_FRAME = b"ANMF"

Chunk = tuple[bytes, int, int]
"""Its kind, and where its content begins and ends."""


class NotAWebpError(Exception):
    """The chunks make no sense, or there are too many of them."""


@dataclass(frozen=True, slots=True)
class Webp:
    """`missing` are the bytes that the file should have beyond those that it has."""

    size: tuple[int, int] | None
    orientation: int
    missing: int
    chunks: tuple[Chunk, ...] = field(repr=False)

    def alone(self, content: bytes) -> bytes:
        """A file of the picture, or of an animation's first, without metadata."""
        kinds = {kind for kind, _, _ in self.chunks}
        pieces: list[bytes | memoryview] = []
        for kind, at, end in self.chunks:
            piece: bytes | memoryview = memoryview(content)[at:end]
            if kind == b"VP8X" and end > at:
                kept = _ALPHA | _ANIMATION | (_ICC if b"ICCP" in kinds else 0)
                piece = bytes([content[at] & kept]) + content[at + 1 : end]
            pieces += [kind, pack("<I", end - at), piece, bytes((end - at) % 2)]
        length = 4 + sum(len(piece) for piece in pieces)
        return b"".join([b"RIFF", pack("<I", length), b"WEBP", *pieces])


def walk_webp(content: bytes) -> Webp:
    """Go through the chunks. Raises NotAWebpError."""
    end = 8 + int.from_bytes(content[4:8], "little")
    missing = max(end - len(content), 0)
    kept: dict[bytes, Chunk] = {}
    # Decoders look at the first EXIF, and at none where the flags do not say that there is one.
    looks = content[12:16] == b"VP8X" and len(content) > 20 and content[20] & _EXIF > 0
    orientation = form.UPRIGHT
    for kind, at, after in _chunks(content, min(end, len(content))):
        if kind == b"EXIF":
            if looks:
                blob = memoryview(content)[at:after]
                prefix = 6 if bytes(blob[:6]) == b"Exif\0\0" else 0
                orientation, looks = form.orientation(blob[prefix:]), False
        elif kind in (*_STILL, _FRAME, b"VP8X", b"ALPH", b"ANIM") or (
            kind == b"ICCP" and after - at <= LARGEST_PROFILE
        ):
            kept.setdefault(kind, (kind, at, after))
    return Webp(size_of(content[:64]), orientation, missing, tuple(kept.values()))


def _chunks(content: bytes, end: int) -> Iterator[Chunk]:
    at = 12
    for _ in range(MOST_CHUNKS):
        if at + 8 > end:
            return
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        yield content[at : at + 4], at + 8, min(at + 8 + length, end)
        at += 8 + length + length % 2
    raise NotAWebpError(f"it has more than {MOST_CHUNKS:,} chunks")


def size_of(head: bytes) -> tuple[int, int] | None:
    """Width and height by the first 64 bytes; None where they do not say."""
    kind = head[12:16]
    try:
        if kind == b"VP8X":
            return (
                1 + int.from_bytes(head[24:27], "little"),
                1 + int.from_bytes(head[27:30], "little"),
            )
        if kind == b"VP8L":
            (bits,) = unpack_from("<I", head, 21)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        width, height = unpack_from("<HH", head, 26)
    except error:
        return None
    return width & 0x3FFF, height & 0x3FFF


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


def _tiff(content: bytes) -> Source | Fault:
    try:
        found = tiff.walk(lambda at, length: content[at : at + length], len(content))
    except EndMissingError:
        return decision.ONLY_A_STUB
    except UnsupportedError as error:
        return decision.foreign(f"a {error}")
    missing = max(found.end - len(content), 0)
    seen = Seen(
        form=Form.TIFF,
        size=found.size,
        length=len(content),
        orientation=found.orientation,
        truncated=missing > 0,
    )
    return Source(content=found.alone(content), seen=seen, missing_bytes=missing)


def _bmp(content: bytes) -> Source | Fault:
    found = walk_bmp(content)
    if found is None:
        return decision.NO_IMAGE
    missing = found.length - len(content)
    behind = found.length > 0 and missing < 0
    stripped = content[: found.length] if behind else content
    seen = Seen(
        form=Form.BMP,
        size=found.size,
        length=len(stripped),
        common=found.common,
        cut=behind,
        truncated=missing > 0,
    )
    return Source(content=stripped, seen=seen, missing_bytes=max(missing, 0))


def _gif(content: bytes) -> Source | Fault:
    try:
        found = walk_gif(content)
    except EndMissingError:
        return decision.ONLY_A_STUB
    except NotAGifError as error:
        return decision.damaged(str(error))
    seen = Seen(form=Form.GIF, size=found.size, length=len(content))
    return Source(content=found.alone(content), seen=seen)


def _webp(content: bytes) -> Source | Fault:
    try:
        found = walk_webp(content)
    except NotAWebpError as error:
        return decision.damaged(str(error))
    seen = Seen(
        form=Form.WEBP,
        # Its decoder takes memory for the whole picture as soon as it is opened.
        size=found.size,
        length=len(content),
        orientation=found.orientation,
        truncated=found.missing > 0,
    )
    return Source(content=found.alone(content), seen=seen, missing_bytes=found.missing)


def _avif(content: bytes) -> Source | Fault:
    try:
        found = boxes.walk(content)
    except boxes.EndMissingError:
        return _without_table(content, Form.AVIF)
    except boxes.NotBoxesError:
        return decision.foreign("an AVIF of a rare kind")
    source = _of_boxes(content, Form.AVIF, found)
    if source.seen.truncated:  # its decoder gives nothing
        return source
    return replace(source, content=alone_of(found, content), crop=found.crop)


def _heif(content: bytes) -> Source | Fault:
    try:
        found = boxes.walk(content)
    except boxes.EndMissingError:
        return _without_table(content, Form.HEIF)
    except boxes.NotBoxesError:  # libheif may know more
        return Source(content=content, seen=Seen(form=Form.HEIF, size=None, length=len(content)))
    return _of_boxes(found.without_metadata(content), Form.HEIF, found)


def _of_boxes(content: bytes, form: Form, found: boxes.Picture) -> Source:
    missing = max(found.end - len(content), 0)
    # The decoder knows better which size that is, as it turns and crops.
    seen = Seen(form=form, size=None, length=len(content), truncated=missing > 0)
    return Source(content=content, seen=seen, missing_bytes=missing)


def _without_table(content: bytes, form: Form) -> Source:
    seen = Seen(form=form, size=None, length=len(content), truncated=True)
    return Source(content=content, seen=seen)


INSPECTORS: Mapping[Form, Callable[[bytes], Source | Fault]] = {
    Form.TIFF: _tiff,
    Form.BMP: _bmp,
    Form.GIF: _gif,
    Form.WEBP: _webp,
    Form.AVIF: _avif,
    Form.HEIF: _heif,
}
