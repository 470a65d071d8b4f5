"""What a file's structure says of its picture without decoding it: of all of it, or of its head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from struct import error, pack, unpack_from

from enroll.photos import boxes, decision, form, jpeg, png, tiff
from enroll.photos.decision import RefusedError, Seen
from enroll.photos.form import EndMissingError, Form
from enroll.photos.jpeg import Jpeg
from enroll.photos.picture import LARGEST_PROFILE
from enroll.photos.png import Png
from enroll.photos.store import OpenPhoto

BLOCK_BYTES = 4096
"""Bytes read at either end of a file, and where a JPEG continues: a block of most file systems."""

_MOST_BLOCKS = 64
"""Blocks that are read to find a JPEG's size behind its metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A photo without its metadata, and what was seen of it.

    `missing_bytes` of a truncated photo is 0 where that is not known; a truncated JPEG has no end.
    `crop` (left, top, right, bottom) is what is shown of it when it is decoded, before it is
    turned.
    """

    content: bytes = field(repr=False)
    seen: Seen
    missing_bytes: int = 0
    jpeg: Jpeg | None = None
    crop: boxes.Crop | None = None


def inspect(content: bytes) -> Source:
    """What a whole file holds. Raises RefusedError."""
    form = form_of(content)
    try:
        return _INSPECTORS[form](content)
    except EndMissingError:
        raise RefusedError(decision.ONLY_A_STUB) from None


def inspect_head(photo: OpenPhoto, head: bytes) -> Seen:
    """What a file's first BLOCK_BYTES say of it, and a few more where they do not suffice; it may
    be worse. Raises RefusedError."""
    size, form = photo.times.size, form_of(head)
    try:
        match form:
            case Form.JPEG:
                seen = _head_of_jpeg(photo, head)
            case Form.PNG:
                found = png.walk(head, whole=False)
                length = max(size - found.stripped.dropped, 0)
                seen = _seen(found, form, length=length, truncated=False)
            case Form.BMP:
                # What follows the picture is only found when all of it is read.
                seen = replace(_bmp_seen(walk_bmp(head), size), cut=False, length=size)
            case Form.TIFF:
                seen = _tiff_seen(tiff.walk(photo.part, size), size)
            case Form.GIF:
                seen = Seen(form=form, size=_size_of_gif(head, size), length=size)
            case Form.WEBP:
                missing = 8 + int.from_bytes(head[4:8], "little") > size
                seen = Seen(form=form, size=size_of(head[:64]), length=size, truncated=missing)
            case Form.AVIF | Form.HEIF:
                seen = Seen(form=form, size=boxes.largest_size(head), length=size)
    except EndMissingError:
        raise RefusedError(decision.ONLY_A_STUB) from None
    return seen


def form_of(content: bytes) -> Form:
    """The format of a file by its first bytes. Raises RefusedError for all that is not sent or
    converted."""
    if not content:
        raise RefusedError(decision.EMPTY)
    found = form.form_of(content[:64])
    if found is None:
        name = form.name_of_foreign(content[: form.HEAD_BYTES])
        raise RefusedError(decision.NO_IMAGE if name is None else decision.foreign(name))
    return found


def _seen(found: Jpeg | Png, form: Form, *, length: int, truncated: bool) -> Seen:
    if not found.width:
        raise EndMissingError
    return Seen(
        form=form,
        size=found.size,
        length=length,
        common=found.common,
        orientation=found.orientation,
        cut=found.stripped.changed,
        truncated=truncated,
    )


def _jpeg(content: bytes) -> Source:
    found = jpeg.walk(content)
    if found.end is None and not found.scans:
        raise EndMissingError
    stripped, lost = found.stripped.joined(), jpeg.truncated_at(content, found)
    if lost is not None:
        end = len(content) if found.end is None else found.end
        stripped = stripped[: lost - end]
    truncated = found.end is None or lost is not None
    seen = _seen(found, Form.JPEG, length=len(stripped), truncated=truncated)
    return Source(content=stripped, seen=seen, jpeg=found)


def _head_of_jpeg(photo: OpenPhoto, head: bytes) -> Seen:
    size, found = photo.times.size, walk_jpeg_head(photo, head)
    if found is None:
        return Seen(form=Form.JPEG, size=None, length=size, common=True, cut=True)
    return _seen(found, Form.JPEG, length=size - found.stripped.dropped, truncated=False)


def walk_jpeg_head(photo: OpenPhoto, head: bytes) -> Jpeg | None:
    """What a JPEG's markers say up to its first scan, with no more read than that takes; None where
    there is too much before it. Raises EndMissingError and RefusedError."""
    known = head
    for _ in range(_MOST_BLOCKS):
        try:
            return jpeg.walk(known, whole=False)
        except EndMissingError as error:
            block = photo.part(error.at, BLOCK_BYTES)
            if not block or error.at >= photo.times.size or len(known) >= error.at + len(block):
                raise
            between = bytes(max(error.at - len(known), 0))  # not looked at
            known = (known + between)[: error.at] + block
    return None


def _png(content: bytes) -> Source:
    found = png.walk(content)
    stripped = found.stripped.joined()
    seen = _seen(found, Form.PNG, length=len(stripped), truncated=not found.whole)
    return Source(content=stripped, seen=seen)


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


def walk_bmp(head: bytes) -> Bmp:
    """What a BMP's header says. `length` is 0 where it is packed. Raises RefusedError."""
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
            raise RefusedError(decision.NO_IMAGE)
    except error:
        raise RefusedError(decision.NO_IMAGE) from None
    if width <= 0 or not height or planes != 1 or bits not in (1, 4, 8, 16, 24, 32):
        raise RefusedError(decision.NO_IMAGE)
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


def _bmp(content: bytes) -> Source:
    found = walk_bmp(content)
    missing = max(found.length - len(content), 0)
    seen = _bmp_seen(found, len(content))
    return Source(content=content[: seen.length], seen=seen, missing_bytes=missing)


def _bmp_seen(found: Bmp, size: int) -> Seen:
    behind = 0 < found.length < size
    return Seen(
        form=Form.BMP,
        size=found.size,
        length=found.length if behind else size,
        common=found.common,
        cut=behind,
        truncated=found.length > size,
    )


MOST_BLOCKS = 100_000
"""Blocks of up to 255 bytes before the picture: 25 MB of comments. Each is a step of Python's."""

_EXTENSION, _PICTURE, _TRAILER = 0x21, 0x2C, 0x3B
_CONTROL = 0xF9
"""The extension that says which colour is transparent."""


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
    """Go through the blocks up to the first picture. Raises EndMissingError and RefusedError."""
    try:
        return _walked(content)
    except (error, IndexError) as why:
        raise EndMissingError from why


def _gif(content: bytes) -> Source:
    found = walk_gif(content)
    seen = Seen(form=Form.GIF, size=found.size, length=len(content))
    return Source(content=found.alone(content), seen=seen)


def _size_of_gif(head: bytes, length: int) -> tuple[int, int]:
    """Of the canvas where its first picture, which may be larger, is behind the head."""
    try:
        return walk_gif(head).size
    except EndMissingError:
        if length <= len(head):
            raise
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
            raise RefusedError(decision.damaged("there is no picture in it"))
        else:
            at += 1  # decoders skip what is no block
    raise RefusedError(
        decision.damaged(f"there are more than {MOST_BLOCKS:,} blocks before its picture")
    )


MOST_CHUNKS = 10_000
"""A picture has up to six, an animation as many as it has pictures."""

_ICC, _ALPHA, _EXIF, _ANIMATION = 0x20, 0x10, 0x08, 0x02
"""Flags of `VP8X`. That of metadata goes with it."""

_STILL = (b"VP8 ", b"VP8L")
_FRAME = b"ANMF"

Chunk = tuple[bytes, int, int]
"""Its kind, and where its content begins and ends."""


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
    """Go through the chunks. Raises RefusedError."""
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
    raise RefusedError(decision.damaged(f"it has more than {MOST_CHUNKS:,} chunks"))


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


def _webp(content: bytes) -> Source:
    found = walk_webp(content)
    seen = Seen(
        form=Form.WEBP,
        # Its decoder takes memory for the whole picture as soon as it is opened.
        size=found.size,
        length=len(content),
        orientation=found.orientation,
        truncated=found.missing > 0,
    )
    return Source(content=found.alone(content), seen=seen, missing_bytes=found.missing)


def _tiff(content: bytes) -> Source:
    found = tiff.walk(lambda at, length: content[at : at + length], len(content))
    missing = max(found.end - len(content), 0)
    seen = _tiff_seen(found, len(content))
    return Source(content=found.alone(content), seen=seen, missing_bytes=missing)


def _tiff_seen(found: tiff.Tiff, length: int) -> Seen:
    return Seen(
        form=Form.TIFF,
        size=found.size,
        length=length,
        orientation=found.orientation,
        truncated=found.end > length,
    )


def _avif(content: bytes) -> Source:
    try:
        found = boxes.walk(content)
    except EndMissingError:
        return _of_boxes(content, Form.AVIF, truncated=True)
    except boxes.NotBoxesError:
        raise RefusedError(decision.foreign("an AVIF of a rare kind")) from None
    missing = max(found.end - len(content), 0)
    if missing:  # its decoder gives nothing
        return _of_boxes(content, Form.AVIF, truncated=True, missing=missing)
    source = _of_boxes(content, Form.AVIF)
    return replace(source, content=boxes.alone_of(found, content), crop=found.crop)


def _heif(content: bytes) -> Source:
    try:
        found = boxes.walk(content)
    except EndMissingError:
        return _of_boxes(content, Form.HEIF, truncated=True)
    except boxes.NotBoxesError:  # libheif may know more
        return _of_boxes(content, Form.HEIF)
    content = found.without_metadata(content)
    missing = max(found.end - len(content), 0)
    return _of_boxes(content, Form.HEIF, truncated=missing > 0, missing=missing)


def _of_boxes(content: bytes, form: Form, *, truncated: bool = False, missing: int = 0) -> Source:
    # The decoder knows better which size that is, as it turns and crops.
    seen = Seen(form=form, size=None, length=len(content), truncated=truncated)
    return Source(content=content, seen=seen, missing_bytes=missing)


_INSPECTORS: Mapping[Form, Callable[[bytes], Source]] = {
    Form.JPEG: _jpeg,
    Form.PNG: _png,
    Form.BMP: _bmp,
    Form.GIF: _gif,
    Form.WEBP: _webp,
    Form.TIFF: _tiff,
    Form.AVIF: _avif,
    Form.HEIF: _heif,
}
