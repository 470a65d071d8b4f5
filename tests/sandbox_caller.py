"""A caller of the stand-in with its own signing, written from the API's documentation."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import secrets
import time
from types import TracebackType
from typing import Any, Self

import numpy as np
import requests
import skimage.data
from PIL import Image

from enroll.sandbox import Sandbox

LIBRARY = "staff"


def signed(key: str, secret: str, *, expires: int, now: int, nonce: int | str | None = None) -> str:
    """The `sign` field."""
    nonce = secrets.randbelow(10**10) if nonce is None else nonce
    raw = f"a={key}&b={expires}&c={now}&d={nonce}".encode()
    return base64.b64encode(hmac.new(secret.encode(), raw, hashlib.sha1).digest() + raw).decode()


class Caller:
    """Makes calls on one kept connection."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.session = requests.Session()
        self.session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.session.close()

    def sign(self, *, expires: int | None = None, now: int | None = None) -> str:
        now = int(time.time()) if now is None else now
        expires = now + 60 if expires is None else expires
        return signed(self.box.api_key, self.box.api_secret, expires=expires, now=now)

    def call(
        self,
        kind: str,
        *,
        file: bytes | None = None,
        timeout: float = 10.0,
        **fields: Any,
    ) -> requests.Response:
        """POST a call; a field that is None is left out, `sign` and `group_id` are filled in."""
        defaults = {"sign": self.sign(), "sign_version": "hmac_sha1"}
        if kind != "group_list":
            defaults["group_id"] = LIBRARY
        wanted = {**defaults, **fields}
        parts: dict[str, Any] = {
            name: (None, value) for name, value in wanted.items() if value is not None
        }
        if file is not None:
            parts["file"] = ("photo.jpg", file, "image/jpeg")
        url = f"{self.box.endpoint}/finauth/search/group/{kind}"
        return self.session.post(url, files=parts, timeout=timeout, allow_redirects=False)

    def add(self, user_id: str = "u1", *, file: bytes | None = None, **fields: Any) -> str:
        """Add a face that must succeed; returns its token."""
        answer = self.call("add", user_id=user_id, file=file or face_photo(), **fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["face_token"])


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def sample(name: str) -> Image.Image:
    """A picture that comes with scikit-image, by its name there."""
    return Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("RGB")


def face_picture() -> Image.Image:
    """A photo with one face: an astronaut (NASA, public domain)."""
    return sample("astronaut")


def face_photo() -> bytes:
    return jpeg(face_picture())


def faceless_photo() -> bytes:
    return jpeg(sample("coffee"))
