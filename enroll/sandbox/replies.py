"""What the stand-in answers: replies in the documented shapes, and the refusals behind them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

JSON_TYPE = "application/json"
HTML_TYPE = "text/html; charset=utf-8"

# Codes whose answers may lack `request_id` and `time_used`; the harder case is rehearsed.
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
    """

    def __init__(self, code: str, detail: str = "", *, status: int = 400) -> None:
        super().__init__(code, detail, status)
        self.code = code
        self.detail = detail
        self.status = status


def success(payload: dict[str, Any], *, request_id: str, seconds: float) -> Reply:
    """Status 200 with `payload`, `request_id` and `time_used` in whole milliseconds."""
    content = {**payload, "request_id": request_id, "time_used": round(seconds * 1000)}
    return Reply(status=200, body=_encode(content))


def failure(refusal: RefusalError, *, request_id: str, seconds: float) -> Reply:
    """The documented shape of an error; 404 and `AUTHORIZATION_ERROR` come without the rest."""
    error = f"{refusal.code}: {refusal.detail}" if refusal.detail else refusal.code
    content: dict[str, Any] = {"error": error}
    if refusal.code not in _BARE_CODES:
        content |= {"request_id": request_id, "time_used": round(seconds * 1000)}
    return Reply(status=refusal.status, body=_encode(content), code=refusal.code)


def too_large() -> Reply:
    """The gateway's answer to a request over the limit: plain text, connection closed."""
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
