"""The command as a process that costs no start-up: forked from a program that has loaded it.

Each is a process of its own, with the signals, streams, environment and folder that it would have
had otherwise, and this process's child: whoever forks it ends at once, and we inherit it. As a
program this is whence they are forked.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warmed import warm_up

_SET_CHILD_SUBREAPER = 36
"""prctl(2): orphans among our descendants become our children."""

_MOST_BYTES = 1 << 20

available = sys.platform == "linux"
"""Whether this system lets us inherit processes."""


class Server:
    """The program from which commands are forked. Threads may share it."""

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(its.fileno())],
                pass_fds=[its.fileno()],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "LANG": "C.UTF-8"},
            )
        self._socket = ours
        self._lock = threading.Lock()

    def fork(self, job: Mapping[str, Any], streams: Sequence[int]) -> int:
        """Start a command; its process id."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(job).encode()], streams)
            return int(self._socket.recv(64))

    def close(self) -> None:
        """End the program; what it has started goes on."""
        self._socket.close()
        self._process.wait(30)


_servers: list[Server] = []
_first = threading.Lock()


def _server() -> Server:
    with _first:
        if not _servers:
            _servers.append(Server())
            atexit.register(_servers[0].close)
        return _servers[0]


class Forked(subprocess.Popen[str]):
    """`enroll` with these arguments. `ahead` is by how many seconds its clock is; `limits` are
    numbered as in `resource`, soft and hard."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        ahead: float,
        limits: Mapping[int, tuple[int, int]],
        **options: Any,
    ) -> None:
        self._ahead = ahead
        self._limits = list(limits.items())
        super().__init__(arguments, text=True, **options)

    def _execute_child(  # noqa: PLR0917 - as it is called
        self,
        args: Sequence[str],
        executable: object,
        preexec_fn: object,
        close_fds: object,
        pass_fds: object,
        cwd: os.PathLike[str],
        env: Mapping[str, str],
        startupinfo: object,
        creationflags: object,
        shell: object,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        *_: object,
    ) -> None:
        """Instead of fork and exec; see `subprocess.Popen`, which goes on from here."""
        job = {
            "arguments": args,
            "ahead": self._ahead,
            "limits": self._limits,
            "folder": str(cwd),
            "environ": dict(env),
        }
        given = zip((p2cread, c2pwrite, errwrite), range(3), strict=True)
        streams = [ours if stream == -1 else stream for stream, ours in given]
        self.pid = _server().fork(job, streams)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def _serve(jobs: socket.socket) -> None:
    """Fork for each job, which comes with its streams."""
    while True:
        content, streams, _, _ = socket.recv_fds(jobs, _MOST_BYTES, 3)
        if not content:
            return
        ready, tell = os.pipe()
        if between := os.fork():
            os.close(tell)
            os.waitpid(between, 0)
            jobs.send(os.read(ready, 64))
            os.close(ready)
            for stream in streams:
                os.close(stream)
            continue
        if child := os.fork():
            os.write(tell, str(child).encode())
            os._exit(0)
        for descriptor in (ready, tell):
            os.close(descriptor)
        jobs.close()
        _become(json.loads(content), streams)


def _become(job: dict[str, Any], streams: Sequence[int]) -> None:
    """Be the command; does not return."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environ"])
    signal.signal(signal.SIGINT, signal.default_int_handler)

    from moved_clock import LaterClock

    import enroll.__main__ as program
    from enroll import clock

    for limit, values in job["limits"]:
        resource.setrlimit(limit, values)
    sys.argv = [str(Path(program.__file__)), *job["arguments"]]
    sys.modules["__main__"].__package__ = "enroll"
    with clock.using(LaterClock(job["ahead"])):
        program.main()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who runs the tests
    warm_up()
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _serve(given)
