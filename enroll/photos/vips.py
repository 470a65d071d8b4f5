"""Ordinary JPEGs decoded and shrunk in strips by libvips, where the extra `vips` is installed
and `--memory` has room for it.

That takes two thirds of Pillow's time, and no memory for the whole decoded picture. What is not
ordinary, and all that libvips complains of, is left to Pillow, so that an outcome never depends on
the extra. So are pictures that Pillow's decoder makes half as large or smaller: it is as quick with
these.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType

from PIL import Image

from enroll.photos.bounds import BUDGET
from enroll.photos.decode import BrokenError
from enroll.photos.inspect import Source
from enroll.settings import DEFAULT_MAX_PIXELS

MOST_SCANS = 20
"""Twice what cameras and programs write. Time is only looked at between strips, and the first strip
comes after all scans: so few of the most pixels take a few seconds."""

_STRIP_PIXELS, _LEAST_ROWS = 125_000, 16
"""Pixels of the file's picture that are asked for at a time, and of the smaller one the least rows.
Larger strips take blocks of more than 1 MB, which `bounds.give_back_memory` has returned."""

_LINES_KEPT = 1_500
"""Lines of the file's width, of 3 bytes a pixel, that libvips holds at most, by measurement."""

_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2


def takes(source: Source, opened: Image.Image) -> bool:
    """Whether a photo is one that libvips decodes here. `opened` is Pillow's, of the size that its
    decoder would make it."""
    jpeg, seen = source.jpeg, source.seen
    return (
        BUDGET.for_libvips > 0
        and jpeg is not None
        and seen.common
        and not (seen.truncated or jpeg.interrupted)
        and opened.size == seen.size
        and opened.mode in ("L", "RGB")
        and jpeg.coding in (_BASELINE, _EXTENDED, _PROGRESSIVE)
        and jpeg.scans <= MOST_SCANS
        and jpeg.width * jpeg.height <= DEFAULT_MAX_PIXELS
        and _library() is not None
    )


def strips(source: Source, mode: str, size: tuple[int, int]) -> Iterator[Image.Image]:
    """The photo in Pillow's `mode` and of this size, in its own colours and not turned, in strips
    from top to bottom. They are decoded on the calling thread as they are asked for.

    Raises BrokenError, also for what Pillow would accept.
    """
    vips = _library()
    if vips is None:
        raise BrokenError("libvips cannot be loaded")
    try:
        file = vips.Source.new_from_memory(source.content)
        # Not `thumbnail`: it shows black where the file is damaged, and raises nothing.
        image = vips.Image.jpegload_source(file, access="sequential", fail_on="warning")
        width, height = image.width, image.height
        if (width, height) != size:
            image = image.reduce(width / size[0], height / size[1])
        if (image.width, image.height, image.bands) != (*size, len(mode)):
            raise BrokenError("libvips sees another picture")
        region = vips.Region.new(image)
        share = size[0] * size[1] / (width * height)
        rows = max(round(share * _STRIP_PIXELS / size[0]), _LEAST_ROWS)
        for top in range(0, size[1], rows):
            deep = min(rows, size[1] - top)
            pixels = region.fetch(0, top, size[0], deep)
            yield Image.frombuffer(mode, (size[0], deep), pixels, "raw", mode, 0, 1)
    except vips.Error as error:
        raise BrokenError(str(error)) from error


def working_bytes(source: Source) -> int:
    """Memory that libvips takes beside the picture that is made of its strips."""
    if source.jpeg is None:
        return 0
    width, height = source.jpeg.size
    lines = 3 * width * min(height, _LINES_KEPT)
    return round(lines + source.jpeg.coefficient_bytes)


@lru_cache
def _library() -> ModuleType | None:
    """The binding; None where it finds no libvips."""
    try:
        import pyvips  # noqa: PLC0415  # the extra may not be there
    except (ImportError, OSError):
        return None
    pyvips.cache_set_max(0)  # no photo comes twice
    pyvips.vips_lib.vips_concurrency_set(1)  # the decoders' threads are the only ones
    logging.getLogger("pyvips").propagate = False  # what is wrong, is raised
    found: ModuleType = pyvips
    return found
