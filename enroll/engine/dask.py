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
import logging
import pickle
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial

from enroll import clock
from enroll.engine import HeldPhoto, Read
from enroll.engine.cluster import Cluster
from enroll.engine.orders import (
    Calling,
    Member,
    Outcome,
    Parcel,
    PhotoThere,
    Reading,
    order_for,
    too_late,
)
from enroll.engine.station import (
    TOGETHER_SECONDS,
    Delivery,
    Posting,
    Refusal,
    deliver,
    station_name,
)
from enroll.engine.threads import Executors, ThreadEngine
from enroll.engine.workers import Introduced, Workers
from enroll.errors import EnrollError, LocalError
from enroll.expiry import SIGNED_BEYOND_SECONDS
from enroll.facesearch import FaceSearch, OwnCode, SignedCall
from enroll.model import Answer, Fault, Status, Unusable, Verdict
from enroll.photos import PhotoCode, PhotoStore
from enroll.settings import DEFAULT_PREPARATION, Preparation

TICK_SECONDS = 0.1
"""How often deadlines are looked at."""

LOOK_SECONDS = 1.0
"""How often the workers are asked what they are."""

SILENT_SECONDS = 20.0
"""After this long without a word a worker is taken for lost: others read what it should have."""

LOST_SECONDS = 60.0
"""After this long without a scheduler, or without any worker, the run ends."""

REFUSED_SECONDS = 5.0
"""The same where there are workers, but none that can work."""

UNSEEN = 3
"""How many times in a row a worker may say that it does not read what it was ordered to, before it
is read elsewhere: an outcome may be on its way."""

TIMES_LOST = 3
"""After the loss of so many workers that were reading it, a photo is taken for the cause."""

_LOGGER = logging.getLogger("enroll")


class DaskEngine:
    """See `enroll.engine.Engine` for the contract, and the module. Calls without a photo are made
    here. `close` ends the stations; who opened the cluster closes that."""

    def __init__(
        self,
        service: FaceSearch,
        store: PhotoStore,
        executors: Executors,
        cluster: Cluster,
        *,
        calls: int,
        preparation: Preparation = DEFAULT_PREPARATION,
        memory: int | None = None,
    ) -> None:
        """Each worker makes at most `calls` at a time; `memory` is for all local workers."""
        self._service = service
        self._own = ThreadEngine(service, store, executors)
        self._cluster = cluster
        local = cluster.workers
        self._posting = Posting(
            run=uuid.uuid4().hex,
            root=store.root,
            way=service.way,
            calls=calls,
            readers=executors.reading_at_once,
            memory=None if local is None else local.share_of(memory, preparation.max_pixels),
            preparation=preparation,
        )
        self._workers = Workers(cluster, self._posting)
        self._numbers = itertools.count(1)
        self._members: dict[str, Member] = {}  # by instance
        self._photos: dict[int, PhotoThere] = {}
        self._reading: dict[int, Reading] = {}
        self._calling: dict[int, Calling] = {}
        self._homeless: list[Reading] = []
        self._parcels: list[Parcel] = []
        self._state = threading.Condition()
        self._closed = False
        self._looking = False
        self._look_at = self._looked_at = self._worked_at = clock.monotonic()
        self._fault: EnrollError | None = None
        self._subscribe()
        with suppress(Exception):  # it is repeated
            cluster.ask(self._look())
        threading.Thread(target=self._serve, daemon=True, name="enroll-dask").start()

    @property
    def readers(self) -> int:
        """0 while no worker has memory for more photos that are ready to be sent. With a fault
        there is one, who says so."""
        with self._state:
            if self._fault is not None:
                return 1
            return sum(one.introduction.readers for one in self._members.values() if not one.full)

    @property
    def fault(self) -> EnrollError | None:
        """That there is no scheduler any more, or no worker."""
        return self._fault

    # What the run asks for

    def read(self, paths: Sequence[str], preparation: Preparation) -> Future[Read]:
        future: Future[Read] = Future()
        on_end = partial(self._read, paths, preparation, future)
        self._order_reading(Reading(next(self._numbers), paths, preparation, on_end))
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
            addresses = [one.address for one in self._members.values()]
            self._state.notify()
        self._own.close()
        with suppress(Exception):  # workers that cannot be reached let go by themselves
            self._cluster.ask(self._workers.dismiss(addresses))

    # Orders, and what comes of them; all of this holds the lock

    def _order_reading(self, reading: Reading) -> None:
        """Have it read by the worker that has least to do."""
        with self._state:
            if self._fault is not None:
                reading.on_end(Outcome(error=self._fault))
                return
            self._reading[reading.number] = reading
            member = min(
                self._members.values(),
                # The run asks for no more while all are full, but what was lost is read again.
                key=lambda one: (one.full, one.reading / one.introduction.readers, one.held),
                default=None,
            )
            if member is None:
                self._homeless.append(reading)
                return
            reading.instance, reading.accepted, reading.unseen = (
                member.introduction.instance,
                False,
                0,
            )
            member.reading += 1
            member.queue.append(reading)
            self._state.notify()

    def _read_elsewhere(self, reading: Reading) -> None:
        """Its worker is lost, and perhaps this was the reason."""
        self._forget_reading(reading)
        reading.number, reading.lost = next(self._numbers), reading.lost + 1
        if reading.lost < TIMES_LOST:
            reading.paths = reading.paths[:1]
            self._order_reading(reading)
            return
        fault = Fault(
            code=PhotoCode.UNREADABLE,
            message=f"The photo could not be read: {TIMES_LOST} workers were lost over it.",
        )
        reading.on_end(Outcome(read=([Unusable(status=Status.FAILED, fault=fault)], False)))

    def _forget_reading(self, reading: Reading) -> None:
        del self._reading[reading.number]
        if reading.instance in self._members:
            self._members[reading.instance].reading -= 1

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
        on_end = partial(self._read_again, calling)
        again = Reading(next(self._numbers), [photo.path], photo.preparation, on_end)
        self._order_reading(again)

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
            elif number in self._reading:
                self._has_not_read(self._reading[number], outcome)
            elif number in self._calling:
                self._has_called(self._calling[number], instance, outcome)

    def _has_read(self, instance: str, number: int, read: Read) -> None:
        member = self._members.get(instance)
        photos = [photo for photo in read[0] if isinstance(photo, HeldPhoto)]
        if member is not None:
            member.held += sum(photo.size for photo in photos)
        reading = self._reading.get(number)
        if reading is not None:
            self._forget_reading(reading)
            reading.on_end(Outcome(instance, read))
        elif member is not None:  # another has read them meanwhile
            for photo in photos:
                member.held -= photo.size
                member.dropped.append(photo.handle)

    def _has_not_read(self, reading: Reading, outcome: object) -> None:
        if isinstance(outcome, Refusal):
            if (member := self._members.get(reading.instance)) is not None:
                self._workers.doubt(member.address)
            self._read_elsewhere(reading)
            return
        self._forget_reading(reading)
        error = outcome if isinstance(outcome, BaseException) else TypeError(repr(outcome))
        reading.on_end(Outcome(error=error))

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
        try:
            self._hand_over_and_check()
        except BaseException as error:  # noqa: BLE001  # a bug: whoever waits gets it
            with self._state:
                self._forsake(error)
        with suppress(Exception):  # the client is closed
            self._cluster.client.unsubscribe_topic(station_name(self._posting.run))

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
                parcels = self._pack() if connected else []
            for parcel in parcels:
                self._hand_over(parcel)
            if parcels:
                pause.wait(TOGETHER_SECONDS)
            with self._state:
                self._parcels += [parcel for parcel in parcels if parcel.task is not None]
                now = clock.monotonic()
                if now >= check_at:
                    check_at = now + TICK_SECONDS
                    self._check(now)

    def _pack(self) -> list[Parcel]:
        parcels = []
        for member in self._members.values():
            if member.queue:
                orders, member.queue = member.queue, []
                for order in orders:
                    if isinstance(order, Calling):
                        order.left_at = clock.time()  # from here on nothing proves that it has not
                numbers = [order.number for order in orders]
                parcels.append(Parcel(member, orders, numbers))
        return parcels

    def _hand_over(self, parcel: Parcel) -> None:
        member = parcel.member
        dropped, member.dropped = member.dropped, []
        delivery = Delivery(
            member.introduction.instance, [order_for(one, member) for one in parcel.orders], dropped
        )
        with suppress(Exception):  # a client that is closed; what is lost with it is seen later
            parcel.task = self._cluster.client.submit(
                deliver,
                self._posting.run,
                pickle.dumps(delivery),
                key=f"{station_name(self._posting.run)}-{next(self._numbers)}",
                workers=[member.address],
                allow_other_workers=False,
                retries=0,
                pure=False,
            )

    def _check(self, now: float) -> None:
        self._check_parcels()
        for calling in [one for one in self._calling.values() if one.until <= now]:
            self._end_call(calling, too_late(calling))
        if now >= self._look_at and not self._looking and not self._closed:
            self._look_at, self._looking = now + LOOK_SECONDS, True
            if self._cluster.workers is not None:
                self._cluster.workers.tend()
            self._cluster.begin(self._look())
        for member in list(self._members.values()):
            if now - member.seen_at > SILENT_SECONDS:
                self._lose(member)
        if self._members:
            self._worked_at = now
        if self._fault is None and (because := self._why_over(now)):
            self._fail(LocalError(f"{because} Run the same command again when that is corrected."))

    def _check_parcels(self) -> None:
        """Forget tasks that are done, so that Dask does not run them again."""
        left = []
        for parcel in self._parcels:
            status, member = parcel.task.status, parcel.member
            if status == "pending" and self._members.get(member.introduction.instance) is member:
                left.append(parcel)
                continue
            with suppress(Exception):  # the client is closed
                parcel.task.release()
            if status != "finished":
                self._workers.doubt(member.address)
            for reading in [self._reading.get(number) for number in parcel.numbers]:
                if reading is None:
                    continue
                if status == "finished":
                    reading.accepted = True
                else:
                    self._read_elsewhere(reading)
        self._parcels = left

    def _why_over(self, now: float) -> str:
        if self._cluster.closed or now - self._looked_at > LOST_SECONDS:
            return "The Dask scheduler does not answer any more."
        refused = dict(self._workers.refused)
        if now - self._worked_at > (REFUSED_SECONDS if refused else LOST_SECONDS):
            reasons = "; ".join(f"{one}: {why}" for one, why in sorted(refused.items()))
            return f"No Dask worker can work for this run{f' ({reasons})' if reasons else ''}."
        return ""

    def _fail(self, fault: LocalError) -> None:
        """Nothing goes on: what was not handed over has not left, and the rest is in doubt."""
        self._fault = fault
        for calling in [one for one in self._calling.values() if one.left_at is None]:
            self._order_call(calling)  # which says so
        self._give_up_reading(fault)

    def _forsake(self, error: BaseException) -> None:
        """Nothing is watched any more."""
        for calling in list(self._calling.values()):
            self._end_call(calling, error)
        self._give_up_reading(error)

    def _give_up_reading(self, error: BaseException) -> None:
        readings, self._homeless = list(self._reading.values()), []
        self._reading.clear()
        for reading in readings:
            reading.on_end(Outcome(error=error))

    # Who works for the run; in the client's event loop

    def _subscribe(self) -> None:
        """Again and again: a scheduler forgets it when the link to it was cut."""
        self._cluster.client.subscribe_topic(station_name(self._posting.run), self._reported)

    async def _look(self) -> None:
        """See which workers there are, and have new ones set up their stations."""
        try:
            sight = await self._workers.look()
            self._subscribe()
            with self._state:
                self._looked_at = now = clock.monotonic()
                for address, introduced in sight.introduced.items():
                    self._introduced(address, introduced, now)
                for member in list(self._members.values()):
                    heard_at = sight.heard_at.get(member.address)
                    if heard_at is None:
                        self._lose(member)
                    elif heard_at != member.heard_at:
                        member.heard_at, member.seen_at = heard_at, now
        finally:
            self._looking = False

    def _introduced(self, address: str, introduced: Introduced, now: float) -> None:
        introduction = introduced.introduction
        member = self._members.get(introduction.instance)
        if member is None:
            for before in [one for one in self._members.values() if one.address == address]:
                self._lose(before)  # it was started again
            member = Member(
                address, introduction, introduced.monotonic_offset, introduced.wall_offset, now
            )
            self._members[introduction.instance] = member
            homeless, self._homeless = self._homeless, []
            for reading in homeless:
                self._order_reading(reading)
        # The quicker the answer, the higher and the truer is the offset.
        offset = max(member.monotonic_offset, introduced.monotonic_offset)
        member.monotonic_offset, member.wall_offset = offset, introduced.wall_offset
        member.introduction, member.seen_at = introduction, now
        for reading in [one for one in self._reading.values() if one.accepted]:
            if (
                reading.instance == introduction.instance
                and reading.number not in introduction.reading
            ):
                reading.unseen += 1
                if reading.unseen > UNSEEN:
                    self._read_elsewhere(reading)

    def _lose(self, member: Member) -> None:
        """A worker is gone. What was not handed over to it goes elsewhere."""
        del self._members[member.introduction.instance]
        self._workers.doubt(member.address)
        _LOGGER.warning("The Dask worker at %s was lost.", member.address)
        queue, member.queue = member.queue, []
        for order in queue:
            if isinstance(order, Calling):
                self._order_call(order)
        lost = [
            one for one in self._reading.values() if one.instance == member.introduction.instance
        ]
        for reading in lost:
            if reading in queue:  # it was not begun, so it is not the reason
                reading.lost -= 1
            self._read_elsewhere(reading)
