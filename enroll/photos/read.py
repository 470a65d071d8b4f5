"""A photo read once from its store, hashed and prepared, or the reason why it cannot be sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from enroll import clock
from enroll.errors import ShortageError
from enroll.model import Fault, FileContent, Photo, Status, Unusable
from enroll.photos import decision, precheck
from enroll.photos.bounds import BUDGET
from enroll.photos.prepare import prepare
from enroll.photos.store import OpenPhoto, PhotoSource, PhotoStore, UnusableError
from enroll.settings import DEFAULT_PREPARATION, Preparation

_SMALL = 128 * 1024
"""Bytes of a photo of which as many as there are readers may be in memory."""

TOGETHER_SECONDS = 0.005
"""If reading takes longer than this, several readers side by side are quicker than one."""

TOGETHER_BYTES = 1024 * 1024
"""Bytes of photos that one reader reads in a row: the first of them wait for the last."""


@contextmanager
def open_photo(path: str, store: PhotoSource) -> Iterator[OpenPhoto]:
    """A photo that is open, and not too large to be read. Raises what `store.open` raises."""
    with store.open(path) as photo:
        if photo.times.size > decision.LARGEST_FILE:
            fault = decision.too_large(photo.times.size)
            raise UnusableError(Unusable(status=Status.INVALID, fault=fault))
        yield photo


def read_photo(
    path: str, store: PhotoSource, preparation: Preparation = DEFAULT_PREPARATION
) -> Photo | Unusable:
    """Read and hash a photo, and prepare what is sent.

    Whatever the photo is, raises only ShortageError, where nothing can be opened now.
    """
    try:
        with open_photo(path, store) as photo:
            return read_open(photo, preparation)
    except UnusableError as error:
        return error.unusable


def read_open(photo: OpenPhoto, preparation: Preparation) -> Photo | Unusable:
    """The same for a photo that is open. Raises UnusableError, too."""
    size = photo.times.size
    if size <= _SMALL:
        return _read(photo, preparation)
    # Only what is sent stays in memory; of what is read, no more than a few files.
    with BUDGET.files.room(size):
        return _read(photo, preparation)


def read_photos(
    paths: Sequence[str], store: PhotoStore, preparation: Preparation = DEFAULT_PREPARATION
) -> tuple[list[Photo | Unusable], bool]:
    """`read_photo` of the first of these, at least of one, until that has taken TOGETHER_SECONDS or
    TOGETHER_BYTES; and whether all of them were read within these. Raises ShortageError."""
    until = clock.monotonic() + TOGETHER_SECONDS
    photos: list[Photo | Unusable] = []
    left = TOGETHER_BYTES
    for path in paths:
        try:
            photo = read_photo(path, store, preparation)
        except ShortageError:
            if not photos:
                raise
            return photos, False
        photos.append(photo)
        left -= len(photo.content) if isinstance(photo, Photo) else 0
        if left <= 0 or clock.monotonic() >= until:
            return photos, False
    return photos, True


def _read(photo: OpenPhoto, preparation: Preparation) -> Photo | Unusable:
    contents = [photo.content()]
    sha256 = hashlib.sha256(contents[0]).digest()
    prepared = prepare(contents.pop(), preparation)  # no other reference keeps the bytes in memory
    if isinstance(prepared, Fault):
        content = FileContent(photo.times, sha256)
        return Unusable(status=Status.INVALID, fault=prepared, content=content)
    sent = prepared.content
    checked = precheck.check(sent, prepared.media_type, preparation)
    return Photo(
        times=photo.times,
        sha256=sha256,
        sent_sha256=hashlib.sha256(sent).digest() if prepared.done else None,
        content=sent,
        media_type=prepared.media_type,
        prepared=prepared.words,
        precheck_fault=checked.fault,
        face=checked.face,
    )
