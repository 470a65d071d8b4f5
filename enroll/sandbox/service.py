"""Answers a call: slot, signature, fault, the call itself, reply."""

from __future__ import annotations

import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Condition, Event
from typing import Any

from .calls import CallKind, Calls, call_kind, documented_fields
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
from .profile import Profile
from .server import Responder

_KEPT = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call as the stand-in saw it.

    `kind` is the last part of the path, or the whole path where the service has no such call.
    `time` is the arrival in UNIX seconds on the stand-in's clock. `under_way` counts the calls
    under way when it arrived, itself included. `status` is 0 while nothing (or nothing proper)
    has been answered; `code` is the error code without detail; `fault` is the fault
    that it met (`500-after`). `applied` says that the call was carried out. `finished` turns
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


class CallLog:
    """Keeps the last calls, counts all, and admits calls up to the limit of parallel ones.

    One lock guards all three, so that `under_way` is exact. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._calls: OrderedDict[int, Call] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._arrived = 0
        self._under_way = 0
        self._changed = Condition()

    def enter(self, *, kind: str, time: float, parallel: int | None) -> tuple[Call, bool]:
        """Record an arrival; False when `parallel` calls are under way and it gets no slot."""
        with self._changed:
            admitted = parallel is None or self._under_way < parallel
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

    def update(self, call: Call) -> None:
        """Replace what is kept of this call."""
        with self._changed:
            if call.number in self._calls:
                self._calls[call.number] = call
            self._changed.notify_all()

    def leave(self, call: Call, *, admitted: bool) -> None:
        """Record the end of a call and give its slot back."""
        with self._changed:
            self._under_way -= admitted
            self.update(replace(call, finished=True))

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

    def wait_arrived(self, count: int, seconds: float) -> bool:
        """Wait until that many calls of any kind have arrived; False when it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._arrived >= count, seconds)

    def wait_count(self, kind: str, count: int, seconds: float) -> bool:
        """Wait until that many calls of the kind have arrived; False when it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._counts[kind] >= count, seconds)


_AT_ONCE = frozenset({FaultKind.REFUSED, FaultKind.TOO_MANY})
"""A gateway answers these before the service spends any time on the call."""

_UNDOCUMENTED_CODE = "FACE_LEFT_THE_BUILDING"


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """How the stand-in behaves; each may be changed at any time. See `Sandbox` for their meaning;
    delays are in seconds."""

    plan: FaultPlan
    parallel: int | None = None
    latency: float = 0.0
    late_after: float | None = None
    search_lag: float = 0.0
    fault_lag: float = 2.0
    profile: Profile = field(default_factory=Profile)


@dataclass(slots=True)
class _Exchange:
    """A call in progress and the connection that waits for its answer."""

    call: Call
    responder: Responder
    profile: Profile
    fields: Fields = field(default_factory=lambda: Fields({}, {}))
    request_id: str = field(default_factory=lambda: secrets.token_hex(16))
    began: float = field(default_factory=time.monotonic)

    def success(self, payload: dict[str, Any]) -> Reply:
        return success(
            payload,
            request_id=self.request_id,
            seconds=self._elapsed(),
            bare=self.profile.bare,
        )

    def failure(self, code: str, detail: str = "", *, status: int = 400, rule: str = "") -> Reply:
        return self.refused(RefusalError(code, detail, status=status, rule=rule))

    def refused(self, refusal: RefusalError) -> Reply:
        return failure(
            refusal.observed(self.profile),
            request_id=self.request_id,
            seconds=self._elapsed(),
            bare=self.profile.bare,
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self.began


class Service:
    """Answers calls, each on its own thread."""

    def __init__(
        self,
        *,
        calls: Calls,
        signatures: SignatureCheck,
        log: CallLog,
        clock: Clock,
        behaviour: Behaviour,
        stopping: Event,
    ) -> None:
        self._calls = calls
        self._signatures = signatures
        self._log = log
        self._clock = clock
        self._behaviour = behaviour
        self._stopping = stopping

    def answer(self, request: FormRequest, responder: Responder) -> None:
        """Answer one request, whose body has been read, or produce its fault."""
        kind = call_kind(method=request.method, path=request.path)
        call, admitted = self._log.enter(
            kind=kind or request.path, time=self._clock.now(), parallel=self._behaviour.parallel
        )
        exchange = _Exchange(call, responder, self._behaviour.profile)
        reply: Reply | None = None
        try:
            reply = self._reply(exchange, request, kind, admitted=admitted)
        finally:
            # The slot is given back first: a client that has read the answer may call again.
            if reply is not None:
                exchange.call = replace(exchange.call, status=reply.status, code=reply.code)
            self._log.leave(exchange.call, admitted=admitted)
        if reply is not None:
            send = _SENDERS.get(exchange.call.fault, Responder.send)
            send(responder, reply)

    def _reply(
        self, exchange: _Exchange, request: FormRequest, kind: CallKind | None, *, admitted: bool
    ) -> Reply | None:
        """The reply, or None when nothing is left to send on the connection."""
        exchange.fields = Fields.of(request, exchange.profile)
        self._note(exchange, user_id=exchange.fields.texts.get("user_id", ""))
        if kind is None:
            return exchange.failure("API_NOT_FOUND", status=404, rule="unknown_call")
        try:
            self._check(exchange, request, kind)
        except RefusalError as refusal:
            if refusal.status == 403 and "refused_not_added" in exchange.profile.quirks:
                self._carry_out(exchange, kind)
            return exchange.refused(refusal)
        if not admitted:
            return _fault_reply(exchange, FaultKind.REFUSED)
        fault = self._behaviour.plan.draw(kind, exchange.call.user_id or None)
        if fault is not None:
            self._note(exchange, fault=str(fault))
        if fault is None or fault.kind not in _AT_ONCE:
            self._stopping.wait(self._behaviour.latency)
        if self._stopping.is_set():
            exchange.responder.end()
            return None
        return self._perform(exchange, kind, fault)

    def _perform(self, exchange: _Exchange, kind: CallKind, fault: Fault | None) -> Reply | None:
        """Carry the call out as its fault has it; the reply, or None as for `_reply`."""
        match fault:
            case None | Fault(FaultKind.STALE):
                return self._carry_out(exchange, kind)
            case Fault(FaultKind.SEARCH_LAG):
                return self._carry_out(exchange, kind, lag=self._behaviour.fault_lag)
            case Fault(FaultKind.LATE):
                self._carry_out_late(exchange, kind)
                return None
            case Fault(trouble, after):
                if after:
                    self._carry_out(exchange, kind)
                return _produce(trouble, exchange)

    def _note(self, exchange: _Exchange, **changes: str) -> None:
        """Log what has become known of the call."""
        exchange.call = replace(exchange.call, **changes)  # type: ignore[arg-type]
        self._log.update(exchange.call)

    def _check(self, exchange: _Exchange, request: FormRequest, kind: CallKind) -> None:
        """Raise RefusalError unless the call is a form, is signed with the account's secret, and
        has only documented fields."""
        if request.mimetype != "multipart/form-data":
            raise RefusalError("BAD_ARGUMENTS", "Content-Type")
        try:
            self._signatures.check(
                sign=exchange.fields.texts.get("sign"),
                version=exchange.fields.texts.get("sign_version"),
                now=exchange.call.time,
            )
        except RefusalError as refusal:
            if exchange.profile.enforces(refusal.rule):
                raise
        exchange.fields.check_documented(documented_fields(kind))

    def _carry_out(self, exchange: _Exchange, kind: CallKind, *, lag: float = 0.0) -> Reply:
        try:
            payload = self._calls.carry_out(
                kind, exchange.fields, lag=self._behaviour.search_lag + lag
            )
        except RefusalError as refusal:
            return exchange.refused(refusal)
        exchange.call = replace(exchange.call, applied=True)
        return exchange.success(payload)

    def _carry_out_late(self, exchange: _Exchange, kind: CallKind) -> None:
        if self._behaviour.late_after is None:
            exchange.responder.hold()
        else:
            self._stopping.wait(self._behaviour.late_after)
        if not self._stopping.is_set():
            self._carry_out(exchange, kind)
        exchange.responder.hold()


def _produce(kind: FaultKind, exchange: _Exchange) -> Reply | None:
    """Produce the fault on the connection, or return the reply that is the fault."""
    responder = exchange.responder
    fitting = exchange.success({"face_token": secrets.token_hex(16)})
    match kind:
        case FaultKind.TIMEOUT:
            responder.hold()
        case FaultKind.RESET:
            responder.reset()
        case FaultKind.DRIP:
            responder.drip()
        case FaultKind.DRIP_BODY:
            responder.drip_body(fitting)
        case FaultKind.ENDLESS:
            responder.endless(fitting)
        case FaultKind.CUT:
            return fitting
        case _:
            return _fault_reply(exchange, kind)
    return None


def _fault_reply(exchange: _Exchange, kind: FaultKind) -> Reply:
    """The reply that is the fault."""
    replies: dict[FaultKind, Callable[[], Reply]] = {
        FaultKind.INTERNAL_ERROR: lambda: exchange.failure("INTERNAL_ERROR", status=500),
        FaultKind.BAD_GATEWAY: lambda: html(502, "Bad Gateway"),
        FaultKind.UNAVAILABLE: lambda: html(503, "Service Temporarily Unavailable"),
        FaultKind.GATEWAY_TIMEOUT: lambda: html(504, "Gateway Time-out"),
        FaultKind.NOT_JSON: lambda: html(200, "Welcome"),
        FaultKind.NO_TOKEN: lambda: exchange.success({}),
        FaultKind.REFUSED: lambda: exchange.failure(
            "CONCURRENCY_LIMIT_EXCEEDED", status=403, rule="parallel"
        ),
        FaultKind.TOO_MANY: lambda: html(429, "Too Many Requests", headers=(("Retry-After", "1"),)),
        FaultKind.UNKNOWN_CODE: lambda: exchange.failure(_UNDOCUMENTED_CODE, "rehearsal"),
        FaultKind.HTML_403: lambda: html(403, "Forbidden"),
        FaultKind.REDIRECT: lambda: html(302, "Found", headers=(("Location", "/elsewhere"),)),
        FaultKind.AUTH: lambda: exchange.failure("AUTHORIZATION_ERROR", status=403),
    }
    return replies[kind]()


_SENDERS: dict[str, Callable[[Responder, Reply], None]] = {
    "stale": Responder.send_then_close,
    "cut-before": Responder.cut,
    "cut-after": Responder.cut,
}
