"""What the engine of Dask workers keeps in mind: workers, photos and orders; and how orders leave.

All of it is used under the engine's lock only, except for `Post.send`.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from enroll import clock
from enroll.engine import HeldPhoto, Read
from enroll.engine.cluster import Cluster
from enroll.engine.station import (
    CallOrder,
    Delivery,
    Introduction,
    ReadOrder,
    deliver,
    station_name,
)
from enroll.facesearch import OwnCode, SignedCall
from enroll.model import Answer, Verdict
from enroll.settings import Preparation


@dataclass(slots=True, eq=False)
class Member:
    """A worker with a station; offsets are its clocks minus ours. `seen_at` (monotonic) is when it
    last gave a sign of life, `heard_at` the scheduler's time of that. `fault` is why it can read no
    photo now; while it reads `alone`, it gets nothing else to read."""

    address: str
    introduction: Introduction
    monotonic_offset: float
    wall_offset: float
    seen_at: float
    reading: int = 0
    alone: bool = False
    fault: str = ""
    heard_at: float = 0.0
    held: int = 0
    queue: list[Reading | Calling] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    @property
    def instance(self) -> str:
        return self.introduction.instance

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
    """An order to read; `on_end` takes what has come of it. It was given to `tries` workers in
    vain. `accepted`: the worker has it; `unseen` times it has said that it does not read it."""

    number: int
    paths: Sequence[str]
    preparation: Preparation
    on_end: Callable[[Outcome], None]
    instance: str = ""
    alone: bool = False
    tries: int = 0
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
    """A delivery, and the task that hands it over since `sent_at` (monotonic) on this `link`."""

    member: Member
    orders: Sequence[Reading | Calling]
    numbers: Sequence[int]
    sent_at: float
    link: object
    task: Any = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has come of reading: by the station of which instance, or the error."""

    instance: str = ""
    read: Read | None = None
    error: BaseException | None = None


class Post:
    """Hands orders over to the stations of a run, as tasks of Dask."""

    def __init__(self, cluster: Cluster, run: str) -> None:
        self._cluster = cluster
        self._run = run
        self._numbers = itertools.count(1)
        self._sent: list[Parcel] = []

    def pack(self, members: Collection[Member]) -> list[Parcel]:
        """Take the orders that wait: from here on nothing proves that a call has not left."""
        parcels = []
        for member in members:
            if member.queue:
                orders, member.queue = member.queue, []
                for order in orders:
                    if isinstance(order, Calling):
                        order.left_at = clock.time()
                numbers = [order.number for order in orders]
                link = self._cluster.link
                parcels.append(Parcel(member, orders, numbers, clock.monotonic(), link))
        return parcels

    def send(self, parcel: Parcel) -> None:
        """Have Dask run the task. What is lost with a client that is closed is seen later."""
        member = parcel.member
        dropped, member.dropped = member.dropped, []
        orders = [_order_for(one, member) for one in parcel.orders]
        with suppress(Exception):
            parcel.task = self._cluster.client.submit(
                deliver,
                self._run,
                pickle.dumps(Delivery(member.instance, orders, dropped)),
                key=f"{station_name(self._run)}-{next(self._numbers)}",
                workers=[member.address],
                allow_other_workers=False,
                retries=0,
                pure=False,
            )

    def keep(self, parcels: Sequence[Parcel]) -> None:
        """Watch over parcels that were sent."""
        self._sent += [parcel for parcel in parcels if parcel.task is not None]

    def over(self, members: Collection[Member]) -> Iterator[tuple[Parcel, str]]:
        """Forget tasks that are done, so that Dask does not run them again, and those that are for
        others than these members, or that were lost with a link; each with the status it has."""
        left = []
        for parcel in self._sent:
            status = parcel.task.status
            cut = parcel.link is not self._cluster.link
            if status == "pending" and parcel.member in members and not cut:
                left.append(parcel)
                continue
            with suppress(Exception):  # the client is closed
                parcel.task.release()
            yield parcel, status
        self._sent = left

    def stuck(self, before: float) -> list[Member]:
        """The workers that have not taken an order which was sent before that (monotonic)."""
        return [parcel.member for parcel in self._sent if parcel.sent_at < before]


def _order_for(order: Reading | Calling, member: Member) -> ReadOrder | CallOrder:
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
