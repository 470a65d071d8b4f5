"""Looks at the face in a photo as it would be sent, before a call is paid for: `--precheck`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import ImageFile

from enroll.errors import UsageError
from enroll.model import FaceMeasures, Fault
from enroll.photos import decision
from enroll.photos.bounds import DECODERS
from enroll.photos.decision import RefusedError
from enroll.photos.decode import (
    BrokenError,
    decoding_bytes,
    load,
    open_picture,
    scaled,
    translating,
)
from enroll.photos.faces import FINE_SIDE, Face, find_faces, measure
from enroll.photos.form import Form
from enroll.photos.jpeg import walk, without_end
from enroll.photos.strip import Pieces
from enroll.settings import Precheck, Preparation, decoding_limit

SURE_SCORE = 0.35
"""What a second face must have: of pictures without faces none had more than 0.3."""

SIMILAR = 2 / 3
"""From this share of the largest face's side on another one may be meant as well. The detector's
sizes go by steps of 6/5, and faces of the same size were seen to differ by two of these."""

# The limits of what is measured. 15 real photos of seven people were blurred, shrunk, darkened,
# turned and cropped. The limits are where dlib's descriptors were further from those of the same
# person's other photos by 0.1, or where the stand-in began to miss faces. Unchanged photos are 0.35
# apart; from 0.6 on, dlib sees another person. docs/manifest.md has the numbers.

LEAST_WIDTH = 30
"""Pixels, unless `min_face` says otherwise."""

LEAST_MARGIN = -0.2
"""Widths of the face. The detector's boxes go by steps of a twelfth of that."""

LARGEST_TILT = 30.0
"""Degrees. Faces were lost from 40 on, and the measure may be 7.5 off."""

LEAST_HIGHLIGHTS = 30
"""Of 255, at six stops of underexposure. Real photos that are well lit had 126 and more, the demo's
darkest skin 86."""

LARGEST_SHADOWS = 245
"""Of 255, at three stops of overexposure: nearly everything in the face is plain white."""

LEAST_SHARPNESS = 8.0
"""Photos that were not blurred had 58 to 200."""

_DETECTING_BYTES = 40_000_000
"""Memory for a look at FINE_SIDE, by measurement: 25 MB, and the picture."""

_FORMS = {"image/jpeg": Form.JPEG, "image/png": Form.PNG, "image/bmp": Form.BMP}


@dataclass(frozen=True, slots=True)
class Checked:
    """Why the service would probably not enroll the person in a photo, or not know them again, and
    the measures of the largest face."""

    fault: Fault | None = None
    face: FaceMeasures | None = None


def check_installed(preparation: Preparation) -> None:
    """Raise UsageError where faces are to be looked for, and there is nothing to do it with."""
    if preparation.precheck == Precheck.OFF:
        return
    try:
        importlib.import_module("numpy")
        importlib.import_module("dlib")
    except ImportError as error:
        raise UsageError(
            f"--precheck needs the package {error.name}, which the precheck extra installs: "
            "pip install 'enroll[precheck]'."
        ) from error


def check(content: bytes, media_type: str, preparation: Preparation) -> Checked:
    """Look for a face in a photo, and measure it; nothing, unless `preparation` asks for it.

    `content` is what would be sent.
    """
    if preparation.precheck == Precheck.OFF:
        return Checked()
    try:
        photo = _opened(content, _FORMS[media_type], preparation)
        turn = preparation.multi_oriented_detection
        faces, measures = DECODERS.run(lambda _: _seen(photo, turn=turn), need=photo.need)
    except BrokenError as error:
        if "truncated" in str(error) and _FORMS[media_type] is Form.JPEG:
            return Checked(decision.cut_off(completable=preparation.precheck == Precheck.HOLD))
        return Checked(decision.undecodable(str(error)))
    except RefusedError as error:
        return Checked(error.fault)
    fault = _judged(faces, measures, preparation) if measures else decision.no_face(preparation)
    return Checked(fault, measures)


def _judged(faces: list[Face], measures: FaceMeasures, preparation: Preparation) -> Fault | None:
    similar = [
        face for face in faces if face.side >= SIMILAR * faces[0].side and face.score >= SURE_SCORE
    ]
    if len(similar) > 1:
        return decision.several_faces(len(similar), preparation)
    return next(_faults_of(measures, preparation), None)


def _faults_of(face: FaceMeasures, preparation: Preparation) -> Iterator[Fault]:
    """What is wrong with a face. What causes something else comes before it."""
    if face.width < (preparation.min_face or LEAST_WIDTH):
        yield decision.small_face(face.width, preparation)
    if face.margin < LEAST_MARGIN:
        yield decision.cut_face(preparation)
    if abs(face.tilt) > LARGEST_TILT:
        yield decision.tilted_face(face.tilt, preparation)
    if face.highlights < LEAST_HIGHLIGHTS:
        yield decision.dark_face(preparation)
    if face.shadows > LARGEST_SHADOWS:
        yield decision.bright_face(preparation)
    if face.sharpness < LEAST_SHARPNESS:
        yield decision.blurred_face(preparation)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A picture that is not decoded yet, its size in the photo, and the memory for a look at it."""

    picture: ImageFile.ImageFile
    size: tuple[int, int]
    need: int


def _opened(content: bytes, form: Form, preparation: Preparation) -> _Opened:
    """A JPEG is shrunk by its decoder as far as the finer look allows. Raises RefusedError if it
    takes too much memory even so."""
    coefficients: float = 0
    file: bytes | Pieces = content
    if form is Form.JPEG:
        found = walk(content)
        coefficients = found.coefficient_bytes
        file = content if preparation.accept_truncated else without_end(content, found)
    picture = open_picture(file, form)
    size = picture.size
    if form is Form.JPEG:
        with translating():
            picture.draft("L", scaled(size, FINE_SIDE / max(size)))
    need = decoding_bytes(picture, form, coefficients=coefficients) + _DETECTING_BYTES
    if need > decoding_limit(preparation.max_pixels):
        raise RefusedError(decision.too_much_memory(size, need))
    return _Opened(picture, size, need)


def _seen(photo: _Opened, *, turn: bool) -> tuple[list[Face], FaceMeasures | None]:
    """The faces in a photo, the largest first, and its measures; on a decoder's thread."""
    picture = photo.picture
    try:
        load(picture)
        with translating():
            grey = picture.convert("L")
    finally:
        picture.close()
    turned, faces = find_faces(grey, turn=turn)
    if not faces:
        return faces, None
    sure = [face for face in faces if face.score >= SURE_SCORE]
    scale = max(photo.size) / max(grey.size)
    return faces, measure(turned, (sure or faces)[0], scale=scale)
