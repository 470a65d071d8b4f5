"""A scheduler of Dask and workers as processes of their own, to be killed, stopped and cut off.

They are forked from a program that has loaded Dask already, as `enroll` is.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from forked import Forked
from links import Link
from object_servers import wait_for

QUICK = {
    "distributed.comm.timeouts.connect": "10s",
    "distributed.comm.timeouts.tcp": "12s",
    "distributed.admin.tick.limit": "60s",
}
"""Dask's own times, shortened."""

PARAMETERS = "TESTS_DASK"
"""The variable of what such a process begins with."""


class Site:
    """A scheduler and workers on loopback, each with a `flaw` of `FLAWS` or none. The ways that can
    be cut are `driver`, from the command to the scheduler, and the `links` of each worker: to the
    scheduler, and from the scheduler. With `keep` they keep what passes."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        environ: Mapping[str, str] | None = None,
        flaw: str = "",
        keep: bool = False,
    ) -> None:
        self._folder = folder
        self._environ = dict(environ or {})
        self._flaw = flaw
        self._keep = keep
        self._port = _port()
        self.driver = Link(self._port, keep=keep)
        self.links: list[tuple[Link, Link]] = []
        self.workers: list[subprocess.Popen[str]] = []
        self.scheduler = self._start_scheduler()
        for _ in range(workers):
            self.add_worker()

    @property
    def address(self) -> str:
        """What `--scheduler` is."""
        return f"tcp://127.0.0.1:{self.driver.port}"

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers, self.scheduler):
            end(process)
        for link in (self.driver, *(one for pair in self.links for one in pair)):
            link.close()

    def _start_scheduler(self) -> subprocess.Popen[str]:
        process = self._start("scheduler", {"port": self._port}, {})
        wait_for(self._port)
        return process

    def start_scheduler(self) -> None:
        """Again, at the same address; its workers end by themselves."""
        self.scheduler = self._start_scheduler()

    def add_worker(self, place: int | None = None, *, flaw: str = "") -> None:
        """One more worker, or one in the place of another that was killed."""
        port = _port()
        up, down = Link(self._port, keep=self._keep), Link(port, keep=self._keep)
        given = {
            "port": port,
            "scheduler": up.port,
            "contact": down.port,
            "flaw": flaw or self._flaw,
        }
        process = self._start("worker", given, self._environ)
        if place is None:
            self.workers.append(process)
            self.links.append((up, down))
        else:
            self.workers[place], self.links[place] = process, (up, down)

    def _start(
        self, what: str, given: Mapping[str, object], environ: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        with (self._folder / f"{what}.txt").open("ab") as said:
            return Forked(
                [],
                serve=f"dask_processes:{what}",
                cwd=self._folder,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self._folder),
                    PARAMETERS: json.dumps(given),
                    **environ,
                },
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
            )


def _port() -> int:
    """A port that is free, and that no system gives to a connection meanwhile."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            port = random.randrange(10_000, 32_000)
            probe.bind(("127.0.0.1", port))
            return port


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process, also a stopped one, and wait for its end."""
    with suppress(ProcessLookupError):
        process.kill()
    process.wait(30)
    if process.stdin is not None:
        process.stdin.close()


# What the processes are


def _given() -> dict[str, Any]:
    import dask.config

    threading.Thread(target=_end_with_the_test, daemon=True).start()
    dask.config.set(QUICK | {"temporary-directory": str(Path.cwd())})
    found: dict[str, Any] = json.loads(os.environ[PARAMETERS])
    return found


def _end_with_the_test() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def scheduler() -> None:
    """Serve until killed."""
    asyncio.run(_schedule(_given()))


async def _schedule(given: Mapping[str, Any]) -> None:
    from distributed import Scheduler

    async with Scheduler(
        host="127.0.0.1",
        port=given["port"],
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
    ) as running:
        await running.finished()


def worker() -> None:
    """Work until killed, or until the scheduler is lost."""
    given = _given()
    if given["flaw"]:
        FLAWS[given["flaw"]]()
    asyncio.run(_work(given))


async def _work(given: Mapping[str, Any]) -> None:
    from distributed import Worker

    async with Worker(
        f"tcp://127.0.0.1:{given['scheduler']}",
        host="127.0.0.1",
        port=given["port"],
        contact_address=f"tcp://127.0.0.1:{given['contact']}",
        nthreads=1,
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
    ) as running:
        await running.finished()


def _dies_of_a_photo() -> None:
    from enroll.photos import read

    read_photo = read.read_photo

    def read_or_die(path: str, *more: Any) -> Any:
        if path.endswith("/5.jpg"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read_photo(path, *more)

    setattr(read, "read_photo", read_or_die)  # noqa: B010


def _is_old() -> None:
    from enroll.engine import station

    setattr(station, "__version__", "0.9.0")  # noqa: B010


def _has_no_enroll() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "enroll"]:
        sys.modules[name] = None  # type: ignore[assignment]


def _has_no_objects() -> None:
    sys.modules["obstore.store"] = None  # type: ignore[assignment]


def _sees_no_photos() -> None:
    from enroll.engine import station

    def open_elsewhere(root: str) -> Any:
        from enroll.photos import open_store

        return open_store(f"{root}-elsewhere")

    setattr(station, "open_store", open_elsewhere)  # noqa: B010


FLAWS = {
    "dies of 5.jpg": _dies_of_a_photo,
    "is old": _is_old,
    "has no enroll": _has_no_enroll,
    "has no objects": _has_no_objects,
    "sees no photos": _sees_no_photos,
}
"""What may be wrong with a worker."""
