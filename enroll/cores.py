"""Which cores a run's threads use: those that pass the interpreter among themselves share one.

Python's threads take turns. Spread over cores, a thread that makes a system call loses its turn to
one that was waiting on another core, and is put to sleep and woken again: some 40 times a row,
which takes as long as the row itself. On one core it has its turn back before anybody else has
run. Decoding and scanning, which compute without the interpreter, go on using every core.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
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


def _allowed() -> frozenset[int]:
    """Where the calling thread may run; empty where that cannot be asked."""
    with suppress(OSError, AttributeError):
        return frozenset(os.sched_getaffinity(0))
    return frozenset()


_COUNT = len(_allowed()) or os.cpu_count() or 1

_elsewhere: frozenset[int] = frozenset()
"""While a run's threads share a core: where those may run that do not."""


def count() -> int:
    """How many cores this process may use."""
    return _COUNT


def use_all() -> None:
    """Let the calling thread, which a thread may have started that shares a core, use every one."""
    if _elsewhere:
        _place([0], _elsewhere)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """At what time (monotonic) threads had used the processor for how many seconds together, and
    the first of them had waited for it, able to run."""

    at: float
    used: float
    waited: float

    @classmethod
    def of(cls, threads: Sequence[int]) -> Reading:
        """By the kernel (its Documentation/scheduler/sched-stats.rst); zeros where it does not
        tell."""
        used = waited = 0
        for thread in reversed(threads):
            with suppress(OSError, ValueError, IndexError):
                stat = Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()
                used, waited = used + int(stat[0]), int(stat[1])
        return cls(at=time.monotonic(), used=used / 1e9, waited=waited / 1e9)

    def hindered_since(self, before: Reading) -> bool:
        """Whether it was another program that the thread waited for."""
        seconds = self.at - before.at
        waited, used = self.waited - before.waited, self.used - before.used
        return waited > _WAITED * seconds and used < _BUSY * seconds


class OneCore:
    """Keeps the thread that enters it, and those that join it, on one core.

    A comfort: whatever the system says to it, nothing raises. Afterwards every thread may run where
    the one that entered might before.
    """

    def __init__(self, *, reading: Callable[[Sequence[int]], Reading] = Reading.of) -> None:
        """`reading` tells how threads fared so far; by itself the kernel is asked."""
        self._read = reading
        self._allowed: frozenset[int] = frozenset()
        self._core: int | None = None
        self._threads: list[int] = []
        self._next_look = 0.0
        self._last = Reading(at=0.0, used=0.0, waited=0.0)

    def __enter__(self) -> OneCore:
        global _elsewhere  # noqa: PLW0603  # of the process, as its threads are
        self._allowed = _elsewhere = _allowed()
        self._threads.insert(0, threading.get_native_id())
        self.gather()
        return self

    def __exit__(self, *_: object) -> None:
        global _elsewhere  # noqa: PLW0603
        self.spread()
        _elsewhere = frozenset()

    @property
    def core(self) -> int | None:
        """The core that they share, None where they are spread."""
        return self._core

    def join(self) -> None:
        """Have the calling thread share the core, too: what a pool's threads begin with."""
        self._threads.append(threading.get_native_id())
        _place([0], self._allowed if self._core is None else {self._core})

    def gather(self) -> None:
        """Keep them where the calling thread is now; nothing where there is no choice."""
        if len(self._allowed) > 1 and (core := _core_of_this_thread()) in self._allowed:
            self._core = core
            _place(self._threads, {core})
        self._last = self._read(self._threads)
        self._next_look = self._last.at + LOOK_SECONDS

    def spread(self) -> None:
        """Let them run everywhere."""
        if self._core is not None:
            self._core = None
            _place(self._threads, self._allowed)

    def heed(self, now: float) -> None:
        """Look whether another program wants the core, and leave it to that for a while.

        `now` is monotonic seconds.
        """
        if now < self._next_look:
            return
        if self._core is None:
            self.gather()
            return
        last, self._last = self._last, self._read(self._threads)
        self._next_look = now + LOOK_SECONDS
        if self._last.hindered_since(last):
            self.spread()
            self._next_look = now + SPREAD_SECONDS


def _place(threads: Iterable[int], cores: Collection[int]) -> None:
    for thread in threads:
        # It has ended, the cores were taken away from us meanwhile, or nobody can be asked.
        with suppress(OSError, AttributeError, ValueError):
            os.sched_setaffinity(thread, cores)


def _core_of_this_thread() -> int | None:
    """Where the kernel has put it (proc(5), the 39th field of stat)."""
    with suppress(OSError, ValueError, IndexError):
        stat = Path("/proc/thread-self/stat").read_bytes()
        return int(stat.rpartition(b")")[2].split()[36])
    return None
