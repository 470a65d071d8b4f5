"""What the structure of a TIFF, BMP, GIF, WebP, AVIF or HEIC says of its picture, and that picture
without the rest of the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from enroll.model import Fault
from enroll.photos import avif, bmp, boxes, gif, reasons, tiff, webp
from enroll.photos.decide import Seen
from enroll.photos.directory import EndMissingError, UnsupportedError
from enroll.photos.form import Form
from enroll.photos.source import Source


def _tiff(content: bytes) -> Source | Fault:
    try:
        found = tiff.walk(lambda at, length: content[at : at + length], len(content))
    except EndMissingError:
        return reasons.ONLY_A_STUB
    except UnsupportedError as error:
        return reasons.foreign(f"a {error}")
    missing = max(found.end - len(content), 0)
    seen = Seen(
        form=Form.TIFF,
        size=found.size,
        length=len(content),
        orientation=found.orientation,
        truncated=missing > 0,
    )
    return Source(content=found.alone(content), seen=seen, missing_bytes=missing)


def _bmp(content: bytes) -> Source | Fault:
    found = bmp.walk(content)
    if found is None:
        return reasons.NO_IMAGE
    missing = found.length - len(content)
    behind = found.length > 0 and missing < 0
    stripped = content[: found.length] if behind else content
    seen = Seen(
        form=Form.BMP,
        size=found.size,
        length=len(stripped),
        common=found.common,
        cut=behind,
        truncated=missing > 0,
    )
    return Source(content=stripped, seen=seen, missing_bytes=max(missing, 0))


def _gif(content: bytes) -> Source | Fault:
    try:
        found = gif.walk(content)
    except gif.EndMissingError:
        return reasons.ONLY_A_STUB
    except gif.NotAGifError as error:
        return reasons.damaged(str(error))
    seen = Seen(form=Form.GIF, size=found.size, length=len(content))
    return Source(content=found.alone(content), seen=seen)


def _webp(content: bytes) -> Source | Fault:
    try:
        found = webp.walk(content)
    except webp.NotAWebpError as error:
        return reasons.damaged(str(error))
    seen = Seen(
        form=Form.WEBP,
        # Its decoder takes memory for the whole picture as soon as it is opened.
        size=found.size,
        length=len(content),
        orientation=found.orientation,
        truncated=found.missing > 0,
    )
    return Source(content=found.alone(content), seen=seen, missing_bytes=found.missing)


def _avif(content: bytes) -> Source | Fault:
    try:
        found = boxes.walk(content)
    except boxes.EndMissingError:
        return _without_table(content, Form.AVIF)
    except boxes.NotBoxesError:
        return reasons.foreign("an AVIF of a rare kind")
    source = _of_boxes(content, Form.AVIF, found)
    if source.seen.truncated:  # its decoder gives nothing
        return source
    return replace(source, content=avif.alone(found, content), crop=found.crop)


def _heif(content: bytes) -> Source | Fault:
    try:
        found = boxes.walk(content)
    except boxes.EndMissingError:
        return _without_table(content, Form.HEIF)
    except boxes.NotBoxesError:  # libheif may know more
        return Source(content=content, seen=Seen(form=Form.HEIF, size=None, length=len(content)))
    return _of_boxes(found.without_metadata(content), Form.HEIF, found)


def _of_boxes(content: bytes, form: Form, found: boxes.Picture) -> Source:
    missing = max(found.end - len(content), 0)
    # The decoder knows better which size that is, as it turns and crops.
    seen = Seen(form=form, size=None, length=len(content), truncated=missing > 0)
    return Source(content=content, seen=seen, missing_bytes=missing)


def _without_table(content: bytes, form: Form) -> Source:
    seen = Seen(form=form, size=None, length=len(content), truncated=True)
    return Source(content=content, seen=seen)


INSPECTORS: Mapping[Form, Callable[[bytes], Source | Fault]] = {
    Form.TIFF: _tiff,
    Form.BMP: _bmp,
    Form.GIF: _gif,
    Form.WEBP: _webp,
    Form.AVIF: _avif,
    Form.HEIF: _heif,
}
