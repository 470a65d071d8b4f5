"""The adapter under the requests Session: one deadline per call, and what was sent of it.

requests cannot limit the time of a whole call, and does not distinguish "never connected" from
"lost on the way". This adapter does both. It keeps one connection for each origin, and never sends
anything twice by itself. An answer of the usual form is read as a PlainHead, any other by
http.client.
"""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from enroll import clock
from enroll.facesearch.answers import OwnCode
from enroll.facesearch.endpoint import Origin, Route, find_route
from enroll.facesearch.wire import (
    DeadlinePassedError,
    LostError,
    TooMuchError,
    Wire,
    as_socket,
    not_sent,
    open_wire,
)

MAX_BODY = 1 << 20
"""Bytes of an answer's body that are read; a longer one is a broken answer."""
IDLE_SECONDS = 4.0
"""How long a connection may be idle and be used again, unless the server says: the shortest
keep-alive that is common among gateways is 5 seconds, and a server that closes while a call is sent
leaves that in doubt."""
MAX_IDLE_SECONDS = 60.0
"""The same, at most, where the server says more."""
IDLE_MARGIN = 1.0
"""Seconds subtracted from the server's own `Keep-Alive: timeout=`."""

_End = tuple[Origin, str]
"""An origin, and the certificates by which it was checked."""
_KEEP_ALIVE_TIMEOUT = re.compile(r"\btimeout\s*=\s*\"?(\d{1,6})", re.ASCII | re.IGNORECASE)


_STATUS_LINE = re.compile(r"HTTP/1\.1 ([2-5][0-9]{2})(?: ([\x20-\x7e]*))?", re.ASCII)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*?)[ \t]*", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,9}", re.ASCII)

_NO_BODY = (204, 304)
"""RFC 9110: these have none, whatever Content-Length says."""


@dataclass(frozen=True, slots=True)
class PlainHead:
    """The head of an answer in its usual, plain form, read at a fraction of http.client's cost.

    http.client gives every head to the parser of e-mails, which takes 0.07 ms of CPU: more than a
    tenth of what a row of 64 KB costs (`row-cost` in docs/performance.md). What is not plain (a
    chunked body, a folded line, a name twice, a 1xx, anything unusual) is left to http.client.

    `headers` have names in lower case; `length` is the body's, in bytes; `will_close` says that the
    server closes the connection after this answer.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    length: int
    will_close: bool


_AnyAnswer = PlainHead | http.client.HTTPResponse


class DeadlineAdapter(BaseAdapter):
    """Sends prepared requests of one thread; a Session of another thread has its own.

    Raises `NotSentError`, `LostError` and `DeadlinePassedError`, and nothing else for what
    the network or the server does. Redirects, cookies and compression are not its business.
    """

    def __init__(self) -> None:
        super().__init__()
        self._idle: dict[_End, tuple[Wire, float]] = {}
        self._routes: dict[tuple[object, ...], Route] = {}
        self._closed = False

    def send(  # type: ignore[override]  # narrower on purpose: what is not supported is refused
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | None = None,
        verify: bool | str = True,
        cert: None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """One exchange within `timeout` seconds in all; `verify` is True or a path.

        The body is bytes, a tuple of them, or None. The answer is read to its end, whatever
        `stream` says.
        """
        del stream
        if timeout is None or verify is False or cert is not None:
            raise ValueError("a call needs a timeout, checks certificates, and shows none")
        body: bytes | str | tuple[bytes, ...] = request.body or ()
        if isinstance(body, str):
            raise TypeError("a body is bytes")
        pieces = body if isinstance(body, tuple) else (body,)
        deadline = clock.monotonic() + timeout
        route = self._route(str(request.url), proxies)
        trusted = DEFAULT_CA_BUNDLE_PATH if verify is True else str(verify)
        end = route.origin, trusted
        wire = self._take(end, deadline)
        wire.begin(deadline)
        keep_until = 0.0
        try:
            answer = _exchange(wire, _head(request, route), pieces)
            response = _read_answer(wire, answer, request)
            if not answer.will_close and wire.end():
                keep_until = clock.monotonic() + _idle_limit(response.headers.get("Keep-Alive"))
        finally:
            self._put_back(end, wire, keep_until)
        return response

    def close(self) -> None:
        """Close idle connections; one in use is closed at the end of its call."""
        self._closed = True
        self.let_go()

    def let_go(self) -> None:
        """Close idle connections, so that others can be opened. Any thread may call this."""
        with suppress(KeyError):  # a call has just taken it
            while self._idle:
                self._idle.popitem()[1][0].close()

    def _route(self, url: str, proxies: Mapping[str, str] | None) -> Route:
        key = (url, *sorted((proxies or {}).items()))
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = find_route(url, proxies)
        return route

    def _take(self, end: _End, deadline: float) -> Wire:
        """A connection that is open as far as can be known, idle or new."""
        wire, keep_until = self._idle.pop(end, (None, 0.0))
        if wire is not None:
            if clock.monotonic() < keep_until and not wire.stale():
                return wire
            # Nothing was sent on it in this call, so a new one is no second attempt.
            wire.close()
        return open_wire(end[0], verify=end[1], deadline=deadline)

    def _put_back(self, end: _End, wire: Wire, keep_until: float) -> None:
        if keep_until and not self._closed:
            self._idle[end] = wire, keep_until
        else:
            wire.close()


def _head(request: requests.PreparedRequest, route: Route) -> bytes:
    lines = [f"{request.method} {route.target} HTTP/1.1", f"Host: {route.authority}"]
    lines += (f"{name}: {value}" for name, value in request.headers.items())
    proxy = route.origin.proxy
    if proxy is not None and proxy.authorization and not route.origin.tls:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1")


def _exchange(wire: Wire, head: bytes, body: Sequence[bytes]) -> _AnyAnswer:
    """Send the request and read the head of its answer."""
    try:
        wire.send(head, *body)
    except OSError as exc:
        # The kernel took nothing. Under TLS that cannot be seen.
        if not wire.sent and not wire.encrypted:
            message = f"nothing could be sent: {exc}"
            raise not_sent(OwnCode.CANNOT_CONNECT, message, exc) from exc
        return _early_answer(wire, exc)
    try:
        return read_plain_head(wire.reader) or _final_answer(wire)
    except (OSError, TooMuchError) as exc:
        _raise_lost(wire, exc)


def read_plain_head(reader: io.BufferedReader) -> PlainHead | None:
    """The head of the answer that `reader` has next; None leaves it unread.

    Raises what reading raises. Only a head that arrives whole with the first bytes is parsed; a
    server that sends it in pieces is left to http.client.
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


def _early_answer(wire: Wire, failure: OSError) -> http.client.HTTPResponse:
    """The answer of a server that closed before it had read everything, as at a 413."""
    try:
        answer = _final_answer(wire)
    except LostError:
        _raise_lost(wire, failure)
    answer.will_close = True
    return answer


def _final_answer(wire: Wire) -> http.client.HTTPResponse:
    """The head of the answer, any 1xx before it skipped."""
    while True:
        answer = http.client.HTTPResponse(as_socket(wire), method="POST")
        try:
            answer.begin()
        except (OSError, http.client.HTTPException, TooMuchError) as exc:
            answer.close()
            _raise_lost(wire, exc)
        # http.client skips 100 only; 101 ends HTTP on this connection, and nobody asked for it.
        if answer.status >= 200 or answer.status == http.client.SWITCHING_PROTOCOLS:
            return answer
        answer.close()


def _read_answer(
    wire: Wire, answer: _AnyAnswer, request: requests.PreparedRequest
) -> requests.Response:
    response = requests.Response()
    response.status_code = answer.status
    response.reason = answer.reason
    response.headers = CaseInsensitiveDict(answer.headers.items())
    response.url = str(request.url)
    try:
        body = _plain_body(wire, answer) if isinstance(answer, PlainHead) else _whole_body(answer)
    except (OSError, http.client.HTTPException, TooMuchError, ValueError) as exc:
        # ValueError: http.client takes the size of a chunk for granted, even a negative one.
        _raise_lost(wire, exc, response)
    finally:
        if not isinstance(answer, PlainHead):
            answer.close()
    response.raw = io.BytesIO(body)
    return response


def _plain_body(wire: Wire, head: PlainHead) -> bytes:
    if head.length > MAX_BODY:
        raise TooMuchError
    body = wire.reader.read(head.length)
    if len(body) < head.length:
        raise http.client.IncompleteRead(body, head.length - len(body))
    return body


def _whole_body(answer: http.client.HTTPResponse) -> bytes:
    body = answer.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise TooMuchError
    if answer.length:  # http.client is silent about an end before Content-Length
        raise http.client.IncompleteRead(body, answer.length)
    return body


def _raise_lost(wire: Wire, exc: Exception, response: requests.Response | None = None) -> NoReturn:
    """Map an exception from after the first byte; the only place that does."""
    if isinstance(exc, LostError):
        raise exc
    if isinstance(exc, TooMuchError):
        message = f"the answer is longer than {MAX_BODY} bytes"
        raise LostError(OwnCode.BODY_TOO_LARGE, message, response=response) from exc
    if isinstance(exc, OSError) and clock.monotonic() >= wire.deadline:
        message = "the time limit of the whole call was over before the answer was complete"
        raise DeadlinePassedError(OwnCode.TIMEOUT, message, response=response) from exc
    if response is not None:
        message = f"the answer was cut off: {_in_words(exc)}"
        raise LostError(OwnCode.BODY_CUT_OFF, message, response=response) from exc
    if isinstance(exc, OSError):  # http.client.RemoteDisconnected among them
        message = f"the connection was lost before an answer came: {_in_words(exc)}"
        raise LostError(OwnCode.CONNECTION_LOST, message) from exc
    raise LostError(OwnCode.NOT_HTTP, f"what came back is not HTTP: {_in_words(exc)}") from exc


def _in_words(exc: Exception) -> str:
    """The class alone, where the text would repeat what the server sent."""
    return str(exc) if isinstance(exc, OSError) else type(exc).__name__


def _idle_limit(keep_alive: str | None) -> float:
    """How long the connection may be idle, in seconds, by the answer's `Keep-Alive`."""
    told = _KEEP_ALIVE_TIMEOUT.search(keep_alive or "")
    if told is None:
        return IDLE_SECONDS
    return min(float(told[1]) - IDLE_MARGIN, MAX_IDLE_SECONDS)


class PlainSession(requests.Session):
    """A Session with this adapter alone, which reads no environment and follows no redirect."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.adapters.clear()
        self._adapter = DeadlineAdapter()
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)

    def let_go(self) -> None:
        """Close idle connections."""
        self._adapter.let_go()

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None, always: even an unfollowed redirect would be parsed, and a bad one raises."""
        del resp
        return None
