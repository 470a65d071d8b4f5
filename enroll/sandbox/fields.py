"""The fields of a call, checked as the documentation states them."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO

from werkzeug.wrappers import Request

from .replies import RefusalError

USER_ID_BYTES = 48
TEXT_CHARACTERS = 128
NAME_CHARACTERS = 60
# `group_id` is not described; the bound only keeps nonsense out.
GROUP_ID_CHARACTERS = 255
DELETE_TOKENS = 1000

_USER_ID = re.compile(r"[A-Za-z0-9\-%@#&_]+")
_NUMBER = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]{1,3}(\.[0-9]{1,12})?")


class FormRequest(Request):
    """A request whose body is in memory and bounded already, so its parts may be there too."""

    # werkzeug's own bounds (500 kB a field) are below what the service takes as a Base64 `image`.
    max_form_memory_size = None
    max_form_parts = 1_000_000

    def _get_file_stream(self, *_: object, **__: object) -> IO[bytes]:
        """Memory instead of a temporary file, which would have to be closed as well."""
        return BytesIO()


@dataclass(frozen=True, slots=True)
class Fields:
    """The text fields and file parts of one call. Every getter raises `RefusalError`.

    `names` has the name of every part, as often as it came; `queried` those of the query string.
    """

    texts: dict[str, str]
    files: dict[str, bytes] = field(repr=False)
    names: tuple[str, ...] = ()
    queried: tuple[str, ...] = ()

    @classmethod
    def of(cls, request: Request) -> Fields:
        """Parse the body; an unreadable one has no fields."""
        files = {name: part.read() for name, part in request.files.items()}
        parts = [*request.form.items(multi=True), *request.files.items(multi=True)]
        return cls(
            texts=request.form.to_dict(),
            files=files,
            names=tuple(name for name, _ in parts),
            queried=tuple(request.args) or (("?",) if request.query_string else ()),
        )

    def check_documented(self, documented: Set[str]) -> None:
        """Refuse a field that is not documented, comes twice, comes as a file where it is a text
        (or the other way round), or stands in the query string."""
        for name, count in Counter(self.names).items():
            as_documented = name in (self.files if name == "file" else self.texts)
            if name not in documented or count > 1 or not as_documented:
                raise RefusalError("BAD_ARGUMENTS", name)
        for name in self.queried:
            raise RefusalError("BAD_ARGUMENTS", name)

    def group_id(self) -> str:
        return self._text("group_id", longest=GROUP_ID_CHARACTERS)

    def group_name(self) -> str:
        return self._text("group_name", longest=NAME_CHARACTERS)

    def optional_text(self, name: str, default: str = "") -> str:
        """A free text of at most 128 characters."""
        value = self.texts.get(name, default)
        if len(value) > TEXT_CHARACTERS:
            raise RefusalError("BAD_ARGUMENTS", name)
        return value

    def user_id(self) -> str:
        value = self._text("user_id", longest=USER_ID_BYTES)
        if not _USER_ID.fullmatch(value):
            raise RefusalError("BAD_ARGUMENTS", "user_id")
        return value

    def face_token(self) -> str:
        return self._text("face_token", longest=64)

    def face_tokens(self) -> list[str]:
        tokens = self._text("face_tokens", longest=DELETE_TOKENS * 34).split(",")
        if len(tokens) > DELETE_TOKENS or not all(tokens):
            raise RefusalError("BAD_ARGUMENTS", "face_tokens")
        return tokens

    def number(self, name: str, *, default: int, least: int, most: int) -> int:
        """A decimal number from `least` to `most`."""
        text = self.texts.get(name)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
            raise RefusalError("BAD_ARGUMENTS", name)
        return int(text)

    def threshold(self) -> float:
        """The lowest score wanted, 0 to 100; 0 when left out."""
        text = self.texts.get("threshold", "0")
        if not _DECIMAL.fullmatch(text) or float(text) > 100:
            raise RefusalError("BAD_ARGUMENTS", "threshold")
        return float(text)

    def switch(self, name: str, *, default: bool = False) -> bool:
        """`"1"` or `"0"`; anything else is `BAD_ARGUMENTS`."""
        text = self.texts.get(name, "1" if default else "0")
        if text not in ("0", "1"):
            raise RefusalError("BAD_ARGUMENTS", name)
        return text == "1"

    def picture(self) -> tuple[str, bytes]:
        """The name of the field that carries the picture (`file` or `image`) and its bytes."""
        image, file = self.texts.get("image"), self.files.get("file")
        if image is not None and file is not None:
            raise RefusalError("COEXISTENCE_ARGUMENTS")
        if file is not None:
            return "file", file
        if not image:
            raise RefusalError("MISSING_ARGUMENTS", "file")
        try:
            return "image", base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise RefusalError("IMAGE_ERROR_UNSUPPORTED_FORMAT", "image") from exc

    def _text(self, name: str, *, longest: int) -> str:
        value = self.texts.get(name, "")
        if not value:
            raise RefusalError("MISSING_ARGUMENTS", name)
        if len(value) > longest:
            raise RefusalError("BAD_ARGUMENTS", name)
        return value
