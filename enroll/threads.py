"""Where tasks are carried out: as many threads as this machine allows, and which cores they use."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from enroll import clock
from enroll.errors import ShortageError
from enroll.resources import core_limit, no_thread

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


def usable_cores(allowed: int, quota: float) -> int:
    """Cores to prepare photos on: with more threads than the quota lasts for, the kernel stops all
    of them for a part of every period, and each of them holds a photo."""
    return max(1, math.ceil(min(allowed, quota)))


_FOR_MAIN_THREAD = 8

_COUNT = usable_cores(len(_allowed()) or os.cpu_count() or 1, core_limit())

_elsewhere: frozenset[int] = frozenset()
"""While a run's threads share a core: where those may run that do not."""


def count() -> int:
    """How many cores this process may use: those that it is allowed on, or fewer where its cgroup
    has a smaller quota."""
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
        """Read from the kernel (see its Documentation/scheduler/sched-stats.rst); zeros if it does
        not provide them."""
        used = waited = 0
        for thread in reversed(threads):
            with suppress(OSError, ValueError, IndexError):
                stat = Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()
                used, waited = used + int(stat[0]), int(stat[1])
        return cls(at=clock.monotonic(), used=used / 1e9, waited=waited / 1e9)

    def hindered_since(self, before: Reading) -> bool:
        """Whether another program kept the thread waiting."""
        seconds = self.at - before.at
        waited, used = self.waited - before.waited, self.used - before.used
        return waited > _WAITED * seconds and used < _BUSY * seconds


class OneCore:
    """Keeps the thread that enters it, and those that join it, on one core.

    Only an optimization: it never raises, whatever the system answers. Afterwards every thread may
    run where the one that entered was allowed to before.
    """

    def __init__(self, *, reading: Callable[[Sequence[int]], Reading] = Reading.of) -> None:
        """`reading` returns how long threads ran and waited so far, by default from the kernel."""
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


P = ParamSpec("P")
T = TypeVar("T")


class Threads(Executor):
    """An executor that goes on with the threads there are where no further one can be started.

    The standard one raises then, and leaves the task in its queue, where a thread takes it later:
    a call that was sent once more meanwhile would be made twice.

    It begins with one thread, so that there is always one. They do not keep the interpreter from
    ending. Raises ShortageError where not even the first can be started.
    """

    def __init__(self, most: int, *, initializer: Callable[[], object] | None = None) -> None:
        """`most` threads at a time, each of which calls `initializer` first."""
        self._most = most
        self._initializer = initializer
        self._lock = threading.Lock()
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._leaving = 0
        self._unfinished = 0
        self._closed = False
        self._start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with self._lock:
            if self._closed:
                raise RuntimeError("threads that were shut down take no further task")
            with suppress(ShortageError):  # it waits for one of the others
                self._have_one_free()
            self._unfinished += 1
            future: Future[T] = Future()
            self._tasks.put((future, partial(fn, *args, **kwargs)))
            return future

    def have_one_free(self) -> None:
        """Start a thread for the next task if all are busy, up to the most. Raises ShortageError
        where that cannot be: the task would have to wait."""
        with self._lock:
            self._have_one_free()

    def give_way(self) -> None:
        """Have one thread fewer from now on, if there are several: others need it more."""
        with self._lock:
            if self._staying > 1:
                self._leaving += 1
                self._most = self._staying
                self._tasks.put(None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._closed = True
            while cancel_futures:
                try:
                    task = self._tasks.get_nowait()
                except Empty:
                    break
                if task is not None:
                    task[0].cancel()
            threads = list(self._threads)
            for _ in threads:
                self._tasks.put(None)
        if wait:
            for thread in threads:
                thread.join()

    @property
    def _staying(self) -> int:
        return len(self._threads) - self._leaving

    def _have_one_free(self) -> None:
        if self._staying <= self._unfinished and self._staying < self._most:
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise no_thread(error) from error
        self._threads.append(thread)

    def _work(self) -> None:
        if self._initializer is not None:
            self._initializer()
        while (task := self._tasks.get()) is not None:
            self._finish(*task)
            del task  # and with it a photo, while nothing is to be done
        with self._lock:
            self._threads.remove(threading.current_thread())
            self._leaving -= not self._closed

    def _finish(self, future: Future[Any], task: Callable[[], Any]) -> None:
        goes_on = future.set_running_or_notify_cancel()
        result, failure = None, None
        if goes_on:
            try:
                result = task()
            except BaseException as error:  # noqa: BLE001  # whoever asked for the result gets it
                failure = error
        with self._lock:  # first: whoever gets the result may submit the next task
            self._unfinished -= 1
        if failure is not None:
            future.set_exception(failure)
        elif goes_on:
            future.set_result(result)
        del future, failure  # else the error's traceback holds what holds the error


def interruptibly(call: Callable[[], T]) -> T:
    """What a call gives. On the main thread, the handlers of signals run meanwhile, as they do not
    while a library waits outside of the interpreter. Raises what it raises, and ShortageError."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    return _for_main_thread(os.getpid()).submit(call).result()


@lru_cache(maxsize=1)
def _for_main_thread(process: int) -> Threads:
    """Several: a call that nobody waits for any more may keep one. `process` as a fork has none."""
    return Threads(_FOR_MAIN_THREAD)
