"""A glance tells from a photo's head what reading it then does."""

from __future__ import annotations

from pathlib import Path

from cases import cases
from PIL import Image
from real_pictures import Made, exif, saved, scene, with_segment

from enroll.model import Fault, Photo
from enroll.photos import Glance, PhotoCode, glance, open_store, read_photo
from enroll.settings import DEFAULT_PREPARATION, Preparation

LARGE = scene(600, 400)
SMALL = Preparation(max_side=480)

PHOTOS = Made(
    {
        "plain": lambda: saved(LARGE),
        "stripped": lambda: saved(LARGE, exif=exif(), comment=b"x" * 3000),
        "behind much metadata": lambda: with_segment(
            with_segment(saved(LARGE), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(60_000)),
            0xE1,
            b"Exif\0\0" + exif(6).tobytes().removeprefix(b"Exif\0\0") + bytes(50_000),
        ),
        "turned": lambda: saved(LARGE, exif=exif(6)),
        "progressive": lambda: saved(LARGE, progressive=True),
        "cmyk": lambda: saved(LARGE.convert("CMYK")),
        "png": lambda: saved(LARGE, "PNG"),
        "png with exif": lambda: saved(LARGE, "PNG", exif=exif(3)),
        "alpha": lambda: saved(LARGE.convert("RGBA"), "PNG"),
        "bmp": lambda: saved(LARGE, "BMP"),
        "gif": lambda: saved(LARGE.quantize(32), "GIF"),
        "tiff": lambda: saved(LARGE, "TIFF"),
        "turned tiff": lambda: saved(LARGE, "TIFF", exif=exif(8)),
        "webp": lambda: saved(LARGE, "WEBP"),
        "lossless webp": lambda: saved(LARGE, "WEBP", lossless=True),
        "avif": lambda: saved(LARGE, "AVIF", speed=10),
        "narrow": lambda: saved(scene(47, 300)),
        "narrow webp": lambda: saved(scene(47, 300), "WEBP"),
        "narrow avif": lambda: saved(scene(47, 300), "AVIF", speed=10),
        "ico": lambda: saved(scene(64, 64), "ICO"),
        "text": lambda: b"no photo at all",
    }
)


@cases("name", PHOTOS)
@cases(
    "preparation",
    [DEFAULT_PREPARATION, SMALL, Preparation(convert=False)],
)
def test_a_glance_tells_what_reading_does(
    name: str, preparation: Preparation, tmp_path: Path
) -> None:
    path = tmp_path / "photo"
    path.write_bytes(PHOTOS[name])
    seen = glance(str(path), open_store(tmp_path), preparation)
    read = read_photo(str(path), open_store(tmp_path), preparation)
    if isinstance(read, Photo):
        assert isinstance(seen, Glance), seen
        assert (", ".join(seen.edits), seen.size) == (read.prepared, len(PHOTOS[name]))
        if read.prepared in ("", "stripped"):
            assert seen.to_send == len(read.content)
    else:
        assert isinstance(seen, Fault)
        assert seen.code == read.fault.code


def test_a_heic_is_told_by_its_head(tmp_path: Path) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    seen = glance(str(path), open_store(tmp_path), Preparation(heif=False))
    assert isinstance(seen, Fault)
    assert seen.code == PhotoCode.FORMAT
    assert isinstance(glance(str(path), open_store(tmp_path), Preparation(heif=True)), Glance)


def test_only_the_ends_of_a_large_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.bmp"
    content = saved(Image.new("RGB", (100, 100)), "BMP")
    with path.open("wb") as file:
        file.write(content)
        file.truncate(60_000_000)
    assert isinstance(glance(str(path), open_store(tmp_path)), Glance)
