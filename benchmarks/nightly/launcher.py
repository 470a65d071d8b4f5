"""Runs of the real command at another time of day: a program, and its driver.

As a program it loads `enroll` and gives each command once, then forks for each job that it reads on
stdin, so that a night costs no start-up. Each child is a process of its own with a clock that is
ahead, and may be sent a real signal at a point that is passed, or after some time.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

try:
    from forked import Forked, available  # tests have a program that has loaded everything
except ImportError:
    available = False

STUCK_SECONDS = 240.0
"""No night takes so long; a run that does is killed, and told as `STUCK`."""

STUCK = -999

POINTS = ("commit", "call", "rename")


@dataclass(frozen=True, slots=True)
class Strike:
    """A signal before or after the `number`-th passing of a point of `POINTS`, or, where `point`
    is "time", after `number` milliseconds."""

    point: str
    when: str
    number: int
    signal: int = signal.SIGKILL


class Launcher:
    """Starts runs, one at a time, from a process that has loaded everything."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        """Runs have `folder` for their working folder, and say what they say in said.txt there."""
        self._folder = folder
        self._environ = {**environ, "OPENBLAS_NUM_THREADS": "1", "HOME": str(folder)}

    def __enter__(self) -> Self:
        options: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "cwd": self._folder,
            "env": {"PATH": os.environ["PATH"], **self._environ},
        }
        self._process = (
            Forked([], serve="nightly.launcher:serve", **options)
            if available
            else subprocess.Popen([sys.executable, __file__], text=True, **options)
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process as process:  # closes its pipes, which ends it
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)

    def run(self, arguments: list[str], *, ahead: float, strike: Strike | None = None) -> int:
        """Run the command with a clock so many seconds ahead; its exit code, or the negative
        number of the signal that ended it."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        job = {"arguments": arguments, "ahead": ahead, "strike": strike and asdict(strike)}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())


def _serve(jobs: IO[bytes], answers: IO[str]) -> None:
    """Fork for each job, and tell how it ended."""
    while line := jobs.readline():
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            code = 71
            try:
                code = _child(job)
            finally:
                os._exit(code)
        answers.write(f"{_ended(pid, job['strike'])}\n")
        answers.flush()


def _ended(pid: int, strike: dict[str, Any] | None) -> int:
    """Wait for a child's end, and strike it when its time has come."""
    began = time.monotonic()
    due = strike["number"] / 1000 if strike and strike["point"] == "time" else None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - began
        if due is not None and strike is not None and passed >= due:
            os.kill(pid, strike["signal"])
            due = None
        if passed > STUCK_SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return STUCK
        time.sleep(0.005)


def _child(job: dict[str, Any]) -> int:
    from enroll.cli import exit_code_of  # noqa: PLC0415 - loaded before, by warm_up

    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(said, number)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    _put_ahead(job["ahead"])
    if job["strike"]:
        _watch_points(Strike(**job["strike"]))
    code = int(exit_code_of(job["arguments"]))
    sys.stdout.flush()
    return code


def _put_ahead(seconds: float) -> None:
    """Let everything of this process that asks for the time of day have a later one."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)


def _watch_points(strike: Strike) -> None:
    """Wrap what passes a point."""
    from sqlalchemy import Connection  # noqa: PLC0415 - loaded before, by warm_up

    from enroll.facesearch import FaceSearch  # noqa: PLC0415 - the same

    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def watched(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def passing(*args: Any, **named: Any) -> Any:
            with lock:
                counts[point] += 1
                due = point == strike.point and counts[point] == strike.number
            if due and strike.when == "before":
                os.kill(os.getpid(), strike.signal)
            value = function(*args, **named)
            if due and strike.when == "after":
                os.kill(os.getpid(), strike.signal)
            return value

        return passing

    for owner, name, point in (
        (Connection, "commit", "commit"),
        (FaceSearch, "send", "call"),
        (Path, "replace", "rename"),
    ):
        setattr(owner, name, watched(point, getattr(owner, name)))


def serve() -> None:
    """Do the jobs that come on stdin."""
    # Who asked for the runs may be gone before the last one has ended.
    with suppress(BrokenPipeError), os.fdopen(0, "rb", buffering=0) as given:
        _serve(given, sys.stdout)


if __name__ == "__main__":
    # The command of this checkout, and none of the modules that lie beside this one.
    root = Path(__file__).parents[2]
    sys.path[0] = str(root)
    sys.path += [str(root / "tests"), str(root / "benchmarks")]
    importlib.import_module("warmed").warm_up()
    serve()
