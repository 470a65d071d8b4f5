"""The small pictures of a report: as large as its size allows, made on all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice

from PIL import Image

from enroll import threads
from enroll.model import Fault
from enroll.photos import PhotoCode, PhotoStore, thumbnail
from enroll.report.lines import Line
from enroll.report.pairs import FacePair
from enroll.threads import Threads

READERS = 4
"""Photos that are opened at a time beside those that are decoded: they may be on a slow share."""

TRIED = 48
"""Photos of which pictures are made in every size, to see which one fits."""


@dataclass(frozen=True, slots=True)
class Size:
    """The long side of a picture in pixels, and how well it is encoded."""

    side: int
    quality: int


SIZES = (
    *(Size(192, 78), Size(144, 70), Size(112, 62), Size(96, 55)),
    *(Size(80, 50), Size(64, 45), Size(48, 38)),
)
"""The sizes that are tried, the best first: a real portrait takes 4 kB to 0.4 kB as WebP."""

FORMATS: Mapping[str, Mapping[str, int]] = {"WEBP": {"method": 4}, "JPEG": {"optimize": 1}}
"""What pictures are saved as: a spreadsheet knows no WebP."""


@dataclass(slots=True)
class Pictures:
    """Pictures by the recorded path of their photos, and why there is none of others (a code).

    `left_out` photos were not looked at, as there were too many, or no room was left.
    """

    made: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    left_out: int = 0


def wanted_photos(
    attention: Sequence[Line],
    pairs: Sequence[FacePair] = (),
    others: Sequence[str] = (),
    *,
    most: int,
) -> list[str]:
    """The photos of which a report has pictures, in the order in which they get one.

    A pair without pictures says little, so half of the `most` are for pairs first. Photos that were
    missing come last among those that need attention, so that they take no other's place.
    """
    faces = list(dict.fromkeys(side.photo for pair in pairs for side in pair.sides))
    there = sorted(attention, key=lambda line: line.code == PhotoCode.MISSING)
    photos = [*faces[: most // 2], *(line.photo for line in there), *faces, *others]
    return [photo for photo in dict.fromkeys(photos) if photo]


def make_pictures(
    paths: Sequence[str], photos: PhotoStore | None, *, most: int, room: int, form: str = "WEBP"
) -> Pictures:
    """Pictures of the first `most` of these photos, of no more than `room` bytes in all.

    Their size is the best of which all of them fit in, by the first TRIED.
    """
    wanted = list(dict.fromkeys(path for path in paths if path))
    pictures = Pictures(left_out=max(len(wanted) - most, 0))
    wanted = wanted[:most]
    if photos is None or not wanted:
        pictures.left_out += len(wanted)
        return pictures
    pool = Threads(threads.count() + READERS)
    try:
        step = max(len(wanted) // TRIED, 1)
        tried = dict(_small(pool, wanted[::step][:TRIED], photos, SIZES[0].side))
        chosen = _chosen(tried, share=room / len(wanted), form=form)
        rest = [path for path in wanted if path not in tried]
        for path, found in _chain(tried.items(), _small(pool, rest, photos, chosen.side)):
            if isinstance(found, Fault):
                pictures.faults[path] = str(found.code)
                continue
            content = encoded(found, chosen, form)
            room -= len(content)
            if room < 0:
                pictures.left_out += 1
            else:
                pictures.made[path] = content
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return pictures


def _chain(
    *parts: Iterable[tuple[str, Image.Image | Fault]],
) -> Iterator[tuple[str, Image.Image | Fault]]:
    for part in parts:
        yield from part


def _small(
    pool: Threads, paths: Iterable[str], photos: PhotoStore, side: int
) -> Iterator[tuple[str, Image.Image | Fault]]:
    """The photos in small, in order; a few are under way at a time."""
    rest = iter(paths)
    under_way: deque[tuple[str, Future[Image.Image | Fault]]] = deque()
    while True:
        for path in islice(rest, 4 * (threads.count() + READERS) - len(under_way)):
            task = pool.submit(thumbnail, photos.locate(path), photos, side=side)
            under_way.append((path, task))
        if not under_way:
            return
        path, task = under_way.popleft()
        yield path, task.result()


def _chosen(tried: Mapping[str, Image.Image | Fault], *, share: float, form: str) -> Size:
    """The best size in which pictures take their `share` of bytes on average."""
    images = [found for found in tried.values() if not isinstance(found, Fault)]
    for size in SIZES[:-1]:
        bytes_used = sum(len(encoded(image, size, form)) for image in images)
        if bytes_used <= 0.95 * share * len(tried):
            return size
    return SIZES[-1]


def encoded(image: Image.Image, size: Size, form: str) -> bytes:
    """A picture no larger than `size`."""
    small = image.copy()
    small.thumbnail((size.side, size.side), Image.Resampling.BICUBIC)
    out = BytesIO()
    small.save(out, form, quality=size.quality, **FORMATS[form])
    return out.getvalue()
