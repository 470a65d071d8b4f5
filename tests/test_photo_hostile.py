"""No file makes a run crash, hang or take more memory than it may."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cases import cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from real_pictures import difference, exif, saved, scene, shown, with_segment

from enroll.model import Fault, Unusable
from enroll.photos import (
    BUDGET,
    Outline,
    PhotoCode,
    Picture,
    Prepared,
    glance,
    open_store,
    outline,
    prepare,
    read_photo,
    read_picture,
    read_top,
)
from enroll.photos.decode import open_picture
from enroll.photos.form import Form, orientation
from enroll.photos.jpeg import EOI, truncated_at, walk
from enroll.sandbox.faces import grey_picture
from enroll.settings import Preparation

pytestmark = [
    pytest.mark.filterwarnings("ignore::Warning:PIL"),
    pytest.mark.usefixtures("decoder"),
]
"""Pillow warns of odd metadata, and of large pictures; the command line keeps all of it quiet."""

HOPEFUL = Preparation(accept_truncated=True)


def code_of(content: bytes, preparation: Preparation = HOPEFUL) -> str:
    found = prepare(content, preparation)
    assert isinstance(found, Fault), found
    return found.code


def png_of(width: int, height: int, *, data: bytes = b"", extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, payload: bytes) -> bytes:
        head = len(payload).to_bytes(4, "big") + kind + payload
        return head + zlib.crc32(kind + payload).to_bytes(4, "big")

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(data, 9))
        + chunk(b"IEND", b"")
    )


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose frame claims to be of this size."""
    content = bytearray(saved(scene()))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def webp_of(width: int, height: int) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0"
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def bmp_of(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def gif_of(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0, 0, 0)
        + (b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08\x01\0\0;")
    )


def tiff_of(*entries: tuple[int, int, int, int], after: int = 0, at: int = 8) -> bytes:
    directory = struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        directory += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", at) + directory + struct.pack("<I", after)


def plain_tiff(width: int, height: int, *, after: int = 0) -> bytes:
    return tiff_of(
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, width * height),
        after=after,
    )


BOMBS = {
    "png": png_of(30_000, 30_000, data=bytes(10_000_000)),
    "png of two thousand million": png_of(2**31 - 1, 2**31 - 1),
    "jpeg": jpeg_of(65_500, 65_500),
    "webp": webp_of(16_383, 16_383),
    "bmp": bmp_of(2**31 - 1, 2**31 - 1),
    "gif": gif_of(65_535, 65_535),
    "tiff": plain_tiff(60_000, 60_000),
}


@cases("name", BOMBS)
def test_absurd_sizes_are_refused_without_decoding(name: str, tmp_path: Path) -> None:
    assert code_of(BOMBS[name]) == PhotoCode.TOO_MANY_PIXELS
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[name])
    seen = glance(str(path), open_store(tmp_path))
    assert isinstance(seen, Fault)
    assert seen.code == PhotoCode.TOO_MANY_PIXELS


def test_a_bomb_within_the_pixels_that_are_allowed_is_decoded_or_refused() -> None:
    found = prepare(png_of(4000, 3000, data=bytes(4000 * 3000)), HOPEFUL)
    assert isinstance(found, Prepared | Fault)
    assert code_of(png_of(9900, 9900, data=bytes(10_000))) in (
        PhotoCode.TOO_MANY_PIXELS,
        PhotoCode.TRUNCATED,
    )


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    content = plain_tiff(60, 60, after=8)
    padded = content + bytes(60 * 60)
    assert isinstance(prepare(padded, HOPEFUL), Prepared | Fault)
    path = tmp_path / "circle.tif"
    path.write_bytes(padded)
    glance(str(path), open_store(tmp_path))


LIES = {
    "an offset beyond the end": b"II*\0" + struct.pack("<I", 2**32 - 1),
    "many entries": b"II*\0" + struct.pack("<IH", 8, 65_535),
    "a ninth way up": tiff_of((0x0112, 3, 1, 9)),
    "a list": tiff_of((0x0112, 3, 2, 6)),
    "text": tiff_of((0x0112, 2, 1, 6)),
    "nothing": b"",
    "half a head": b"II*",
    "another format": b"\x89PNG" * 5,
    "a directory that is its own entry": b"II*\0" + struct.pack("<I", 0),
}


@cases("lie", LIES)
def test_exif_that_lies_is_not_believed(lie: str) -> None:
    assert orientation(LIES[lie]) == 1
    content = with_segment(saved(scene()), 0xE1, b"Exif\0\0" + LIES[lie])
    found = prepare(content)
    assert isinstance(found, Prepared)
    assert found.words == "stripped"


def test_exif_that_tells_the_truth_is_believed_in_either_order_of_bytes() -> None:
    assert orientation(tiff_of((0x0112, 3, 1, 6))) == 6
    assert orientation(exif(8).tobytes().removeprefix(b"Exif\0\0")) == 8


def test_gigantic_metadata_is_cut_out() -> None:
    content = saved(scene())
    start, rest = content[:2], content[2:]
    metadata = with_segment(start, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(65_000))
    content = start + metadata[2:] * 300 + rest
    found = prepare(content)
    assert isinstance(found, Prepared)
    assert len(content) > 19_000_000
    assert found.content == saved(scene())


def test_millions_of_fill_bytes_before_a_marker_are_cut_out() -> None:
    content = saved(scene())
    at = content.index(b"\xff\xdb")
    found = prepare(content[:at] + b"\xff" * 20_000_000 + content[at:])
    assert isinstance(found, Prepared)
    assert found.content == content


def test_a_jpeg_is_given_to_its_decoder_in_large_pieces() -> None:
    """It looks for a marker from the beginning of what it skips each time that it is given more."""
    content = saved(scene()).removesuffix(EOI) + b"\xff" * 20_000_000 + EOI
    assert open_picture(content, Form.JPEG).decodermaxblock >= 1_000_000
    found = prepare(content)
    assert isinstance(found, Prepared)
    assert found.words == "shrunk"
    assert difference(shown(found.content), shown(saved(scene()))) < 2


def test_thousands_of_empty_tables_are_not_all_looked_at() -> None:
    content = saved(scene())
    at = content.index(b"\xff\xda")
    tables = (b"\xff\xc4\xff\xff" + bytes(65_533)) * 300
    zeros = content[:at] + tables + content[at:-20] + bytes(300) + EOI
    assert truncated_at(zeros, walk(zeros)) is None


def test_a_bomb_in_a_damaged_png_is_unpacked_no_further_than_its_lines() -> None:
    bomb = png_of(60, 60, data=bytes(200_000_000))
    at = bomb.index(b"IEND") - 4
    found = prepare(bomb[:at] + b"rubbish behind the picture" + bomb[at:])
    assert isinstance(found, Prepared)
    assert found.content == bomb
    short = png_of(60, 60, data=bytes(60 * 181 - 1))
    found = prepare(short[:-12] + b"rubbish behind the picture" + bomb[at:])
    assert isinstance(found, Fault)
    assert found.code == PhotoCode.TRUNCATED
    many = png_of(40_000, 40_000, data=bytes(200_000_000))
    content = many[:-12] + b"rubbish behind the picture" + many[-12:]
    assert code_of(content) == PhotoCode.TOO_MANY_PIXELS


def test_a_png_without_a_picture_is_damaged() -> None:
    content = png_of(60, 60)
    at = content.index(b"IDAT") - 4
    assert code_of(content[:at] + content[-12:]) == PhotoCode.DAMAGED


def test_a_text_of_a_png_that_unpacks_to_gigabytes_is_never_unpacked() -> None:
    payload = b"Comment\0\0" + zlib.compress(bytes(50_000_000), 9)
    length = len(payload).to_bytes(4, "big")
    kind = b"zTXt"
    bomb = length + kind + payload + zlib.crc32(kind + payload).to_bytes(4, "big")
    rows = b"".join(b"\0" + bytes(60 * 3) for _ in range(60))
    found = prepare(png_of(60, 60, data=rows, extra=bomb))
    assert isinstance(found, Prepared)
    assert b"zTXt" not in found.content


def test_a_file_that_grows_or_shrinks_while_it_is_read_is_due_again(tmp_path: Path) -> None:
    content = saved(scene(800, 600), "BMP")
    path = tmp_path / "changing.bmp"
    path.write_bytes(content)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            with path.open("r+b") as file:
                file.truncate(len(content) // 2)
                file.seek(0)
                file.write(content)

    writer = threading.Thread(target=change)
    writer.start()
    codes = set()
    try:
        for _ in range(5_000):
            one = read_photo(str(path), open_store(tmp_path))
            if isinstance(one, Unusable):
                codes.add(one.fault.code)
            else:
                assert one.content == content
            if PhotoCode.CHANGED in codes:
                break
    finally:
        stop.set()
        writer.join()
    assert codes - {PhotoCode.TRUNCATED} == {PhotoCode.CHANGED}


SEEDS = {
    "baseline": saved(scene(96, 64), exif=exif(6), comment=b"hello"),
    "progressive": saved(scene(96, 64), progressive=True),
    "cmyk": saved(scene(96, 64).convert("CMYK")),
    "png": saved(scene(96, 64), "PNG", exif=exif(3)),
    "palette": saved(scene(96, 64).quantize(32), "PNG"),
    "alpha": saved(scene(96, 64).convert("RGBA"), "PNG"),
    "tiff": saved(scene(96, 64), "TIFF"),
    "packed tiff": saved(scene(96, 64), "TIFF", compression="tiff_adobe_deflate"),
    "gif": saved(scene(96, 64).quantize(32), "GIF"),
    "webp": saved(scene(96, 64), "WEBP"),
    "lossless webp": saved(scene(96, 64).convert("RGBA"), "WEBP", lossless=True),
    "bmp": saved(scene(96, 64), "BMP"),
    "avif": saved(scene(96, 64), "AVIF", speed=10),
    "cut-out avif": saved(scene(96, 64).convert("RGBA"), "AVIF", speed=10),
    "animated avif": saved(
        scene(96, 64), "AVIF", speed=10, save_all=True, append_images=[scene(96, 64)]
    ),
    "animated webp": saved(scene(96, 64), "WEBP", save_all=True, append_images=[scene(96, 64)]),
    "palette tiff": saved(scene(96, 64).quantize(32), "TIFF"),
    "big tiff": saved(scene(96, 64), "TIFF", big_tiff=True),
}


@given(data=st.data(), name=st.sampled_from(sorted(SEEDS)))
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_mutated_files_come_to_a_declared_outcome(data: st.DataObject, name: str) -> None:
    content = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["byte", "cut", "drop", "repeat", "number"]))
        if kind == "byte":
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "number":
            content[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff"]))
        elif kind == "cut":
            del content[max(at, 4) :]
        elif kind == "drop":
            del content[at : at + data.draw(st.integers(1, 64))]
        else:
            content[at:at] = content[at : at + 64]
        if len(content) < 2:
            break
    outcome(bytes(content))
    compared(bytes(content))


def test_a_gifs_picture_that_is_larger_than_its_canvas_is_refused_before_pillow_warns() -> None:
    content = bytearray(SEEDS["gif"])
    at = content.index(b",", 13 + 3 * 32)  # behind the colours
    content[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert code_of(bytes(content)) == PhotoCode.TOO_MANY_PIXELS
        content[at + 5 : at + 9] = b"\x7f\x7f\xff\xff"  # within the memory for decoding
        outcome(bytes(content))


@given(tail=st.binary(max_size=300), head=st.sampled_from([SEEDS[n][:12] for n in sorted(SEEDS)]))
@settings(max_examples=200)
def test_any_bytes_behind_a_known_beginning_come_to_a_declared_outcome(
    tail: bytes, head: bytes
) -> None:
    outcome(head + tail)


def outcome(content: bytes) -> None:
    for preparation in (Preparation(max_pixels=1_000_000), Preparation(accept_truncated=True)):
        found = prepare(content, preparation)
        if isinstance(found, Fault):
            assert found.code in set(PhotoCode)
            assert found.message.endswith(".")
        elif found.done and found.media_type == "image/jpeg" and "stripped" not in found.words:
            grey_picture(found.content, field="file", around=64)


def compared(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path, store = f"{folder}/photo", open_store(folder)
        Path(path).write_bytes(content)
        assert isinstance(outline(path, store), Outline)
        whole, top = read_picture(path, store, decodes=True), read_top(path, store)
        assert isinstance(whole, Picture)
        assert top in (whole.top, None) or whole.top is None


MEMORY = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
import enroll.commands.run
from enroll.model import Photo
from enroll.photos import bounds, give_back_memory, limit_memory, open_store, read_photo

bounds.LIBVIPS_INSTALLED = bool(int(sys.argv[2]))
give_back_memory()
limit_memory(int(sys.argv[3]) * 1_000_000)
folder = Path(sys.argv[1]).resolve()
store = open_store(folder)
paths = [str(path) for path in sorted(folder.iterdir())] * 2
with ThreadPoolExecutor(len(paths)) as threads:
    # What is ready counts with the engine, and is dropped here.
    for kind in threads.map(lambda path: type(read_photo(path, store)), paths):
        if kind is not Photo:
            sys.exit(repr(kind))
# Not getrusage: its maximum is inherited from the process that started this one.
status = Path("/proc/self/status").read_text().splitlines()
peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024
print(peak // 1_000_000)
"""


@pytest.fixture(scope="module")
def photos_of_many_kinds() -> Iterator[Path]:
    """A folder not in memory, where what a process has mapped of a file counts as its own."""
    flat = Image.new("RGB", (4000, 3000), (90, 120, 200))
    noise = Image.effect_noise((1200, 900), 90).resize((3600, 2700)).convert("RGB")
    turned: dict[str, Any] = {"exif": exif(6), "quality": 93}
    with TemporaryDirectory() as folder:
        for name, content in {
            "turned.jpg": saved(flat, exif=exif(6)),
            "every pixel.jpg": saved(noise, subsampling=0, **turned),
            "every other.jpg": saved(noise.resize((3000, 2250)), subsampling=1, **turned),
            "progressive.jpg": saved(noise.resize((2250, 3000)), progressive=True, **turned),
            "a.tif": saved(noise, "TIFF"),
            "large.jpg": saved(noise.resize((4800, 3200)), quality=85),
            "alpha.png": saved(flat.convert("RGBA"), "PNG", compress_level=1),
            "a.webp": saved(flat, "WEBP", method=0, quality=1),
            "huge.jpg": saved(Image.new("L", (10_000, 9_000))),
        }.items():
            Path(folder, name).write_bytes(content)
        yield Path(folder)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("decoder", "memory"),  # MB; within the least libvips is not used, installed or not
    [(False, 400), (False, 500), (True, 500)],
    indirect=["decoder"],
)
def test_photos_of_many_kinds_are_prepared_within_the_memory_allowed(
    photos_of_many_kinds: Path, memory: int
) -> None:
    libvips = str(int(BUDGET.for_libvips > 0))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(photos_of_many_kinds), libvips, str(memory)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert 100 < int(done.stdout) < memory
