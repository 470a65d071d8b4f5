"""Damage that decoders skip is no reason to refuse a photo: our verdict beside Pillow's."""

from __future__ import annotations

import zlib
from io import BytesIO

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image
from real_pictures import exif, saved, scene

from enroll.model import Fault
from enroll.photos import Edit, Prepared, prepare
from enroll.photos.decode import RAISED
from enroll.photos.jpeg import ESCAPED, MOST_BY_CHANCE, walk

pytestmark = pytest.mark.filterwarnings("ignore::Warning:PIL")

PICTURE = scene(96, 64)
JPEGS = {
    "baseline": saved(PICTURE),
    "with metadata": saved(PICTURE, exif=exif(1), comment=b"hello"),
    "progressive": saved(PICTURE, progressive=True),
    "restarts": saved(PICTURE, restart_marker_blocks=2),
    "grey": saved(PICTURE.convert("L")),
    "RGB": saved(PICTURE, keep_rgb=True),
}


def pixels(content: bytes) -> bytes | None:
    """What Pillow decodes, None where it refuses."""
    try:
        with Image.open(BytesIO(content)) as picture:
            return f"{picture.mode} {picture.size} ".encode() + picture.tobytes()
    except RAISED:
        return None


def boundaries(jpeg: bytes) -> tuple[int, ...]:
    """Where segments and scans' data begin and end, up to the end of the picture."""
    at, found = 2, [2]
    while jpeg[at + 1] != 0xD9:
        marker, at = jpeg[at + 1], at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xDA:
            while jpeg[at] != 0xFF or jpeg[at + 1] in (0, *range(0xD0, 0xD8)):
                at += 1
        found.append(at)
    return *found, at + 2


def segments(markers: st.SearchStrategy[int], head: bytes = b"") -> st.SearchStrategy[bytes]:
    """Segments that say their length, or 0 or 1 for it."""
    payloads = st.binary(max_size=40).map(lambda rest: head + rest)
    whole = st.builds(
        lambda marker, payload: (
            bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload
        ),
        markers,
        payloads,
    )
    none = st.builds(lambda marker, length: bytes((0xFF, marker, 0, length)), markers, st.just(0))
    one = st.builds(lambda marker, length: bytes((0xFF, marker, 0, length)), markers, st.just(1))
    return whole | none | one


APPLICATION = st.integers(0xE0, 0xEF) | st.just(0xFE)
RUBBISH = st.lists(st.sampled_from([ESCAPED, b"\xff" + ESCAPED, b"\0", b"rubbish"]), max_size=8)
PIECES = st.one_of(
    segments(APPLICATION),
    segments(st.just(0xE0), b"JFIF\0"),
    segments(st.just(0xE1), b"Exif\0\0"),
    segments(st.just(0xE2), b"ICC_PROFILE\0"),
    segments(st.just(0xED), b"Photoshop 3.0\0"),
    segments(st.just(0xEE), b"Adobe"),
    segments(st.integers(0xC0, 0xFE)),
    st.integers(1, 300).map(lambda length: b"\xff" * length),
    st.sampled_from([b"\xff\x01", b"\xff\xd0", b"\xff\xd7"]),
    st.binary(max_size=40),
    RUBBISH.map(b"".join),
)


@given(
    name=st.sampled_from(sorted(JPEGS)),
    changes=st.lists(st.tuples(st.integers(0, 100), PIECES), min_size=1, max_size=3),
)
@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
def test_a_jpeg_that_pillow_opens_is_sent_with_the_pixels_that_pillow_shows(
    name: str, changes: list[tuple[int, bytes]]
) -> None:
    content = JPEGS[name]
    where = boundaries(content)
    places = sorted(
        ((where[number % len(where)], piece) for number, piece in changes), reverse=True
    )
    first_scan, escaped = walk(content, whole=False).scan, 0
    for at, piece in places:
        if at > first_scan:
            escaped += piece.count(ESCAPED) + 1  # one may come of two pieces
            if escaped > MOST_BY_CHANCE:
                continue  # it looks as though a scan went on there
        content = content[:at] + piece + content[at:]
    expected = pixels(content)
    found = prepare(content)
    event(f"Pillow opens it: {expected is not None}, we send it: {isinstance(found, Prepared)}")
    if expected is not None:
        assert not isinstance(found, Fault), found.message
        if set(found.done) <= {Edit.STRIPPED}:
            assert pixels(found.content) == expected


PNGS = {
    "colours": saved(PICTURE, "PNG"),
    "grey": saved(PICTURE.convert("L"), "PNG"),
    "palette": saved(PICTURE.quantize(32), "PNG"),
}

ANCILLARY = st.sampled_from(
    b"tEXt zTXt iTXt tIME eXIf gAMA cHRM sRGB iCCP cICP tRNS bKGD pHYs sBIT prVt acTL fcTL".split()
)


def chunk(kind: bytes, payload: bytes, wrong: int, length: int) -> bytes:
    """A chunk whose sum is right where `wrong` is 0, and its length where `length` is."""
    total = zlib.crc32(kind + payload) ^ wrong
    return (len(payload) + length).to_bytes(4, "big") + kind + payload + total.to_bytes(4, "big")


CHUNKS = st.builds(
    chunk, ANCILLARY, st.binary(max_size=40), st.integers(0, 1), st.sampled_from([0, 0, 1, 10**9])
)


@given(
    name=st.sampled_from(sorted(PNGS)),
    before=st.lists(CHUNKS, max_size=2),
    behind=st.lists(CHUNKS | st.binary(max_size=40), max_size=2),
    trailer=st.binary(max_size=40),
)
@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
def test_a_png_that_pillow_opens_is_sent_with_the_pixels_that_pillow_shows(
    name: str, before: list[bytes], behind: list[bytes], trailer: bytes
) -> None:
    content = PNGS[name]
    at = content.index(b"IDAT") - 4
    head, data, end = content[:at], content[at:-12], content[-12:]
    content = b"".join([head, *before, data, *behind, end, trailer])
    expected = pixels(content)
    found = prepare(content)
    event(f"Pillow opens it: {expected is not None}, we send it: {isinstance(found, Prepared)}")
    if expected is not None:
        assert not isinstance(found, Fault), found.message
        if set(found.done) <= {Edit.STRIPPED}:
            assert pixels(found.content) == expected
