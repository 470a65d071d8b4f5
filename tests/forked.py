"""The command as a process that costs no start-up: forked from a program that has loaded it.

Each is a process of its own, with the signals, streams, environment and folder that it would have
had otherwise; the process that forked it waits for its end and reports it. As a program, this is
where they are forked: one for all workers, as loading everything takes seconds.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from warmed import warm_up

ADDRESS = "ENROLL_TESTS_FORKED"
"""The variable that has the address at which the workers find the program."""

_MOST_BYTES = 1 << 20
_NUMBER = struct.Struct("i")

available = sys.platform == "linux"
"""Whether this system lets us inherit processes."""


class Program:
    """The program from which commands are forked, at an `address`. It ends with this process."""

    def __init__(self) -> None:
        self.address = f"enroll-tests-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind("\0" + self.address)
            listener.listen()
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "LANG": "C.UTF-8"},
            )

    def close(self) -> None:
        """End the program; what it has started goes on."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


class _Server:
    """The program, or rather what it has forked to serve this process. Threads may share it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect("\0" + address)
        self._lock = threading.Lock()
        atexit.register(self._socket.close)

    def fork(self, job: Mapping[str, Any], streams: Sequence[int]) -> tuple[int, int]:
        """Start a command; its process id, and a pipe in which its wait status will be."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(job).encode()], streams)
            _, (ended,), _, _ = socket.recv_fds(self._socket, 1, 1)
        return _number(ended), ended


SHIM = """#!{} -IS
import json, os, socket, struct, sys
job = dict(arguments=sys.argv[1:], ahead=0.0, limits=[], serve="")
job |= dict(folder=os.getcwd(), environ=dict(os.environ))
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as program:
    program.connect("\\0{}")
    socket.send_fds(program, [json.dumps(job).encode()], range(3))
    _, (ended,), _, _ = socket.recv_fds(program, 1, 1)
pid, status = (struct.unpack("i", os.read(ended, 4))[0] for _ in range(2))
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A program that has the command forked, with its streams, and ends as that does."""


def put_shim(folder: Path) -> None:
    """Put an `enroll` for shells there, which starts at once."""
    shim = folder / "enroll"
    shim.write_text(SHIM.format(sys.executable, _server().address), encoding="utf-8")
    shim.chmod(0o755)


_servers: list[_Server] = []
_first = threading.Lock()


def _server() -> _Server:
    with _first:
        if not _servers:
            address = os.environ.get(ADDRESS)
            if address is None:
                program = Program()
                atexit.register(program.close)
                address = program.address
            _servers.append(_Server(address))
        return _servers[0]


class Forked(subprocess.Popen[str]):
    """`enroll` with these arguments. `ahead` is by how many seconds its clock is; `limits` are
    numbered as in `resource`, soft and hard. With `serve` it is another program instead: that
    function of a module of the tests, as `module:function`."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        ahead: float = 0.0,
        limits: Mapping[int, tuple[int, int]] | None = None,
        serve: str = "",
        **options: Any,
    ) -> None:
        self._ahead = ahead
        self._limits = list((limits or {}).items())
        self._serve = serve
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
            "serve": self._serve,
            "folder": str(cwd),
            "environ": dict(env),
        }
        given = zip((p2cread, c2pwrite, errwrite), range(3), strict=True)
        streams = [ours if stream == -1 else stream for stream, ours in given]
        self.pid, self._ended = _server().fork(job, streams)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """Instead of waitpid(2), as whoever forked the command is its parent."""
        ended = select.poll()  # not `select`, which takes no number above 1,023
        ended.register(self._ended, select.POLLIN)
        if wait_flags & os.WNOHANG and not ended.poll(0):
            return 0, 0
        status = _number(self._ended)
        os.close(self._ended)
        return self.pid, status

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        """The same for `poll`."""
        if self.returncode is None and self._child_created and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def _number(pipe: int) -> int:
    """The next number that was written into a pipe."""
    return int(_NUMBER.unpack(os.read(pipe, _NUMBER.size))[0])


def _listen(listener: socket.socket) -> None:
    """Fork for each process that connects, until whoever started this is gone."""
    while True:
        ready, _, _ = select.select([listener.fileno(), 0], [], [])
        if 0 in ready:
            _reap(0)
            return
        jobs, _ = listener.accept()
        with jobs:
            if os.fork() == 0:
                listener.close()
                _serve(jobs)
                os._exit(0)


def _serve(jobs: socket.socket) -> None:
    """Fork for each job, which comes with its streams."""
    while True:
        content, streams, _, _ = socket.recv_fds(jobs, _MOST_BYTES, 3)
        _reap(os.WNOHANG)
        if not content:
            return
        ended, tell = os.pipe()
        if os.fork() == 0:
            os.close(ended)
            if child := os.fork():
                for descriptor in (jobs.fileno(), *streams):
                    os.close(descriptor)
                os.write(tell, _NUMBER.pack(child))
                os.write(tell, _NUMBER.pack(os.waitpid(child, 0)[1]))
                os._exit(0)
            os.close(tell)
            jobs.close()
            _become(json.loads(content), streams)
        socket.send_fds(jobs, [b"."], [ended])
        for descriptor in (ended, tell, *streams):
            os.close(descriptor)


def _reap(options: int) -> None:
    """Wait for children that have ended, or for all, so that their time counts as this one's."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


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
    if job["serve"]:
        module, _, name = job["serve"].partition(":")
        getattr(importlib.import_module(module), name)()
        os._exit(0)

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
    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    warm_up()
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _listen(given)
