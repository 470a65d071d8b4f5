"""How large a list may be, and how long it may take to read.

Generous for real lists. They keep a file that was made to do harm, or is no list at all, from
taking the memory, the disk and the night. A cell of a column that is not used has no bound of its
own: it may be as long as a line.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any, Protocol, cast

from enroll import clock
from enroll.errors import LocalError, ManifestError, TimeOverError

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
                f"{self._path} holds more than {MOST_COPIED >> 30} GB of text, more than a list "
                "should need; check what it holds, or split it."
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


MOST_COLUMNS = 1_000
"""Columns of a list. Each costs memory in every row that is read ahead."""

LONGEST_LINE = 8 << 20
"""Characters of a line, and so of a cell: a photo of 6 MB as Base64."""

MOST_UNPACKED = 1 << 30
"""Bytes that a gzip file or a part of a workbook may unpack to: ten million rows."""

MOST_COPIED = 1 << 30
"""Bytes of a sheet's copy, and of a workbook's texts, in the folder of temporary files."""

MOST_CELLS = 30_000_000
"""Cells of a sheet: a million rows of thirty columns."""

MOST_TEXTS = 10_000_000
"""Different texts of a workbook, each of which takes 8 bytes of memory."""

LONGEST_CELL = 32_767
"""Characters that a cell of a spreadsheet can hold.
https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3"""

MOST_AT_ONCE = 4 << 20
"""Bytes of rows that are read at once; in memory an empty cell takes 25 times its one byte."""

BLOCK = 1 << 16
"""Bytes that are read at once."""


class Readable(Protocol):
    """What bytes are read from."""

    def readinto(self, buffer: Any, /) -> int | None:
        """Fill the buffer; how many bytes were read, 0 at the end."""

    def fileno(self) -> int:
        """The descriptor of the file below."""


class Bounded(io.RawIOBase):
    """A stream that is read no longer than `until` (monotonic), and to `most` bytes."""

    def __init__(
        self,
        stream: Readable,
        path: Path,
        *,
        until: float = math.inf,
        most: float = math.inf,
    ) -> None:
        self._stream = stream
        self._path = path
        self._until = until
        self._most = most
        self.count = 0
        """Bytes that were read."""

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def readinto(self, buffer: Any) -> int:
        """Raises TimeOverError when the time is up, and ManifestError for a file that goes on."""
        if clock.monotonic() >= self._until:
            raise TimeOverError(
                f"--max-duration was over while {self._path} was still being read; nothing was "
                "sent. Give it more time, or a shorter list."
            )
        read = self._stream.readinto(buffer) or 0
        self.count += read
        if self.count > self._most:
            raise ManifestError(
                f"{self._path} unpacks to more than {MOST_UNPACKED >> 30} GB, more than a list "
                "should need; unpack it and check what it holds, or split it."
            )
        return read


def below(stream: io.BufferedReader) -> Bounded:
    """What `bounded` reads from."""
    return cast(Bounded, stream.raw)


def bounded(
    stream: Readable, path: Path, *, until: float = math.inf, most: float = math.inf
) -> io.BufferedReader:
    """The same with a buffer."""
    return io.BufferedReader(Bounded(stream, path, until=until, most=most), BLOCK)
