"""What would be done to a photo, from its head or by doing it; what `enroll plan` reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b

from enroll.model import Fault, Unusable
from enroll.photos import boxes, decision, inspect, jpeg, png, tiff
from enroll.photos.decision import Edit, Seen, decide
from enroll.photos.decode import COMPLETABLE
from enroll.photos.directory import EndMissingError, UnsupportedError
from enroll.photos.form import Form, form_of, name_of_foreign
from enroll.photos.read import open_photo, read_photo
from enroll.photos.store import OpenPhoto, PhotoStore, UnusableError
from enroll.settings import DEFAULT_PREPARATION, Preparation

_BLOCK = 4096
"""Bytes read at either end of a file, and where a JPEG continues: a block of most file systems."""

_MOST_BLOCKS = 64
"""Blocks that are read to find a JPEG's size behind its metadata."""

_CONVERTED_BYTES = 0.3
"""Of a JPEG that is made of another format, for each pixel: 30 pictures of two sizes from
11 encodings took 0.06 to 0.59, half of them more than 0.28. No bound is of use: noise takes 2."""

_CONVERTED_TIMES = 2.5
"""The same for each byte of a file whose size in pixels is not known: an AVIF or a HEIC."""

_SHRUNK = 1.5
"""The power of the factor by which sides shrink, by which a JPEG does in bytes: 30 pictures of four
qualities took 0.5 to 2.7 times that, half of them more than 0.9."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What a photo's head and tail say without reading it.

    `size` is its bytes, `to_send` those that would be sent, an estimate in a glance. Files of the
    same content have the same `likeness` (64 bits), others hardly ever. `pixels` are the file's
    width and height, None where they are not known; `precheck_fault` is what `--precheck` found
    wrong with the face.
    """

    size: int
    likeness: int
    edits: tuple[Edit, ...] = ()
    to_send: int = 0
    pixels: tuple[int, int] | None = None
    precheck_fault: Fault | None = None


def glance(
    path: str, store: PhotoStore, preparation: Preparation = DEFAULT_PREPARATION
) -> Glance | Fault:
    """What would become of a photo, as far as some 8 kB of it say; it may be worse."""
    try:
        with open_photo(path, store) as photo:
            return _glanced(photo, preparation)
    except UnusableError as error:
        return error.unusable.fault


def examine(
    path: str, store: PhotoStore, preparation: Preparation = DEFAULT_PREPARATION
) -> Glance | Fault:
    """What becomes of a photo: it is read and prepared as for a call, and dropped."""
    read = read_photo(path, store, preparation)
    if isinstance(read, Unusable):
        return read.fault
    likeness = int.from_bytes(read.sha256[:8], "big", signed=True)
    edits = tuple(Edit(word) for word in read.prepared.split(", ") if word)
    head = glance(path, store, preparation)
    return Glance(
        size=read.times.size,
        likeness=likeness,
        edits=edits,
        to_send=len(read.content),
        pixels=head.pixels if isinstance(head, Glance) else None,
        precheck_fault=read.precheck_fault,
    )


def _glanced(photo: OpenPhoto, preparation: Preparation) -> Glance | Fault:
    size, head = photo.times.size, photo.part(0, _BLOCK)
    if not head:
        return decision.EMPTY
    tail = photo.part(max(size - _BLOCK, 0), _BLOCK)
    form = form_of(head)
    if form is None:
        name = name_of_foreign(head)
        return decision.NO_IMAGE if name is None else decision.foreign(name)
    seen = _seen(photo, head, form)
    if isinstance(seen, Fault):
        return seen
    edits = decide(seen, preparation)
    if isinstance(edits, Fault):
        return edits
    if seen.truncated and not preparation.accept_truncated:
        return decision.cut_off(completable=form in COMPLETABLE)
    to_send = _likely_bytes(seen, edits, preparation)
    digest = blake2b(head + tail + size.to_bytes(8, "big"), digest_size=8).digest()
    likeness = int.from_bytes(digest, "big", signed=True)
    return Glance(size, likeness, edits, to_send, pixels=seen.size)


def _likely_bytes(seen: Seen, edits: tuple[Edit, ...], preparation: Preparation) -> int:
    """An estimate of the bytes that would be sent."""
    if set(edits) <= {Edit.STRIPPED}:
        return seen.length
    share = 1.0 if seen.size is None else min(1.0, preparation.max_side / max(seen.size))
    if Edit.CONVERTED not in edits:
        likely = seen.length * math.pow(share, _SHRUNK)
    elif seen.size is None:
        likely = seen.length * _CONVERTED_TIMES
    else:
        likely = seen.size[0] * seen.size[1] * share**2 * _CONVERTED_BYTES
    return min(round(likely), preparation.max_bytes)


def _seen(photo: OpenPhoto, head: bytes, form: Form) -> Seen | Fault:
    size = photo.times.size
    match form:
        case Form.JPEG:
            found = _seen_jpeg(photo, head)
        case Form.PNG:
            found = _seen_png(head, size)
        case Form.BMP:
            found = _seen_bmp(head, size)
        case Form.TIFF:
            found = _seen_tiff(photo)
        case Form.GIF:
            found = _seen_gif(head, size)
        case Form.WEBP:
            missing = 8 + int.from_bytes(head[4:8], "little") > size
            pixels = inspect.size_of(head[:64])
            found = Seen(form=form, size=pixels, length=size, truncated=missing)
        case Form.AVIF | Form.HEIF:
            found = Seen(form=form, size=boxes.largest_size(head), length=size)
    return found


def _seen_bmp(head: bytes, size: int) -> Seen | Fault:
    found = inspect.walk_bmp(head)
    if found is None:
        return decision.NO_IMAGE
    truncated = found.length > size
    pixels, common = found.size, found.common
    return Seen(form=Form.BMP, size=pixels, length=size, common=common, truncated=truncated)


def _seen_gif(head: bytes, size: int) -> Seen | Fault:
    try:
        pixels = inspect.walk_gif(head).size
    except inspect.NotAGifError as error:
        return decision.damaged(str(error))
    except EndMissingError:
        if size <= len(head):
            return decision.ONLY_A_STUB
        pixels = inspect.canvas_of(head)
    return Seen(form=Form.GIF, size=pixels, length=size)


def _seen_jpeg(photo: OpenPhoto, head: bytes) -> Seen | Fault:
    size, known = photo.times.size, head
    for _ in range(_MOST_BLOCKS):
        try:
            found = jpeg.walk(known, whole=False)
        except jpeg.NotAJpegError as error:
            return decision.damaged(str(error))
        except jpeg.EndMissingError as error:
            block = photo.part(error.at, _BLOCK)
            if not block or error.at >= size or len(known) >= error.at + len(block):
                return decision.ONLY_A_STUB
            between = bytes(max(error.at - len(known), 0))  # not looked at
            known = (known + between)[: error.at] + block
        else:
            break
    else:
        return Seen(form=Form.JPEG, size=None, length=size, common=True, cut=True)
    return Seen(
        form=Form.JPEG,
        size=found.size,
        length=size - found.stripped.dropped,
        common=found.common,
        orientation=found.orientation,
        cut=found.stripped.changed,
    )


def _seen_png(head: bytes, size: int) -> Seen | Fault:
    try:
        found = png.walk(head, whole=False)
    except png.NotAPngError as error:
        return decision.damaged(str(error))
    if not found.width:
        return decision.ONLY_A_STUB
    return Seen(
        form=Form.PNG,
        size=found.size,
        length=max(size - found.stripped.dropped, 0),
        common=found.common,
        orientation=found.orientation,
        cut=found.stripped.changed,
    )


def _seen_tiff(photo: OpenPhoto) -> Seen | Fault:
    size = photo.times.size
    try:
        found = tiff.walk(photo.part, size)
    except EndMissingError:
        return decision.ONLY_A_STUB
    except UnsupportedError as error:
        return decision.foreign(f"a {error}")
    return Seen(
        form=Form.TIFF,
        size=found.size,
        length=size,
        orientation=found.orientation,
        truncated=found.end > size,
    )
