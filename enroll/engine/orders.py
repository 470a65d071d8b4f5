"""What the engine of Dask workers keeps in mind: workers, photos, orders, and tasks.

All of it is changed under the engine's lock only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from enroll.engine import HeldPhoto, Read
from enroll.engine.station import CallOrder, Introduction, ReadOrder
from enroll.facesearch import OwnCode, SignedCall
from enroll.model import Answer, Verdict
from enroll.settings import Preparation


@dataclass(slots=True, eq=False)
class Member:
    """A worker with a station; offsets are its clocks minus ours. `seen_at` (monotonic) is when it
    last gave a sign of life, `heard_at` the scheduler's time of that."""

    address: str
    introduction: Introduction
    monotonic_offset: float
    wall_offset: float
    seen_at: float
    reading: int = 0
    heard_at: float = 0.0
    held: int = 0
    queue: list[Reading | Calling] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return self.held >= self.introduction.room


@dataclass(slots=True, eq=False)
class PhotoThere:
    """A photo, where it was read from, and which station holds it under which handle."""

    path: str
    preparation: Preparation
    instance: str
    there: HeldPhoto
    calls: int = 0
    dropped: bool = False


@dataclass(slots=True, eq=False)
class Reading:
    """An order to read; `on_end` takes what has come of it."""

    number: int
    paths: Sequence[str]
    preparation: Preparation
    on_end: Callable[[Outcome], None]
    instance: str = ""
    lost: int = 0
    accepted: bool = False
    unseen: int = 0


@dataclass(slots=True, eq=False)
class Calling:
    """A call under way: from when on (UNIX seconds) it may have been made, None while it provably
    was not, and until when (monotonic) it may still be."""

    number: int
    call: SignedCall
    photo: PhotoThere
    future: Future[Answer]
    until: float
    left_at: float | None = None


@dataclass(slots=True)
class Parcel:
    """A delivery, and the task that hands it over once it is submitted."""

    member: Member
    orders: Sequence[Reading | Calling]
    numbers: Sequence[int]
    task: Any = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has come of reading: by the station of which instance, or the error."""

    instance: str = ""
    read: Read | None = None
    error: BaseException | None = None


def order_for(order: Reading | Calling, member: Member) -> ReadOrder | CallOrder:
    """An order as the worker takes it: times by its clocks, and nothing secret."""
    if isinstance(order, Reading):
        return ReadOrder(order.number, order.paths, order.preparation)
    call = replace(
        order.call,
        hidden=(),
        deadline=order.call.deadline + member.monotonic_offset,
        offset=order.call.offset - member.wall_offset,
    )
    return CallOrder(order.number, call, order.photo.there)


def too_late(calling: Calling) -> Answer:
    """The answer to a call whose time is over without a report."""
    if calling.left_at is None:
        message = "no worker took the call within its time"
        return Answer(verdict=Verdict.NOT_SENT, code=OwnCode.WORKER_LOST.value, message=message)
    return Answer(
        verdict=Verdict.UNKNOWN,
        code=OwnCode.WORKER_LOST.value,
        message="the worker that had the call did not report what came of it",
        expires=calling.call.expires,
        elapsed=calling.call.timeout,
    )
