"""Colours as a viewer shows them: whatever a picture is in, to sRGB or grey without alpha."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageCms

LARGEST_PROFILE = 4 * 1024 * 1024
"""Bytes; profiles of presses have some two million."""

_OPAQUE = frozenset({"L", "RGB", "CMYK", "LAB"})
_DEEP = ("I", "F")
"""How the names of modes with more than 8 bits begin."""


def plain(picture: Image.Image) -> Image.Image:
    """The picture in L, RGB, CMYK or LAB, 8 bits each, on white where it is transparent."""
    if picture.mode.startswith(_DEEP):
        return _eight_bits(picture)
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return _on_white(picture)
    if picture.mode == "P":
        return picture.convert("RGB")
    if picture.mode == "1":
        return picture.convert("L")
    return picture if picture.mode in _OPAQUE else picture.convert("RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    grey = picture.mode in ("L", "LA", "La", "1") and not isinstance(
        picture.info.get("transparency"), tuple
    )
    if picture.mode in ("RGBa", "La"):
        picture = picture.convert(picture.mode.upper())
    with_alpha = picture.convert("LA" if grey else "RGBA")
    white = Image.new("L" if grey else "RGB", picture.size, "white")
    white.paste(with_alpha.convert(white.mode), mask=with_alpha.getchannel("A"))
    return white


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or floating point to 8; numbers beyond 16 bits by their extremes."""
    levels = picture if picture.mode == "F" else picture.convert("I")
    if picture.mode.startswith("I;16"):
        return levels.point(lambda level: level * (1 / 256)).convert("L")
    low, high = (float(value) for value in levels.getextrema())  # type: ignore[arg-type]
    if low >= 0 and high <= 65_535 and picture.mode == "I":
        low, high = 0.0, 65_535.0 if high > 255 else 255.0
    span = high - low
    if not 0 < span < float("inf"):
        return Image.new("L", picture.size, 128)
    scale, shift = 255 / span, -low * 255 / span
    return levels.convert("F").point(lambda level: level * scale + shift).convert("L")


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """A `plain` picture in RGB or L, by its embedded profile if that makes sense."""
    if profile and len(profile) <= LARGEST_PROFILE and not _is_srgb(profile):
        found = _by_profile(picture, profile)
        if found is not None:
            return found
    if picture.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return _transformed(picture, lab) or picture.convert("RGB")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


def _by_profile(picture: Image.Image, profile: bytes) -> Image.Image | None:
    try:
        return _transformed(picture, ImageCms.ImageCmsProfile(BytesIO(profile)))
    except (OSError, ValueError, TypeError):
        return None  # no profile that anybody can read: a viewer takes the picture for sRGB


def _transformed(picture: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image | None:
    try:
        return ImageCms.profileToProfile(
            picture,
            profile,
            _srgb(),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, ValueError):
        return None  # a profile of other colours than the picture's


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=64)  # an archive has few cameras
def _is_srgb(profile: bytes) -> bool:
    try:
        read = ImageCms.ImageCmsProfile(BytesIO(profile))
        return ImageCms.getProfileDescription(read).strip().startswith("sRGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return False
