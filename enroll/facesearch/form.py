"""The body of a call: multipart/form-data, built once."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from enroll.model import Photo, SendAs

_FILE_NAMES: Mapping[str, str] = {
    "image/jpeg": "photo.jpg",
    "image/png": "photo.png",
    "image/bmp": "photo.bmp",
}
"""The name that a photo travels under: the user's path often holds an id, so it stays here."""


_BOUNDARY = secrets.token_hex(16)
"""Of this process's forms: nobody who made a photo can know it."""
_DELIMITER = f"--{_BOUNDARY}\r\n".encode("ascii")
_END = f"--{_BOUNDARY}--\r\n".encode("ascii")
_CONTENT_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"


@dataclass(frozen=True, slots=True)
class PhotoPart:
    """The photo's part of a form: the head after its boundary, and the content."""

    head: bytes
    content: bytes = field(repr=False)


def photo_part(photo: Photo, send_as: SendAs) -> PhotoPart:
    """The `file` or `image` part for `photo`, whose media type is JPEG, PNG or BMP."""
    if send_as is SendAs.IMAGE:
        return PhotoPart(_field_head("image"), base64.b64encode(photo.content))
    name = _FILE_NAMES[photo.media_type]
    head = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
    return PhotoPart(
        f"{head}Content-Type: {photo.media_type}\r\n\r\n".encode("ascii"), photo.content
    )


def encode(fields: Mapping[str, str], photo: PhotoPart | None) -> tuple[tuple[bytes, ...], str]:
    """Body and content type of a form with `fields` in their order, and `photo` last.

    The body is in pieces, so that the photo is not copied for each call.
    """
    parts: list[bytes] = []
    for name, value in fields.items():
        parts += (_DELIMITER, _field_head(name), value.encode(), b"\r\n")
    if photo is None:
        return (b"".join([*parts, _END]),), _CONTENT_TYPE
    before = b"".join([*parts, _DELIMITER, photo.head])
    return (before, photo.content, b"\r\n" + _END), _CONTENT_TYPE


@cache
def _field_head(name: str) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode("ascii")
