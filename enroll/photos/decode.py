"""From bytes to pixels: a picture opened, scaled by its decoder, and decoded. Pillow's exceptions
become one."""

from __future__ import annotations

import ctypes
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
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

from enroll.photos.form import Form
from enroll.photos.strip import Pieces

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


@cache
def _hush_libtiff() -> None:
    """Keep libtiff from printing about broken files, in this whole process, where that is possible.

    Pillow lets it write to standard error from within; what it raises says that there was an error.
    The library is found by its symbol among those that Pillow's own one is linked with.
    """
    with suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


def _open_tiff(file: IO[bytes]) -> ImageFile.ImageFile:
    _hush_libtiff()
    return TiffImagePlugin.TiffImageFile(file)


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
    Form.TIFF: _open_tiff,
    Form.WEBP: WebPImagePlugin.WebPImageFile,
    Form.AVIF: AvifImagePlugin.AvifImageFile,
    Form.HEIF: _open_heif,
}

BLOCK_BYTES = 1_000_000
"""What libjpeg is given at a time. It looks for a marker from the beginning of what it skips each
time that it is given more: 60 MB of that take 2.3 s, and in blocks of 64 kB took half a minute.
Larger blocks are returned to the system (see `bounds.give_back_memory`) and cleared by it each
time, which took 6 % of the time for a photo of 24 megapixels."""

_SENTINELS: Mapping[str, int | tuple[int, ...]] = {
    "L": 3,
    "P": 253,
    "RGB": (1, 254, 3),
    "RGBA": (1, 254, 3, 7),
    "LA": (3, 7),
}
"""What a picture is filled with before it is decoded, to see how far the decoder came."""


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


def pixel_bytes(picture: Image.Image) -> int:
    """Memory for a pixel of a decoded picture: RGB is padded to 4 bytes."""
    return _MODE_BYTES.get(picture.mode, 4)


def decoding_bytes(picture: Image.Image, form: Form, *, coefficients: float = 0) -> int:
    """Memory that it takes to decode a picture that is open, by Pillow and by what it uses;
    `coefficients` is what a progressive JPEG's decoder keeps."""
    pixels = picture.size[0] * picture.size[1]
    return round(pixels * (pixel_bytes(picture) + _BESIDE[form]) + coefficients)


def open_picture(content: bytes | Pieces, form: Form) -> ImageFile.ImageFile:
    """The picture, its size known and nothing decoded. Raises BrokenError."""
    file = Pieces([content]) if isinstance(content, bytes) else content
    with translating():
        picture = _OPENERS[form](cast("IO[bytes]", file))
    if form is Form.JPEG:
        picture.decodermaxblock = BLOCK_BYTES
    return picture


def scaled(size: tuple[int, int], share: float, *, least: int = 1) -> tuple[int, int]:
    """A size of which each side is this share, and no less than `least` pixels."""
    width, height = (max(round(side * share), least) for side in size)
    return width, height


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
