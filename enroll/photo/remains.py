"""What is left of a file's bytes when pieces of it are left out; without a copy until the end."""

from __future__ import annotations


class Remains:
    """Pieces are left out from the front to the back."""

    __slots__ = ("_content", "_from", "_parts", "dropped")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._from = 0
        self._parts: list[bytes | memoryview] = []
        self.dropped = 0
        """How many bytes fewer they are."""

    def leave_out(self, start: int, end: int, *, instead: bytes = b"") -> None:
        """Have `instead` in the place of what stands from `start` to `end`."""
        if start > self._from:
            self._parts.append(memoryview(self._content)[self._from : start])
        if instead:
            self._parts.append(instead)
        self._from = end
        self.dropped += end - start - len(instead)

    def end(self, at: int) -> None:
        """Leave out everything from `at` on."""
        if at < len(self._content):
            self.leave_out(at, len(self._content))

    @property
    def changed(self) -> bool:
        """Whether anything was left out."""
        return self._from > 0

    def joined(self) -> bytes:
        """What is left; the very bytes that there were, if nothing was left out."""
        if not self.changed:
            return self._content
        return b"".join([*self._parts, memoryview(self._content)[self._from :]])
