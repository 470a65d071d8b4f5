"""Metadata leaves nothing behind, and not one pixel changes."""

from __future__ import annotations

import random
import zlib
from io import BytesIO
from itertools import pairwise
from typing import Any

import pytest
from cases import cases
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from real_pictures import Made, exif, saved, scene, with_segment

from enroll.model import Fault
from enroll.photos import Edit, PhotoCode, Prepared, prepare
from enroll.photos.jpeg import MOST_FILL, MOST_SCANS, MOST_SEGMENTS, walk
from enroll.settings import Preparation

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SECRET = b"52 degrees north, at the Meyers'"


def sent(content: bytes) -> Prepared:
    found = prepare(content)
    assert isinstance(found, Prepared), found
    return found


def pixels(content: bytes) -> bytes:
    with Image.open(BytesIO(content)) as picture:
        return picture.mode.encode() + picture.tobytes()


def scan_data(jpeg: bytes) -> list[bytes]:
    """What stands between the scans' markers and the next."""
    found, at = [], jpeg.index(b"\xff\xda")
    while at >= 0:
        after = at + 2
        while not (jpeg[after] == 0xFF and jpeg[after + 1] not in (0, *range(0xD0, 0xD8))):
            after += 1
        found.append(jpeg[at:after])
        at = jpeg.find(b"\xff\xda", after)
    return found


KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "grey": {"mode": "L"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 4},
    "4:2:0": {"subsampling": 2},
    "4:4:4": {"subsampling": 0},
    "RGB": {"keep_rgb": True},
    "optimized": {"optimize": True, "quality": 98},
}


def jpeg(kind: str = "baseline", **more: Any) -> bytes:
    options: dict[str, Any] = {**KINDS[kind], **more}
    return saved(scene().convert(str(options.pop("mode", "RGB"))), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_metadata_is_sent_as_it_is(kind: str) -> None:
    content = jpeg(kind)
    assert sent(content).content is content
    assert sent(content).done == ()


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")  # it is one
@pytest.mark.parametrize("kind", KINDS)
def test_all_metadata_of_a_jpeg_is_cut_out_and_its_scans_are_the_same_bytes(kind: str) -> None:
    content = jpeg(kind, exif=exif(), comment=SECRET, icc_profile=SRGB)
    for marker, head in [
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
        (0xED, b"Photoshop 3.0\0"),
        (0xE2, b"MPF\0"),
        (0xE2, b"FPXR\0"),
        (0xEB, b"JP\0"),
        (0xE0, b"JFXX\0"),
        (0xEF, b""),
    ]:
        content = with_segment(content, marker, head + SECRET)
    content += SECRET
    found = sent(content)
    assert found.done == (Edit.STRIPPED,)
    assert SECRET not in found.content
    assert b"Exif" not in found.content
    assert found.content.endswith(b"\xff\xd9")
    assert scan_data(found.content) == scan_data(content)
    assert pixels(found.content) == pixels(content)
    with Image.open(BytesIO(found.content)) as picture:
        assert picture.info["icc_profile"] == SRGB
    assert sent(found.content).done == ()


def test_a_thumbnail_in_the_jfif_segment_goes_and_the_segment_stays() -> None:
    content = jpeg()
    assert content[4:11] == b"\0\x10JFIF\0"
    thumbnail = bytes(range(3 * 4 * 5))
    length = (16 + len(thumbnail)).to_bytes(2, "big")
    with_it = content[:4] + length + content[6:18] + b"\x04\x05" + thumbnail + content[20:]
    assert pixels(with_it) == pixels(content)
    assert sent(with_it).content == content


def test_the_adobe_marker_stays_because_it_says_what_the_colours_are() -> None:
    content = jpeg("RGB", comment=SECRET)
    assert b"Adobe" in content
    assert b"Adobe" in sent(content).content
    assert pixels(sent(content).content) == pixels(content)


def test_the_further_pictures_of_an_mpo_are_cut_off() -> None:
    out = BytesIO()
    scene().save(out, "MPO", save_all=True, append_images=[scene().rotate(180)])
    content = out.getvalue()
    found = sent(content)
    assert found.done == (Edit.STRIPPED,)
    assert found.content.count(b"\xff\xd9") == 1
    assert pixels(found.content) == pixels(content)


def test_metadata_between_the_scans_of_a_progressive_jpeg_is_found() -> None:
    content = jpeg("progressive")
    second = content.index(b"\xff\xda", content.index(b"\xff\xda") + 2)
    note = b"\xff\xfe" + (2 + len(SECRET)).to_bytes(2, "big") + SECRET
    assert sent(content[:second] + note + content[second:]).content == content


def before_tables(content: bytes, piece: bytes) -> bytes:
    """A JPEG with a piece before its first quantization table."""
    at = content.index(b"\xff\xdb")
    return content[:at] + piece + content[at:]


@pytest.mark.parametrize(
    "piece",
    [
        SECRET,
        SECRET + b"\xff\0" + SECRET,
        b"\xff\xff\0" + SECRET,
        b"\xff\0\xff\0\xff\xff",
        b"\xff\x01\xff\xd3",
        b"\xff\xe5\0\0",
        b"\xff\xe1\0\1",
        b"\xff\xe0\0\0",
        b"\xff\xe2\0\1ICC_PROFILE\0",
        b"\xff\xfe\0\0" + SECRET,
        b"\xff" * (MOST_FILL + 1),
    ],
)
def test_what_decoders_skip_between_segments_is_cut_out(piece: bytes) -> None:
    found = sent(before_tables(jpeg(), piece))
    assert (found.content, found.done) == (jpeg(), (Edit.STRIPPED,))


def test_fill_bytes_that_the_standard_allows_stay() -> None:
    content = before_tables(jpeg(), b"\xff" * MOST_FILL)
    assert sent(content).content is content


@pytest.mark.parametrize("between", [SECRET, b"\xff\xe5\0\0", b"\xff\xfe\0\1" + SECRET, b"\xff\0"])
def test_what_decoders_skip_between_scans_is_cut_out(between: bytes) -> None:
    content = jpeg("progressive")
    tables = content.index(b"\xff\xc4", content.index(b"\xff\xda"))
    found = sent(content[:tables] + b"\xff\xe5\0\2" + between + content[tables:])
    assert (found.content, found.done) == (content, (Edit.STRIPPED,))


@pytest.mark.parametrize("marker", [0xE1, 0xFE, 0x23, 0xF3, 0x01])
def test_a_marker_within_a_scan_is_a_loss_and_not_rubbish(marker: int) -> None:
    pixels = random.Random(1).randbytes(240 * 160)
    noise = saved(Image.frombytes("L", (240, 160), pixels).convert("RGB"), quality=95)
    half = (noise.index(b"\xff\xda") + len(noise)) // 2
    found = prepare(noise[:half] + bytes((0xFF, marker, 0, 40)) + noise[half:])
    assert isinstance(found, Fault)
    assert found.code == PhotoCode.TRUNCATED
    percent = int(found.message.split("The last ")[1].split(" %")[0])
    assert 40 <= percent <= 60


def test_a_piece_of_a_profile_that_is_too_short_is_no_reason_to_refuse_a_photo() -> None:
    short = with_segment(jpeg(exif=exif(6)), 0xE2, b"ICC_PROFILE\0")
    assert sent(short).content == sent(jpeg(exif=exif(6))).content
    assert sent(with_segment(jpeg(), 0xE2, b"ICC_PROFILE\0\1")).content == jpeg()


@pytest.mark.parametrize("first", [exif(1), Image.Exif(), b"", b"II", b"no TIFF at all"])
def test_the_first_exif_segment_decides_which_way_up_a_jpeg_is(first: Image.Exif | bytes) -> None:
    payload = first if isinstance(first, bytes) else first.tobytes().removeprefix(b"Exif\0\0")
    turned = jpeg(exif=exif(6))
    assert sent(turned).done == (Edit.TURNED,)
    found = sent(with_segment(turned, 0xE1, b"Exif\0\0" + payload))
    assert (found.content, found.done) == (jpeg(), (Edit.STRIPPED,))
    upright = jpeg(exif=exif(1))
    assert sent(with_segment(upright, 0xE1, exif(6).tobytes())).done == (Edit.TURNED,)


def test_padding_behind_the_end_is_cut_off() -> None:
    content = jpeg()
    assert sent(content + b"\0" * 500).content == content


@pytest.mark.parametrize(
    "content",
    [
        jpeg()[:2] + b"\xff\xe5\0\2" * (MOST_SEGMENTS + 1) + jpeg()[2:],
        jpeg()[:-2] + scan_data(jpeg())[0] * (MOST_SCANS + 1) + b"\xff\xd9",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xda\0\2\xff\xd9",
    ],
    ids=["segments", "scans", "nothing", "no size"],
)
def test_a_jpeg_whose_markers_make_no_sense_is_damaged(content: bytes) -> None:
    found = prepare(content)
    assert isinstance(found, Fault)
    assert found.code == PhotoCode.DAMAGED


def test_the_walk_tells_what_the_frame_says() -> None:
    found = walk(jpeg("4:2:0"))
    assert (found.size, found.precision) == (scene().size, 8)
    assert found.sampling == ((2, 2), (1, 1), (1, 1))
    assert not found.progressive
    assert walk(jpeg("progressive")).progressive


def png(**options: object) -> bytes:
    text = PngInfo()
    text.add_text("Comment", SECRET.decode())
    text.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    return saved(scene(), "PNG", pnginfo=text, exif=exif(), icc_profile=SRGB, **options)


def chunks(content: bytes) -> list[bytes]:
    at, found = 8, []
    while at < len(content):
        found.append(content[at + 4 : at + 8])
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    return found


def test_all_metadata_of_a_png_is_cut_out_and_its_profile_stays() -> None:
    content = png() + SECRET
    assert {b"tEXt", b"iTXt", b"eXIf"} <= set(chunks(content[: -len(SECRET)]))
    found = sent(content)
    assert (found.media_type, found.done) == ("image/png", (Edit.STRIPPED,))
    assert set(chunks(found.content)) == {b"IHDR", b"iCCP", b"IDAT", b"IEND"}
    assert pixels(found.content) == pixels(content)
    assert SECRET not in found.content
    assert sent(found.content).content is found.content


def png_with_profile(*payloads: bytes) -> bytes:
    plain = saved(scene(), "PNG")
    added = b""
    for payload in payloads:
        body = b"iCCP" + payload
        added += len(payload).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return plain[:33] + added + plain[33:]


def test_of_several_profiles_of_a_png_the_first_counts_and_no_other_is_unpacked() -> None:
    first, other = (b"p\0\0" + zlib.compress(SRGB, level) for level in (9, 1))
    found = sent(png_with_profile(first, *[other] * 9))
    assert found.content == png_with_profile(first)


PROFILES = Made(
    {
        "huge": lambda: b"huge\0\0" + zlib.compress(bytes(100_000_000), 1),
        "badly packed": lambda: b"packed badly\0\0" + zlib.compress(bytes(3_000_000), 0),
        "cut": lambda: b"cut\0\0" + zlib.compress(SRGB)[:-50],
        "no zlib": lambda: b"no zlib\0\0" + b"junk" * 1000,
        "method": lambda: b"packed otherwise\0\5" + zlib.compress(SRGB),
        "name": lambda: b"n" * 90 + b"\0\0" + zlib.compress(SRGB),
        "no more": lambda: b"no more",
        "empty": lambda: b"",
    }
)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_of_a_png_that_nobody_can_read_is_cut_out(name: str) -> None:
    content = png_with_profile(PROFILES[name])
    found = sent(content)
    assert (found.media_type, found.done) == ("image/png", (Edit.STRIPPED,))
    assert found.content == saved(scene(), "PNG")
    shrunk = prepare(content, Preparation(max_side=100))
    assert isinstance(shrunk, Prepared)


def test_a_large_profile_of_a_png_stays() -> None:
    content = png_with_profile(b"large\0\0" + zlib.compress(SRGB + bytes(900_000)))
    assert sent(content).content is content


def test_an_animated_png_is_sent_as_its_first_picture() -> None:
    out = BytesIO()
    scene().save(out, "PNG", save_all=True, append_images=[scene().rotate(180)], default_image=True)
    content = out.getvalue()
    assert b"fdAT" in chunks(content)
    found = sent(content)
    assert set(chunks(found.content)) == {b"IHDR", b"IDAT", b"IEND"}
    assert pixels(found.content) == pixels(content)


def test_a_palette_without_transparency_is_sent_as_it_is() -> None:
    content = saved(scene().quantize(64), "PNG")
    assert sent(content).content is content


def test_what_stands_behind_the_pixels_of_a_bmp_is_cut_off() -> None:
    content = saved(scene(), "BMP")
    assert sent(content).content is content
    found = sent(content + SECRET)
    assert (found.content, found.done) == (content, (Edit.STRIPPED,))


def test_a_chunk_with_another_sum_is_found_where_it_is() -> None:
    content = saved(scene(), "PNG")
    at = content.index(b"IDAT") - 4
    broken = content[: at + 20] + bytes([content[at + 20] ^ 1]) + content[at + 21 :]
    found = prepare(broken)
    assert isinstance(found, Fault)
    assert found.code == PhotoCode.DAMAGED
    assert f"byte {at:,}" in found.message


def chunk(kind: bytes, payload: bytes, *, wrong_sum: bool = False) -> bytes:
    total = zlib.crc32(kind + payload) ^ wrong_sum
    return len(payload).to_bytes(4, "big") + kind + payload + total.to_bytes(4, "big")


def png_with(piece: bytes, *, behind: bool = False, mode: str = "RGB") -> bytes:
    """A PNG with a piece before its picture, or behind it."""
    content = saved(scene().convert(mode), "PNG")
    at = content.index(b"IEND" if behind else b"IDAT") - 4
    return content[:at] + piece + content[at:]


@cases("behind", [False, True])
@cases("kind", [b"tEXt", b"tIME", b"eXIf", b"gAMA", b"tRNS", b"iCCP", b"prVt"])
def test_a_chunk_with_a_wrong_sum_that_decoders_skip_is_cut_out(kind: bytes, behind: bool) -> None:
    payload = exif(6).tobytes().removeprefix(b"Exif\0\0") if kind == b"eXIf" else SECRET
    found = sent(png_with(chunk(kind, payload, wrong_sum=True), behind=behind))
    assert (found.content, found.done) == (png_with(b""), (Edit.STRIPPED,))


@pytest.mark.parametrize(
    "piece",
    [
        (10_000_000).to_bytes(4, "big") + b"tEXt" + SECRET,
        b"\xff\xff\xff\xff" + b"tEXt" + SECRET,
        b"no chunk at all, only rubbish",
        SECRET[:5],
    ],
)
def test_what_is_no_chunk_behind_the_picture_of_a_png_is_cut_out(piece: bytes) -> None:
    found = sent(png_with(piece, behind=True))
    assert (found.content, found.done) == (png_with(b""), (Edit.STRIPPED,))
    at = png_with(b"").index(b"IDAT") + 50
    lost = png_with(piece)[: at + len(piece)] + piece + png_with(b"")[-12:]
    assert isinstance(prepare(lost), Fault)


def test_the_last_chunk_of_a_png_is_put_right() -> None:
    content = png_with(b"")
    assert sent(content[:-1] + b"?").content == content
    assert sent(content[:-12] + chunk(b"IEND", SECRET)).content == content


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_a_piece_of_the_picture_with_another_name_is_no_chunk_to_skip(
    mode: str, interlaced: bool
) -> None:
    """One flipped bit makes a chunk of it that decoders skip."""
    lines = Image.frombytes("L", (50, 61), random.Random(2).randbytes(50 * 61)).convert(mode)
    content = interlaced_png(lines) if interlaced else saved(lines, "PNG")
    at = content.index(b"IDAT") - 4
    data = content[at + 8 : content.index(b"IEND") - 8]
    two = content[:at] + chunk(b"IDAT", data[:-20]) + chunk(b"IDAT", data[-20:]) + content[-12:]
    assert sent(two + SECRET).content == two
    for skipped in (b"tEXt", b"tIME"):
        noted = two[:-12] + chunk(skipped, b"", wrong_sum=True) + two[-12:]
        assert sent(noted).content == two
    found = prepare(b"iDAT".join(two.rsplit(b"IDAT", 1)))
    assert isinstance(found, Fault)
    assert found.code == PhotoCode.DAMAGED


def interlaced_png(picture: Image.Image) -> bytes:
    """Pillow writes none: seven passes, each line behind its filter's number 0."""
    bits = {"RGB": 24, "L": 8, "1": 1, "P": 8}[picture.mode]
    lines = []
    for column, line, right, down in [
        *[(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8)],
        *[(2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)],
    ]:
        width = len(range(column, picture.width, right))
        lines += [bytes(1 + -(-width * bits // 8)) for _ in range(line, picture.height, down)]
    plain = saved(picture, "PNG")
    header = plain[16:28] + b"\1"
    palette = chunk(b"PLTE", bytes(768)) if picture.mode == "P" else b""
    data = chunk(b"IDAT", zlib.compress(b"".join(lines)))
    return plain[:8] + chunk(b"IHDR", header) + palette + data + plain[-12:]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (b"gAMA", b"\0\0\1"),
        (b"cHRM", bytes(31)),
        (b"sRGB", b""),
        (b"cICP", b"\1"),
        (b"tRNS", b""),
        (b"tRNS", bytes(5)),
    ],
)
def test_a_chunk_of_an_impossible_length_is_cut_out(kind: bytes, payload: bytes) -> None:
    found = sent(png_with(chunk(kind, payload)))
    assert (found.content, found.done) == (png_with(b""), (Edit.STRIPPED,))


def test_the_first_exif_chunk_decides_which_way_up_a_png_is() -> None:
    notes = [chunk(b"eXIf", exif(way).tobytes().removeprefix(b"Exif\0\0")) for way in (1, 6)]
    upright = sent(png_with(b"".join(notes)))
    assert (upright.content, upright.done) == (png_with(b""), (Edit.STRIPPED,))
    assert Edit.TURNED in sent(png_with(b"".join(reversed(notes)))).done


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_wrong_sum_of_what_a_picture_is_made_of_is_damage(kind: bytes) -> None:
    content = saved(scene().quantize(16), "PNG")
    at = content.index(kind) - 4
    end = at + 12 + int.from_bytes(content[at : at + 4], "big")
    broken = content[: end - 1] + bytes([content[end - 1] ^ 1]) + content[end:]
    found = prepare(broken)
    assert isinstance(found, Fault)
    assert found.code == PhotoCode.DAMAGED
    assert f"byte {at:,}" in found.message


def test_stripping_is_the_same_every_time_so_that_new_metadata_make_no_new_photo() -> None:
    variants = [
        jpeg(),
        jpeg(comment=b"one"),
        jpeg(exif=exif(comment="two")),
        with_segment(jpeg(exif=exif()), 0xE1, b"http://ns.adobe.com/xap/1.0/\0three"),
    ]
    assert len({zlib.crc32(one) for one in variants}) == len(variants)
    assert all(sent(one).content == sent(other).content for one, other in pairwise(variants))
