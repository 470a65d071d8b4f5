"""A picture that cannot be sent as it is: decoded, its colours, size and orientation changed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from typing import Any

from PIL import Image, ImageFile, JpegImagePlugin

from enroll.model import Fault
from enroll.photos import colour, decision, form
from enroll.photos.bounds import CONTENT_BYTES, Room, check_time, decoders, decoding_limit
from enroll.photos.decision import MIN_SIDE, Seen, unfit_size
from enroll.photos.decode import (
    BrokenError,
    Source,
    decoding_bytes,
    load,
    load_what_there_is,
    open_picture,
    pixel_bytes,
    translating,
    why_cut_off,
)
from enroll.photos.form import Form
from enroll.photos.jpeg import EOI, without_end
from enroll.photos.strip import Pieces
from enroll.settings import Preparation

_STRIP_ROWS = 256
"""Lines that are resized at a time. The filter sees beyond their edges, so that no seam shows."""


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """In strips: in one piece Pillow holds a third picture, of the new width and the old height."""
    width, height = size
    smaller = Image.new(picture.mode, size)
    rows = picture.size[1] / height
    for top in range(0, height, _STRIP_ROWS):
        check_time()
        deep = min(_STRIP_ROWS, height - top)
        box = (0.0, top * rows, float(picture.size[0]), min((top + deep) * rows, picture.size[1]))
        strip = picture.resize((width, deep), Image.Resampling.LANCZOS, box=box)
        smaller.paste(strip, (0, top))
    return smaller


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
        width, height = (max(round(side * smaller), MIN_SIDE) for side in picture.size)
        if (width, height) == picture.size:
            return _saved(picture, quality=LOWEST_QUALITY, subsampling=style.sampling)
        picture = resized(picture, (width, height))
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


_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that brings a picture of each EXIF orientation upright."""

_ON_ITS_SIDE = range(5, 9)


_END_MISSING = re.compile("truncated|no more images in GIF")
"""Pillow's message where it finds no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A JPEG, and what was done to the picture beside converting it."""

    content: bytes = field(repr=False)
    turned: bool
    shrunk: bool
    completed: bool = False


def convert(source: Source, preparation: Preparation) -> Made | Fault:
    """The photo as a JPEG that the service takes; or why not."""
    if source.seen.truncated and not preparation.accept_truncated:
        return why_cut_off(source, preparation)
    content: bytes | Pieces = source.content
    if source.jpeg is not None:
        # With an end marker libjpeg fills in what is missing; without one it reports that.
        truncated = source.seen.truncated
        content = (
            Pieces([source.content, EOI]) if truncated else without_end(source.content, source.jpeg)
        )
    limit = decoding_limit(preparation.max_pixels)
    try:
        picture, need = _opened(source, content, preparation.max_side, limit)
        full = source.seen.size or picture.size
        fault = unfit_size(full, preparation)
        if source.crop is not None:
            left, top, right, bottom = source.crop
            full = right - left, bottom - top
            fault = fault or unfit_size(full, preparation)
        if fault is None and need > limit:
            fault = decision.too_much_memory(full, need)
        if fault is not None:
            return fault
        made = partial(_made, source, picture, preparation, full=full)
        return decoders().run(made, need=need, limit=limit)
    except BrokenError as error:
        if _END_MISSING.search(str(error)) and not source.seen.truncated:
            return convert(_cut_off(source), preparation)
        return _why_broken(source, str(error))


def _cut_off(source: Source) -> Source:
    """The same photo, now known to be truncated."""
    content = source.content if source.jpeg is None else source.content.removesuffix(EOI)
    seen = replace(source.seen, truncated=True)
    return replace(source, content=content, seen=seen)


def _opened(
    source: Source, content: bytes | Pieces, max_side: int, limit: int
) -> tuple[ImageFile.ImageFile, int]:
    """The picture, and the memory that it takes; a JPEG is shrunk by its decoder to what fits."""
    least = max_side
    while True:
        picture = open_picture(content, source.seen.form)
        if source.jpeg is not None and max(picture.size) > max_side:
            _draft(picture, least)
        need = _need(source, picture, max_side)
        if source.jpeg is None or need <= limit or 8 * least <= max_side:
            return picture, need
        least //= 2


def _need(source: Source, picture: Image.Image, max_side: int) -> int:
    """Bytes of memory for decoding a picture that is open, and for all that is done afterwards."""
    form, each = source.seen.form, pixel_bytes(picture)
    pixels = picture.size[0] * picture.size[1]
    kept = round(pixels * min(1.0, max_side / max(picture.size)) ** 2)
    needs = [decoding_bytes(picture, form, source.jpeg)]
    painted = 1 if picture.mode == "L" else 4
    if colour.needs_paint(picture) or picture.info.get("icc_profile"):
        needs.append(pixels * (each + 4))
        painted = 4
    if kept < pixels:
        needs.append((pixels + kept) * painted)
    if _orientation_of(picture, source.seen) in _TURNS:
        needs.append(2 * kept * painted)
    needs.append(_need_to_encode(source, kept * painted))
    # Of a file that is read alone there is more in memory than is allowed for the files.
    return max(needs) + max(len(source.content) - CONTENT_BYTES, 0)


def _need_to_encode(source: Source, picture_bytes: int) -> int:
    """At first a JPEG may be as large as the file, or take half a byte a pixel."""
    return picture_bytes + max(len(source.content), picture_bytes // 8)


def _draft(picture: ImageFile.ImageFile, least: int) -> None:
    """Have a JPEG's decoder shrink it by 2, 4 or 8 as far as its long side keeps so many pixels;
    the better filter does the rest."""
    share = least / max(picture.size)
    width, height = (max(round(side * share), 1) for side in picture.size)
    picture.draft(picture.mode, (width, height))


def _made(
    source: Source,
    opened: ImageFile.ImageFile,
    preparation: Preparation,
    room: Room,
    *,
    full: tuple[int, int],
) -> Made:
    orientation = _orientation_of(opened, source.seen)
    shrunk = max(full) > preparation.max_side
    style = Style()
    if isinstance(opened, JpegImagePlugin.JpegImageFile):
        style = style_of(opened, on_its_side=orientation in _ON_ITS_SIDE)
        style = replace(style, tables=None) if shrunk else style
    try:
        if source.seen.truncated:
            load_what_there_is(opened)
        else:
            load(opened)
        with translating():
            decoded = opened if source.crop is None else opened.crop(source.crop)
            decoded.info = opened.info
            picture = _painted(decoded, preparation.max_side, _TURNS.get(orientation))
            pixels = picture.width * picture.height
            room.shrink(_need_to_encode(source, pixels * pixel_bytes(picture)))
            content = encode(picture, style, max_bytes=preparation.max_bytes)
    finally:
        opened.close()  # its pixels are freed before the next task is let in
    return Made(
        content=content,
        turned=orientation in _TURNS,
        shrunk=shrunk,
        completed=source.seen.truncated,
    )


def _painted(opened: Image.Image, max_side: int, turn: Image.Transpose | None) -> Image.Image:
    """A decoded picture in sRGB, no larger than it may be, and upright."""
    picture = colour.to_srgb(opened, opened.info.get("icc_profile"))
    picture.info = {}  # Pillow writes comments that it finds there
    if picture is not opened:
        opened.close()
    if max(picture.size) > max_side:
        picture = resized(picture, _fitting(picture.size, max_side))
        opened.close()
    if turn is not None:
        picture = picture.transpose(turn)
        opened.close()
    return picture


def _fitting(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    share = max_side / max(size)
    width, height = (max(round(side * share), decision.MIN_SIDE) for side in size)
    return width, height


def _orientation_of(picture: Image.Image, seen: Seen) -> int:
    """EXIF's orientation, as seen or as the decoder reports it. libheif has turned a HEIC."""
    if seen.form is not Form.AVIF and seen.form is not Form.HEIF:
        return seen.orientation
    blob = picture.info.get("exif")
    if not isinstance(blob, bytes):
        return form.UPRIGHT
    return form.orientation(blob.removeprefix(b"Exif\0\0"))


def _why_broken(source: Source, why: str) -> Fault:
    if source.seen.truncated:
        return decision.ONLY_A_STUB
    return decision.undecodable(why)
