"""The calls of a run: intended, committed, sent when there is a slot, answered, sent again."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import replace
from functools import partial

from tenacity import RetryCallState, Retrying, wait_exponential_jitter

from enroll import clock
from enroll.errors import EnrollError, LocalError, ServiceError
from enroll.expiry import INTENT_SECONDS
from enroll.facesearch import Call, SignedCall
from enroll.facesearch.answers import CREDENTIAL_CODES, OwnCode
from enroll.facesearch.signing import clock_remark
from enroll.ledger import INTERRUPTED
from enroll.model import (
    Answer,
    CallKind,
    Credentials,
    FaceRecord,
    Status,
    Verdict,
)
from enroll.runner import transitions
from enroll.runner.health import Breaker, CredentialWait
from enroll.runner.job import Job, Work
from enroll.runner.journal import Journal
from enroll.runner.tasks import Calls, Later
from enroll.runner.transitions import Again, Step, Stop
from enroll.session.account import Connection
from enroll.settings import CodeRule
from enroll.text.remedies import remedy

BACK_OFF = wait_exponential_jitter(multiplier=1, max=60, jitter=1)
"""Seconds before a call that could not leave, or that `--on-code` retries, is made again."""

RAW_ANSWERS = 3
"""How many answers of a code are kept as they came."""

REPEATED = "TOKEN_REPEATED"
"""The code of a face for which the service answered with another face's token."""


class Sender:
    """Every job between the decision to send its face and what the answer means.

    A job is ready (no intent recorded), then arming (intent recorded, not committed), armed (intent
    on disk), in flight, and answered, when its slot is free again. Then it is finished, or goes
    back to ready, or waits for its back-off.
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
        self._ready: deque[Job] = deque()
        self._arming: list[Job] = []
        self._armed: deque[Job] = deque()
        self._in_flight: dict[Job, None] = {}  # in the order in which they left
        self._answered: list[tuple[Job, Answer]] = []
        self._urgent = False
        self._waiting: Later[Job] = Later()
        self._breaker = Breaker()
        self._kept: Counter[str] = Counter()
        self.stop: ServiceError | None = None
        """What the service said to stop the run."""
        self.unrecorded: EnrollError | None = None
        """Why an answer could not be recorded."""

    @property
    def backlog(self) -> int:
        """Jobs that wait for their intent to be recorded."""
        return len(self._ready)

    @property
    def ready(self) -> int:
        """Jobs that could leave if there were slots."""
        return len(self._ready) + len(self._arming) + len(self._armed)

    @property
    def bytes_ahead(self) -> int:
        """Bytes of the photos of jobs that have not left."""
        ahead = itertools.chain(self._ready, self._arming, self._armed, self._waiting)
        return sum(job.photo.size for job in ahead)

    @property
    def under_way(self) -> bool:
        """Whether any job is on its way."""
        on_their_way = (self._ready, self._arming, self._armed, self._in_flight, self._answered)
        return any(on_their_way) or bool(self._waiting)

    @property
    def answered(self) -> int:
        """Calls that have ended and whose answers are not recorded."""
        return len(self._answered)

    @property
    def urgent(self) -> bool:
        """Whether an answer is waiting after which perhaps no further call should leave."""
        return self._urgent

    @property
    def setbacks(self) -> int:
        """Jobs that wait for their back-off."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Calls that are being made."""
        return len(self._in_flight)

    def due_at(self) -> float | None:
        """When the next job may go on that waits for a time (monotonic seconds)."""
        moments = [self._waiting.due_at()]
        if self._armed and not self._in_flight:
            moments += [self._breaker.due_at(), self._credential_wait.due_at()]
        return min((moment for moment in moments if moment is not None), default=None)

    def take(self, job: Job) -> None:
        """Have a face sent."""
        self._ready.append(job)

    def arm(self) -> None:
        """Record the intents of the next calls, at most as many ahead as there are slots."""
        while self._ready and len(self._armed) + len(self._arming) < self._limiter.limit:
            job = self._ready.popleft()
            job.previous_expires, expires = job.face.expires, self._latest_expiry()
            job.face = self._journal.intent(job.due, job.photo, job.face, expires=expires)
            self._arming.append(job)

    def _latest_expiry(self) -> int:
        """The expiry to record with an intent now: after a commit that takes as long as the last
        one, its call has `INTENT_SECONDS` to leave."""
        return self._service.expiry(within=self._journal.took + INTENT_SECONDS)

    def starving(self, now: float) -> bool:
        """Whether a slot is free that only a commit can fill."""
        return bool(self._arming) and self.hungry(now)

    def hungry(self, now: float) -> bool:
        """Whether a slot is free and no call is ready to leave."""
        return not self._armed and self._limiter.free(now) > 0

    def may_send(self, now: float) -> bool:
        """Whether a call is ready to leave and there is a slot for it."""
        return (
            bool(self._armed)
            and self._limiter.free(now) > 0
            and self._breaker.may_send(len(self._in_flight), now)
            and self._credential_wait.may_send(len(self._in_flight), now)
        )

    def committed(self) -> None:
        """Every intent recorded so far is on the disk."""
        self._armed.extend(self._arming)
        self._arming.clear()

    def send(self, now: float) -> None:
        """Send as many calls as there are slots for, as long as the last sign of life is recent:
        handing out many calls takes a while if a thread is started for each."""
        self._ready.extend(job for _, job in self._waiting.due(now))
        while self.may_send(now) and self._journal.alive(clock.monotonic()):
            job = self._armed.popleft()
            job.credentials = self._connection.credentials
            call = self._signed(job.face)
            if isinstance(call, Answer):  # what is in flight may say it better
                if self._in_flight:
                    self._armed.appendleft(job)
                    return
                self._hear_later(job, call)
                continue
            if call.expires > (job.face.expires or 0.0):  # it has waited, or the clock was set
                expires = self._latest_expiry()
                job.face = self._journal.renew_intent(job.face, expires=expires)
                self._arming.append(job)
                continue
            job.expires, job.left_at = call.expires, now
            self._in_flight[job] = None
            if not self._calls.send(call, job.photo, partial(self._arrived, job), now=now):
                del self._in_flight[job]  # it leaves when a thread is free
                self._armed.appendleft(job)
                return

    def _signed(self, face: FaceRecord) -> SignedCall | Answer:
        call = Call.add(
            group_id=self._work.group_id,
            user_id=face.user_id,
            user_data=face.user_data,
            send_as=self._work.send_as,
            multi_oriented_detection=face.multi_oriented_detection,
        )
        return self._service.sign(call)

    def _arrived(self, job: Job, answer: Answer) -> None:
        """A call has ended; `hear_all` records what its answer means."""
        del self._in_flight[job]
        self._hear_later(job, answer)

    def _hear_later(self, job: Job, answer: Answer) -> None:
        self._answered.append((job, answer))
        self._urgent = self._urgent or answer.verdict is not Verdict.APPLIED

    def hear_all(self) -> list[Job]:
        """Record what the answers received so far mean. Returns the jobs that need no further
        call: each face has its outcome or is in doubt.

        An answer may carry a face token, so each is handled whatever happens with the others; the
        first error is kept in `unrecorded`.
        """
        answered, self._answered, self._urgent = self._answered, [], False
        holders: dict[str, int] = {}
        try:
            tokens = [answer.face_token for _, answer in answered if answer.face_token]
            if tokens:
                holders = self._journal.ledger.holders_of(tokens)
        except LocalError as error:
            self.unrecorded = self.unrecorded or error
        finished = []
        for job, answer in answered:
            try:
                if not isinstance(self._hear(job, answer, holders), Again):
                    finished.append(job)
            except EnrollError as error:
                self.unrecorded = self.unrecorded or error
        return finished

    def _hear(self, job: Job, answer: Answer, holders: dict[str, int]) -> Step:
        """Record what an answer means, and what comes next for its job; `holders` are the faces
        whose tokens are known, and takes this one's."""
        now = clock.monotonic()
        self._count(job, answer, now)
        if answer.verdict is Verdict.APPLIED:
            answer = _proved_new(job.face, answer, holders)
        self._keep_raw(answer)
        step = transitions.after(
            job.face,
            answer,
            at=clock.now_ms(),
            policy=self._work.policy,
            tries=job.tries,
            previous_expires=job.previous_expires,
        )
        if isinstance(step, Stop):
            if self._connection.refresh_credentials(answer, job.credentials):
                self._credential_wait.renewed()
                step = Again(step.face, refused=True)
            elif self._credential_wait.refused(answer, now):
                step = Again(step.face, refused=True)
        self._follow(job, step, now)
        return step

    def _count(self, job: Job, answer: Answer, now: float) -> None:
        refused = answer.verdict is Verdict.REFUSED
        self._reach.heard(answer, now)
        if not answer.may_have_arrived:
            return
        self._journal.tally.calls[CallKind.ADD] += 1
        self._journal.tally.refused += refused
        job.tries += not (refused or answer.code in CREDENTIAL_CODES)
        if answer.code == OwnCode.WORKER_LOST:
            return  # it says nothing about the service
        if answer.code in CREDENTIAL_CODES:
            return  # it may be made again with others, else it stops the run by itself
        if answer.served:
            self._credential_wait.accepted(job.left_at)
            self._journal.tally.calls_took.add(answer.elapsed)
            if answer.time_used is not None:
                self._journal.tally.service_took.add(answer.time_used / 1000)
        if not refused:
            rejected = self._work.policy.on_code.get(answer.code) is CodeRule.REJECT
            code = self._breaker.heard(answer, rejected=rejected, now=now)
            if code is not None:
                self.stop = self.stop or over_and_over(answer)

    def _follow(self, job: Job, step: Step, now: float) -> None:
        job.face = step.face
        self._journal.face(step.face, ended=not isinstance(step, Again | Stop))
        if isinstance(step, Stop):
            self.stop = self.stop or stopped_by(step.answer, self._connection.credentials)
        elif isinstance(step, Again) and step.refused:
            self._ready.appendleft(job)
        elif isinstance(step, Again):
            job.setbacks += 1
            due_at = now + back_off(job.setbacks)
            self._waiting.put(due_at, job)

    def _keep_raw(self, answer: Answer) -> None:
        """Keep the first few answers that are not documented, for `enroll status`."""
        odd = answer.raw and answer.verdict in (Verdict.FAILED, Verdict.UNKNOWN)
        if not odd or self._kept[answer.code] >= RAW_ANSWERS:
            return
        self._kept[answer.code] += 1
        self._journal.raw_answer(answer, number=self._kept[answer.code])

    def withdraw(self) -> list[Job]:
        """Take back what has not left; the jobs whose calls have not ended, now in doubt."""
        for job in (*self._arming, *self._armed):
            face = transitions.cancel(job.face, previous_expires=job.previous_expires)
            self._journal.cancelled(face)
        self._journal.tally.calls[CallKind.ADD] += len(self._in_flight)
        for job in self._in_flight:
            job.face = replace(
                job.face,
                status=Status.IN_DOUBT,
                code=INTERRUPTED,
                message="The run ended before the answer came; the service may have the face.",
                expires=job.expires,
            )
            self._journal.face(job.face)
        return list(self._in_flight)


def back_off(setbacks: int) -> float:
    """Seconds to wait after so many setbacks, by tenacity's strategy."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = setbacks
    return BACK_OFF(state)


def _proved_new(face: FaceRecord, answer: Answer, holders: dict[str, int]) -> Answer:
    """An answer with the token of another face proves nothing about this one."""
    if holders.setdefault(answer.face_token, face.face_id) == face.face_id:
        return answer
    return replace(
        answer,
        verdict=Verdict.UNKNOWN,
        code=REPEATED,
        message="The service answered with the token of another face.",
    )


def over_and_over(answer: Answer) -> ServiceError:
    """What to stop a run with whose calls keep failing like this."""
    said = f"{answer.code} ({answer.message})" if answer.message != answer.code else answer.code
    advice = f"{said.rstrip('.')}. {remedy(answer.code)}".rstrip()
    return ServiceError(
        f"The service returns the same error again and again: {advice} Every row that is not "
        f"enrolled yet stays due; --on-code {answer.code}=reject rejects such rows instead."
    )


def stopped_by(answer: Answer, used: Credentials) -> ServiceError:
    """What to say when the service has answered that no call of the run will do."""
    said = (answer.message or answer.code).rstrip(".")
    clocks = clock_remark(answer, 0.0) if answer.code in CREDENTIAL_CODES else ""
    sentence = " ".join(filter(None, [f"{said}.", clocks, remedy(answer.code, used=used)]))
    return ServiceError(
        f"The service stopped the run: {sentence} Every row that is not enrolled yet stays due."
    )
