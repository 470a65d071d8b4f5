"""The time: the only module that reads it. Tests move it with `using`.

One clock holds for the whole process: a time that some parts were given and others read for
themselves would be two times.
"""

from __future__ import annotations

import time as _time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """This machine's clocks, and waiting by them."""

    def time(self) -> float:
        """UNIX seconds; may be set back or forth by anybody."""
        return self.time_ns() / 1e9

    def time_ns(self) -> int:
        """The same in nanoseconds."""
        return _time.time_ns()

    def monotonic(self) -> float:
        """Seconds that only go forward, from an unknown beginning."""
        return _time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        _time.sleep(seconds)

    def wait(self, queue: SimpleQueue[T], seconds: float) -> T:
        """The next item of the queue. Raises `queue.Empty` when none came in so many seconds."""
        return queue.get(timeout=seconds)


_clock = Clock()


def time() -> float:
    """UNIX seconds; may be set back or forth by anybody."""
    return _clock.time()


def time_ns() -> int:
    """The same in nanoseconds, as file systems have them."""
    return _clock.time_ns()


def now_ms() -> int:
    """The same in milliseconds, as the ledger has them."""
    return _clock.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds that only go forward, from an unknown beginning."""
    return _clock.monotonic()


def sleep(seconds: float) -> None:
    """Return after so many seconds."""
    _clock.sleep(seconds)


def wait(queue: SimpleQueue[T], seconds: float) -> T:
    """The next item of a queue that only an interruption fills: otherwise this is a `sleep`.

    Raises `queue.Empty` when none came in so many seconds.
    """
    return _clock.wait(queue, seconds)


@contextmanager
def using(clock: Clock) -> Iterator[None]:
    """Have this process live by another clock meanwhile."""
    global _clock  # noqa: PLW0603 - one clock holds for the process
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before
