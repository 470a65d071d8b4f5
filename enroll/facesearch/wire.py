"""A connection whose every read and write ends at one deadline, and how one is opened.

The deadline is the whole call's: before each operation on the socket its timeout is set to the
time that is left, so a server that sends single bytes slowly does not get more of it. Only a name
lookup cannot be interrupted; the resolver's own limits bound it (resolv.conf, by default 10 to 30
seconds), and a call whose time it used up ends right after it.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import requests
from urllib3.util import wait_for_read

from enroll import clock
from enroll.facesearch.answers import OwnCode
from enroll.facesearch.endpoint import Origin, Proxy, host_and_port, tls_context
from enroll.resources import hidden_shortage, shortage_in

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class NotSentError(requests.exceptions.ConnectionError):
    """No byte of the request can have reached the service, so it is safe to send it again."""

    def __init__(self, code: OwnCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class BlockedError(NotSentError):
    """This machine allows no further file or connection, which says nothing about the service."""

    def __init__(self, message: str) -> None:
        super().__init__(OwnCode.OUT_OF_RESOURCES, message)


class LostError(requests.exceptions.ConnectionError):
    """Some of the request was sent, and no whole answer came back.

    `response` holds status and headers, and an empty body, if these had arrived.
    """

    def __init__(
        self, code: OwnCode, message: str, *, response: requests.Response | None = None
    ) -> None:
        super().__init__(message, response=response)
        self.code = code


class DeadlinePassedError(LostError, requests.exceptions.Timeout):
    """The time for the whole call was over before the whole answer arrived."""


OPENING_SECONDS = 10.0
"""At most this much of a call's time goes into connecting: giving up early proves "not sent"."""
MAX_RECEIVED = 2 << 20
"""Bytes of one answer with its head and framing; a head that never ends stops here."""


JOINED = 256 * 1024
"""A request of up to this many bytes is joined before it is encrypted, as each piece would be a
record and a system call of its own."""

_TIME_IS_OVER = "the time limit of the whole call is over"


class TooMuchError(Exception):
    """The answer went past `MAX_RECEIVED` bytes."""


class Wire(io.RawIOBase):
    """A connected socket under a deadline, readable through the one buffer in `reader`.

    `deadline` is on the monotonic clock. `sent` counts the bytes of this call that the kernel
    took. Between calls the wire is idle and reads nothing.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._socket = sock
        self._received = 0
        self._idle = False
        self.encrypted = False
        """Whether the connection uses TLS."""
        self.deadline = deadline
        self.sent = 0
        self.reader = _LastingReader(self)

    def begin(self, deadline: float) -> None:
        """Start a call that has to end at `deadline`."""
        self.deadline = deadline
        self.sent = self._received = 0
        self._idle = False

    def end(self) -> bool:
        """End a call; whether everything that the server sent has been read."""
        self._idle = True
        return not self.reader.peek(1)

    def stale(self) -> bool:
        """Whether an idle connection was closed, or sent something unasked for.

        In both cases nothing may be sent on it any more.
        """
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return wait_for_read(self._socket, timeout=0.0)

    def send(self, *pieces: bytes) -> None:
        """Hand all of it to the kernel; OSError, with TimeoutError after the deadline."""
        count = 0
        if not self.encrypted:
            # One system call for what is usual.
            count = self._in_time(self._socket.sendmsg, pieces)
            self.sent += count
        elif sum(map(len, pieces)) <= JOINED:
            pieces = (b"".join(pieces),)
        for piece in pieces:
            view = memoryview(piece)[count:]
            count = max(count - len(piece), 0)
            while view:
                sent = self._in_time(self._socket.send, view)
                self.sent += sent
                view = view[sent:]

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """Read what has arrived, waiting until the deadline at most; None while idle."""
        if self._idle:
            return None
        if self._received > MAX_RECEIVED:
            raise TooMuchError
        count = self._in_time(self._socket.recv_into, buffer)
        self._received += count
        return count

    def makefile(self, mode: str) -> _LastingReader:
        """The reader, for http.client, which uses the wire as a socket."""
        del mode
        return self.reader

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Shake hands as a client of `host`; OSError (ssl.SSLError) when it fails."""
        # wrap_socket takes a socket that is no longer connected without a handshake, or loses it.
        self._socket.getpeername()
        wrapped = context.wrap_socket(
            self._socket, server_hostname=host, do_handshake_on_connect=False
        )
        wrapped.settimeout(self._time_left())
        self._socket, self.encrypted = wrapped, True
        wrapped.do_handshake()

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        self._socket.close()
        super().close()

    def _in_time(self, operation: Callable[..., int], given: Any) -> int:
        """Do an operation of the socket's before the deadline, or raise TimeoutError."""
        self._socket.settimeout(self._time_left())
        return operation(given)

    def _time_left(self) -> float:
        left = self.deadline - clock.monotonic()
        if left <= 0:
            raise TimeoutError(_TIME_IS_OVER)
        return left


class _LastingReader(io.BufferedReader):
    """A buffer that stays open like its wire; http.client closes its file after each answer."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)

    def close(self) -> None:
        """Do nothing: the wire is closed by its owner."""


def open_wire(origin: Origin, *, verify: str, deadline: float) -> Wire:
    """Connect to `origin`, through its proxy if it has one, and shake hands.

    `verify` is a file or folder of trusted certificates. Raises `NotSentError` only: this is
    where foreign exceptions from before the first byte are mapped.
    """
    deadline = min(deadline, clock.monotonic() + OPENING_SECONDS)
    ends_at = origin.proxy or origin
    wire = Wire(_connect(ends_at.host, ends_at.port, deadline), deadline)
    try:
        if origin.proxy is not None and origin.tls:
            _open_tunnel(wire, origin, origin.proxy)
        if origin.tls:
            _start_tls(wire, origin.host, verify)
    except NotSentError:
        wire.close()
        raise
    return wire


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of `host` that answers, each within its share of the time."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        message = f"the name {host} could not be looked up: {exc}"
        raise not_sent(OwnCode.NAME_LOOKUP_FAILED, message, exc) from exc
    failure: OSError = TimeoutError(_TIME_IS_OVER)
    for count, (family, kind, protocol, _, address) in enumerate(addresses):
        left = deadline - clock.monotonic()
        if left <= 0:
            break
        try:
            return _connected(family, kind, protocol, address, left / (len(addresses) - count))
        except OSError as exc:
            failure = exc
            if shortage_in(exc) is not None:
                break
    message = f"no connection to {host_and_port(host, port)}: {failure}"
    raise not_sent(OwnCode.CANNOT_CONNECT, message, failure) from failure


def not_sent(code: OwnCode, message: str, exc: Exception) -> NotSentError:
    """What to raise for an exception from before the first byte: a BlockedError where the reason is
    that this machine allows no further file. Lookup and TLS open files, too, and do not say so."""
    short = hidden_shortage(exc) if code is not OwnCode.CANNOT_CONNECT else shortage_in(exc)
    return NotSentError(code, message) if short is None else BlockedError(str(short))


def _connected(
    family: int, kind: int, protocol: int, address: Any, timeout: float
) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout)
        # A call may leave in several writes; Nagle would hold the later ones back.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _open_tunnel(wire: Wire, origin: Origin, proxy: Proxy) -> None:
    target = host_and_port(origin.host, origin.port)
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.authorization:
        head += f"Proxy-Authorization: {proxy.authorization}\r\n"
    try:
        wire.send(f"{head}\r\n".encode("ascii"))
        with closing(http.client.HTTPResponse(as_socket(wire), method="CONNECT")) as answer:
            answer.begin()
    except (OSError, http.client.HTTPException, TooMuchError) as exc:
        message = f"the proxy {host_and_port(proxy.host, proxy.port)} opened no tunnel: {exc}"
        raise NotSentError(OwnCode.PROXY_REFUSED, message) from exc
    if answer.status != http.client.OK:
        message = (
            f"the proxy {host_and_port(proxy.host, proxy.port)} opened no tunnel: "
            f"it answered {answer.status}"
        )
        raise NotSentError(OwnCode.PROXY_REFUSED, message)


def _start_tls(wire: Wire, host: str, verify: str) -> None:
    try:
        wire.start_tls(tls_context(verify), host)
    except OSError as exc:
        raise not_sent(OwnCode.TLS_FAILED, f"no TLS with {host}: {exc}", exc) from exc


def as_socket(wire: Wire) -> socket.socket:
    """The wire for http.client, which only ever calls `makefile` on its socket."""
    return cast(socket.socket, wire)
