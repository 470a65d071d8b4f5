"""A command as a process of its own, and what it takes: time, processor, memory.

Memory is the larger of two figures: the largest resident size of the command's own process, and
the sum over it and its children of what is theirs alone and their part of what they share (PSS).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

_LOOK_SECONDS = 0.2
_MOST_SECONDS = 2 * 3600.0
"""Nothing here takes so long; a command that does is stuck, and ended."""

_SAID_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds from start to end, seconds of processor (user and system, of the process and all its
    children; `own` of the process alone), and bytes of memory at most."""

    wall: float
    cpu: float
    memory: int
    own: float = 0.0


class Watched:
    """A running command, in a session of its own; `started_at` is UNIX seconds."""

    def __init__(self, command: Sequence[str | Path], *, cwd: Path, environ: Mapping[str, str]):
        self._said = cwd / "said.txt"
        with self._said.open("wb") as said:
            self.started_at = time.time()
            self._began = time.perf_counter()
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self._memory = 0
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does."""
        os.kill(self._process.pid, signal.SIGINT)  # Popen's own would reap one that has ended

    def wait(self, *, codes: Sequence[int] = (0,)) -> Usage:
        """Wait for its end. Raises ClickException with what it said for another exit code."""
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        own = cpu_of(self._process.pid)
        _, status, used = os.wait4(self._process.pid, 0)
        wall = time.perf_counter() - self._began
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()
        self._looking.join()
        if code not in codes:
            said = self._said.read_bytes()[-_SAID_BYTES:].decode(errors="replace")
            raise click.ClickException(f"{self._process.args!r} left with {code}: {said}")
        return Usage(wall, used.ru_utime + used.ru_stime, self._memory, own)

    def end(self) -> None:
        """End it and its children at once, if they are still there."""
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._ended.set()
        self._looking.join()

    def _look(self) -> None:
        """Watch the memory, and the time."""
        until = time.monotonic() + _MOST_SECONDS
        while not self._ended.wait(_LOOK_SECONDS):
            group = self._process.pid
            members = list(_members(group))
            # What one process has, the kernel keeps. To sum up its pages takes a core some
            # milliseconds each time, and its threads wait meanwhile.
            together = sum(map(_share, members)) if len(members) > 1 else 0
            self._memory = max(self._memory, _peak(group), together)
            if time.monotonic() > until:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)


@contextmanager
def watched(
    command: Sequence[str | Path], *, cwd: Path, environ: Mapping[str, str]
) -> Iterator[Watched]:
    """Start a command, and end it in the end."""
    process = Watched(command, cwd=cwd, environ=environ)
    try:
        yield process
    finally:
        process.end()


def measured(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    codes: Sequence[int] = (0,),
) -> Usage:
    """Run a command to its end."""
    with watched(command, cwd=cwd, environ=environ) as process:
        return process.wait(codes=codes)


def cpu_of(pid: int) -> float:
    """Seconds of processor that a process has taken so far, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _members(group: int) -> Iterator[int]:
    """The processes of a process group."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The command's name, which may hold anything, stands in parentheses.
            fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[2]) == group:
                yield int(entry.name)


def _share(pid: int) -> int:
    """PSS in bytes; 0 for a process that has ended, or is another user's."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), b"Pss:")


def _peak(pid: int) -> int:
    """The largest resident size so far, in bytes."""
    return _kilobytes(Path(f"/proc/{pid}/status"), b"VmHWM:")


def _kilobytes(path: Path, name: bytes) -> int:
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0
