"""Which cores a run's threads use: those that pass the interpreter among themselves share one.

Python's threads take turns. Spread over cores, a thread that makes a system call loses its turn to
one that was waiting on another core, and is put to sleep and woken again: some 40 times a row,
which takes as long as the row itself. On one core it has its turn back before anybody else has
run. What computes without the interpreter (decoding, scanning) goes on using every core.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 2.0
"""How often is looked whether the core is shared with other programs."""

SPREAD_SECONDS = 10.0
"""How long threads stay spread when it was."""

_WAITED = 0.25
"""Share of the time for which the driver's thread waited for the core, from which on something is
in its way."""

_BUSY = 0.75
"""Share of one core's time from which on that is our own other threads."""

_ALLOWED = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()
"""Where this process may run; empty where that cannot be asked."""


def count() -> int:
    """How many cores this process may use."""
    return len(_ALLOWED) or os.cpu_count() or 1


def use_all() -> None:
    """Let the calling thread, and those that it starts, run on every core again."""
    if _ALLOWED:
        _place([0], _ALLOWED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """At what time (monotonic) the process had used the processor for how many seconds, and the
    calling thread had waited for it, able to run."""

    at: float
    used: float
    waited: float

    @classmethod
    def now(cls) -> Reading:
        """By the kernel (its Documentation/scheduler/sched-stats.rst)."""
        waited = 0.0
        with suppress(OSError, ValueError, IndexError):
            waited = int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9
        return cls(at=time.monotonic(), used=time.process_time(), waited=waited)

    def hindered_since(self, before: Reading) -> bool:
        """Whether it was another program that the thread waited for."""
        seconds = self.at - before.at
        waited, used = self.waited - before.waited, self.used - before.used
        return waited > _WAITED * seconds and used < _BUSY * seconds


class OneCore:
    """Keeps the thread that calls it, and those that this one starts, on one core.

    Used as a context. Every method is called by that thread.
    """

    def __init__(self, *, reading: Callable[[], Reading] | None = None) -> None:
        """`reading` tells how the threads fared so far; by itself the kernel is asked."""
        self._read = reading or Reading.now
        self._core: int | None = None
        self._threads: list[int] = []
        self._next_look = 0.0
        self._last = Reading(at=0.0, used=0.0, waited=0.0)

    def __enter__(self) -> OneCore:
        self._threads = [threading.get_native_id()]
        self.gather()
        return self

    def __exit__(self, *_: object) -> None:
        self.spread()

    @property
    def core(self) -> int | None:
        """The core that they share, None where they are spread."""
        return self._core

    def gather(self) -> None:
        """Keep them where the calling thread is now; nothing where there is no choice."""
        if len(_ALLOWED) > 1 and (core := _core_of_this_thread()) in _ALLOWED:
            _place(self._threads, {core})
            self._core = core
        self._last = self._read()
        self._next_look = self._last.at + LOOK_SECONDS

    def spread(self) -> None:
        """Let them run everywhere."""
        if self._core is not None:
            self._threads = [thread for thread in _threads() if _runs_on(thread, self._core)]
            _place(self._threads, _ALLOWED)
            self._core = None

    def heed(self, now: float) -> None:
        """Look whether another program wants the core, and leave it to that for a while.

        `now` is monotonic seconds.
        """
        if now < self._next_look:
            return
        if self._core is None:
            self.gather()
            return
        last, self._last = self._last, self._read()
        self._next_look = now + LOOK_SECONDS
        if self._last.hindered_since(last):
            self.spread()
            self._next_look = now + SPREAD_SECONDS


def _place(threads: Iterable[int], cores: Iterable[int]) -> None:
    for thread in threads:
        with suppress(OSError):  # it has ended, or the cores were taken away from us meanwhile
            os.sched_setaffinity(thread, cores)


def _threads() -> list[int]:
    return [int(thread.name) for thread in Path("/proc/self/task").iterdir()]


def _runs_on(thread: int, core: int) -> bool:
    with suppress(OSError):
        return os.sched_getaffinity(thread) == {core}
    return False


def _core_of_this_thread() -> int | None:
    """Where the kernel has put it (proc(5), the 39th field of stat)."""
    with suppress(OSError, ValueError, IndexError):
        stat = Path("/proc/thread-self/stat").read_bytes()
        return int(stat.rpartition(b")")[2].split()[36])
    return None
