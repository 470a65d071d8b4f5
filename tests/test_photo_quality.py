"""What is sent of a large photo is made in one go, and nobody sees that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from cases import cases
from PIL import Image, ImageFilter
from real_pictures import exif, saved, shown

from enroll.photos import Prepared, prepare
from enroll.photos import picture as pictures
from enroll.photos.encode import LOWEST_QUALITY, Style, encode
from enroll.photos.picture import TURNS
from enroll.photos.picture import shown as made
from enroll.settings import DEFAULT_PREPARATION

pytestmark = pytest.mark.usefixtures("decoder")


@lru_cache
def portrait(width: int, height: int) -> Image.Image:
    """A real portrait, enlarged."""
    from skimage import data  # takes long to load, and collecting the tests needs none of it

    real = Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]
    return real.resize((width, height), Image.Resampling.LANCZOS)


@lru_cache
def half_grain(width: int, height: int) -> Image.Image:
    """Sky above and grain below, which is hard to estimate."""
    grain = Image.merge("RGB", [Image.effect_noise((width, height), 60) for _ in range(3)])
    picture = portrait(width, height).filter(ImageFilter.GaussianBlur(8))
    picture.paste(Image.blend(grain, picture, 0.6).crop((0, 800, width, height)), (0, 800))
    return picture


def similarity(one: Image.Image, other: Image.Image) -> float:
    """SSIM of what an eye sees best, the lightness: 1 where they are the same."""
    from skimage.metrics import structural_similarity

    # In half the time that 64 bits take, and the same to six digits.
    greys = [np.asarray(picture.convert("L"), dtype=np.float32) for picture in (one, other)]
    return float(structural_similarity(*greys, data_range=255))  # type: ignore[no-untyped-call]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of all pictures that Pillow has encoded."""
    sizes: list[tuple[int, int]] = []
    save = Image.Image.save

    def counted(picture: Image.Image, *args: Any, **options: Any) -> None:
        sizes.append(picture.size)
        save(picture, *args, **options)

    monkeypatch.setattr(Image.Image, "save", counted)
    return sizes


@pytest.mark.parametrize("draw", [portrait, half_grain], ids=["portrait", "grain"])
@pytest.mark.parametrize("share", [0.95, 0.7, 0.5])
def test_a_large_photo_is_encoded_once_whatever_has_to_go(
    draw: Callable[[int, int], Image.Image], share: float, encoded: list[tuple[int, int]]
) -> None:
    picture = draw(1600, 1200)
    content = saved(picture, quality=93)
    encoded.clear()
    limit = int(share * len(content))
    found = prepare(content, replace(DEFAULT_PREPARATION, max_bytes=limit))
    assert isinstance(found, Prepared)
    assert 0.8 * limit < len(found.content) <= limit
    assert encoded.count(picture.size) == 1
    assert len(encoded) <= 6  # with samples of it, from which the quality is estimated
    assert similarity(shown(found.content), shown(content)) > 0.85


def test_what_the_sample_does_not_show_is_noticed_and_the_photo_fits(
    encoded: list[tuple[int, int]],
) -> None:
    picture = portrait(1600, 1200).filter(ImageFilter.GaussianBlur(8))
    grain = Image.effect_noise((1600, 32), 120).convert("RGB")
    for top in range(16, 1200, 48):  # every row of blocks that no sample takes
        picture.paste(grain, (0, top))
    limit = len(saved(picture, quality=92)) // 2
    encoded.clear()
    assert len(encode(picture, Style(), max_bytes=limit)) <= limit
    assert encoded.count(picture.size) > 1


def test_a_photo_that_just_fits_in_the_coarsest_quality_keeps_its_pixels() -> None:
    picture = half_grain(1600, 1200)
    limit = len(saved(picture, quality=LOWEST_QUALITY, subsampling="4:4:4")) + 1
    made = shown(encode(picture, Style(), max_bytes=limit))
    assert made.size == picture.size


@pytest.mark.parametrize("limit", [4_000, 20_000, 100_000, 400_000])
def test_whatever_it_is_it_fits(limit: int) -> None:
    for picture in (half_grain(1600, 1200), portrait(1600, 1200), portrait(300, 2000)):
        assert len(encode(picture, Style(quality=95), max_bytes=limit)) <= limit


@pytest.mark.parametrize("side", [1140, 840, 384])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_photo_that_is_shrunk_looks_like_one_shrunk_with_the_best_filter(
    side: int, progressive: bool
) -> None:
    picture = portrait(1200, 900)
    content = saved(picture, quality=95, progressive=progressive)
    found = prepare(content, replace(DEFAULT_PREPARATION, max_side=side))
    assert isinstance(found, Prepared)
    best = shown(content).resize((side, side * 3 // 4), Image.Resampling.LANCZOS)
    assert similarity(shown(found.content), best) > 0.98


@cases("turn", [None, *TURNS.values()])
@cases("size", [(640, 480), (411, 309)])
def test_a_picture_made_in_strips_is_the_one_made_as_a_whole(
    turn: Image.Transpose | None, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_STRIP_PIXELS", 20_000)
    picture = portrait(640, 480)
    whole = picture.resize(size, Image.Resampling.BICUBIC)
    whole = whole if turn is None else whole.transpose(turn)
    difference = np.asarray(made(picture.copy(), size, turn)).astype(int) - np.asarray(whole)
    assert np.abs(difference).mean() < 0.3
    assert np.abs(difference).max() < 10  # rounded differently; a seam differs by dozens


def test_a_picture_on_its_side_that_is_transparent_has_no_seams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = portrait(640, 480).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    content = saved(picture, "PNG", exif=exif(6))
    preparation = replace(DEFAULT_PREPARATION, max_side=320)
    whole = prepare(content, preparation)
    monkeypatch.setattr(pictures, "_STRIP_PIXELS", 20_000)
    in_strips = prepare(content, preparation)
    assert isinstance(whole, Prepared)
    assert isinstance(in_strips, Prepared)
    assert similarity(shown(whole.content), shown(in_strips.content)) > 0.999
