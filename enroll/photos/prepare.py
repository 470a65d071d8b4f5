"""From a file's bytes to what is sent: inspected, and decoded, changed and encoded where needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from PIL import Image, ImageFile, JpegImagePlugin

from enroll.model import Fault
from enroll.photos import decision, form, vips
from enroll.photos.bounds import DECODERS, LARGE_FILE, Room, give_back_fragments
from enroll.photos.decision import (
    COMPLETABLE,
    MIN_SIDE,
    Edit,
    RefusedError,
    Seen,
    check_size,
    decide,
)
from enroll.photos.decode import (
    BrokenError,
    decoding_bytes,
    load,
    load_what_there_is,
    open_picture,
    pixel_bytes,
    scaled,
    share_missing,
    translating,
)
from enroll.photos.encode import Style, encode, encoding_bytes, style_of
from enroll.photos.form import Form
from enroll.photos.inspect import Source, inspect
from enroll.photos.jpeg import BEHIND, EOI, without_end
from enroll.photos.picture import (
    ON_ITS_SIDE,
    TURNS,
    shown,
    shown_bytes,
    shown_in_strips,
    shown_pixel_bytes,
)
from enroll.photos.strip import Pieces
from enroll.settings import DEFAULT_PREPARATION, Preparation, decoding_limit, heif_installed

T = TypeVar("T")

MEDIA_TYPES: Mapping[Form, str] = {
    Form.JPEG: "image/jpeg",
    Form.PNG: "image/png",
    Form.BMP: "image/bmp",
}

HELD = frozenset({Form.WEBP, Form.AVIF, Form.HEIF})
"""Formats whose decoders keep their own pictures for as long as Pillow's file object lives."""

_END_MISSING = re.compile("truncated|no more images in GIF")
"""Pillow's message where it finds no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is sent of a photo, and what was done to it; nothing, where it is the file itself."""

    content: bytes = field(repr=False)
    media_type: str
    done: tuple[Edit, ...] = ()

    @property
    def words(self) -> str:
        """What was done, in a word or two."""
        return ", ".join(self.done)


def prepare(content: bytes, preparation: Preparation = DEFAULT_PREPARATION) -> Prepared | Fault:
    """A photo that the service takes and that looks as its owner sees it, or why there is none.

    Never raises, whatever the bytes are.
    """
    try:
        source = inspect(content)
        del content  # what was cut out is not kept while a picture is decoded
        edits = decide(source.seen, preparation)
        if set(edits) <= {Edit.STRIPPED}:
            media_type = MEDIA_TYPES[source.seen.form]
            return Prepared(content=source.content, media_type=media_type, done=edits)
        return _converted(source, edits, preparation)
    except RefusedError as error:
        return error.fault


def _converted(source: Source, edits: tuple[Edit, ...], preparation: Preparation) -> Prepared:
    """The photo as a JPEG that the service takes. Raises RefusedError."""
    seen = source.seen
    if seen.truncated and not preparation.accept_truncated:
        raise RefusedError(_why_cut_off(source, preparation))
    limit = decoding_limit(preparation.max_pixels)
    try:
        picture, need = open_scaled(source, preparation, limit)
        size = seen.size or picture.size
        check_size(size, preparation)
        if source.crop is not None:
            left, top, right, bottom = source.crop
            size = right - left, bottom - top
            check_size(size, preparation)
        if need > limit:
            raise RefusedError(decision.too_much_memory(size, need))
        share = min(preparation.max_side / max(size), 1)
        size = scaled(size, share, least=MIN_SIDE)
        orientation = orientation_of(picture, seen)
        order = _Order(
            size=size if source.jpeg is None else min(size, picture.size),
            orientation=orientation,
            max_bytes=preparation.max_bytes,
        )
        content = _encoded_by_vips(source, picture, order)
        if content is None:
            task = partial(_encoded, source, picture, order)
            content = DECODERS.run(task, need=need)
    except BrokenError as error:
        if seen.truncated:
            raise RefusedError(decision.ONLY_A_STUB) from error
        if _END_MISSING.search(str(error)):
            return _converted(_cut_off(source), edits, preparation)
        raise RefusedError(decision.undecodable(str(error))) from error
    # Some of it is known only since it was opened.
    done = {
        Edit.COMPLETED: seen.truncated,
        Edit.TURNED: orientation in TURNS,
        Edit.SHRUNK: share < 1,
    }
    all_edits = tuple(edit for edit in Edit if edit in edits or done.get(edit, False))
    return Prepared(content=content, media_type="image/jpeg", done=all_edits)


def _cut_off(source: Source) -> Source:
    """The same photo, now known to be truncated."""
    content = source.content if source.jpeg is None else source.content.removesuffix(EOI)
    return replace(source, content=content, seen=replace(source.seen, truncated=True))


def open_scaled(
    source: Source, preparation: Preparation, limit: int
) -> tuple[ImageFile.ImageFile, int]:
    """The picture, and the memory for all that is done to it. A JPEG is scaled by its decoder by 2,
    4 or 8 as far as its long side keeps --max-side, or further where that takes more than
    the limit; the better filter does the rest."""
    jpeg = source.jpeg
    least = max_side = preparation.max_side
    while True:
        picture = open_picture(_decodable(source), source.seen.form)
        if jpeg is not None and max(picture.size) > max_side:
            picture.draft(picture.mode, scaled(picture.size, least / max(picture.size)))
        need = _need(source, picture, preparation)
        if jpeg is None or need <= limit or 8 * least <= max_side:
            return picture, need
        least //= 2


def _decodable(source: Source) -> bytes | Pieces:
    """With an end marker libjpeg fills in what is missing; without one it reports that."""
    if source.jpeg is None:
        return source.content
    if source.seen.truncated:
        return Pieces([source.content, EOI])
    return without_end(source.content, source.jpeg)


def _need(source: Source, picture: Image.Image, preparation: Preparation) -> int:
    """Bytes of memory for decoding a picture that is open, and for all that is done afterwards, one
    step at a time."""
    size = scaled(picture.size, min(preparation.max_side / max(picture.size), 1))
    turns = orientation_of(picture, source.seen) in TURNS
    need = max(
        _decoding(source, picture),
        shown_bytes(picture, size, turns=turns),
        encoding_bytes(size[0] * size[1] * shown_pixel_bytes(picture), preparation.max_bytes),
    )
    # Of a file that is read alone there is more in memory than the least --memory has for files.
    # Whatever --memory is, a photo has the same outcome.
    return need + max(len(source.content) - LARGE_FILE, 0)


def _decoding(source: Source, picture: Image.Image) -> int:
    kept = 0 if source.jpeg is None else source.jpeg.coefficient_bytes
    return decoding_bytes(picture, source.seen.form, coefficients=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What is wanted of a picture: the size before it is turned, EXIF's orientation of what there
    is, and the most bytes of its JPEG."""

    size: tuple[int, int]
    orientation: int
    max_bytes: int

    @property
    def turn(self) -> Image.Transpose | None:
        """What brings it upright."""
        return TURNS.get(self.orientation)


def _encoded_by_vips(source: Source, opened: ImageFile.ImageFile, order: _Order) -> bytes | None:
    """What is sent of a photo that libvips decodes with less work; None for all others, and where
    it finds anything wrong."""
    if not vips.takes(source, opened) or (order.size == source.seen.size and order.turn is None):
        return None
    picture_bytes = order.size[0] * order.size[1] * shown_pixel_bytes(opened)
    need = vips.working_bytes(source) + encoding_bytes(picture_bytes, order.max_bytes)

    def task(room: Room) -> bytes:
        strips = vips.strips(source, opened.mode, order.size)
        with translating():
            picture = shown_in_strips(opened, strips, order.size, order.turn)
        give_back_fragments()
        return _finished(source, opened, picture, order, room)

    with suppress(BrokenError):
        return DECODERS.run(task, need=need)
    give_back_fragments()
    return None


def _encoded(source: Source, opened: ImageFile.ImageFile, order: _Order, room: Room) -> bytes:
    """What is done to a picture on a decoder's thread. Raises BrokenError and TooSlowError."""
    try:
        picture = decoded(source, opened, order.size, order.turn)
        return _finished(source, opened, picture, order, room)
    finally:
        opened.close()  # its pixels are freed before the next task is let in


def decoded(
    source: Source,
    opened: ImageFile.ImageFile,
    size: tuple[int, int],
    turn: Image.Transpose | None,
) -> Image.Image:
    """A photo as it is shown, decoded on this thread; of a truncated one what there is. Raises
    BrokenError and TooSlowError."""
    if source.seen.truncated:
        load_what_there_is(opened)
    else:
        load(opened)
    with translating():
        cropped = opened if source.crop is None else opened.crop(source.crop)
        cropped.info = opened.info
        return shown(cropped, size, turn)


def use_shown(
    source: Source, preparation: Preparation, *, side: int, use: Callable[[Image.Image], T]
) -> T:
    """What `use` makes of a photo as it is shown, its long side of at most `side` pixels, on a
    decoder's thread; the picture may be closed afterwards. Raises RefusedError and BrokenError."""
    if source.seen.form is Form.HEIF and not heif_installed():
        raise RefusedError(decision.HEIF_MISSING)
    limit = decoding_limit(preparation.max_pixels)
    opened, need = open_scaled(source, replace(preparation, max_side=side), limit)
    size = opened.size
    if source.crop is not None:
        left, top, right, bottom = source.crop
        size = right - left, bottom - top
    if need > limit:
        raise RefusedError(decision.too_much_memory(size, need))
    turn = TURNS.get(orientation_of(opened, source.seen))
    size = scaled(size, min(side / max(size), 1))

    def task(_: Room) -> T:
        try:
            return use(decoded(source, opened, size, turn))
        finally:
            opened.close()

    return DECODERS.run(task, need=need)


def _finished(
    source: Source,
    opened: ImageFile.ImageFile,
    picture: Image.Image,
    order: _Order,
    room: Room,
) -> bytes:
    """The JPEG of a picture as it is shown, in the style of the one that it was made of."""
    style, likely_bytes = Style(), None
    if isinstance(opened, JpegImagePlugin.JpegImageFile):
        style = style_of(opened, on_its_side=order.orientation in ON_ITS_SIDE)
        if order.size == source.seen.size:
            likely_bytes = len(source.content)
        else:
            style = replace(style, tables=None)
    pixels = picture.width * picture.height
    if source.seen.form not in HELD:
        room.shrink(encoding_bytes(pixels * pixel_bytes(picture), order.max_bytes))
    with translating():
        return encode(picture, style, max_bytes=order.max_bytes, likely_bytes=likely_bytes)


def orientation_of(picture: Image.Image, seen: Seen) -> int:
    """EXIF's orientation, as seen or as the decoder reports it. libheif has turned a HEIC."""
    if seen.form is not Form.AVIF and seen.form is not Form.HEIF:
        return seen.orientation
    blob = picture.info.get("exif")
    if not isinstance(blob, bytes):
        return form.UPRIGHT
    return form.orientation(blob.removeprefix(b"Exif\0\0"))


def _why_cut_off(source: Source, preparation: Preparation) -> Fault:
    """Why a truncated photo is not sent, and how much of it is missing, where that is known."""
    completable = source.seen.form in COMPLETABLE
    if source.missing_bytes:
        some = "1 byte" if source.missing_bytes == 1 else f"{source.missing_bytes:,} bytes"
        verb = "is" if source.missing_bytes == 1 else "are"
        return decision.cut_off(f"The last {some} of the file {verb}", completable=completable)
    if not completable:
        return decision.cut_off(completable=False)
    try:
        share = _share_missing(source, decoding_limit(preparation.max_pixels))
    except BrokenError:
        return decision.ONLY_A_STUB
    if share is None:
        return decision.cut_off()
    percent = round(100 * share)
    if percent == 0:
        return decision.cut_off("The end of the file, though hardly any of the picture, is")
    return decision.cut_off(f"The last {percent} % of the picture is")


def _share_missing(source: Source, limit: int) -> float | None:
    """The share of the height that the decoder does not reach, 0 to 1; None if not known."""
    jpeg = source.jpeg
    content = source.content if jpeg is None else Pieces([source.content, BEHIND])
    picture = open_picture(content, source.seen.form)
    if jpeg is not None:
        picture.draft("L", (1, 1))
    need = 2 * _decoding(source, picture)
    in_passes = _interlaced(picture) if jpeg is None else not jpeg.sequential
    if need > limit or in_passes:  # then some of each part is missing
        return None
    return DECODERS.run(lambda _: share_missing(picture), need=need)


def _interlaced(picture: ImageFile.ImageFile) -> bool:
    """Whether lines are interlaced. Of a GIF, Pillow says so only to its decoder."""
    if picture.format == "GIF":
        return any(isinstance(tile.args, tuple) and tile.args[1] for tile in picture.tile)
    return bool(picture.info.get("interlace"))
