"""Looks for a face in a photo as it would be sent, before a call is paid for: `--precheck`.

The detector is dlib's for frontal faces (histograms of gradients), which the sandbox extra brings.
It finds whether there is a face and how large, and nothing of whose it is.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageFile

from enroll.errors import UsageError
from enroll.model import Fault
from enroll.photos import decision
from enroll.photos.bounds import DECODERS, check_time
from enroll.photos.decision import RefusedError
from enroll.photos.decode import (
    BrokenError,
    decoding_bytes,
    load,
    open_picture,
    scaled,
    translating,
)
from enroll.photos.form import Form
from enroll.photos.jpeg import walk, without_end
from enroll.photos.strip import Pieces
from enroll.settings import Precheck, Preparation, decoding_limit

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

SURE_SCORE = 0.35
"""What a second face must have: of pictures without faces none had more than 0.3."""

SIMILAR = 2 / 3
"""From this share of the largest face's side on another one may be meant as well. The detector's
sizes go by steps of 6/5, and faces of the same size were seen to differ by two of these."""

_DETECTING_BYTES = 40_000_000
"""Memory for a look at FINE_SIDE, by measurement: 25 MB, and the picture."""

_TURNS = (0, 90, 180, 270)
"""What the service tries with `multi_oriented_detection`, in this order."""

_FORMS = {"image/jpeg": Form.JPEG, "image/png": Form.PNG, "image/bmp": Form.BMP}


@dataclass(frozen=True, slots=True)
class Face:
    """A face's side in pixels of the photo, and how sure the detector is."""

    side: int
    score: float


def check_installed(preparation: Preparation) -> None:
    """Raise UsageError where faces are to be looked for, and there is nothing to do it with."""
    if preparation.precheck == Precheck.OFF:
        return
    try:
        importlib.import_module("numpy")
        importlib.import_module("dlib")
    except ImportError as error:
        raise UsageError(
            f"--precheck needs the package {error.name}, which the sandbox extra installs: "
            "pip install 'enroll[sandbox]'."
        ) from error


def doubt_about(content: bytes, media_type: str, preparation: Preparation) -> Fault | None:
    """Why the service would probably not enroll the person in the photo; None if it would.

    `content` is what would be sent. Nothing is checked unless `preparation` asks for it.
    """
    if preparation.precheck == Precheck.OFF:
        return None
    limit = decoding_limit(preparation.max_pixels)
    try:
        picture, need = _opened(content, _FORMS[media_type], preparation)
        if need > limit:
            return decision.too_much_memory(picture.size, need)
        turn = preparation.multi_oriented_detection
        faces = DECODERS.run(lambda _: _faces(picture, turn=turn), need=need)
    except BrokenError as error:
        if "truncated" in str(error) and _FORMS[media_type] is Form.JPEG:
            return decision.cut_off(completable=preparation.precheck == Precheck.HOLD)
        return decision.undecodable(str(error))
    except RefusedError as error:
        return error.fault
    return _judged(faces, preparation)


def _judged(faces: list[Face], preparation: Preparation) -> Fault | None:
    if not faces:
        return decision.no_face(preparation)
    largest = faces[0].side
    similar = [one for one in faces if one.side >= SIMILAR * largest and one.score >= SURE_SCORE]
    if len(similar) > 1:
        return decision.several_faces(len(similar), preparation)
    min_face = preparation.min_face
    return decision.small_face(largest, min_face) if largest < min_face else None


def _opened(
    content: bytes, form: Form, preparation: Preparation
) -> tuple[ImageFile.ImageFile, int]:
    """The picture, and the memory for a look at it; a JPEG is shrunk by its decoder as far as the
    finer look allows."""
    coefficients: float = 0
    file: bytes | Pieces = content
    if form is Form.JPEG:
        found = walk(content)
        coefficients = found.coefficient_bytes
        file = content if preparation.accept_truncated else without_end(content, found)
    picture = open_picture(file, form)
    if form is Form.JPEG:
        with translating():
            picture.draft("L", scaled(picture.size, FINE_SIDE / max(picture.size)))
    need = decoding_bytes(picture, form, coefficients=coefficients) + _DETECTING_BYTES
    return picture, need


def _faces(picture: ImageFile.ImageFile, *, turn: bool) -> list[Face]:
    """The faces, the largest first, of the first look that finds any; on a decoder's thread."""
    try:
        load(picture)
        with translating():
            grey = picture.convert("L")
    finally:
        picture.close()
    for look, scale in _looks(grey, turn=turn):
        found = [Face(round(side * scale), score) for side, score in _detected(look)]
        if found:
            return sorted(found, key=lambda face: -face.side)
    return []


def _looks(grey: Image.Image, *, turn: bool) -> Iterator[tuple[Image.Image, float]]:
    """Pictures to look at, and the pixels of the photo for one of each."""
    longest = max(grey.size)
    coarse = min(max(longest, _LEAST_COARSE), COARSE_SIDE)
    fine = min(_LARGEST_SCALE * longest, FINE_SIDE)
    for side in sorted({coarse, max(fine, coarse)}):
        check_time()
        resized = grey.resize(scaled(grey.size, side / longest), Image.Resampling.BILINEAR)
        for degrees in _TURNS if turn else _TURNS[:1]:
            yield resized.rotate(degrees, expand=True) if degrees else resized, longest / side


class _Mine(threading.local):
    """A thread's detector: threads must not share one, and making it takes 0.4 s."""

    detector: Any = None


_MINE = _Mine()


def _detected(grey: Image.Image) -> list[tuple[int, float]]:
    """Sides and scores of the faces in a picture. The interpreter is free meanwhile."""
    import dlib  # noqa: PLC0415  # of an extra that may be missing, and needed only here
    import numpy as np  # noqa: PLC0415

    if _MINE.detector is None:
        _MINE.detector = dlib.get_frontal_face_detector()
    boxes, scores, _ = _MINE.detector.run(np.asarray(grey), 0, LEAST_SCORE)
    return [(box.width(), score) for box, score in zip(boxes, scores, strict=True)]
