"""Archives to measure with: photos, nearly all of them unlike each other, and manifests of them.

An archive is made once and kept, as making a million files takes minutes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageFilter

PHOTO_BYTES = 64 * 1024
LARGE_BYTES = 1_900_000
"""Of a photo of 12 megapixels: nearly as much as a call may have."""

IN_A_FOLDER = 1_000
"""Photos."""

_JPEG = b"\xff\xd8"
_TABLE_BYTES = 64
_SEGMENT_HEAD = 5
_SEGMENT = _SEGMENT_HEAD + _TABLE_BYTES
_UNUSED_TABLE = 3
_NUMBER = b"%08d"


@dataclass(frozen=True, slots=True)
class Archive:
    """`rows` photos in a folder, which show the `pictures` in turn; `kinds` are the ends of their
    names, likewise in turn."""

    folder: Path
    rows: int
    pictures: Sequence[bytes]
    size: int | None
    kinds: Sequence[str] = ("jpg",)

    def image(self, number: int) -> str:
        """The path of a photo as the manifest has it, counted from 0."""
        kind = self.kinds[number % len(self.kinds)]
        return f"p/{number // IN_A_FOLDER:04}/{number:08}.{kind}"

    def content(self, number: int) -> bytes:
        """A photo's bytes: the picture, if a JPEG with a quantization table of its own that it does
        not use. A comment would be cut out, and the photo not be sent as it is."""
        picture = self.pictures[number % len(self.pictures)]
        return _numbered(picture, number, self.size) if picture.startswith(_JPEG) else picture

    def lines(self, rows: int) -> Iterator[tuple[str, str, str]]:
        """`user_id`, `user_data` and image of the first rows."""
        for number in range(rows):
            yield f"u{number:08}", f"Name {number}", self.image(number)

    def manifest(self, rows: int | None = None) -> Path:
        """A manifest of the first `rows` photos, of all without."""
        rows = self.rows if rows is None else rows
        path = self.folder / f"first-{rows}.csv"
        if not path.exists():
            with path.open("w", encoding="utf-8") as file:
                file.write("user_id,user_data,image\n")
                file.writelines(f"{','.join(line)}\n" for line in self.lines(rows))
        return path


def usual(folder: Path, rows: int) -> Archive:
    """Photos of exactly 64 KB."""
    noise = Image.frombytes("L", (400, 400), random.Random(1).randbytes(400 * 400))
    picture = _jpeg_below(noise.convert("RGB"), PHOTO_BYTES)
    return kept(Archive(folder / "usual", rows, [picture], PHOTO_BYTES))


def small(folder: Path, rows: int) -> Archive:
    """Photos of some 800 bytes: for what does not depend on their size."""
    grey = Image.new("RGB", (60, 60), (120, 130, 140))
    return kept(Archive(folder / "small", rows, [_jpeg(grey, quality=75)], None))


def large(folder: Path, rows: int, shrink: int) -> Archive:
    """Photos of 12 megapixels and 1.9 MB; both sides are divided by `shrink`."""
    noise = Image.frombytes("RGB", (500, 375), random.Random(1).randbytes(500 * 375 * 3))
    photo = noise.resize((4000 // shrink, 3000 // shrink), Image.Resampling.BICUBIC)
    size = LARGE_BYTES // shrink
    return kept(Archive(folder / "large", rows, [_jpeg_below(photo, size)], size))


def camera(folder: Path, rows: int, size: tuple[int, int]) -> Archive:
    """Photos of so many pixels as phones and cameras write them: of 24 megapixels each has 7.3 MB,
    of 12 it has 3.6 MB."""
    width, height = size
    pictures = [_jpeg(_grainy(width, height), quality=92, subsampling="4:2:0") for _ in range(2)]
    return kept(Archive(folder / f"camera-{width}x{height}", rows, pictures, None))


def mixed(folder: Path, rows: int, shrink: int) -> Archive:
    """Photos of 5 to 24 megapixels: two in three are JPEGs of 2 to 19 MB, with colour at every
    pixel or at every fourth, turned or not, one in four of them progressive; the others are PNG,
    WebP, TIFF and, where pillow-heif is installed, HEIC. One is sent as it is, of 1.9 MB.

    Sides are divided by `shrink`.
    """
    width, height = 4000 // shrink, 3000 // shrink
    jpegs = [_camera_photo(number, shrink) for number in range(len(_MIXED_SIZES))]
    jpegs.append(_jpeg_below(_noise(width, height, seed=8), LARGE_BYTES))
    others = [*_OTHERS, ("heic", "HEIF", {"quality": 80})] if _heif_installed() else [*_OTHERS]
    pictures, kinds = [], []
    for number, jpeg in enumerate(jpegs):
        pictures.append(jpeg)
        kinds.append("jpg")
        if number % 2 == 1 and others:
            kind, form, options = others.pop(0)
            pictures.append(_saved(_grainy(width, height), form, **options))
            kinds.append(kind)
    return kept(Archive(folder / "mixed-kinds", rows, pictures, None, kinds))


_MIXED_SIZES = (
    *((6000, 4000), (3264, 2448), (4000, 3000), (4608, 3456), (3480, 4640)),
    *((5184, 3456), (3648, 2736), (2592, 1944), (2592, 3888)),
)

_OTHERS: Sequence[tuple[str, str, dict[str, Any]]] = (
    ("png", "PNG", {"compress_level": 1}),
    ("webp", "WEBP", {"quality": 85, "method": 0}),
    ("tif", "TIFF", {"compression": "tiff_lzw"}),
)


def _heif_installed() -> bool:
    """Whether Pillow can write HEIC; it can from now on."""
    try:
        from pillow_heif import register_heif_opener  # noqa: PLC0415 - an extra
    except ImportError:
        return False
    register_heif_opener()
    return True


def _camera_photo(number: int, shrink: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = (1, 6, 8, 3)[number % 4]
    width, height = _MIXED_SIZES[number]
    return _jpeg(
        _noise(width // shrink, height // shrink, seed=number),
        quality=(85, 90, 93)[number % 3],
        subsampling=("4:2:0", "4:2:2", "4:4:4")[number % 3],
        progressive=number % 4 == 2,
        exif=exif.tobytes(),
    )


def _noise(width: int, height: int, *, seed: int) -> Image.Image:
    """Soft and coloured, of a third of the pixels."""
    size = width // 3, height // 3
    noise = Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))
    return noise.resize((width, height), Image.Resampling.BICUBIC)


def _grainy(width: int, height: int) -> Image.Image:
    """Soft shapes with the grain of a sensor."""
    few = max(width // 32, 1), max(height // 32, 1)
    shapes = [
        Image.effect_noise(few, 90).resize((width, height), Image.Resampling.BICUBIC)
        for _ in range(3)
    ]
    grain = Image.effect_noise((width, height), 40).filter(ImageFilter.BoxBlur(1))
    return Image.blend(Image.merge("RGB", shapes), Image.merge("RGB", [grain] * 3), 0.5)


def kept(archive: Archive) -> Archive:
    """Make it, unless the folder has it already, or more of it."""
    mark = archive.folder / "rows"
    if mark.exists() and int(mark.read_text(encoding="ascii")) >= archive.rows:
        return archive
    if archive.folder.exists():
        shutil.rmtree(archive.folder)
    for number in range(archive.rows):
        path = archive.folder / archive.image(number)
        if number % IN_A_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(archive.content(number))
    mark.write_text(str(archive.rows), encoding="ascii")
    return archive


def _numbered(picture: bytes, number: int, size: int | None) -> bytes:
    """A JPEG with the number in tables that nothing uses, and bytes behind them up to `size`.

    What is left is less than a table, and goes in as fill bytes before a marker, which a JPEG may
    have (ISO/IEC 10918-1, B.1.1.2).
    """
    left = _SEGMENT if size is None else size - len(picture)
    text = (_NUMBER % number).ljust(_TABLE_BYTES, b" ")
    table = b"\xff\xdb\x00\x43" + bytes([_UNUSED_TABLE]) + text
    tables = table * (left // _SEGMENT)
    return picture[:2] + b"\xff" * (left % _SEGMENT) + tables + picture[2:]


def _jpeg_below(image: Image.Image, size: int) -> bytes:
    """The best JPEG that leaves room for a table."""
    for quality in range(95, 0, -5):
        picture = _jpeg(image, quality=quality)
        if len(picture) <= size - _SEGMENT:
            return picture
    raise AssertionError("the picture is too large at any quality")


def _jpeg(image: Image.Image, **options: Any) -> bytes:
    return _saved(image, "JPEG", **options)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()
