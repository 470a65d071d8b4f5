"""What an answer proves about its call: docs/errors.md has the table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from enroll.facesearch.codes import (
    CONCURRENCY_LIMIT,
    SERVICE_CODES,
    STATUS_VERDICTS,
    OwnCode,
    http_code,
)
from enroll.facesearch.payload import parse_date, parse_object, parse_retry_after
from enroll.facesearch.redaction import redact
from enroll.model import Answer, CallKind, Verdict
from enroll.visible import visible

RAW_LIMIT = 2000
"""Characters of a body that are kept of an answer that was not plainly a success."""
CODE_LIMIT = 200
"""Characters of a code or request id; the message keeps the service's words up to `RAW_LIMIT`."""

MOST_MILLISECONDS = 2**31
"""A `time_used` of so much, some three weeks, is none."""

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
        code, message = http_code(status), f"HTTP {status} without an error of the service's own"
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
    """What status and code prove; APPLIED still hangs on the fields of the body."""
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
    """Verdict, code and message of a 200 whose body came whole and carries no error code."""
    if payload is None:
        return Verdict.UNKNOWN, OwnCode.NOT_JSON, "HTTP 200, but the body is not a JSON object"
    if payload.get("error"):
        return Verdict.UNKNOWN, http_code(200), "HTTP 200 with an error that is no text"
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
