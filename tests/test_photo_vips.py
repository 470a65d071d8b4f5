"""With the extra `vips` large JPEGs look as without it, and every other outcome is the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from PIL import Image, ImageCms
from real_pictures import difference, exif, saved, shown, swapped_profile
from test_photo_quality import portrait, similarity

from enroll.model import Fault
from enroll.photos import PhotoCode, Prepared, bounds, prepare, vips
from enroll.photos.bounds import BUDGET, TooSlowError, timed
from enroll.photos.decode import open_picture
from enroll.photos.form import Form
from enroll.photos.inspect import inspect
from enroll.photos.picture import assembled
from enroll.settings import DEFAULT_PREPARATION, Preparation

pytest.importorskip("pyvips")

SMALLER = replace(DEFAULT_PREPARATION, max_side=733)
"""Not half of what there is: Pillow's decoder can shrink to that."""


@pytest.fixture(autouse=True)
def room_for_libvips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BUDGET, "for_libvips", 1)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prepared | Fault]:
    """`prepare` as it is where the extra is not installed."""

    def prepare_without(content: bytes, preparation: Preparation) -> Prepared | Fault:
        with monkeypatch.context() as patch:
            patch.setattr(BUDGET, "for_libvips", 0)
            return prepare(content, preparation)

    return prepare_without


def is_taken(content: bytes) -> bool:
    source = inspect(content)
    return vips.takes(source, open_picture(source.content, Form.JPEG))


OTHER_COLOURS = swapped_profile(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "every pixel": {"subsampling": 0},
    "every other": {"subsampling": 1},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "turned": {"exif": exif(6)},
    "mirrored": {"exif": exif(5)},
    "other colours": {"icc_profile": OTHER_COLOURS},
    "turned in other colours": {"icc_profile": OTHER_COLOURS, "exif": exif(8)},
    "a profile that nobody can read": {"icc_profile": b"rubbish"},
}


@pytest.mark.parametrize("each", [3, pytest.param(1, marks=pytest.mark.thorough)])
def test_it_looks_the_same_with_and_without(
    each: int, without: Callable[..., Prepared | Fault]
) -> None:
    """Each kind in all four ways, or in one or two of them."""
    ways = list(product(KINDS, ["RGB", "L"], [SMALLER, DEFAULT_PREPARATION]))[::each]
    assert {kind for kind, *_ in ways} == set(KINDS)
    for kind, mode, preparation in ways:
        looks_the_same(kind, mode, preparation, without)


def looks_the_same(
    kind: str, mode: str, preparation: Preparation, without: Callable[..., Prepared | Fault]
) -> None:
    content = saved(portrait(800, 600).convert(mode), quality=93, **KINDS[kind])
    assert is_taken(content)
    one, other = prepare(content, preparation), without(content, preparation)
    assert isinstance(one, Prepared)
    assert isinstance(other, Prepared)
    assert (one.words, one.media_type) == (other.words, other.media_type)
    with Image.open(BytesIO(one.content)) as mine, Image.open(BytesIO(other.content)) as theirs:
        assert (mine.size, mine.mode) == (theirs.size, theirs.mode)
        assert similarity(mine, theirs) > 0.98
        assert difference(mine.convert("RGB"), theirs.convert("RGB")) < 1.5


@cases("mode", ["RGB", "L"])
@cases("kind", KINDS)
@cases("size", [(800, 600), (733, 550)])
def test_libvips_finds_nothing_wrong_with_any_kind(
    kind: str, mode: str, size: tuple[int, int]
) -> None:
    picture = portrait(800, 600).convert(mode)
    source = inspect(saved(picture, quality=93, **KINDS[kind]))
    top, best = 0, picture.resize(size, Image.Resampling.LANCZOS)
    for strip in vips.strips(source, mode, size):
        assert strip.mode == mode
        there = best.crop((0, top, size[0], top + strip.height))
        assert difference(strip.convert("RGB"), there.convert("RGB")) < 4
        top += strip.height
    assert top == size[1]


def test_a_photo_that_libvips_decodes_never_lies_in_memory_as_a_whole() -> None:
    source = inspect(saved(portrait(1200, 900), exif=exif(6)))
    assert max(strip.height for strip in vips.strips(source, "RGB", (1200, 900))) < 150


def test_what_is_not_ordinary_is_left_to_pillow() -> None:
    picture = portrait(1200, 900)
    assert is_taken(saved(picture))
    assert not is_taken(saved(picture.convert("CMYK")))
    assert not is_taken(saved(picture)[:-1000])
    assert not is_taken(many_scans())
    assert not vips.takes(inspect(saved(picture, "PNG")), picture)


def many_scans() -> bytes:
    """A progressive JPEG that refines its last pass again and again."""
    content = saved(portrait(1200, 900), progressive=True)
    jpeg = inspect(content).jpeg
    assert jpeg is not None
    last = content[jpeg.scan : -2]
    return content[:-2] + last * 20 + content[-2:]


def damaged(content: bytes, kind: str) -> bytes:
    middle = len(content) * 2 // 3
    return {
        "cut inside": content[:middle] + content[-2:],
        "rubbish": content[:middle] + bytes(range(1, 200)) + content[middle + 400 :],
        "an end inside": content[:middle] + b"\xff\xd9" + content[middle:],
        "zeros": content[:middle] + bytes(3000) + content[middle + 3000 :],
        "a short tail": content[:-40] + content[-2:],
        "junk before its end": content[:-2] + b"\xff" * 3000 + content[-2:],
    }[kind]


@cases("progressive", [False, True])
@cases(
    "kind",
    ["cut inside", "rubbish", "an end inside", "zeros", "a short tail", "junk before its end"],
)
def test_damage_comes_to_the_same_with_and_without(
    kind: str, progressive: bool, without: Callable[..., Prepared | Fault]
) -> None:
    content = damaged(saved(portrait(800, 600), quality=93, progressive=progressive), kind)
    for preparation in (SMALLER, replace(SMALLER, accept_truncated=True)):
        one, other = prepare(content, preparation), without(content, preparation)
        if isinstance(one, Prepared) and isinstance(other, Prepared):
            assert one.words == other.words
            assert similarity(shown(one.content), shown(other.content)) > 0.98
        else:
            assert one == other


def test_its_time_is_bounded_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    source = inspect(saved(portrait(1200, 900)))
    monkeypatch.setattr(bounds, "SLOWEST", 0.0)
    strips = vips.strips(source, "RGB", (1100, 825))
    with pytest.raises(TooSlowError):
        timed(lambda: assembled(strips, (1100, 825), mode="RGB"))
    found = prepare(saved(portrait(1200, 900)), SMALLER)
    assert isinstance(found, Fault)
    assert found.code == PhotoCode.TOO_SLOW


def test_it_starts_no_thread_of_its_own(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from enroll.photos import vips
from enroll.photos.inspect import inspect

def threads():
    return len(list(Path("/proc/self/task").iterdir()))

before = threads()
source = inspect(Path(sys.argv[1]).read_bytes())
for strip in vips.strips(source, "RGB", (1100, 825)):
    pass
print(threads() - before)
"""
    if not Path("/proc/self/task").exists():
        pytest.skip("only Linux lists threads")
    photo = tmp_path / "a.jpg"
    photo.write_bytes(saved(portrait(1200, 900)))
    done = subprocess.run(
        [sys.executable, "-c", script, photo], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
    assert done.stderr == ""
