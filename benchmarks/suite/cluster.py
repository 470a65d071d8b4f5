"""Dask's scheduler and workers on loopback, as processes of their own, and what passes through."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import click

from .process import cpu_of

_START_SECONDS = 30.0


class Meter:
    """Passes connections on to a port, and counts the bytes of both directions."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._server.getsockname()[1])
        self.passed = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no further connection."""
        self._server.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._to)
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    self.passed += len(data)
                to.sendall(data)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Dask:
    """A scheduler and its workers, all of whose connections to it are counted: those of a command
    that is given `options`, and those of the workers."""

    scheduler: int
    workers: Sequence[int]
    command: Meter
    between: Meter

    @property
    def options(self) -> tuple[str, ...]:
        """What `enroll run` needs to use it."""
        address = f"tcp://127.0.0.1:{self.command.port}"
        return "--engine", "dask", "--scheduler", address

    def used(self) -> dict[str, float]:
        """Milliseconds of processor and kilobytes so far."""
        return {
            "CPU of the scheduler": 1000 * cpu_of(self.scheduler),
            "CPU of the workers": 1000 * sum(map(cpu_of, self.workers)),
            "through the command": self.command.passed / 1000,
            "through the scheduler": (self.command.passed + self.between.passed) / 1000,
        }


@contextmanager
def running(workers: int, *, cores: Sequence[int] = ()) -> Iterator[Dask]:
    """Start a scheduler and so many workers, each on its own of the `cores` if there are any."""
    from distributed import Client  # noqa: PLC0415 - an extra

    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="enroll-bench-"))
        environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": home}

        def start(*command: str) -> int:
            process = subprocess.Popen(
                command,
                cwd=home,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process.pid

        dask = (sys.executable, "-m", "dask")
        on_loopback = ("--host", "127.0.0.1", "--no-dashboard")
        port = _free_port()
        scheduler = start(*dask, "scheduler", *on_loopback, "--port", str(port))
        _wait_for(port)
        command, between = Meter(port), Meter(port)
        stack.callback(command.close)
        stack.callback(between.close)
        worker = (*dask, "worker", f"tcp://127.0.0.1:{between.port}", *on_loopback)
        pids = []
        for number in range(workers):
            pinned = ("taskset", "-c", str(cores[number])) if cores else ()
            pids.append(start(*pinned, *worker, "--no-nanny", "--nthreads", "1"))
        with Client(f"tcp://127.0.0.1:{port}", set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=_START_SECONDS)
        yield Dask(scheduler, pids, command, between)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise click.ClickException("Dask's scheduler does not answer.")
