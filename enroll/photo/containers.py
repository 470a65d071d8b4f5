"""What the other formats' outer structure tells without decoding: sizes, and whether the end is
there."""

from __future__ import annotations

from dataclasses import dataclass
from struct import error, unpack_from

from enroll.photo.form import Form

_MOST_BOXES = 10_000


@dataclass(frozen=True, slots=True)
class Bmp:
    """Size in pixels, bytes up to the end of the last line, whether all decoders show it alike."""

    size: tuple[int, int]
    length: int
    common: bool


def bmp(content: bytes) -> Bmp | None:
    """What a BMP's header says; None where it is none. `length` is 0 where it is packed."""
    try:
        (pixels,) = unpack_from("<I", content, 10)
        (header,) = unpack_from("<I", content, 14)
        if header == 12:
            width, height, planes, bits = unpack_from("<HHHH", content, 18)
            packing = 0
        elif 40 <= header <= 124:
            width, height, planes, bits, packing = unpack_from("<iiHHI", content, 18)
        else:
            return None
    except error:
        return None
    if width <= 0 or not height or planes != 1 or bits not in (1, 4, 8, 16, 24, 32):
        return None
    stride = (width * bits + 31) // 32 * 4
    plain = packing == 0
    length = pixels + stride * abs(height) if plain else 0
    # 32 bits may or may not hold alpha, and 16 bits are read in two ways.
    return Bmp((width, abs(height)), length, common=plain and bits in (1, 4, 8, 24))


def bytes_missing(content: bytes, form: Form) -> int | None:
    """Bytes that a file should have beyond those that it has, as far as its frame tells; None: it
    should have more, and nobody can tell how many."""
    if form is Form.WEBP:
        return max(8 + int.from_bytes(content[4:8], "little") - len(content), 0)
    if form in (Form.AVIF, Form.HEIF):
        return _of_boxes(content)
    return 0


def _of_boxes(content: bytes) -> int | None:
    """The same for a file of boxes, of which each says its length, and the pictures' is the last
    that matters."""
    at, kind = 0, b""
    for _ in range(_MOST_BOXES):
        if at + 8 > len(content):
            break
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        if length == 1:
            length = int.from_bytes(content[at + 8 : at + 16], "big")
        if length < 8:  # 0: up to the end of the file
            return 0
        at += length
    missing = max(at - len(content), 0)
    return missing if kind == b"mdat" or not missing else None


def head_size(head: bytes, form: Form) -> tuple[int, int] | None:
    """Width and height of a WebP, AVIF or HEIC by its first bytes; None where they do not tell."""
    if form is Form.WEBP:
        return _webp_size(head)
    largest = None
    at = head.find(b"ispe")
    while at >= 0 and at + 16 <= len(head):  # one of each picture and tile: the largest is it
        width, height = unpack_from(">II", head, at + 8)
        largest = max(largest or (0, 0), (width, height), key=lambda size: size[0] * size[1])
        at = head.find(b"ispe", at + 4)
    return largest


def _webp_size(head: bytes) -> tuple[int, int] | None:
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
