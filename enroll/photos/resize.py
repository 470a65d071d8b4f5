"""Pictures made smaller, without a third one in memory beside the old and the new."""

from __future__ import annotations

from PIL import Image

from enroll.photos.pace import check_time

_STRIP_ROWS = 256
"""Lines that are resized at a time. The filter sees beyond their edges, so that no seam shows."""


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """In strips: in one piece Pillow holds a third picture, of the new width and the old height."""
    width, height = size
    smaller = Image.new(picture.mode, size)
    rows = picture.size[1] / height
    for top in range(0, height, _STRIP_ROWS):
        check_time()
        deep = min(_STRIP_ROWS, height - top)
        box = (0.0, top * rows, float(picture.size[0]), min((top + deep) * rows, picture.size[1]))
        strip = picture.resize((width, deep), Image.Resampling.LANCZOS, box=box)
        smaller.paste(strip, (0, top))
    return smaller
