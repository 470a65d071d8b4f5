"""BMP, GIF, WebP, AVIF and HEIC: what is shown is sent, whatever else their files hold."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from cases import cases
from PIL import Image
from real_pictures import difference, exif, saved, scene, shown

from enroll.model import Fault
from enroll.photos import Glance, PhotoCode, Prepared, boxes, glance, open_store, prepare

WIDTH, HEIGHT = scene().size


def sent(content: bytes) -> Prepared:
    found = prepare(content)
    assert isinstance(found, Prepared), found
    return found


def fault_of(content: bytes) -> Fault:
    found = prepare(content)
    assert isinstance(found, Fault), found
    return found


def is_shown(content: bytes, wanted: Image.Image, *, level: float = 4) -> bool:
    return difference(shown(sent(content).content), wanted.convert("RGB")) < level


def heic() -> bytes:
    out = BytesIO()
    pytest.importorskip("pillow_heif").from_pillow(scene()).save(out, quality=90)
    return out.getvalue()


FORMS: dict[str, Callable[[], bytes]] = {
    "AVIF": lambda: saved(scene(), "AVIF", speed=10, quality=90),
    "HEIC": heic,
    "WebP": lambda: saved(scene(), "WEBP", quality=95),
    "GIF": lambda: saved(scene(), "GIF"),
    "TIFF": lambda: saved(scene(), "TIFF"),
    "BMP": lambda: saved(scene(), "BMP"),
}

BEHIND = {
    "text": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>Galaxy A32</x:xmpmeta>",
    "zeros": bytes(1000),
    "a box that is never whole": b"\0\1\0\0sefd" + bytes(40),
    "a box that is none": b"\0\0\0\3mdat",
    "a byte": b"\n",
    "another picture": saved(scene(64, 64)),
    "twice itself": b"",
}


@cases("behind", BEHIND)
@cases("form", FORMS)
def test_bytes_behind_the_end_harm_no_photo(form: str, behind: str) -> None:
    content = FORMS[form]()
    assert is_shown(content + (BEHIND[behind] or content), scene(), level=9)


def test_metadata_of_a_heic_is_not_copied_by_its_decoder() -> None:
    heif = pytest.importorskip("pillow_heif")
    out = BytesIO()
    heif.from_pillow(scene()).save(out, quality=90, xmp=bytes(10_000_000))
    content = out.getvalue()
    tracemalloc.start()
    try:
        assert is_shown(content, scene())
        # A copy that names no metadata, and the decoder's own of it.
        assert tracemalloc.get_traced_memory()[1] < 2.5 * len(content)
    finally:
        tracemalloc.stop()


# AVIF


def boxed(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", 8 + len(payload)) + kind + payload


def with_property(content: bytes, payload: bytes) -> bytes:
    """An AVIF whose first item has one more property: the last of its own is said to be another."""
    at = content.index(b"ipco") - 4
    pixi = content.index(b"pixi", at) - 4
    (size,) = struct.unpack_from(">I", content, pixi)
    return grown(content, pixi, size, payload)


def grown(before: bytes, at: int, size: int, instead: bytes) -> bytes:
    """`instead` in the place of some bytes of a table of items, whose boxes are as much longer."""
    more = len(instead) - size
    content = bytearray(before[:at] + instead + before[at + size :])
    for kind in (b"meta", b"iprp", b"ipco"):
        place = before.index(kind) - 4
        (length,) = struct.unpack_from(">I", before, place)
        struct.pack_into(">I", content, place, length + more)
    place = before.index(b"iloc") + 8  # of its version 0, with one part an item and no base
    sizes, _, items = struct.unpack_from(">BBH", content, place)
    assert sizes == 0x44
    for item in range(items):
        where = place + 4 + 14 * item + 6
        (offset,) = struct.unpack_from(">I", content, where)
        struct.pack_into(">I", content, where, offset + more)
    return bytes(content)


def aperture(left: int, top: int, right: int, bottom: int, *, per: int = 1) -> bytes:
    """The property of a crop to this part of the scene, in numbers of so many parts of a pixel."""
    offsets = left + right - WIDTH, top + bottom - HEIGHT
    numbers = (
        *((right - left) * per, per, (bottom - top) * per, per),
        *(offsets[0] * per, 2 * per, offsets[1] * per, 2 * per),
    )
    return boxed(b"clap", struct.pack(">8i", *numbers))


@pytest.mark.parametrize("orientation", [1, 6, 4])
@pytest.mark.parametrize("per", [1, 3])
def test_an_avif_is_cropped_as_it_says(per: int, orientation: int) -> None:
    content = saved(scene(), "AVIF", speed=10, quality=90, exif=exif(orientation))
    box = (20, 10, 140, 110)
    cropped = with_property(content, aperture(*box, per=per))
    found = shown(sent(cropped).content)
    upright = shown(saved(scene().crop(box), "PNG", exif=exif(orientation)))
    assert found.size == upright.size
    assert difference(found, upright) < 4


@pytest.mark.parametrize(
    "crop",
    [
        aperture(0, 0, WIDTH, HEIGHT),
        aperture(WIDTH, 0, 2 * WIDTH, HEIGHT),
        boxed(b"clap", bytes(32)),
        boxed(b"clap", struct.pack(">8i", -60, 1, 60, 1, 0, 1, 0, 1)),
    ],
    ids=["all of it", "beside it", "zeros", "less than nothing"],
)
def test_a_crop_that_makes_no_sense_is_none(crop: bytes) -> None:
    content = saved(scene(), "AVIF", speed=10, quality=90)
    assert is_shown(with_property(content, crop), scene())


def test_of_an_avif_that_is_cropped_to_too_little_nothing_is_sent() -> None:
    content = saved(scene(), "AVIF", speed=10)
    fault = fault_of(with_property(content, aperture(0, 0, 40, 100)))
    assert (fault.code, "40 x 100" in fault.message) == (PhotoCode.TOO_SMALL, True)


def cut_out() -> Image.Image:
    picture = scene().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


def item_of(content: bytes, kind: bytes) -> int:
    """The number of the item that such a reference is from."""
    found: tuple[int, int, int] = struct.unpack_from(
        ">HHH", content, content.index(kind, content.index(b"iref")) + 4
    )
    return found[0]


def without_size_of_alpha(content: bytes) -> bytes:
    """What an encoder wrote that gave its size to the colours alone."""
    at = content.index(b"ipma") + 12
    changed = bytearray(content)
    for _ in range(struct.unpack_from(">I", content, at - 4)[0]):
        number, owned = struct.unpack_from(">HB", content, at)
        if number == item_of(content, b"auxl"):
            changed[at + 3] = 0  # the first is the size
        at += 3 + owned
    return bytes(changed)


def with_alpha_of_nothing(content: bytes) -> bytes:
    at = content.index(b"auxl", content.index(b"iref")) + 8
    return content[:at] + bytes(2) + content[at + 2 :]


def test_an_avif_with_transparency_is_sent_on_white_although_its_alpha_has_no_size() -> None:
    content = saved(cut_out(), "AVIF", speed=10, quality=90)
    wanted = shown(saved(cut_out(), "PNG"))
    assert is_shown(content, wanted)
    assert without_size_of_alpha(content) != content
    assert is_shown(without_size_of_alpha(content), wanted)


def test_an_avif_whose_alpha_is_of_no_picture_is_sent_in_its_colours() -> None:
    content = with_alpha_of_nothing(saved(cut_out(), "AVIF", speed=10, quality=90))
    assert is_shown(content, scene())


def test_the_still_picture_of_an_animation_in_avif_is_sent() -> None:
    content = saved(
        scene(), "AVIF", speed=10, quality=90, save_all=True, append_images=[scene().rotate(180)]
    )
    assert b"moov" in content
    assert is_shown(content, scene())


def in_tiles() -> bytes:
    """The scene in two tiles, the right one first in the table."""
    halves = [(0, 0, WIDTH // 2, HEIGHT), (WIDTH // 2, 0, WIDTH, HEIGHT)]
    tiles = [saved(scene().crop(half), "AVIF", speed=10, quality=90) for half in halves]
    content = b"".join(tiles) + struct.pack(">4B2H", 0, 0, 0, 1, WIDTH, HEIGHT)
    read = [boxes.walk(tile) for tile in tiles]
    size = boxed(b"ispe", struct.pack(">III", 0, WIDTH, HEIGHT))
    properties = [*read[0].properties, size]
    pixi = [at for at, one in enumerate(properties, start=1) if one[4:8] == b"pixi"]
    grid = boxes.Item(
        b"grid", [(len(content) - 8, 8)], [(len(properties), False), *((at, False) for at in pixi)]
    )
    items = {1: grid}
    for number, tile, begin in ((3, read[1], len(tiles[0])), (2, read[0], 0)):
        (item,) = tile.items.values()
        parts = [(begin + at, length) for at, length in item.parts]
        items[number] = boxes.Item(item.kind, parts, item.properties)
    whole = replace(read[0], items=items, references=[(b"dimg", 1, [2, 3])], properties=properties)
    return boxes.alone_of(whole, content)


def test_an_avif_in_tiles_is_put_together_in_their_order() -> None:
    content = in_tiles()
    assert is_shown(content, shown(content))
    assert is_shown(content, scene())


def table(items: int, *, entries: int = 1) -> bytes:
    """A file that is nothing but a table of so many items, each of which is everything."""
    infos = b"".join(
        boxed(b"infe", struct.pack(">IHH", 2 << 24, at, 0) + b"av01\0")
        for at in range(1, items + 1)
    )
    places = b"".join(
        struct.pack(">HHH", at, 0, entries) + struct.pack(">II", 0, 9_999) * entries
        for at in range(1, items + 1)
    )
    tiles = struct.pack(f">HH{items - 1}H", 1, items - 1, *range(2, items + 1))
    meta = (
        boxed(b"hdlr", bytes(8) + b"pict" + bytes(13))
        + boxed(b"pitm", struct.pack(">IH", 0, 1))
        + boxed(b"iloc", struct.pack(">IHH", 0, 0x4400, items) + places)
        + boxed(b"iinf", struct.pack(">IH", 0, items) + infos)
        + boxed(b"iref", bytes(4) + boxed(b"dimg", tiles))
        + boxed(b"iprp", boxed(b"ipco", b"") + boxed(b"ipma", struct.pack(">II", 0, 0)))
    )
    return boxed(b"ftyp", b"avif\0\0\0\0avifmif1") + boxed(b"meta", bytes(4) + meta)


COSTLY_AVIF = {
    "more items than a picture has tiles": table(2_000),
    "a table longer than any": table(12_000),
    "an item of parts that are all the same": table(2, entries=9_000),
    "boxes without end": boxed(b"ftyp", b"avif\0\0\0\0") + boxed(b"free", b"") * 20_000,
}


@pytest.mark.parametrize("name", COSTLY_AVIF)
def test_an_avif_whose_table_would_cost_much_is_refused_as_a_format(name: str) -> None:
    assert fault_of(COSTLY_AVIF[name]).code == PhotoCode.FORMAT


# GIF


def with_comments(comments: int) -> bytes:
    content = saved(scene().quantize(200), "GIF", transparency=3)
    at = 13 + 3 * 256
    return content[:at] + b"!\xfe" + b"\1x" * comments + b"\0" + content[at:]


def test_a_gif_is_sent_without_what_stands_before_its_picture(tmp_path: Path) -> None:
    assert (
        difference(
            shown(sent(with_comments(40_000)).content), shown(sent(with_comments(1)).content)
        )
        == 0
    )
    path = tmp_path / "comments.gif"
    path.write_bytes(with_comments(40_000))
    found = glance(str(path), open_store(tmp_path))
    assert isinstance(found, Glance)
    assert found.pixels == scene().size


def test_a_gif_with_comments_without_end_is_refused() -> None:
    fault = fault_of(with_comments(200_000))
    assert (fault.code, "blocks" in fault.message) == (PhotoCode.DAMAGED, True)


@pytest.mark.parametrize("stray", [b"\0", b"\0\x99rubbish"])
def test_what_is_no_block_is_skipped_as_decoders_do(stray: bytes) -> None:
    content = saved(scene().quantize(200), "GIF")
    at = 13 + 3 * 256
    assert is_shown(content[:at] + stray + content[at:], shown(content))


def test_a_gif_without_a_picture_is_damaged() -> None:
    assert fault_of(b"GIF89a\x40\0\x40\0\0\0\0;").code == PhotoCode.DAMAGED


# WebP


def frames(count: int) -> bytes:
    """An animation of the scene and of very small pictures behind it."""
    out = BytesIO()
    scene().save(out, "WEBP", save_all=True, append_images=[scene().rotate(180)], quality=95)
    content = out.getvalue()
    first = content.index(b"ANMF")
    second = content.index(b"ANMF", first + 4)
    small = content[second:] * count
    return b"RIFF" + struct.pack("<I", second - 8 + len(small)) + content[8:second] + small


def test_of_an_animation_in_webp_the_first_picture_is_sent() -> None:
    assert is_shown(frames(1), scene())
    assert is_shown(frames(30), scene())


def with_exif(*orientations: int, flag: bool = True) -> bytes:
    """A WebP of the scene with so many EXIF chunks, whose header says that there is one, or not."""
    content = saved(scene(), "WEBP", exif=exif(1), quality=95)
    at, kept = content.index(b"EXIF"), content[20] if flag else content[20] & ~0x08
    blobs = [exif(orientation).tobytes() for orientation in orientations]
    chunks = [b"EXIF" + struct.pack("<I", len(b)) + b + bytes(len(b) % 2) for b in blobs]
    body = content[8:20] + bytes([kept]) + content[21:at] + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "content",
    [with_exif(6), with_exif(6, 1), with_exif(1, 6), with_exif(6, flag=False)],
    ids=["one", "the first turns", "the second turns", "none by the flags"],
)
def test_the_first_exif_of_a_webp_counts_if_its_flags_say_that_there_is_one(content: bytes) -> None:
    assert difference(shown(sent(content).content), shown(content)) < 4


def test_a_webp_of_chunks_without_end_is_refused() -> None:
    content = saved(scene(), "WEBP")
    more = b"XXXX\0\0\0\0" * 20_000
    content = b"RIFF" + struct.pack("<I", len(content) - 8 + len(more)) + content[8:] + more
    assert "chunks" in fault_of(content).message


def test_metadata_of_a_webp_is_not_unpacked_with_its_picture() -> None:
    content = saved(scene(), "WEBP", exif=exif(6), xmp=bytes(8_000_000), quality=95)
    tracemalloc.start()
    try:
        found = sent(content)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert found.words == "converted, turned"
    assert difference(shown(found.content), shown(content)) < 4


# BMP


def bmp(
    bits: int, *, header: int = 40, colours: int = 0, pixels: int = 0, planes: int = 1
) -> bytes:
    """A BMP of the scene in greys or in colours."""
    names = 1 << bits if bits <= 8 else 0
    palette = b"".join(bytes((level, level, level, 0)) for level in range(names))
    begin = pixels or 14 + header + len(palette)
    head = struct.pack(
        "<IiiHHIIiiII", header, WIDTH, HEIGHT, planes, bits, 0, 0, 2835, 2835, colours, 0
    )
    picture = (
        scene().convert("L" if bits == 8 else "RGB").transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    )
    data = picture.tobytes("raw", "L" if bits == 8 else "BGR")
    start = b"BM" + struct.pack("<IHHI", begin + len(data), 0, 0, begin)
    return start + head.ljust(header, b"\0") + palette + data


@pytest.mark.parametrize(
    "content",
    [bmp(8), bmp(24), bmp(8, colours=256), bmp(24, header=108), bmp(24, header=124)],
    ids=["greys", "colours", "all names", "version 4", "version 5"],
)
def test_a_bmp_that_every_decoder_takes_is_sent_as_it_is(content: bytes) -> None:
    assert sent(content).content == content
    assert (
        difference(
            shown(content), scene().convert("RGB" if content[28] == 24 else "L").convert("RGB")
        )
        < 1
    )


ODD_BMP = {
    "a header of a length that there is not": bmp(24, header=66),
    "more colours than can be named": bmp(8, colours=0x12341234),
    "fewer colours than are used": bmp(8, colours=100),
    "pixels within the palette": bmp(8, pixels=14 + 40 + 100),
    "pixels within the header": bmp(24, pixels=20),
    "a palette of a picture in colours": bmp(24, colours=0x12341234),
    "no plane": bmp(24, planes=0),
}


@pytest.mark.parametrize("name", ODD_BMP)
def test_a_bmp_that_decoders_take_in_different_ways_is_never_sent_as_it_is(
    name: str, tmp_path: Path
) -> None:
    found = prepare(ODD_BMP[name])
    assert isinstance(found, Fault) or found.words == "converted"
    path = tmp_path / "odd.bmp"
    path.write_bytes(ODD_BMP[name])
    seen = glance(str(path), open_store(tmp_path))
    assert isinstance(seen, Fault) or "converted" in seen.edits
