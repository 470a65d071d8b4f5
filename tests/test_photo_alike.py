"""Which photos are the same picture, and what their heads say of it."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image, ImageCms
from real_pictures import Made, exif, saved, scene, swapped_profile, with_segment

from enroll.model import Fault
from enroll.photos import Outline, PhotoStore, Picture, open_store, outline, read_picture, read_top
from enroll.settings import DEFAULT_PREPARATION, Preparation

FIRST = saved(scene(300, 200), quality=80)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"http://ns.adobe.com/xap/1.0/\0"


def decoded(jpeg: bytes) -> Image.Image:
    with Image.open(BytesIO(jpeg)) as opened:
        return opened.convert("RGB")


def sideways(jpeg: bytes) -> Image.Image:
    """What is shown of a JPEG with orientation 6."""
    return decoded(jpeg).transpose(Image.Transpose.ROTATE_270)


GREY = scene(120, 160).convert("L")

SAME = {
    "metadata": Made(
        {
            "plain": lambda: FIRST,
            "with EXIF": lambda: saved(scene(300, 200), quality=80, exif=exif()),
            "of other resolution": lambda: saved(scene(300, 200), quality=80, dpi=(300, 300)),
            "with a comment": lambda: saved(scene(300, 200), quality=80, comment=b"x" * 900),
            "behind much metadata": lambda: with_segment(FIRST, 0xE1, XMP + bytes(60_000)),
            "with a trailer": lambda: FIRST + b"trailer" * 2000,
        }
    ),
    "container": Made(
        {
            "JPEG": lambda: FIRST,
            "PNG": lambda: saved(decoded(FIRST), "PNG"),
            "PNG of another compression": lambda: saved(decoded(FIRST), "PNG", compress_level=1),
            "BMP": lambda: saved(decoded(FIRST), "BMP"),
            "TIFF": lambda: saved(decoded(FIRST), "TIFF"),
            "lossless WebP": lambda: saved(decoded(FIRST), "WEBP", lossless=True),
            "opaque PNG with alpha": lambda: saved(decoded(FIRST).convert("RGBA"), "PNG"),
        }
    ),
    "coding": Made(
        {
            "usual": lambda: saved(scene(220, 180), quality=80),
            "progressive": lambda: saved(scene(220, 180), quality=80, progressive=True),
            "with its own tables": lambda: saved(scene(220, 180), quality=80, optimize=True),
        }
    ),
    "which way up": Made(
        {
            "by EXIF": lambda: saved(scene(300, 180), quality=80, exif=exif(6)),
            "upright": lambda: saved(sideways(saved(scene(300, 180), quality=80)), "PNG"),
        }
    ),
    "grey": Made(
        {"grey": lambda: saved(GREY, "PNG"), "colours": lambda: saved(GREY.convert("RGB"), "BMP")}
    ),
}
"""Pictures that are the same, by what differs in their files."""

OTHERS = Made(
    {
        "plain": lambda: FIRST,
        "another quality": lambda: saved(scene(300, 200), quality=81),
        "encoded once more": lambda: saved(decoded(FIRST), quality=80),
        "turned": lambda: saved(scene(300, 200), quality=80, exif=exif(3)),
        "turned otherwise": lambda: saved(scene(300, 200), quality=80, exif=exif(6)),
        "of another size": lambda: saved(scene(300, 201), quality=80),
        "one pixel": lambda: saved(with_a_dot(decoded(FIRST)), "PNG"),
        "AVIF": lambda: saved(scene(300, 200), "AVIF", speed=10),
        "text": lambda: b"no photo",
        "cut off": lambda: FIRST[: len(FIRST) // 2],
    }
)
"""Of which no two are the same."""


def with_a_dot(picture: Image.Image) -> Image.Image:
    picture.putpixel((299, 199), (1, 2, 3))
    return picture


@pytest.fixture
def store(tmp_path: Path) -> PhotoStore:
    return open_store(tmp_path)


def seen(
    store: PhotoStore, files: Iterable[bytes], *, decodes: bool = True
) -> list[tuple[Outline, Picture]]:
    found = []
    for number, content in enumerate(files):
        path = f"{store.root}/{number}.jpg"
        Path(path).write_bytes(content)
        head, picture = outline(path, store), read_picture(path, store, decodes=decodes)
        assert isinstance(head, Outline)
        assert isinstance(picture, Picture)
        found.append((head, picture))
    return found


@pytest.mark.parametrize("what", SAME)
def test_the_same_picture_in_other_files_is_found(what: str, store: PhotoStore) -> None:
    found = seen(store, SAME[what].values())
    assert len({picture.same for _, picture in found}) == 1
    assert len({picture.sha256 for _, picture in found}) == len(found)
    assert len({head.size for head, _ in found}) == 1


def test_no_other_picture_is_taken_for_the_same(store: PhotoStore) -> None:
    wrong = [
        (names, decodes)
        for decodes in (True, False)
        for names, (one, other) in zip(
            combinations(OTHERS, 2),
            combinations(seen(store, OTHERS.values(), decodes=decodes), 2),
            strict=True,
        )
        if one[1].same == other[1].same
    ]
    assert not wrong


def test_metadata_makes_no_difference_even_undecoded(store: PhotoStore) -> None:
    found = seen(store, SAME["metadata"].values(), decodes=False)
    assert len({picture.same for _, picture in found}) == 1


def test_a_head_says_with_which_photos_one_has_to_be_compared(store: PhotoStore) -> None:
    metadata = [head for head, _ in seen(store, SAME["metadata"].values())]
    assert len({(one.picture, one.kin, one.coding) for one in metadata}) == 1
    coding = [head for head, _ in seen(store, SAME["coding"].values())]
    assert len({one.kin for one in coding}) == 1
    assert len({one.coding for one in coding}) == 3
    jpeg, *lossless = [head for head, _ in seen(store, SAME["container"].values())]
    assert jpeg.kin
    assert not any(one.kin for one in lossless)
    quality = [head for head, _ in seen(store, [FIRST, OTHERS["another quality"]])]
    assert len({one.kin for one in quality}) == 2


def test_tables_that_lie_across_the_end_of_the_first_block_are_read_whole(
    store: PhotoStore,
) -> None:
    """The head that a plan reads is 4,096 bytes; the tables of these begin before its end."""
    first, *others = seen(
        store, [FIRST, *(with_segment(FIRST, 0xE1, XMP + bytes(n)) for n in range(3300, 4100, 40))]
    )
    assert {(one.picture, one.kin, one.coding) for one, _ in others} == {
        (first[0].picture, first[0].kin, first[0].coding)
    }


WIDE = scene(301, 501)

TOPS = Made(
    {
        "as cameras write it": lambda: saved(WIDE, quality=90, subsampling=2),
        "colours halved in width": lambda: saved(WIDE, quality=90, subsampling=1),
        "all colours": lambda: saved(WIDE, quality=90, subsampling=0),
        "grey": lambda: saved(WIDE.convert("L")),
        "for the press": lambda: saved(WIDE.convert("CMYK")),
        "of another profile": lambda: saved(WIDE, icc_profile=swapped_profile(SRGB)),
        "with restarts": lambda: saved(WIDE, restart_marker_blocks=3),
        "behind much metadata": lambda: with_segment(saved(WIDE), 0xE1, XMP + bytes(60_000)),
        "of noise": lambda: saved(Image.effect_noise((600, 500), 90), quality=100),
    }
)


def test_the_first_lines_are_those_of_the_whole_picture(store: PhotoStore) -> None:
    wrong = []
    for number, (name, content) in enumerate(TOPS.items()):
        path = f"{store.root}/{number}.jpg"
        Path(path).write_bytes(content)
        whole = read_picture(path, store, decodes=True)
        assert isinstance(whole, Picture)
        if whole.top is None or read_top(path, store) != whole.top:
            wrong.append(name)
    assert not wrong


def test_of_what_is_no_plain_upright_jpeg_the_first_lines_are_not_known(store: PhotoStore) -> None:
    path = f"{store.root}/photo"
    for content in (
        saved(WIDE, exif=exif(6)),
        saved(WIDE, progressive=True),
        saved(scene(300, 30)),
        saved(WIDE, "PNG"),
        b"text",
    ):
        Path(path).write_bytes(content)
        assert read_top(path, store) is None


def test_a_photo_that_takes_too_much_memory_is_compared_undecoded(store: PhotoStore) -> None:
    path = f"{store.root}/large.png"
    Image.new("1", (15_000, 15_000)).save(path)
    large = read_picture(path, store, Preparation(max_pixels=1_000), decodes=True)
    assert isinstance(large, Picture)
    assert large.same == large.sha256


def test_what_cannot_be_read_is_a_fault(store: PhotoStore) -> None:
    for found in (
        outline(f"{store.root}/none.jpg", store),
        read_picture(f"{store.root}/none.jpg", store, DEFAULT_PREPARATION, decodes=True),
        read_top(f"{store.root}/none.jpg", store),
    ):
        assert isinstance(found, Fault)
