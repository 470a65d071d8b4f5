"""The fields of a request and their checks, the signature among them; replies as documented."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BytesIO
from threading import Lock
from typing import IO, Any

from werkzeug.wrappers import Request

from .profile import Profile

JSON_TYPE = "application/json"
HTML_TYPE = "text/html; charset=utf-8"

# Codes whose answers may lack `request_id` and `time_used`: the stand-in always leaves them out.
_BARE_CODES = frozenset({"API_NOT_FOUND", "AUTHORIZATION_ERROR"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One whole answer, ready to be sent. `close` ends the connection after it."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    code: str = ""
    close: bool = False


class RefusalError(Exception):
    """The call is refused with an error code and was not carried out.

    `detail` follows the code after a colon, as the vendor does it (`BAD_ARGUMENTS: user_id`).
    `rule` is the name by which a profile may have another answer.
    """

    def __init__(self, code: str, detail: str = "", *, status: int = 400, rule: str = "") -> None:
        super().__init__(code, detail, status)
        self.code = code
        self.detail = detail
        self.status = status
        self.rule = rule

    def observed(self, profile: Profile) -> RefusalError:
        """The same, as a profile has it."""
        status, error = profile.answers.get(self.rule, (0, ""))
        if status < 400:
            return self
        code, _, detail = error.partition(":")
        return RefusalError(code.strip(), detail.strip(), status=status)


def keep(profile: Profile, rule: str, *, kept: bool = True) -> None:
    """Refuse a call that keeps to a rule, if the profile does; raises RefusalError."""
    if kept and profile.refuses(rule):
        raise RefusalError(rule, rule=rule)


def success(
    payload: dict[str, Any], *, request_id: str, seconds: float, bare: Sequence[str] = ()
) -> Reply:
    """Status 200 with `payload`, `request_id` and `time_used` in whole milliseconds. `bare` are the
    codes that come without these."""
    more = {"request_id": request_id, "time_used": round(seconds * 1000)}
    return Reply(status=200, body=_encode(payload if "success" in bare else {**payload, **more}))


def failure(
    refusal: RefusalError, *, request_id: str, seconds: float, bare: Sequence[str] = ()
) -> Reply:
    """The documented shape of an error; 404 and `AUTHORIZATION_ERROR` come without the rest."""
    error = f"{refusal.code}: {refusal.detail}" if refusal.detail else refusal.code
    content: dict[str, Any] = {"error": error}
    if refusal.code not in _BARE_CODES.union(bare):
        content |= {"request_id": request_id, "time_used": round(seconds * 1000)}
    return Reply(status=refusal.status, body=_encode(content), code=refusal.code)


def too_large(profile: Profile) -> Reply:
    """The gateway's answer to a request over the limit: plain text, connection closed."""
    if profile.refuses("bytes_refused"):
        refusal = RefusalError("", rule="bytes_refused").observed(profile)
        return replace(failure(refusal, request_id=secrets.token_hex(16), seconds=0), close=True)
    return Reply(
        status=413,
        body=b"Request Entity Too Large",
        content_type="text/plain",
        code="Request Entity Too Large",
        close=True,
    )


def html(status: int, title: str, *, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """A page such as a gateway or firewall in front of the service sends."""
    page = (
        f"<html>\r\n<head><title>{status} {title}</title></head>\r\n"
        f"<body><center><h1>{status} {title}</h1></center></body>\r\n</html>\r\n"
    )
    return Reply(status=status, body=page.encode(), content_type=HTML_TYPE, headers=headers)


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


@dataclass(slots=True)
class Clock:
    """The stand-in's clock in UNIX seconds: `source()` plus `skew`."""

    source: Callable[[], float] = time.time
    skew: float = 0.0

    def now(self) -> float:
        """UNIX seconds."""
        return self.source() + self.skew


def iso(seconds: float) -> str:
    """UNIX seconds as ISO 8601 text in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


SIGN_VERSION = "hmac_sha1"
_DIGEST_BYTES = 20
_RAW = re.compile(
    r"a=(?P<key>[^&]*)&b=(?P<b>[0-9]{1,20})&c=(?P<c>[0-9]{1,20})&d=(?P<d>[0-9]{1,10})"
)

# The vendor names no bound on `c`. A clock that is a quarter of an hour fast counts as broken.
_FUTURE_SECONDS = 900
# Single-use signatures are remembered this long and refused when they are older.
_SINGLE_USE_SECONDS = 3600
# A profile may refuse signatures that are good for longer.
_LONG_SECONDS = 3600


class SignatureCheck:
    """Knows the account's key and secret, and which single-use signatures are spent."""

    def __init__(self, *, api_key: str, api_secret: str, profile: Profile | None = None) -> None:
        self._profile = profile or Profile()
        self._used: set[str] = set()
        self._key = api_key
        self._secret = api_secret.encode()
        self._spent: OrderedDict[str, float] = OrderedDict()
        self._lock = Lock()

    def replace_secret(self, api_secret: str) -> None:
        """Take another secret from now on."""
        self._secret = api_secret.encode()

    def check(self, *, sign: str | None, version: str | None, now: float) -> None:
        """Return when the call may go on; raise `RefusalError` with the vendor's code otherwise.

        `now` is UNIX seconds on the stand-in's clock, at the arrival of the call.
        """
        if not sign:
            raise RefusalError("MISSING_ARGUMENTS", "sign")
        if not version:
            raise RefusalError("MISSING_ARGUMENTS", "sign_version")
        if version != SIGN_VERSION:
            raise RefusalError("BAD_ARGUMENTS", "sign_version")
        expires, signed = self._verified(sign)
        if signed > now + _FUTURE_SECONDS:
            raise _denied()
        if expires:
            if expires <= signed or expires <= now:
                raise _denied("expired_signature")
            keep(self._profile, "signature_longest", kept=expires - now > _LONG_SECONDS)
            if self._profile.refuses("signature_reused"):
                keep(self._profile, "signature_reused", kept=sign in self._used)
                self._used.add(sign)
        else:
            keep(self._profile, "signature_single")
            self._spend(sign, signed=signed, now=now)

    def _verified(self, sign: str) -> tuple[int, int]:
        """The fields b and c of a signature that our secret made."""
        try:
            decoded = base64.b64decode(sign, validate=True)
            raw = decoded[_DIGEST_BYTES:].decode("ascii")
        except (binascii.Error, ValueError) as exc:
            raise _denied() from exc
        fields = _RAW.fullmatch(raw)
        digest = hmac.new(self._secret, raw.encode(), hashlib.sha1).digest()
        # Both checks always run, so that the time taken reveals nothing.
        genuine = hmac.compare_digest(digest, decoded[:_DIGEST_BYTES])
        if fields is None or not genuine or fields["key"] != self._key:
            raise _denied("wrong_signature")
        return int(fields["b"]), int(fields["c"])

    def _spend(self, sign: str, *, signed: int, now: float) -> None:
        if signed < now - _SINGLE_USE_SECONDS:
            raise _denied()
        with self._lock:
            if sign in self._spent:
                raise _denied("signature_spent")
            self._spent[sign] = now
            while next(iter(self._spent.values())) < now - 2 * _SINGLE_USE_SECONDS:
                self._spent.popitem(last=False)


def _denied(rule: str = "wrong_signature") -> RefusalError:
    return RefusalError("AUTHORIZATION_ERROR", status=403, rule=rule)


USER_ID_BYTES = 48
TEXT_CHARACTERS = 128
NAME_CHARACTERS = 60
GROUP_ID_BYTES = 48
# In other calls the bound only keeps nonsense out.
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
    profile: Profile = field(default_factory=Profile)

    @classmethod
    def of(cls, request: Request, profile: Profile) -> Fields:
        """Parse the body; an unreadable one has no fields."""
        files = {name: part.read() for name, part in request.files.items()}
        parts = [*request.form.items(multi=True), *request.files.items(multi=True)]
        return cls(
            texts=request.form.to_dict(),
            files=files,
            names=tuple(name for name, _ in parts),
            queried=tuple(request.args) or (("?",) if request.query_string else ()),
            profile=profile,
        )

    def check_documented(self, documented: Set[str]) -> None:
        """Refuse a field that is not documented, comes twice, comes as a file where it is a text
        (or the other way round), or is in the query string."""
        for name, count in Counter(self.names).items():
            as_documented = name in (self.files if name == "file" else self.texts)
            if name not in documented or count > 1 or not as_documented:
                raise RefusalError("BAD_ARGUMENTS", name)
        for name in self.queried:
            raise RefusalError("BAD_ARGUMENTS", name)

    def group_id(self) -> str:
        return self._text("group_id", longest=GROUP_ID_CHARACTERS)

    def new_group_id(self) -> str:
        value = self.group_id()
        if len(value) > GROUP_ID_BYTES or not _USER_ID.fullmatch(value):
            self._break("group_id_characters", "BAD_ARGUMENTS", "group_id")
        return value

    def group_name(self) -> str:
        value = self._text("group_name", longest=NAME_CHARACTERS)
        keep(self.profile, "library_texts", kept=len(value) == NAME_CHARACTERS)
        return value

    def optional_text(self, name: str, default: str = "") -> str:
        """A free text of at most 128 characters."""
        value = self.texts.get(name, default)
        if len(value) > TEXT_CHARACTERS:
            self._break("user_data_too_long", "BAD_ARGUMENTS", name)
        if name == "user_data":
            keep(self.profile, "user_data_accepted", kept=len(value) == TEXT_CHARACTERS)
            keep(self.profile, "user_data_characters", kept=not value.isprintable())
        return value

    def user_id(self) -> str:
        value = self.texts.get("user_id", "")
        if not value:
            self._break("user_id_missing", "MISSING_ARGUMENTS", "user_id")
            return "unknown"
        if len(value) > USER_ID_BYTES:
            self._break("user_id_too_long", "BAD_ARGUMENTS", "user_id")
        if not _USER_ID.fullmatch(value):
            self._break("user_id_characters", "BAD_ARGUMENTS", "user_id")
        keep(self.profile, "user_id_longest", kept=len(value) == USER_ID_BYTES)
        keep(self.profile, "user_id_accepted", kept="@" in value)
        return value

    def face_token(self) -> str:
        return self._text("face_token", longest=64)

    def face_tokens(self) -> list[str]:
        tokens = self._text("face_tokens", longest=DELETE_TOKENS * 34).split(",")
        if len(tokens) > DELETE_TOKENS or not all(tokens):
            raise RefusalError("BAD_ARGUMENTS", "face_tokens")
        return tokens

    def number(self, name: str, *, default: int, least: int, most: int, call: str) -> int:
        """A decimal number from `least` to `most`, for a kind of call."""
        text = self.texts.get(name)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text):
            raise RefusalError("BAD_ARGUMENTS", name)
        number = min(max(int(text), least), most)
        if number != int(text):
            beyond = least - 1 if number == least else most + 1
            self._break(f"{call}_{name}_{beyond}", "BAD_ARGUMENTS", name)
        return number

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
            self._break(name, "BAD_ARGUMENTS", name)
        return text == "1"

    def picture(self) -> tuple[str, bytes]:
        """The name of the field that carries the picture (`file` or `image`) and its bytes."""
        image, file = self.texts.get("image"), self.files.get("file")
        if image is not None and file is not None:
            self._break("image_and_file", "COEXISTENCE_ARGUMENTS")
        if file is not None:
            return "file", file
        if not image:
            raise RefusalError("MISSING_ARGUMENTS", "file", rule="photo_missing")
        keep(self.profile, "image_accepted")
        try:
            return "image", base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise RefusalError("IMAGE_ERROR_UNSUPPORTED_FORMAT", "image") from exc

    def _break(self, rule: str, code: str, detail: str = "") -> None:
        """Refuse a call that breaks a rule, unless the profile says that it is not enforced."""
        if self.profile.enforces(rule):
            raise RefusalError(code, detail, rule=rule)

    def _text(self, name: str, *, longest: int) -> str:
        value = self.texts.get(name, "")
        if not value:
            raise RefusalError("MISSING_ARGUMENTS", name)
        if len(value) > longest:
            raise RefusalError("BAD_ARGUMENTS", name)
        return value
