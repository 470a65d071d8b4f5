"""Small servers on loopback for the tests of the client: each says exactly what a test wants."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trustme

TOKEN = "0123456789abcdef0123456789abcdef"
ADDED = b'{"request_id":"r1","time_used":3,"group_id":"g","face_token":"' + TOKEN.encode() + b'"}'

AUTHORITY = trustme.CA()
LOCALHOST_CERTIFICATE = AUTHORITY.cert_pem.bytes().decode()
"""What a client has to trust to trust our servers: an authority made for this process."""


@dataclass
class Seen:
    """What a server met: connections, and each request as bytes."""

    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def heads(self) -> list[bytes]:
        """The requests without their bodies."""
        return [request.partition(b"\r\n\r\n")[0] for request in self.requests]


class Server:
    """Accepts connections on loopback and hands each to `behave`, in a thread of its own.

    `behave` gets the `Peer`; when it returns, the connection is closed. Trouble that a client
    causes (OSError) is expected; anything else fails the test at the end.
    """

    def __init__(self, behave: Callable[[Peer], None], *, tls: bool = False) -> None:
        self.seen = Seen()
        self.stopping = threading.Event()
        self._behave = behave
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._failure: Exception | None = None

    def __enter__(self) -> Server:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()
        if self._failure is not None:
            raise self._failure

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.seen.connections += 1
                self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(20)
            # Else Nagle holds an answer back, and closing with unread data throws it away.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = server_context().wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.append(connection)
            self._behave(Peer(self, connection))
        except OSError:
            pass
        except Exception as exc:  # noqa: BLE001  # it is raised again when the test ends
            self._failure = exc
        finally:
            with self._lock:
                self._open = [each for each in self._open if each is not connection]
                connection.close()


class Peer:
    """One connection as its server sees it."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self.server = server
        self.socket = connection
        self._buffer = b""

    def read_head(self) -> bytes:
        """Read to the empty line; ConnectionError when the client is gone."""
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def read_request(self) -> bytes:
        """Read one request with its body, and note it in `server.seen`."""
        request = self.read_head()
        length = int(header(request, "content-length") or 0)
        while len(self._buffer) < length:
            self._receive()
        request, self._buffer = request + self._buffer[:length], self._buffer[length:]
        self.server.seen.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, body: bytes = ADDED, *, status: str = "200 OK", headers: str = "") -> None:
        """A proper HTTP/1.1 answer with a Content-Length."""
        self.send(answer(body, status=status, headers=headers))

    def drip(self, data: bytes) -> None:
        """Send `data` over and over, a byte at a time, until the client or the test ends."""
        while True:
            for byte in data:
                if self.server.stopping.wait(0.02):
                    return
                self.send(bytes([byte]))

    def hold(self) -> None:
        """Say nothing until the client closes or the test ends."""
        while not self.server.stopping.is_set():
            if select.select([self.socket], [], [], 0.05)[0] and not self.socket.recv(65536):
                return

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the client is gone")
        self._buffer += data


def answer(body: bytes = ADDED, *, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def answering(*answers: bytes) -> Callable[[Peer], None]:
    """Answers the requests of each connection with these bytes, in turn and then the last."""

    def behave(peer: Peer) -> None:
        for reply in _lasting(answers):
            peer.read_request()
            peer.send(reply)

    return behave


def header(request: bytes, name: str) -> str | None:
    """A header of a raw request."""
    for line in request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    return None


def form_fields(request: bytes) -> dict[str, bytes]:
    """The parts of a multipart request by name."""
    head, _, body = request.partition(b"\r\n\r\n")
    boundary = (header(head + b"\r\n\r\n", "content-type") or "").partition("boundary=")[2].encode()
    parts = body.split(b"--" + boundary)
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    fields = {}
    for part in parts[1:-1]:
        part_head, _, value = part.partition(b"\r\n\r\n")
        name = part_head.partition(b'name="')[2].partition(b'"')[0].decode()
        fields[name] = value.removesuffix(b"\r\n")
    return fields


def server_context() -> ssl.SSLContext:
    """The context of a TLS server that shows a certificate for localhost and service.test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost", "service.test").configure_cert(context)
    return context


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _lasting(answers: tuple[bytes, ...]) -> Iterator[bytes]:
    yield from answers
    while True:
        yield answers[-1]
