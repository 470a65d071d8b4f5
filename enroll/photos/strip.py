"""A file without some pieces, copied only at the end; and pieces read as one file."""

from __future__ import annotations

import io
from collections.abc import Sequence

from enroll.photos.bounds import check_time


class Stripped:
    """A file from which pieces are cut out, from front to back."""

    __slots__ = ("_content", "_from", "_parts", "changed", "dropped")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._from = 0
        self._parts: list[bytes | memoryview] = []
        self.changed = False
        self.dropped = 0
        """By how many bytes it is shorter."""

    def cut_out(self, start: int, end: int, *, instead: bytes = b"") -> None:
        """Replace what is from `start` to `end` by `instead`."""
        if start > self._from:
            self._parts.append(memoryview(self._content)[self._from : start])
        if instead:
            self._parts.append(instead)
        self._from = end
        self.changed = True
        self.dropped += end - start - len(instead)

    def cut_from(self, at: int) -> None:
        """Cut out everything from `at` on."""
        if at < len(self._content):
            self.cut_out(at, len(self._content))

    def joined(self) -> bytes:
        """What is left; the same bytes object, if nothing was cut out.

        The file's bytes are released, so nothing more can be cut out.
        """
        if not self._from:
            return self._content
        left = b"".join([*self._parts, memoryview(self._content)[self._from :]])
        self._content, self._parts, self._from = left, [], 0
        return left


class Pieces(io.RawIOBase):
    """Several pieces of bytes, read as one file without a copy of them all.

    A decoder cannot read more of it when the time of its photo is over.
    """

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        super().__init__()
        self._pieces = pieces
        self._length = sum(map(len, pieces))
        self._at = 0

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Set the position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """As many bytes as there are, up to `size`. Raises TooSlowError."""
        check_time()
        until = self._length if size is None or size < 0 else self._at + size
        found, start = [], 0
        for piece in self._pieces:
            if start < until and self._at < start + len(piece):
                found.append(piece[max(self._at - start, 0) : until - start])
            start += len(piece)
        self._at = max(self._at, min(until, self._length))
        return b"".join(found)
