"""The calls by which a run looks at its library: `list`, and `search` with a photo read again.

Each is repeated until its answer proves something (`enroll.session.retry.RUN`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from enroll import clock
from enroll.engine import HeldPhoto, Read
from enroll.errors import ServiceError
from enroll.facesearch import LIST_PAGE, Call, SignedCall
from enroll.facesearch.answers import LIBRARY_CODES, OwnCode
from enroll.model import Answer, CallKind, Credentials, FaceRecord, Verdict, same_face
from enroll.runner.job import Work
from enroll.runner.journal import Journal
from enroll.runner.sender import stopped_by
from enroll.runner.tasks import Calls, Later, Tasks
from enroll.session.account import Connection
from enroll.session.library_faces import SEARCH_LIMIT, SEARCH_THRESHOLD
from enroll.session.retry import NO_SLOT, RUN, RetryPolicy

_STOPPING = LIBRARY_CODES | {OwnCode.CLOCKS_APART}
"""Codes that every other call of the run would get, too."""


@dataclass(slots=True, eq=False, kw_only=True)
class Lookup:
    """A page of `list` from the face number `start` on, or a search with the photo of `face`.

    `paths` are where its photo may still be. `sent_at` is when the call left last, on the monotonic
    clock and on the service's (UNIX seconds, at the earliest).
    """

    start: int = 1
    face: FaceRecord | None = None
    policy: RetryPolicy = RUN
    on_answer: Callable[[Lookup, Answer], None]
    on_no_photo: Callable[[], None] = lambda: None
    paths: Sequence[str] = ()
    photo: HeldPhoto | None = None
    tries: Counter[Verdict] = field(default_factory=Counter)
    sent_at: float = 0.0
    service_time: float = 0.0


class Lookups:
    """Makes the calls when there are slots for them, and repeats them until they are answered.

    At most as many photos lie in memory as there may be calls in flight: a search that has to
    wait reads its photo once more.
    """

    def __init__(
        self,
        work: Work,
        connection: Connection,
        journal: Journal,
        *,
        tasks: Tasks,
        calls: Calls,
    ) -> None:
        self._work = work
        self._connection = connection
        self._service = connection.service
        self._journal = journal
        self._tasks = tasks
        self._calls = calls
        self._limiter = calls.limiter
        self._reach = calls.reach
        # Whatever was sent once can be searched with.
        self._preparation = replace(work.preparation, convert=True, accept_truncated=True)
        self._photos = 0
        self.in_flight = 0
        """Calls that are being made."""
        self.stop: ServiceError | None = None
        """What the service said to stop the run."""
        self._ready: deque[Lookup] = deque()
        self._to_read: deque[tuple[FaceRecord, Lookup]] = deque()
        self._put_off: Later[Lookup] = Later()

    def service_time(self) -> float:
        """What time it is on the service's clock, at the earliest, in UNIX seconds."""
        return self._calls.service_time()

    def due_at(self) -> float | None:
        """When the next failed call is to be repeated (monotonic seconds)."""
        return self._put_off.due_at()

    @property
    def ready(self) -> int:
        """How many calls wait for their slots."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """How many calls wait for their slots, or to be made again."""
        return len(self._ready) + len(self._put_off)

    def list_page(
        self, start: int, on_answer: Callable[[Lookup, Answer], None], *, policy: RetryPolicy = RUN
    ) -> None:
        """Ask for a page of the library; `on_answer` gets the answer that stands."""
        self._ready.append(Lookup(start=start, policy=policy, on_answer=on_answer))

    def search(
        self,
        face: FaceRecord,
        *,
        on_answer: Callable[[Lookup, Answer], None],
        on_no_photo: Callable[[], None],
    ) -> None:
        """Have a face's photo read and ask for the faces most like it, as many as there are;
        `on_no_photo` is called where no file has its content any more."""
        lookup = Lookup(face=face, on_answer=on_answer, on_no_photo=on_no_photo)
        self._to_read.append((face, lookup))

    def work(self) -> None:
        """Read what is to be read, and make as many calls as there are slots for."""
        now = clock.monotonic()
        for _, lookup in self._put_off.due(now):
            if lookup.face is None:
                self._ready.append(lookup)
            else:
                self._to_read.append((lookup.face, lookup))
        while self._to_read and self._photos < self._limiter.limit:
            face, lookup = self._to_read.popleft()
            lookup.paths = self._journal.ledger.paths_of([face.face_id])[face.face_id]
            self._photos += 1
            self._read_next(lookup)
        while self._ready and self._limiter.free(now) > 0:
            lookup = self._ready.popleft()
            used = self._connection.credentials
            call = self._signed(lookup)
            if isinstance(call, Answer):
                self._judge(lookup, used, call)
                continue
            lookup.sent_at, lookup.service_time = now, self.service_time()
            answered = partial(self._answered, lookup, used)
            if not self._calls.send(call, lookup.photo, answered, now=now):
                self._ready.appendleft(lookup)  # it leaves when a thread is free
                return
            self.in_flight += 1

    def _read_next(self, lookup: Lookup) -> None:
        """Have the photo read from the next of its paths."""
        if not lookup.paths:
            self._photos -= 1
            lookup.on_no_photo()
            return
        path, *lookup.paths = lookup.paths
        self._tasks.read([path], self._preparation, partial(self._photo_read, lookup))

    def _photo_read(self, lookup: Lookup, read: Read) -> None:
        (photo,), _ = read
        if isinstance(photo, HeldPhoto):
            if lookup.face is not None and same_face([lookup.face], photo) is not None:
                lookup.photo = photo  # the same, or with other metadata
                self._ready.append(lookup)
                return
            self._tasks.drop(photo)
        self._read_next(lookup)

    def _signed(self, lookup: Lookup) -> SignedCall | Answer:
        if lookup.face is None:
            call = Call.list(group_id=self._work.group_id, start=lookup.start, limit=LIST_PAGE)
        else:
            call = Call.search(
                group_id=self._work.group_id,
                send_as=self._work.send_as,
                limit=SEARCH_LIMIT,
                threshold=SEARCH_THRESHOLD,
                multi_oriented_detection=lookup.face.multi_oriented_detection,
            )
        return self._service.sign(call)

    def _answered(self, lookup: Lookup, used: Credentials, answer: Answer) -> None:
        self.in_flight -= 1
        self._judge(lookup, used, answer)

    def _judge(self, lookup: Lookup, used: Credentials, answer: Answer) -> None:
        now = clock.monotonic()
        self._reach.heard(answer, now)
        if answer.may_have_arrived:
            kind = CallKind.LIST if lookup.face is None else CallKind.SEARCH
            self._journal.tally.calls[kind] += 1
            self._journal.tally.refused += answer.verdict is Verdict.REFUSED
        lookup.tries[answer.verdict] += 1
        after = lookup.policy.again_after(answer, lookup.tries)
        no_slot = after is not None and answer.verdict in NO_SLOT
        refreshed = self._connection.refresh_credentials(answer, used)
        if no_slot or refreshed:
            self._ready.append(lookup)
            return
        if lookup.photo is not None:
            self._tasks.drop(lookup.photo)
            lookup.photo = None
            self._photos -= 1
        if after is not None:
            self._put_off.put(now + after, lookup)
        elif answer.code in _STOPPING or 300 <= answer.http_status < 400:
            self.stop = self.stop or stopped_by(answer, used)  # and what was asked stays open
        else:
            lookup.on_answer(lookup, answer)
