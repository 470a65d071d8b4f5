"""What kind of file a photo is, told by how it begins, and which way up it is, by its EXIF."""

from __future__ import annotations

from enum import StrEnum
from struct import error, unpack_from

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

UPRIGHT = 1

TURNED = range(2, 9)
"""The orientations that are not upright: mirrored, turned, or both."""

_ORIENTATION = 0x0112
_NUMBERS = {1: "B", 3: "H", 4: "I"}
"""TIFF's types of whole numbers; the orientation should be the second, and is not always."""

_MOST_ENTRIES = 500
"""Tags of the first directory that are looked at; cameras write some twenty."""


def orientation(exif: bytes | memoryview) -> int:
    """EXIF's orientation, 1 to 8, of a TIFF structure; 1 where it says nothing that makes sense."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(exif[:2]))
    if order is None:
        return UPRIGHT
    try:
        (directory,) = unpack_from(order + "I", exif, 4)
        (entries,) = unpack_from(order + "H", exif, directory)
        for entry in range(min(entries, _MOST_ENTRIES)):
            at = directory + 2 + 12 * entry
            tag, kind, count = unpack_from(order + "HHI", exif, at)
            if tag == _ORIENTATION:
                number = _NUMBERS.get(kind)
                if number is None or count != 1:
                    return UPRIGHT
                (found,) = unpack_from(order + number, exif, at + 8)
                return found if found in TURNED else UPRIGHT
    except error:  # an offset that leads out of it
        pass
    return UPRIGHT


class Form(StrEnum):
    """The formats that are sent or converted."""

    JPEG = "JPEG"
    PNG = "PNG"
    BMP = "BMP"
    GIF = "GIF"
    TIFF = "TIFF"
    WEBP = "WebP"
    AVIF = "AVIF"
    HEIF = "HEIC"


_HEADS = (
    (b"\xff\xd8\xff", Form.JPEG),
    (PNG_SIGNATURE, Form.PNG),
    (b"BM", Form.BMP),
    (b"GIF87a", Form.GIF),
    (b"GIF89a", Form.GIF),
    (b"II*\0", Form.TIFF),
    (b"MM\0*", Form.TIFF),
    (b"II+\0", Form.TIFF),
    (b"MM\0+", Form.TIFF),
)

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)


def form_of(head: bytes) -> Form | None:
    """The format by a file's first bytes (at least 64, if it has so many); None for others."""
    for beginning, form in _HEADS:
        if head.startswith(beginning):
            return form
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Form.WEBP
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    return None


def _by_brand(head: bytes) -> Form | None:
    brand, length = head[8:12], min(int.from_bytes(head[:4], "big"), len(head))
    others = {head[at : at + 4] for at in range(16, length, 4)}
    if brand in _AVIF_BRANDS or (brand in (b"mif1", b"msf1") and others & _AVIF_BRANDS):
        return Form.AVIF
    return Form.HEIF if brand in _HEIF_BRANDS or others & _HEIF_BRANDS else None
