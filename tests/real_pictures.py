"""Pictures in real files of every kind, made by Pillow, and what a viewer would show of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageFilter, ImageOps, ImageStat

ORIENTATION = 0x0112


@lru_cache
def scene(width: int = 240, height: int = 160) -> Image.Image:
    """Soft colours with one bright corner, so that it is seen which way up it is."""
    picture = Image.linear_gradient("L").resize((width, height))
    picture = Image.merge("RGB", (picture, picture.rotate(90).resize(picture.size), picture))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width // 4, height // 4), fill=(250, 40, 30))
    draw.ellipse((width // 2, height // 3, width * 3 // 4, height * 3 // 4), fill=(30, 200, 90))
    return picture.filter(ImageFilter.GaussianBlur(2))


def saved(picture: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """A file of it."""
    out = BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def exif(orientation: int = 1, *, comment: str = "Garden of the Meyers") -> Image.Exif:
    """EXIF as a phone writes it: which way up, where, and of what make."""
    found = Image.Exif()
    found[ORIENTATION] = orientation
    found[0x010E] = comment
    found.get_ifd(0x8825)[2] = (52.0, 31.0, 12.5)  # the latitude
    return found


def with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """A JPEG with one more segment, behind its first marker."""
    length = (len(payload) + 2).to_bytes(2, "big")
    return jpeg[:2] + bytes((0xFF, marker)) + length + payload + jpeg[2:]


def swapped_profile(srgb: bytes) -> bytes:
    """sRGB with red and green exchanged."""
    name, other = ("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    assert name in srgb
    swapped = srgb.replace(b"rXYZ", b"xXYZ").replace(b"gXYZ", b"rXYZ").replace(b"xXYZ", b"gXYZ")
    return swapped.replace(name, other)


def shown(content: bytes) -> Image.Image:
    """What a good viewer shows: upright, on white, in sRGB."""
    with Image.open(BytesIO(content)) as opened:
        profile = opened.info.get("icc_profile")
        upright = ImageOps.exif_transpose(opened)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright).convert("RGB")
    if profile:
        found = ImageCms.ImageCmsProfile(BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        upright = ImageCms.profileToProfile(upright, found, srgb, outputMode="RGB") or upright
    return upright.convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures of one size, in levels of 255."""
    assert one.size == other.size
    return float(sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3)


class Made(Mapping[str, bytes]):
    """Files by name, each made when it is asked for: those who collect the tests need the names."""

    def __init__(self, makers: Mapping[str, Callable[[], bytes]]) -> None:
        self._makers = makers
        self._made: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


Change = Callable[[bytes], bytes]
