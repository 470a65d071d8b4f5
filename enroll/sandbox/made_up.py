"""Photos of people who do not exist: squares of grey that say which person, and which photo of it.

The code is in the pixels, so it survives whatever a client does to a photo before it sends it.
"""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PEOPLE, SHOTS = 1 << 24, 1 << 16
"""How many people there can be, and photos of each."""

_SQUARES = 8
_SIDE = 8 * _SQUARES
"""Pixels; each square is a block of JPEG, which keeps its grey exactly."""

_PERSON_BYTES, _SHOT_BYTES, _CHECK_BYTES = 3, 2, 3
_DARK, _LIGHT, _BETWEEN = 48, 208, 128


def made_up_photo(person: int, shot: int = 0) -> bytes:
    """A JPEG of 64 x 64 pixels, some 400 bytes, that shows this person; the same two numbers always
    give the same bytes. `person` is below PEOPLE, `shot` below SHOTS (OverflowError otherwise)."""
    code = person.to_bytes(_PERSON_BYTES) + shot.to_bytes(_SHOT_BYTES)
    bits = np.unpackbits(np.frombuffer(code + _check(code), dtype=np.uint8))
    levels = np.where(bits, _LIGHT, _DARK).astype(np.uint8).reshape(_SQUARES, _SQUARES)
    squares = Image.fromarray(levels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    out = BytesIO()
    squares.save(out, "JPEG")
    return out.getvalue()


def who_is_shown(picture: Image.Image) -> tuple[int, int] | None:
    """Person and shot of a made-up photo in grey, of whatever size; None for any other picture."""
    small = picture.resize((_SQUARES, _SQUARES), Image.Resampling.BOX)
    levels: NDArray[np.uint8] = np.asarray(small).reshape(-1)
    said = np.packbits(levels > _BETWEEN).tobytes()
    code, check = said[:-_CHECK_BYTES], said[-_CHECK_BYTES:]
    if check != _check(code):
        return None
    return int.from_bytes(code[:_PERSON_BYTES]), int.from_bytes(code[_PERSON_BYTES:])


def _check(code: bytes) -> bytes:
    return sha256(code).digest()[:_CHECK_BYTES]
