"""Photos of which a part is lost though their end is there, and good ones that look like such."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from archive import portrait
from cases import cases
from PIL import Image
from real_pictures import difference, exif, saved, scene, shown
from test_photo_corpus import pictures

from enroll.model import Fault
from enroll.photos import PhotoCode, Prepared, prepare
from enroll.photos.jpeg import EOI, truncated_at, walk, without_end
from enroll.photos.precheck import check
from enroll.settings import DEFAULT_PREPARATION, Precheck, Preparation

PHOTO = portrait(1)
LOOKING = Preparation(precheck=Precheck.WARN)


def half(content: bytes) -> int:
    """The middle of a JPEG's scan."""
    return (walk(content).scan + len(content)) // 2


def closed(content: bytes) -> bytes:
    return content[: half(content)] + EOI


def zeros_behind(content: bytes) -> bytes:
    there = half(content)
    return content[:there] + bytes(len(content) - there - 2) + EOI


def zeros_without_end(content: bytes) -> bytes:
    there = half(content)
    return content[:there] + bytes(len(content) - there)


def zeros_within(content: bytes) -> bytes:
    there = half(content)
    return content[:there] + bytes(4096) + content[there + 4096 :]


def end_within(content: bytes) -> bytes:
    there = half(content)
    return content[:there] + EOI + content[there + 2 :]


def code(content: bytes, preparation: Preparation = DEFAULT_PREPARATION) -> str:
    found = prepare(content, preparation)
    return found.code if isinstance(found, Fault) else found.words


@pytest.mark.parametrize("broken", [zeros_behind, zeros_without_end, zeros_within, end_within])
def test_a_photo_of_which_a_part_is_lost_is_truncated(
    broken: Callable[[bytes], bytes],
) -> None:
    found = prepare(broken(PHOTO))
    assert isinstance(found, Fault)
    assert found.code == PhotoCode.TRUNCATED
    percent = int(found.message.split("The last ")[1].split(" %")[0])
    assert 25 <= percent <= 75
    accepted = prepare(broken(PHOTO), Preparation(accept_truncated=True))
    assert isinstance(accepted, Prepared)
    assert accepted.words == "completed"
    there = (0, 0, *shown(PHOTO).crop((0, 0, 300, 80)).size)
    assert difference(shown(accepted.content).crop(there), shown(PHOTO).crop(there)) < 4


def test_an_end_within_a_progressive_photo_is_seen() -> None:
    content = saved(shown(PHOTO), quality=95, progressive=True)
    assert code(content) == ""
    assert code(end_within(content)) == PhotoCode.TRUNCATED


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 5}])
def test_a_photo_that_was_cut_and_closed_again_is_found_where_it_is_decoded(
    options: dict[str, Any],
) -> None:
    upright = saved(shown(PHOTO), quality=85, **options)
    turned = saved(shown(PHOTO), quality=85, exif=exif(6), **options)
    assert code(closed(upright)) == ""  # it is not decoded
    assert code(closed(turned)) == PhotoCode.TRUNCATED
    assert code(closed(turned), Preparation(accept_truncated=True)) == "completed, turned"
    prepared = prepare(closed(upright), LOOKING)
    assert isinstance(prepared, Prepared)
    doubt = check(prepared.content, prepared.media_type, LOOKING).fault
    assert doubt is not None
    assert doubt.code == PhotoCode.TRUNCATED
    whole = prepare(upright, LOOKING)
    assert isinstance(whole, Prepared)
    assert check(whole.content, whole.media_type, LOOKING).fault is None


@pytest.mark.parametrize("ground", ["white", "black"])
@pytest.mark.parametrize(
    "options",
    [{}, {"optimize": True}, {"optimize": True, "subsampling": 0}, {"progressive": True}],
)
def test_zeros_of_a_flat_background_are_no_loss(ground: str, options: dict[str, Any]) -> None:
    picture = Image.new("RGB", (2000, 2400), ground)
    content = saved(picture, **options)
    picture.paste(shown(PHOTO), (600, 700))
    for one in (content, saved(picture, **options), saved(picture.convert("L"), **options)):
        assert code(one) == ""
        assert code(one, Preparation(max_side=1000)) == "shrunk"
    if "optimize" in options:
        assert bytes(256) in content  # else this proves nothing


def trailers() -> dict[str, bytes]:
    chance = random.Random(1)
    video = b"\0\0\0\x18ftypmp42" + chance.randbytes(50_000)
    return {
        "a second picture": saved(scene()),
        "a second picture behind padding": bytes(3000) + saved(scene()),
        "a video": video,
        "a Samsung's video": b"\0\0\x01\x0a\x0e\0\0\0Image_UTC_Data1672531200000" + video + b"SEFT",
        "padding": bytes(70_000),
        "padding and one more end": bytes(700) + EOI,
        "one more end": EOI,
        "raw pixels": b"\xff\xff\xff\0" * 900 + EOI,
        "text": b"AXS!" + b"copied by a courier\n" * 400,
    }


@pytest.mark.parametrize("name", trailers())
def test_a_trailer_is_no_part_of_the_picture(name: str) -> None:
    assert code(PHOTO + trailers()[name]) == "stripped"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_picture_that_packages_carry_has_lost_a_part() -> None:
    looked_at = 0
    for path in pictures():
        if path.suffix.lower() not in (".jpg", ".jpeg"):
            continue
        content = path.read_bytes()
        looked_at += 1
        assert truncated_at(content, walk(content)) is None, path
        assert isinstance(prepare(content, Preparation(max_side=300)), Prepared), path
    assert looked_at >= 3


@cases("quality", [1, 50, 95])
@cases("options", [{}, {"optimize": True}, {"restart_marker_blocks": 1}])
@cases("size", [(64, 64), (50, 333), (640, 71)])
def test_a_whole_photo_is_decoded_without_its_end(
    size: tuple[int, int], options: dict[str, Any], quality: int
) -> None:
    noise = Image.effect_noise(size, 60).convert("RGB")
    for picture in (noise, noise.convert("L"), Image.new("RGB", size, "white"), scene(*size)):
        for sampling in (0, 1, 2):
            content = saved(picture, quality=quality, exif=exif(3), subsampling=sampling, **options)
            stripped = walk(content).stripped.joined()
            assert without_end(stripped, walk(stripped)).read() != stripped
            assert code(content) == "turned"


def test_headers_that_make_no_sense_are_no_crash() -> None:
    flat = saved(Image.new("L", (64, 64), "white"), optimize=True)
    for photo in (PHOTO, flat):
        header = walk(photo).scan
        content = photo[: header + 10] + bytes(300)
        assert code(content) == PhotoCode.TRUNCATED
        frame, tables = content.index(b"\xff\xc0"), content.index(b"\xff\xc4")
        for place in (*range(frame + 4, frame + 14), *range(tables + 4, header + 10)):
            for value in (0, 1, 255):
                code(content[:place] + bytes([value]) + content[place + 1 :])
