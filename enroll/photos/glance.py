"""What would be done to a photo, from its head or by doing it; what `enroll plan` reports."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

from enroll.model import FaceMeasures, Fault, Unusable
from enroll.photos import alike, decision
from enroll.photos.alike import Outline
from enroll.photos.decision import COMPLETABLE, Edit, RefusedError, Seen, decide
from enroll.photos.inspect import BLOCK_BYTES, inspect_head
from enroll.photos.read import open_photo, read_open
from enroll.photos.store import OpenPhoto, PhotoStore, UnusableError
from enroll.settings import DEFAULT_PREPARATION, Preparation

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
    wrong with the face, and `face` what it measured. `outline` says what other photos may be the
    same, if that was asked for.
    """

    size: int
    likeness: int
    edits: tuple[Edit, ...] = ()
    to_send: int = 0
    pixels: tuple[int, int] | None = None
    precheck_fault: Fault | None = None
    face: FaceMeasures | None = None
    outline: Outline | None = None


def glance(
    path: str,
    store: PhotoStore,
    preparation: Preparation = DEFAULT_PREPARATION,
    *,
    outlines: bool = False,
) -> Glance | Fault:
    """What would become of a photo, as far as some 8 kB of it say; it may be worse."""
    try:
        with open_photo(path, store) as photo:
            return _glanced(photo, preparation, outlines=outlines)
    except UnusableError as error:
        return error.unusable.fault
    except RefusedError as error:
        return error.fault


def examine(
    path: str,
    store: PhotoStore,
    preparation: Preparation = DEFAULT_PREPARATION,
    *,
    outlines: bool = False,
) -> Glance | Fault:
    """What becomes of a photo: it is read and prepared as for a call, and dropped."""
    head = None
    try:
        with open_photo(path, store) as photo:
            with suppress(RefusedError):  # reading it says why
                head = _glanced(photo, preparation, outlines=outlines)
            read = read_open(photo, preparation)
    except UnusableError as error:
        return error.unusable.fault
    if isinstance(read, Unusable):
        return read.fault
    likeness = int.from_bytes(read.sha256[:8], "big", signed=True)
    edits = tuple(Edit(word) for word in read.prepared.split(", ") if word)
    return Glance(
        size=read.times.size,
        likeness=likeness,
        edits=edits,
        to_send=len(read.content),
        pixels=None if head is None else head.pixels,
        outline=None if head is None else head.outline,
        precheck_fault=read.precheck_fault,
        face=read.face,
    )


def _glanced(photo: OpenPhoto, preparation: Preparation, *, outlines: bool) -> Glance:
    size, head = photo.times.size, photo.part(0, BLOCK_BYTES)
    tail = photo.part(max(size - BLOCK_BYTES, 0), BLOCK_BYTES)
    seen = inspect_head(photo, head)
    edits = decide(seen, preparation)
    if seen.truncated and not preparation.accept_truncated:
        raise RefusedError(decision.cut_off(completable=seen.form in COMPLETABLE))
    to_send = _likely_bytes(seen, edits, preparation)
    likeness = alike.likeness(head, tail, size)
    outline = alike.outlined(photo, head, seen, likeness=likeness) if outlines else None
    return Glance(size, likeness, edits, to_send, pixels=seen.size, outline=outline)


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
