"""A run's station on a Dask worker: it holds prepared photos, and makes each call once.

The run sends a delivery of orders as a task, which only hands them over: the station has threads of
its own, and reports each outcome as an event. So nothing depends on how often Dask runs a task:

- An order names the instance of the station, which is made at its set-up. Another instance (Dask
  has started the worker again) carries out nothing, and says so.
- The station remembers the number of every call until the call's time is over. A repeated number
  makes no call, and says so.

Signatures come with the calls; neither key nor secret does, nor any other credentials: those of a
bucket or a proxy are the worker's own.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
import uuid
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from enroll import __version__, clock
from enroll.engine import HeldPhoto, Read
from enroll.engine.threads import Executors, ThreadEngine
from enroll.errors import EnrollError, ShortageError
from enroll.facesearch import Courier, OwnCode, SignedCall, Way
from enroll.facesearch.signing import key_in
from enroll.model import Answer, Fault, Status, Unusable, Verdict
from enroll.photos import (
    BUDGET,
    PhotoCode,
    check_installed,
    give_back_memory,
    limit_memory,
    open_store,
)
from enroll.resources import raise_file_limit, share_out
from enroll.settings import Preparation, heif_installed
from enroll.threads import Threads

LEASE_SECONDS = 300.0
"""After this long without a word from its run, a station ends: the run is dead. If it is not, it
has another one set up."""

TOGETHER_SECONDS = 0.005
"""Outcomes within it go into one message, as a message costs Dask more than it costs us."""

WORKER_SHARE = 0.5
"""Share of a Dask worker's own memory limit that photos may take: Dask pauses it at four fifths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """What a station has to know: where the photos are, how calls get to the service, and how many
    of both may be under way at a time. `memory` is bytes, None for a share of the machine's; see
    `enroll.photos.limit_memory`. `run` is a name that no other run has."""

    root: str
    way: Way
    calls: int
    readers: int
    preparation: Preparation
    memory: int | None = None
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What a worker says of itself. `fault` is why it cannot work for the run or, where it has an
    `instance`, why it can read no photos now. `monotonic` and `wall` are its clocks; `room` is how
    many bytes of photos it may hold; `reading` are the orders that it has not ended."""

    version: str
    instance: str = ""
    fault: str = ""
    monotonic: float = 0.0
    wall: float = 0.0
    readers: int = 0
    room: int = 0
    reading: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class ReadOrder:
    """Read and prepare at least the first of these photos."""

    number: int
    paths: Sequence[str]
    preparation: Preparation


@dataclass(frozen=True, slots=True)
class CallOrder:
    """Make a call with a photo of this station, once. The call's times are by the worker's clocks,
    and it hides nothing yet: the station knows what."""

    number: int
    call: SignedCall
    photo: HeldPhoto


@dataclass(frozen=True, slots=True)
class Delivery:
    """Orders for this instance of a station, and handles of photos to let go of."""

    instance: str
    orders: Sequence[ReadOrder | CallOrder]
    dropped: Sequence[int] = ()


class Refusal(Enum):
    """Why an order was not carried out."""

    OTHER_INSTANCE = "other instance"
    """It was for another instance. What that has done is not known here."""
    REPEATED = "repeated"
    """The call with this number was begun before."""
    NO_PHOTO = "no photo"
    """The photo was let go of, and the call not begun."""


def station_name(run: str) -> str:
    """The name of the plugin, and of the topic of its reports."""
    return f"enroll-{run}"


class Station(WorkerPlugin):  # type: ignore[misc]  # untyped
    """See the module. Dask calls `setup` and `teardown`; the run sends the rest."""

    def __init__(self, posting: Posting) -> None:
        self.posting = posting
        self.name = station_name(posting.run)
        self.instance = ""
        self.fault = ""
        self.readers = 0
        self._opening: asyncio.Task[None] | None = None

    async def setup(self, worker: Worker) -> None:
        """Be ready to work. Raises nothing: `fault` says what is wrong."""
        self.instance = uuid.uuid4().hex
        self._worker = worker
        self._ready = False
        self._begun: set[int] = set()
        self._until: deque[tuple[float, int]] = deque()  # when the time of which call is over
        self._reading: set[int] = set()
        self._reports: list[bytes] = []
        self._told = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._heard = clock.monotonic()
        self._lacking = ""  # a photo that could not be reached here
        await self._open()

    async def _open(self) -> None:
        try:
            self.fault = await asyncio.to_thread(self._opened)
        except EnrollError as error:
            self.fault = str(error)
        except Exception as error:  # noqa: BLE001  # a bug of ours must not end the worker
            self.fault = f"its station could not be set up: {error!r}"
        self._ready = not self.fault

    def open_again(self) -> None:
        """See once more whether it can work, where it could not."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())

    def _opened(self) -> str:
        """Open the store of photos and what makes calls; returns why it cannot be done."""
        posting = self.posting
        self._store = store = open_store(posting.root)
        if fault := self._lacks(store.locate("photo")):
            return fault
        check_installed(posting.preparation)
        if posting.preparation.heif and not heif_installed():
            return "it lacks the extra heif, which the run has"
        courier = Courier(posting.way)
        raise_file_limit()
        warnings.filterwarnings("ignore", module="PIL")  # the rows report odd photos
        give_back_memory()
        limit_memory(self._memory(self._worker), max_pixels=posting.preparation.max_pixels)
        allowed = share_out(calls=posting.calls, readers=posting.readers)
        self.readers = allowed.readers
        self._executors = Executors(
            calls=Threads(allowed.calls),
            readers=Threads(allowed.readers),
            scanner=Threads(1),
            reading_at_once=allowed.readers,
        )
        self._courier = courier
        self._engine = ThreadEngine(courier, store, self._executors)
        threading.Thread(target=self._watch, daemon=True).start()
        return ""

    def _memory(self, worker: Worker) -> int | None:
        if self.posting.memory is not None:
            return self.posting.memory
        limit = worker.memory_manager.memory_limit
        return None if limit is None else round(WORKER_SHARE * limit)

    def teardown(self, worker: Worker) -> None:
        """Let go of every photo; a call under way ends by itself."""
        del worker
        if self._over.is_set() or not self._ready:
            return
        self._over.set()
        self._engine.close()
        for pool in (self._executors.calls, self._executors.readers, self._executors.scanner):
            pool.shutdown(wait=False, cancel_futures=True)
        self._courier.close()

    def _watch(self) -> None:
        while not self._over.wait(LEASE_SECONDS / 10):
            if clock.monotonic() - self._heard > LEASE_SECONDS:
                self._worker.loop.add_callback(self._worker.plugin_remove, self.name)
                return

    def _lacks(self, path: str) -> str:
        """Why photos cannot be read here, such as this one; empty if they can."""
        try:
            if self._store.is_gone():
                return f"there are no photos below {self.posting.root}"
            self._store.stat([path])
        except EnrollError as error:
            return str(error)
        return ""

    async def introduction(self) -> Introduction:
        """What it can do, and what it is doing."""
        self._heard = clock.monotonic()
        fault = self.fault
        if path := self._lacking:
            fault = await asyncio.to_thread(self._lacks, path)
            self._lacking = path if fault else ""
        with self._lock:
            return Introduction(
                version=__version__,
                instance=self.instance if self._ready else "",
                fault=fault.rstrip("."),
                monotonic=clock.monotonic(),
                wall=clock.time(),
                readers=self.readers,
                room=BUDGET.pictures.limit,
                reading=frozenset(self._reading),
            )

    def take(self, delivery: Delivery) -> None:
        """Begin to carry out a delivery; the outcomes are reported."""
        self._heard = clock.monotonic()
        if delivery.instance != self.instance:
            for order in delivery.orders:
                self._report(order.number, Refusal.OTHER_INSTANCE)
            return
        for handle in delivery.dropped:
            self._engine.let_go(handle)
        for order in delivery.orders:
            if isinstance(order, ReadOrder):
                self._read(order)
            else:
                self._call(order)

    def _read(self, order: ReadOrder) -> None:
        with self._lock:
            self._reading.add(order.number)
        future = self._engine.read(order.paths, order.preparation)
        future.add_done_callback(partial(self._has_read, order))

    def _has_read(self, order: ReadOrder, future: Future[Read]) -> None:
        """A photo that is missing may be there for others: here, all of them may be."""
        if not future.cancelled() and future.exception() is None:
            photos, quick = future.result()
            unreached = [photo for photo in photos if _is_unreached(photo)]
            if unreached and (why := self._lacks(order.paths[0])):
                self._lacking = order.paths[0]
                gone = Unusable(
                    status=Status.FAILED,
                    fault=Fault(code=PhotoCode.UNREADABLE, message=why),
                    share_gone=True,
                )
                photos = [gone if _is_unreached(one) else one for one in photos]
                future = Future()
                future.set_result((photos, quick))
        self._ended(order.number, future)

    def _call(self, order: CallOrder) -> None:
        now = clock.monotonic()
        with self._lock:
            repeated = order.number in self._begun
            # Once its time is over, a call does not leave, however often it is ordered.
            while self._until and self._until[0][0] < now:
                self._begun.discard(self._until.popleft()[1])
            self._begun.add(order.number)
            self._until.append((order.call.deadline, order.number))
        if repeated:
            self._report(order.number, Refusal.REPEATED)
            return
        signature = order.call.fields["sign"]
        call = replace(order.call, hidden=(signature, key_in(signature)))
        try:
            future = self._engine.call(call, order.photo)
        except KeyError:
            self._report(order.number, Refusal.NO_PHOTO)
        except ShortageError as error:
            short = Answer(
                verdict=Verdict.BLOCKED, code=OwnCode.OUT_OF_RESOURCES.value, message=str(error)
            )
            self._report(order.number, short)
        else:
            future.add_done_callback(partial(self._ended, order.number))

    def _ended(self, number: int, future: Future[Any]) -> None:
        if not future.cancelled():
            error = future.exception()
            self._report(number, future.result() if error is None else error)
        with self._lock:
            self._reading.discard(number)

    def _report(self, number: int, outcome: object) -> None:
        """Tell the run: at once, or with what others have to tell within `TOGETHER_SECONDS`."""
        try:
            report = pickle.dumps((self.instance, number, outcome))
        except Exception as error:  # noqa: BLE001  # an exception of a library may hold anything
            report = pickle.dumps((self.instance, number, RuntimeError(repr(error))))
        with self._lock:
            first = not self._reports
            self._reports.append(report)
        if first:
            self._worker.loop.add_callback(self._tell_soon)

    def _tell_soon(self) -> None:
        """The slot of a call stays empty until the run knows that it has ended."""
        wait = self._told + TOGETHER_SECONDS - clock.monotonic()
        self._worker.loop.call_later(max(wait, 0.0), self._tell)

    def _tell(self) -> None:
        self._told = clock.monotonic()
        with self._lock:
            reports, self._reports = self._reports, []
        self._worker.log_event(self.name, reports)


def _is_unreached(photo: HeldPhoto | Unusable) -> bool:
    return isinstance(photo, Unusable) and (
        photo.share_gone or photo.fault.code == PhotoCode.MISSING
    )


async def introduce(posting: Posting, version: str, dask_worker: Worker) -> Introduction:
    """Run on a worker: set up its station if it has none, and say what it can do. A worker of
    another version than the run's sets up nothing."""
    if version != __version__:
        return Introduction(version=__version__)
    plugin = dask_worker.plugins.get(station_name(posting.run))
    if plugin is None:
        plugin = Station(posting)
        await dask_worker.plugin_add(plugin, name=plugin.name)
    assert isinstance(plugin, Station)  # noqa: S101  # by its name
    if plugin.fault:
        plugin.open_again()  # what comes of it is for the next time: it may take long
    return await plugin.introduction()


async def dismiss(run: str, dask_worker: Worker) -> None:
    """Run on a worker: end the station of a run."""
    if station_name(run) in dask_worker.plugins:
        await dask_worker.plugin_remove(station_name(run))


def deliver(run: str, parcel: bytes) -> None:
    """The task: hand a delivery over to the station of a run on this worker. Raises KeyError on a
    worker that has been started again, and has none yet."""
    station = get_worker().plugins[station_name(run)]
    assert isinstance(station, Station)  # noqa: S101  # by its name
    station.take(pickle.loads(parcel))  # noqa: S301  # from the run, as everything that Dask runs
