"""The socket of one connection: proper answers, and every kind of improper one."""

from __future__ import annotations

import socket
import struct
import time
from email.utils import formatdate
from http import HTTPStatus
from selectors import EVENT_READ, DefaultSelector
from threading import Event

from .clock import Clock
from .replies import Reply

DRIP_SECONDS = 0.2
# A call that is never answered is given up after this long even by the stand-in.
HOLD_SECONDS = 120.0
_CHUNK = b"x" * 65536


class Wire:
    """One connection. Methods return when there is nothing more to say; none raises `OSError`.

    `stopping` is set when the stand-in stops: everything that waits ends at once.
    `ended` tells that the connection is of no more use.
    """

    def __init__(self, connection: socket.socket, *, clock: Clock, stopping: Event) -> None:
        self._socket = connection
        self._clock = clock
        self._stopping = stopping
        self.ended = False

    def send(self, reply: Reply) -> None:
        """The whole answer, in one write so that no part waits for an acknowledgement."""
        self._write(self._head(reply, len(reply.body)) + reply.body)
        self.ended |= reply.close

    def send_then_close(self, reply: Reply) -> None:
        """The whole answer, and the end of a connection that was announced as kept alive."""
        self.send(reply)
        self.ended = True

    def end(self) -> None:
        """Nothing more; the connection is closed without an answer."""
        self.ended = True

    def cut(self, reply: Reply) -> None:
        """Half of the body that was announced."""
        self._write(self._head(reply, len(reply.body)) + reply.body[: len(reply.body) // 2])
        self.ended = True

    def reset(self) -> None:
        """RST instead of an answer."""
        # Lingering for 0 seconds makes close() drop the connection instead of ending it.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Closed here, before the server shuts it down properly, which would send FIN.
        self._socket.close()
        self.ended = True

    def hold(self, seconds: float = HOLD_SECONDS) -> None:
        """Say nothing until the client goes away, at most `seconds`."""
        self.ended = True
        self._client_left(within=seconds)

    def drip(self) -> None:
        """A status line, then header bytes for ever."""
        self._drip(b"HTTP/1.1 200 OK\r\nX-Padding: ")

    def drip_body(self, reply: Reply) -> None:
        """A proper header, then body bytes for ever."""
        self._drip(self._head(reply, 1_000_000) + b" ")

    def endless(self, reply: Reply) -> None:
        """A body without an end, as fast as the client takes it."""
        self.ended = True
        head = self._head(reply, None) + b'{"padding": "'
        deadline = time.monotonic() + HOLD_SECONDS
        alive = self._write(head)
        while alive and time.monotonic() < deadline and not self._stopping.is_set():
            alive = self._write(_CHUNK)

    def discard(self, seconds: float) -> None:
        """Read and drop what the client still sends, so that it gets to read our answer."""
        self.hold(seconds)

    def _drip(self, start: bytes) -> None:
        self.ended = True
        deadline = time.monotonic() + HOLD_SECONDS
        alive = self._write(start)
        while alive and time.monotonic() < deadline:
            if self._client_left(within=DRIP_SECONDS):
                return
            alive = self._write(b"x")

    def _head(self, reply: Reply, length: int | None) -> bytes:
        """The header; without a `length` the end of the connection ends the body."""
        lines = [
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
            f"Date: {formatdate(self._clock.now(), usegmt=True)}",
            "Server: facesearch-sandbox",
            f"Content-Type: {reply.content_type}",
            *(f"{name}: {value}" for name, value in reply.headers),
        ]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        if length is None or reply.close:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _write(self, data: bytes) -> bool:
        """False when the client has gone away."""
        try:
            self._socket.sendall(data)
        except OSError:
            self.ended = True
            return False
        return True

    def _client_left(self, *, within: float) -> bool:
        """Wait until the client closes its side or the stand-in stops; False after `within`."""
        deadline = time.monotonic() + within
        with DefaultSelector() as selector:
            selector.register(self._socket, EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                # Stopping shuts the socket down, which makes it readable; so one long wait will do.
                if self._stopping.is_set() or (selector.select(left) and not self._receive()):
                    return True
        return False

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""
