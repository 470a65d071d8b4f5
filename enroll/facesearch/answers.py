"""What an answer proves about its call, and every code it can carry: docs/errors.md shows it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, NoReturn

from enroll.model import TIMEOUT, Answer, CallKind, Verdict
from enroll.visible import visible

CONCURRENCY_LIMIT = "CONCURRENCY_LIMIT_EXCEEDED"

SERVICE_CODES: Mapping[str, Verdict] = {
    # The photo or the row will never be taken.
    "NO_FACE_FOUND": Verdict.REJECTED,
    "IMAGE_ERROR_UNSUPPORTED_FORMAT": Verdict.REJECTED,
    "INVALID_IMAGE_SIZE": Verdict.REJECTED,
    "IMAGE_FILE_TOO_LARGE": Verdict.REJECTED,
    "BAD_ARGUMENTS": Verdict.REJECTED,
    "MISSING_ARGUMENTS": Verdict.REJECTED,
    "COEXISTENCE_ARGUMENTS": Verdict.REJECTED,
    "INVALID_FACE_TOKEN": Verdict.REJECTED,
    "NOT_EMPTY": Verdict.REJECTED,
    # The account, the library or the address is wrong for every call.
    "AUTHENTICATION_ERROR": Verdict.FATAL,
    "AUTHORIZATION_ERROR": Verdict.FATAL,
    "INVALID_OUTER_ID": Verdict.FATAL,
    "INVALID_GROUP_ID": Verdict.FATAL,
    "API_NOT_FOUND": Verdict.FATAL,
    # Too many calls at once: nothing was done.
    CONCURRENCY_LIMIT: Verdict.REFUSED,
}
"""What the service's own code proves in a 4xx; any other code is FAILED, word for word.

`CONCURRENCY_LIMIT_EXCEEDED` proves it in every status. Source: the vendor's pages and its
other APIs.
"""

STATUS_VERDICTS: Mapping[int, Verdict] = {
    401: Verdict.FATAL,
    413: Verdict.REJECTED,  # sent as plain text by the service, as HTML by gateways
    429: Verdict.REFUSED,
}
"""What a status proves alone, whatever came with it; so does any 3xx (FATAL, 304 as well)."""


CREDENTIAL_CODES = frozenset({"AUTHORIZATION_ERROR", "AUTHENTICATION_ERROR"})
"""Codes after which the credentials are read again, as they may have been replaced."""

PHOTO_CODES = frozenset(
    {
        "NO_FACE_FOUND",
        "IMAGE_ERROR_UNSUPPORTED_FORMAT",
        "INVALID_IMAGE_SIZE",
        "IMAGE_FILE_TOO_LARGE",
        "HTTP_413",
    }
)
"""Codes with which the service refuses a photo itself, whichever call it came with."""

LIBRARY_CODES = frozenset({"INVALID_OUTER_ID", "INVALID_GROUP_ID"})
"""Codes that say that there is no such library (any more)."""


class OwnCode(StrEnum):
    """Enroll's own codes where the service gave none; `HTTP_<status>` are the others."""

    NAME_LOOKUP_FAILED = "NAME_LOOKUP_FAILED"
    """Not sent: the host's name has no address, or the resolver did not answer."""
    CANNOT_CONNECT = "CANNOT_CONNECT"
    """Not sent: refused, unreachable, or no connection within the time."""
    CLOCKS_APART = "CLOCKS_APART"
    """Not sent: the service's clock and this machine's are too far apart to sign anything."""
    PROXY_REFUSED = "PROXY_REFUSED"
    """Not sent: the proxy would not open a tunnel, or did not speak HTTP."""
    TLS_FAILED = "TLS_FAILED"
    """Not sent: no TLS, or a certificate that is not trusted."""
    OUT_OF_RESOURCES = "OUT_OF_RESOURCES"
    """Not sent: this machine had no file or thread left for the call."""
    WORKER_LOST = "WORKER_LOST"
    """Unknown: the worker that had the call did not report what came of it. Failed: the worker that
    held the photo was lost, and the photo is not the same any more. Says nothing of the service."""
    TIMEOUT = TIMEOUT
    """Unknown: the deadline passed after part of the request was sent."""
    CONNECTION_LOST = "CONNECTION_LOST"
    """Unknown: the connection ended after part of the request was sent."""
    NOT_HTTP = "NOT_HTTP"
    """Unknown: what came back is no HTTP answer."""
    BODY_CUT_OFF = "BODY_CUT_OFF"
    """Unknown: the answer ended before its announced end."""
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    """Unknown: the answer is longer than what is read."""
    NOT_JSON = "NOT_JSON"
    """Unknown: 200, but the body is not one JSON object."""
    NO_FACE_TOKEN = "NO_FACE_TOKEN"  # noqa: S105  # a code, no password
    """Unknown: `add` answered 200 without a token of 32 hexadecimal digits."""
    FIELD_MISSING = "FIELD_MISSING"
    """Unknown: another call answered 200 without the field that it is about."""


def http_code(status: int) -> str:
    """Enroll's code for an answer that has a status and no code of the service's."""
    return f"HTTP_{status}"


def why_fixed(code: str) -> str:
    """A sentence: why `--on-code` does not apply to this code; empty where it does."""
    verdict = SERVICE_CODES.get(code, Verdict.FAILED)
    status = int(code[5:]) if re.fullmatch(r"HTTP_\d{3}", code) else 0
    if status:
        fatal = Verdict.FATAL if 300 <= status < 400 else Verdict.UNKNOWN
        verdict = STATUS_VERDICTS.get(status, Verdict.FAILED if 400 <= status < 500 else fatal)
    if verdict is Verdict.FATAL:
        return _fixed(
            code, "it always stops the run, because every other call would fail the same way"
        )
    if verdict is Verdict.REFUSED:
        return _fixed(
            code,
            "the service refused the call because of the account's limit, and it is sent again",
        )
    if verdict is Verdict.UNKNOWN or code in list(OwnCode):
        return _fixed(code, "it does not say that the service refused the face")
    return ""


def _fixed(code: str, why: str) -> str:
    return f"{code} cannot be overridden: {why}. Remove it."


RAW_LIMIT = 2000
"""Characters of a body that are kept of an answer that was not clearly a success."""
CODE_LIMIT = 200
"""Characters of a code or request id; the message keeps the service's words up to `RAW_LIMIT`."""

MOST_MILLISECONDS = 2**31
"""A `time_used` of this much, some three weeks, is invalid."""

_FACE_TOKEN = re.compile(r"[0-9a-fA-F]{32}")
_EXPECTED: Mapping[CallKind, tuple[str, type]] = {
    CallKind.ADD: ("face_token", str),
    CallKind.CREATE: ("group_id", str),
    CallKind.GROUP_LIST: ("group_infos", list),
    CallKind.GROUP_INFO: ("info", dict),
    CallKind.LIST: ("face_tokens", list),
    CallKind.FACE_INFO: ("info", dict),
    CallKind.SEARCH: ("results", list),
    CallKind.DELETE: ("face_removed", int),
    CallKind.FREE: ("group_id", str),
}
"""The field without which a 200 does not say that the call was applied."""


def classify(
    kind: CallKind,
    *,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    broken: tuple[OwnCode, str] | None = None,
    secrets: tuple[str, ...] = (),
) -> Answer:
    """The answer that a status, headers (names in any case) and a body make for a `kind` call.

    `now` is the service's time as far as we know it, in UNIX seconds. `broken` says in code and
    words why the body is not whole; then only the status can prove anything. `secrets`
    are taken out of every text but the payload. Nothing that a server sends raises.
    """
    payload = None if broken else parse_object(body)
    error = _words(payload, "error", secrets)
    code, message = error.partition(":")[0].strip()[:CODE_LIMIT], error[:RAW_LIMIT]
    verdict = _verdict(status, code, whole=broken is None)
    if verdict is Verdict.APPLIED:
        verdict, code, message = _success(kind, payload)
    elif broken and verdict is Verdict.UNKNOWN:
        code, message = broken
    elif not code:
        code, message = http_code(status), f"HTTP {status} without an error code of the service"
    applied = verdict is Verdict.APPLIED
    server_time = parse_date(headers.get("Date", ""))
    return Answer(
        verdict=verdict,
        code=str(code),
        message=message,
        http_status=status,
        request_id=_words(payload, "request_id", secrets)[:CODE_LIMIT],
        time_used=_milliseconds(payload),
        face_token=_text(payload, "face_token") if applied and kind is CallKind.ADD else "",
        retry_after=parse_retry_after(
            headers.get("Retry-After"), now=now if server_time is None else server_time
        ),
        server_time=server_time,
        payload=payload if applied and payload is not None else {},
        raw="" if applied else redact(body.decode("utf-8", "replace"), secrets)[:RAW_LIMIT],
    )


def _verdict(status: int, code: str, *, whole: bool) -> Verdict:
    """What status and code prove; APPLIED still depends on the fields of the body."""
    if code == CONCURRENCY_LIMIT:
        return Verdict.REFUSED
    if status in STATUS_VERDICTS:
        return STATUS_VERDICTS[status]
    if 300 <= status < 400:
        return Verdict.FATAL
    if 400 <= status < 500 and whole:
        return SERVICE_CODES.get(code, Verdict.FAILED)
    # A 200 with an error contradicts itself: not even a documented code is believed there,
    # because a wrong "not applied" adds a face twice and a wrong "unknown" costs a search.
    if status == 200 and whole and not code:
        return Verdict.APPLIED
    return Verdict.UNKNOWN


def _success(kind: CallKind, payload: dict[str, Any] | None) -> tuple[Verdict, str, str]:
    """Verdict, code and message of a 200 whose body is complete and has no error code."""
    if payload is None:
        return Verdict.UNKNOWN, OwnCode.NOT_JSON, "HTTP 200, but the body is not a JSON object"
    if payload.get("error"):
        return Verdict.UNKNOWN, http_code(200), "HTTP 200 with an error that is not text"
    field, expected = _EXPECTED[kind]
    value = payload.get(field)
    if kind is CallKind.ADD and not (isinstance(value, str) and _FACE_TOKEN.fullmatch(value)):
        message = "HTTP 200 without a face_token of 32 hexadecimal digits"
        return Verdict.UNKNOWN, OwnCode.NO_FACE_TOKEN, message
    if type(value) is not expected:  # not isinstance: True is no count
        return Verdict.UNKNOWN, OwnCode.FIELD_MISSING, f"HTTP 200 without {field} as documented"
    return Verdict.APPLIED, "", ""


def _milliseconds(payload: Mapping[str, Any] | None) -> int | None:
    value = payload.get("time_used") if payload is not None else None
    return value if type(value) is int and 0 <= value < MOST_MILLISECONDS else None


def _words(payload: Mapping[str, Any] | None, field: str, secrets: tuple[str, ...]) -> str:
    """The service's own words without `secrets`, fit for the ledger and for a results file."""
    return visible(redact(_text(payload, field), secrets))


def _text(payload: Mapping[str, Any] | None, field: str) -> str:
    value = payload.get(field) if payload is not None else None
    return value if isinstance(value, str) else ""


MAX_RETRY_AFTER = 300.0
"""Seconds; the longest time for which a server may hold all calls."""

_SECONDS = re.compile(r"\s*(\d{1,9})(?:\.\d*)?\s*", re.ASCII)


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that `body` is, None when it is anything else.

    Stricter than `json`: UTF-8 only, no NaN or Infinity, no name twice in an object (which of
    two tokens would count?). Lone surrogates become U+FFFD, because no database or file takes
    them.
    """
    try:
        text = body.decode("utf-8-sig")
        value = _DECODER.decode(text)
        if r"\ud" in text.lower():
            value = _storable(value)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parse_retry_after(text: str | None, *, now: float) -> float | None:
    """Seconds to wait, 0 to `MAX_RETRY_AFTER`; `now` is the server's time, for an HTTP date."""
    if text is None:
        return None
    seconds = _SECONDS.fullmatch(text)
    if seconds:
        return min(float(seconds[1]), MAX_RETRY_AFTER)
    date = parse_date(text)
    return None if date is None else min(max(date - now, 0.0), MAX_RETRY_AFTER)


@lru_cache(maxsize=64)  # many answers have the same second
def parse_date(text: str) -> float | None:
    """An HTTP date, in any form of RFC 9110 (5.6.7), in UNIX seconds; None when it is none."""
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # no zone, as in asctime's form, or "-0000": UTC all the same
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError, OSError, TypeError, IndexError):
        return None
    return seconds if math.isfinite(seconds) else None


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"not JSON: {text}")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name twice")
    return members


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_once_each)


REDACTED = "[redacted]"
SHORTEST_PIECE = 8
"""Characters. Shorter pieces occur in ordinary words, and reveal nothing."""

_WORD = re.compile(r"[0-9A-Za-z]+")


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` without the secrets: each one whole, and each of its runs of letters and digits.

    An echo may be escaped for JSON, HTML or a URL; that changes only what lies between the runs.
    """
    if text:
        for piece in _pieces(secrets):
            text = text.replace(piece, REDACTED)
    return text


def _pieces(secrets: Iterable[str]) -> list[str]:
    """What to look for, longest first, so that nothing is left over of a whole secret."""
    pieces: set[str] = set()
    for secret in secrets:
        pieces.update((secret, *_WORD.findall(secret)))
    return sorted((each for each in pieces if len(each) >= SHORTEST_PIECE), key=len, reverse=True)
