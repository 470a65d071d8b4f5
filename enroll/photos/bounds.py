"""What decoding may take: how much memory all photos may take together, how many are decoded at a
time, and how long one may last. What each stage needs is known beside it."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Condition, Lock
from typing import TypeVar

from PIL import _imaging

from enroll import threads
from enroll.allowed import LEAST_MEMORY
from enroll.errors import ShortageError
from enroll.photos import decision
from enroll.photos.decision import RefusedError
from enroll.resources import memory_limit
from enroll.settings import DEFAULT_MAX_PIXELS
from enroll.threads import Threads

T = TypeVar("T")

SLOWEST = 30.0
"""Seconds of the processor's time of the thread that decodes; a picture of 100 megapixels takes
some three. Only that time counts: the outcome of a photo must not depend on what else the machine
does, or whether it sleeps."""


class TooSlowError(RefusedError):
    """The time for a photo is over."""

    def __init__(self) -> None:
        super().__init__(decision.TOO_SLOW)


class _Mine(threading.local):
    until: float | None = None


_MINE = _Mine()


def timed(task: Callable[[], T]) -> T:
    """Run the task on this thread, and return what it returns. Raises TooSlowError."""
    _MINE.until = time.thread_time() + SLOWEST
    try:
        return task()
    finally:
        _MINE.until = None


def check_time() -> None:
    """Raise TooSlowError when the time of this thread's task is over."""
    if _MINE.until is not None and time.thread_time() > _MINE.until:
        raise TooSlowError


_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of malloc.h."""

DECODING_BYTES = 200_000_000
"""Memory for one picture: decoding it, and all that is done to it. Allowing more pixels than the
default allows proportionally more memory."""

OTHER_BYTES = 205_000_000
"""Memory for what is no photo in preparation, by measurement: 145 MB for Python with what enroll
imports, and the photos that wait to be sent: few of these while it is decoding that takes long."""

FILES_SHARE = 1 / 12
"""Share of the memory for large files while they are read and prepared."""

AUTO_SHARE = 1 / 4
"""Share of the machine's memory that is used unless a size is given."""


BLOCKS_KEPT = 8
"""Of Pillow's blocks of 16 MB, for each core: a photo of 24 megapixels takes six."""


class Budget:
    """How this process shares out its memory among the photos that it prepares. A file or picture
    that needs more than there is for all of them is handled alone."""

    def __init__(self) -> None:
        self._memory = 0

    def limit(self, memory: int | None) -> None:
        """Keep to so many bytes, those of the command itself included, at least LEAST_MEMORY; None
        for a quarter of what the machine or its cgroup has, at least LEAST_MEMORY."""
        if memory is None:
            memory = max(round(AUTO_SHARE * memory_limit()), LEAST_MEMORY)
        self._memory = memory
        # What Pillow has freed it uses again, within what is beyond the least: to have the system
        # clear new pages for each picture took a fifth of the time.
        blocks = (memory - LEAST_MEMORY) // _imaging.get_block_size()
        _imaging.set_blocks_max(min(blocks, BLOCKS_KEPT * threads.count()))

    @property
    def files(self) -> int:
        """Bytes for large files that are being read and prepared."""
        if not self._memory:
            self.limit(None)
        return round(FILES_SHARE * self._memory)

    @property
    def pictures(self) -> int:
        """Bytes for decoding pictures, and for all that is done to them."""
        files = self.files
        return self._memory - files - OTHER_BYTES


BUDGET = Budget()


class Room:
    """A task's share of a gate's memory."""

    def __init__(self, gate: Gate, need: int) -> None:
        self._gate = gate
        self.need = need

    def shrink(self, need: int) -> None:
        """Need only this much from now on, and give the rest back."""
        self._gate.give_back(max(self.need - need, 0))
        self.need = min(self.need, need)


class Gate:
    """Lets tasks in, one after the other, while there are a slot and memory for them."""

    def __init__(self, places: int) -> None:
        self._places = places
        self.start_over()

    def start_over(self) -> None:
        """Have nobody inside."""
        self._used = 0
        self._inside = 0
        self._turn = Lock()  # whoever waits for room is not overtaken: else large tasks starve
        self._changed = Condition()

    @contextmanager
    def room(self, need: int, *, limit: int) -> Iterator[Room]:
        """Enter with `need` of the `limit` bytes for all; a task that would be alone is let in."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._fits(need, limit))
            self._inside += 1
            self._used += need
        room = Room(self, need)
        try:
            yield room
        finally:
            with self._changed:
                self._inside -= 1
            self.give_back(room.need)

    def give_back(self, some: int) -> None:
        """Return so many bytes."""
        with self._changed:
            self._used -= some
            self._changed.notify_all()

    def _fits(self, need: int, limit: int) -> bool:
        if not self._inside:
            return True
        return self._inside < self._places and self._used + need <= limit


class Decoders:
    """Threads for all that decodes, resizes and encodes pixels, as many as there are cores.

    Not the readers' own: the C library keeps freed memory for each thread that has used some.
    """

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Have none at work, and no thread yet."""
        self._gate = Gate(threads.count())
        self._starting = Lock()
        self._started = False
        self._pool: Threads | None = None

    def _threads(self) -> Threads | None:
        """The threads, started by the first task; None where not one could be started, ever."""
        with self._starting:
            if not self._started:
                self._started = True
                with suppress(ShortageError):
                    self._pool = Threads(threads.count(), initializer=threads.use_all)
            return self._pool

    def run(self, task: Callable[[Room], T], *, need: int) -> T:
        """Run the task when there is room for it, and return what it returns. Raises TooSlowError.

        `need` is bytes of memory.
        """
        with self._gate.room(need, limit=BUDGET.pictures) as room:
            pool = self._threads()
            if pool is None:  # then the caller decodes on its own thread
                return timed(partial(task, room))
            return pool.submit(timed, partial(task, room)).result()


DECODERS = Decoders()

READING = Gate(1_000)
"""For large files in memory, bounded by bytes rather than by number."""

if hasattr(os, "register_at_fork"):
    # A forked process has none of the threads, and their locks may never be released.
    os.register_at_fork(after_in_child=DECODERS.start_over)
    os.register_at_fork(after_in_child=READING.start_over)


def limit_memory(memory: int | None) -> None:
    """Have this process prepare photos within `memory` bytes: see `Budget.limit`."""
    BUDGET.limit(memory)


def give_back_memory() -> None:
    """Have freed blocks of 1 MB and more returned to the system at once, where that is possible.

    GNU's C library gives up doing so after the first few, and keeps up to 30 MB for each thread.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)


def decoding_limit(max_pixels: int) -> int:
    """Bytes for decoding one picture, if a photo may have so many pixels."""
    return max(DECODING_BYTES, DECODING_BYTES * max_pixels // DEFAULT_MAX_PIXELS)
