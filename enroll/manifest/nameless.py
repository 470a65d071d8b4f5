"""A temporary file without a name, readable by nobody else and gone with the process."""

from __future__ import annotations

import io
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

from enroll.errors import LocalError, ManifestError
from enroll.manifest.bounds import MOST_COPIED

_BLOCK = 1 << 20


class NamelessFile:
    """Bytes that are written one after the other, then read from anywhere."""

    def __init__(self, path: Path) -> None:
        """`path` is the workbook that they are from, for what is said of it."""
        with tempfile.TemporaryFile() as nameless:
            self._descriptor = os.dup(nameless.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._path = path
        self.size = 0

    def put(self, content: bytes) -> None:
        """Append. Raises LocalError for want of space, and ManifestError for more than a list
        needs."""
        self.size += len(content)
        if self.size > MOST_COPIED:
            raise ManifestError(
                f"{self._path} holds more than {MOST_COPIED >> 30} GB of text, which no list "
                "needs; look at what it holds, or split it."
            )
        try:
            with open(self._descriptor, "wb", closefd=False) as file:
                file.write(content)
        except OSError as error:
            raise LocalError(
                f"There is no room for a copy of the sheet in {tempfile.gettempdir()}: "
                f"{error.strerror}. Make room, or name another folder with TMPDIR."
            ) from error

    def at(self, start: int, end: int) -> bytes:
        """The bytes between two places."""
        return os.pread(self._descriptor, end - start, start)

    def open(self) -> io.BufferedReader:
        """Everything from its beginning; several readers do not disturb each other."""
        return io.BufferedReader(_At(self._descriptor), _BLOCK)


class _At(io.RawIOBase):
    """A file read at a place of its own: a duplicate of its descriptor would share one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._place = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = os.pread(self._descriptor, len(buffer), self._place)
        buffer[: len(read)] = read
        self._place += len(read)
        return len(read)
