"""A decoded picture as it is shown: in sRGB or grey without alpha, of the right size, upright."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageCms

from enroll.photos.bounds import check_time
from enroll.photos.decode import pixel_bytes

LARGEST_PROFILE = 4 * 1024 * 1024
"""Bytes; profiles of presses have some two million."""

_LARGEST_SRGB = 100_000
"""Bytes; sRGB's profiles have some 3,000. Smaller ones are cached."""

_STRIP_PIXELS = 125_000
"""Of the decoded picture that are changed at a time: beside it and the new one there is only that
much."""

_FILTER, _SUPPORT = Image.Resampling.BICUBIC, 2
"""Takes a quarter less time than Lanczos' filter, and no eye sees the difference; and how many
pixels it sees to each side, of the smaller picture's size."""

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
"""The orientations for which lines become columns."""

_ON_ITS_SIDE = frozenset(TURNS[orientation] for orientation in ON_ITS_SIDE)

_FROM_THE_END = frozenset(TURNS[orientation] for orientation in (3, 4, 6, 7))
"""Turns for which the first lines become the last, or the last columns."""


def shown(decoded: Image.Image, size: tuple[int, int], turn: Image.Transpose | None) -> Image.Image:
    """A decoded picture in sRGB, on white where it is transparent, by its embedded profile if that
    is valid; of this size before it is turned, and upright. The decoded one is closed, unless it is
    the result."""
    mode, colours = _new_colours(decoded)
    if colours is None and size == decoded.size and turn is None and not _is_painted(decoded):
        picture = decoded
    else:
        # Where no pixel changes its place, the strips go back to where they came from.
        into = decoded if size == decoded.size and turn is None else None
        picture = assembled(
            _strips(decoded, size), size, mode=mode, colours=colours, turn=turn, into=into
        )
    picture.info = {}  # Pillow writes comments that it finds there
    if picture is not decoded:
        decoded.close()
    return picture


def shown_in_strips(
    opened: Image.Image,
    strips: Iterable[Image.Image],
    size: tuple[int, int],
    turn: Image.Transpose | None,
) -> Image.Image:
    """What `shown` makes of a picture that is only open here, in L or RGB, and that comes from
    elsewhere in strips that follow each other, `size` all in all."""
    mode, colours = _new_colours(opened)
    return assembled(strips, size, mode=mode, colours=colours, turn=turn)


def _new_colours(picture: Image.Image) -> tuple[str, Paint | None]:
    """The mode of what is shown of a picture, and what brings its flat strips there."""
    mode = _flat_mode(picture)
    colours = _by_profile(mode, picture.info.get("icc_profile"))
    if colours is None and mode not in ("L", "RGB"):
        colours = _to_rgb
    return ("RGB" if colours else mode), colours


def assembled(
    strips: Iterable[Image.Image],
    size: tuple[int, int],
    *,
    mode: str,
    colours: Paint | None = None,
    turn: Image.Transpose | None = None,
    into: Image.Image | None = None,
) -> Image.Image:
    """A picture of strips that follow each other from top to bottom, `size` all in all, each
    brought to other `colours`, which makes its mode `mode`, and turned by itself. It goes `into` a
    picture that has this mode."""
    on_its_side = turn in _ON_ITS_SIDE
    picture = into
    if picture is None or picture.mode != mode:
        picture = Image.new(mode, size[::-1] if on_its_side else size)
    top, below = 0, size[1]
    for flat in strips:
        check_time()
        strip = flat if colours is None else colours(flat)
        below -= strip.height
        at = below if turn in _FROM_THE_END else top
        top += strip.height
        if turn is not None:
            strip = strip.transpose(turn)
        picture.paste(strip, (at, 0) if on_its_side else (0, at))
    return picture


def _strips(picture: Image.Image, size: tuple[int, int]) -> Iterator[Image.Image]:
    """The picture on white and in 8 bits, and of another size, in strips. The filter sees beyond
    their edges, so that no seam shows."""
    flatten = _flattener(picture) if _is_painted(picture) else None
    width, height = size
    rows = picture.height / height
    beyond = 0 if size == picture.size else math.ceil(_SUPPORT * max(rows, 1)) + 1
    deep = min(max(round(_STRIP_PIXELS / picture.width / rows), 16), height)
    for top in range(0, height, deep):
        bottom = min(top + deep, height)
        box = (0.0, top * rows, float(picture.width), min(bottom * rows, picture.height))
        if flatten is None and beyond:
            yield picture.resize((width, bottom - top), _FILTER, box=box)
            continue
        first = max(math.floor(box[1]) - beyond, 0)
        last = min(math.ceil(box[3]) + beyond, picture.height)
        strip = picture.crop((0, first, picture.width, last))
        flat = strip if flatten is None else flatten(strip)
        if beyond:
            box = (box[0], box[1] - first, box[2], box[3] - first)
            flat = flat.resize((width, bottom - top), _FILTER, box=box)
        yield flat


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture in L or RGB, of another size. In one piece Pillow holds a third picture, of the new
    width and the old height."""
    return assembled(_strips(picture, size), size, mode=picture.mode)


def _to_rgb(strip: Image.Image) -> Image.Image:
    return strip.convert("RGB")


def shown_bytes(decoded: Image.Image, size: tuple[int, int], *, turns: bool) -> int:
    """Memory for a decoded picture, or one that is open, and for what `shown` makes of it."""
    pixels = decoded.width * decoded.height
    before, after = pixel_bytes(decoded), shown_pixel_bytes(decoded)
    mode = "L" if after == 1 else "RGB"
    in_place = size == decoded.size and not turns and decoded.mode == mode
    made = 0 if in_place else size[0] * size[1] * after
    return pixels * before + made + 8 * _STRIP_PIXELS


def shown_pixel_bytes(decoded: Image.Image) -> int:
    """Memory for a pixel of what `shown` makes of it."""
    return 1 if _flat_mode(decoded) == "L" and not decoded.info.get("icc_profile") else 4


def _is_painted(picture: Image.Image) -> bool:
    """Whether its colours are changed, its profile apart."""
    return picture.mode not in ("L", "RGB") or _has_alpha(picture)


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
