"""From bytes to pixels, within bounds on memory and time; and how much of a truncated photo is
missing. Pillow's exceptions become one."""

from __future__ import annotations

import ctypes
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, cast

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)

from enroll.model import Fault
from enroll.photos import decision
from enroll.photos.bounds import decoders, decoding_limit
from enroll.photos.decision import Seen
from enroll.photos.form import Form
from enroll.photos.jpeg import BEHIND, Jpeg
from enroll.photos.strip import Pieces
from enroll.settings import Preparation

RAISED = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError),
    *(AttributeError, AssertionError, RuntimeError, MemoryError, struct.error, zlib.error),
    Image.DecompressionBombError,
)
"""What Pillow has been seen to raise on broken files, and related errors. The bytes are in memory,
so an OSError is about them and not about a disk."""


class BrokenError(Exception):
    """Pillow could not make a picture of it."""


@contextmanager
def translating() -> Iterator[None]:
    """Turn what Pillow raises on a broken file into BrokenError."""
    try:
        yield
    except RAISED as error:
        raise BrokenError(str(error)) from error


def hush_libtiff() -> None:
    """Keep libtiff from printing about broken files, in this whole process, where that is possible.

    Pillow lets it write to standard error from within; what it raises says that there was an error.
    The library is found by its symbol among those that Pillow's own one is linked with.
    """
    with suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


def _open_heif(file: IO[bytes]) -> ImageFile.ImageFile:
    from pillow_heif import HeifImageFile  # noqa: PLC0415  # the extra may not be there

    opened: ImageFile.ImageFile = HeifImageFile(file)  # type: ignore[no-untyped-call]
    return opened


# The classes are called directly: Image.open tries all formats on what one does not take, and
# warns of large pictures before their size can be looked at.
_OPENERS: Mapping[Form, Callable[[IO[bytes]], ImageFile.ImageFile]] = {
    Form.JPEG: JpegImagePlugin.JpegImageFile,
    Form.PNG: PngImagePlugin.PngImageFile,
    Form.BMP: BmpImagePlugin.BmpImageFile,
    Form.GIF: GifImagePlugin.GifImageFile,
    Form.TIFF: TiffImagePlugin.TiffImageFile,
    Form.WEBP: WebPImagePlugin.WebPImageFile,
    Form.AVIF: AvifImagePlugin.AvifImageFile,
    Form.HEIF: _open_heif,
}

_BESIDE: Mapping[Form, float] = {
    Form.JPEG: 0,
    Form.PNG: 0.5,
    Form.BMP: 0,
    Form.GIF: 1,
    Form.TIFF: 4,
    Form.WEBP: 12.5,
    Form.AVIF: 6.5,
    Form.HEIF: 4,
}
"""Memory for a pixel that decoding takes beside Pillow's own picture, by measurement: WebP holds
two canvases and a copy, a TIFF may be one strip or has to be turned, AVIF and HEIC are copied. Of
a HEIC it is that of 4:2:0, as every phone writes it: one of 4:4:4 takes 1.5 bytes more."""

_MODE_BYTES: Mapping[str, int] = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}


BLOCK_BYTES = 4 * 1024 * 1024
"""What libjpeg is given at a time. It looks for a marker from the beginning of what it skips each
time that it is given more: 60 MB of that took it half a minute in blocks of 64 kB."""

_SENTINELS: Mapping[str, int | tuple[int, ...]] = {
    "L": 3,
    "P": 253,
    "RGB": (1, 254, 3),
    "RGBA": (1, 254, 3, 7),
    "LA": (3, 7),
}
"""What a picture is filled with before it is decoded, to see how far the decoder came."""


def open_picture(content: bytes | Pieces, form: Form) -> ImageFile.ImageFile:
    """The picture, its size known and nothing decoded. Raises BrokenError."""
    file = Pieces([content]) if isinstance(content, bytes) else content
    with translating():
        picture = _OPENERS[form](cast("IO[bytes]", file))
    if form is Form.JPEG:
        picture.decodermaxblock = BLOCK_BYTES
    return picture


def pixel_bytes(picture: Image.Image) -> int:
    """Memory for a pixel of a decoded picture: RGB is padded to 4 bytes."""
    return _MODE_BYTES.get(picture.mode, 4)


def decoding_bytes(picture: Image.Image, form: Form, jpeg: Jpeg | None) -> int:
    """Memory that it takes to decode a picture that is open, by Pillow and by what it uses."""
    pixels = picture.size[0] * picture.size[1]
    need = pixels * (pixel_bytes(picture) + _BESIDE[form])
    if jpeg is not None and jpeg.progressive:  # holds all coefficients, of 2 bytes each
        wide = max(h for h, _ in jpeg.sampling)
        high = max(v for _, v in jpeg.sampling)
        samples = sum(h * v for h, v in jpeg.sampling) / (wide * high)
        need += 2 * jpeg.width * jpeg.height * samples
    return round(need)


def load(picture: ImageFile.ImageFile) -> None:
    """Decode it. Raises BrokenError."""
    with translating():
        picture.load()


def load_what_there_is(picture: ImageFile.ImageFile) -> None:
    """Decode as far as it goes; the rest is white, or what the decoder makes of it."""
    with suppress(ValueError):  # a mode that has no white: the rest is black
        picture.im = Image.new(picture.mode, picture.size, "white").im
    _load_some(picture)


def _load_some(picture: ImageFile.ImageFile) -> None:
    try:
        picture.load()
    except RAISED:
        picture.tile = []  # what the decoder has written into it stays


def share_missing(picture: ImageFile.ImageFile) -> float | None:
    """The share of a picture's height that the decoder does not reach, 0 to 1; None if not known.

    The picture is of no use afterwards.
    """
    sentinel = _SENTINELS.get(picture.mode)
    if sentinel is None:
        return None
    try:
        blank = Image.new(picture.mode, picture.size, sentinel)
        picture.im = blank.copy().im
        _load_some(picture)
        found = Image.new(picture.mode, picture.size)
        found.im = picture.im
        box = ImageChops.difference(found, blank).getbbox(alpha_only=False)
    except RAISED:
        return None
    return 1 - (box[3] if box else 0) / picture.height


COMPLETABLE = frozenset({Form.JPEG, Form.PNG, Form.BMP, Form.GIF, Form.TIFF})
"""Formats of which decoders return what exists; of the others they return all or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A photo without its metadata, and what was seen of it.

    `missing_bytes` of a truncated photo is 0 where that is not known; a truncated JPEG has no end.
    `crop` (left, top, right, bottom) is what is shown of it when it is decoded, before it is
    turned.
    """

    content: bytes = field(repr=False)
    seen: Seen
    missing_bytes: int = 0
    jpeg: Jpeg | None = None
    crop: tuple[int, int, int, int] | None = None


def why_cut_off(source: Source, preparation: Preparation) -> Fault:
    """Why a truncated photo is not sent, and how much of it is missing, where that is known."""
    completable = source.seen.form in COMPLETABLE
    if source.missing_bytes:
        some = "1 byte" if source.missing_bytes == 1 else f"{source.missing_bytes:,} bytes"
        verb = "is" if source.missing_bytes == 1 else "are"
        return decision.cut_off(f"The last {some} of the file {verb}", completable=completable)
    if not completable:
        return decision.cut_off(completable=False)
    try:
        share = _share_missing(source, decoding_limit(preparation.max_pixels))
    except BrokenError:
        return decision.ONLY_A_STUB
    if share is None:
        return decision.cut_off()
    percent = round(100 * share)
    if percent == 0:
        return decision.cut_off("The end of the file, though hardly any of the picture, is")
    return decision.cut_off(f"The last {percent} % of the picture is")


def _share_missing(source: Source, limit: int) -> float | None:
    """The share of the height that the decoder does not reach, 0 to 1; None if not known."""
    jpeg = source.jpeg
    content = source.content if jpeg is None else Pieces([source.content, BEHIND])
    picture = open_picture(content, source.seen.form)
    if jpeg is not None:
        picture.draft("L", (1, 1))
    need = 2 * decoding_bytes(picture, source.seen.form, jpeg)
    in_passes = _interlaced(picture) if jpeg is None else not jpeg.sequential
    if need > limit or in_passes:  # then some of each part is missing
        return None
    return decoders().run(lambda _: share_missing(picture), need=need, limit=limit)


def _interlaced(picture: ImageFile.ImageFile) -> bool:
    """Whether lines are interlaced. Of a GIF, Pillow says so only to its decoder."""
    if picture.format == "GIF":
        return any(isinstance(tile.args, tuple) and tile.args[1] for tile in picture.tile)
    return bool(picture.info.get("interlace"))
