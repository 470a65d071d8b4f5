"""A photo as a small picture, or why there is none; made like a photo that is sent."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from PIL import Image, ImageFile

from enroll.errors import ShortageError
from enroll.model import Fault
from enroll.photos import decision
from enroll.photos.bounds import BUDGET, DECODERS, Room
from enroll.photos.decision import PhotoCode, RefusedError
from enroll.photos.decode import BrokenError, scaled, translating
from enroll.photos.form import Form
from enroll.photos.inspect import Source, inspect
from enroll.photos.picture import TURNS
from enroll.photos.prepare import decoded, open_scaled, orientation_of
from enroll.photos.read import open_photo
from enroll.photos.store import PhotoStore, UnusableError
from enroll.settings import DEFAULT_PREPARATION, decoding_limit, heif_installed


def thumbnail(path: str, store: PhotoStore, *, side: int) -> Image.Image | Fault:
    """The photo in RGB or grey, upright, its long side of at most `side` pixels.

    Of a truncated photo it is what there is. Never raises, whatever the photo is.
    """
    try:
        with open_photo(path, store) as photo, BUDGET.files.room(photo.times.size):
            return _small(inspect(photo.content()), side)
    except UnusableError as error:
        return error.unusable.fault
    except RefusedError as error:
        return error.fault
    except BrokenError as error:
        return decision.undecodable(str(error))
    except ShortageError as error:
        return Fault(code=PhotoCode.UNREADABLE, message=str(error))


def _small(source: Source, side: int) -> Image.Image:
    """Raises RefusedError and BrokenError."""
    if source.seen.form is Form.HEIF and not heif_installed():
        raise RefusedError(decision.HEIF_MISSING)
    limit = decoding_limit(DEFAULT_PREPARATION.max_pixels)
    picture, need = open_scaled(source, replace(DEFAULT_PREPARATION, max_side=side), limit)
    size = picture.size
    if source.crop is not None:
        left, top, right, bottom = source.crop
        size = right - left, bottom - top
    if need > limit:
        raise RefusedError(decision.too_much_memory(size, need))
    turn = TURNS.get(orientation_of(picture, source.seen))
    size = scaled(size, min(side / max(size), 1))
    return DECODERS.run(partial(_decoded, source, picture, size, turn), need=need)


def _decoded(
    source: Source,
    picture: ImageFile.ImageFile,
    size: tuple[int, int],
    turn: Image.Transpose | None,
    _: Room,
) -> Image.Image:
    """Runs on a decoder's thread."""
    try:
        small = decoded(source, picture, size, turn)
        with translating():
            return small.copy() if small is picture else small
    finally:
        picture.close()
