"""A connection whose every read and write ends at one deadline, and how one is opened.

The deadline is the whole call's: before each operation on the socket its timeout is set to the
time that is left, so that a server that drips single bytes gains nothing by it. Only the lookup
of a name cannot be interrupted; the resolver's own limits bound it (resolv.conf, by default
some 10 to 30 seconds), and a call whose time it used up ends right after it.
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import requests
from urllib3.util import wait_for_read

from enroll import clock
from enroll.facesearch.answers import OwnCode
from enroll.facesearch.route import Origin, Proxy, host_and_port
from enroll.resources import shortage_behind, shortage_in

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class NotSentError(requests.exceptions.ConnectionError):
    """No byte of the request can have reached the service, so that it is safe to send again."""

    def __init__(self, code: OwnCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class BlockedError(NotSentError):
    """This machine let us open no file or connection; that tells nothing of the service."""

    def __init__(self, message: str) -> None:
        super().__init__(OwnCode.OUT_OF_RESOURCES, message)


class LostError(requests.exceptions.ConnectionError):
    """The request had begun to leave, and no whole answer came back.

    `response` holds status and headers, and an empty body, where these had arrived.
    """

    def __init__(
        self, code: OwnCode, message: str, *, response: requests.Response | None = None
    ) -> None:
        super().__init__(message, response=response)
        self.code = code


class DeadlinePassedError(LostError, requests.exceptions.Timeout):
    """The time for the whole call was over before the whole answer was there."""


OPENING_SECONDS = 10.0
"""At most this much of a call's time goes into connecting: giving up early proves "not sent"."""
MAX_RECEIVED = 2 << 20
"""Bytes of one answer with its head and framing; a head that never ends stops here."""


SLICE_SECONDS = 1.0
"""For so long at most the kernel waits by itself: whatever interrupts it, such as a terminal's
Ctrl-Z and fg, has it begin anew."""

JOINED = 256 * 1024
"""Bytes up to which a request is put together before it is encrypted: each piece would be a record,
and a system call, of its own."""

_TIMEVAL = struct.Struct("@ll")
"""Seconds and microseconds, as setsockopt(2) takes SO_RCVTIMEO."""


_TIME_IS_OVER = "the time for the whole call is over"


class TooMuchError(Exception):
    """The answer went past `MAX_RECEIVED` bytes."""


class Wire(io.RawIOBase):
    """A connected socket under a deadline, readable through the one buffer in `reader`.

    `deadline` is on the monotonic clock. `sent` counts the bytes of this call that the kernel
    took. Between calls the wire is at rest and reads nothing.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._socket = sock
        self._received = 0
        self._resting = False
        self.encrypted = False
        """Whether TLS lies between us and the other end."""
        self.deadline = deadline
        self.sent = 0
        self.reader = _LastingReader(self)
        self._timeouts: dict[int, int] = {}
        self._kernel_keeps_time = self._let_the_kernel_keep_time()

    def begin(self, deadline: float) -> None:
        """Start a call that has to end at `deadline`."""
        self.deadline = deadline
        self.sent = self._received = 0
        self._resting = False

    def rest(self) -> bool:
        """End a call; whether nothing is left over of what the server sent."""
        self._resting = True
        return not self.reader.peek(1)

    def stale(self) -> bool:
        """Whether a resting connection has something to say: its end, or what nobody asked for.

        In both cases nothing may be sent on it any more.
        """
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return wait_for_read(self._socket, timeout=0.0)

    def send(self, *pieces: bytes) -> None:
        """Hand all of it to the kernel; OSError, with TimeoutError after the deadline."""
        self._send(pieces)

    def _send(self, pieces: Sequence[bytes]) -> None:
        count = 0
        if not self.encrypted:
            # One system call for what is usual.
            count = self._in_time(socket.SO_SNDTIMEO, self._socket.sendmsg, pieces)
            self.sent += count
        elif sum(map(len, pieces)) <= JOINED:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            view = memoryview(piece)[count:]
            count = max(count - len(piece), 0)
            while view:
                sent = self._in_time(socket.SO_SNDTIMEO, self._socket.send, view)
                self.sent += sent
                view = view[sent:]

    def readable(self) -> bool:
        """Always: a wire is there to be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """Read what has come, at most to the deadline; None at rest."""
        if self._resting:
            return None
        if self._received > MAX_RECEIVED:
            raise TooMuchError
        count = self._in_time(socket.SO_RCVTIMEO, self._socket.recv_into, buffer)
        self._received += count
        return count

    def makefile(self, mode: str) -> _LastingReader:
        """The reader, for http.client, which takes us for a socket."""
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
        self._socket, self.encrypted, self._kernel_keeps_time = wrapped, True, False
        wrapped.do_handshake()

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        self._socket.close()
        super().close()

    def _in_time(self, option: int, operation: Callable[..., int], given: Any) -> int:
        """Do an operation of the socket's before the deadline, or raise TimeoutError; `option` is
        the kernel's name for its timeout."""
        while True:
            left = self._time_left()
            if not self._kernel_keeps_time:
                self._socket.settimeout(left)
                return operation(given)
            micros = math.ceil(min(left, SLICE_SECONDS) * 1_000_000)  # none at all is for ever
            if self._timeouts.get(option) != micros:
                timeval = _TIMEVAL.pack(*divmod(micros, 1_000_000))
                self._socket.setsockopt(socket.SOL_SOCKET, option, timeval)
                self._timeouts[option] = micros
            try:
                return operation(given)
            except BlockingIOError:
                continue  # the slice is over

    def _time_left(self) -> float:
        left = self.deadline - clock.monotonic()
        if left <= 0:
            raise TimeoutError(_TIME_IS_OVER)
        return left

    def _let_the_kernel_keep_time(self) -> bool:
        """Whether it does: Python would ask it whether the socket is ready before each operation,
        one more call in which this thread gives the interpreter away.

        Not in the main thread, where signals are handled: each begins the kernel's time anew.
        """
        if threading.current_thread() is threading.main_thread():
            return False
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(1, 0))
        except OSError:  # another form of the time than ours
            return False
        self._socket.settimeout(None)
        return True


class _LastingReader(io.BufferedReader):
    """A buffer that lasts as long as its wire: http.client closes its file after each answer."""

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
    that this machine has no file left for us. Lookup and TLS open files, too, and do not say so."""
    short = shortage_behind(exc) if code is not OwnCode.CANNOT_CONNECT else shortage_in(exc)
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


@lru_cache(maxsize=8)
def tls_context(verify: str) -> ssl.SSLContext:
    """The context that trusts `verify`, a file or folder; OSError when it cannot be read.

    One for the process, because reading the certificates takes as long as many calls.
    """
    folder = Path(verify).is_dir()
    return ssl.create_default_context(
        cafile=None if folder else verify, capath=verify if folder else None
    )


def as_socket(wire: Wire) -> socket.socket:
    """The wire for http.client, which only ever calls `makefile` on its socket."""
    return cast(socket.socket, wire)
