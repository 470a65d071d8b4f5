"""From pixels to a JPEG of a size in bytes, as much like the source as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image, JpegImagePlugin

from enroll.photos.bounds import check_time
from enroll.photos.decision import MIN_SIDE
from enroll.photos.decode import scaled
from enroll.photos.picture import resized

USUAL_QUALITY = 92
"""For pictures that were no JPEG."""

LOWEST_QUALITY = 50
"""Below that a smaller picture looks better than a coarser one."""

_CLOSE_ENOUGH = 0.92
"""If a JPEG takes this share of the bytes that it may have, no better quality is tried."""

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


def encode(picture: Image.Image, style: Style, *, max_bytes: int) -> bytes:
    """A JPEG of at most `max_bytes`: in the given `style`, or coarser if necessary, or smaller in
    pixels, too."""
    tables = {} if style.tables is None else {"qtables": style.tables}
    first = _saved(picture, quality=style.quality, subsampling=style.sampling, **tables)
    while len(first) > max_bytes:
        length, first = len(first), b""
        found = _coarser(picture, style, max_bytes, known=(style.quality, length))
        if found is not None:
            return found
        smaller = math.sqrt(max_bytes / length) if length < 4 * max_bytes else 0.5
        size = scaled(picture.size, smaller, least=MIN_SIDE)
        if size == picture.size:
            return _saved(picture, quality=LOWEST_QUALITY, subsampling=style.sampling)
        picture = resized(picture, size)
        first = _saved(picture, quality=style.quality, subsampling=style.sampling)
    return first


def _coarser(
    picture: Image.Image, style: Style, max_bytes: int, *, known: tuple[int, int]
) -> bytes | None:
    """The best quality that fits, or nearly so; None where the lowest does not.

    Lengths grow with quality, their logarithm nearly in a line: few tries are needed.
    """
    best, low, high = None, LOWEST_QUALITY, style.quality - 1
    slope = 0.03  # of the logarithm of the length, for a step of quality
    while low <= high:
        beyond = math.log(known[1] / max_bytes) + 0.03
        quality = min(max(known[0] - math.ceil(beyond / slope), low), high)
        # Not optimized: that gains some per cent, and holds all coefficients of the picture.
        found = _saved(picture, quality=quality, subsampling=style.sampling)
        if quality != known[0]:
            slope = max(math.log(known[1] / len(found)) / (known[0] - quality), 0.005)
        known = (quality, len(found))
        if len(found) > max_bytes:
            high = quality - 1
        else:
            best, low = found, quality + 1
            if len(found) >= _CLOSE_ENOUGH * max_bytes:
                break
    return best


def _saved(picture: Image.Image, **options: Any) -> bytes:
    if "qtables" in options:
        options.pop("quality")
    check_time()
    out = BytesIO()
    picture.save(out, "JPEG", **options)
    return out.getvalue()
