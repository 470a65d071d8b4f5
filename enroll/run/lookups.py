"""The calls by which a run looks at its library: list, and search with photos read again for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from enroll import clock
from enroll.errors import ServiceError, ShortageError
from enroll.facesearch.answers import CREDENTIAL_CODES, LIBRARY_CODES, OwnCode
from enroll.facesearch.responses import LIST_PAGE
from enroll.limiter.limits import CallEnd, Limiter, Slot, release
from enroll.model import Answer, CallKind, Credentials, FaceRecord, Photo, Verdict
from enroll.run.feed import Submit
from enroll.run.health import CredentialRefresh, Reachability
from enroll.run.journal import Journal
from enroll.run.sender import stopped_by
from enroll.session.face_search import PhotoSearch, Searchable

_STOPPING = LIBRARY_CODES | {OwnCode.CLOCKS_APART}
"""Codes after which no other call of the run will do."""


class Library(Searchable, Protocol):
    """The calls by which a library is looked at; `enroll.facesearch.FaceSearch` offers them."""

    @property
    def least_clock_offset(self) -> float:
        """The service's clock minus ours, in seconds, the lower one where it is not certain."""

    def list(self, *, group_id: str, start: int = 1, limit: int = 100) -> Answer:
        """One page of the library's faces."""


@dataclass(frozen=True, slots=True, eq=False)
class _Lookup:
    """A call to be made, perhaps more than once; `on_answer` gets when it left, and the answer.

    It does not know itself, as a function that hands itself on does: its photo would stay in
    memory until garbage is collected.
    """

    kind: CallKind
    call: Callable[[], Answer]
    on_answer: Callable[[float, Answer], None]


class Lookups:
    """Makes the calls when there are slots for them, and again when they are refused one."""

    def __init__(
        self,
        service: Library,
        journal: Journal,
        limiter: Limiter,
        *,
        reach: Reachability,
        photo_search: PhotoSearch,
        refresh: CredentialRefresh,
    ) -> None:
        """`refresh` are the credentials that the service signs with."""
        self._service = service
        self._journal = journal
        self._limiter = limiter
        self._photo_search = photo_search
        self._reach = reach
        self._refresh = refresh
        self._photos = 0
        self.in_flight = 0
        """Calls that are being made."""
        self.stop: ServiceError | None = None
        """What the service said to stop the run."""
        self._waiting: deque[_Lookup] = deque()
        self._to_read: deque[tuple[FaceRecord, Callable[[Photo | None], None]]] = deque()

    def service_time(self) -> float:
        """What time it is on the service's clock, at the earliest, in UNIX seconds."""
        return clock.time() + self._service.least_clock_offset

    def read_photo_of(self, face: FaceRecord, on_photo: Callable[[Photo | None], None]) -> None:
        """Have a face's photo read again; None where no file has its content any more."""
        self._to_read.append((face, on_photo))

    def list_page(self, start: int, on_answer: Callable[[float, Answer], None]) -> None:
        """Ask for a page of the library; `on_answer` gets when (monotonic), and the answer."""
        group_id = self._photo_search.group_id
        call = partial(self._service.list, group_id=group_id, start=start, limit=LIST_PAGE)
        self._waiting.append(_Lookup(CallKind.LIST, call, on_answer))

    def search(
        self, photo: Photo, *, multi_oriented_detection: bool, on_answer: Callable[[Answer], None]
    ) -> None:
        """Ask for the faces most like this photo's, as many as there are to be had."""
        call = partial(
            self._photo_search.search,
            self._service,
            photo,
            multi_oriented_detection=multi_oriented_detection,
        )
        self._waiting.append(_Lookup(CallKind.SEARCH, call, lambda _, answer: on_answer(answer)))

    def work(self, submit: Submit, calls: Executor, readers: Executor) -> None:
        """Read what is to be read, and make as many calls as there are slots for."""
        while self._to_read and self._photos < self._limiter.limit:
            face, on_photo = self._to_read.popleft()
            paths = self._journal.ledger.paths_of([face.face_id])[face.face_id]
            self._photos += 1
            read = partial(self._photo_read, on_photo)
            submit(readers, read, self._photo_search.read, face, paths)
        now = clock.monotonic()
        while self._waiting and self._limiter.free(now) > 0:
            slot = self._limiter.sent(now)
            lookup = self._waiting.popleft()
            answered = partial(self._answered, lookup, slot, self._refresh.credentials)
            try:
                submit(calls, answered, lookup.call)
                self.in_flight += 1
            except ShortageError as error:  # no thread took it: it leaves when one is free
                self._waiting.appendleft(lookup)
                self._reach.shortage.met(str(error), now)
                self._limiter.release(slot, now, CallEnd.BLOCKED)
                return

    @property
    def waiting(self) -> int:
        """How many calls wait for their slots."""
        return len(self._waiting)

    def _photo_read(self, on_photo: Callable[[Photo | None], None], photo: Photo | None) -> None:
        if photo is None:
            self._photos -= 1
        on_photo(photo)

    def _answered(self, lookup: _Lookup, slot: Slot, used: Credentials, answer: Answer) -> None:
        self.in_flight -= 1
        refused = answer.verdict is Verdict.REFUSED
        no_place = refused or answer.verdict is Verdict.BLOCKED
        now = clock.monotonic()
        self._reach.heard(answer, now)
        release(self._limiter, slot, answer, now=now, service_time=self.service_time())
        if answer.left:
            self._journal.tally.calls[lookup.kind] += 1
            self._journal.tally.refused += refused
        if no_place or (answer.code in CREDENTIAL_CODES and self._refresh.others_than(used)):
            self._waiting.append(lookup)
            return
        if lookup.kind is CallKind.SEARCH:
            self._photos -= 1  # the call held the photo; no more of them lie in memory than slots
        if answer.code in _STOPPING or 300 <= answer.http_status < 400:
            self.stop = self.stop or stopped_by(answer, used)  # and what was asked stays open
            return
        lookup.on_answer(slot.left_at, answer)
