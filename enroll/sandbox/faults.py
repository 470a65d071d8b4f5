"""The faults of calls: their kinds, a seeded plan by probability, and scripts for tests."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock

from .calls import CallKind


class FaultKind(StrEnum):
    """The faults that can be rehearsed, by the names that options and scripts use."""

    INTERNAL_ERROR = "500"
    """Status 500, `INTERNAL_ERROR` in the service's JSON."""
    BAD_GATEWAY = "502"
    """Status 502, a gateway's HTML page."""
    UNAVAILABLE = "503"
    """Status 503, a gateway's HTML page."""
    GATEWAY_TIMEOUT = "504"
    """Status 504, a gateway's HTML page."""
    TIMEOUT = "timeout"
    """Never answers; the connection is held until the client goes away, at most 120 s."""
    RESET = "reset"
    """The connection is reset (RST) instead of answered."""
    CUT = "cut"
    """The body ends in the middle: Content-Length is larger than what is sent."""
    NOT_JSON = "not-json"
    """Status 200 with an HTML page."""
    NO_TOKEN = "no-token"  # noqa: S105 - a kind of fault
    """Status 200 and JSON as usual, without what was asked for (no `face_token`)."""
    DRIP = "drip"
    """Header bytes for ever, one every 0.2 s."""
    DRIP_BODY = "drip-body"
    """A proper header, then body bytes for ever, one every 0.2 s."""
    ENDLESS = "endless"
    """A body without an end, as fast as the client takes it."""
    LATE = "late"
    """Never answers; the call is carried out when the client has gone away, or after
    `late_after` seconds. The signature counts at its arrival."""
    STALE = "stale"
    """A proper answer, after which the connection is closed without having said so."""
    REFUSED = "refused"
    """Status 403, `CONCURRENCY_LIMIT_EXCEEDED`, at once; not carried out."""
    TOO_MANY = "429"
    """Status 429 as HTML with `Retry-After: 1`, at once; not carried out."""
    UNKNOWN_CODE = "unknown-code"
    """Status 400 with an undocumented error code; not carried out."""
    HTML_403 = "html-403"
    """Status 403 with a firewall's HTML page; not carried out."""
    REDIRECT = "redirect"
    """Status 302 to another path of the stand-in; not carried out."""
    AUTH = "auth"
    """Status 403, `AUTHORIZATION_ERROR`; not carried out."""
    SEARCH_LAG = "search-lag"
    """Carried out and answered properly, but `search` and `list` show the new face only
    `fault_lag` seconds later than others."""


EITHER_SIDE = frozenset(
    {
        FaultKind.INTERNAL_ERROR,
        FaultKind.BAD_GATEWAY,
        FaultKind.UNAVAILABLE,
        FaultKind.GATEWAY_TIMEOUT,
        FaultKind.TIMEOUT,
        FaultKind.RESET,
        FaultKind.CUT,
        FaultKind.NOT_JSON,
        FaultKind.NO_TOKEN,
        FaultKind.DRIP,
        FaultKind.DRIP_BODY,
        FaultKind.ENDLESS,
    }
)
"""Kinds that can occur `-before` (the default) or `-after` the call is carried out."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `after` says that the call is carried out first."""

    kind: FaultKind
    after: bool = False

    def __str__(self) -> str:
        if self.kind not in EITHER_SIDE:
            return self.kind.value
        return f"{self.kind}-after" if self.after else f"{self.kind}-before"


def parse_fault(text: str) -> Fault:
    """`KIND`, `KIND-before` or `KIND-after`. A `ValueError` lists the kinds."""
    name, after = text, False
    for suffix in ("-before", "-after"):
        if text.endswith(suffix):
            name, after = text.removesuffix(suffix), suffix == "-after"
    try:
        kind = FaultKind(name)
    except ValueError:
        kinds = ", ".join(kind.value for kind in FaultKind)
        raise ValueError(f"{text!r} is not a kind of fault; the kinds are: {kinds}") from None
    if name != text and kind not in EITHER_SIDE:
        kinds = ", ".join(kind.value for kind in FaultKind if kind in EITHER_SIDE)
        raise ValueError(f"{name!r} has no -before and -after; the kinds that do are: {kinds}")
    return Fault(kind, after)


def parse_fault_option(text: str) -> tuple[str, float]:
    """`[CALL:]KIND=PROBABILITY` as a key and value of the sandbox's `faults`.

    Raises `ValueError` with one sentence that lists what is possible.
    """
    name, equals, number = text.rpartition("=")
    if not equals:
        raise ValueError(f"{text!r} is not of the form KIND=PROBABILITY, such as 500-after=0.05")
    _split(name)
    try:
        probability = float(number)
    except ValueError:
        raise ValueError(f"{number!r} is not a probability; give a number from 0 to 1") from None
    if not 0 <= probability <= 1:
        raise ValueError(f"{number!r} is not a probability; give a number from 0 to 1")
    return name, probability


def _split(name: str) -> tuple[CallKind, Fault]:
    """Split `[CALL:]KIND`; the call is `add` where none is named."""
    call, colon, kind = name.rpartition(":")
    if not colon:
        return CallKind.ADD, parse_fault(name)
    try:
        return CallKind(call), parse_fault(kind)
    except ValueError as exc:
        if call in set(CallKind):
            raise
        calls = ", ".join(CallKind)
        raise ValueError(f"{call!r} is not a call; the calls are: {calls}") from exc


class FaultPlan:
    """Draws the fault of each call: from a script when there is one, else by probability.

    `faults` maps `[CALL:]KIND[-before|-after]` to a probability; those of one call kind add up
    to at most 1. The same seed draws the same sequence. Safe to share between threads.
    """

    def __init__(self, faults: Mapping[str, float], *, seed: int) -> None:
        self._chances: dict[CallKind, list[tuple[Fault, float]]] = defaultdict(list)
        for name, probability in faults.items():
            parse_fault_option(f"{name}={probability}")
            call, fault = _split(name)
            self._chances[call].append((fault, probability))
        for call, chances in self._chances.items():
            if sum(probability for _, probability in chances) > 1 + 1e-9:
                raise ValueError(f"the probabilities of the faults of {call} add up to more than 1")
        self._random = random.Random(seed)  # noqa: S311 - a rehearsal, not a secret
        self._scripts: dict[tuple[CallKind, str | None], deque[Fault | None]] = {}
        self._lock = Lock()

    def script(
        self, faults: Iterable[str | None], *, call: CallKind, user_id: str | None = None
    ) -> None:
        """Queue faults for the next calls of this kind; None is a call without a fault.

        With `user_id` only that person's calls use it up, and it goes before a general one.
        """
        parsed = [None if fault is None else parse_fault(fault) for fault in faults]
        with self._lock:
            self._scripts.setdefault((call, user_id), deque()).extend(parsed)

    def draw(self, call: CallKind, user_id: str | None) -> Fault | None:
        """The fault of this call, or None."""
        with self._lock:
            for key in ((call, user_id), (call, None)):
                queue = self._scripts.get(key)
                if queue:
                    return queue.popleft()
            chances = self._chances.get(call)
            if not chances:
                return None
            point = self._random.random()
            for fault, probability in chances:
                point -= probability
                if point < 0:
                    return fault
        return None

    def pending(self) -> int:
        """How many scripted entries have not been used up."""
        with self._lock:
            return sum(len(queue) for queue in self._scripts.values())
