"""A photo's bytes to the bytes that are sent: as they are, stripped, or made anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from enroll.model import Fault
from enroll.photos import decision, jpeg, png
from enroll.photos.bounds import TooSlowError
from enroll.photos.convert import convert
from enroll.photos.decision import Deed, Seen, decide
from enroll.photos.foreign import HEAD_BYTES, name_of_foreign
from enroll.photos.form import Form, form_of
from enroll.photos.inspect import INSPECTORS
from enroll.photos.jpeg import lost_from
from enroll.photos.source import Source
from enroll.settings import AS_USUAL, Preparation

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
    done: tuple[Deed, ...] = ()

    @property
    def words(self) -> str:
        """What was done, in a word or two."""
        return ", ".join(self.done)


def prepare(content: bytes, preparation: Preparation = AS_USUAL) -> Prepared | Fault:
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
    deeds = decide(source.seen, preparation)
    if isinstance(deeds, Fault):
        return deeds
    if set(deeds) <= {Deed.STRIPPED}:
        media_type = MEDIA_TYPES[source.seen.form]
        return Prepared(content=source.content, media_type=media_type, done=deeds)
    made = convert(source, preparation)
    if isinstance(made, Fault):
        return made
    if made.completed and Deed.COMPLETED not in deeds:
        deeds = (Deed.COMPLETED, *deeds)
    if made.turned and Deed.TURNED not in deeds:  # known only since it was opened
        deeds = (*deeds, Deed.TURNED)
    if made.shrunk and Deed.SHRUNK not in deeds:
        deeds = (*deeds, Deed.SHRUNK)
    return Prepared(content=made.content, media_type="image/jpeg", done=deeds)


def _jpeg_source(content: bytes) -> Source | Fault:
    try:
        found = jpeg.walk(content)
    except jpeg.NotAJpegError as error:
        return decision.damaged(str(error))
    if found.end is None and not found.scans:
        return decision.ONLY_A_STUB
    stripped, lost = found.remains.joined(), lost_from(content, found)
    if lost is not None:
        end = len(content) if found.end is None else found.end
        stripped = stripped[: lost - end]
    seen = Seen(
        form=Form.JPEG,
        size=found.size,
        length=len(stripped),
        common=found.common,
        orientation=found.orientation,
        cut=found.remains.changed,
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
    stripped = found.remains.joined()
    seen = Seen(
        form=Form.PNG,
        size=found.size,
        length=len(stripped),
        common=found.common,
        orientation=found.orientation,
        cut=found.remains.changed,
        truncated=not found.whole,
    )
    return Source(content=stripped, seen=seen)


_SOURCES: Mapping[Form, Callable[[bytes], Source | Fault]] = {
    **INSPECTORS,
    Form.JPEG: _jpeg_source,
    Form.PNG: _png_source,
}
