"""A photo read once from its store, hashed and prepared, or the reason why it cannot be sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from enroll import clock
from enroll.errors import ShortageError
from enroll.model import Fault, FileContent, Photo, Status, Unusable
from enroll.photos import decision, jpeg, png, precheck
from enroll.photos.bounds import CONTENT_BYTES, TooSlowError, reading
from enroll.photos.convert import convert
from enroll.photos.decision import Edit, Seen, decide
from enroll.photos.decode import Source
from enroll.photos.form import HEAD_BYTES, Form, form_of, name_of_foreign
from enroll.photos.inspect import INSPECTORS
from enroll.photos.jpeg import truncated_at
from enroll.photos.store import OpenPhoto, PhotoStore, UnusableError
from enroll.settings import DEFAULT_PREPARATION, Preparation

_SMALL = 1024 * 1024
"""Bytes of a photo of which as many as there are readers may be in memory."""

TOGETHER_SECONDS = 0.005
"""If reading takes longer than this, several readers side by side are quicker than one."""

TOGETHER_BYTES = 1024 * 1024
"""Bytes of photos that one reader reads in a row: the first of them wait for the last."""


@contextmanager
def open_photo(path: str, store: PhotoStore) -> Iterator[OpenPhoto]:
    """A photo that is open, and not too large to be read. Raises what `store.open` raises."""
    with store.open(path) as photo:
        if photo.times.size > decision.LARGEST_FILE:
            fault = decision.too_large(photo.times.size)
            raise UnusableError(Unusable(status=Status.INVALID, fault=fault))
        yield photo


def read_photo(
    path: str, store: PhotoStore, preparation: Preparation = DEFAULT_PREPARATION
) -> Photo | Unusable:
    """Read and hash a photo, and prepare what is sent.

    Whatever the photo is, raises only ShortageError, where nothing can be opened now.
    """
    try:
        with open_photo(path, store) as photo:
            size = photo.times.size
            if size <= _SMALL:
                return _read(photo, preparation)
            # Only what is sent stays in memory; of what is read, no more than a few files.
            with reading().room(size, limit=CONTENT_BYTES):
                return _read(photo, preparation)
    except UnusableError as error:
        return error.unusable


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
    return Photo(
        times=photo.times,
        sha256=sha256,
        sent_sha256=hashlib.sha256(sent).digest() if prepared.done else None,
        content=sent,
        media_type=prepared.media_type,
        prepared=prepared.words,
        precheck_fault=precheck.doubt_about(sent, prepared.media_type, preparation),
    )


MEDIA_TYPES: Mapping[Form, str] = {
    Form.JPEG: "image/jpeg",
    Form.PNG: "image/png",
    Form.BMP: "image/bmp",
}


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
    if not content:
        return decision.EMPTY
    form = form_of(content[:64])
    if form is None:
        name = name_of_foreign(content[:HEAD_BYTES])
        return decision.NO_IMAGE if name is None else decision.foreign(name)
    source = _SOURCES[form](content)
    del content  # what was cut out is not kept while a picture is decoded
    try:
        return source if isinstance(source, Fault) else _prepared(source, preparation)
    except TooSlowError:
        return decision.TOO_SLOW


def _prepared(source: Source, preparation: Preparation) -> Prepared | Fault:
    edits = decide(source.seen, preparation)
    if isinstance(edits, Fault):
        return edits
    if set(edits) <= {Edit.STRIPPED}:
        media_type = MEDIA_TYPES[source.seen.form]
        return Prepared(content=source.content, media_type=media_type, done=edits)
    made = convert(source, preparation)
    if isinstance(made, Fault):
        return made
    if made.completed and Edit.COMPLETED not in edits:
        edits = (Edit.COMPLETED, *edits)
    if made.turned and Edit.TURNED not in edits:  # known only since it was opened
        edits = (*edits, Edit.TURNED)
    if made.shrunk and Edit.SHRUNK not in edits:
        edits = (*edits, Edit.SHRUNK)
    return Prepared(content=made.content, media_type="image/jpeg", done=edits)


def _jpeg_source(content: bytes) -> Source | Fault:
    try:
        found = jpeg.walk(content)
    except jpeg.NotAJpegError as error:
        return decision.damaged(str(error))
    if found.end is None and not found.scans:
        return decision.ONLY_A_STUB
    stripped, lost = found.stripped.joined(), truncated_at(content, found)
    if lost is not None:
        end = len(content) if found.end is None else found.end
        stripped = stripped[: lost - end]
    seen = Seen(
        form=Form.JPEG,
        size=found.size,
        length=len(stripped),
        common=found.common,
        orientation=found.orientation,
        cut=found.stripped.changed,
        truncated=found.end is None or lost is not None,
    )
    return Source(content=stripped, seen=seen, jpeg=found)


def _png_source(content: bytes) -> Source | Fault:
    try:
        found = png.walk(content)
    except png.NotAPngError as error:
        return decision.damaged(str(error))
    if not found.width:
        return decision.ONLY_A_STUB
    stripped = found.stripped.joined()
    seen = Seen(
        form=Form.PNG,
        size=found.size,
        length=len(stripped),
        common=found.common,
        orientation=found.orientation,
        cut=found.stripped.changed,
        truncated=not found.whole,
    )
    return Source(content=stripped, seen=seen)


_SOURCES: Mapping[Form, Callable[[bytes], Source | Fault]] = {
    **INSPECTORS,
    Form.JPEG: _jpeg_source,
    Form.PNG: _png_source,
}
