"""Whether photos are the same picture: what their heads say of it, and what proves it.

The same picture is the same content; or pixels that are equal when each photo is decoded as it is
shown: upright, in sRGB, on white where it is transparent, before it is shrunk or made a JPEG. A
picture that was saved with a loss differs. To decode every photo would take as long as preparing
it, so a head says which others a photo may be the same as (`Outline`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b

from PIL import Image

from enroll.model import Fault
from enroll.photos import jpeg
from enroll.photos.bounds import BUDGET
from enroll.photos.decision import RefusedError, Seen
from enroll.photos.decode import BrokenError
from enroll.photos.form import UPRIGHT, EndMissingError, Form
from enroll.photos.inspect import (
    BLOCK_BYTES,
    Source,
    form_of,
    inspect,
    inspect_head,
    walk_jpeg_head,
)
from enroll.photos.jpeg import EOI
from enroll.photos.prepare import use_shown
from enroll.photos.read import open_photo
from enroll.photos.store import OpenPhoto, PhotoStore, UnusableError
from enroll.settings import DEFAULT_PREPARATION, Preparation

_LOSSLESS = frozenset({Form.PNG, Form.BMP, Form.GIF, Form.TIFF, Form.WEBP})
"""Formats that can hold the decoded picture of any other."""

_SAMPLE_BYTES, _SCAN_HEAD_BYTES = 2048, 512
"""Of a JPEG's first scan, and the most of what is said before it: with a usual head they are within
the first block."""

_APP0, _HUFFMAN, _QUANTIZATION = 0xE0, 0xC4, 0xDB

_STANDARD_TABLES = (208, 416)
"""Bytes of the Huffman tables that nearly all programs share (ITU-T T.81, annex K.3), for grey and
for colours. Tables made for one picture have fewer, as they leave out what it does not use."""

_STRIP_PIXELS = 250_000
"""Pixels that are hashed at a time."""

_ANY_SIDE = 1 << 20
"""Longer than any picture that is decoded: nothing is shrunk."""

_MOST_LINES, _LINES_BESIDE = 256, 32
"""Lines of a picture's top, and those below it that are decoded as well: a decoder smooths colours
over the blocks of a JPEG, of up to 32 lines."""

_MOST_PIXEL_BYTES = 2
"""Of a JPEG's data; almost all have 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a photo's head says about which others may be the same, as hashes of 63 bits.

    Files of the same content have the same `content`. Photos of the same pixels have the same
    `size`, 0 where it is not known, whichever way up they are. JPEGs that differ only in metadata
    have the same `picture`. Of other JPEGs only those of the same `kin` (the same quantization) and
    another `coding` can have the same pixels: the same coefficients in the same coding are the
    same bytes. `kin` is 0 for formats without loss, whose pixels may be those of any photo.
    """

    content: int
    picture: int
    size: int = 0
    kin: int = 0
    coding: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """The SHA-256 (32 bytes) of a photo's content, and `same`: 32 bytes that photos share which
    were compared in the same way, if they are the same picture, and others never.

    `top` is what `read_top` gives; None where the photo was not decoded.
    """

    sha256: bytes
    same: bytes
    top: bytes | None = None


def outline(path: str, store: PhotoStore) -> Outline | Fault:
    """The outline of a photo, from some 8 kB of it; also of one that cannot be sent."""
    try:
        with open_photo(path, store) as photo:
            size, head = photo.times.size, photo.part(0, BLOCK_BYTES)
            tail = photo.part(max(size - BLOCK_BYTES, 0), BLOCK_BYTES)
            content = likeness(head, tail, size)
            try:
                return outlined(photo, head, inspect_head(photo, head), likeness=content)
            except RefusedError:  # its content may still be that of another
                return Outline(content=content, picture=content)
    except UnusableError as error:
        return error.unusable.fault


def likeness(head: bytes, tail: bytes, size: int) -> int:
    """64 bits (signed), the same for files of the same content, and almost never for others."""
    digest = blake2b(head + tail + size.to_bytes(8, "big"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def outlined(photo: OpenPhoto, head: bytes, seen: Seen, *, likeness: int) -> Outline:
    """The outline of a photo that is open, from its first block and what was seen in it."""
    if seen.size is None:
        return Outline(content=likeness, picture=likeness)
    size = min(seen.size) << 32 | max(seen.size)  # some say only at their end which way up they are
    found = Outline(content=likeness, picture=likeness, size=size, coding=likeness)
    if seen.form is Form.JPEG:
        return _outlined_jpeg(photo, head, found)
    return found if seen.form in _LOSSLESS else replace(found, kin=_hash(seen.form.encode()))


def _outlined_jpeg(photo: OpenPhoto, head: bytes, found: Outline) -> Outline:
    walked = walk_jpeg_head(photo, head)
    if walked is None:
        return found
    # What lies behind long metadata was not read, or not to its end.
    needed = walked.scan + _SCAN_HEAD_BYTES + _SAMPLE_BYTES
    if needed > len(head) and len(head) < photo.times.size:
        head = photo.part(0, needed)
    try:
        walked = jpeg.walk(head, whole=False)
    except EndMissingError:
        return found
    kept = walked.stripped.joined()
    scan = _after(kept, walked.scan - walked.stripped.dropped)
    parts = [(marker, body) for marker, body in _segments(kept, scan) if marker != _APP0]
    sample = kept[scan : scan + _SAMPLE_BYTES].partition(EOI)[0]
    turn = bytes([walked.orientation])
    quantization = b"".join(body for marker, body in parts if marker == _QUANTIZATION)
    frame = next(body for marker, body in parts if marker in jpeg.FRAMES)
    tables = sum(len(body) for marker, body in parts if marker == _HUFFMAN)
    rest = [part for part in parts if part[0] not in (_HUFFMAN, _QUANTIZATION)]
    return replace(
        found,
        picture=_hash(turn, *_joined(parts), sample),
        kin=_hash(turn, quantization, frame),
        coding=_hash(*_joined(rest), bytes([tables in _STANDARD_TABLES])),
    )


def _segments(kept: bytes, end: int) -> Iterator[tuple[int, bytes]]:
    """Marker and body of a JPEG's segments up to where its first scan begins."""
    at = 2
    while at < end:
        if kept[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        after = _after(kept, at)
        yield kept[at + 1], kept[at + 4 : after]
        at = after


def _after(kept: bytes, at: int) -> int:
    return at + 2 + int.from_bytes(kept[at + 2 : at + 4], "big")


def _joined(parts: list[tuple[int, bytes]]) -> Iterator[bytes]:
    return (bytes([marker]) + body for marker, body in parts)


def _hash(*parts: bytes) -> int:
    """63 bits, never 0."""
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return (int.from_bytes(digest.digest(), "big") >> 1) or 1


def read_picture(
    path: str,
    store: PhotoStore,
    preparation: Preparation = DEFAULT_PREPARATION,
    *,
    decodes: bool,
) -> Picture | Fault:
    """Read a photo whole, to prove which others are the same; with `decodes` by their pixels, else
    by their content, and JPEGs by their content without metadata.

    A photo that is truncated, damaged, or takes more memory to decode than `max_pixels` allows is
    not decoded. Whatever it is, raises only ShortageError.
    """
    try:
        with open_photo(path, store) as photo, BUDGET.files.room(photo.times.size):
            contents = [photo.content()]
            sha256 = hashlib.sha256(contents[0]).digest()
            same, top = _compared(contents, preparation, decodes=decodes)
            return Picture(sha256, same or sha256, top)
    except UnusableError as error:
        return error.unusable.fault


def read_top(
    path: str, store: PhotoStore, preparation: Preparation = DEFAULT_PREPARATION
) -> bytes | Fault | None:
    """The hash of a photo's size and of its first lines as they are shown, an eighth of them, by
    decoding no more than these; None where that cannot be done, as of a photo that is turned.

    Photos that differ here are not the same picture.
    """
    try:
        with open_photo(path, store) as photo:
            return _top_of(photo, preparation)
    except UnusableError as error:
        return error.unusable.fault
    except (RefusedError, EndMissingError, BrokenError):
        return None


def _top_of(photo: OpenPhoto, preparation: Preparation) -> bytes | None:
    head = photo.part(0, BLOCK_BYTES)
    if form_of(head) is not Form.JPEG or (walked := walk_jpeg_head(photo, head)) is None:
        return None
    width, height = walked.size
    lines = _top_lines(height) + _LINES_BESIDE
    if walked.coding not in jpeg.SEQUENTIAL or walked.orientation != UPRIGHT or lines >= height:
        return None
    with BUDGET.files.room(width * lines * _MOST_PIXEL_BYTES):
        head = photo.part(0, walked.scan + _SCAN_HEAD_BYTES + width * lines * _MOST_PIXEL_BYTES)
        content = _shortened(head, lines)
        use = partial(_hash_of_top, height=height)
        return use_shown(inspect(content), preparation, side=_ANY_SIDE, use=use)


def _shortened(head: bytes, lines: int) -> bytes:
    """A JPEG whose header says that it has only this many lines: its decoder reads no further."""
    walked = jpeg.walk(head, whole=False)
    kept = walked.stripped.joined()
    scan = _after(kept, walked.scan - walked.stripped.dropped)
    parts = [kept[:2]]
    for marker, body in _segments(kept, scan):
        if marker in jpeg.FRAMES:
            body = body[:1] + lines.to_bytes(2, "big") + body[3:]  # noqa: PLW2901
        parts += [bytes([0xFF, marker]), (len(body) + 2).to_bytes(2, "big"), body]
    return b"".join([*parts, kept[scan:].partition(EOI)[0], EOI])


def _compared(
    contents: list[bytes], preparation: Preparation, *, decodes: bool
) -> tuple[bytes | None, bytes | None]:
    """The hashes of what is compared, None for the file's content, and of its top. Takes the bytes
    from the list, so that no other reference keeps them."""
    same = top = None
    try:
        source = inspect(contents.pop())
        same = _coded(source)
        if decodes and not source.seen.truncated:
            same, top = use_shown(source, preparation, side=_ANY_SIDE, use=_hashes)
    except (RefusedError, BrokenError):
        pass
    return same, top


def _coded(source: Source) -> bytes | None:
    """Of a JPEG without metadata, and without what its first segment says of resolution."""
    if source.jpeg is None:
        return None
    content = memoryview(source.content)
    start = 2
    if source.content[2:4] == bytes([0xFF, _APP0]):
        start = _after(source.content, start)
    digest = hashlib.sha256(b"coded" + bytes([source.seen.orientation]))
    digest.update(content[start:])
    return digest.digest()


def _hashes(picture: Image.Image) -> tuple[bytes, bytes]:
    height = picture.height
    return _hash_of_lines(picture, height, height), _hash_of_top(picture, height=height)


def _hash_of_top(picture: Image.Image, *, height: int) -> bytes:
    return _hash_of_lines(picture, _top_lines(height), height)


def _top_lines(height: int) -> int:
    return min(max(height // 8, 8), _MOST_LINES, height)


def _hash_of_lines(picture: Image.Image, lines: int, height: int) -> bytes:
    """Of the first lines of a picture that has `height` of them."""
    digest = hashlib.sha256(f"pixels {picture.width} {height} {lines} ".encode())
    deep = max(_STRIP_PIXELS // picture.width, 1)
    for top in range(0, lines, deep):
        box = (0, top, picture.width, min(top + deep, lines))
        digest.update(picture.crop(box).convert("RGB").tobytes())
    return digest.digest()
