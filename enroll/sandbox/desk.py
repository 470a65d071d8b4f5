"""One call's way through the stand-in: place, signature, fault, work, answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

from .calls import CallKind, Calls, call_kind, documented_fields, no_such_call
from .clock import Clock
from .faults import Fault, FaultKind, FaultPlan
from .fields import Fields, FormRequest
from .journal import Call, Journal
from .replies import RefusalError, Reply, failure, html, success
from .signature import SignatureCheck
from .wire import Wire

# Trouble that a gateway makes: the call gets no further, whatever it says.
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
    """Takes calls one by one; any number of threads may stand at it."""

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
        """Answer one request, whose body has been read; or make the trouble it meets."""
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
            # The place is given back before the answer leaves: whoever has read it may call again.
            if reply is not None:
                visit.call = replace(visit.call, status=reply.status, code=reply.code)
            self._journal.leave(visit.call, admitted=admitted)
        if reply is not None:
            send = _SENDERS.get(visit.call.fault, Wire.send)
            send(wire, reply)

    def _answer(self, visit: _Visit, request: FormRequest, *, admitted: bool) -> Reply | None:
        """The reply, or None when the wire has been dealt with already."""
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
        """The call that is meant, when it is one, signed by us, and has documented fields only."""
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
    """Make the trouble on the wire; a reply where it is a proper answer after all."""
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
    """The answer that is the trouble."""
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
