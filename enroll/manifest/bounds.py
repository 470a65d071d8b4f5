"""Bounds of a manifest: how large it may be, and how long it may take to read.

They are generous for real lists, and keep a hostile file, or one that is not a list at all, from
taking all memory, disk space or time. A cell of an unused column has no bound of its own: it may be
as long as a line.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

from enroll import clock
from enroll.errors import LocalError, ManifestError, TimeOverError

MAX_COLUMNS = 1_000
"""Columns of a list; each takes memory in every row that is read ahead."""

MAX_LINE_LENGTH = 8 << 20
"""Characters of a line, and so of a cell: enough for a photo of 6 MB as Base64."""

MAX_PHOTO_LINE_LENGTH = 96 << 20
"""The same where --columns names a column of photos: enough for the largest photo that is read."""

MAX_UNPACKED_BYTES = 1 << 30
"""Bytes that a gzip file or a part of a workbook may unpack to: ten million rows."""

MAX_COPY_BYTES = 1 << 30
"""Bytes of a sheet's copy, and of a workbook's strings, in the folder of temporary files."""

MAX_CELLS = 30_000_000
"""Cells of a sheet: a million rows of thirty columns."""

MAX_SHARED_STRINGS = 10_000_000
"""Different strings of a workbook; each takes 8 bytes of memory."""

MAX_CELL_LENGTH = 32_767
"""Characters that a cell of a spreadsheet can hold.
https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3"""

MAX_CHUNK_BYTES = 4 << 20
"""Bytes of rows that pandas is given at a time; in memory an empty cell takes 25 times its byte."""

BLOCK = 1 << 16
"""Bytes that are read at a time."""


class Bounded(io.RawIOBase):
    """A stream that can be read until `until` (monotonic), and for at most `max_bytes` bytes."""

    def __init__(
        self,
        stream: io.BufferedIOBase,
        path: Path,
        *,
        until: float = math.inf,
        max_bytes: float = math.inf,
    ) -> None:
        self._stream = stream
        self._path = path
        self._until = until
        self._max_bytes = max_bytes
        self.count = 0
        """Bytes read so far."""

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def readinto(self, buffer: Any) -> int:
        """Raises TimeOverError when the time is over, and ManifestError above `max_bytes`."""
        if clock.monotonic() >= self._until:
            raise TimeOverError(
                f"--max-duration was over while {self._path} was still being read; nothing was "
                "sent. Give it more time, or a shorter list."
            )
        read = self._stream.readinto(buffer) or 0
        self.count += read
        if self.count > self._max_bytes:
            raise ManifestError(
                f"{self._path} unpacks to more than {MAX_UNPACKED_BYTES >> 30} GB, "
                "more than a list should need; unpack it and check what it holds, or split it."
            )
        return read


def bounded(
    stream: io.BufferedIOBase, path: Path, *, until: float = math.inf, max_bytes: float = math.inf
) -> io.BufferedReader[Bounded]:
    """`stream` within bounds, buffered; its `raw` counts the bytes read."""
    return io.BufferedReader(Bounded(stream, path, until=until, max_bytes=max_bytes), BLOCK)


class ScratchFile:
    """A temporary file without a name: written from start to end, then read from any place."""

    def __init__(self, path: Path) -> None:
        """`path` is what the bytes come from, for messages."""
        with tempfile.TemporaryFile() as nameless:
            self._descriptor = os.dup(nameless.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._path = path
        self.size = 0

    def write(self, content: bytes | bytearray) -> None:
        """Append. Raises LocalError when the disk is full, ManifestError above MAX_COPY_BYTES."""
        self.size += len(content)
        if self.size > MAX_COPY_BYTES:
            raise ManifestError(
                f"{self._path} holds more than {MAX_COPY_BYTES >> 30} GB of text, more than a list "
                "should need; check what it holds, or split it."
            )
        try:
            with open(self._descriptor, "wb", closefd=False) as file:
                file.write(content)
        except OSError as error:
            raise LocalError(
                f"There is no room for a copy of the list in {tempfile.gettempdir()}: "
                f"{error.strerror}. Make room, or name another folder with TMPDIR."
            ) from error

    def read_range(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`."""
        return os.pread(self._descriptor, end - start, start)

    def open(self) -> io.BufferedReader:
        """A reader of the whole file, independent of other readers."""
        return io.BufferedReader(_ScratchReader(self._descriptor), 1 << 20)


class _ScratchReader(io.RawIOBase):
    """Reads a file at its own offset, which a duplicate of the descriptor would share."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            place += self._place
        elif whence == os.SEEK_END:
            place += os.fstat(self._descriptor).st_size
        self._place = place
        return place

    def readinto(self, buffer: Any) -> int:
        read = os.pread(self._descriptor, len(buffer), self._place)
        buffer[: len(read)] = read
        self._place += len(read)
        return len(read)
