"""What other formats are called, told by how a file begins; none of them is opened for that."""

from __future__ import annotations

import re
from collections.abc import Sequence

HEAD_BYTES = 1024
"""What is looked at: an SVG may begin with a comment."""

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
