"""The head of an answer in its usual plain form, read at a fraction of http.client's cost.

http.client hands every head to the parser of e-mails, which takes more of the processor's time
than the exchange itself. What is not plain here (a chunked body, a folded line, a name twice, a
1xx, anything unusual) is left where it is, for http.client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([2-5][0-9]{2})(?: ([\x20-\x7e]*))?", re.ASCII)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*?)[ \t]*", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,9}", re.ASCII)

_NO_BODY = (204, 304)
"""RFC 9110: these have none, whatever Content-Length says."""


@dataclass(frozen=True, slots=True)
class PlainHead:
    """Status, headers (names in lower case) and the body's `length` in bytes.

    `will_close` says that the server ends the connection after this answer.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    length: int
    will_close: bool


def read_plain_head(reader: BufferedReader) -> PlainHead | None:
    """The head of the answer that `reader` has next, taken out of it; None leaves it untouched.

    Raises what reading raises. Only a head that comes in one piece with the first bytes is looked
    at: a server that drips one is left to http.client.
    """
    seen = reader.peek(1)
    end = seen.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = _parsed(seen[:end])
    if head is not None:
        reader.read(end + 4)
    return head


def _parsed(head: bytes) -> PlainHead | None:
    try:
        first, *lines = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        return None
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        return None
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None or header[1].lower() in headers:
            return None
        headers[header[1].lower()] = header[2]
    status = int(status_line[1])
    length = _LENGTH.fullmatch(headers.get("content-length", ""))
    if length is None or "transfer-encoding" in headers or status in _NO_BODY:
        return None
    connection = headers.get("connection", "keep-alive").lower()
    return PlainHead(
        status=status,
        reason=status_line[2] or "",
        headers=headers,
        length=int(length[0]),
        will_close=connection != "keep-alive",
    )
