"""A clock that tests move: waiting for nothing but time takes none. As a program, a later `enroll`.

It runs as fast as this machine's clock. A stand-in from `standin` lives by the same clock, and time
is not moved while a call is under way at one: what is late there lands before the waiting is over.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from enroll import clock
from enroll.sandbox import Sandbox

T = TypeVar("T")

_running: list[Sandbox] = []


class MovedClock(clock.Clock):
    """This machine's clock, `ahead` by some seconds; whoever sleeps moves it further."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def time_ns(self) -> int:
        return super().time_ns() + round(self.ahead * 1e9)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        """Return at once, so many seconds later."""
        until = time.monotonic() + seconds
        for box in list(_running):
            box.wait_idle(max(until - time.monotonic(), 0.0))
        self.ahead += max(until - time.monotonic(), 0.0)

    def wait(self, queue: SimpleQueue[T], seconds: float) -> T:
        if queue.empty():
            self.sleep(seconds)
        return queue.get_nowait()


class StandingClock(MovedClock):
    """A clock that does not run: sleeping moves it, and each look at it by a millisecond, so that
    no two things have the same time. However busy the machine is, as much time passes."""

    def __init__(self) -> None:
        super().__init__()
        self._at = time.time_ns()

    def time_ns(self) -> int:
        return self._at + round(self.monotonic() * 1e9)

    def monotonic(self) -> float:
        self.ahead += 0.001
        return self.ahead

    def sleep(self, seconds: float) -> None:
        for box in list(_running):
            box.wait_idle(seconds)
        self.ahead += seconds


class StoppedClock(clock.Clock):
    """A clock that stays `at` a number of seconds until a test moves it."""

    def __init__(self, at: float) -> None:
        self.at = at

    def time_ns(self) -> int:
        return round(self.at * 1e9)

    def monotonic(self) -> float:
        return self.at


class LaterClock(MovedClock):
    """The clock of a process of its own, which waits as everybody does."""

    sleep = clock.Clock.sleep
    wait = clock.Clock.wait


def ahead() -> float:
    """By how many seconds the clock in use is ahead of this machine's."""
    return clock._clock.ahead if isinstance(clock._clock, MovedClock) else 0.0


def later() -> list[str]:
    """What Python is started with for an `enroll` that lives by the clock in use."""
    return [__file__, str(ahead())] if ahead() else []


@contextmanager
def standin(**options: Any) -> Iterator[Sandbox]:
    """A running stand-in that lives by the clock in use."""
    with Sandbox(**{"clock": clock.time, **options}) as box:
        _running.append(box)
        try:
            yield box
        finally:
            _running.remove(box)


if __name__ == "__main__":
    with clock.using(LaterClock(float(sys.argv.pop(1)))):
        from enroll.__main__ import main

        main()
