"""Runs of the real command that kill themselves at a chosen point: a program and its driver.

As a program it loads `enroll` once, then forks for each job that it reads on stdin, so that a
run costs no start-up. Each child is a process of its own, killed by a real SIGKILL from the
kernel, with no handler, flush or rollback of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import selectors
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Kill:
    """SIGKILL before or after the `number`-th passing of a point.

    Points are: "commit", each of the database; "call", each to the service, before it leaves,
    or after its answer is there and before anybody has heard it; "rename", each file that is
    moved to its place.
    """

    point: str
    when: str
    number: int


class Runner:
    """Starts runs from a process that has loaded everything; many may go on at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        self._ended: dict[int, Future[int]] = {}
        self._lock = threading.Lock()
        self._number = 0
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def run(
        self,
        arguments: list[str],
        *,
        folder: Path,
        environ: Mapping[str, str],
        kill: Kill | None = None,
    ) -> int:
        """Run the command in `folder`; its exit code, or the negative number of a signal."""
        with self._lock:
            self._number += 1
            number = self._number
            ended = self._ended[number] = Future()
            job = {
                "number": number,
                "arguments": arguments,
                "folder": str(folder),
                "environ": dict(environ),
                "kill": kill and asdict(kill),
            }
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        return ended.result(timeout=120)

    def close(self) -> None:
        """End the program; it ends its children."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._listener.join(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            self._ended[told["number"]].set_result(told["code"])


def _serve(jobs: IO[bytes]) -> None:
    """Fork for each job on `jobs`, and tell on stdout how each has ended."""
    ready, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(jobs, selectors.EVENT_READ)
        selector.register(ready, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == ready:
                    os.read(ready, 4096)
                    _reap(running)
                elif line := jobs.readline():
                    job = json.loads(line)
                    running[_fork(job)] = job["number"]
                else:
                    for pid in running:
                        os.kill(pid, signal.SIGKILL)
                    return


def _reap(running: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            told = {"number": running.pop(pid), "code": os.waitstatus_to_exitcode(status)}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


def _fork(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 71
    try:
        code = _child(job)
    finally:
        os._exit(code)


def _child(job: dict[str, Any]) -> int:
    from enroll.cli import exit_code_of

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(job["folder"])
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(said, number)
    os.environ.update(job["environ"])
    if job["kill"]:
        _watch_points(Kill(**job["kill"]))
    return int(exit_code_of(job["arguments"]))


def _watch_points(kill: Kill) -> None:
    """Wrap what passes a point."""
    from sqlalchemy import Connection

    from enroll.facesearch import FaceSearch

    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def watched(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def passing(*args: Any, **named: Any) -> Any:
            with lock:
                counts[point] += 1
                number = counts[point]
            if kill == Kill(point, "before", number):
                os.kill(os.getpid(), signal.SIGKILL)
            value = function(*args, **named)
            if kill == Kill(point, "after", number):
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        return passing

    for owner, name, point in (
        (Connection, "commit", "commit"),
        (FaceSearch, "send", "call"),
        (Path, "replace", "rename"),
    ):
        setattr(owner, name, watched(point, getattr(owner, name)))


def _load() -> None:
    """Everything that a run needs, so that a child has it at once."""
    from PIL import Image

    import enroll

    for module in pkgutil.walk_packages(enroll.__path__, "enroll."):
        if not module.name.startswith(("enroll.__main__", "enroll.sandbox")):
            importlib.import_module(module.name)
    importlib.import_module("sqlalchemy.dialects.sqlite")
    Image.init()


if __name__ == "__main__":
    _load()
    with open(0, "rb", buffering=0) as given:
        _serve(given)
