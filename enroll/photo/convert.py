"""A picture that cannot be sent as it is: decoded, its colours, size and direction mended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from PIL import ExifTags, Image, ImageFile, JpegImagePlugin

from enroll.model import Fault
from enroll.photo import colour, exif, reasons
from enroll.photo.decide import Seen, unfit_size
from enroll.photo.decode import (
    BrokenError,
    load,
    load_what_there_is,
    memory_needed,
    open_picture,
    share_missing,
    translating,
)
from enroll.photo.encode import Style, encode, style_of
from enroll.photo.form import Form
from enroll.photo.jpeg import EOI, Jpeg
from enroll.photo.memory import DECODING, decoding_limit
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

_REDUCING = 1.5
"""How much larger than wanted the decoder must leave a JPEG, which it shrinks by 2, 4 or 8 while it
decodes, before the better filter does the rest. Pillow's thumbnails take 2; no eye sees it."""

_WORK_BYTES = 9
"""Memory for a pixel after decoding: two pictures while one is made of the other, and the JPEG."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A photo without its metadata, and what was seen of it.

    Of a truncated one so many bytes are missing, 0 where that is not known.
    """

    content: bytes = field(repr=False)
    seen: Seen
    missing_bytes: int = 0
    jpeg: Jpeg | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A JPEG, and what was done to the picture beside converting it."""

    content: bytes = field(repr=False)
    turned: bool
    shrunk: bool


def convert(source: Source, preparation: Preparation) -> Made | Fault:
    """The photo as a JPEG that the service takes; or why not."""
    if source.seen.truncated and not preparation.accept_truncated:
        return reasons.cut_off(_amount_missing(source, preparation))
    content = source.content
    if source.seen.truncated and source.jpeg is not None:
        content += EOI  # with an end libjpeg makes up what is missing
    limit = decoding_limit(preparation.max_pixels)
    try:
        picture = open_picture(content, source.seen.form)
        full = source.seen.size or picture.size
        if (fault := unfit_size(full, preparation)) is not None:
            return fault
        scale = _draft(picture, preparation.max_side) if source.jpeg is not None else 1
        need = _need(source, picture, full=full, scale=scale)
        if need > limit:
            return reasons.too_much_memory(full, need)
        with DECODING.room(need, limit=limit):
            return _made(source, picture, preparation, full=full)
    except BrokenError as error:
        return _why_broken(source, str(error))


def _need(source: Source, picture: Image.Image, *, full: tuple[int, int], scale: int) -> int:
    """Bytes of memory that decoding takes, and what is done afterwards to what is left."""
    work = _WORK_BYTES * picture.size[0] * picture.size[1]
    return memory_needed(source.seen.form, full, source.jpeg, scale) + work


def _draft(picture: ImageFile.ImageFile, max_side: int) -> int:
    """Have a JPEG's decoder shrink it, if it is more than large enough; by how much (1 to 8)."""
    longest = max(picture.size)
    if longest > max_side:
        share = max_side * _REDUCING / longest
        width, height = (max(round(side * share), 1) for side in picture.size)
        picture.draft(picture.mode, (width, height))
    return round(longest / max(picture.size))


def _made(
    source: Source, opened: ImageFile.ImageFile, preparation: Preparation, *, full: tuple[int, int]
) -> Made:
    orientation = _orientation_of(opened, source.seen)
    style = Style()
    if isinstance(opened, JpegImagePlugin.JpegImageFile):
        style = style_of(opened, on_its_side=orientation in _ON_ITS_SIDE)
    if source.seen.truncated:
        load_what_there_is(opened)
    else:
        load(opened)
    shrunk = max(full) > preparation.max_side
    with translating():
        profile = opened.info.get("icc_profile")
        picture = colour.plain(opened)
        picture.info = {}  # Pillow writes comments and profiles that it finds there
        if max(picture.size) > preparation.max_side:
            picture = _resized(picture, preparation.max_side)
        picture = colour.to_srgb(picture, profile)
        if source.seen.form is not Form.TIFF and orientation in _TURNS:
            picture = picture.transpose(_TURNS[orientation])
        if shrunk:
            style = replace(style, tables=None)
        content = encode(picture, style, max_bytes=preparation.max_bytes)
    return Made(content=content, turned=orientation in _TURNS, shrunk=shrunk)


def _resized(picture: Image.Image, max_side: int) -> Image.Image:
    share = max_side / max(picture.size)
    width, height = (max(round(side * share), reasons.MIN_SIDE) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _orientation_of(picture: Image.Image, seen: Seen) -> int:
    """EXIF's orientation, as seen, or where it stands in the picture's own structure.

    Pillow has turned a TIFF when it has decoded it, libheif a HEIC.
    """
    if seen.size is not None:
        return seen.orientation
    tags = getattr(picture, "tag_v2", None)
    if tags is not None:
        return tiff_orientation(picture)
    blob = picture.info.get("exif")
    if not isinstance(blob, bytes):
        return exif.UPRIGHT
    return exif.orientation(blob.removeprefix(b"Exif\0\0"))


def tiff_orientation(picture: Image.Image) -> int:
    """The orientation of a TIFF that is open and not decoded."""
    try:
        with translating():
            found = getattr(picture, "tag_v2", {}).get(ExifTags.Base.Orientation)
    except BrokenError:
        return exif.UPRIGHT
    return found if isinstance(found, int) and found in exif.TURNED else exif.UPRIGHT


def _amount_missing(source: Source, preparation: Preparation) -> str:
    """How much of a truncated photo is missing, for people; empty where nobody can tell."""
    if source.missing_bytes:
        return f"{source.missing_bytes:,} bytes"
    if source.jpeg is not None and source.jpeg.progressive:
        return ""
    limit = decoding_limit(preparation.max_pixels)
    try:
        picture = open_picture(source.content, source.seen.form)
        full = source.seen.size or picture.size
        if source.jpeg is not None:
            picture.draft("L", (1, 1))
        scale = round(max(full) / max(picture.size))
        need = _need(source, picture, full=full, scale=scale)
        if need > limit:
            return ""
        with DECODING.room(need, limit=limit):
            missing = share_missing(picture)
    except BrokenError:
        return ""
    return "" if not missing else f"{max(round(100 * missing), 1)} %"


def _why_broken(source: Source, why: str) -> Fault:
    if source.seen.truncated or "truncated" in why:
        return reasons.cut_off()
    return reasons.damaged(f"it cannot be decoded ({why[:80] or 'no more is known'})")
