"""The open files, threads, memory and cores that this process may have, and the errors for a lack.

Each call in flight has a connection, each reader an open photo, and both count as open files.
`share_out` limits them in advance, so that there is always a file for the ledger and the results. A
shortage that occurs anyway is never reported as an error of a photo or of the service.
"""

from __future__ import annotations

import errno
import math
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from enroll import clock
from enroll.errors import ShortageError

R = TypeVar("R")

RESERVE = 16
"""Open files that calls and readers must not use. At a time there may be: the ledger, journal and
lock (4), SQLite's temporary files (3), the manifest or an unpacked workbook (2), the new results
and the former ones (2), a module that is loaded late (2), what the system opens to resolve a name
(2), a file in /proc (1)."""

READERS_SHARE = 1 / 4
"""Of the open files that are left when they are few: reading a photo takes a fraction of the time
of a call."""

PATIENCE_SECONDS = 5.0
"""How long opening a file is retried. Calls, and their connections, end within seconds."""

_OPEN_MAX = 10_240
"""The effective limit on macOS when it reports none (its OPEN_MAX)."""

_FEW_OPEN = 32
"""The assumed number of open files where the system does not list them."""

_FILES_IN_USE = frozenset({errno.EMFILE, errno.ENFILE})
_SHORTAGES = _FILES_IN_USE | {errno.ENOMEM, errno.ENOBUFS}
"""Errors that mean that this process or machine has no resources left, not that a file or peer is
faulty."""

_NO_THREAD = "can't start new thread"
"""Python's message, which has neither a class nor a number of its own."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many calls may be in flight, and how many photos may be read, at a time."""

    calls: int
    readers: int


def raise_file_limit() -> None:
    """Raise this process's limit of open files as far as it may without privileges.

    Many systems start with 256 or 1,024 for the sake of old programs. Only commands call this; a
    program that uses the library decides for itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_MAX if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def file_limit() -> float:
    """How many files this process may have open; infinite where there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def files_left() -> float:
    """How many more files this process may open."""
    limit = file_limit()
    try:
        with os.scandir("/dev/fd") as found:
            return limit - (sum(1 for _ in found) - 1)  # without the one for this list
    except OSError as error:
        return 0 if error.errno in _SHORTAGES else limit - _FEW_OPEN


def share_out(*, calls: int, readers: int) -> Concurrency:
    """As many calls and readers as there are open files for; at least one of each."""
    left = files_left() - RESERVE
    if calls + readers <= left:
        return Concurrency(calls, readers)
    readers = min(readers, max(int(left * READERS_SHARE), 1))
    return Concurrency(min(calls, max(int(left) - readers, 1)), readers)


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, or less where its cgroup, or one
    above that, has a limit (cgroups(7); `memory.max`, in version 1 `memory.limit_in_bytes`).

    `root` is where `proc` and `sys` are.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group, version in _cgroups(root, "memory"):
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        with suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int((group / name).read_text(encoding="ascii")))
    return min(limits)


def core_limit(root: Path = Path("/")) -> float:
    """Cores whose time this process may use: the least quota of its cgroup and those above it
    (cgroups(7); `cpu.max`, in version 1 `cpu.cfs_quota_us` of `cpu.cfs_period_us`), infinite
    without any. A container is limited by a quota far more often than to certain cores.

    `root` is where `proc` and `sys` are.
    """
    limits = [math.inf]
    for group, version in _cgroups(root, "cpu"):
        names = ["cpu.max"] if version == 2 else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        with suppress(OSError, ValueError):  # no such file, or "max"
            quota, period = " ".join(
                (group / name).read_text(encoding="ascii") for name in names
            ).split()
            if int(quota) > 0 and int(period) > 0:  # version 1 has -1 for no limit
                limits.append(int(quota) / int(period))
    return min(limits)


def _cgroups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """The folders of this process's cgroups for a controller, up to the top one, and the version
    (1 or 2) whose files they hold."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, version = root / "sys/fs/cgroup", 2
        elif controller in controllers.split(","):
            top, version = root / "sys/fs/cgroup" / controller, 1
        else:
            continue
        # In a container the path may be that of the host; its own group is at the top, then.
        group = PurePosixPath(path.lstrip("/"))
        for part in (group, *group.parents):
            yield top / part, version


def retry_on_shortage(task: Callable[[], R]) -> R:
    """Run a task that opens a file; retry it while no file can be opened.

    Raises ShortageError after PATIENCE_SECONDS; any other error at once.
    """
    until, pause = clock.monotonic() + PATIENCE_SECONDS, 0.01
    while True:
        try:
            return task()
        except OSError as error:
            short = shortage_in(error)
            if short is None:
                raise
            if clock.monotonic() + pause > until:
                raise short from error
        clock.sleep(pause)
        pause = min(2 * pause, 0.25)


def shortage_in(error: BaseException) -> ShortageError | None:
    """The shortage of files, memory or threads that an error means; None for any other error."""
    if isinstance(error, ShortageError):
        return error
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return no_thread(error)
    if isinstance(error, ImportError):  # a compiled module; the loader's message has no number
        said = str(error)
        number = next((one for one in _FILES_IN_USE if os.strerror(one) in said), None)
        return None if number is None else ShortageError(_message(number))
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        return ShortageError(_message(error.errno))
    return None


def hidden_shortage(error: BaseException) -> ShortageError | None:
    """`shortage_in` for an error that may hide its cause, such as a failed name lookup: checks
    whether a file can be opened now."""
    if (short := shortage_in(error)) is not None:
        return short
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as now:
        return shortage_in(now)
    return None


def no_thread(error: BaseException) -> ShortageError:
    """The error for a thread that could not be started."""
    return ShortageError(
        f"This machine does not let the command start another thread ({error}). Raise the limit "
        "of processes (ulimit -u, or the container's limit of pids), or run the same command "
        "again when fewer programs are running; nothing that was recorded is lost."
    )


def _message(number: int) -> str:
    again = "and run the same command again; nothing that was recorded is lost."
    if number == errno.EMFILE:
        return (
            f"The command may have {file_limit():,.0f} files and connections open at a time, and "
            f"all are in use. Raise that limit (ulimit -n), {again}"
        )
    if number == errno.ENFILE:
        return (
            "All programs of this machine together have as many files open as it allows. Stop "
            f"those that have many open, or raise fs.file-max, {again}"
        )
    return f"This machine has no memory left for another file or connection. Make room, {again}"
