"""What decoders raise on broken files, as one exception; and what they print, kept quiet."""

from __future__ import annotations

import ctypes
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from PIL import Image, _imaging

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


def hush_libtiff() -> None:
    """Have libtiff print nothing of broken files, in this whole process, where it can be told so.

    Pillow lets it write to standard error from within; what it raises says that there was an error.
    The library is found by its symbol among those that Pillow's own one is linked with.
    """
    with suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)
