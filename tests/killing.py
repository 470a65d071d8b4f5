"""Runs of the real command that kill themselves at a chosen point: a program and its driver.

As a program it loads `enroll` once, then forks for each job that it reads on stdin and that is to
be killed, so that a run costs no start-up. Each child is a process of its own, killed by a real
SIGKILL from the kernel, with no handler, flush or rollback of its own. One more child gives all the
commands that run to their end, one after the other.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import selectors
import signal
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any
from urllib.parse import urlsplit

import forked
from forked import Forked
from real_command import Command
from warmed import warm_up

from enroll import clock
from enroll.model import CallKind

ANY = "any"
"""Every point, whatever its kind."""

PASSED = "passed.txt"
"""Where a run that is watched leaves the points that it passes, in its folder."""

SAID = "said.txt"
"""Where a run leaves what it says."""

UNWATCHED = "unwatched"

MOVED = " after a change"
"""What `PASSED` adds to a point that does not begin as the one before it ended: another is under
way, or a file has changed. A kill before any other point leaves what a kill after the one before it
leaves."""

ALONE = "changed nothing: "
"""What `PASSED` says, with the number, of a point that was passed while no other was, was no call
that changes the library, and left every file as it was. A kill after it leaves what a kill before
it leaves."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL before or after the `number`-th passing of a point; or within a commit of PostgreSQL,
    which the server has been sent and has not answered.

    Points are: "commit", each of the database; "beyond", what is written to it outside of
    transactions; "close", of a database; "call", each to the service, before it leaves, or after
    its answer is there and before anybody has heard it; "rename", "unlink" and "make", each file
    that is moved to its place, removed, or made; "write", each into a lock file; and `ANY`, which
    numbers all of them.
    """

    point: str
    when: str
    number: int


class SharedClock(clock.Clock):
    """A clock of several processes, as far ahead as their file says: waiting takes no time."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._ahead = mmap.mmap(file.fileno(), 8)

    @classmethod
    def made(cls, path: Path) -> SharedClock:
        """One that agrees with this machine's."""
        path.write_bytes(bytes(8))
        return cls(path)

    @property
    def ahead(self) -> float:
        """By how many seconds."""
        return float(struct.unpack("d", self._ahead[:])[0])

    def move(self, seconds: float) -> None:
        """Let it be later."""
        self._ahead[:] = struct.pack("d", self.ahead + seconds)

    def time_ns(self) -> int:
        return super().time_ns() + round(self.ahead * 1e9)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.move(seconds)

    def wait(self, queue: SimpleQueue[Any], seconds: float) -> Any:
        if queue.empty():
            self.move(seconds)
        return queue.get_nowait()


class Runner:
    """Starts runs from a process that has loaded everything; many may go on at a time."""

    def __init__(self) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = (
            Forked([], serve="killing:serve", cwd=Path.cwd(), env=os.environ, **pipes)
            if forked.available
            else subprocess.Popen([sys.executable, __file__], text=True, **pipes)
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
        watch: bool = False,
        moved_by: Path | None = None,
    ) -> int:
        """Run the command in `folder`; its exit code, or the negative number of a signal.

        With `watch` it leaves `PASSED` there, as a run that is to be killed does. It lives by the
        `SharedClock` whose file is `moved_by`.
        """
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
                "watch": watch or kill is not None,
                "clock": moved_by and str(moved_by),
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
    """Fork for each job on `jobs` that is watched, pass the others on, and tell on stdout how each
    has ended."""
    steady_pid, steady = _steady()
    ready, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError), selectors.DefaultSelector() as selector:
        selector.register(jobs, selectors.EVENT_READ)
        selector.register(ready, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == ready:
                    os.read(ready, 4096)
                    _reap(running)
                elif line := jobs.readline():
                    job = json.loads(line)
                    if job["watch"]:
                        running[_fork(job)] = job["number"]
                    else:
                        steady.write(line)
                else:
                    for pid in (*running, steady_pid):
                        os.kill(pid, signal.SIGKILL)
                    while True:
                        os.wait()


def _reap(running: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if pid in running:
                _tell(1, running.pop(pid), os.waitstatus_to_exitcode(status))


def _tell(out: int, number: int, code: int) -> None:
    """Say how a job has ended; several processes may."""
    os.write(out, (json.dumps({"number": number, "code": code}) + "\n").encode())


def _steady() -> tuple[int, IO[bytes]]:
    """Start a process that gives each command whose job it is sent, one after the other."""
    its, ours = os.pipe()
    if pid := os.fork():
        os.close(its)
        return pid, open(ours, "wb", buffering=0)  # noqa: PTH123 - a descriptor
    os.close(ours)
    out = os.dup(1)
    code = 71
    try:
        with open(its, "rb") as jobs:  # noqa: PTH123 - a descriptor
            for line in jobs:
                job = json.loads(line)
                _tell(out, job["number"], _give(job))
        code = 0
    finally:
        os._exit(code)


def _give(job: dict[str, Any]) -> int:
    """Run the command within this process, and leave no handler behind; its exit code."""
    command = Command(home=Path(job["folder"]), folder=Path(job["folder"]), environ=job["environ"])
    moved = SharedClock(Path(job["clock"])) if job["clock"] else clock.Clock()
    with Path(job["folder"], SAID).open("a", encoding="utf-8") as said, clock.using(moved):
        return command.within(job["arguments"], said, said)


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
    said = os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(said, number)
    os.environ.update(job["environ"])
    moved = SharedClock(Path(job["clock"])) if job["clock"] else clock.Clock()
    _watch_points(job["kill"] and Kill(**job["kill"]))
    with clock.using(moved):
        return int(exit_code_of(job["arguments"]))


class _Boundaries:
    """Numbers everything that lasts beyond the process, and kills where it is to be killed.

    All is watched where it leaves the process: the connections of SQLite and psycopg, requests'
    sessions, and the functions of `os` by which files come, go and are cut. An fsync is none: it
    changes nothing that outlives a process but not a kill.
    """

    def __init__(self, kill: Kill | None) -> None:
        self._kill = kill
        self._counts: Counter[str] = Counter()
        self._under_way = 0
        self._left: dict[str, bytes] | None = None
        self._lock = threading.Lock()
        self._within = threading.local()
        self.cuts = False
        """Whether the process is to end within what is under way."""
        self._log = os.open(PASSED, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def watched(
        self,
        point: str,
        function: Callable[..., Any],
        only_if: Callable[..., bool] = lambda *_, **__: True,
        only_asks: Callable[..., bool] = lambda *_: True,
    ) -> Callable[..., Any]:
        """The same function, each use of it a boundary where `only_if` says so. What `only_asks`
        says of a use holds beside what it leaves of the folder's files."""

        def passing(*args: Any, **named: Any) -> Any:
            if getattr(self._within, "one", False) or not only_if(*args, **named):
                return function(*args, **named)
            with self._lock:
                self._counts[point] += 1
                self._counts[ANY] += 1
                number = self._counts[ANY]
                here = {(point, self._counts[point]), (ANY, number)}
                alone = not self._under_way
                found = self._files()
                moved = not alone or self._left != found
                os.write(self._log, f"{point}{MOVED if moved else ''}\n".encode())
                self._under_way += 1
            self._strike("before", here)
            kill = self._kill
            self.cuts = bool(kill and kill.when == "within" and (kill.point, kill.number) in here)
            self._within.one = True
            try:
                return function(*args, **named)
            finally:
                self._within.one = False
                self._strike("after", here)
                with self._lock:
                    self._under_way -= 1
                    self._left = self._files()
                    alone = alone and number == self._counts[ANY] and only_asks(*args)
                    if alone and self._left == found:
                        os.write(self._log, f"{ALONE}{number}\n".encode())

        return passing

    def _files(self) -> dict[str, bytes]:
        """What is in the files of the current folder and of those below; nobody asks a run that is
        to be killed.

        Without a database's -shm: SQLite makes it again from the -wal when the process that used
        it has died.
        """
        found: dict[str, bytes] = {}
        if self._kill is None:
            self._within.one = True
            for path in Path().rglob("*"):
                if path.name not in (PASSED, SAID) and not path.name.endswith("-shm"):
                    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                        found[str(path)] = path.read_bytes()
            self._within.one = False
        return found

    def _strike(self, when: str, here: set[tuple[str, int]]) -> None:
        kill = self._kill
        if kill and kill.when == when and (kill.point, kill.number) in here:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Note a change of files that is no boundary: a way to write that nobody watches."""
        opened = event == "open" and isinstance(args[2], int) and args[2] & _WRITES
        by_name = bool(args) and not isinstance(args[0], int)
        if by_name and (opened or event in _CHANGES) and not getattr(self._within, "one", False):
            self._within.one = True
            os.write(self._log, f"{UNWATCHED} {event} {args[0]}\n".encode())
            self._within.one = False


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = ("os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir", "os.link")
"""Python's audit events, as its documentation lists them."""


_ASKING = {
    CallKind.GROUP_LIST,
    CallKind.GROUP_INFO,
    CallKind.LIST,
    CallKind.FACE_INFO,
    CallKind.SEARCH,
}


def _asks(_: Any, request: Any) -> bool:
    """Whether a call changes nothing at the service."""
    return urlsplit(request.url).path.rpartition("/")[2] in _ASKING


def _makes(path: Any, flags: int, *_: Any, **__: Any) -> bool:
    return bool(flags & os.O_CREAT)


def _watch_points(kill: Kill | None) -> None:
    """Wrap what passes a boundary."""
    import sqlite3

    import requests

    boundaries = _Boundaries(kill)

    def beyond_transactions(self: sqlite3.Cursor, statement: str, *_: Any) -> bool:
        durable = ("VACUUM", "PRAGMA JOURNAL_MODE=", "PRAGMA WAL_CHECKPOINT")
        return not self.connection.in_transaction and statement.upper().startswith(durable)

    class Cursor(sqlite3.Cursor):
        execute = boundaries.watched("beyond", sqlite3.Cursor.execute, beyond_transactions)

    class Connection(sqlite3.Connection):
        commit = boundaries.watched("commit", sqlite3.Connection.commit)
        close = boundaries.watched("close", sqlite3.Connection.close)

        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Connection))  # noqa: B010
    with contextlib.suppress(ImportError):
        _watch_sessions(boundaries)
    requests.Session.send = boundaries.watched(  # type: ignore[method-assign]
        "call", requests.Session.send, only_asks=_asks
    )
    for owner, name, point in (
        (os, "replace", "rename"),
        (os, "rename", "rename"),
        (os, "unlink", "unlink"),
        (os, "remove", "unlink"),
        (os, "mkdir", "make"),
        (os, "ftruncate", "write"),
        (os, "truncate", "write"),
        (os, "pwrite", "write"),
    ):
        setattr(owner, name, boundaries.watched(point, getattr(owner, name)))
    os.open = boundaries.watched("make", os.open, _makes)
    sys.addaudithook(boundaries.audit)


def _watch_sessions(boundaries: _Boundaries) -> None:
    """The same for sessions of PostgreSQL. Nobody sees which of their commits change nothing."""
    import psycopg
    from psycopg.pq import TransactionStatus

    def in_transaction(self: Any) -> bool:
        return bool(self.info.transaction_status == TransactionStatus.INTRANS)

    def beyond_transactions(self: Any, statement: Any, *_: Any, **__: Any) -> bool:
        return isinstance(statement, bytes) and statement.startswith(b"VACUUM")

    def commits(self: Any, statement: Any, *_: Any, **__: Any) -> bool:
        return isinstance(statement, bytes) and statement.endswith(b"COMMIT")

    def changes(*_: Any) -> bool:
        return False

    def wait(self: Any, answer: Any, *args: Any, **named: Any) -> Any:
        if boundaries.cuts:
            next(answer)  # sends it
            os.kill(os.getpid(), signal.SIGKILL)
        return waited(self, answer, *args, **named)

    owner: Any = psycopg.Connection
    waited, owner.wait = owner.wait, wait
    owner.commit = boundaries.watched("commit", owner.commit, in_transaction, changes)
    committing = boundaries.watched("commit", owner.execute, commits, changes)
    owner.execute = boundaries.watched("beyond", committing, beyond_transactions, changes)
    owner.close = boundaries.watched("close", owner.close)


def serve() -> None:
    """Do the jobs that come on stdin."""
    with open(0, "rb", buffering=0, closefd=False) as given:
        _serve(given)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    warm_up()
    serve()
