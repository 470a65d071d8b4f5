"""How long one photo may take: decoding ends at the next step when its time is up.

A thread cannot be killed, and a process for each photo would cost more than most photos do. So
structure is bounded before a decoder sees it, such that no single step of one takes more than
seconds; and between steps (a block that is read, a strip that is painted, a try to encode) it is
looked whether there is time left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")

SLOWEST = 30.0
"""Seconds of the processor's time of the thread that decodes; a picture of 100 megapixels takes
some three. Of that time and of no other: what a photo comes to must not depend on what else the
machine does, or whether it sleeps."""


class TooSlowError(Exception):
    """A photo's time is up."""


class _Mine(threading.local):
    until: float | None = None


_MINE = _Mine()


def timed(task: Callable[[], R]) -> R:
    """What the task returns, on this thread. Raises TooSlowError."""
    _MINE.until = time.thread_time() + SLOWEST
    try:
        return task()
    finally:
        _MINE.until = None


def check_time() -> None:
    """Raise TooSlowError when the time of this thread's task is up."""
    if _MINE.until is not None and time.thread_time() > _MINE.until:
        raise TooSlowError
