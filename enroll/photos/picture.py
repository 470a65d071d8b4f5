"""A decoded picture as it is shown: in sRGB or grey without alpha, of the right size, upright."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageCms

from enroll.photos.bounds import check_time
from enroll.photos.decision import MIN_SIDE
from enroll.photos.decode import scaled

LARGEST_PROFILE = 4 * 1024 * 1024
"""Bytes; profiles of presses have some two million."""

_LARGEST_SRGB = 100_000
"""Bytes; sRGB's profiles have some 3,000. Smaller ones are cached."""

_STRIP_PIXELS = 250_000
"""Lines converted at a time, so that only the old and the new picture take much memory."""

_DEEP = ("I", "F")
"""How the names of modes with more than 8 bits begin."""

_WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})

Paint = Callable[[Image.Image], Image.Image]


TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that brings a picture of each EXIF orientation upright."""

ON_ITS_SIDE = range(5, 9)


def shown(opened: Image.Image, max_side: int, turn: Image.Transpose | None) -> Image.Image:
    """A decoded picture in sRGB, no larger than it may be, and upright."""
    picture = to_srgb(opened, opened.info.get("icc_profile"))
    picture.info = {}  # Pillow writes comments that it finds there
    if picture is not opened:
        opened.close()
    if max(picture.size) > max_side:
        picture = resized(
            picture, scaled(picture.size, max_side / max(picture.size), least=MIN_SIDE)
        )
        opened.close()
    if turn is not None:
        picture = picture.transpose(turn)
        opened.close()
    return picture


_STRIP_ROWS = 256
"""Lines that are resized at a time. The filter sees beyond their edges, so that no seam shows."""


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """In strips: in one piece Pillow holds a third picture, of the new width and the old height."""
    width, height = size
    smaller = Image.new(picture.mode, size)
    rows = picture.size[1] / height
    for top in range(0, height, _STRIP_ROWS):
        check_time()
        deep = min(_STRIP_ROWS, height - top)
        box = (0.0, top * rows, float(picture.size[0]), min((top + deep) * rows, picture.size[1]))
        strip = picture.resize((width, deep), Image.Resampling.LANCZOS, box=box)
        smaller.paste(strip, (0, top))
    return smaller


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in RGB or L, on white where it is transparent, by its embedded profile if that
    is valid; the picture itself where nothing has to be done."""
    in_colours = _by_profile(_flat_mode(picture), profile)
    if in_colours is None and not needs_paint(picture):
        return picture
    flatten = _flattener(picture)

    def paint(strip: Image.Image) -> Image.Image:
        flat = flatten(strip)
        if in_colours is not None:
            return in_colours(flat)
        return flat if flat.mode in ("L", "RGB") else flat.convert("RGB")

    return _repainted(picture, paint)


def needs_paint(picture: Image.Image) -> bool:
    """Whether its colours are to be changed, its profile apart."""
    return picture.mode not in ("L", "RGB") or _has_alpha(picture)


def _repainted(picture: Image.Image, paint: Paint) -> Image.Image:
    width, height = picture.size
    deep = max(_STRIP_PIXELS // width, 1)
    painted: Image.Image | None = None
    for top in range(0, height, deep):
        check_time()
        strip = paint(picture.crop((0, top, width, min(top + deep, height))))
        if painted is None:
            painted = Image.new(strip.mode, picture.size)
        painted.paste(strip, (0, top))
    return painted or picture


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in _WITH_ALPHA or "transparency" in picture.info


def _is_grey(picture: Image.Image) -> bool:
    with_colour = isinstance(picture.info.get("transparency"), tuple)
    return picture.mode in ("L", "LA", "La", "1") and not with_colour


def _flat_mode(picture: Image.Image) -> str:
    """The mode of `_flattener`'s pictures: L, RGB, CMYK or LAB."""
    if picture.mode.startswith(_DEEP) or _is_grey(picture):
        return "L"
    return picture.mode if picture.mode in ("CMYK", "LAB") else "RGB"


def _flattener(picture: Image.Image) -> Paint:
    """What brings strips of this picture to 8 bits without alpha."""
    if picture.mode.startswith(_DEEP):
        return _eight_bits(picture)
    if _has_alpha(picture):
        return _on_white
    mode = _flat_mode(picture)
    return lambda strip: strip if strip.mode == mode else strip.convert(mode)


def _on_white(strip: Image.Image) -> Image.Image:
    grey = _is_grey(strip)
    if strip.mode in ("RGBa", "La"):
        strip = strip.convert(strip.mode.upper())
    with_alpha = strip.convert("LA" if grey else "RGBA")
    white = Image.new("L" if grey else "RGB", strip.size, "white")
    white.paste(with_alpha.convert(white.mode), mask=with_alpha.getchannel("A"))
    return white


def _eight_bits(picture: Image.Image) -> Paint:
    """Grey of 16 or 32 bits or floating point to 8; numbers beyond 16 bits by their extremes."""
    if picture.mode.startswith("I;16"):
        return lambda strip: strip.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    low, high = (float(value) for value in picture.getextrema())  # type: ignore[arg-type]
    if low >= 0 and high <= 65_535 and picture.mode == "I":
        low, high = 0.0, 65_535.0 if high > 255 else 255.0
    span = high - low
    if not 0 < span < float("inf"):
        return lambda strip: Image.new("L", strip.size, 128)
    scale, shift = 255 / span, -low * 255 / span
    return lambda strip: strip.convert("F").point(lambda level: level * scale + shift).convert("L")


def _by_profile(mode: str, profile: bytes | None) -> Paint | None:
    """The transform of a picture of this mode to sRGB; None where it is sRGB, or is not known."""
    if profile and len(profile) <= LARGEST_PROFILE and not _is_srgb(profile):
        try:
            found = ImageCms.ImageCmsProfile(BytesIO(profile))
        except (OSError, ValueError, TypeError):
            found = None  # it cannot be read: a viewer treats the picture as sRGB
        if found is not None and (paint := _transform(mode, found)) is not None:
            return paint
    if mode == "LAB":
        return _transform(mode, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    return None


def _transform(mode: str, profile: ImageCms.ImageCmsProfile) -> Paint | None:
    try:
        found = ImageCms.buildTransform(
            profile,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, ValueError):
        return None  # a profile of other colours than the picture's
    return found.apply


def _is_srgb(profile: bytes) -> bool:
    return len(profile) <= _LARGEST_SRGB and _described_as_srgb(profile)


@lru_cache(maxsize=64)  # an archive has few cameras
def _described_as_srgb(profile: bytes) -> bool:
    try:
        read = ImageCms.ImageCmsProfile(BytesIO(profile))
        return ImageCms.getProfileDescription(read).strip().startswith("sRGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return False
