"""A way over TCP to a port of this machine, which a test cuts, stalls or has swallow everything."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from enum import Enum

_RESET = struct.pack("ii", 1, 0)
"""Of SO_LINGER: closing tells the other end that the connection is broken."""


class State(Enum):
    """What becomes of what is sent."""

    OPEN = "open"
    CUT = "cut"
    """Connections are reset, and new ones, too."""
    STALLED = "stalled"
    """Everything waits, and arrives when the link is open again: packets were lost, and are sent
    once more."""
    SWALLOWED = "swallowed"
    """Nothing arrives, and nobody learns of it; those connections are reset when the link is open
    again."""


class Link:
    """Listens at `port`. With `keep`, `seen` is what has passed, whichever way."""

    def __init__(self, target: int, *, keep: bool = False) -> None:
        self._target = target
        self._keep = keep
        self._seen: list[bytes] = []
        self._state = State.OPEN
        self._changed = threading.Condition()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._spoilt: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def seen(self) -> bytes:
        return b"".join(self._seen)

    def set(self, state: State) -> None:
        """From now on."""
        with self._changed:
            self._state = state
            ended = []
            if state is State.CUT:
                ended = list(self._pairs)
            elif state is State.OPEN:
                ended = [one for one in self._pairs if self._spoilt.intersection(one)]
            self._changed.notify_all()
        for pair in ended:
            self._end(pair)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.close()
        self.set(State.CUT)

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            theirs = socket.socket()
            pair = (ours, theirs)
            with self._changed:
                self._pairs.append(pair)
                cut = self._state is State.CUT
            try:
                if cut:
                    raise ConnectionResetError
                theirs.connect(("127.0.0.1", self._target))
            except OSError:
                self._end(pair)
                continue
            for source, sink in (pair, pair[::-1]):
                pump = threading.Thread(target=self._pump, args=(source, sink, pair), daemon=True)
                pump.start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                with self._changed:
                    while self._state is State.STALLED:
                        self._changed.wait()
                    if self._state is State.SWALLOWED:
                        self._spoilt.add(source)
                        continue
                    if self._keep:
                        self._seen.append(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
            return
        self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._changed:
            if pair not in self._pairs:
                return
            self._pairs.remove(pair)
            self._spoilt.difference_update(pair)
        for one in pair:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
