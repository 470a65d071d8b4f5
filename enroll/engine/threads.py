"""The engine that this process is itself: threads read photos and make calls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from threading import Lock

from enroll.engine import HeldPhoto, Read
from enroll.errors import EnrollError, ShortageError
from enroll.facesearch import Courier, SignedCall
from enroll.model import Answer, Photo, Unusable
from enroll.photos import BUDGET, PhotoStore, read_photos
from enroll.settings import Preparation
from enroll.threads import Threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Executors:
    """Who carries tasks out, in this process: `calls` the exchanges with the service, `readers`
    the reading of photos; `scanner` reads the manifest, in one piece."""

    calls: Executor
    readers: Executor
    scanner: Executor
    reading_at_once: int = 16


class ThreadEngine:
    """See `enroll.engine.Engine` for the contract. Photos are held in a dictionary."""

    def __init__(self, service: Courier, store: PhotoStore, executors: Executors) -> None:
        """`store` has the photos. Who made the executors shuts them down."""
        self._service = service
        self._store = store
        self._calls = executors.calls
        self._readers = executors.readers
        self._reading_at_once = executors.reading_at_once
        self._handles = itertools.count(1)
        self._photos: dict[int, Photo] = {}
        self._closing = Lock()
        self._closed = False

    @property
    def readers(self) -> int:
        """0 while there is no memory for more photos that are ready to be sent."""
        return 0 if BUDGET.pictures.full else self._reading_at_once

    @property
    def fault(self) -> EnrollError | None:
        """None: this process is there."""
        return None

    def close(self) -> None:
        """Let go of every photo: no call follows."""
        with self._closing:
            self._closed = True
            for handle in list(self._photos):
                self.let_go(handle)

    def read(self, paths: Sequence[str], preparation: Preparation) -> Future[Read]:
        return self._readers.submit(self._read, paths, preparation)

    def _read(self, paths: Sequence[str], preparation: Preparation) -> Read:
        photos, quick = read_photos(paths, self._store, preparation)
        return list(map(self._held, photos)), quick

    def _held(self, photo: Photo | Unusable) -> HeldPhoto | Unusable:
        if isinstance(photo, Unusable):
            return photo
        handle = next(self._handles)
        with self._closing:  # a reader may be done when nobody wants its photo any more
            if not self._closed:
                BUDGET.pictures.keep(len(photo.content))
                self._photos[handle] = photo
        return HeldPhoto(
            times=photo.times,
            sha256=photo.sha256,
            sent_sha256=photo.sent_sha256,
            media_type=photo.media_type,
            prepared=photo.prepared,
            precheck_fault=photo.precheck_fault,
            handle=handle,
            size=len(photo.content),
        )

    def call(self, call: SignedCall, photo: HeldPhoto | None = None) -> Future[Answer]:
        held = None if photo is None else self._photos[photo.handle]
        if isinstance(self._calls, Threads):
            self._have_one_free(self._calls)
        return self._calls.submit(partial(self._service.send, call, held))

    def _have_one_free(self, calls: Threads) -> None:
        try:
            calls.have_one_free()
        except ShortageError:
            if isinstance(self._readers, Threads):
                self._readers.give_way()
            raise

    def drop(self, photo: HeldPhoto) -> None:
        self.let_go(photo.handle)

    def let_go(self, handle: int) -> None:
        """Let go of the photo of this handle, once or more often."""
        photo = self._photos.pop(handle, None)
        if photo is not None:
            BUDGET.pictures.keep(-len(photo.content))
