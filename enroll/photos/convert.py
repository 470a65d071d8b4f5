"""A picture that cannot be sent as it is: decoded, its colours, size and direction mended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from PIL import Image, ImageFile, JpegImagePlugin

from enroll.model import Fault
from enroll.photos import colour, exif, reasons
from enroll.photos.broken import BrokenError, translating
from enroll.photos.decide import Seen, unfit_size
from enroll.photos.decode import (
    decoding_bytes,
    load,
    load_what_there_is,
    open_picture,
    pixel_bytes,
)
from enroll.photos.encode import Style, encode, style_of
from enroll.photos.form import Form
from enroll.photos.jpeg import EOI
from enroll.photos.memory import CONTENT_BYTES, Room, decoders, decoding_limit
from enroll.photos.resize import resized
from enroll.photos.source import Source, why_cut_off
from enroll.photos.strip import Pieces
from enroll.photos.truncation import without_end
from enroll.preparation import Preparation

_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture of each EXIF orientation upright."""

_ON_ITS_SIDE = range(5, 9)


_END_MISSING = re.compile("truncated|no more images in GIF")
"""What Pillow says where it finds no end."""


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
        # With an end libjpeg makes up what is missing, without one it says so.
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
            fault = reasons.too_much_memory(full, need)
        if fault is not None:
            return fault
        made = partial(_made, source, picture, preparation, full=full)
        return decoders().run(made, need=need, limit=limit)
    except BrokenError as error:
        if _END_MISSING.search(str(error)) and not source.seen.truncated:
            return convert(_cut_off(source), preparation)
        return _why_broken(source, str(error))


def _cut_off(source: Source) -> Source:
    """The same photo, of which is known since it was opened that its end is missing."""
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
        opened.close()  # whoever holds it, its pixels are gone when the next is let in
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
    width, height = (max(round(side * share), reasons.MIN_SIDE) for side in size)
    return width, height


def _orientation_of(picture: Image.Image, seen: Seen) -> int:
    """EXIF's orientation, as seen, or as the decoder tells it. libheif has turned a HEIC."""
    if seen.form is not Form.AVIF and seen.form is not Form.HEIF:
        return seen.orientation
    blob = picture.info.get("exif")
    if not isinstance(blob, bytes):
        return exif.UPRIGHT
    return exif.orientation(blob.removeprefix(b"Exif\0\0"))


def _why_broken(source: Source, why: str) -> Fault:
    if source.seen.truncated:
        return reasons.ONLY_A_STUB
    return reasons.undecodable(why)
