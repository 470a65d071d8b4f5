"""What photos may take: the process's memory and who has which share of it, how many are decoded
at a time, and how long one may last. What each stage needs is known beside it."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from threading import Condition, Lock
from typing import TypeVar

from PIL import _imaging

from enroll import threads
from enroll.allowed import LEAST_MEMORY
from enroll.errors import ShortageError
from enroll.photos import decision
from enroll.photos.decision import RefusedError
from enroll.resources import memory_limit
from enroll.settings import DECODING_BYTES, DEFAULT_MAX_PIXELS, decoding_limit, least_memory
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


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of malloc.h."""

FILES_SHARE = 0.08
"""Of the memory that is allowed, for large files while they are read and prepared: 32 of 400 MB. A
file that is larger still is read alone."""

LARGE_FILE = round(FILES_SHARE * LEAST_MEMORY)
"""Bytes of a file that the least memory has room for."""

BASE_BYTES = LEAST_MEMORY - LARGE_FILE - DECODING_BYTES
"""168 MB for Python, what enroll imports, its threads and a ledger, of which 150 MB were measured
in a run of few rows."""


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

    def __init__(self, places: int, limit: int) -> None:
        """`limit` is in bytes, for all tasks and for what is kept of them."""
        self._places = places
        self.limit = limit
        self.start_over()

    def start_over(self) -> None:
        """Have nobody inside."""
        self._used = 0
        self._kept = 0
        self._inside = 0
        self._next: int | None = None
        self._turn = Lock()  # whoever waits for room is not overtaken: else large tasks starve
        self._changed = Condition()

    @contextmanager
    def room(self, need: int) -> Iterator[Room]:
        """Enter with `need` bytes. A task that needs more than the limit is let in alone."""
        with self._turn, self._changed:
            self._next = need
            self._changed.wait_for(lambda: self._fits(need))
            self._next = None
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

    def keep(self, some: int) -> None:
        """Take so many bytes off the limit, without waiting: they are in memory already. A negative
        number gives them back."""
        with self._changed:
            self._kept += some
            self._changed.notify_all()

    @property
    def full(self) -> bool:
        """Whether no further bytes should be kept: there is no room, or the next task waits for
        those that are."""
        with self._changed:
            if self._used + self._kept >= self.limit:
                return True
            return self._next is not None and not self._inside and not self._fits(self._next)

    def _fits(self, need: int) -> bool:
        free = self.limit - self._kept
        if not self._inside:
            return need <= free or not self._kept
        return self._inside < self._places and self._used + need <= free


BLOCK_BYTES = 2 * 1024 * 1024
"""A block of Pillow's. Its own are 16 MB: a strip cuts one down, and the system has to clear what
the next picture needs back. With these it clears a third as many pages for 24 megapixels."""

BLOCKS_KEPT = 64
"""Of these, for each core: a photo of 24 megapixels takes 48."""

MACHINE_SHARE = 1 / 4
"""Share of the machine's memory that is used unless a size is given."""


LIBVIPS_INSTALLED = find_spec("pyvips") is not None

LIBVIPS_BYTES = 35_000_000
"""Memory of libvips itself, by measurement."""

LIBVIPS_KEPT = 8 * 1024 * 1024
"""Memory that the C library keeps for each core of what libvips has freed. With none, the system
clears 80,000 new pages for a photo of 24 megapixels, and that takes as long as all else."""


class Budget:
    """The memory that this process may use, and who has which share of it: Python itself, `files`
    that are read, `pictures` with all that is done to them, and photos that are ready to be sent,
    which are kept from the share of `pictures`."""

    def __init__(self) -> None:
        self.files = Gate(1_000, LARGE_FILE)
        self.pictures = Gate(threads.count(), DECODING_BYTES)
        self.kept_blocks = 0
        self.for_libvips = 0
        """Bytes; 0 where it is not used."""

    def limit(self, memory: int | None, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        """Keep to so many bytes, those of the command itself included; None for a quarter of what
        the machine or its cgroup has, and no less than photos of `max_pixels` need."""
        if memory is None:
            memory = max(round(MACHINE_SHARE * memory_limit()), least_memory(max_pixels))
        most = memory - BASE_BYTES - decoding_limit(max_pixels)
        self.files.limit = min(round(FILES_SHARE * memory), most)
        pictures = memory - BASE_BYTES - self.files.limit
        # libvips stays loaded. It is worth its memory unless that is taken from a photo's own.
        libvips = LIBVIPS_BYTES + LIBVIPS_KEPT * threads.count()
        has_room = pictures - libvips >= decoding_limit(max_pixels)
        self.for_libvips = libvips if LIBVIPS_INSTALLED and has_room else 0
        pictures -= self.for_libvips
        if self.for_libvips:
            keep_for_libvips()
        # What Pillow has freed it uses again: to have the system clear new pages for each picture
        # took a fifth of the time. Such blocks come from what is beyond a single photo's need.
        blocks = max(pictures - decoding_limit(max_pixels), 0) // 2 // BLOCK_BYTES
        self.kept_blocks = min(blocks, BLOCKS_KEPT * threads.count())
        _imaging.set_block_size(BLOCK_BYTES)
        _imaging.set_blocks_max(self.kept_blocks)
        self.pictures.limit = pictures - self.kept_blocks * BLOCK_BYTES

    def start_over(self) -> None:
        """Have all shares back."""
        self.files.start_over()
        self.pictures.start_over()


BUDGET = Budget()
"""Of this process, as its memory is: LEAST_MEMORY, unless a command says otherwise."""


class Decoders:
    """Threads for all that decodes, resizes and encodes pixels, as many as there are cores.

    Not the readers' own: the C library keeps freed memory for each thread that has used some.
    """

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Have none at work, and no thread yet."""
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
        with BUDGET.pictures.room(need) as room:
            pool = self._threads()
            try:
                if pool is None:  # then the caller decodes on its own thread
                    return timed(partial(task, room))
                return pool.submit(timed, partial(task, room)).result()
            finally:
                if BUDGET.for_libvips:
                    give_back_fragments()


DECODERS = Decoders()

if hasattr(os, "register_at_fork"):
    # A forked process has none of the threads, and their locks may never be released.
    os.register_at_fork(after_in_child=DECODERS.start_over)
    os.register_at_fork(after_in_child=BUDGET.start_over)


def limit_memory(memory: int | None, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Have this process prepare photos within `memory` bytes: see `Budget.limit`."""
    BUDGET.limit(memory, max_pixels=max_pixels)


def give_back_memory() -> None:
    """Have freed blocks of 1 MB and more returned to the system at once, where that is possible.

    GNU's C library gives up doing so after the first few, and keeps up to 30 MB for each thread.
    """
    _set_malloc(_MMAP_THRESHOLD, 1 << 20)


def keep_for_libvips() -> None:
    """Have LIBVIPS_KEPT bytes of smaller blocks that are freed kept for each core, for whichever of
    its threads; only of threads that are started afterwards."""
    _set_malloc(_TRIM_THRESHOLD, LIBVIPS_KEPT)
    _set_malloc(_ARENA_MAX, threads.count())


def give_back_fragments() -> None:
    """Return to the system all smaller blocks that are freed, but for those of `keep_for_libvips`.
    Else 90 MB stay for each core once libvips has run, by measurement: what lives on is behind."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set_malloc(parameter: int, value: int) -> None:
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(parameter, value)
