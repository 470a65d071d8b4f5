"""Calls outside of a run, made until they are answered: one, or many at a time."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar

from enroll import clock
from enroll.errors import ServiceError, ShortageError
from enroll.facesearch import Call, FaceSearch
from enroll.limiter.adaptive import MOST_IN_FLIGHT, limiter_for
from enroll.limiter.limits import CallEnd, Limiter, RateLimiter, Slot
from enroll.model import Answer, CallKind, Credentials, Verdict
from enroll.resources import share_out
from enroll.session.account import Connection
from enroll.session.retry import COMMAND, RetryPolicy
from enroll.threads import Threads
from enroll.timetable import Timetable, rate_at

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Request(Generic[T]):
    item: T
    tries: Counter[Verdict] = field(default_factory=Counter)
    credentials: Credentials | None = None
    slot: Slot | None = None


class Caller:
    """Makes calls that may be made twice without harm. A context manager; one thread uses it.

    Refused calls wait and are made again, and so are those that do not come through, a few
    times; credentials that were exchanged are read once more.
    """

    def __init__(
        self,
        connection: Connection,
        group_id: str,
        *,
        concurrency: int | None,
        known: int | None = None,
        max_calls: int | None = None,
        rate: float | Timetable | None = None,
    ) -> None:
        """`group_id` is the library that the calls are about. `concurrency` is the most calls in
        flight, None as many as the account takes, of which `known` says how many that were;
        `max_calls` is the most that may be made through the connection, those before included, and
        `rate` the most a second."""
        self.connection = connection
        self.group_id = group_id
        self._max_calls = math.inf if max_calls is None else max_calls
        # Two files each: a call may read its photo first.
        wanted = concurrency or MOST_IN_FLIGHT
        limit = max(share_out(calls=2 * wanted, readers=0).calls // 2, 1)
        limiter = limiter_for(concurrency, known=known, most=limit)
        self._limiter = limiter if rate is None else RateLimiter(limiter, rate=rate_at(rate))
        self._pool = Threads(limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Not waited for: a call under way ends by its own deadline.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def may_call(self, in_flight: int = 0) -> bool:
        """Whether another call may be made beside those that are in flight."""
        return self.connection.tally.calls.total() + in_flight < self._max_calls

    def ask(
        self,
        call: Call,
        *,
        policy: RetryPolicy = COMMAND,
    ) -> Answer:
        """Make one call and return its answer. Raises ServiceError if no call is answered."""
        asked = self.each(
            call.kind,
            [call],
            lambda service, asked: service.make(asked),
            answer_of=lambda answer: answer,
            policy=policy,
        )
        with closing(asked):
            found = next(asked, None)
        if found is None:
            raise ServiceError("No further call may be made: --max-calls was reached.")
        return found[1]

    def each(
        self,
        kind: CallKind,
        items: Iterable[T],
        call: Callable[[FaceSearch, T], R],
        *,
        answer_of: Callable[[R], Answer | None],
        policy: RetryPolicy = COMMAND,
    ) -> Generator[tuple[T, R]]:
        """Make a call for each item; each with what came of it, in the order in which they end.

        `call` runs on another thread; what it returns holds an answer, or None where it made
        no call. Where no further call may be made it ends, with items left. Raises ServiceError
        as `ask` does.
        """
        requests: _Requests[T, R] = _Requests(items, self._limiter)
        try:
            while requests.left():
                while self._has_thread() and (request := self._next(requests)) is not None:
                    request.credentials = self.connection.credentials
                    service = self.connection.service
                    requests.sent(request, self._pool.submit(call, service, request.item))
                for request, future in requests.ended():
                    result = future.result()
                    answer = answer_of(result)
                    self._count(kind, answer)
                    requests.answered(
                        request,
                        answer,
                        service_time=clock.time() + self.connection.service.clock.offset,
                    )
                    after = self._again_after(request, answer, policy)
                    if after is None or not self.may_call(requests.in_flight):
                        yield request.item, result
                    else:
                        requests.put_off(request, after)
        finally:
            requests.cancel()

    def _has_thread(self) -> bool:
        """Whether a call can be made now; if not, one in flight has to end first."""
        try:
            self._pool.have_one_free()
        except ShortageError:
            return False
        return True

    def _next(self, requests: _Requests[T, R]) -> _Request[T] | None:
        if self.may_call(requests.in_flight):
            return requests.next()
        requests.stop()
        return None

    def _count(self, kind: CallKind, answer: Answer | None) -> None:
        if answer is not None and answer.may_have_arrived:
            self.connection.tally.calls[kind] += 1
            self.connection.tally.refused += answer.verdict is Verdict.REFUSED

    def _again_after(
        self, request: _Request[T], answer: Answer | None, policy: RetryPolicy
    ) -> float | None:
        """Seconds after which a call is to be made again; None when its answer stands."""
        if answer is None:
            return None
        request.tries[answer.verdict] += 1
        after = policy.again_after(answer, request.tries)
        if answer.verdict is Verdict.BLOCKED:
            self.connection.service.let_go()
            if after is None:
                raise ShortageError(answer.message)
        if answer.verdict is Verdict.FATAL:
            if self.connection.refresh_credentials(answer, request.credentials):
                return 0.0
            raise self.connection.failed(answer)
        return after


class _Requests(Generic[T, R]):
    """The calls of one `each`: not made yet, in flight, put off."""

    def __init__(self, items: Iterable[T], limiter: Limiter) -> None:
        self._fresh = map(_Request, items)
        self._limiter = limiter
        self._all_taken = False
        self._put_off: list[tuple[float, int, _Request[T]]] = []
        self._order = itertools.count()
        self._in_flight: dict[Future[R], _Request[T]] = {}

    def left(self) -> bool:
        """Whether there is anything to do or to wait for."""
        return bool(self._in_flight or self._put_off or not self._all_taken)

    @property
    def in_flight(self) -> int:
        """How many calls are being made."""
        return len(self._in_flight)

    def stop(self) -> None:
        """No further call is to be made."""
        self._put_off.clear()
        self._all_taken = True

    def next(self) -> _Request[T] | None:
        """The next call to be made now, if there is a slot for it."""
        now = clock.monotonic()
        if self._limiter.free(now) <= 0:
            return None
        if self._put_off and self._put_off[0][0] <= now:
            return heapq.heappop(self._put_off)[2]
        request = next(self._fresh, None)
        self._all_taken = request is None
        return request

    def sent(self, request: _Request[T], future: Future[R]) -> None:
        """The call is being made."""
        request.slot = self._limiter.sent(clock.monotonic())
        self._in_flight[future] = request

    def ended(self) -> list[tuple[_Request[T], Future[R]]]:
        """Wait until a call has ended, or another can be made; those that have ended."""
        now = clock.monotonic()
        # A call that was put off needs a slot, too: the later moment counts.
        due = self._put_off[0][0] if self._put_off and self._all_taken else None
        moments = (self._limiter.opens_at(now), due)
        until = max((moment for moment in moments if moment is not None), default=None)
        patience = None if until is None else max(until - now, 0.0)
        if not self._in_flight:
            clock.sleep(patience or 0.0)
            return []
        done, _ = wait(self._in_flight, timeout=patience, return_when=FIRST_COMPLETED)
        return [(self._in_flight.pop(future), future) for future in done]

    def answered(self, request: _Request[T], answer: Answer | None, *, service_time: float) -> None:
        """A call has ended, with an answer or without having been made."""
        slot, request.slot = request.slot, None
        if slot is None:
            return
        now = clock.monotonic()
        if answer is None:
            self._limiter.release(slot, now, CallEnd.UNKNOWN)
        else:
            self._limiter.answered(slot, answer, now=now, service_time=service_time)

    def put_off(self, request: _Request[T], seconds: float) -> None:
        """Repeat the call after `seconds`."""
        due = clock.monotonic() + seconds
        heapq.heappush(self._put_off, (due, next(self._order), request))

    def cancel(self) -> None:
        """Nobody waits for the rest; their slots are free for the next calls."""
        for future, request in self._in_flight.items():
            future.cancel()
            self.answered(request, None, service_time=0.0)
