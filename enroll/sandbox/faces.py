"""Finds the face in a picture, reduces it to a likeness, and ranks faces by that."""

from __future__ import annotations

import os
import struct
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from io import BytesIO
from threading import Lock
from typing import Any

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from .matchers import CROP, Box, Likeness, Matcher
from .messages import RefusalError


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSizes:
    """Which pictures are accepted: bytes, pixels a side, and formats."""

    max_bytes: int = 2 * 1024 * 1024
    min_side: int = 48
    max_side: int = 4096
    formats: frozenset[str] = frozenset({"JPEG", "PNG", "BMP"})


DOCUMENTED_SIZES = PictureSizes()

# The classes are called directly because Image.open warns about large pictures before
# their size can be looked at, and a stand-in must not raise warnings inside a user's tests.
_FORMATS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"BM", BmpImageFile),
    (b"GIF8", GifImageFile),
)
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error)


def grey_picture(
    content: bytes, *, field: str, around: int, sizes: PictureSizes = DOCUMENTED_SIZES
) -> Image.Image:
    """Decode a picture of an accepted format (by content) to mode `L`.

    A JPEG may come out smaller by 2, 4 or 8, yet with no side below `around`, because the
    decoder does that at no cost. The Exif orientation is *not* applied: the vendor does not say,
    and this is the stricter choice, which exposes a client that leaves rotation to the service.

    Raises `RefusalError` with the code that the vendor's other services use; `field` is its detail.
    """
    if len(content) > sizes.max_bytes:
        raise RefusalError("IMAGE_FILE_TOO_LARGE", field, rule="bytes_refused")
    kind = next((cls for magic, cls in _FORMATS if content.startswith(magic)), None)
    if kind is None or kind.format not in sizes.formats:
        known = kind is not None and kind.format in DOCUMENTED_SIZES.formats
        rule = f"{kind.format}".lower() if kind is not None and known else "format"
        raise RefusalError("IMAGE_ERROR_UNSUPPORTED_FORMAT", field, rule=rule)
    try:
        picture = kind(BytesIO(content))
        if min(picture.size) < sizes.min_side:
            raise RefusalError("INVALID_IMAGE_SIZE", field, rule="side_47")
        if max(picture.size) > sizes.max_side:
            raise RefusalError("INVALID_IMAGE_SIZE", field, rule="side_4097")
        picture.draft("L", (around, around))
        picture.load()
        return _grey(picture)
    except _BROKEN as exc:
        raise RefusalError("IMAGE_ERROR_UNSUPPORTED_FORMAT", field) from exc


def _grey(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16 bits a pixel; convert("L") would clip at 255 instead of scaling.
        return picture.convert("I").point(lambda level: level / 256).convert("L")
    return picture.convert("L")


class LikenessIndex:
    """A matrix with one row per face. Not safe to share between threads; `Account` locks."""

    def __init__(self, matcher: Matcher = CROP) -> None:
        self._matcher = matcher
        self._matrix: NDArray[np.float32] = np.empty((64, matcher.length), dtype=np.float32)
        self._visible_from: NDArray[np.float64] = np.empty(64, dtype=np.float64)
        self._tokens: list[str] = []
        self._row_of: dict[str, int] = {}

    def add(self, token: str, likeness: Likeness, *, visible_from: float = 0.0) -> None:
        """Make the face findable from `visible_from` on (UNIX seconds)."""
        row = len(self._tokens)
        if row == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.empty_like(self._matrix)])
            self._visible_from = np.concatenate(
                [self._visible_from, np.empty_like(self._visible_from)]
            )
        self._matrix[row] = likeness
        self._visible_from[row] = visible_from
        self._tokens.append(token)
        self._row_of[token] = row

    def remove(self, token: str) -> None:
        """Remove a face; the last row takes its place."""
        row, last = self._row_of.pop(token), len(self._tokens) - 1
        if row != last:
            self._matrix[row] = self._matrix[last]
            self._visible_from[row] = self._visible_from[last]
            self._tokens[row] = self._tokens[last]
            self._row_of[self._tokens[row]] = row
        self._tokens.pop()

    def search(
        self, likeness: Likeness, *, now: float, limit: int, threshold: float
    ) -> list[tuple[str, float]]:
        """Tokens and scores (0 to 100, three decimals), best first; 100 is the same picture."""
        count = len(self._tokens)
        scores = np.round(self._matcher.scores(self._matrix[:count], likeness), 3)
        scores[self._visible_from[:count] > now] = -1.0
        found = np.flatnonzero(scores >= max(threshold, 0.0))
        best = found[np.argsort(-scores[found], kind="stable")[:limit]]
        return [(self._tokens[row], float(scores[row])) for row in best]


# Measured on real photos: at 640 pixels every face scores 0.66 or more, what is no face at most
# 0.3; 20 to 55 ms a picture. Below 80 pixels the detector is blind, hence the lower bound.
DETECT_SIDE = 640
_SMALLEST_SIDE = 320
_LEAST_SCORE = 0.35
_CACHED_PICTURES = 20_000


@cache
def shared_finder(
    matcher: Matcher, *, detect: bool, sizes: PictureSizes = DOCUMENTED_SIZES
) -> FaceFinder:
    """The finder of this process with this matcher: all sandboxes share its cache."""
    return FaceFinder(matcher, detect=detect, sizes=sizes)


class FaceFinder:
    """Finds the likeness of the largest face in a picture; the same bytes are decoded once.

    With `detect=False` the middle of every picture counts as a face, which makes soak tests
    with very many different pictures cheap. Safe to share between threads.
    """

    def __init__(
        self,
        matcher: Matcher = CROP,
        *,
        detect: bool,
        sizes: PictureSizes = DOCUMENTED_SIZES,
    ) -> None:
        self.matcher = matcher
        self._sizes = sizes
        self._detect = detect and matcher.of_faces
        self._cache: OrderedDict[tuple[bytes, bool], Likeness | RefusalError] = OrderedDict()
        self._lock = Lock()

    def find(self, content: bytes, *, field: str, turn: bool) -> tuple[bytes, Likeness]:
        """SHA-256 of `content`, and the likeness of its largest face.

        `turn` looks again at the picture turned by 90, 180 and 270 degrees when nothing is
        found. Raises `RefusalError`: `NO_FACE_FOUND` or one of the image errors.
        """
        digest = sha256(content).digest()
        key = digest, turn
        with self._lock:
            known = self._cache.get(key)
            if known is not None:
                self._cache.move_to_end(key)
        if known is None:
            known = self._look(content, field=field, turn=turn)
            with self._lock:
                self._cache[key] = known
                if len(self._cache) > _CACHED_PICTURES:
                    self._cache.popitem(last=False)
        if isinstance(known, RefusalError):
            raise RefusalError(known.code, known.detail and field, rule=known.rule)
        return digest, known

    def _look(self, content: bytes, *, field: str, turn: bool) -> Likeness | RefusalError:
        try:
            picture = _scaled(
                grey_picture(content, field=field, around=DETECT_SIDE, sizes=self._sizes)
            )
        except RefusalError as refusal:
            return refusal
        for degrees in (0, 90, 180, 270) if turn else (0,):
            turned = picture.rotate(degrees, expand=True) if degrees else picture
            box = self._largest_face(turned)
            likeness = None if box is None else self._described(turned, box)
            if likeness is not None:
                return likeness
        return RefusalError("NO_FACE_FOUND")

    def _described(self, picture: Image.Image, box: Box) -> Likeness | None:
        if not self._detect:
            return self.matcher.describe(picture, box)
        return _DETECTING.submit(self.matcher.describe, picture, box).result()

    def _largest_face(self, picture: Image.Image) -> Box | None:
        """The box of the largest face as left, top, right, bottom within the picture."""
        width, height = picture.size
        if not self._detect:
            return width // 4, height // 4, 3 * width // 4, 3 * height // 4
        found = _DETECTING.submit(_boxes, picture).result()
        if not found:
            return None
        face = max(found, key=lambda box: box.area())
        return (
            max(face.left(), 0),
            max(face.top(), 0),
            min(face.right() + 1, width),
            min(face.bottom() + 1, height),
        )


_MINE = threading.local()
"""A detector of each thread's own: threads must not share one, and each takes 0.3 s to make."""


def _make_detector() -> None:
    _MINE.detector = dlib.get_frontal_face_detector()


_DETECTING = ThreadPoolExecutor(
    os.cpu_count() or 1, thread_name_prefix="detector", initializer=_make_detector
)
"""One thread per core is enough, since each keeps its core busy."""


def _boxes(picture: Image.Image) -> Any:
    """What the detector takes for faces, as dlib's rectangles."""
    found, _scores, _which = _MINE.detector.run(np.asarray(picture), 0, _LEAST_SCORE)
    return found


def _scaled(picture: Image.Image) -> Image.Image:
    """The picture with its long side between the bounds between which faces are looked for."""
    longest = max(picture.size)
    wanted = min(max(longest, _SMALLEST_SIDE), DETECT_SIDE)
    if wanted == longest:
        return picture
    width, height = (max(round(side * wanted / longest), 1) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)
