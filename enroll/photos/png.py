"""PNG: what its chunks say without decoding, and what is left of it without its metadata."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from struct import error, unpack_from

from enroll.photos import decision, form
from enroll.photos.decision import RefusedError
from enroll.photos.strip import Stripped

END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk, which is the same in every PNG."""

MOST_CHUNKS = 50_000
"""Programs write chunks of 8 kB and more: enough for four times the largest file that is read."""

_SHOWN = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"} | {b"sRGB", b"gAMA", b"cHRM", b"iCCP", b"cICP"}
)
"""Chunks that decide what the picture looks like. Those of an animation's further pictures are not
among them: what stays is the picture that every viewer shows."""

LARGEST_PROFILE = 1024 * 1024
"""Bytes, unpacked. Pillow refuses a PNG with a larger one; those of screens have some thousand."""

MOST_UNPACKED = 1 << 30
"""Bytes that are unpacked to see whether a picture is all there: more than one can have whose
pixels are few enough by default."""

_PIECE, _BLOCK = 1 << 16, 1 << 20
"""Bytes that are unpacked at a time, and that may come of them."""

_LENGTHS = {b"sRGB": 1, b"gAMA": 4, b"cHRM": 32, b"cICP": 4}
"""Bytes in chunks that are kept. Decoders skip one of another length, or refuse the picture."""

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
_CHANNELS = {_GREY: 1, _COLOUR: 3, _PALETTE: 1, 4: 2, 6: 4}
_TRANSPARENT_LENGTHS = {_GREY: (2,), _COLOUR: (6,), _PALETTE: range(1, 257)}

_AT_ONCE = ((0, 0, 1, 1),)
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8)),
    *((2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""Of each pass its first column and line, and how many further the next ones are."""


@dataclass(slots=True)
class Png:
    """What the chunks say, and the file without metadata.

    `whole` says that all of the picture is there, `transparent` that there is alpha of some kind;
    `data` is where the picture's own data begin and end, piece by piece.
    """

    stripped: Stripped
    width: int = 0
    height: int = 0
    depth: int = 0
    colour: int = 0
    interlaced: bool = False
    transparent: bool = False
    orientation: int = form.UPRIGHT
    has_exif: bool = False
    has_profile: bool = False
    data: list[tuple[int, int]] = field(default_factory=list)
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

    What decoders skip when it is damaged is left out. Where the end is missing, what there is of
    the last chunk is kept. Raises RefusedError.
    """
    png, at, doubtful = Png(Stripped(content)), len(form.PNG_SIGNATURE), None
    _note_header(png, content)
    for _ in range(MOST_CHUNKS):
        length = int.from_bytes(content[at : at + 4], "big")
        kind, after = content[at + 4 : at + 8], at + 12 + length
        if at + 12 > len(content) or (whole and after > len(content)):
            break
        if not whole and kind == b"IDAT":
            return png
        if kind == b"IEND" and whole:
            return _ended(png, content, at, doubtful=doubtful)
        if whole and not _has_its_sum(content, at, after):
            if not kind.isalpha():
                break
            if kind[:1].isupper():  # a decoder cannot do without it
                raise _wrong_sum(at)
            png.stripped.cut_out(at, after)
            if png.data and doubtful is None:
                doubtful = at  # it may be some of the picture, and only its name be damaged
        else:
            _note(png, content, at, after)
        at = after
    else:
        raise RefusedError(decision.damaged(f"it has more than {MOST_CHUNKS:,} chunks"))
    return _broken_off(png, content, at) if whole else png


def _ended(png: Png, content: bytes, at: int, *, doubtful: int | None) -> Png:
    """The last chunk is at `at`; one with a wrong checksum was cut out at `doubtful`."""
    if not png.data:
        raise RefusedError(decision.damaged("there is no picture in it"))
    if doubtful is not None and not _is_complete(png, content):
        raise _wrong_sum(doubtful)
    png.whole = True
    after = at + len(END)
    if content[at:after] == END:
        png.stripped.cut_from(after)
    else:
        png.stripped.cut_out(at, len(content), instead=END)
    return png


def _broken_off(png: Png, content: bytes, at: int) -> Png:
    """There is no chunk at `at`. Behind all of the picture decoders do not mind; but where the last
    chunk is not there, the file was cut off."""
    ended = bool(png.data) and content.find(END, png.data[-1][1]) >= 0
    if ended and _is_complete(png, content):
        png.whole = True
        png.stripped.cut_out(at, len(content), instead=END)
    elif at + 12 + int.from_bytes(content[at : at + 4], "big") <= len(content):
        raise _wrong_sum(at)
    return png


def _is_complete(png: Png, content: bytes) -> bool:
    """Whether the picture's data are all there, by unpacking them."""
    left = _unpacked_bytes(png)
    if not png.data or left > MOST_UNPACKED:
        return False
    unpacking = zlib.decompressobj()
    for start, end in png.data:
        for at in range(start, end, _PIECE):
            piece = content[at : min(at + _PIECE, end)]
            while piece and left > 0:
                try:
                    left -= len(unpacking.decompress(piece, _BLOCK))
                except zlib.error:
                    return False
                piece = unpacking.unconsumed_tail
    return left <= 0


def _unpacked_bytes(png: Png) -> int:
    """Bytes of all lines, each with one for its filter."""
    total = 0
    for column, line, right, down in _ADAM7 if png.interlaced else _AT_ONCE:
        width, height = -((column - png.width) // right), -((line - png.height) // down)
        if width > 0:
            total += height * (1 + -(-width * png.depth * _CHANNELS[png.colour] // 8))
    return total


def _has_its_sum(content: bytes, at: int, after: int) -> bool:
    found = zlib.crc32(memoryview(content)[at + 4 : after - 4])
    return found == int.from_bytes(content[after - 4 : after], "big")


def _wrong_sum(at: int) -> RefusedError:
    return RefusedError(decision.damaged(f"its chunk at byte {at:,} has another sum than it says"))


def _note_header(png: Png, content: bytes) -> None:
    try:
        length, kind, png.width, png.height, png.depth, png.colour, *_, passes = unpack_from(
            ">I4sIIBBBBB", content, len(form.PNG_SIGNATURE)
        )
    except error:
        return  # cut off: not whole, and no size
    if kind != b"IHDR" or length != 13 or not (png.width and png.height):
        raise RefusedError(decision.damaged("it does not say its size"))
    if png.depth not in _DEPTHS.get(png.colour, ()):
        raise RefusedError(decision.damaged("its colours are of no kind that there is"))
    png.transparent = png.colour not in (_GREY, _COLOUR, _PALETTE)
    png.interlaced = bool(passes)


def _note(png: Png, content: bytes, at: int, after: int) -> None:
    """Note what a chunk says, and cut it out if decoders do not need it, or skip it."""
    kind = content[at + 4 : at + 8]
    payload = memoryview(content)[at + 8 : after - 4]
    if kind == b"IDAT":
        png.data.append((at + 8, after - 4))
    elif kind == b"eXIf" and not png.has_exif:
        png.has_exif = True
        png.orientation = form.orientation(payload)
    # Of a glance's head the last chunk may not be whole.
    broken = after <= len(content) and not _is_sound(png, kind, payload)
    png.has_profile |= kind == b"iCCP"
    if broken or kind not in _SHOWN:
        png.stripped.cut_out(at, after)
    elif kind == b"tRNS":
        png.transparent = True


def _is_sound(png: Png, kind: bytes, payload: memoryview) -> bool:
    """Whether decoders can make something of a chunk; of others than a few that is not asked."""
    if kind == b"iCCP":
        # The first counts; a file has room for 50,000 that unpack to 1 MB each.
        return not png.has_profile and _is_readable(payload)
    if kind == b"tRNS":
        return len(payload) in _TRANSPARENT_LENGTHS.get(png.colour, ())
    return len(payload) == _LENGTHS.get(kind, len(payload))


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
