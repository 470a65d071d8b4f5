"""How many pictures are decoded at a time: as many as there are cores, and as fit into memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from enroll.preparation import DEFAULT_MAX_PIXELS

DECODING_BYTES = 240_000_000
"""Memory for all decoding, so that a run stays below 400 MB in all. Who allows more pixels than by
default allows as much more memory."""

CONTENT_BYTES = 64 * 1024 * 1024
"""What may lie in memory of files that are being read and prepared, beyond one of the largest."""


class Gate:
    """Lets tasks in, one after the other, while there is a place and room for what they need."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._used = 0
        self._inside = 0
        self._turn = Lock()  # who waits for room lets nobody pass: else large ones never get in
        self._changed = Condition()

    @contextmanager
    def room(self, need: int, *, limit: int) -> Iterator[None]:
        """Be inside, with `need` bytes of the `limit` for all; who would be alone is let in."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._fits(need, limit))
            self._inside += 1
            self._used += need
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._used -= need
                self._changed.notify_all()

    def _fits(self, need: int, limit: int) -> bool:
        if not self._inside:
            return True
        return self._inside < self._places and self._used + need <= limit


DECODING = Gate(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
"""Around all that decodes, resizes and encodes pixels in this process."""

READING = Gate(1_000)
"""Around files that are read into memory; bounded by their bytes, not by their number."""


def decoding_limit(max_pixels: int) -> int:
    """Bytes for all decoding, where a photo may have so many pixels."""
    return max(DECODING_BYTES, DECODING_BYTES * max_pixels // DEFAULT_MAX_PIXELS)
