"""The exchanges by which a library is looked at: list, search, and photos read again for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from enroll import clock
from enroll.errors import ServiceError, ShortageError
from enroll.facesearch.answers import CREDENTIAL_CODES, LIBRARY_CODES, OwnCode
from enroll.facesearch.responses import LIST_PAGE
from enroll.limiter.limits import CallEnd, Limiter, Slot, release
from enroll.model import Answer, CallKind, Credentials, FaceRecord, Photo, SendAs, Verdict
from enroll.photos import PhotoStore, read_photo
from enroll.run.feed import Submit
from enroll.run.health import CredentialRefresh, Reachability
from enroll.run.journal import Journal
from enroll.run.reconcile_rules import LOOK_LIMIT, LOOK_THRESHOLD
from enroll.run.sender import stopped_by
from enroll.run.transitions import same_face
from enroll.settings import FOR_A_LOOK, Preparation

_STOPPING = LIBRARY_CODES | {OwnCode.CLOCKS_APART}
"""Codes after which no other call of the run will do."""


class Library(Protocol):
    """The calls that settling makes; `enroll.facesearch.FaceSearch` offers them."""

    @property
    def least_clock_offset(self) -> float:
        """The service's clock minus ours, in seconds, the lower one where it is not certain."""

    def search(
        self,
        *,
        group_id: str,
        photo: Photo,
        send_as: SendAs,
        limit: int = 1,
        threshold: float | None = None,
        multi_oriented_detection: bool = False,
    ) -> Answer:
        """Find the faces most like a photo's."""

    def list(self, *, group_id: str, start: int = 1, limit: int = 100) -> Answer:
        """One page of the library's faces."""


def read_again(
    paths: Sequence[str],
    store: PhotoStore,
    face: FaceRecord,
    preparation: Preparation = FOR_A_LOOK,
) -> Photo | None:
    """A face's photo from the first of the paths that still has it, or has it with other
    metadata."""
    for path in paths:
        photo = read_photo(path, store, preparation)
        if isinstance(photo, Photo) and same_face([face], photo) is not None:
            return photo
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A call to be made, perhaps more than once; `heard` gets when it left, and the answer.

    It does not know itself, as a function that hands itself on does: its photo would stay in
    memory until garbage is collected.
    """

    kind: CallKind
    call: Callable[[], Answer]
    heard: Callable[[float, Answer], None]


class Looks:
    """Makes the calls when there are places for them, and again when they are refused one."""

    def __init__(
        self,
        service: Library,
        journal: Journal,
        limiter: Limiter,
        *,
        reach: Reachability,
        group_id: str,
        send_as: SendAs,
        store: PhotoStore,
        preparation: Preparation,
        refresh: CredentialRefresh,
    ) -> None:
        """`refresh` are the credentials that the service signs with."""
        self._service = service
        self._journal = journal
        self._limiter = limiter
        self._group_id = group_id
        self._send_as = send_as
        self._store = store
        self._preparation = replace(preparation, convert=True, accept_truncated=True)
        self._reach = reach
        self._refresh = refresh
        self._photos = 0
        self.in_flight = 0
        """Calls that are being made."""
        self.stop: ServiceError | None = None
        """What the service said to stop the run."""
        self._asking: deque[_Look] = deque()
        self._reading: deque[tuple[FaceRecord, Callable[[Photo | None], None]]] = deque()

    def service_time(self) -> float:
        """What time it is on the service's clock, at the earliest, in UNIX seconds."""
        return clock.time() + self._service.least_clock_offset

    def read_photo_of(self, face: FaceRecord, heard: Callable[[Photo | None], None]) -> None:
        """Have a face's photo read again; None where no file has its content any more."""
        self._reading.append((face, heard))

    def list_page(self, start: int, heard: Callable[[float, Answer], None]) -> None:
        """Ask for a page of the library; `heard` gets when (monotonic), and the answer."""
        call = partial(self._service.list, group_id=self._group_id, start=start, limit=LIST_PAGE)
        self._asking.append(_Look(CallKind.LIST, call, heard))

    def search(
        self, photo: Photo, *, multi_oriented_detection: bool, heard: Callable[[Answer], None]
    ) -> None:
        """Ask for the faces most like this photo's, as many as there are to be had."""
        call = partial(
            self._service.search,
            group_id=self._group_id,
            photo=photo,
            send_as=self._send_as,
            limit=LOOK_LIMIT,
            threshold=LOOK_THRESHOLD,
            multi_oriented_detection=multi_oriented_detection,
        )
        self._asking.append(_Look(CallKind.SEARCH, call, lambda _, answer: heard(answer)))

    def work(self, submit: Submit, calls: Executor, readers: Executor) -> None:
        """Read what is to be read, and make as many calls as there are places for."""
        while self._reading and self._photos < self._limiter.limit:
            face, heard = self._reading.popleft()
            paths = self._journal.ledger.paths_of([face.face_id])[face.face_id]
            self._photos += 1
            told = partial(self._hear_photo, heard)
            submit(readers, told, read_again, paths, self._store, face, self._preparation)
        now = clock.monotonic()
        while self._asking and self._limiter.free(now) > 0:
            slot = self._limiter.sent(now)
            look = self._asking.popleft()
            heard = partial(self._hear, look, slot, self._refresh.credentials)
            try:
                submit(calls, heard, look.call)
                self.in_flight += 1
            except ShortageError as error:  # no thread took it: it leaves when one is free
                self._asking.appendleft(look)
                self._reach.shortage.met(str(error), now)
                self._limiter.release(slot, now, CallEnd.BLOCKED)
                return

    @property
    def waiting(self) -> int:
        """How many calls wait for their places."""
        return len(self._asking)

    def _hear_photo(self, heard: Callable[[Photo | None], None], photo: Photo | None) -> None:
        if photo is None:
            self._photos -= 1
        heard(photo)

    def _hear(self, look: _Look, slot: Slot, used: Credentials, answer: Answer) -> None:
        self.in_flight -= 1
        refused = answer.verdict is Verdict.REFUSED
        no_place = refused or answer.verdict is Verdict.BLOCKED
        now = clock.monotonic()
        self._reach.heard(answer, now)
        release(self._limiter, slot, answer, now=now, service_time=self.service_time())
        if answer.left:
            self._journal.tally.calls[look.kind] += 1
            self._journal.tally.refused += refused
        if no_place or (answer.code in CREDENTIAL_CODES and self._refresh.others_than(used)):
            self._asking.append(look)
            return
        if look.kind is CallKind.SEARCH:
            self._photos -= 1  # the call held the photo; no more of them lie in memory than places
        if answer.code in _STOPPING or 300 <= answer.http_status < 400:
            self.stop = self.stop or stopped_by(answer, used)  # and what was asked stays open
            return
        look.heard(slot.left_at, answer)
