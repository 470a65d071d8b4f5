"""BMP: what its header tells without decoding, and whether all decoders take it for the same."""

from __future__ import annotations

from dataclasses import dataclass
from struct import error, unpack_from

_FILE_HEADER = 14

_OS2_HEADER, _USUAL_HEADER, _LONGEST_HEADER = 12, 40, 124

_USUAL_HEADERS = frozenset({_USUAL_HEADER, 108, _LONGEST_HEADER})
"""Windows' own, in the versions that programs write."""

_COMPRESSION_NONE = 0


@dataclass(frozen=True, slots=True)
class Bmp:
    """Size in pixels, bytes up to the end of the last line, whether all decoders show it alike."""

    size: tuple[int, int]
    length: int
    common: bool


def walk(head: bytes) -> Bmp | None:
    """What a BMP's header says; None where it is none. `length` is 0 where it is packed."""
    try:
        pixels, header = unpack_from("<II", head, 10)
        colours = 0
        if header == _OS2_HEADER:
            width, height, planes, bits = unpack_from("<HHHH", head, 18)
            packing = _COMPRESSION_NONE
        elif _USUAL_HEADER <= header <= _LONGEST_HEADER:
            width, height, planes, bits, packing = unpack_from("<iiHHI", head, 18)
            (colours,) = unpack_from("<I", head, 46)
        else:
            return None
    except error:
        return None
    if width <= 0 or not height or planes != 1 or bits not in (1, 4, 8, 16, 24, 32):
        return None
    stride = (width * bits + 31) // 32 * 4
    plain = packing == _COMPRESSION_NONE
    length = pixels + stride * abs(height) if plain else 0
    # 32 bits may or may not hold alpha, and 16 bits are read in two ways.
    common = plain and header in _USUAL_HEADERS and bits in (1, 4, 8, 24)
    if bits <= 8:  # fewer colours than pixels can name: decoders differ on the others
        common &= colours in (0, 1 << bits)
        begin = _FILE_HEADER + header + (4 << bits)
    else:
        common &= colours <= 256
        begin = _FILE_HEADER + header + 4 * colours
    return Bmp((width, abs(height)), length, common=common and pixels >= begin)
