"""Picture bytes to a grey picture, within the service's limits."""

from __future__ import annotations

from io import BytesIO
from struct import error as StructError  # noqa: N812 - an exception under a lower-case name

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from .replies import RefusalError

MAX_PICTURE_BYTES = 2 * 1024 * 1024
MIN_SIDE, MAX_SIDE = 48, 4096

# The classes are called directly because Image.open warns about large pictures before
# their size can be looked at, and a stand-in must not warn inside somebody's tests.
_FORMATS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"BM", BmpImageFile),
)
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, OverflowError, StructError)


def grey_picture(content: bytes, *, field: str, around: int) -> Image.Image:
    """Decode PNG, JPEG or BMP (told by content) to mode `L`.

    A JPEG may come out smaller by 2, 4 or 8, yet with no side below `around`, because the
    decoder does that for nothing. The Exif orientation is *not* applied: the vendor does not
    say, and of the two this is the harsher, so that a client that leaves turning to the
    service is found out.

    Raises `RefusalError` with the code that the vendor's family uses, `field` for its detail.
    """
    if len(content) > MAX_PICTURE_BYTES:
        raise RefusalError("IMAGE_FILE_TOO_LARGE", field)
    kind = next((cls for magic, cls in _FORMATS if content.startswith(magic)), None)
    if kind is None:
        raise RefusalError("IMAGE_ERROR_UNSUPPORTED_FORMAT", field)
    try:
        picture = kind(BytesIO(content))
        if not all(MIN_SIDE <= side <= MAX_SIDE for side in picture.size):
            raise RefusalError("INVALID_IMAGE_SIZE", field)
        picture.draft("L", (around, around))
        picture.load()
        return _grey(picture)
    except _BROKEN as exc:
        raise RefusalError("IMAGE_ERROR_UNSUPPORTED_FORMAT", field) from exc


def _grey(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16 bits a pixel; convert("L") would clip at 255 instead of scaling.
        return picture.convert("I").point(lambda level: level / 256).convert("L")
    return picture.convert("L")
