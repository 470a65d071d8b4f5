"""One call's way through the stand-in: slot, signature, fault, work, answer."""

from __future__ import annotations

import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Condition, Event
from typing import Any

from .calls import CallKind, Calls, call_kind, documented_fields, no_such_call
from .faults import Fault, FaultKind, FaultPlan
from .messages import (
    Clock,
    Fields,
    FormRequest,
    RefusalError,
    Reply,
    SignatureCheck,
    failure,
    html,
    success,
)
from .server import Wire

_KEPT = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call as the stand-in saw it.

    `kind` is the last part of the path, or the whole path where the service has no such call.
    `time` is the arrival in UNIX seconds on the stand-in's clock. `under_way` counts the calls
    under way when it arrived, itself included. `status` is 0 while nothing (or nothing proper)
    has been answered; `code` is the error code without detail; `fault` is the kind of trouble
    that it met (`500-after`). `applied` tells that the call was carried out. `finished` turns
    True before the answer is sent.
    """

    number: int
    kind: str
    time: float
    under_way: int
    user_id: str = ""
    status: int = 0
    code: str = ""
    fault: str = ""
    applied: bool = False
    finished: bool = False


class Journal:
    """Keeps the last calls and counts all; also admits calls up to the limit of parallel ones.

    Both are one lock's business, so that `under_way` is exact. Safe to share between threads.
    """

    def __init__(self, *, parallel: int | None) -> None:
        self.parallel = parallel
        self._calls: OrderedDict[int, Call] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._arrived = 0
        self._under_way = 0
        self._changed = Condition()

    def enter(self, *, kind: str, time: float) -> tuple[Call, bool]:
        """Record an arrival; False when it is one call too many and gets no slot."""
        with self._changed:
            admitted = self.parallel is None or self._under_way < self.parallel
            self._arrived += 1
            number = self._arrived
            call = Call(number=number, kind=kind, time=time, under_way=self._under_way + 1)
            self._under_way += admitted
            self._counts[kind] += 1
            self._calls[number] = call
            if len(self._calls) > _KEPT:
                self._calls.popitem(last=False)
            self._changed.notify_all()
        return call, admitted

    def note(self, call: Call, *, user_id: str = "", fault: str = "") -> Call:
        """Add what is known of a call in progress."""
        return self._put(replace(call, user_id=user_id, fault=fault))

    def leave(self, call: Call, *, admitted: bool) -> None:
        """Record the end of a call and give its slot back."""
        with self._changed:
            self._under_way -= admitted
            self._put(replace(call, finished=True))
            self._changed.notify_all()

    def calls(self) -> list[Call]:
        """All that are kept (the last 200,000), oldest first."""
        with self._changed:
            return list(self._calls.values())

    def count(self, kind: str) -> int:
        """How many calls of this kind have arrived since the start."""
        with self._changed:
            return self._counts[kind]

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no call is in progress; False when `seconds` were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self._under_way == 0, seconds)

    def wait_count(self, kind: str, count: int, seconds: float) -> bool:
        """Wait until that many calls of the kind have arrived; False when it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._counts[kind] >= count, seconds)

    def _put(self, call: Call) -> Call:
        with self._changed:
            if call.number in self._calls:
                self._calls[call.number] = call
            self._changed.notify_all()
        return call


# Faults of a gateway: the call gets no further, whatever it says.
_AT_ONCE = frozenset({FaultKind.REFUSED, FaultKind.TOO_MANY})
_UNHEARD_OF = "FACE_LEFT_THE_BUILDING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tempo:
    """How slow the stand-in is, in seconds; see `Sandbox` for the meaning of each."""

    latency: float = 0.0
    late_after: float | None = None
    search_lag: float = 0.0
    fault_lag: float = 2.0


@dataclass(slots=True)
class _Visit:
    """What is known of one call while it is at the desk."""

    call: Call
    wire: Wire
    fields: Fields
    kind: CallKind | None
    request_id: str = field(default_factory=lambda: secrets.token_hex(16))
    began: float = field(default_factory=time.monotonic)

    def success(self, payload: dict[str, Any]) -> Reply:
        return success(payload, request_id=self.request_id, seconds=self._elapsed())

    def failure(self, code: str, detail: str = "", *, status: int = 400) -> Reply:
        return self.refused(RefusalError(code, detail, status=status))

    def refused(self, refusal: RefusalError) -> Reply:
        return failure(refusal, request_id=self.request_id, seconds=self._elapsed())

    def _elapsed(self) -> float:
        return time.monotonic() - self.began


class Desk:
    """Answers calls, each on its own thread."""

    def __init__(
        self,
        *,
        calls: Calls,
        signatures: SignatureCheck,
        plan: FaultPlan,
        journal: Journal,
        clock: Clock,
        tempo: Tempo,
        stopping: Event,
    ) -> None:
        self._calls = calls
        self._signatures = signatures
        self._plan = plan
        self._journal = journal
        self._clock = clock
        self._stopping = stopping
        self.tempo = tempo

    def take(self, request: FormRequest, wire: Wire) -> None:
        """Answer one request, whose body has been read, or produce its fault."""
        arrived = self._clock.now()
        kind = call_kind(method=request.method, path=request.path)
        call, admitted = self._journal.enter(kind=kind or request.path, time=arrived)
        visit = _Visit(call, wire, Fields({}, {}), kind)
        reply: Reply | None = None
        try:
            visit.fields = Fields.of(request)
            visit.call = self._journal.note(call, user_id=visit.fields.texts.get("user_id", ""))
            reply = self._answer(visit, request, admitted=admitted)
        finally:
            # The slot is given back first: a client that has read the answer may call again.
            if reply is not None:
                visit.call = replace(visit.call, status=reply.status, code=reply.code)
            self._journal.leave(visit.call, admitted=admitted)
        if reply is not None:
            send = _SENDERS.get(visit.call.fault, Wire.send)
            send(wire, reply)

    def _answer(self, visit: _Visit, request: FormRequest, *, admitted: bool) -> Reply | None:
        """The reply, or None when the connection has been dealt with."""
        try:
            kind = self._checked(visit, request)
        except RefusalError as refusal:
            return visit.refused(refusal)
        if not admitted:
            return _strike_reply(visit, FaultKind.REFUSED)
        fault = self._plan.draw(kind, visit.call.user_id or None)
        if fault is not None:
            visit.call = self._journal.note(
                visit.call, user_id=visit.call.user_id, fault=str(fault)
            )
        if fault is None or fault.kind not in _AT_ONCE:
            self._stopping.wait(self.tempo.latency)
        if self._stopping.is_set():
            visit.wire.end()
            return None
        return self._work(visit, kind, fault)

    def _checked(self, visit: _Visit, request: FormRequest) -> CallKind:
        """The kind of the call. Raises RefusalError unless it exists, is signed with the
        account's secret, and has only documented fields."""
        if visit.kind is None:
            raise no_such_call()
        if request.mimetype != "multipart/form-data":
            raise RefusalError("BAD_ARGUMENTS", "Content-Type")
        self._signatures.check(
            sign=visit.fields.texts.get("sign"),
            version=visit.fields.texts.get("sign_version"),
            now=visit.call.time,
        )
        visit.fields.check_documented(documented_fields(visit.kind))
        return visit.kind

    def _work(self, visit: _Visit, kind: CallKind, fault: Fault | None) -> Reply | None:
        match fault:
            case None | Fault(FaultKind.STALE):
                return self._carry_out(visit, kind)
            case Fault(FaultKind.SEARCH_LAG):
                return self._carry_out(visit, kind, lag=self.tempo.fault_lag)
            case Fault(FaultKind.LATE):
                self._wait_to_be_late(visit.wire)
                if not self._stopping.is_set():
                    self._carry_out(visit, kind)
                visit.wire.hold()
                return None
            case Fault(trouble, after):
                if after:
                    self._carry_out(visit, kind)
                return _strike(visit, trouble)

    def _wait_to_be_late(self, wire: Wire) -> None:
        if self.tempo.late_after is None:
            wire.hold()
        else:
            self._stopping.wait(self.tempo.late_after)

    def _carry_out(self, visit: _Visit, kind: CallKind, *, lag: float = 0.0) -> Reply:
        try:
            payload = self._calls.carry_out(kind, visit.fields, lag=self.tempo.search_lag + lag)
        except RefusalError as refusal:
            return visit.refused(refusal)
        visit.call = replace(visit.call, applied=True)
        return visit.success(payload)


def _strike(visit: _Visit, kind: FaultKind) -> Reply | None:
    """Produce the fault on the connection, or return the reply that is the fault."""
    wire, fitting = visit.wire, visit.success({"face_token": secrets.token_hex(16)})
    match kind:
        case FaultKind.TIMEOUT:
            wire.hold()
        case FaultKind.RESET:
            wire.reset()
        case FaultKind.DRIP:
            wire.drip()
        case FaultKind.DRIP_BODY:
            wire.drip_body(fitting)
        case FaultKind.ENDLESS:
            wire.endless(fitting)
        case FaultKind.CUT:
            return fitting
        case _:
            return _strike_reply(visit, kind)
    return None


def _strike_reply(visit: _Visit, kind: FaultKind) -> Reply:
    """The reply that is the fault."""
    replies: dict[FaultKind, Callable[[], Reply]] = {
        FaultKind.INTERNAL_ERROR: lambda: visit.failure("INTERNAL_ERROR", status=500),
        FaultKind.BAD_GATEWAY: lambda: html(502, "Bad Gateway"),
        FaultKind.UNAVAILABLE: lambda: html(503, "Service Temporarily Unavailable"),
        FaultKind.GATEWAY_TIMEOUT: lambda: html(504, "Gateway Time-out"),
        FaultKind.NOT_JSON: lambda: html(200, "Welcome"),
        FaultKind.NO_TOKEN: lambda: visit.success({}),
        FaultKind.REFUSED: lambda: visit.failure("CONCURRENCY_LIMIT_EXCEEDED", status=403),
        FaultKind.TOO_MANY: lambda: html(429, "Too Many Requests", headers=(("Retry-After", "1"),)),
        FaultKind.UNKNOWN_CODE: lambda: visit.failure(_UNHEARD_OF, "rehearsal"),
        FaultKind.HTML_403: lambda: html(403, "Forbidden"),
        FaultKind.REDIRECT: lambda: html(302, "Found", headers=(("Location", "/elsewhere"),)),
        FaultKind.AUTH: lambda: visit.failure("AUTHORIZATION_ERROR", status=403),
    }
    return replies[kind]()


_SENDERS: dict[str, Callable[[Wire, Reply], None]] = {
    "stale": Wire.send_then_close,
    "cut-before": Wire.cut,
    "cut-after": Wire.cut,
}
