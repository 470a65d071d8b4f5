"""A TIFF is sent as it looks, or it is named as a format that is not converted."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from cases import cases
from PIL import Image
from real_pictures import Made, difference, saved, scene, shown

from enroll.model import Fault
from enroll.photos import Glance, PhotoCode, Prepared, glance, open_store, prepare
from enroll.settings import Preparation

SHORT, LONG, RATIONAL = 3, 4, 5

WIDTH, HEIGHT = scene().size


def tiff(
    pixels: bytes,
    fields: Mapping[int, Sequence[int]],
    *,
    order: str = "<",
    behind: Mapping[int, Sequence[int]] | None = None,
    longs: Sequence[int] = (),
) -> bytes:
    """A file of one strip, and one directory of the usual fields of a picture of `scene`'s size and
    these, of SHORT values but for `longs`; with a second directory behind it, if one is given."""
    usual = {256: [WIDTH], 257: [HEIGHT], 259: [1], 273: [8], 277: [1]}
    usual |= {278: [HEIGHT], 279: [len(pixels)]}
    first = {**usual, **fields}
    kinds = {tag: LONG if tag in (273, 279, *longs) else SHORT for tag in first}
    padding = bytes(len(pixels) % 2)
    at = 8 + len(pixels) + len(padding)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    one = directory(first, kinds, order=order, at=at, after=behind is not None)
    two = b"" if behind is None else directory(behind, {}, order=order, at=at + len(one))
    return head + pixels + padding + one + two


def directory(
    fields: Mapping[int, Sequence[int]],
    kinds: Mapping[int, int],
    *,
    order: str,
    at: int,
    after: bool = False,
) -> bytes:
    entries, values = b"", b""
    end = at + 2 + 12 * len(fields) + 4
    for tag, numbers in sorted(fields.items()):
        kind = kinds.get(tag, LONG)
        packed = struct.pack(f"{order}{len(numbers)}{'H' if kind == SHORT else 'I'}", *numbers)
        if len(packed) > 4:
            place = struct.pack(order + "I", end + len(values))
            values += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, len(numbers)) + place
    following = struct.pack(order + "I", end + len(values) if after else 0)
    return struct.pack(order + "H", len(fields)) + entries + following + values


def levels(layout: str, factor: float, *, least: float = 0) -> bytes:
    """The scene in grey, each pixel packed as `layout` says."""
    grey = scene().convert("L").tobytes()
    whole = layout[-1] not in "fd"
    numbers = (level * factor + least for level in grey)
    values = [round(number) if whole else number for number in numbers]
    return struct.pack(f"{layout[0]}{len(values)}{layout[1]}", *values)


def fault_of(content: bytes, preparation: Preparation | None = None) -> Fault:
    found = prepare(content, preparation or Preparation(accept_truncated=True))
    assert isinstance(found, Fault), found
    return found


def is_shown(content: bytes, wanted: Image.Image) -> bool:
    found = prepare(content)
    assert isinstance(found, Prepared), found
    return difference(shown(found.content), wanted.convert("RGB")) < 4


def planes(picture: Image.Image) -> bytes:
    return b"".join(band.tobytes() for band in picture.split())


RGB = {258: [8, 8, 8], 262: [2], 277: [3]}
GREY16 = {258: [16], 262: [1]}
YCBCR = {258: [8, 8, 8], 262: [6], 277: [3]}

IN_COLOUR = Made(
    {
        "RGB": lambda: tiff(scene().tobytes(), RGB),
        "RGB, high bytes first": lambda: tiff(scene().tobytes(), RGB, order=">"),
        "each colour by itself": lambda: tiff(
            planes(scene()),
            RGB | {284: [2], 273: [8 + at * WIDTH * HEIGHT for at in range(3)], 279: [38_400] * 3},
        ),
        "CMYK": lambda: tiff(scene().convert("CMYK").tobytes(), {258: [8] * 4, 262: [5], 277: [4]}),
        "YCbCr at each pixel": lambda: tiff(
            scene().convert("YCbCr").tobytes(), YCBCR | {530: [1, 1]}
        ),
        "LZW": lambda: saved(scene(), "TIFF", compression="tiff_lzw"),
        "JPEG": lambda: saved(scene().convert("YCbCr"), "TIFF", compression="jpeg", quality=95),
        "BigTIFF": lambda: saved(scene(), "TIFF", big_tiff=True),
    }
)

IN_GREY = Made(
    {
        "without a word on its colours": lambda: tiff(levels("<B", 1), {258: [8]}),
        "white is zero": lambda: tiff(levels("<B", -1, least=255), {258: [8], 262: [0]}),
        "16 bits": lambda: tiff(levels("<H", 257), GREY16),
        "16 bits, high bytes first": lambda: tiff(levels(">H", 257), GREY16, order=">"),
    }
)


@pytest.mark.parametrize("name", [*IN_COLOUR, *IN_GREY])
def test_a_tiff_is_sent_as_it_looks(name: str) -> None:
    if name in IN_COLOUR:
        assert is_shown(IN_COLOUR[name], scene())
    else:
        assert is_shown(IN_GREY[name], scene().convert("L"))


def subsampled() -> bytes:
    """Lines of two pixels' light and one colour for both, as scanners and cameras write YCbCr."""
    light, blue, red = (band.tobytes() for band in scene().convert("YCbCr").split())
    return b"".join(
        bytes((light[at], light[at + 1], blue[at], red[at])) for at in range(0, len(light), 2)
    )


def floating() -> bytes:
    return struct.pack(f"<{3 * WIDTH * HEIGHT}f", *[level / 255 for level in scene().tobytes()])


RARE = Made(
    {
        "YCbCr of fewer pixels": lambda: tiff(subsampled(), YCBCR | {530: [2, 1]}),
        "the same with more behind it": lambda: tiff(
            subsampled() + bytes(80_000), YCBCR | {530: [2, 1]}
        ),
        "YCbCr that does not say which": lambda: tiff(subsampled() + bytes(80_000), YCBCR),
        "16 bits, a negative": lambda: tiff(
            levels("<H", -257, least=65_535), {258: [16], 262: [0]}
        ),
        "12 bits": lambda: tiff(bytes(WIDTH * HEIGHT * 3 // 2), {258: [12], 262: [1]}),
        "signed 8 bits": lambda: tiff(levels("<b", 0.5), {258: [8], 262: [1], 339: [2]}),
        "signed 16 bits": lambda: tiff(levels("<h", 128), GREY16 | {339: [2]}),
        "unsigned 32 bits": lambda: tiff(levels("<I", 2**24), {258: [32], 262: [1]}),
        "floating point in colour": lambda: tiff(floating(), RGB | {258: [32] * 3, 339: [3] * 3}),
        "16 bits in colour, each by itself": lambda: tiff(
            bytes(WIDTH * HEIGHT * 6),
            RGB
            | {
                258: [16] * 3,
                284: [2],
                273: [8 + at * 76_800 for at in range(3)],
                279: [76_800] * 3,
            },
        ),
        "Lab of 16 bits": lambda: tiff(bytes(WIDTH * HEIGHT * 6), RGB | {258: [16] * 3, 262: [8]}),
        "Lab as ICC has it": lambda: tiff(scene().tobytes(), RGB | {262: [9]}),
        "five inks": lambda: tiff(bytes(WIDTH * HEIGHT * 5), {258: [8] * 5, 262: [5], 277: [5]}),
        "inks of other colours": lambda: tiff(
            bytes(WIDTH * HEIGHT * 4), {258: [8] * 4, 262: [5], 277: [4], 332: [2]}
        ),
        "colours of different depth": lambda: tiff(scene().tobytes(), RGB | {258: [8, 8, 16]}),
        "packed by a program of its own": lambda: tiff(scene().tobytes(), RGB | {259: [40_000]}),
        "too short a colour map": lambda: tiff(
            levels("<B", 1), {258: [8], 262: [3], 320: [1] * 300}
        ),
        "a colour map beyond 16 bits": lambda: tiff(
            levels("<B", 1), {258: [8], 262: [3], 320: [70_000] * 768}, longs=[320]
        ),
        "more depths than samples": lambda: tiff(scene().tobytes(), RGB | {277: [1]}),
        "no sample at all": lambda: tiff(levels("<B", 1), {258: [8], 262: [1], 277: [0]}),
        "more samples than there are colours": lambda: tiff(
            scene().tobytes(), RGB | {277: [60_000]}
        ),
        "no colour map": lambda: tiff(levels("<B", 1), {258: [8], 262: [3]}),
        "a thumbnail first": lambda: tiff(
            scene().tobytes(), RGB | {254: [1]}, behind={256: [4000]}
        ),
        "a thumbnail first, as it was once said": lambda: tiff(scene().tobytes(), RGB | {255: [2]}),
    }
)


@cases("name", RARE)
def test_a_tiff_that_would_be_shown_wrong_is_refused_as_a_format(name: str, tmp_path: Path) -> None:
    fault = fault_of(RARE[name])
    assert fault.code == PhotoCode.FORMAT
    assert fault.message.startswith("The photo is a TIFF ")
    path = tmp_path / "rare.tif"
    path.write_bytes(RARE[name])
    assert glance(str(path), open_store(tmp_path)) == fault


def palette(step: int) -> bytes:
    """Colours from a map whose levels go up to 255 times `step`."""
    picture = scene().quantize(200)
    colours = (picture.getpalette() or []) + [0] * 168
    columns = [level * step for band in range(3) for level in colours[band::3]]
    return tiff(picture.tobytes(), {258: [8], 262: [3], 320: columns})


@pytest.mark.parametrize("step", [1, 257])
def test_a_colour_map_may_have_eight_bits_or_sixteen(step: int) -> None:
    assert is_shown(palette(step), scene().quantize(200))


RAWS = {
    "a DNG": tiff(scene().tobytes(), RGB | {50706: [1, 4, 0, 0]}),
    "a small copy before what the sensor saw": tiff(
        scene().tobytes(), RGB | {254: [1]}, behind={256: [4000], 257: [3000], 262: [32803]}
    ),
    "a preview before what the sensor saw": tiff(
        scene().tobytes(), RGB, behind={256: [4000], 257: [3000], 262: [34892]}
    ),
    "what the sensor saw within": tiff(
        scene().tobytes(), RGB | {330: [8]}, longs=[330], behind={259: [34713]}
    ),
    "Pentax": tiff(scene().tobytes(), RGB | {259: [65535]}),
    "Canon": b"II*\0\x10\0\0\0CR\2\0" + bytes(100),
    "Phase One": b"II*\0\x10\0\0\0IIII" + bytes(100),
}
# The directory within is the one behind: its place is known only now.
_WITHIN = RAWS["what the sensor saw within"]
RAWS["what the sensor saw within"] = _WITHIN.replace(
    struct.pack("<HHII", 330, LONG, 1, 8),
    struct.pack("<HHII", 330, LONG, 1, _WITHIN.index(struct.pack("<HHHI", 1, 259, LONG, 1))),
)


@pytest.mark.parametrize("name", RAWS)
def test_of_a_raw_file_never_the_thumbnail_is_sent(name: str, tmp_path: Path) -> None:
    fault = fault_of(RAWS[name])
    assert (fault.code, "a camera's raw file" in fault.message) == (PhotoCode.FORMAT, True)
    path = tmp_path / "raw.tif"
    path.write_bytes(RAWS[name])
    assert glance(str(path), open_store(tmp_path)) == fault


def test_a_picture_with_others_behind_it_is_sent() -> None:
    pages = tiff(scene().tobytes(), RGB, behind={256: [40], 257: [40], 254: [1]})
    assert is_shown(pages, scene())


def astray(tag: int, kind: int, count: int) -> bytes:
    """A sound picture with an entry whose values lie far behind the end of the file."""
    named = tiff(scene().tobytes(), RGB | {tag: [0] * 9}, longs=[tag])
    entry = named.index(struct.pack("<HHI", tag, LONG, 9))
    return named[:entry] + struct.pack("<HHII", tag, kind, count, 1 << 30) + named[entry + 12 :]


UNDEFINED, TEXT = 7, 2

DAMAGED_BESIDE = {
    "directories within, astray": astray(330, LONG, 9),
    "directories within, as text": astray(330, TEXT, 9),
    "a profile astray": astray(34675, UNDEFINED, 500),
    "black and white astray": astray(532, RATIONAL, 6),
    "an orientation as text": astray(274, TEXT, 9),
    "another directory that makes no sense": tiff(
        scene().tobytes(), RGB, behind={259: [7], 262: [2]}
    ).replace(struct.pack("<HHII", 259, LONG, 1, 7), struct.pack("<HHII", 259, TEXT, 9, 1 << 30)),
}


@pytest.mark.parametrize("name", DAMAGED_BESIDE)
def test_damage_beside_the_picture_keeps_no_tiff_back(name: str, tmp_path: Path) -> None:
    assert is_shown(DAMAGED_BESIDE[name], scene())
    path = tmp_path / "damaged.tif"
    path.write_bytes(DAMAGED_BESIDE[name])
    assert isinstance(glance(str(path), open_store(tmp_path)), Glance)


def many_offsets(count: int) -> bytes:
    """A picture that says of so many strips where they are."""
    content = tiff(scene().tobytes(), RGB)
    entry = struct.pack("<HHII", 273, LONG, 1, 8)
    assert entry in content
    told = struct.pack("<HHII", 273, LONG, count, len(content))
    return content.replace(entry, told) + struct.pack("<I", 8) * count


@pytest.mark.parametrize("offsets", [2_000_000])
def test_a_directory_takes_no_memory_by_what_it_claims(offsets: int, tmp_path: Path) -> None:
    content = many_offsets(offsets)
    path = tmp_path / "many.tif"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert isinstance(glance(str(path), open_store(tmp_path)), Glance)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        tracemalloc.reset_peak()
        assert isinstance(prepare(content), Prepared)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(content)
    finally:
        tracemalloc.stop()


COSTLY = {
    "a strip for each line, and more lines than there are": tiff(
        bytes(100), {256: [60], 257: [65_000], 258: [8] * 3, 277: [3], 284: [2], 262: [2], 278: [1]}
    ),
    "a tile as large as a town": tiff(
        bytes(100), RGB | {322: [60_000], 323: [60_000], 324: [8], 325: [100]}
    ),
    "strips that are all the same bytes": tiff(
        bytes(100_000), RGB | {259: [5], 278: [1], 273: [8] * HEIGHT, 279: [100_000] * HEIGHT}
    ),
    "more tags than anything has": b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + bytes(800_000),
    "a tag of a type that there is not": tiff(scene().tobytes(), RGB).replace(
        struct.pack("<HHI", 258, SHORT, 3), struct.pack("<HHI", 258, 99, 3)
    ),
    "no tile at all": tiff(bytes(100), RGB | {322: [0], 323: [0], 324: [8], 325: [100]}),
    "no place": tiff(bytes(100), RGB | {278: [1]}),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_structure_that_would_cost_much_is_refused_before_a_decoder_sees_it(name: str) -> None:
    assert fault_of(COSTLY[name]).code == PhotoCode.FORMAT


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_packed_tiff_is_turned_and_its_metadata_is_not_read(orientation: int) -> None:
    content = tiff(scene().tobytes(), RGB | {274: [orientation], 34665: [0], 34853: [9]})
    assert is_shown(content, shown(saved(scene(), "PNG", exif=oriented(orientation))))


def oriented(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found
