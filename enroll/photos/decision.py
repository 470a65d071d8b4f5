"""What has to be done to a photo, by what was seen of it, and why one is not sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from enroll.model import Fault
from enroll.photos.form import UPRIGHT, Form
from enroll.settings import Precheck, Preparation

MIN_SIDE = 48
"""Pixels a side below which the vendor family's services take no picture."""

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes that are read into memory for one photo. Thirty times what the service takes."""


class PhotoCode(StrEnum):
    """Why a photo was not sent."""

    MISSING = "PHOTO_MISSING"
    AMBIGUOUS = "PHOTO_AMBIGUOUS"
    """It is not certain which photo is meant."""
    UNREADABLE = "PHOTO_UNREADABLE"
    WORKERS_LOST = "PHOTO_WORKERS_LOST"
    """Workers of Dask were lost while they were reading it."""
    CHANGED = "PHOTO_CHANGED"
    """It changed while it was being read."""
    OUTSIDE = "PHOTO_OUTSIDE"
    """Its path leads out of the images root."""
    SYMLINK = "PHOTO_SYMLINK"
    NOT_A_FILE = "PHOTO_NOT_A_FILE"
    NOT_BASE64 = "PHOTO_NOT_BASE64"
    """A list holds it as Base64 text that is none."""
    EMPTY = "PHOTO_EMPTY"
    TOO_LARGE = "PHOTO_TOO_LARGE"
    TOO_MANY_PIXELS = "PHOTO_TOO_MANY_PIXELS"
    TOO_SMALL = "PHOTO_TOO_SMALL"
    NOT_AN_IMAGE = "PHOTO_NOT_AN_IMAGE"
    TRUNCATED = "PHOTO_TRUNCATED"
    DAMAGED = "PHOTO_DAMAGED"
    """It seems to be complete, but cannot be decoded."""
    TOO_SLOW = "PHOTO_TOO_SLOW"
    """Decoding it takes too long."""
    FORMAT = "PHOTO_FORMAT"
    """An image that the service does not take, and that is not converted."""
    NO_FACE = "PHOTO_NO_FACE"
    SEVERAL_FACES = "PHOTO_SEVERAL_FACES"
    SMALL_FACE = "PHOTO_SMALL_FACE"
    CUT_FACE = "PHOTO_CUT_FACE"
    """Part of it is beyond the edge of the photo."""
    TILTED_FACE = "PHOTO_TILTED_FACE"
    DARK_FACE = "PHOTO_DARK_FACE"
    BRIGHT_FACE = "PHOTO_BRIGHT_FACE"
    BLURRED_FACE = "PHOTO_BLURRED_FACE"


_LOOKING = ("precheck", "multi_oriented_detection")

_MATTERS: Mapping[str, tuple[str, ...]] = {
    PhotoCode.TOO_MANY_PIXELS: ("max_pixels", "max_side", "precheck"),
    PhotoCode.DAMAGED: ("precheck",),  # what is sent as it is, is only decoded to look for faces
    PhotoCode.TOO_SLOW: ("max_side", "max_bytes", "precheck"),
    PhotoCode.NO_FACE: _LOOKING,
    PhotoCode.SEVERAL_FACES: _LOOKING,
    PhotoCode.SMALL_FACE: (*_LOOKING, "min_face", "max_side"),
    PhotoCode.CUT_FACE: _LOOKING,
    PhotoCode.TILTED_FACE: _LOOKING,
    PhotoCode.DARK_FACE: _LOOKING,
    PhotoCode.BRIGHT_FACE: _LOOKING,
    PhotoCode.BLURRED_FACE: (*_LOOKING, "max_side", "max_bytes"),
    PhotoCode.TOO_SMALL: ("max_side",),
    PhotoCode.TRUNCATED: ("accept_truncated", "precheck"),  # as it is with damaged ones
    PhotoCode.FORMAT: ("convert", "heif"),
    "IMAGE_FILE_TOO_LARGE": ("max_bytes", "max_side"),
    "HTTP_413": ("max_bytes", "max_side"),
    "INVALID_IMAGE_SIZE": ("max_side",),
}
"""For each code, enroll's or the service's, the fields of Preparation that can avoid it."""


def marks(preparation: Preparation) -> Mapping[str, str]:
    """For each code that depends on settings a short text of those settings.

    It is recorded with a refusal; if it differs later, the photo is read again.
    """
    return {
        str(code): ",".join(f"{name}={_short(getattr(preparation, name))}" for name in names)
        for code, names in _MATTERS.items()
    }


def _short(setting: str | int) -> str:
    return str(setting) if isinstance(setting, str) else str(int(setting))


class RefusedError(Exception):
    """A photo cannot be sent, for the reason in `fault`."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def _fault(code: PhotoCode, message: str) -> Fault:
    return Fault(code=code, message=message)


EMPTY = _fault(PhotoCode.EMPTY, "The file is empty. Export the photo again.")

NO_IMAGE = _fault(
    PhotoCode.NOT_AN_IMAGE,
    "The file is not an image, despite its name. Export the photo again.",
)

NOT_A_FILE = _fault(PhotoCode.NOT_A_FILE, "The path names a folder or device, not a photo.")


def too_large(size: int) -> Fault:
    """A file of this many bytes is not read."""
    return _fault(
        PhotoCode.TOO_LARGE,
        f"The file has {size:,} bytes; more than {LARGEST_FILE:,} are not read. "
        "Export the photo in a smaller size.",
    )


def foreign(what: str) -> Fault:
    """`what` the photo is, such as `a PDF`, is neither taken nor converted."""
    return _fault(
        PhotoCode.FORMAT,
        f"The photo is {what}, which is not converted. Export it as JPEG, PNG or BMP.",
    )


def not_to_be_converted(what: str) -> Fault:
    """`what` the photo is would have to be converted, which --no-convert forbids."""
    return _fault(
        PhotoCode.FORMAT,
        f"The photo is {what}, which has to be converted, and --no-convert forbids that.",
    )


HEIF_MISSING = _fault(
    PhotoCode.FORMAT,
    "The photo is a HEIC, as phones write it; install enroll with the extra heif to convert it.",
)


def cut_off(missing: str = "The end of the picture is", *, completable: bool = True) -> Fault:
    """`missing` says what is, such as `The last 12 % of the picture is`; `completable` that what
    exists can be sent with an option."""
    instead = ", or send what is left with --accept-truncated" if completable else ""
    return _fault(
        PhotoCode.TRUNCATED,
        f"{missing} missing: a broken copy or download. Copy it again{instead}.",
    )


ONLY_A_STUB = _fault(
    PhotoCode.TRUNCATED,
    "The end of the picture is missing, and nothing that is there can be decoded: a broken copy or "
    "download. Copy it again.",
)


TOO_SLOW = _fault(
    PhotoCode.TOO_SLOW,
    "It takes too long to decode the photo: more than 30 seconds. Export it as a plain JPEG.",
)


def damaged(why: str) -> Fault:
    """A picture that cannot be decoded, though its end is there."""
    return _fault(
        PhotoCode.DAMAGED, f"The picture is damaged: {why}. Copy or export the photo again."
    )


def too_many_pixels(size: tuple[int, int], preparation: Preparation) -> Fault:
    """More pixels than are decoded."""
    return _fault(
        PhotoCode.TOO_MANY_PIXELS,
        f"The photo has {size[0]:,} x {size[1]:,} pixels; more than {preparation.max_pixels:,} "
        "are not decoded. Export it in a smaller size, or raise --max-pixels.",
    )


def too_much_memory(size: tuple[int, int], need: int) -> Fault:
    """Not too many pixels, but of a kind that takes much memory to decode."""
    return _fault(
        PhotoCode.TOO_MANY_PIXELS,
        f"The photo has {size[0]:,} x {size[1]:,} pixels, of a kind that takes "
        f"{need // 1_000_000:,} MB of memory to decode. Export it in a smaller size or as a plain "
        "JPEG, or raise --max-pixels, which allows more.",
    )


def too_small(size: tuple[int, int]) -> Fault:
    """Fewer pixels a side than the service takes."""
    return _fault(
        PhotoCode.TOO_SMALL,
        f"The photo has {size[0]:,} x {size[1]:,} pixels; the service takes at least "
        f"{MIN_SIDE} a side. Use a larger photo.",
    )


def too_narrow(size: tuple[int, int], max_side: int) -> Fault:
    """So long and narrow that nothing is left of it when the long side fits."""
    return _fault(
        PhotoCode.TOO_SMALL,
        f"The photo has {size[0]:,} x {size[1]:,} pixels: shrunk to {max_side:,} a side it is "
        f"narrower than the {MIN_SIDE} that the service takes. Crop it.",
    )


def undecodable(why: str) -> Fault:
    """A picture whose structure is sound, and that the decoder makes nothing of."""
    return damaged(f"it cannot be decoded ({why[:80] or 'no more is known'})")


def no_face(preparation: Preparation) -> Fault:
    """The detector finds none."""
    return _fault(
        PhotoCode.NO_FACE,
        "No face was found in the photo. Use one that shows the face from the front, upright and "
        f"not too small{_or_warn(preparation)}.",
    )


def several_faces(faces: int, preparation: Preparation) -> Fault:
    """Faces of similar size: the service takes the largest, which may be somebody else's."""
    return _fault(
        PhotoCode.SEVERAL_FACES,
        f"The photo shows {faces:,} faces of similar size, and the service takes the largest. "
        f"Crop it to the right person{_or_warn(preparation)}.",
    )


def _or_warn(preparation: Preparation) -> str:
    """How a photo that is held back can be sent."""
    held = preparation.precheck == Precheck.HOLD
    return ", or send it anyway with --precheck warn" if held else ""


def small_face(width: int, preparation: Preparation) -> Fault:
    """A face of fewer pixels than were asked for, or than it takes to recognise it."""
    asked = preparation.min_face
    least = f"--min-face asks for {asked:,}" if asked else "too few to recognise it well"
    return _fault(
        PhotoCode.SMALL_FACE,
        f"The face is about {width:,} pixels wide in what is sent; {least}. Use a larger or closer "
        f"photo, or allow it with --min-face {width}.",
    )


def cut_face(preparation: Preparation) -> Fault:
    """Part of it is beyond the edge of the photo."""
    return _fault(
        PhotoCode.CUT_FACE,
        "The edge of the photo cuts off part of the face. Use a photo that shows the whole head"
        f"{_or_warn(preparation)}.",
    )


def tilted_face(degrees: float, preparation: Preparation) -> Fault:
    """The head or the whole photo leans to one side; `degrees` are clockwise."""
    way = "right" if degrees > 0 else "left"
    return _fault(
        PhotoCode.TILTED_FACE,
        f"The head is tilted about {abs(round(degrees))} degrees to the {way} in the photo. Turn "
        f"the photo until the head is upright{_or_warn(preparation)}.",
    )


def dark_face(preparation: Preparation) -> Fault:
    """Nearly all of it is black."""
    return _fault(
        PhotoCode.DARK_FACE,
        "The face is too dark. Brighten the photo or use one with more light on the face"
        f"{_or_warn(preparation)}.",
    )


def bright_face(preparation: Preparation) -> Fault:
    """Nearly all of it is white."""
    return _fault(
        PhotoCode.BRIGHT_FACE,
        "The face is overexposed: most of it is plain white. Use a photo with less light on the "
        f"face{_or_warn(preparation)}.",
    )


def blurred_face(preparation: Preparation) -> Fault:
    """It is out of focus, or was moved, or enlarged."""
    return _fault(
        PhotoCode.BLURRED_FACE,
        f"The face is blurred. Use a sharp photo of the person{_or_warn(preparation)}.",
    )


class Edit(StrEnum):
    """What is done to a photo, in the order in which it is reported."""

    STRIPPED = "stripped"
    """Its metadata was cut out; its pixels are untouched."""
    COMPLETED = "completed"
    """Its end is missing, and was filled in."""
    CONVERTED = "converted"
    TURNED = "turned"
    SHRUNK = "shrunk"
    """In pixels, or in bytes alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a file's structure says about a photo without decoding it.

    `length` is its size in bytes without metadata, `cut` whether that is less than the file.
    `common` means that every decoder shows these colours alike. A `truncated` file lacks its end.
    `size` is None if the structure does not contain it.
    """

    form: Form
    size: tuple[int, int] | None
    length: int
    common: bool = False
    orientation: int = UPRIGHT
    cut: bool = False
    truncated: bool = False


_TAKEN = frozenset({Form.JPEG, Form.PNG, Form.BMP})
"""The formats of the service (FaceSearch `add`: PNG, JPG, JPEG, BMP, JFIF)."""

COMPLETABLE = frozenset({Form.JPEG, Form.PNG, Form.BMP, Form.GIF, Form.TIFF})
"""Formats of which decoders return what exists; of the others they return all or nothing."""

_NOT_COMMON = {
    Form.JPEG: "a JPEG in CMYK, or of a kind that few programs read",
    Form.PNG: "a PNG that is transparent or has 16 bits a colour",
    Form.BMP: "a BMP of a kind that is read in different ways",
}


def decide(seen: Seen, preparation: Preparation) -> tuple[Edit, ...]:
    """The edits, none if it is sent as it is. Raises RefusedError.

    A missing end is reported by the caller, which may know how much is missing.
    """
    if seen.form is Form.HEIF and not preparation.heif:
        raise RefusedError(HEIF_MISSING)
    if seen.form not in _TAKEN and not preparation.convert:
        raise RefusedError(not_to_be_converted(f"a {seen.form}"))
    if seen.size is not None:
        check_size(seen.size, preparation)
    too_large = seen.size is not None and max(seen.size) > preparation.max_side
    fits = not too_large and seen.length <= preparation.max_bytes
    turned = seen.orientation != UPRIGHT
    if seen.form in _TAKEN and seen.common and fits and not (turned or seen.truncated):
        return (Edit.STRIPPED,) if seen.cut else ()
    stays_jpeg = seen.form is Form.JPEG and seen.common
    if not (stays_jpeg or preparation.convert):
        raise RefusedError(not_to_be_converted(_what(seen)))
    edits = {
        Edit.COMPLETED: seen.truncated,
        Edit.CONVERTED: not stays_jpeg,
        Edit.TURNED: turned,
        Edit.SHRUNK: too_large or (stays_jpeg and not fits),
    }
    return tuple(edit for edit, is_done in edits.items() if is_done)


def _what(seen: Seen) -> str:
    if not seen.common:
        return _NOT_COMMON[seen.form]
    return f"a {seen.form} that would have to be turned, completed or made to fit as a JPEG"


def check_size(size: tuple[int, int], preparation: Preparation) -> None:
    """Raise RefusedError for a picture of a size that is not even decoded."""
    width, height = size
    if width * height > preparation.max_pixels:
        raise RefusedError(too_many_pixels(size, preparation))
    if min(size) < MIN_SIDE:
        raise RefusedError(too_small(size))
    longest = max(size)
    if longest > preparation.max_side and min(size) * preparation.max_side < MIN_SIDE * longest:
        raise RefusedError(too_narrow(size, preparation.max_side))
