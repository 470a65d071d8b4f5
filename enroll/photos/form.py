"""What kind of file a photo is, by how it begins, and which way up it is, by its EXIF."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from struct import error, unpack_from

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

UPRIGHT = 1


class EndMissingError(Exception):
    """The bytes end before what is looked for, which goes on at `at` where that is known."""

    def __init__(self, at: int = 0) -> None:
        super().__init__(at)
        self.at = at


TURNED = range(2, 9)
"""The orientations that are not upright: mirrored, turned, or both."""

_ORIENTATION = 0x0112
_NUMBERS = {1: "B", 3: "H", 4: "I"}
"""TIFF's types of whole numbers; the orientation should be the second, and is not always."""

_MOST_ENTRIES = 500
"""Tags of the first directory that are read; cameras write some twenty."""


def orientation(exif: bytes | memoryview) -> int:
    """EXIF's orientation, 1 to 8, of a TIFF structure; 1 where it says nothing valid."""
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
    """The format by a file's first bytes (at least 64, if there are as many); None for others."""
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


HEAD_BYTES = 1024
"""Bytes that are searched: an SVG may begin with a comment."""

_RAW = "a camera's raw file"

_BEGINNINGS: Sequence[tuple[bytes, str]] = (
    (b"II\x55\0", f"{_RAW} (Panasonic RW2)"),
    (b"IIRO", f"{_RAW} (Olympus ORF)"),
    (b"IIRS", f"{_RAW} (Olympus ORF)"),
    (b"MMOR", f"{_RAW} (Olympus ORF)"),
    (b"FUJIFILMCCD-RAW", f"{_RAW} (Fujifilm RAF)"),
    (b"FOVb", f"{_RAW} (Sigma X3F)"),
    (b"\0MRM", f"{_RAW} (Minolta MRW)"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"II\xbc\x01", "a JPEG XR"),
    (b"8BPS", "a Photoshop document (PSD)"),
    (b"%!PS", "a PostScript file (EPS)"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file (EPS)"),
    (b"%PDF", "a PDF"),
    (b"gimp xcf", "a GIMP document (XCF)"),
    (b"AT&TFORM", "a DjVu document"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"\0\0\x02\0", "a cursor (CUR)"),
    (b"icns", "an icon (ICNS)"),
    (b"DDS ", "a texture (DDS)"),
    (b"qoif", "a QOI"),
    (b"FLIF", "an FLIF"),
    (b"BPG\xfb", "a BPG"),
    (b"v/1\x01", "an OpenEXR"),
    (b"#?RADIANCE", "a Radiance HDR"),
    (b"#?RGBE", "a Radiance HDR"),
    (b"SIMPLE  =", "an FITS"),
    (b"\x01\xda\0\x01", "an SGI picture"),
    (b"\x01\xda\x01\x01", "an SGI picture"),
    (b"\x59\xa6\x6a\x95", "an Sun raster"),
    (b"\xd7\xcd\xc6\x9a", "a metafile (WMF)"),
    (b"\x01\0\0\0\x58\0\0\0", "a metafile (EMF)"),
    (b"\x01\0\0\0\x6c\0\0\0", "a metafile (EMF)"),
    (b"\x8aMNG\r\n\x1a\n", "an MNG"),
    (b"\x8bJNG\r\n\x1a\n", "a JNG"),
    (b"/* XPM */", "an XPM"),
)

_PATTERNS: Sequence[tuple[re.Pattern[bytes], str]] = (
    (re.compile(rb"(II|MM).{4}HEAPCCDR", re.DOTALL), f"{_RAW} (Canon CRW)"),
    (re.compile(rb".{4}ftypcrx ", re.DOTALL), f"{_RAW} (Canon CR3)"),
    (re.compile(rb".{128}DICM", re.DOTALL), "a DICOM file"),
    (re.compile(rb"P[1-7][ \t\r\n#]"), "a Netpbm (PBM, PGM, PPM or PAM)"),
    (re.compile(rb"P[Ff]\r?\n"), "a Netpbm of floating point (PFM)"),
    (re.compile(rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]"), "a PCX"),
    (re.compile(rb"#define \w+_width \d"), "an XBM"),
    (
        re.compile(
            rb"(?>\s+|<\?xml[^>]*>|<!DOCTYPE[^>]*>|<!--(?:(?!-->).)*+-->)*+<svg[\s>]", re.DOTALL
        ),
        "an SVG",
    ),
)


def name_of_foreign(head: bytes) -> str | None:
    """What an image of another format is called, such as `an icon (ICO)`, by its first HEAD_BYTES;
    None for what is no image that is known here."""
    head = head[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")
    for beginning, name in _BEGINNINGS:
        if head.startswith(beginning):
            return name
    return next((name for pattern, name in _PATTERNS if pattern.match(head)), None)
