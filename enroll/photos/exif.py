"""Which way up a photo is, by its EXIF."""

from __future__ import annotations

from struct import error, unpack_from

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
