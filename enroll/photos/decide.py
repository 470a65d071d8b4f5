"""What is to be done to a photo, by what was seen of it; pure, for reading and planning alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from enroll.model import Fault
from enroll.photos import exif, reasons
from enroll.photos.form import Form
from enroll.photos.reasons import MIN_SIDE
from enroll.preparation import Preparation


class Deed(StrEnum):
    """What is done to a photo, in the order in which it is said."""

    STRIPPED = "stripped"
    """Its metadata was cut out; its pixels are untouched."""
    COMPLETED = "completed"
    """Its end is missing, and was made up."""
    CONVERTED = "converted"
    TURNED = "turned"
    SHRUNK = "shrunk"
    """In pixels, or in bytes alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a file's structure tells of a photo without decoding it.

    `length` is its bytes without metadata, `cut` whether that is less than the file; `common`
    says that every decoder shows these colours alike; of a `truncated` file the end is missing.
    `size` None: the structure does not tell.
    """

    form: Form
    size: tuple[int, int] | None
    length: int
    common: bool = False
    orientation: int = exif.UPRIGHT
    cut: bool = False
    truncated: bool = False


_TAKEN = frozenset({Form.JPEG, Form.PNG, Form.BMP})
"""The formats of the service (FaceSearch `add`: PNG, JPG, JPEG, BMP, JFIF)."""

_NOT_COMMON = {
    Form.JPEG: "a JPEG in CMYK, or of a kind that few programs read",
    Form.PNG: "a PNG that is transparent or has 16 bits a colour",
    Form.BMP: "a BMP of a kind that is read in different ways",
}


def decide(seen: Seen, preparation: Preparation) -> tuple[Deed, ...] | Fault:
    """What is done to it, nothing if it is sent as it is; or why it is not sent.

    That the end is missing is for the caller to say, who may know how much.
    """
    if seen.form is Form.HEIF and not preparation.heif:
        return reasons.HEIF_MISSING
    if seen.form not in _TAKEN and not preparation.convert:
        return reasons.not_to_be_converted(f"a {seen.form}")
    if seen.size is not None and (fault := unfit_size(seen.size, preparation)) is not None:
        return fault
    too_large = seen.size is not None and max(seen.size) > preparation.max_side
    fits = not too_large and seen.length <= preparation.max_bytes
    turned = seen.orientation != exif.UPRIGHT
    if seen.form in _TAKEN and seen.common and fits and not (turned or seen.truncated):
        return (Deed.STRIPPED,) if seen.cut else ()
    stays_jpeg = seen.form is Form.JPEG and seen.common
    if not (stays_jpeg or preparation.convert):
        return reasons.not_to_be_converted(_what(seen))
    deeds = {
        Deed.COMPLETED: seen.truncated,
        Deed.CONVERTED: not stays_jpeg,
        Deed.TURNED: turned,
        Deed.SHRUNK: too_large or (stays_jpeg and not fits),
    }
    return tuple(deed for deed, is_done in deeds.items() if is_done)


def _what(seen: Seen) -> str:
    if not seen.common:
        return _NOT_COMMON[seen.form]
    return f"a {seen.form} that would have to be turned, completed or made to fit as a JPEG"


def unfit_size(size: tuple[int, int], preparation: Preparation) -> Fault | None:
    """Why a picture of this size is not even decoded, if it is not."""
    width, height = size
    if width * height > preparation.max_pixels:
        return reasons.too_many_pixels(size, preparation)
    if min(size) < MIN_SIDE:
        return reasons.too_small(size)
    longest = max(size)
    if longest > preparation.max_side and min(size) * preparation.max_side < MIN_SIDE * longest:
        return reasons.too_narrow(size, preparation.max_side)
    return None
