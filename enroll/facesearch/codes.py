"""Every code that an answer can carry: the service's with their verdicts, and our own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from enroll.model import TIMEOUT, Verdict

CONCURRENCY_LIMIT = "CONCURRENCY_LIMIT_EXCEEDED"

SERVICE_CODES: Mapping[str, Verdict] = {
    # The photo or the row will never do.
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
"""Codes after which the credentials are read once more, as they may have been exchanged."""

LIBRARY_CODES = frozenset({"INVALID_OUTER_ID", "INVALID_GROUP_ID"})
"""Codes that say that there is no such library (any more)."""


class OwnCode(StrEnum):
    """The codes that we give where the service gave none; `HTTP_<status>` are the others."""

    NAME_LOOKUP_FAILED = "NAME_LOOKUP_FAILED"
    """Not sent: the host's name has no address, or the resolver did not answer."""
    CANNOT_CONNECT = "CANNOT_CONNECT"
    """Not sent: refused, unreachable, or no connection within the time."""
    CLOCKS_APART = "CLOCKS_APART"
    """Not sent: the service's clock and ours are so far apart that nothing can be signed."""
    PROXY_REFUSED = "PROXY_REFUSED"
    """Not sent: the proxy would not open a tunnel, or did not speak HTTP."""
    TLS_FAILED = "TLS_FAILED"
    """Not sent: no TLS, or a certificate that we do not trust."""
    OUT_OF_RESOURCES = "OUT_OF_RESOURCES"
    """Not sent: this machine had no file or thread left for the call."""
    TIMEOUT = TIMEOUT
    """Unknown: the deadline passed after a part of the request had left."""
    CONNECTION_LOST = "CONNECTION_LOST"
    """Unknown: the connection ended after a part of the request had left."""
    NOT_HTTP = "NOT_HTTP"
    """Unknown: what came back is no HTTP answer."""
    BODY_CUT_OFF = "BODY_CUT_OFF"
    """Unknown: the answer ended before its announced end."""
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    """Unknown: the answer did not end within the size that we read."""
    NOT_JSON = "NOT_JSON"
    """Unknown: 200, but the body is not one JSON object."""
    NO_FACE_TOKEN = "NO_FACE_TOKEN"  # noqa: S105  # a code, no password
    """Unknown: `add` answered 200 without a token of 32 hexadecimal digits."""
    FIELD_MISSING = "FIELD_MISSING"
    """Unknown: another call answered 200 without the field that it is about."""


def http_code(status: int) -> str:
    """Our code for an answer that has a status and no code of the service's."""
    return f"HTTP_{status}"


def why_fixed(code: str) -> str:
    """A sentence: why `--on-code` has no say about this code; empty where it has."""
    verdict = SERVICE_CODES.get(code, Verdict.FAILED)
    status = int(code[5:]) if re.fullmatch(r"HTTP_\d{3}", code) else 0
    if status:
        fatal = Verdict.FATAL if 300 <= status < 400 else Verdict.UNKNOWN
        verdict = STATUS_VERDICTS.get(status, Verdict.FAILED if 400 <= status < 500 else fatal)
    if verdict is Verdict.FATAL:
        return _fixed(code, "it always stops the run, as every other call would meet the same")
    if verdict is Verdict.REFUSED:
        return _fixed(code, "the service had no place for the call, which is made again")
    if verdict is Verdict.UNKNOWN or code in list(OwnCode):
        return _fixed(code, "it does not say that the service refused the face")
    return ""


def _fixed(code: str, why: str) -> str:
    return f"{code} cannot be overruled: {why}. Take it out."
