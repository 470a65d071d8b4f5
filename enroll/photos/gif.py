"""GIF: its size, and what is left when all that stands before its first picture is cut out."""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import error, unpack_from

MOST_BLOCKS = 100_000
"""Blocks of up to 255 bytes before the picture: 25 MB of comments. Each is a step of Python's."""

_EXTENSION, _PICTURE, _TRAILER = 0x21, 0x2C, 0x3B
_CONTROL = 0xF9
"""The extension that says which colour is transparent."""


class NotAGifError(Exception):
    """There is no picture in it, or too much before it."""


class EndMissingError(Exception):
    """The file ends before the picture begins."""


@dataclass(frozen=True, slots=True)
class Gif:
    """The size of the canvas with its first picture, and where the parts begin and end that show
    it."""

    size: tuple[int, int]
    parts: tuple[tuple[int, int], ...] = field(repr=False)

    def alone(self, content: bytes) -> bytes:
        """A file without what stands before its first picture."""
        return b"".join(memoryview(content)[at:end] for at, end in self.parts)


def walk(content: bytes) -> Gif:
    """Go through the blocks up to the first picture. Raises EndMissingError and NotAGifError."""
    try:
        return _walked(content)
    except (error, IndexError) as why:
        raise EndMissingError from why


def canvas_of(head: bytes) -> tuple[int, int]:
    """The size by the file's first bytes, of which a picture may be larger."""
    width, height = unpack_from("<HH", head, 6)
    return width, height


def _walked(content: bytes) -> Gif:
    width, height, flags = unpack_from("<HHB", content, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    parts = [(0, at)]
    control: tuple[int, int] | None = None
    label, begin = None, at
    for _ in range(MOST_BLOCKS):
        if label is not None:  # within an extension
            length = content[at]
            at += 1 + length
            if not length:
                control = (begin, at) if label == _CONTROL else control
                label = None
        elif content[at] == _EXTENSION:
            label, begin, at = content[at + 1], at, at + 2
        elif content[at] == _PICTURE:
            left, top, wide, high = unpack_from("<HHHH", content, at + 1)
            parts += [control] if control is not None else []
            size = max(width, left + wide), max(height, top + high)
            return Gif(size, (*parts, (at, len(content))))
        elif content[at] == _TRAILER:
            raise NotAGifError("there is no picture in it")
        else:
            at += 1  # decoders skip what is no block
    raise NotAGifError(f"there are more than {MOST_BLOCKS:,} blocks before its picture")
