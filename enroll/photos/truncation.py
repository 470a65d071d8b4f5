"""Whether part of a JPEG's picture is lost though its end stands there: after a download into a
file that was made large first, a bad block of a disk, or a program that closes what it has not got.

Without decoding only some of that shows, and no good photo may be taken for a broken one.
"""

from __future__ import annotations

import re
from struct import unpack_from

from enroll.photos.jpeg import EOI, ESCAPED, MOST_BY_CHANCE, Jpeg, next_marker
from enroll.photos.strip import Pieces

_ZEROS = bytes(256)
"""No shorter run is looked at. Cameras' scans have two or three zeros in a row; those with Huffman
tables of their own have thousands where the background is flat."""

_RUN = re.compile(rb"\0{256,}")

_GOES_ON = frozenset({0xD9, 0xDA, 0xC4})
"""An end, a scan and a Huffman table: what ends a scan's data. Other pictures begin with 0xD8."""

BEHIND = 16 * ESCAPED
"""What stands in an end's place: a decoder reads up to eight bytes ahead, and these are no code."""

_END_OF_BLOCK = 0

_MOST_TABLES = 100
"""Segments with Huffman tables that are looked at, the last of them: a photo has up to eight, and
each may hold thousands of empty tables."""


def lost_from(content: bytes, jpeg: Jpeg) -> int | None:
    """From which byte on what stands there is not the picture's; None where nothing shows that."""
    zeros = _zeros(content, jpeg)
    if zeros is not None or jpeg.end is None:
        return zeros
    more = jpeg.interrupted or _goes_on(content, jpeg.end)
    return jpeg.end - len(EOI) if more else None


def without_end(content: bytes, jpeg: Jpeg) -> Pieces:
    """A file of which a decoder says so when it runs out of it before the picture is whole.

    At an end libjpeg fills the rest with grey, and Pillow drops its warning; without one it asks
    for more. Passes that build on each other are read up to an end, so those keep it.
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
