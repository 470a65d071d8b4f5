"""A way to a PostgreSQL server that tests cut: a Unix socket that passes on what is said.

psycopg sends a message and waits for the answer, so what is read at once is one message.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

NAME = ".s.PGSQL.5432"
"""The socket's name in the folder that `host` names."""

When = Literal["before", "after"]


class CutLink:
    """Listens in `folder`, and leads to the server whose socket is in another one.

    `plan` says, of the number of a COMMIT from 1 on, whether the link is cut "before" it reaches
    the server, or "after" it was carried out and before its answer is passed on. While it is
    `away`, nobody gets through.
    """

    def __init__(self, folder: Path, server: Path, plan: Callable[[int], When | None]) -> None:
        self.away = False
        self.commits = 0
        self.cuts = 0
        self._server = server
        self._plan = plan
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / NAME))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Let nobody through any more."""
        self.away = True
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.away:
                    client.close()
                else:
                    threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self._server / NAME))
            after = threading.Event()
            back = threading.Thread(target=_pass_on, args=[server, client, after], daemon=True)
            back.start()
            while said := client.recv(1 << 16):
                when = None
                if b"COMMIT" in said:
                    self.commits += 1
                    when = self._plan(self.commits)
                    self.cuts += when is not None
                if when == "before":
                    break
                if when == "after":
                    after.set()
                server.sendall(said)
            for end in (client, server):
                end.shutdown(socket.SHUT_RDWR)
            back.join()


def _pass_on(server: socket.socket, client: socket.socket, after: threading.Event) -> None:
    with suppress(OSError):
        while (said := server.recv(1 << 16)) and not after.is_set():
            client.sendall(said)
        client.shutdown(socket.SHUT_RDWR)


@contextmanager
def cut_link(
    folder: Path, server: Path, plan: Callable[[int], When | None] = lambda _: None
) -> Iterator[CutLink]:
    """A link while the context lasts."""
    link = CutLink(folder, server, plan)
    try:
        yield link
    finally:
        link.close()
