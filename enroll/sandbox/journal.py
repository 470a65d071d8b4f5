"""The record of every call that the stand-in saw, and how many may be under way at once."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, replace
from threading import Condition

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
    """Holds the last calls and counts all; also admits calls up to the limit of parallel ones.

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
        """Record an arrival; False when it is one call too many and takes no place."""
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
        """Add what is known of a call while it is under way."""
        return self._put(replace(call, user_id=user_id, fault=fault))

    def leave(self, call: Call, *, admitted: bool) -> None:
        """Record the end of a call and give its place back."""
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
        """Wait until no call is under way; False when `seconds` were not enough."""
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
