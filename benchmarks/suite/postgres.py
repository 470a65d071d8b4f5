"""A PostgreSQL server as a child of this process, for ledgers that tests and benchmarks use up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

UNPRIVILEGED = 65534
"""The user and group `nobody`: a server refuses to run as root."""

START_SECONDS = 60.0
"""A server that takes longer is stuck, also one that recovers from a kill."""

USER = "enroll"


def program(name: str) -> str | None:
    """The path of one of PostgreSQL's programs, which Debian has out of the way."""
    places = [str(place) for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *places]))


def missing() -> str:
    """What is not installed of what a server and its ledgers need; empty if nothing."""
    found = {"the extra postgres": find_spec("psycopg") is not None}
    found |= {name: program(name) is not None for name in ("initdb", "postgres")}
    return ", ".join(name for name, there in found.items() if not there)


class PostgresServer:
    """A server with its data and its Unix socket in `folder`, whose path must be short.

    It trusts everybody who reaches the socket. What it commits is on the disk, as everywhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._as: dict[str, Any] = {"cwd": "/"}
        if os.getuid() == 0:
            os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
            self._as |= {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [_path("initdb"), *("-D", self._data, "-U", USER, "-A", "trust", "-E", "UTF8", "-N")],
            check=True,
            stdout=subprocess.DEVNULL,
            **self._as,
        )

    def address(self, schema: str = "", *, database: str = "postgres") -> str:
        """A schema as --ledger names it, or the database without one."""
        parts = {"schema": schema, "user": USER, "host": str(self.folder)}
        given = "&".join(f"{name}={value}" for name, value in parts.items() if value)
        return f"postgresql:///{database}?{given}"

    def start(self, *, state: str = "ready") -> None:
        """Start it, and wait until it takes connections, after a recovery if it was killed, or is
        in another `state`."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_path("postgres"), "-D", self._data, "-k", self.folder, "-c", "listen_addresses="],
                stdout=subprocess.DEVNULL,
                stderr=log,
                **self._as,
            )
        until = time.monotonic() + START_SECONDS
        while not self._is(state):
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "log").read_text(encoding="utf-8")[-2000:])
            time.sleep(0.01)

    def follow(self) -> None:
        """Start it as a standby that takes no connection until `promote`."""
        (self._data / "standby.signal").touch()
        with (self._data / "postgresql.auto.conf").open("a", encoding="utf-8") as settings:
            settings.write("hot_standby = off\n")
        self.start(state="standby")

    def promote(self) -> None:
        """End its recovery."""
        assert self._process is not None
        (self._data / "promote").touch()
        self._process.send_signal(signal.SIGUSR1)

    def vacuum(self) -> None:
        """Clean up and analyze all tables, as the server does itself once it has found the time."""
        server = "-h", str(self.folder), "-U", USER
        command = [_path("vacuumdb"), *server, "--analyze", "postgres"]
        subprocess.run(command, check=True, capture_output=True)

    def _is(self, state: str) -> bool:
        """The last line says so, under a first one that names the process:
        https://www.postgresql.org/docs/current/storage-file-layout.html"""
        assert self._process is not None
        with suppress(OSError):
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").split()
            return lines[:1] == [str(self._process.pid)] and lines[-1] == state
        return False

    def kill(self) -> None:
        """End all its processes at once, as a failure of its machine does, and wait until they are
        gone. What was committed is there when it is started again."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)  # so that it starts no other
        tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        children = [int(pid) for pid in tasks.read_text(encoding="utf-8").split()]
        for pid in (*children, process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        until = time.monotonic() + START_SECONDS
        while any(map(_is_running, children)) and time.monotonic() < until:
            time.sleep(0.001)
        self._process = None


def _path(name: str) -> str:
    found = program(name)
    if found is None:
        raise RuntimeError(f"There is no {name}; on Debian and Ubuntu `apt-get install postgresql`")
    return found


def _is_running(pid: int) -> bool:
    """Whether a process is there, and not only what is left of it for its parent."""
    with suppress(OSError):
        about = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        return about.rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


@contextmanager
def running(*, root: str | None = None) -> Iterator[PostgresServer]:
    """A server in a folder below `root` that is gone afterwards, or where temporary files are."""
    folder = Path(tempfile.mkdtemp(prefix="enroll-pg-", dir=root))
    try:
        server = PostgresServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
