"""Tasks given to executors, which the driver's thread hears of when they have ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from enroll import clock
from enroll.engine.threads import Threads
from enroll.errors import ShortageError

AGAIN_SECONDS = 1.0
"""After so long a task is given once more for which this machine had no file left."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task that has ended: who wants to hear its value, and what gives it once more."""

    heard: Callable[..., None]
    future: Future[Any]
    executor: Executor
    call: Callable[[], Any]


class Tasks:
    """Every task of a run. `wake` may come from a signal, all else from the driver's thread."""

    def __init__(self, *, calls: Executor, readers: Executor) -> None:
        """Tasks for `calls` are begun at once or not at all; `readers` may have threads for them,
        where this machine lets us start no more."""
        self._calls = calls
        self._readers = readers
        self._ended: SimpleQueue[Task | None] = SimpleQueue()
        self._under_way = 0
        self._put_off: deque[tuple[float, Task]] = deque()

    def submit(
        self, executor: Executor, heard: Callable[..., None], task: Callable[..., Any], *args: Any
    ) -> None:
        """Have a task done. Raises ShortageError where no thread is there for a call."""
        if executor is self._calls and isinstance(executor, Threads):
            self._have_one_free(executor)
        call = partial(task, *args)
        future = executor.submit(call)
        self._under_way += 1
        future.add_done_callback(lambda done: self._ended.put(Task(heard, done, executor, call)))

    def _have_one_free(self, calls: Threads) -> None:
        try:
            calls.have_one_free()
        except ShortageError:
            if isinstance(self._readers, Threads):
                self._readers.give_way()
            raise

    def wake(self) -> None:
        """End a wait now."""
        self._ended.put(None)

    def wait(self, patience: float) -> list[Task]:
        """Wait so many seconds at most for a task to end; all that have ended."""
        queued: list[Task | None] = []
        try:
            queued.append(self._next(patience))
            while True:
                queued.append(self._ended.get_nowait())
        except Empty:
            pass
        ended = [task for task in queued if task is not None]
        self._under_way -= len(ended)
        return ended

    def _next(self, patience: float) -> Task | None:
        if not patience:
            return self._ended.get_nowait()
        if self._under_way:
            return self._ended.get(timeout=patience)
        return clock.wait(self._ended, patience)  # only time has to pass, or a signal to come

    def put_off(self, task: Task, now: float) -> None:
        """Give it once more in a while: it changed nothing, for want of a file to open."""
        self._put_off.append((now + AGAIN_SECONDS, task))

    @property
    def waiting(self) -> int:
        """How many tasks were put off."""
        return len(self._put_off)

    def next_due(self) -> float | None:
        """When the first of them is to be given again (monotonic seconds)."""
        return self._put_off[0][0] if self._put_off else None

    def give_again(self, now: float) -> None:
        """Give those whose time has come."""
        while self._put_off and self._put_off[0][0] <= now:
            task = self._put_off.popleft()[1]
            self.submit(task.executor, task.heard, task.call)
