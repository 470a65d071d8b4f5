"""JPEG: what its markers say without decoding, and what is left of it without its metadata.

Every row's photo goes through here. A marker walk takes a third of the time that Pillow takes to
open the file, and the picture's own data is only searched for the next marker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from struct import unpack_from

from enroll.photos import decision, form
from enroll.photos.decision import RefusedError
from enroll.photos.form import EndMissingError
from enroll.photos.strip import Pieces, Stripped

SOI = b"\xff\xd8"
EOI = b"\xff\xd9"

MOST_SEGMENTS = 5_000
"""More than any program writes: a profile takes up to 255, a large XMP some hundred."""

MOST_SCANS = 100
"""Passes over the picture. Progressive files have some ten; each costs time in the size of the
whole picture, however little there is in it."""

MOST_FILL = 255
"""Fill bytes that stay before a marker. The standard allows any number, and Pillow reads each in
Python."""

ESCAPED = b"\xff\0"

MOST_BY_CHANCE = 3
"""The most escaped bytes before a marker in data that is not a scan; a scan has one in 256."""

_MARKER = re.compile(rb"\xff[^\x00\xff]")
"""A marker behind what decoders skip to find it: fill bytes, rubbish and escaped 0xFF in it."""

_NO_MARKER = (0x00, 0xFF)
"""Behind 0xFF: an escaped one, and a fill byte."""

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""What ends a scan: a marker that is neither an escaped 0xFF nor a restart."""

_SCAN, _END, _HUFFMAN, _START = 0xDA, 0xD9, 0xC4, 0xD8

_ALONE = frozenset({_END, 0x01, *range(0xD0, 0xD8)})
"""Markers that nothing belongs to."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})
"""Beside frames and scans what a decoder needs."""
_NEEDED = FRAMES | _TABLES | {_SCAN}
_BEHIND_A_SCAN = _TABLES | (_ALONE - {_END}) | {_SCAN, 0xDC, 0xFE, *range(0xE0, 0xF0)}
"""What may follow a scan. Any other marker there is damage within the scan."""

_COMMON = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""Baseline, extended and progressive, with Huffman or arithmetic coding."""

SEQUENTIAL = frozenset({0xC0, 0xC1})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})

_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_JFIF_LENGTH, _ADOBE_LENGTH = 16, 14
"""Of the segments without a thumbnail and without more than the standard knows."""
_PROFILE_LENGTH = 16
"""Of a segment with none of its profile's bytes. Pillow opens no photo that has a shorter one."""


@dataclass(slots=True)
class Jpeg:
    """What the markers say, and the file without metadata.

    `sampling` are the components' (horizontal, vertical) factors; `tables` are where segments with
    Huffman tables begin and end, `scan` is where the last pass begins, and `end` where the picture
    ends in the file, None where no end was found. `interrupted` says that a marker is within a
    scan that does not belong there, and ends it for a decoder.
    """

    stripped: Stripped
    width: int = 0
    height: int = 0
    precision: int = 0
    coding: int = 0
    sampling: tuple[tuple[int, int], ...] = ()
    orientation: int = form.UPRIGHT
    has_exif: bool = False
    scans: int = 0
    scan: int = 0
    tables: list[tuple[int, int]] = field(default_factory=list)
    end: int | None = None
    interrupted: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as the file has them."""
        return self.width, self.height

    @property
    def progressive(self) -> bool:
        """Whether a decoder keeps all coefficients before it shows a line."""
        return self.coding in _PROGRESSIVE or self.scans > 1

    @property
    def coefficient_bytes(self) -> float:
        """Memory for all coefficients, of 2 bytes each, where a decoder keeps them."""
        if not self.progressive:
            return 0
        wide = max(h for h, _ in self.sampling)
        high = max(v for _, v in self.sampling)
        samples = sum(h * v for h, v in self.sampling) / (wide * high)
        return 2 * self.width * self.height * samples

    @property
    def sequential(self) -> bool:
        """Whether it is one pass from top to bottom in Huffman codes, as cameras write it."""
        return self.coding in SEQUENTIAL and self.scans == 1

    @property
    def common(self) -> bool:
        """Whether every decoder reads it: 8 bits, one or three components, a usual coding."""
        return self.precision == 8 and len(self.sampling) in (1, 3) and self.coding in _COMMON


def walk(content: bytes, *, whole: bool = True) -> Jpeg:
    """Go through the markers as libjpeg does; `whole=False` stops at the first scan.

    Raises RefusedError; with `whole=False` also EndMissingError, when the bytes do not suffice.
    """
    jpeg, at = Jpeg(Stripped(content)), len(SOI)
    try:
        for _ in range(MOST_SEGMENTS):
            start = _next_segment(jpeg, content, at)
            if start is None:
                at = max(at, len(content) - 1)  # the last byte may be half of a marker
                break
            marker = content[start + 1]
            at, after = start, _end_of(content, start, marker)
            if marker == _END:
                return _closed(jpeg, after)
            if whole and after > len(content):
                break
            _note(jpeg, content, marker, at, after)
            at = after
            if marker == _SCAN:
                if not whole:
                    return jpeg
                behind = next_marker(content, at)
                if behind is None:
                    break
                at = behind
        else:
            raise RefusedError(decision.damaged(f"it has more than {MOST_SEGMENTS:,} segments"))
    except IndexError:
        pass
    if not whole:
        raise EndMissingError(at)
    return jpeg


def next_marker(content: bytes, at: int) -> int | None:
    """Where a scan's data end that go on at `at`; None: with the bytes."""
    found = _NEXT_MARKER.search(content, at)
    return None if found is None else found.start()


def _closed(jpeg: Jpeg, end: int) -> Jpeg:
    """Drop what follows the end."""
    if not jpeg.scans:
        raise RefusedError(decision.damaged("there is no picture in it"))
    jpeg.end = end
    jpeg.stripped.cut_from(end)
    return jpeg


def _next_segment(jpeg: Jpeg, content: bytes, at: int) -> int | None:
    """Where the next marker is; None where there is none. What precedes it is cut out, except a few
    fill bytes, which the standard allows."""
    if content[at] == 0xFF and content[at + 1] not in _NO_MARKER:
        return at  # nearly always, and much faster than a search
    found = _MARKER.search(content, at)
    if found is None:
        return None
    marker = found.start()
    length = marker - at
    if length > MOST_FILL or content.count(0xFF, at, marker) < length:
        jpeg.stripped.cut_out(at, marker)
        if jpeg.scans and content.count(ESCAPED, at, marker) > MOST_BY_CHANCE:
            jpeg.interrupted = True
    return marker


def _end_of(content: bytes, at: int, marker: int) -> int:
    """Where the segment ends whose marker is at `at`.

    A length of 0 or 1 is less than its own two bytes. Of what it can do without, a decoder skips
    just these then.
    """
    if marker in _ALONE:
        return at + 2
    length = content[at + 2] << 8 | content[at + 3]
    if length >= 2 and marker != _START:
        return at + 2 + length
    if marker == _START or marker in _NEEDED:
        raise RefusedError(decision.damaged("its markers make no sense"))
    return at + 4


def _note(jpeg: Jpeg, content: bytes, marker: int, at: int, after: int) -> None:
    """Note what a segment says, and cut it out if a decoder does not need it."""
    if jpeg.scans and marker not in _BEHIND_A_SCAN:
        jpeg.interrupted = True
    if marker in FRAMES:
        _note_frame(jpeg, content, marker, at)
    elif marker == _SCAN:
        jpeg.scans, jpeg.scan = jpeg.scans + 1, at
        if jpeg.scans > MOST_SCANS:
            raise RefusedError(decision.damaged(f"it has more than {MOST_SCANS} passes"))
        if not jpeg.width:
            raise RefusedError(decision.damaged("it does not say its size"))
    elif marker == _HUFFMAN:
        jpeg.tables.append((at, after))
    elif marker not in _TABLES:
        _note_application(jpeg, content, marker, at, after)


def _note_application(jpeg: Jpeg, content: bytes, marker: int, at: int, after: int) -> None:
    head = bytes(content[at + 4 : min(at + 16, after)])
    instead = b""
    if marker == _APP2 and head.startswith(b"ICC_PROFILE\0"):
        if after - at - 2 >= _PROFILE_LENGTH:
            return
    elif marker == _APP0 and head.startswith(b"JFIF\0"):
        instead = _at_most(content, at, after, _JFIF_LENGTH)
    elif marker == _APP14 and head.startswith(b"Adobe"):
        instead = _at_most(content, at, after, _ADOBE_LENGTH)
    elif marker == _APP1 and head.startswith(b"Exif\0") and not jpeg.has_exif:
        jpeg.has_exif = True  # the first decides, whatever it says: viewers read no other
        jpeg.orientation = form.orientation(memoryview(content)[at + 10 : after])
    if len(instead) < after - at:
        jpeg.stripped.cut_out(at, after, instead=instead)


def _note_frame(jpeg: Jpeg, content: bytes, marker: int, at: int) -> None:
    if jpeg.width:
        raise RefusedError(decision.damaged("it holds two pictures in one"))
    jpeg.coding, jpeg.precision = marker, content[at + 4]
    jpeg.height = content[at + 5] << 8 | content[at + 6]
    jpeg.width = content[at + 7] << 8 | content[at + 8]
    factors = [content[at + 11 + 3 * component] for component in range(content[at + 9])]
    jpeg.sampling = tuple((both >> 4, both & 15) for both in factors)
    if not (jpeg.width and jpeg.height and all(h and v for h, v in jpeg.sampling)):
        raise RefusedError(decision.damaged("it does not say its size"))


def _at_most(content: bytes, at: int, after: int, length: int) -> bytes:
    """A segment of which decoders need the first `length` bytes, without what is behind them: more
    than the standard knows, or a thumbnail, whose size is the last that a JFIF segment says."""
    if after - at - 2 < length:
        return b""  # decoders do not take it for what it calls itself
    if after - at - 2 == length:
        return bytes(content[at:after])
    kept = bytearray(content[at : at + 2 + length])
    kept[2:4] = length.to_bytes(2, "big")
    if content[at + 1] == _APP0:
        kept[-2:] = b"\0\0"
    return bytes(kept)


_ZEROS = bytes(256)
"""Shorter runs are ignored. Cameras' scans have two or three zeros in a row; those with Huffman
tables of their own have thousands where the background is flat."""

_RUN = re.compile(rb"\0{256,}")

_GOES_ON = frozenset({0xD9, 0xDA, 0xC4})
"""An end, a scan and a Huffman table: what ends a scan's data. Other pictures begin with 0xD8."""

BEHIND = 16 * ESCAPED
"""Replaces an end marker: a decoder reads up to eight bytes ahead, and these are no code."""

_END_OF_BLOCK = 0

_MOST_TABLES = 100
"""Segments with Huffman tables that are read, the last of them: a photo has up to eight, and
each may hold thousands of empty tables."""


def truncated_at(content: bytes, jpeg: Jpeg) -> int | None:
    """From which byte on the content is not the picture's; None where nothing shows that."""
    zeros = _zeros(content, jpeg)
    if zeros is not None or jpeg.end is None:
        return zeros
    more = jpeg.interrupted or _goes_on(content, jpeg.end)
    return jpeg.end - len(EOI) if more else None


def without_end(content: bytes, jpeg: Jpeg) -> Pieces:
    """A file of which a decoder reports that it ends before the picture is complete.

    At an end marker libjpeg fills the rest with grey, and Pillow drops its warning; without one it
    asks for more. Passes that build on each other are read up to an end, so those keep it.
    """
    if jpeg.sequential and content.endswith(EOI):
        return Pieces([memoryview(content)[: -len(EOI)], BEHIND])
    return Pieces([content])


def _goes_on(content: bytes, end: int) -> bool:
    """Whether behind an end there is more of a scan, and not a trailer as cameras write them."""
    found = next_marker(content, end)
    return (
        found is not None
        and content[found + 1] in _GOES_ON
        and content.count(ESCAPED, end, found) > MOST_BY_CHANCE
        and content.find(b"\xff\xff", end, found) < 0
    )


def _zeros(content: bytes, jpeg: Jpeg) -> int | None:
    """Where zeros begin in a scan that cannot be part of one."""
    end = len(content) if jpeg.end is None else jpeg.end
    start = content.find(_ZEROS, jpeg.scan, end)  # microseconds
    if start < 0 or not jpeg.sequential:
        return None
    most = _most_zeros(content, jpeg)
    for run in _RUN.finditer(content, start, end):
        if most is not None and run.end() - run.start() > most:
            return run.start()
    return None


def _most_zeros(content: bytes, jpeg: Jpeg) -> int | None:
    """How many zeros in a row a scan with these Huffman tables may have: as many as a picture takes
    that is flat from end to end. None where the tables are not there.

    Where zeros are no end of a block, they are 63 equal coefficients in each: that is no picture.
    """
    codes = _codes_of_zeros(content, jpeg)
    length, components = unpack_from(">HB", content, jpeg.scan + 2)
    if length != 6 + 2 * components or not jpeg.sampling:
        return None
    most = 0
    for place in range(jpeg.scan + 6, jpeg.scan + 6 + 2 * components, 2):
        level, rest = codes.get(content[place] >> 4), codes.get(0x10 | content[place] & 15)
        if level is None or rest is None:
            return None
        if rest[1] != _END_OF_BLOCK:
            return 0
        most = max(most, level[0] + level[1] + rest[0])
    wide = 8 * max(h for h, _ in jpeg.sampling)
    high = 8 * max(v for _, v in jpeg.sampling)
    blocks = -(-jpeg.width // wide) * -(-jpeg.height // high) * sum(h * v for h, v in jpeg.sampling)
    return blocks * most // 8 + 1


def _codes_of_zeros(content: bytes, jpeg: Jpeg) -> dict[int, tuple[int, int]]:
    """Of each Huffman table (by class and number, as it says) the code that is all zeros, which is
    the first: its bits, and the symbol that it stands for."""
    codes = {}
    for at, after in jpeg.tables[-_MOST_TABLES:]:
        place = at + 4
        while place + 17 < after:
            counts = content[place + 1 : place + 17]
            bits = next((bits for bits, count in enumerate(counts, start=1) if count), 0)
            codes[content[place]] = bits, content[place + 17]
            place += 17 + sum(counts)
    return codes
