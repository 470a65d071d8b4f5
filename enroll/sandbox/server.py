"""HTTP/1.1 with keep-alive over werkzeug's threaded server, and every kind of improper answer."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import sys
import time
from email.utils import formatdate
from http import HTTPStatus
from selectors import EVENT_READ, DefaultSelector
from threading import Event, Lock, Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from .messages import Clock, FormRequest, Reply, too_large
from .profile import Profile

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .service import Service

DRIP_SECONDS = 0.2
# Even the stand-in gives up a call that is never answered after this long.
HOLD_SECONDS = 120.0
_CHUNK = b"x" * 65536
_BACKLOG = 1024
# How often the accepting thread looks whether it should stop; a stop waits that long at most.
_POLL_SECONDS = 0.02
_LINGER_SECONDS = 5.0
_JOIN_SECONDS = 5.0


class Responder:
    """Answers on one connection, properly or not; no method raises `OSError`.

    `stopping` is set when the stand-in stops: every wait ends at once.
    `closed` says that the connection takes no further request. Without a clock, answers have no
    date.
    """

    def __init__(self, connection: socket.socket, *, clock: Clock | None, stopping: Event) -> None:
        self._socket = connection
        self._clock = clock
        self._stopping = stopping
        self.closed = False

    def send(self, reply: Reply) -> None:
        """The whole answer, in one write so that no part waits for an acknowledgement."""
        self._write(self._head(reply, len(reply.body)) + reply.body)
        self.closed |= reply.close

    def send_then_close(self, reply: Reply) -> None:
        """The whole answer, and the end of a connection that was announced as kept alive."""
        self.send(reply)
        self.closed = True

    def end(self) -> None:
        """Nothing more; the connection is closed without an answer."""
        self.closed = True

    def cut(self, reply: Reply) -> None:
        """Half of the body that was announced."""
        self._write(self._head(reply, len(reply.body)) + reply.body[: len(reply.body) // 2])
        self.closed = True

    def reset(self) -> None:
        """RST instead of an answer."""
        # Lingering for 0 seconds makes close() drop the connection instead of ending it.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Closed here, before the server shuts it down properly, which would send FIN.
        self._socket.close()
        self.closed = True

    def hold(self, seconds: float = HOLD_SECONDS) -> None:
        """Send nothing and drop what arrives until the client goes away, at most `seconds`."""
        self.closed = True
        self._client_left(within=seconds)

    def drip(self) -> None:
        """A status line, then header bytes for ever."""
        self._drip(b"HTTP/1.1 200 OK\r\nX-Padding: ")

    def drip_body(self, reply: Reply) -> None:
        """A proper header, then body bytes for ever."""
        self._drip(self._head(reply, 1_000_000) + b" ")

    def endless(self, reply: Reply) -> None:
        """A body without an end, as fast as the client takes it."""
        self.closed = True
        head = self._head(reply, None) + b'{"padding": "'
        deadline = time.monotonic() + HOLD_SECONDS
        alive = self._write(head)
        while alive and time.monotonic() < deadline and not self._stopping.is_set():
            alive = self._write(_CHUNK)

    def _drip(self, start: bytes) -> None:
        self.closed = True
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
            *([f"Date: {formatdate(self._clock.now(), usegmt=True)}"] if self._clock else ()),
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
            self.closed = True
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


class Handler(WSGIRequestHandler):
    """Reads a request and hands it to the service.

    werkzeug's own handler closes every connection after one answer. The service keeps them
    alive, and a client's handling of kept connections is among the things to be tested, so
    `run_wsgi` is replaced; parsing the request is still werkzeug's.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def run_wsgi(self) -> None:
        """Handle one request, without WSGI: the service writes to the socket itself."""
        if self.server.stopping.is_set():
            self.close_connection = True
            return
        environ = self.make_environ()
        responder = Responder(
            environ["werkzeug.socket"], clock=self.server.clock, stopping=self.server.stopping
        )
        body = self._read_body(environ, responder)
        if body is not None:
            environ["wsgi.input"] = io.BytesIO(body)
            environ["wsgi.input_terminated"] = True
            self.server.service.answer(FormRequest(environ), responder)
        self.close_connection = self.close_connection or body is None or responder.closed

    def _read_body(self, environ: WSGIEnvironment, responder: Responder) -> bytes | None:
        """The whole body; None when the request cannot be answered, or has been."""
        limit = self.server.max_request_bytes
        try:
            announced = int(environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            announced = -1
        if announced < 0:
            responder.send(
                Reply(status=400, body=b"Bad Request", content_type="text/plain", close=True)
            )
            return None
        chunked = environ.get("wsgi.input_terminated", False)
        body = b""
        if announced <= limit:
            source = io.BufferedReader(environ["wsgi.input"]) if chunked else self.rfile
            body = source.read(limit + 1 if chunked else announced)
        if announced > limit or len(body) > limit:
            responder.send(self.server.too_large)
            responder.hold(
                _LINGER_SECONDS
            )  # reads the rest, so that the client can read the answer
            return None
        # A body that ends early means that the client died: nobody waits for an answer.
        return body if chunked or len(body) == announced else None

    def handle(self) -> None:
        """All requests of one connection."""
        self.server.connected(self.connection)
        try:
            # What arrives after the stop is not looked at: the account may be closed by then.
            if not self.server.stopping.is_set():
                super().handle()
        finally:
            self.server.disconnected(self.connection)

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's name
        """Print nothing: the call log keeps every call."""


class Server(ThreadedWSGIServer):
    """The listening socket, one thread per connection, and a stop that leaves no thread behind.

    `bugs` are the exceptions that escaped from the service.
    """

    daemon_threads = True

    def __init__(
        self,
        host: str,
        port: int,
        *,
        service: Service,
        clock: Clock | None,
        stopping: Event,
        profile: Profile,
    ) -> None:
        self.service = service
        self.clock = clock
        self.too_large = too_large(profile)
        self.stopping = stopping
        self.max_request_bytes = profile.max_request_bytes
        self.bugs: list[BaseException] = []
        self._lock = Lock()
        self._connections: dict[socket.socket, Thread] = {}
        # werkzeug prints and exits when it cannot bind, so it gets a socket that is bound.
        with _listen(host, port) as listening:
            super().__init__(host, port, _no_app, Handler, fd=listening.fileno())
        self._acceptor = Thread(
            target=self.serve_forever, args=(_POLL_SECONDS,), name="sandbox", daemon=True
        )

    def start(self) -> None:
        """Accept connections in a thread of its own."""
        self._acceptor.start()

    def stop(self) -> None:
        """End every connection and wait for its thread."""
        self.stopping.set()
        if self._acceptor.ident is None:  # never started; shutdown() would wait for ever
            self.server_close()
            return
        self.shutdown()
        self._acceptor.join()
        with self._lock:
            open_now = list(self._connections.items())
        for connection, _ in open_now:
            _shut(connection)
        for _, thread in open_now:
            if thread not in (current_thread(), main_thread()):
                thread.join(_JOIN_SECONDS)

    def get_request(self) -> tuple[Any, Any]:
        """The next connection. Where no file is left for it, it waits a moment in the queue."""
        try:
            return super().get_request()
        except OSError:
            self.stopping.wait(_POLL_SECONDS)
            raise

    def connected(self, connection: socket.socket) -> None:
        """A handler's thread starts; it must end with the server."""
        with self._lock:
            self._connections[connection] = current_thread()

    def disconnected(self, connection: socket.socket) -> None:
        """The handler's thread is about to end."""
        with self._lock:
            self._connections.pop(connection, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep the exception, which is raised when the sandbox stops, and print it as usual."""
        error = sys.exception()
        if error is not None:
            self.bugs.append(error)
        super().handle_error(request, client_address)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may have ended by itself
        connection.shutdown(socket.SHUT_RDWR)


def _no_app(_environ: WSGIEnvironment, _start_response: object) -> list[bytes]:
    raise AssertionError("requests go to the service, not to a WSGI application")
