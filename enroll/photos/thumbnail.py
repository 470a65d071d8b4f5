"""A photo as a small picture, or why there is none; made like a photo that is sent."""

from __future__ import annotations

from PIL import Image, ImageFile

from enroll.errors import ShortageError
from enroll.model import Fault
from enroll.photos import decision
from enroll.photos.bounds import BUDGET
from enroll.photos.decision import PhotoCode, RefusedError
from enroll.photos.decode import BrokenError
from enroll.photos.inspect import Source, inspect
from enroll.photos.prepare import use_shown
from enroll.photos.read import open_photo
from enroll.photos.store import PhotoStore, UnusableError
from enroll.settings import DEFAULT_PREPARATION


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
    return use_shown(source, DEFAULT_PREPARATION, side=side, use=_kept)


def _kept(small: Image.Image) -> Image.Image:
    return small.copy() if isinstance(small, ImageFile.ImageFile) else small
