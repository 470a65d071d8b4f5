"""PNG: what its chunks tell without decoding, and what is left of it without its metadata."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from struct import error, unpack_from

from enroll.photo import exif
from enroll.photo.remains import Remains

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MOST_CHUNKS = 50_000
"""Programs write chunks of 8 kB and more: enough for four times the largest file that is read."""

_SHOWN = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"} | {b"sRGB", b"gAMA", b"cHRM", b"iCCP", b"cICP"}
)
"""Chunks that decide what the picture looks like. Those of an animation's further pictures are not
among them: what stays is the picture that every viewer shows."""

LARGEST_PROFILE = 1024 * 1024
"""Bytes, unpacked. Pillow refuses a PNG with a larger one; those of screens have some thousand."""

_LONGEST_NAME = 79
"""Bytes of a profile's name, by the standard."""

_GREY, _COLOUR, _PALETTE = 0, 2, 3
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _COLOUR: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    4: (8, 16),
    6: (8, 16),
}
"""The bits of a sample that each type of colour may have; 4 and 6 have an alpha channel."""


class NotAPngError(Exception):
    """The chunks make no sense."""


@dataclass(slots=True)
class Png:
    """What the chunks say, and what remains without metadata.

    `whole` says that the last chunk is there; `transparent` that there is alpha of some kind.
    """

    remains: Remains
    width: int = 0
    height: int = 0
    depth: int = 0
    colour: int = 0
    transparent: bool = False
    orientation: int = exif.UPRIGHT
    whole: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as the file has them."""
        return self.width, self.height

    @property
    def common(self) -> bool:
        """Whether it looks the same wherever it is decoded: no alpha, no 16 bits."""
        return self.depth <= 8 and not self.transparent


def walk(content: bytes, *, whole: bool = True) -> Png:
    """Go through the chunks and check their sums; `whole=False` stops where the picture begins.

    Where the end is missing, what there is of the last chunk is kept. Raises NotAPngError.
    """
    png, at = Png(Remains(content)), len(SIGNATURE)
    _note_header(png, content)
    for _ in range(MOST_CHUNKS):
        length = int.from_bytes(content[at : at + 4], "big")
        kind, after = content[at + 4 : at + 8], at + 12 + length
        if at + 12 > len(content) or (whole and after > len(content)):
            return png
        if whole:
            _check_sum(content, at, after)
        elif kind == b"IDAT":
            return png
        payload = memoryview(content)[at + 8 : after - 4]
        _note(png, kind, payload)
        # Of a glance's head the last chunk may not be whole.
        broken = kind == b"iCCP" and len(payload) == length and not _is_readable(payload)
        if broken or kind not in _SHOWN:
            png.remains.leave_out(at, after)
        at = after
        if kind == b"IEND":
            png.whole = True
            png.remains.end(at)
            return png
    raise NotAPngError(f"it has more than {MOST_CHUNKS:,} chunks")


def _check_sum(content: bytes, at: int, after: int) -> None:
    found = zlib.crc32(memoryview(content)[at + 4 : after - 4])
    if found != int.from_bytes(content[after - 4 : after], "big"):
        raise NotAPngError(f"its chunk at byte {at:,} has another sum than it says")


def _note_header(png: Png, content: bytes) -> None:
    try:
        length, kind, png.width, png.height, png.depth, png.colour, *_ = unpack_from(
            ">I4sIIBBBBB", content, len(SIGNATURE)
        )
    except error:
        return  # cut off: not whole, and no size
    if kind != b"IHDR" or length != 13 or not (png.width and png.height):
        raise NotAPngError("it does not say its size")
    if png.depth not in _DEPTHS.get(png.colour, ()):
        raise NotAPngError("its colours are of no kind that there is")
    png.transparent = png.colour not in (_GREY, _COLOUR, _PALETTE)


def _note(png: Png, kind: bytes, payload: memoryview) -> None:
    if kind == b"tRNS":
        png.transparent = True
    elif kind == b"eXIf":
        png.orientation = exif.orientation(payload)


def _is_readable(profile: memoryview) -> bool:
    """Whether a colour profile can be unpacked. Decoders may refuse a picture for one that cannot;
    viewers do without it."""
    name = bytes(profile[: _LONGEST_NAME + 1]).find(b"\0")
    if name < 1 or bytes(profile[name + 1 : name + 2]) != b"\0":
        return False
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(profile[name + 2 :], LARGEST_PROFILE)
    except zlib.error:
        return False
    return unpacking.eof and len(unpacked) > 0
