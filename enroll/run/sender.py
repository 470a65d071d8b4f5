"""The calls of a run: intended, committed, sent when there is a place, answered, sent again."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from tenacity import RetryCallState, Retrying, wait_exponential_jitter

from enroll.clock import now_ms
from enroll.errors import EnrollError, LocalError, ServiceError, ShortageError
from enroll.facesearch.clock import clock_remark
from enroll.ledger import INTERRUPTED, Changes
from enroll.limiter.limits import Permit, Throttle
from enroll.model import (
    Answer,
    CallKind,
    Candidate,
    Credentials,
    FaceRecord,
    Photo,
    RawAnswer,
    SendAs,
    Status,
    Verdict,
)
from enroll.run import transitions as journey
from enroll.run.breaker import Breaker
from enroll.run.credential_refresh import Rotation
from enroll.run.feed import Submit
from enroll.run.journal import Recorder
from enroll.run.reachability import Reach
from enroll.run.release import UNSERVED, tell
from enroll.run.transitions import Again, Doubtful, Policy, Settled, Stop
from enroll.settings import CodeRule
from enroll.text.remedies import remedy

BACK_OFF = wait_exponential_jitter(multiplier=1, max=60, jitter=1)
"""Seconds before a call that could not leave, or that `--on-code` retries, is made again."""

RAW_ANSWERS = 3
"""How many answers of a code are kept as they came."""

REPEATED = "TOKEN_REPEATED"
"""The code of a face for which the service answered with another face's token."""


class Service(Protocol):
    """The calls that the driver makes; `enroll.facesearch.FaceSearch` offers them."""

    @property
    def clock_offset(self) -> float:
        """The service's clock minus ours, in seconds."""

    def add(
        self,
        *,
        group_id: str,
        user_id: str,
        user_data: str,
        photo: Photo,
        send_as: SendAs,
        multi_oriented_detection: bool,
    ) -> Answer:
        """Add a face; never raises for what the network or the service does."""


@dataclass(slots=True, eq=False)
class Shipment:
    """A face on its way to the service.

    `tries` counts this run's answers, `setbacks` the times that it had to wait; `credentials` are
    those that it was last sent with.
    """

    due: Candidate
    photo: Photo
    face: FaceRecord
    credentials: Credentials | None = None
    tries: int = 0
    setbacks: int = 0


class Calls:
    """Every face between the decision to send it and its outcome.

    A shipment goes from ready (intent not recorded) to arming (recorded, not committed) to armed
    (intent on the disk) to in flight and to answered, where its place is free again; from there it
    leaves, or goes back to ready or waiting.
    """

    def __init__(
        self,
        service: Service,
        recorder: Recorder,
        throttle: Throttle,
        *,
        reach: Reach,
        group_id: str,
        send_as: SendAs,
        policy: Policy,
        left: Callable[[Shipment], None],
        doubted: Callable[[Shipment], None],
        rotation: Rotation,
    ) -> None:
        """`left` hears of each face that has its outcome, `doubted` of each that has to be
        settled; `rotation` are the credentials that the service signs with."""
        self._service = service
        self._recorder = recorder
        self._throttle = throttle
        self._group_id = group_id
        self._send_as = send_as
        self._policy = policy
        self._reach = reach
        self._left = left
        self._doubted = doubted
        self._rotation = rotation
        self._ready: deque[Shipment] = deque()
        self._arming: list[Shipment] = []
        self._armed: deque[Shipment] = deque()
        self._in_flight: dict[Shipment, Permit] = {}
        self._answered: list[tuple[Shipment, Answer]] = []
        self._urgent = False
        self._waiting: list[tuple[float, int, Shipment]] = []
        self._order = itertools.count()
        self._holders: dict[str, int] = {}
        self._breaker = Breaker()
        self._kept: Counter[str] = Counter()
        self.stop: ServiceError | None = None
        """What the service said to stop the run."""

    @property
    def backlog(self) -> int:
        """Shipments that wait for their intent to be recorded."""
        return len(self._ready)

    @property
    def ready(self) -> int:
        """Shipments that could leave if there were places."""
        return len(self._ready) + len(self._arming) + len(self._armed)

    @property
    def bytes_ahead(self) -> int:
        """Bytes of the photos of shipments that have not left."""
        waiting = (shipment for _, _, shipment in self._waiting)
        ahead = itertools.chain(self._ready, self._arming, self._armed, waiting)
        return sum(len(shipment.photo.content) for shipment in ahead)

    @property
    def under_way(self) -> bool:
        """Whether any shipment is on its way."""
        on_their_way = (self._ready, self._arming, self._armed, self._in_flight, self._answered)
        return any(on_their_way) or bool(self._waiting)

    @property
    def answered(self) -> int:
        """Calls that have ended and whose answers have not been heard."""
        return len(self._answered)

    @property
    def urgent(self) -> bool:
        """Whether one of these may mean that no further call should leave."""
        return self._urgent

    @property
    def setbacks(self) -> int:
        """Shipments that wait for their back-off."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Calls that are being made."""
        return len(self._in_flight)

    def next_due(self) -> float | None:
        """When the first of those that wait may go on (monotonic seconds)."""
        moments = [self._waiting[0][0] if self._waiting else None]
        if self._armed and not self._in_flight:
            moments.append(self._breaker.next_due())
        return min((moment for moment in moments if moment is not None), default=None)

    def take(self, shipment: Shipment) -> None:
        """Have a face sent."""
        self._ready.append(shipment)

    def arm(self) -> None:
        """Record the intents of the next calls, at most as many ahead as there are places."""
        while self._ready and len(self._armed) + len(self._arming) < self._throttle.limit:
            shipment = self._ready.popleft()
            shipment.face = self._recorder.intent(shipment.due, shipment.photo, shipment.face)
            self._arming.append(shipment)

    def starving(self, now: float) -> bool:
        """Whether a place is free that only a commit can fill."""
        return bool(self._arming) and self.hungry(now)

    def hungry(self, now: float) -> bool:
        """Whether a place is free and no call is ready to leave."""
        return not self._armed and self._throttle.free(now) > 0

    def may_send(self, now: float) -> bool:
        """Whether a call is ready to leave and there is a place for it."""
        return (
            bool(self._armed)
            and self._throttle.free(now) > 0
            and self._breaker.may_send(len(self._in_flight), now)
        )

    def committed(self) -> None:
        """Every intent recorded so far is on the disk."""
        self._armed.extend(self._arming)
        self._arming.clear()

    def send(self, submit: Submit, executor: Executor, *, now: float) -> None:
        """Let as many calls leave as there are places for, while the sign of life is young enough:
        many calls take long to hand out where each has a thread started for it."""
        while self._waiting and self._waiting[0][0] <= now:
            self._ready.append(heapq.heappop(self._waiting)[2])
        while self.may_send(now) and self._recorder.alive(time.monotonic()):
            shipment = self._armed.popleft()
            shipment.credentials = self._rotation.credentials
            self._in_flight[shipment] = permit = self._throttle.sent(now)
            face = shipment.face
            call = partial(
                self._service.add,
                group_id=self._group_id,
                user_id=face.user_id,
                user_data=face.user_data,
                photo=shipment.photo,
                send_as=self._send_as,
                multi_oriented_detection=face.multi_oriented_detection,
            )
            try:
                submit(executor, partial(self._arrived, shipment), call)
            except ShortageError as error:  # no thread took it: it leaves when one is free
                del self._in_flight[shipment]
                self._armed.appendleft(shipment)
                self._reach.shortage.met(str(error), now)
                self._throttle.answered(permit, now, refused=False, served=False, blocked=True)
                return

    def _arrived(self, shipment: Shipment, answer: Answer) -> None:
        """A call has ended: its place is free at once, what it means is heard with others'."""
        permit = self._in_flight.pop(shipment)
        service_time = time.time() + self._service.clock_offset
        tell(self._throttle, permit, answer, now=time.monotonic(), service_time=service_time)
        self._answered.append((shipment, answer))
        self._urgent = self._urgent or answer.verdict is not Verdict.APPLIED

    def hear_answers(self) -> EnrollError | None:
        """Decide and record what the answers mean that have come; the first error, if any.

        They bear face tokens: each is heard whatever became of the others.
        """
        if not self._answered:
            return None
        answered, self._answered, self._urgent = self._answered, [], False
        failure: EnrollError | None = None
        tokens = [answer.face_token for _, answer in answered if answer.face_token]
        self._holders = {}
        try:
            if tokens:
                self._holders = self._recorder.ledger.holders_of(tokens)
        except LocalError as error:
            failure = error
        for shipment, answer in answered:
            try:
                self._hear(shipment, answer)
            except EnrollError as error:
                failure = failure or error
        return failure

    def _hear(self, shipment: Shipment, answer: Answer) -> None:
        now = time.monotonic()
        self._count(shipment, answer, now)
        if answer.verdict is Verdict.APPLIED:
            answer = self._proved_new(shipment.face, answer)
        self._keep_raw(answer)
        step = journey.after(
            shipment.face, answer, at=now_ms(), policy=self._policy, tries=shipment.tries
        )
        if isinstance(step, Stop) and self._credentials_changed(shipment, step.answer):
            step = Again(step.face, refused=True)
        self._follow(shipment, step, now)

    def _count(self, shipment: Shipment, answer: Answer, now: float) -> None:
        refused = answer.verdict is Verdict.REFUSED
        self._reach.heard(answer, now)
        if not answer.left:
            return
        self._recorder.tally.calls[CallKind.ADD] += 1
        self._recorder.tally.refused += refused
        shipment.tries += not refused
        if answer.verdict not in UNSERVED:
            self._recorder.tally.calls_took.add(answer.elapsed)
            if answer.time_used is not None:
                self._recorder.tally.service_took.add(answer.time_used / 1000)
        if not refused:
            rejected = self._policy.on_code.get(answer.code) is CodeRule.REJECT
            code = self._breaker.heard(answer, rejected=rejected, now=now)
            if code is not None:
                self.stop = self.stop or _over_and_over(answer)

    def _follow(
        self, shipment: Shipment, step: Settled | Doubtful | Again | Stop, now: float
    ) -> None:
        shipment.face = step.face
        self._recorder.face(step.face, ended=not isinstance(step, Again | Stop))
        if isinstance(step, Again) and step.refused:
            self._ready.appendleft(shipment)
        elif isinstance(step, Again):
            shipment.setbacks += 1
            due_at = now + _back_off(shipment.setbacks)
            heapq.heappush(self._waiting, (due_at, next(self._order), shipment))
        elif isinstance(step, Doubtful):
            self._doubted(shipment)
        else:
            if isinstance(step, Stop):
                self.stop = self.stop or stopped_by(step.answer, self._rotation.credentials)
            self._ends(shipment)

    def _ends(self, shipment: Shipment) -> None:
        face = shipment.face
        self._recorder.ends(shipment.due, face.status, face.code, face.message)
        self._left(shipment)

    def _keep_raw(self, answer: Answer) -> None:
        """Keep the first few answers that are not documented, for `enroll status`."""
        odd = answer.raw and answer.verdict in (Verdict.FAILED, Verdict.UNKNOWN)
        if not odd or self._kept[answer.code] >= RAW_ANSWERS:
            return
        self._kept[answer.code] += 1
        kept = RawAnswer(
            code=answer.code,
            number=self._kept[answer.code],
            http_status=answer.http_status,
            raw=answer.raw,
            at=now_ms(),
            run=self._recorder.run,
        )
        self._recorder.ledger.record(Changes(raw=[kept]))

    def _proved_new(self, face: FaceRecord, answer: Answer) -> Answer:
        """An answer with the token of another face proves nothing about this one."""
        if self._holders.setdefault(answer.face_token, face.face_id) == face.face_id:
            return answer
        return replace(
            answer,
            verdict=Verdict.UNKNOWN,
            code=REPEATED,
            message="The service answered with the token of another face.",
        )

    def _credentials_changed(self, shipment: Shipment, answer: Answer) -> bool:
        """After a refused signature: whether there are other credentials to try it with."""
        refused = answer.code in journey.CREDENTIAL_CODES
        return refused and self._rotation.others_than(shipment.credentials)

    def withdraw(self, *, expires: float) -> None:
        """Take back what has not left, and leave in doubt what has not ended: the run is over.

        `expires` is when the last of their signatures will have (service's clock).
        """
        for shipment in self._unsent():
            self._recorder.ledger.record(Changes(faces=[journey.withdraws(shipment.face)]))
        if self._in_flight:
            self._recorder.tally.calls[CallKind.ADD] += len(self._in_flight)
        for shipment in self._in_flight:
            shipment.face = replace(
                shipment.face,
                status=Status.IN_DOUBT,
                code=INTERRUPTED,
                message="The run ended before the answer came; the service may have the face.",
                expires=expires,
            )
            self._recorder.face(shipment.face)
            self._ends(shipment)

    def _unsent(self) -> Iterator[Shipment]:
        """Shipments whose intent is recorded and whose call has not left."""
        yield from self._arming
        yield from self._armed


def _back_off(setbacks: int) -> float:
    """Seconds to wait after so many setbacks, by tenacity's strategy."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = setbacks
    return BACK_OFF(state)


def _over_and_over(answer: Answer) -> ServiceError:
    said = f"{answer.code} ({answer.message})" if answer.message != answer.code else answer.code
    advice = f"{said.rstrip('.')}. {remedy(answer.code)}".rstrip()
    return ServiceError(
        f"The service answers with one error over and over: {advice} Every row that is not "
        f"enrolled yet stays due; --on-code {answer.code}=reject takes this one for the rows' own "
        "fault."
    )


def stopped_by(answer: Answer, used: Credentials) -> ServiceError:
    """What to say when the service has answered that no call of the run will do."""
    said = (answer.message or answer.code).rstrip(".")
    clocks = clock_remark(answer, 0.0) if answer.code in journey.CREDENTIAL_CODES else ""
    sentence = " ".join(filter(None, [f"{said}.", clocks, remedy(answer.code, used=used)]))
    return ServiceError(
        f"The service stopped the run: {sentence} Every row that is not enrolled yet stays due."
    )
