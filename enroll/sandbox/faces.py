"""Finds the face in a picture and reduces it to what the stand-in compares.

This is no biometric matcher. The detector is a real one (dlib's HOG frontal detector), but the
likeness is that of two small grey crops: good enough to rank the same picture first and to tell
most people apart, and worthless for telling who somebody is.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from queue import Empty, LifoQueue
from threading import Lock
from typing import Any

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .pictures import grey_picture
from .replies import RefusalError

Likeness = NDArray[np.float32]
"""A unit vector; the dot product of two is the likeness of the crops."""

CROP_SIDE = 16
LIKENESS_LENGTH = CROP_SIDE * CROP_SIDE

# Measured on real photos: at 640 pixels every face scores 0.66 or more, what is no face at most
# 0.3; 20 to 55 ms a picture. Below 80 pixels the detector is blind, hence the lower bound.
DETECT_SIDE = 640
_SMALLEST_SIDE = 320
_LEAST_SCORE = 0.35
_CACHED_PICTURES = 20_000


@cache
def shared_finder(*, detect: bool) -> FaceFinder:
    """The finder of this process: what one sandbox has looked at, the next one knows."""
    return FaceFinder(detect=detect)


class FaceFinder:
    """Picture bytes to the likeness of their largest face; the same bytes are looked at once.

    With `detect=False` the middle of every picture counts as a face, which makes soak tests
    with very many different pictures cheap. Safe to share between threads.
    """

    def __init__(self, *, detect: bool) -> None:
        self._detect = detect
        self._cache: OrderedDict[tuple[bytes, bool], Likeness | RefusalError] = OrderedDict()
        self._lock = Lock()

    def find(self, content: bytes, *, field: str, turn: bool) -> tuple[bytes, Likeness]:
        """SHA-256 of `content`, and the likeness of its largest face.

        `turn` looks again at the picture turned by 90, 180 and 270 degrees when nothing is
        found. Raises `RefusalError`: `NO_FACE_FOUND` or one of the image errors.
        """
        digest = sha256(content).digest()
        known = self._recall((digest, turn))
        if known is None:
            known = self._look(content, field=field, turn=turn)
            self._remember((digest, turn), known)
        if isinstance(known, RefusalError):
            raise RefusalError(known.code, known.detail and field, status=known.status)
        return digest, known

    def _look(self, content: bytes, *, field: str, turn: bool) -> Likeness | RefusalError:
        try:
            picture = _scaled(grey_picture(content, field=field, around=DETECT_SIDE))
        except RefusalError as refusal:
            return refusal
        for degrees in (0, 90, 180, 270) if turn else (0,):
            turned = picture.rotate(degrees, expand=True) if degrees else picture
            box = self._largest_face(turned)
            if box is not None:
                return _likeness(turned, box)
        return RefusalError("NO_FACE_FOUND")

    def _largest_face(self, picture: Image.Image) -> tuple[int, int, int, int] | None:
        """The box of the largest face as left, top, right, bottom within the picture."""
        width, height = picture.size
        if not self._detect:
            return width // 4, height // 4, 3 * width // 4, 3 * height // 4
        with _DETECTORS.borrowed() as detector:
            found, _scores, _which = detector.run(np.asarray(picture), 0, _LEAST_SCORE)
        if not found:
            return None
        face = max(found, key=lambda box: box.area())
        return (
            max(face.left(), 0),
            max(face.top(), 0),
            min(face.right() + 1, width),
            min(face.bottom() + 1, height),
        )

    def _recall(self, key: tuple[bytes, bool]) -> Likeness | RefusalError | None:
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
            return self._cache.get(key)

    def _remember(self, key: tuple[bytes, bool], found: Likeness | RefusalError) -> None:
        with self._lock:
            self._cache[key] = found
            if len(self._cache) > _CACHED_PICTURES:
                self._cache.popitem(last=False)


class _Detectors:
    """Detectors to borrow: they must not be shared between threads, and take 0.3 s to make.

    One a core is enough, since each keeps its core busy.
    """

    def __init__(self) -> None:
        self._idle: LifoQueue[Any] = LifoQueue()
        self._to_make = os.cpu_count() or 1
        self._lock = Lock()

    @contextmanager
    def borrowed(self) -> Iterator[Any]:
        """A detector for the duration of the block."""
        detector = self._take()
        try:
            yield detector
        finally:
            self._idle.put(detector)

    def _take(self) -> Any:
        try:
            return self._idle.get_nowait()
        except Empty:
            with self._lock:
                make = self._to_make > 0
                self._to_make -= make
            return dlib.get_frontal_face_detector() if make else self._idle.get()


_DETECTORS = _Detectors()


def _scaled(picture: Image.Image) -> Image.Image:
    """The picture with its long side between the bounds between which faces are looked for."""
    longest = max(picture.size)
    wanted = min(max(longest, _SMALLEST_SIDE), DETECT_SIDE)
    if wanted == longest:
        return picture
    width, height = (max(round(side * wanted / longest), 1) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def _likeness(picture: Image.Image, box: tuple[int, int, int, int]) -> Likeness:
    crop = picture.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BOX, box=box)
    values = np.asarray(crop, dtype=np.float32).reshape(-1)
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    if length == 0.0:  # one flat colour, which only detect=False lets through
        values = np.zeros(LIKENESS_LENGTH, dtype=np.float32)
        values[0] = length = 1.0
    return values / np.float32(length)
