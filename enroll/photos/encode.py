"""From pixels to a JPEG of a size in bytes, as much like the source as possible."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import IO, Any

from PIL import Image, JpegImagePlugin

from enroll.photos.bounds import check_time
from enroll.photos.decision import MIN_SIDE
from enroll.photos.decode import scaled
from enroll.photos.picture import resized

USUAL_QUALITY = 92
"""For pictures that were no JPEG."""

LOWEST_QUALITY = 50
"""Below that a smaller picture looks better than a coarser one."""

_CLOSE_ENOUGH = 0.95
"""If a JPEG is expected to take this share of the bytes that it may have, no better quality is
tried."""

_SAFELY = 0.97
"""Share of the bytes that a JPEG may have, for which its estimate aims."""

_SMALLER = 0.98
"""By how much the sides shrink at least where even the coarsest quality does not fit."""

_SMALL, _LEAST_SIDE = 1_000_000, 192
"""Pixels of a picture, and of its short side, below which its length is not estimated."""

_POWER = 0.65
"""A JPEG's length is about as the steps of its tables to minus this power. For photos it is 0.3 to
0.9, and may be 2 from one quality to the next where the photo was a JPEG of a lower one."""

_BLOCK, _ROWS, _PARTS, _STEP = 16, 3, 8, 3
"""Pixels a side of a block, whatever the sampling of colour; of how many rows of blocks a sample
has one; in how many parts such a row is divided; and from which part to which the sample goes on in
the next."""

_HEAD_BYTES = 620
"""Of a JPEG with the standard's Huffman tables, beside its picture."""

_FULL, _HALF_WIDTH = 0, 1
"""Pillow's numbers for the sampling of colour: at every pixel, at every other of a line."""

# Sums of the tables of the JPEG standard (Annex K), from which qualities are estimated.
_STANDARD_SUMS = (3688, 5679)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How to encode: `quality` from 1 to 95, or, better, with the source's own `tables`."""

    quality: int = USUAL_QUALITY
    sampling: int = _FULL
    tables: Sequence[Sequence[int]] | None = None


def style_of(picture: JpegImagePlugin.JpegImageFile, *, on_its_side: bool) -> Style:
    """How a JPEG was encoded, so that it can be encoded again with as little loss as possible.

    `on_its_side` says that lines become columns; so do the lines of its tables, then.
    """
    tables = [list(picture.quantization[one]) for one in sorted(picture.quantization)]
    sampling = JpegImagePlugin.get_sampling(picture)
    if sampling < 0 or (sampling == _HALF_WIDTH and on_its_side):
        sampling = _FULL
    if on_its_side:
        tables = [[table[8 * (i % 8) + i // 8] for i in range(64)] for table in tables]
    quality = min(max(_quality_of(tables), LOWEST_QUALITY), 95)
    fits = 0 < len(tables) <= 2 and all(0 < step < 256 for table in tables for step in table)
    return Style(quality=quality, sampling=sampling, tables=tables if fits else None)


def _quality_of(tables: Sequence[Sequence[int]]) -> int:
    """The quality by which libjpeg would make tables like these."""
    if not tables:
        return USUAL_QUALITY
    percent = 100 * sum(tables[0]) / _STANDARD_SUMS[0]
    return round((200 - percent) / 2 if percent <= 100 else 5000 / percent)


def encoding_bytes(picture_bytes: int, max_bytes: int) -> int:
    """Memory for a picture of so many bytes, its sample and its JPEG, which takes hardly ever two
    bytes a pixel."""
    return picture_bytes + picture_bytes // (_ROWS * _PARTS) + min(max_bytes, picture_bytes // 2)


def encode(
    picture: Image.Image, style: Style, *, max_bytes: int, likely_bytes: int | None = None
) -> bytes:
    """A JPEG of at most `max_bytes`: in the given `style`, or coarser if necessary, or smaller in
    pixels, too. A picture of many pixels is nearly always encoded once. `likely_bytes` is what it
    takes in this style, if that is known."""
    if picture.width * picture.height <= max_bytes:  # it hardly ever takes a byte a pixel
        content = _saved(picture, style)
        if len(content) <= max_bytes:
            return content
    while True:
        sample, expected = _Sample.of(picture), _SAFELY * max_bytes
        while (found := _finest(sample, style, expected, likely_bytes)) is not None:
            content = _saved(picture, found)
            if len(content) <= max_bytes:
                return content
            expected *= _SAFELY * max_bytes / len(content)
            del content
        coarsest = replace(style, quality=LOWEST_QUALITY, tables=None)
        if expected < sample.length(coarsest) <= max_bytes / _SAFELY:  # it may fit for all that
            content = _saved(picture, coarsest)
            if len(content) <= max_bytes:
                return content
            del content
        length = sample.length(style)
        smaller = math.sqrt(max_bytes / length) if length < 4 * max_bytes else 0.5
        size = scaled(picture.size, min(smaller, _SMALLER), least=MIN_SIDE)
        if size == picture.size:
            return _saved(picture, coarsest)
        picture, style = resized(picture, size), replace(style, tables=None)
        likely_bytes = None


@dataclass(frozen=True, slots=True)
class _Sample:
    """Some of a picture, from which the length of its JPEG is estimated. `share` is that of its
    pixels."""

    picture: Image.Image
    share: float

    @classmethod
    def of(cls, picture: Image.Image) -> _Sample:
        """Every third row of blocks, of each an eighth of the width, from all over the picture; all
        of a small picture, whose estimate would be poor."""
        if picture.width * picture.height < _SMALL or min(picture.size) < _LEAST_SIDE:
            return cls(picture, 1)
        wide = picture.width // (_PARTS * _BLOCK) * _BLOCK
        tops = range(0, picture.height - _BLOCK + 1, _ROWS * _BLOCK)
        sample = Image.new(picture.mode, (wide, len(tops) * _BLOCK))
        for row, top in enumerate(tops):
            left = row * _STEP % _PARTS * wide
            tile = picture.crop((left, top, left + wide, top + _BLOCK))
            sample.paste(tile, (0, row * _BLOCK))
        return cls(sample, sample.width * sample.height / (picture.width * picture.height))

    def length(self, style: Style) -> float:
        """Bytes that the whole picture is expected to take in this style."""
        return _HEAD_BYTES + (len(_saved(self.picture, style)) - _HEAD_BYTES) / self.share


def _finest(
    sample: _Sample, style: Style, max_bytes: float, likely_bytes: int | None
) -> Style | None:
    """The best style that is expected to fit, or nearly so; None where the coarsest is not."""
    quality, length = style.quality, float(likely_bytes or 0)
    if length <= max_bytes:
        length = sample.length(style)
        if length <= max_bytes:
            return style
    best, low, high = None, LOWEST_QUALITY, quality - 1
    power = _POWER
    while low <= high and not _CLOSE_ENOUGH * max_bytes <= length <= max_bytes:
        # The steps of the tables are as 100 - quality.
        steps, last = 100 - quality, length
        wanted = math.floor(100 - steps * (length / max_bytes) ** (1 / power))
        if length <= max_bytes and wanted < low:
            break  # the next better one is not expected to fit
        quality = min(max(wanted, low), high)
        found = replace(style, quality=quality, tables=None)
        length = sample.length(found)
        measured = math.log(last / length) / math.log((100 - quality) / steps)
        power = min(max(measured, _POWER / 2), 2 * _POWER)
        if length > max_bytes:
            high = quality - 1
        else:
            best, low = found, quality + 1
    return best


def _saved(picture: Image.Image, style: Style) -> bytes:
    check_time()
    # Not optimized: that gains some per cent, and holds all coefficients of the picture.
    options: dict[str, Any] = {"subsampling": style.sampling}
    if style.tables is None:
        options["quality"] = style.quality
    else:
        options["qtables"] = style.tables
    with _file_in_memory() as out:
        picture.save(out, "JPEG", **options)
        out.seek(0)
        return out.read()


def _file_in_memory() -> IO[bytes]:
    """A file that the system knows, where it has such files: to others Pillow writes while it holds
    Python's lock, so that no two pictures are encoded at the same time."""
    with suppress(AttributeError, OSError):
        return os.fdopen(os.memfd_create("jpeg"), "w+b", buffering=0)
    return BytesIO()
