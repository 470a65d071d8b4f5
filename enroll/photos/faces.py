"""The faces in a grey picture, and measures of one: how large, sharp, bright, upright and whole.

The detector is dlib's for frontal faces (histograms of gradients). It says where a face is, and
nothing of whose it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from enroll.model import FaceMeasures
from enroll.photos.bounds import check_time
from enroll.photos.decode import scaled

COARSE_SIDE = 640
"""Pixels of the long side at which a face is looked for first: a portrait's is found, in 35 ms."""

FINE_SIDE = 1600
"""The same where none was found, in 180 ms. The detector sees faces from 80 pixels on, so this one
finds what takes up a twentieth of the long side."""

_LARGEST_SCALE = 2
"""How far a photo is enlarged at most: blurred beyond that, it shows no more faces."""

_LEAST_COARSE = 320

LEAST_SCORE = 0.0
"""dlib's own bound. It is lower than the stand-in's: holding a good photo back costs more than a
call."""

_TURNS = (0, 90, 180, 270)
"""What the service tries with `multi_oriented_detection`, in this order."""


@dataclass(frozen=True, slots=True)
class Face:
    """The box of a face in pixels of a picture, from temple to temple and from the eyebrows to the
    chin, and how sure the detector is. It may reach beyond the edges of the picture."""

    left: float
    top: float
    right: float
    bottom: float
    score: float

    @property
    def side(self) -> float:
        """Pixels from temple to temple."""
        return self.right - self.left

    def scaled(self, scale: float) -> Face:
        """The same face in a picture of another size."""
        return Face(
            left=self.left * scale,
            top=self.top * scale,
            right=self.right * scale,
            bottom=self.bottom * scale,
            score=self.score,
        )


def find_faces(grey: Image.Image, *, turn: bool) -> tuple[Image.Image, list[Face]]:
    """The faces, the largest first, of the first look that finds any, in pixels of the picture that
    is returned with them: `grey`, or with `turn` perhaps `grey` turned by a right angle."""
    for degrees, look, scale in _looks(grey, turn=turn):
        found = [face.scaled(scale) for face in _detected(look)]
        if found:
            found.sort(key=lambda face: -face.side)
            return _turned(grey, degrees), found
    return grey, []


def _looks(grey: Image.Image, *, turn: bool) -> Iterator[tuple[int, Image.Image, float]]:
    """By how many degrees a look is turned, the look, and the pixels of `grey` for one of it."""
    longest = max(grey.size)
    coarse = min(max(longest, _LEAST_COARSE), COARSE_SIDE)
    fine = min(_LARGEST_SCALE * longest, FINE_SIDE)
    for side in sorted({coarse, max(fine, coarse)}):
        check_time()
        resized = grey.resize(scaled(grey.size, side / longest), Image.Resampling.BILINEAR)
        for degrees in _TURNS if turn else _TURNS[:1]:
            yield degrees, _turned(resized, degrees), longest / side


def _turned(picture: Image.Image, degrees: int) -> Image.Image:
    return picture.rotate(degrees, expand=True) if degrees else picture


_SHARPNESS_SIDE = 64
"""Pixels of a face's width at which its sharpness is measured. At 96 and 128 a face that is 60
pixels wide looks blurred; at 48 less of a harmful blur is left to see."""

_INSIDE = 0.1
"""How much of a face's width is left out on each side before light and sharpness are measured: it
may be hair or background."""

_TILT_SIDE, _TILT_AROUND = 80, 1.4
"""Pixels of a face's width, and widths of the picture around it, for a look at its tilt. The
detector sees no smaller face. A look takes a millisecond."""

_TILT_ARM = 40
"""By how many degrees a face is turned each way to see its tilt. There the detector's score falls
by a point for each 11 degrees, and alike on both sides of a face that is upright."""

_DEGREES_PER_POINT = 11 / 2
"""Of tilt, for a point of difference between both sides."""

_TILT_STEPS, _LARGEST_STEP, _SMALLEST_STEP = 5, 25.0, 3.0
"""The first step that is smaller ends it: four looks are usual. Over 170 rotated photos the error
had a standard deviation of 2.2 degrees, and was 7.5 at most."""

_WORST_SCORE = -1.0


def measure(picture: Image.Image, face: Face, *, scale: float) -> FaceMeasures:
    """Measure a face in a grey picture, of which one pixel is `scale` of the photo's."""
    light, sharpness = _light_and_sharpness(picture, face)
    nearest = min(face.left, face.top, picture.width - face.right, picture.height - face.bottom)
    return FaceMeasures(
        width=round(face.side * scale),
        sharpness=sharpness,
        shadows=light[0],
        highlights=light[1],
        margin=nearest / face.side,
        tilt=_tilt(picture, face),
    )


def _light_and_sharpness(picture: Image.Image, face: Face) -> tuple[tuple[int, int], float]:
    import numpy as np  # noqa: PLC0415  # of an extra that may be missing, and needed only here

    inside = _INSIDE * face.side
    box = (
        max(face.left + inside, 0),
        max(face.top + inside, 0),
        min(face.right - inside, picture.width),
        min(face.bottom - inside, picture.height),
    )
    side = round(_SHARPNESS_SIDE * (1 - 2 * _INSIDE))
    crop = picture.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    levels = np.asarray(crop, dtype=np.float32)
    shadows, highlights = np.percentile(levels, (25, 75))
    middle = 2 * levels[1:-1, 1:-1]
    across = levels[1:-1, 2:] + levels[1:-1, :-2] - middle
    down = levels[2:, 1:-1] + levels[:-2, 1:-1] - middle
    # Motion blurs in one direction only, so the blurrier one counts. Divided by the variance of the
    # levels, it is the same for a dark face and a bright one.
    sharpness = min(across.var(), down.var()) / max(levels.var(), 1.0)
    return (round(shadows), round(highlights)), 1000 * float(sharpness)


def _tilt(picture: Image.Image, face: Face) -> float:
    """Degrees by which a face is turned clockwise, by where the detector sees it equally well when
    it is turned as far to one side as to the other."""
    crop = _square(picture, face)
    tilt = 0.0
    for _ in range(_TILT_STEPS):
        check_time()
        difference = _score(crop, tilt + _TILT_ARM) - _score(crop, tilt - _TILT_ARM)
        step = min(max(difference * _DEGREES_PER_POINT, -_LARGEST_STEP), _LARGEST_STEP)
        tilt += step
        if abs(step) < _SMALLEST_STEP:
            break
    return tilt


def _square(picture: Image.Image, face: Face) -> Image.Image:
    """A square around a face, large enough to be turned; grey where it leaves the picture."""
    around = _TILT_AROUND * 2**0.5 * face.side / 2
    share = _TILT_SIDE / face.side
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    left, top = max(x - around, 0), max(y - around, 0)
    right, bottom = min(x + around, picture.width), min(y + around, picture.height)
    size = scaled((round(right - left), round(bottom - top)), share)
    part = picture.resize(
        size, Image.Resampling.BILINEAR, box=(left, top, right, bottom), reducing_gap=2.0
    )
    side = round(2 * around * share)
    square = Image.new("L", (side, side), 128)
    square.paste(part, (round((left - x + around) * share), round((top - y + around) * share)))
    return square


def _score(crop: Image.Image, degrees: float) -> float:
    """How sure the detector is of the face in the middle, turned anticlockwise by `degrees`."""
    cut = round((crop.width - _TILT_SIDE * _TILT_AROUND) / 2)
    turned = crop.rotate(degrees, Image.Resampling.BILINEAR)
    look = turned.crop((cut, cut, crop.width - cut, crop.height - cut))
    return max((face.score for face in _detected(look, _WORST_SCORE)), default=_WORST_SCORE)


class _Mine(threading.local):
    """A thread's detector: threads must not share one, and making it takes 0.4 s."""

    detector: Any = None


_MINE = _Mine()


def _detected(grey: Image.Image, least: float = LEAST_SCORE) -> list[Face]:
    """The faces in a picture that score `least` or more. The interpreter is free meanwhile."""
    import dlib  # noqa: PLC0415  # of an extra that may be missing, and needed only here
    import numpy as np  # noqa: PLC0415

    if _MINE.detector is None:
        _MINE.detector = dlib.get_frontal_face_detector()
    boxes, scores, _ = _MINE.detector.run(np.asarray(grey), 0, least)
    return [
        Face(box.left(), box.top(), box.right() + 1, box.bottom() + 1, score)
        for box, score in zip(boxes, scores, strict=True)
    ]
