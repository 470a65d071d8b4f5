"""What decoders raise on broken files, as one exception."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

RAISED = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError),
    *(AttributeError, AssertionError, RuntimeError, MemoryError, struct.error, zlib.error),
    Image.DecompressionBombError,
)
"""What Pillow has been seen to raise on broken files, and its kin. The bytes are in memory, so an
OSError is about them and not about a disk."""


class BrokenError(Exception):
    """Pillow could not make a picture of it."""


@contextmanager
def translating() -> Iterator[None]:
    """Turn what Pillow raises on a broken file into BrokenError."""
    try:
        yield
    except RAISED as error:
        raise BrokenError(str(error)) from error
