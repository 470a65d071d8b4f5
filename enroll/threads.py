"""Threads for tasks, as many as are needed and as this machine lets us start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from enroll.errors import ShortageError
from enroll.resources import no_thread

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
        with self._lock:  # first: who hears of the result may have the next task
            self._unfinished -= 1
        if failure is not None:
            future.set_exception(failure)
        elif goes_on:
            future.set_result(result)
        del future, failure  # else the error's traceback holds what holds the error
