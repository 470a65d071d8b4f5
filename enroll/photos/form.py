"""What kind of file a photo is, told by how it begins."""

from __future__ import annotations

from enum import StrEnum

from enroll.photos.png import SIGNATURE


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
    (SIGNATURE, Form.PNG),
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
