"""WebP: what its chunks tell without decoding, and what is left of it without its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import error, pack, unpack_from

from enroll.photos import exif
from enroll.photos.colour import LARGEST_PROFILE

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


def walk(content: bytes) -> Webp:
    """Go through the chunks. Raises NotAWebpError."""
    end = 8 + int.from_bytes(content[4:8], "little")
    missing = max(end - len(content), 0)
    kept: dict[bytes, Chunk] = {}
    # Decoders look at the first EXIF, and at none where the flags do not say that there is one.
    looks = content[12:16] == b"VP8X" and len(content) > 20 and content[20] & _EXIF > 0
    orientation = exif.UPRIGHT
    for kind, at, after in _chunks(content, min(end, len(content))):
        if kind == b"EXIF":
            if looks:
                blob = memoryview(content)[at:after]
                prefix = 6 if bytes(blob[:6]) == b"Exif\0\0" else 0
                orientation, looks = exif.orientation(blob[prefix:]), False
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
    """Width and height by the first 64 bytes; None where they do not tell."""
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
