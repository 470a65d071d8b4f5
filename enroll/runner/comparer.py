"""One search before each new face is added: whether its photo looks like another person.

A search leaves no trace, so it is made before the intent is recorded: a kill between the two costs
nothing but the search. What is found is judged by `enroll.session.resemblance`.

Two new faces that are added at the same time cannot find each other. So the same photo is never
under way twice, and of the faces that are due only a small share is between search and answer.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from functools import partial

from enroll import clock
from enroll.errors import EnrollError, ServiceError
from enroll.facesearch import Call, FoundFace, SignedCall
from enroll.facesearch.answers import CREDENTIAL_CODES, PHOTO_CODES, OwnCode
from enroll.ledger import Finding
from enroll.model import Answer, CallKind, Credentials, Fault, Status, Verdict
from enroll.runner.health import Breaker, CredentialWait
from enroll.runner.job import Job, Work
from enroll.runner.journal import Journal
from enroll.runner.sender import back_off, over_and_over, stopped_by
from enroll.runner.tasks import Calls, Later
from enroll.session.account import Connection
from enroll.session.library_faces import SEARCH_LIMIT, found_faces
from enroll.session.resemblance import NOT_COMPARED, SAME_SCORE, before_adding, why_held
from enroll.session.retry import NO_SLOT
from enroll.settings import Lookalikes

SHARE_AT_ONCE = 100
"""One of this many due faces may be between its search and the answer to its `add`. Of two new
faces that look alike, in rows drawn at random, at most 2 of 100 pairs meet there."""

IN_TURN = 2 * SHARE_AT_ONCE
"""From this many due rows on, they are not processed one after the other."""

_KNOWN_TO_END = frozenset({Status.ENROLLED, Status.HELD, Status.REJECTED})
"""Statuses of a face after which nothing more has to be waited for by others with its photo."""

_SAME_PHOTO_SCORE = 100.0
"""The score of the same bytes."""


@dataclass(slots=True, eq=False)
class _Search:
    """A job's search. `tries` counts the answers, `setbacks` the times that it had to be put off;
    `left_at` is when it left last (monotonic seconds);
    `same_photo` is a face with the same photo that was enrolled meanwhile."""

    job: Job
    tries: int = 0
    setbacks: int = 0
    left_at: float = 0.0
    same_photo: list[FoundFace] = field(default_factory=list)


class Comparer:
    """Every job between the decision to send its face and the answer to the search before that.

    `hear_all` has the jobs to go on with: to be sent, or with an outcome.
    """

    def __init__(
        self,
        work: Work,
        connection: Connection,
        journal: Journal,
        *,
        calls: Calls,
        credential_wait: CredentialWait,
    ) -> None:
        self._work = work
        self._connection = connection
        self._service = connection.service
        self._journal = journal
        self._calls = calls
        self._limiter = calls.limiter
        self._reach = calls.reach
        self._credential_wait = credential_wait
        self._ready: list[tuple[int, int, _Search]] = []  # by line; what is repeated comes first
        self._waiting: Later[_Search] = Later()
        self._order = itertools.count()
        self._in_flight: set[_Search] = set()
        self._answered: list[tuple[_Search, Credentials, Answer]] = []
        self._not_seen: set[Job] = set()  # between their search and the answer to their `add`
        self._content: dict[Job, bytes] = {}  # of the photos under way, whoever else has them
        self._same: dict[bytes, list[_Search]] = {}  # for each of these the others, who wait
        self._breaker = Breaker()
        self.stop: ServiceError | None = None
        """What the service said to stop the run."""
        self.unrecorded: EnrollError | None = None
        """Why an outcome could not be recorded."""

    def wants(self, job: Job) -> bool:
        """Whether a job that is to be sent has to be compared first. A face that is added again
        with another text looks like what is in the library already."""
        off = self._work.lookalikes is Lookalikes.OFF
        return not (off or job.compared or job.face.face_token is not None)

    @property
    def backlog(self) -> int:
        """Jobs that wait for their search."""
        return len(self._ready) + len(self._waiting) + sum(map(len, self._same.values()))

    @property
    def bytes_ahead(self) -> int:
        """Bytes of the photos of jobs that wait for their search."""
        ready = (search for _, _, search in self._ready)
        ahead = itertools.chain(ready, self._waiting, *self._same.values())
        return sum(search.job.photo.size for search in ahead)

    @property
    def ready(self) -> int:
        """Searches that could leave if there were slots."""
        return len(self._ready)

    @property
    def setbacks(self) -> int:
        """Searches that wait for their back-off."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Searches that are being made."""
        return len(self._in_flight)

    @property
    def answered(self) -> int:
        """Searches that have ended and whose answers are not judged."""
        return len(self._answered)

    @property
    def under_way(self) -> bool:
        """Whether any job is here."""
        here = (self._in_flight, self._answered, self._ready, self._waiting)
        return any(here) or any(self._same.values())

    def due_at(self) -> float | None:
        """When the next search may be made that waits for a time (monotonic seconds)."""
        moments = [self._waiting.due_at()]
        if self._ready and not self._in_flight:
            moments += [self._breaker.due_at(), self._credential_wait.due_at()]
        return min((moment for moment in moments if moment is not None), default=None)

    def take(self, job: Job) -> None:
        """Have the library searched for people who look like a job's face."""
        self._queue(_Search(job))

    def _queue(self, search: _Search) -> None:
        photo = search.job.photo
        content = photo.sent_sha256 or photo.sha256
        if content in self._same:
            self._same[content].append(search)
            return
        self._content[search.job], self._same[content] = content, []
        self._put(search)

    def _put(self, search: _Search) -> None:
        begun = search.job in self._not_seen  # first: the others may wait for it
        line = -1 if begun else search.job.due.row.line
        heapq.heappush(self._ready, (line, next(self._order), search))

    def send(self, now: float, *, reading: int) -> None:
        """Make as many searches as there are slots for; `reading` photos are being read."""
        for _, search in self._waiting.due(now):
            self._put(search)
        while self._may_send(now, reading):
            search = heapq.heappop(self._ready)[2]
            used = self._connection.credentials
            call = self._signed(search.job)
            if isinstance(call, Answer):
                self._answered.append((search, used, call))
                continue
            search.left_at = now
            self._in_flight.add(search)
            arrived = partial(self._arrived, search, used)
            if not self._calls.send(call, search.job.photo, arrived, now=now):
                self._in_flight.remove(search)  # it leaves when a thread is free
                self._put(search)
                return
            self._not_seen.add(search.job)

    def _may_send(self, now: float, reading: int) -> bool:
        if not self._ready or self._limiter.free(now) <= 0:
            return False
        if self._ready[0][2].job not in self._not_seen:
            most = max(self._journal.tally.due // SHARE_AT_ONCE, 1)
            # One after the other they go by line, so that of two lookalikes the first is added.
            if len(self._not_seen) >= most or (most == 1 and reading):
                return False
        in_flight = len(self._in_flight)
        return self._breaker.may_send(in_flight, now) and self._credential_wait.may_send(
            in_flight, now
        )

    def _signed(self, job: Job) -> SignedCall | Answer:
        call = Call.search(
            group_id=self._work.group_id,
            send_as=self._work.send_as,
            limit=SEARCH_LIMIT,
            threshold=SAME_SCORE,
            multi_oriented_detection=job.face.multi_oriented_detection,
        )
        return self._service.sign(call)

    def _arrived(self, search: _Search, used: Credentials, answer: Answer) -> None:
        self._in_flight.remove(search)
        self._answered.append((search, used, answer))

    def hear_all(self) -> list[Job]:
        """Judge the answers received so far. Returns the jobs to go on with: those that are
        `compared` are to be sent, the others have their outcome."""
        answered, self._answered = self._answered, []
        finished = []
        for search, used, answer in answered:
            try:
                if self._hear(search, used, answer):
                    finished.append(search.job)
            except EnrollError as error:
                self.unrecorded = self.unrecorded or error
        return finished

    def _hear(self, search: _Search, used: Credentials, answer: Answer) -> bool:
        """Whether no further search is made for a job after this answer."""
        now = clock.monotonic()
        self._count(search, answer, now)
        if self._connection.refresh_credentials(answer, used):
            self._credential_wait.renewed()
            self._put(search)
            return False
        if answer.verdict in NO_SLOT or self._credential_wait.refused(answer, now):
            self._put(search)
            return False
        if answer.verdict is Verdict.FATAL:
            self.stop = self.stop or stopped_by(answer, used)
            self._put(search)
            return False
        if answer.verdict is Verdict.NOT_SENT or (
            answer.verdict is Verdict.UNKNOWN and search.tries < self._work.policy.attempts
        ):
            search.setbacks += 1
            self._waiting.put(now + back_off(search.setbacks), search)
            return False
        if answer.code in PHOTO_CODES:  # the `add` will be refused, too, and says why
            search.job.compared = True
            return True
        found = found_faces(answer)
        if found is None:
            self._failed(search.job, answer)
        else:
            self._judge(search.job, [*search.same_photo, *found])
        return True

    def _count(self, search: _Search, answer: Answer, now: float) -> None:
        self._reach.heard(answer, now)
        if not answer.may_have_arrived:
            return
        tally, refused = self._journal.tally, answer.verdict is Verdict.REFUSED
        tally.calls[CallKind.SEARCH] += 1
        tally.refused += refused
        if refused or answer.code in CREDENTIAL_CODES:
            return
        search.tries += 1
        if answer.code == OwnCode.WORKER_LOST:
            return  # it says nothing about the service
        if answer.served:
            self._credential_wait.accepted(search.left_at)
        if self._breaker.heard(answer, rejected=False, now=now) is not None:
            self.stop = self.stop or over_and_over(answer)

    def _judge(self, job: Job, found: list[FoundFace]) -> None:
        """Hold a job's face, or let it be sent."""
        findings = self._findings(job, found)
        if findings and self._work.lookalikes is Lookalikes.HOLD:
            job.face = self._journal.held(job.due, job.photo, job.face, findings)
            return
        if findings:
            self._journal.warning(job.due, why_held(findings))
        job.findings, job.compared = findings, True

    def _findings(self, job: Job, found: list[FoundFace]) -> list[Finding]:
        user_id, ledger = job.face.user_id, self._journal.ledger
        if not before_adding(found, user_id, (), accepted=frozenset()):
            return []
        faces = ledger.faces_of([user_id])[user_id]
        own = {token for face in faces for token in (face.face_token, face.former_token) if token}
        accepted = ledger.findings.accepted([user_id])
        return before_adding(found, user_id, own, accepted=accepted)

    def _failed(self, job: Job, answer: Answer) -> None:
        """No search can say whether a job's face looks like another person."""
        said = answer.message or answer.code or "the answer is not as documented"
        fault = Fault(
            code=NOT_COMPARED,
            message=f"The search for people who look like the photo failed: {said.rstrip('.')}.",
        )
        if self._work.lookalikes is Lookalikes.HOLD:
            job.face = self._journal.not_compared(job.due, job.photo, job.face, fault)
            return
        self._journal.warning(job.due, fault)
        job.compared = True

    def left(self, job: Job) -> None:
        """A job has its outcome, or is in doubt: others with its photo go on."""
        self._not_seen.discard(job)
        content = self._content.pop(job, None)
        if content is None:
            return
        waiting, face = self._same.pop(content), job.face
        if face.face_token is not None:  # a search need not show it yet
            seen = FoundFace(
                face_token=face.face_token,
                user_id=face.user_id,
                user_data=face.user_data,
                score=_SAME_PHOTO_SCORE,
            )
            for search in waiting:
                search.same_photo.append(seen)
        for search in waiting:
            if face.status in _KNOWN_TO_END:
                self._put(search)
            else:
                self._queue(search)

    def withdraw(self) -> None:
        """Count the searches that have not ended when the run does."""
        self._journal.tally.calls[CallKind.SEARCH] += len(self._in_flight)
