"""The engine whose photos are read, held and sent by Dask workers; this process decides and signs.

Why no call is made twice, whatever Dask runs again: each order to make a call has a number of its
own and the instance of one station (`enroll.engine.station`), which carries out a number once, and
only while it is what it was. Here a call's outcome is what its station reports. A worker that is
lost, a task that is cancelled, a refusal by another instance, silence: none of them proves that the
call was not made. Then its answer is unknown, and comes when its signature has expired: until then
it may be under way, and keeps its slot.

What was not handed to Dask has provably not left. If its worker is gone, another reads the photo
again, and makes the call if it is still the same photo and there is time left.
"""

from __future__ import annotations

import itertools
import pickle
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial

from enroll import clock
from enroll.engine import HeldPhoto, Read
from enroll.engine.cluster import SCHEDULER_LOST
from enroll.engine.orders import Calling, Member, Outcome, PhotoThere, Post, too_late
from enroll.engine.readings import Readings
from enroll.engine.station import TOGETHER_SECONDS, Refusal, station_name
from enroll.engine.threads import Executors, ThreadEngine
from enroll.engine.workers import (
    LOST_SECONDS,
    SILENT_SECONDS,
    STUCK_SECONDS,
    Workers,
)
from enroll.errors import EnrollError, LocalError
from enroll.expiry import SIGNED_BEYOND_SECONDS
from enroll.facesearch import FaceSearch, OwnCode, SignedCall
from enroll.model import Answer, Unusable, Verdict
from enroll.photos import PhotoStore
from enroll.settings import Preparation

TICK_SECONDS = 0.1
"""How often deadlines are looked at."""

LOOK_SECONDS = 1.0
"""How often the workers are asked what they are."""


class DaskEngine:
    """See `enroll.engine.Engine` for the contract, and the module. Calls without a photo are made
    here. `close` ends the stations; who opened the cluster closes that."""

    def __init__(
        self,
        service: FaceSearch,
        store: PhotoStore,
        executors: Executors,
        workers: Workers,
        *,
        suspects: Iterable[str] = (),
        joining: Callable[[], object] | None = None,
    ) -> None:
        """`workers` are mustered already; `suspects` are photos over which earlier runs lost some.
        The threads that pass the interpreter to the run's, Dask's among them, call `joining`."""
        self._service = service
        self._own = ThreadEngine(service, store, executors)
        self._cluster = workers.cluster
        self._workers = workers
        self._run = workers.posting.run
        self._post = Post(self._cluster, self._run)
        self._numbers = itertools.count(1)
        self._photos: dict[int, PhotoThere] = {}
        self._calling: dict[int, Calling] = {}
        self._state = threading.Condition()
        self._readings = Readings(
            workers, numbers=self._numbers, ordered=self._state, suspects=suspects
        )
        self._closed = False
        self._looking = False
        self._look_at = self._looked_at = self._worked_at = clock.monotonic()
        self._fault: EnrollError | None = None
        self._joining = joining
        if joining is not None:
            self._cluster.client.loop.add_callback(joining)
        self._subscribe()
        threading.Thread(target=self._serve, daemon=True, name="enroll-dask").start()

    @property
    def readers(self) -> int:
        """0 while no worker has memory for more photos that are ready to be sent. With a fault
        there is one, who says so."""
        with self._state:
            if self._fault is not None:
                return 1
            able = [one for one in self._members.values() if not (one.full or one.fault)]
            return sum(one.introduction.readers for one in able)

    @property
    def fault(self) -> EnrollError | None:
        """That there is no scheduler any more, or no worker."""
        return self._fault

    @property
    def _members(self) -> dict[str, Member]:
        return self._workers.members

    # What the run asks for

    def read(self, paths: Sequence[str], preparation: Preparation) -> Future[Read]:
        future: Future[Read] = Future()
        on_end = partial(self._read, paths, preparation, future)
        with self._state:
            self._readings.order(paths, preparation, on_end)
        return future

    def call(self, call: SignedCall, photo: HeldPhoto | None = None) -> Future[Answer]:
        if photo is None:
            return self._own.call(call)
        future: Future[Answer] = Future()
        with self._state:
            held = self._photos[photo.handle]
            held.calls += 1
            until = call.deadline + SIGNED_BEYOND_SECONDS
            self._order_call(Calling(next(self._numbers), call, held, future, until))
        return future

    def drop(self, photo: HeldPhoto) -> None:
        with self._state:
            held = self._photos.pop(photo.handle, None)
            if held is not None:
                held.dropped = True
                self._let_go_unless_sent(held)

    def close(self) -> None:
        """Let go of every photo: no call follows. Calls under way end by themselves."""
        with self._state:
            self._closed = True
            self._photos.clear()
            self._state.notify()
        self._own.close()
        self._workers.dismiss()

    # Orders, and what comes of them; all of this holds the lock

    def _read(
        self, paths: Sequence[str], preparation: Preparation, future: Future[Read], end: Outcome
    ) -> None:
        if end.read is None:
            future.set_exception(end.error or RuntimeError("nothing was read"))
            return
        photos, quick = end.read
        ours: list[HeldPhoto | Unusable] = []
        for path, photo in zip(paths, photos, strict=False):
            if isinstance(photo, HeldPhoto):
                handle = next(self._numbers)
                held = PhotoThere(path, preparation, end.instance, photo)
                if self._closed:
                    self._let_go(held)
                else:
                    self._photos[handle] = held
                ours.append(replace(photo, handle=handle))
            else:
                ours.append(photo)
        future.set_result((ours, quick))

    def _order_call(self, calling: Calling) -> None:
        """Have the station make it that holds its photo; or read the photo again first."""
        if self._fault is not None:
            message = str(self._fault)
            lost = OwnCode.WORKER_LOST.value
            self._end_call(calling, Answer(verdict=Verdict.NOT_SENT, code=lost, message=message))
            return
        calling.left_at = None
        self._calling[calling.number] = calling
        member = self._members.get(calling.photo.instance)
        if member is not None:
            member.queue.append(calling)
            self._state.notify()
            return
        photo = calling.photo
        self._readings.order([photo.path], photo.preparation, partial(self._read_again, calling))

    def _read_again(self, calling: Calling, end: Outcome) -> None:
        """Make a call whose photo another worker has read, if it is the same and in time."""
        photo, waits = calling.photo, self._calling.get(calling.number) is calling
        now = end.read[0][0] if end.read else None
        if isinstance(now, HeldPhoto):
            before = photo.there
            if waits and (now.sha256, now.sent_sha256) == (before.sha256, before.sent_sha256):
                photo.instance, photo.there = end.instance, now
                self._order_call(calling)
                return
            self._let_go(PhotoThere(photo.path, photo.preparation, end.instance, now))
        if waits:
            message = "The worker that held the photo was lost, and the photo has changed since."
            code = OwnCode.WORKER_LOST.value
            self._end_call(calling, Answer(verdict=Verdict.FAILED, code=code, message=message))

    def _end_call(self, calling: Calling, answer: Answer | BaseException) -> None:
        self._calling.pop(calling.number, None)
        calling.photo.calls -= 1
        self._let_go_unless_sent(calling.photo)
        if isinstance(answer, Answer):
            calling.future.set_result(answer)
        else:
            calling.future.set_exception(answer)

    def _let_go_unless_sent(self, photo: PhotoThere) -> None:
        """A call that is ordered keeps its photo: the order and a word to let go of it may reach
        the worker in any order."""
        if photo.dropped and not photo.calls:
            self._let_go(photo)

    def _let_go(self, photo: PhotoThere) -> None:
        member = self._members.get(photo.instance)
        if member is not None:
            member.held -= photo.there.size
            member.dropped.append(photo.there.handle)

    # What stations report; in the client's event loop

    async def _reported(self, event: tuple[float, Sequence[bytes]]) -> None:
        for report in event[1]:
            self._hear(*pickle.loads(report))  # noqa: S301  # from our own worker

    def _hear(self, instance: str, number: int, outcome: object) -> None:
        with self._state:
            if isinstance(outcome, tuple):
                self._has_read(instance, number, outcome)
            elif number in self._readings:
                self._readings.has_not_read(number, outcome)
            elif number in self._calling:
                self._has_called(self._calling[number], instance, outcome)

    def _has_read(self, instance: str, number: int, read: Read) -> None:
        member = self._members.get(instance)
        if self._cluster.workers is not None:
            self._cluster.workers.proven()
        if member is not None:
            member.held += sum(one.size for one in read[0] if isinstance(one, HeldPhoto))
        if not self._readings.has_read(number, instance, read) and member is not None:
            for photo in read[0]:
                if isinstance(photo, HeldPhoto):
                    member.held -= photo.size
                    member.dropped.append(photo.handle)

    def _has_called(self, calling: Calling, instance: str, outcome: object) -> None:
        if isinstance(outcome, Answer) and calling.left_at is not None:
            left, now = calling.left_at, clock.time()
            self._end_call(calling, self._service.judged(outcome, sent=left, received=now))
        elif outcome is Refusal.NO_PHOTO and instance == calling.photo.instance:
            del self._calling[calling.number]  # it was not made under this number, nor will be
            calling.number = next(self._numbers)
            calling.photo.instance = ""
            self._order_call(calling)
        elif isinstance(outcome, BaseException):
            self._end_call(calling, outcome)
        # Other refusals prove nothing: see the module.

    # The thread that hands orders over, and keeps deadlines whatever Dask does

    def _serve(self) -> None:
        if self._joining is not None:
            self._joining()
        try:
            self._hand_over_and_check()
        except BaseException as error:  # noqa: BLE001  # a bug: whoever waits gets it
            with self._state:
                self._forsake(error)
        with suppress(Exception):  # the client is closed
            self._cluster.client.unsubscribe_topic(station_name(self._run))

    def _hand_over_and_check(self) -> None:
        check_at, pause = 0.0, threading.Event()
        while True:
            with self._state:
                # Without a scheduler orders wait here, where they have provably not left.
                connected = self._cluster.connected
                if not connected or not any(one.queue for one in self._members.values()):
                    self._state.wait(TICK_SECONDS)
                if self._closed and not self._calling:
                    break
                parcels = self._post.pack(self._members.values()) if connected else []
            for parcel in parcels:
                self._post.send(parcel)
            if parcels:
                pause.wait(TOGETHER_SECONDS)
            with self._state:
                self._post.keep(parcels)
                now = clock.monotonic()
                if now >= check_at:
                    check_at = now + TICK_SECONDS
                    self._check(now)

    def _check(self, now: float) -> None:
        self._check_parcels()
        for calling in [one for one in self._calling.values() if one.until <= now]:
            self._end_call(calling, too_late(calling))
        if now >= self._look_at and not self._looking and not self._closed:
            self._look_at, self._looking = now + LOOK_SECONDS, True
            if self._cluster.workers is not None:
                self._cluster.workers.tend()
            self._cluster.begin(self._look())
        if any(not one.fault for one in self._members.values()):
            self._worked_at = now
        if self._fault is None and (because := self._why_over(now)):
            self._fail(LocalError(f"{because} Run the same command again when that is corrected."))

    def _check_parcels(self) -> None:
        for parcel, status in self._post.over(self._members.values()):
            if status == "finished":
                for number in parcel.numbers:
                    self._readings.accepted(number)
                continue
            if status in ("error", "lost"):  # the station is not there, or its worker has died
                self._give_up(parcel.member, suspect=status == "lost")
            self._workers.doubt(parcel.member.address)
            for number in parcel.numbers:
                self._readings.not_taken(number)

    def _why_over(self, now: float) -> str:
        if over := self._cluster.over:
            return over
        if now - self._looked_at > LOST_SECONDS:
            return SCHEDULER_LOST
        if now - self._worked_at > LOST_SECONDS:
            return self._workers.none_can_work()
        return ""

    def _fail(self, fault: LocalError) -> None:
        """Nothing goes on: what was not handed over has not left, and the rest is in doubt."""
        self._fault = fault
        for calling in [one for one in self._calling.values() if one.left_at is None]:
            self._order_call(calling)  # which says so
        self._readings.give_up(fault)

    def _forsake(self, error: BaseException) -> None:
        """Nothing is watched any more."""
        for calling in list(self._calling.values()):
            self._end_call(calling, error)
        self._readings.give_up(error)

    # Who works for the run; in the client's event loop

    def _subscribe(self) -> None:
        """Again and again: a scheduler forgets it when the link to it was cut."""
        with suppress(Exception):
            self._cluster.client.subscribe_topic(station_name(self._run), self._reported)

    async def _look(self) -> None:
        """See which workers there are, and have new ones set up their stations."""
        try:
            sight = await self._workers.look()
            self._subscribe()
            with self._state:
                self._looked_at = now = clock.monotonic()
                for member in self._workers.update(sight):
                    self._lose(member)
                for introduced in sight.introduced.values():
                    self._readings.look_for(introduced.introduction)
                for member in self._post.stuck(now - SILENT_SECONDS):
                    self._avoid(member)
                self._readings.give_out()
        finally:
            self._looking = False

    def _avoid(self, member: Member) -> None:
        """Give nothing more to a worker that lives and takes no order, for a while."""
        self._give_up(member, suspect=False)
        why = f"it has taken no order for {SILENT_SECONDS:.0f} seconds"
        self._workers.refuse(member.address, why, seconds=STUCK_SECONDS)

    def _give_up(self, member: Member, *, suspect: bool) -> None:
        """Do without a worker from now on; with `suspect`, a photo may be why."""
        if self._members.get(member.instance) is member:
            self._workers.lose(member)
            self._lose(member, suspect=suspect)

    def _lose(self, member: Member, *, suspect: bool = True) -> None:
        """A worker is gone. What was not handed over to it goes elsewhere."""
        queue, member.queue = member.queue, []
        for order in queue:
            if isinstance(order, Calling):
                self._order_call(order)
        self._readings.lose(member, kept=queue, suspect=suspect)
