"""What cannot be sent as it is looks the same when it is sent, and fits."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, _imaging
from real_pictures import difference, exif, saved, scene, shown, swapped_profile

import enroll.settings
from enroll.allowed import LEAST_MEMORY
from enroll.model import Fault, Photo
from enroll.photos import Edit, PhotoCode, Prepared, bounds, open_store, prepare, read_photo
from enroll.photos.bounds import BASE_BYTES, LARGE_FILE, LIBVIPS_INSTALLED, Budget, Gate
from enroll.photos.decode import decoding_bytes
from enroll.photos.form import Form
from enroll.photos.strip import Pieces
from enroll.sandbox.faces import grey_picture
from enroll.settings import DEFAULT_PREPARATION, Preparation, decoding_limit, least_memory

pytestmark = pytest.mark.usefixtures("decoder")

NEARLY = 2.0
"""Levels of 255 by which a JPEG may differ on average; what is wrong differs by dozens."""

EXACT = replace(DEFAULT_PREPARATION, heif=True)


def sent(content: bytes, preparation: Preparation = DEFAULT_PREPARATION) -> Prepared:
    found = prepare(content, preparation)
    assert isinstance(found, Prepared), found
    grey_picture(found.content, field="file", around=640)  # the stand-in takes it
    assert len(found.content) <= preparation.max_bytes
    return found


def fault_of(content: bytes, preparation: Preparation = DEFAULT_PREPARATION) -> Fault:
    found = prepare(content, preparation)
    assert isinstance(found, Fault), found
    return found


def noise(width: int, height: int) -> Image.Image:
    """A picture that packs badly."""
    bands = [Image.effect_noise((width, height), 25) for _ in range(3)]
    return Image.blend(Image.merge("RGB", bands), scene(width, height), 0.5)


@cases("orientation", range(2, 9))
@cases("form", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_photo_on_its_side_is_turned_upright(form: str, orientation: int) -> None:
    options = {"quality": 92} if form != "PNG" else {}
    content = saved(scene(), form, exif=exif(orientation), **options)
    found = sent(content)
    assert Edit.TURNED in found.done
    assert (Edit.CONVERTED in found.done) is (form != "JPEG")
    assert difference(shown(found.content), shown(content)) < NEARLY
    assert difference(shown(found.content), scene().transpose(TURNS[orientation])) < 4


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_turning_a_jpeg_keeps_its_quality(subsampling: int) -> None:
    content = saved(
        noise(320, 240), exif=exif(6), quality=88, subsampling=subsampling, optimize=True
    )
    found = sent(content)
    assert found.words == "turned"
    assert 0.8 < len(found.content) / len(content) < 1.35
    assert difference(shown(found.content), shown(content)) < NEARLY


def test_too_many_pixels_a_side_are_shrunk_and_the_shape_stays() -> None:
    content = saved(scene(1200, 800), quality=95)
    found = sent(content, Preparation(max_side=480))
    assert found.words == "shrunk"
    with Image.open(BytesIO(found.content)) as picture:
        assert picture.size == (480, 320)
    wanted = shown(content).resize((480, 320), Image.Resampling.LANCZOS)
    assert difference(shown(found.content), wanted) < NEARLY


@pytest.mark.parametrize("options", [{}, {"progressive": True, "subsampling": 0}])
def test_a_jpeg_that_takes_too_much_memory_as_a_whole_is_decoded_smaller(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = saved(scene(1200, 900), quality=95, **options)
    monkeypatch.setattr(enroll.settings, "DECODING_BYTES", 8_500_000)
    found = sent(content, Preparation(max_side=1100))
    assert found.words == "shrunk"
    with Image.open(BytesIO(found.content)) as picture:
        assert picture.size == (600, 450)
    wanted = shown(content).resize((600, 450), Image.Resampling.LANCZOS)
    assert difference(shown(found.content), wanted) < NEARLY


def test_a_photo_that_is_turned_and_shrunk_says_both() -> None:
    content = saved(scene(1200, 800), exif=exif(8))
    found = sent(content, Preparation(max_side=480))
    assert found.words == "turned, shrunk"
    with Image.open(BytesIO(found.content)) as picture:
        assert picture.size == (320, 480)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
def test_too_many_bytes_cost_quality_only_as_far_as_needed(share: float) -> None:
    content = saved(noise(600, 400), quality=95)
    limit = int(len(content) * share)
    found = sent(content, Preparation(max_bytes=limit))
    assert found.words == "shrunk"
    assert 0.75 * limit < len(found.content) <= limit
    with Image.open(BytesIO(found.content)) as picture:
        assert picture.size == (600, 400)


def test_what_does_not_fit_at_low_quality_gets_fewer_pixels_too() -> None:
    content = saved(noise(600, 400), quality=95)
    found = sent(content, Preparation(max_bytes=10_000))
    with Image.open(BytesIO(found.content)) as picture:
        assert 48 < min(picture.size) < 400


def deep(mode: str) -> Image.Image:
    grey = scene().convert("L").convert("I").point(lambda level: level * 257)
    return grey if mode == "I" else grey.convert(mode)


def with_alpha(mode: str) -> Image.Image:
    picture = scene().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture.convert(mode) if mode != "P" else picture.quantize(128)


COLOURS: dict[str, Callable[[], Image.Image]] = {
    "RGBA": lambda: with_alpha("RGBA"),
    "LA": lambda: with_alpha("LA"),
    "transparent P": lambda: with_alpha("P"),
    "P": lambda: scene().quantize(200),
    "L": lambda: scene().convert("L"),
    "1": lambda: scene().convert("1"),
    "RGB": scene,
}


@pytest.mark.parametrize(
    ("colours", "form"),
    [
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("transparent P", "PNG"),
        ("RGBA", "WEBP"),
        ("RGBA", "TIFF"),
        ("RGBA", "AVIF"),
        ("P", "GIF"),
        ("transparent P", "GIF"),
        ("L", "TIFF"),
        ("1", "TIFF"),
        ("P", "TIFF"),
        ("RGB", "WEBP"),
        ("RGB", "AVIF"),
    ],
)
def test_a_picture_in_other_colours_or_another_format_looks_the_same(
    colours: str, form: str
) -> None:
    content = saved(COLOURS[colours](), form)
    found = sent(content)
    assert (found.words, found.media_type) == ("converted", "image/jpeg")
    assert difference(shown(found.content), shown(content)) < NEARLY


@pytest.mark.parametrize(("mode", "form"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I", "TIFF")])
def test_sixteen_bits_a_pixel_become_eight(mode: str, form: str) -> None:
    found = sent(saved(deep(mode), form))
    assert found.words == "converted"
    assert difference(shown(found.content), scene().convert("L").convert("RGB")) < NEARLY


def test_floating_point_is_spread_over_the_greys() -> None:
    levels = scene().convert("L").convert("F").point(lambda level: level * (1 / 255))
    found = sent(saved(levels, "TIFF"))
    assert difference(shown(found.content), scene().convert("L").convert("RGB")) < 8


def test_cmyk_as_adobe_writes_it_is_shown_and_not_its_negative() -> None:
    content = saved(scene().convert("CMYK"), quality=95)
    assert b"Adobe" in content
    found = sent(content)
    assert found.words == "converted"
    assert difference(shown(found.content), scene()) < 4
    tiff = sent(saved(scene().convert("CMYK"), "TIFF"))
    assert difference(shown(tiff.content), scene()) < 4


def test_a_profile_is_applied_when_the_picture_is_made_anew() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    # A profile whose red is our green: what it shows is told by converting, not by the numbers.
    swapped = Image.merge("RGB", [scene().getchannel(band) for band in "GRB"])
    profile = swapped_profile(srgb.tobytes())
    content = saved(swapped, quality=95, icc_profile=profile, exif=exif(3))
    found = sent(content)
    with Image.open(BytesIO(found.content)) as picture:
        assert "icc_profile" not in picture.info
    assert difference(shown(found.content), scene().rotate(180)) < 6
    in_lab = ImageCms.profileToProfile(scene(), srgb, lab, outputMode="LAB")
    assert in_lab is not None
    assert difference(shown(sent(saved(in_lab, "TIFF")).content), scene()) < 6


@pytest.mark.parametrize("profile", [b"rubbish", b"\0" * 5000])
def test_a_profile_that_nobody_can_read_is_as_good_as_none(profile: bytes) -> None:
    content = saved(scene(), exif=exif(3), icc_profile=profile)
    assert difference(shown(sent(content).content), scene().rotate(180)) < 4


def test_a_profile_of_other_colours_is_as_good_as_none() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = saved(scene().convert("CMYK"), icc_profile=srgb)
    assert difference(shown(sent(content).content), scene()) < 4


def test_a_png_that_is_too_large_becomes_a_jpeg() -> None:
    content = saved(noise(400, 300), "PNG")
    found = sent(content, Preparation(max_bytes=len(content) // 2))
    assert (found.words, found.media_type) == ("converted", "image/jpeg")


def test_the_first_picture_of_an_animation_is_sent() -> None:
    out = BytesIO()
    scene().save(out, "GIF", save_all=True, append_images=[scene().rotate(180)])
    assert difference(shown(sent(out.getvalue()).content), scene()) < 8


def test_a_heic_is_converted_where_the_extra_is_installed() -> None:
    heif = pytest.importorskip("pillow_heif")
    out = BytesIO()
    heif.from_pillow(scene()).save(out, quality=90)
    assert difference(shown(sent(out.getvalue(), EXACT).content), scene()) < 4
    fault = fault_of(out.getvalue(), replace(DEFAULT_PREPARATION, heif=False))
    assert fault.code == PhotoCode.FORMAT
    assert "extra heif" in fault.message


def test_what_phones_take_today_fits_into_the_memory_for_decoding() -> None:
    picture = Image.new("RGB", (5712, 4284))
    assert decoding_bytes(picture, Form.HEIF) <= decoding_limit(DEFAULT_PREPARATION.max_pixels)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (saved(scene(), "WEBP"), "a WebP"),
        (saved(scene().convert("CMYK")), "a JPEG in CMYK"),
        (saved(with_alpha("RGBA"), "PNG"), "a PNG that is transparent"),
        (saved(scene(), "PNG", exif=exif(6)), "a PNG that would have to be turned"),
    ],
    ids=["WebP", "CMYK", "alpha", "turned"],
)
def test_without_conversion_what_would_be_converted_is_refused(content: bytes, what: str) -> None:
    fault = fault_of(content, Preparation(convert=False))
    assert fault.code == PhotoCode.FORMAT
    assert what in fault.message


def test_without_conversion_a_jpeg_is_turned_and_shrunk_all_the_same() -> None:
    content = saved(scene(1200, 800), exif=exif(6))
    assert sent(content, Preparation(max_side=400, convert=False)).words == "turned, shrunk"


# Truncated


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_it_is_said_how_much_of_a_truncated_photo_is_missing(form: str) -> None:
    content = saved(noise(200, 400), form)
    message = fault_of(content[: int(len(content) * 0.6)]).message
    percent = int(message.split("The last ")[1].split(" %")[0])
    assert 33 <= percent <= 47


@pytest.mark.parametrize("form", ["BMP", "WEBP", "AVIF", "TIFF"])
def test_a_format_that_tells_its_length_tells_how_many_bytes_are_missing(form: str) -> None:
    content = saved(noise(200, 400), form)
    fault = fault_of(content[:-1000])  # a TIFF with its directory at the beginning
    assert fault.code == PhotoCode.TRUNCATED
    assert "The last 1,000 bytes" in fault.message


def test_what_cannot_be_told_of_a_truncated_photo_is_not_said() -> None:
    interlaced = saved(noise(200, 400).quantize(64), "GIF", interlace=1)
    assert fault_of(interlaced[: len(interlaced) // 2]).message.startswith("The end of the pict")
    avif = saved(noise(200, 400), "AVIF", speed=10)
    in_its_head = fault_of(avif[: avif.index(b"ispe")])  # the picture's box is not even begun
    assert in_its_head.message.startswith("The end of the picture is missing")
    stub = fault_of(saved(scene().quantize(32), "GIF")[:90])
    assert (stub.code, "nothing that is there" in stub.message) == (PhotoCode.TRUNCATED, True)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_photo_without_its_last_two_bytes_misses_hardly_anything(form: str) -> None:
    content = saved(noise(200, 400), form)
    assert "hardly any of the picture, is missing" in fault_of(content[:-2]).message
    assert sent(content[:-2], Preparation(accept_truncated=True)).words.startswith("completed")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_to_send_what_there_is_is_said_only_where_it_helps(form: str) -> None:
    cut = saved(noise(200, 400), form)[:-3000]
    helps = isinstance(prepare(cut, Preparation(accept_truncated=True)), Prepared)
    assert helps is (form not in ("WEBP", "AVIF"))
    assert ("--accept-truncated" in fault_of(cut).message) is helps


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "TIFF"])
def test_what_there_is_of_a_truncated_photo_is_sent_when_asked(form: str) -> None:
    content = saved(scene(), form)
    cut = content[: int(len(content) * 0.7)]
    assert fault_of(cut).code == PhotoCode.TRUNCATED
    found = sent(cut, Preparation(accept_truncated=True))
    assert Edit.COMPLETED in found.done
    there = (0, 120, 240, 160) if form == "BMP" else (0, 0, 240, 40)  # a BMP begins at the bottom
    assert difference(shown(found.content).crop(there), scene().crop(there)) < 8


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_tiff_whose_directory_was_to_come_at_the_end_is_truncated() -> None:
    cut = saved(scene(), "TIFF", compression="tiff_lzw")[:-1000]
    assert fault_of(cut).code == PhotoCode.TRUNCATED
    hopeless = fault_of(cut, Preparation(accept_truncated=True))
    assert (hopeless.code, "--accept" in hopeless.message) == (PhotoCode.TRUNCATED, False)


def test_a_truncated_progressive_photo_is_sent_blurred() -> None:
    content = saved(scene(), progressive=True)
    found = sent(content[: len(content) * 2 // 3], Preparation(accept_truncated=True))
    assert found.words == "completed"
    assert difference(shown(found.content), scene()) < 30


# Sizes


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_fewer_than_48_pixels_a_side_are_refused(form: str) -> None:
    assert fault_of(saved(scene(47, 90), form)).code == PhotoCode.TOO_SMALL
    assert isinstance(prepare(saved(scene(48, 90), form)), Prepared)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_more_pixels_than_are_allowed_are_refused(form: str) -> None:
    content = saved(scene(300, 200), form)
    assert fault_of(content, Preparation(max_pixels=59_999)).code == PhotoCode.TOO_MANY_PIXELS
    assert isinstance(prepare(content, Preparation(max_pixels=60_000)), Prepared)


def test_a_ribbon_that_would_be_too_narrow_is_refused() -> None:
    fault = fault_of(saved(scene(6000, 60)))
    assert fault.code == PhotoCode.TOO_SMALL
    assert "narrower" in fault.message


def test_a_difference_is_seen() -> None:
    # Else the tests above could not fail.
    assert difference(scene(), scene().rotate(180)) > 15
    assert difference(scene(), ImageChops.invert(scene())) > 30


def test_a_gate_lets_one_in_that_needs_more_than_there_is_and_then_nobody() -> None:
    gate = Gate(places=2, limit=50)
    with gate.room(100):
        assert not gate._fits(1)
    with gate.room(30):
        assert gate._fits(20)
        assert not gate._fits(21)


def test_who_needs_less_in_the_end_lets_others_in_before_it_is_done() -> None:
    gate = Gate(places=2, limit=50)
    with gate.room(40) as room:
        assert not gate._fits(20)
        room.shrink(30)
        assert gate._fits(20)
        room.shrink(35)  # it has no more than that
        assert gate._fits(20)
        assert not gate._fits(21)
    assert gate._used == 0


def shared_out(budget: Budget) -> int:
    blocks: int = budget.kept_blocks * _imaging.get_block_size()
    assert _imaging.get_blocks_max() == budget.kept_blocks
    return budget.files.limit + budget.pictures.limit + budget.for_libvips + blocks + BASE_BYTES


@pytest.fixture
def blocks_of_pillow() -> Iterator[None]:
    """They are of the whole process."""
    most, size = _imaging.get_blocks_max(), _imaging.get_block_size()
    yield
    _imaging.set_blocks_max(most)
    _imaging.set_block_size(size)


@pytest.mark.usefixtures("blocks_of_pillow")
@cases("max_pixels", [5_000, 100_000_000, 1_000_000_000])
@cases("beyond", [0, 100_000_000, 600_000_000, 64_000_000_000])
def test_a_budget_is_shared_out_whole_and_has_room_for_the_largest_photo(
    beyond: int, max_pixels: int
) -> None:
    budget = Budget()
    memory = least_memory(max_pixels) + beyond
    budget.limit(memory, max_pixels=max_pixels)
    assert shared_out(budget) == memory
    assert budget.pictures.limit >= decoding_limit(max_pixels)
    assert budget.files.limit >= LARGE_FILE
    assert not (budget.for_libvips and beyond == 0)  # the least has no room for it
    assert bool(budget.for_libvips) == LIBVIPS_INSTALLED or beyond < 600_000_000


@pytest.mark.usefixtures("blocks_of_pillow")
def test_an_automatic_budget_is_a_quarter_of_the_machine_and_never_less_than_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = Budget()
    for machine, max_pixels, memory in (
        (100, 100_000_000, LEAST_MEMORY),
        (8_000_000_000, 100_000_000, 2_000_000_000),
        (100, 200_000_000, LEAST_MEMORY + 200_000_000),
    ):
        monkeypatch.setattr(bounds, "memory_limit", lambda: machine)  # noqa: B023
        budget.limit(None, max_pixels=max_pixels)
        assert shared_out(budget) == memory


def test_photos_that_are_ready_leave_less_room_and_whoever_is_next_keeps_more_from_coming() -> None:
    gate = Gate(places=2, limit=50)
    gate.keep(20)
    assert [gate.full] == [False]
    with gate.room(20):
        assert gate._fits(10)
        assert not gate._fits(11)
    entered: list[int] = []

    def enter() -> None:
        with gate.room(40):
            entered.append(gate._kept)

    waits = threading.Thread(target=enter)
    waits.start()
    while not gate.full:  # it has to come to the gate first
        pass
    gate.keep(-10)
    waits.join()
    assert entered == [10]


@given(
    limit=st.integers(1, 100),
    places=st.integers(1, 4),
    needs=st.lists(st.integers(0, 150), min_size=1, max_size=24),
)
@settings(max_examples=50, deadline=None)
def test_no_more_is_handed_out_than_there_is_but_to_one_alone_and_everybody_has_a_turn(
    limit: int, places: int, needs: list[int]
) -> None:
    gate, found, watched = Gate(places, limit), list[bool](), threading.Lock()

    def task(need: int) -> None:
        with gate.room(need):
            with gate._changed:
                within = gate._used + gate._kept <= limit or gate._inside == 1
                within = within and gate._inside <= places
            with watched:
                found.append(within)

    tasks = [threading.Thread(target=task, args=(need,)) for need in needs]
    for one in tasks:
        one.start()
    for one in tasks:
        one.join()
    assert found == [True] * len(needs)
    assert gate._used == gate._inside == 0


def test_bytes_in_pieces_are_read_like_a_file() -> None:
    whole = bytes(range(100))
    pieces = Pieces([memoryview(whole)[:40], whole[40:41], b"", whole[41:]])
    assert pieces.read() == whole
    assert pieces.read() == pieces.read(5) == b""
    for start, size in [(0, 40), (39, 3), (40, 1), (99, 5), (100, 1), (200, 1), (0, 0)]:
        assert pieces.seek(start) == pieces.tell() == start
        assert pieces.read(size) == whole[start : start + size]
    assert pieces.seek(-3, 2) == 97
    assert pieces.seek(1, 1) == 98
    assert pieces.read(1) + pieces.read(None) == whole[98:]


def test_a_file_lies_in_memory_once_while_it_is_made_anew(tmp_path: Path) -> None:
    grain = Image.frombytes("L", (1500, 1500), random.Random(1).randbytes(1500 * 1500))
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(grain, quality=100, exif=exif(6), comment=bytes(60_000)))
    tracemalloc.start()
    try:
        read = read_photo(str(path), open_store(tmp_path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(read, Photo)
    assert read.prepared == "turned, shrunk"
    # Twice for a moment: the file and what is left of it, then that and the first try at encoding.
    assert peak < 3 * path.stat().st_size


ASKED_AT_ONCE = """
from threading import Barrier, Thread
from enroll.photos.bounds import DECODERS

barrier, found = Barrier(16), []

def ask() -> None:
    barrier.wait()
    found.append(id(DECODERS._threads()))

threads = [Thread(target=ask) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(set(found)))
"""


def test_a_process_has_one_set_of_decoders_however_many_threads_ask_first() -> None:
    asked = [
        subprocess.run(
            [sys.executable, "-c", ASKED_AT_ONCE],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        for _ in range(3)
    ]
    assert [done.stdout for done in asked] == ["1\n"] * 3
