"""Which Dask worker reads which photos, and what is read again elsewhere.

A photo may kill whoever reads it. One that was being read when a worker was lost is a suspect: from
then on a worker reads it alone, so that no other photo is taken for the cause, and after
`TIMES_LOST` workers it is given up. One that an earlier run gave up is given one more worker.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from enroll.engine import Read
from enroll.engine.orders import Calling, Member, Outcome, Reading
from enroll.engine.station import Introduction, Refusal
from enroll.engine.workers import Workers
from enroll.model import Fault, Status, Unusable
from enroll.photos import PhotoCode
from enroll.settings import Preparation

UNSEEN = 3
"""How many times in a row a worker may say that it does not read what it was ordered to, before it
is read elsewhere: an outcome may be on its way."""

TIMES_LOST = 3
"""After the loss of so many workers that were reading it, a photo is taken for the cause."""

MOST_TRIES = 20
"""How often an order is given to a worker in vain."""


class Readings:
    """Orders to read, each until something has come of it. Used under the engine's lock only."""

    def __init__(
        self,
        workers: Workers,
        *,
        numbers: Iterator[int],
        ordered: threading.Condition,
        suspects: Iterable[str] = (),
    ) -> None:
        """`ordered` learns of orders in the workers' queues; over each of the `suspects` an earlier
        run has lost workers."""
        self._workers = workers
        self._numbers = numbers
        self._ordered = ordered
        self._given: dict[int, Reading] = {}  # to workers
        self._waiting: list[Reading] = []  # for a worker
        self._lost_over = Counter(dict.fromkeys(suspects, TIMES_LOST - 1))
        """Workers, by the path that they read."""
        self._over: BaseException | None = None

    def __contains__(self, number: int) -> bool:
        return number in self._given

    def order(
        self, paths: Sequence[str], preparation: Preparation, on_end: Callable[[Outcome], None]
    ) -> None:
        """Have at least the first of these photos read; `on_end` takes what has come of it."""
        self._order(Reading(next(self._numbers), paths, preparation, on_end))

    def _order(self, reading: Reading) -> None:
        if self._over is not None:
            reading.on_end(Outcome(error=self._over))
            return
        suspects = [at for at, path in enumerate(reading.paths) if path in self._lost_over]
        if suspects:
            reading.alone = suspects[0] == 0
            reading.paths = reading.paths[: suspects[0] or 1]
        self._waiting.append(reading)
        self.give_out()

    def give_out(self) -> None:
        """Give to workers what waits for one, each to the one that has least to do."""
        waiting, self._waiting = self._waiting, []
        waiting.sort(key=lambda one: not one.alone)
        for reading in waiting:
            spare = bool(self._waiting) and self._waiting[0].alone
            member = self._workers.for_reading(alone=reading.alone, spare=spare)
            if member is None:
                self._waiting.append(reading)
                continue
            reading.instance, reading.accepted, reading.unseen = member.instance, False, 0
            self._given[reading.number] = reading
            member.reading += 1
            member.alone = reading.alone
            member.queue.append(reading)
            self._ordered.notify()

    # What comes of them

    def has_read(self, number: int, instance: str, read: Read) -> bool:
        """A station has read; False where nobody wants what it has."""
        reading = self._given.get(number)
        if reading is None:  # another has read it meanwhile
            return False
        member = self._workers.members.get(instance)
        gone = [one for one in read[0] if isinstance(one, Unusable) and one.share_gone]
        if gone and member is not None and reading.tries < TIMES_LOST:
            self._workers.bar(member, gone[0].fault.message.rstrip("."))
            self._read_elsewhere(reading, suspect=False)
            return False
        for path in reading.paths[: len(read[0])] if self._lost_over else ():
            self._lost_over.pop(path, None)
        self._end(reading, Outcome(instance, read))
        return True

    def has_not_read(self, number: int, outcome: object) -> None:
        """A station has refused, or raised what a bug does."""
        reading = self._given[number]
        if isinstance(outcome, Refusal):
            if (member := self._workers.members.get(reading.instance)) is not None:
                self._workers.doubt(member.address)
            self._read_elsewhere(reading, suspect=False)
            return
        error = outcome if isinstance(outcome, BaseException) else TypeError(repr(outcome))
        self._end(reading, Outcome(error=error))

    def accepted(self, number: int) -> None:
        """The worker has taken the order."""
        if (reading := self._given.get(number)) is not None:
            reading.accepted = True

    def not_taken(self, number: int) -> None:
        """The worker has not, or the link to the scheduler was cut before it could say so."""
        if (reading := self._given.get(number)) is not None:
            self._read_elsewhere(reading, suspect=False)

    def look_for(self, introduction: Introduction) -> None:
        """Read elsewhere what a worker has accepted and does not read: its outcome was lost."""
        for reading in [one for one in self._given.values() if one.accepted]:
            if (
                reading.instance == introduction.instance
                and reading.number not in introduction.reading
            ):
                reading.unseen += 1
                if reading.unseen > UNSEEN:
                    self._read_elsewhere(reading, suspect=True)

    def lose(self, member: Member, *, kept: Collection[Reading | Calling], suspect: bool) -> None:
        """A worker is gone, whose orders in `kept` had not been handed over. With `suspect`, one
        of the others may be why."""
        for reading in [one for one in self._given.values() if one.instance == member.instance]:
            self._read_elsewhere(reading, suspect=suspect and reading not in kept)

    def give_up(self, error: BaseException) -> None:
        """End them all, and those to come."""
        self._over = error
        readings = [*self._given.values(), *self._waiting]
        self._given.clear()
        self._waiting.clear()
        for reading in readings:
            reading.on_end(Outcome(error=error))

    def _read_elsewhere(self, reading: Reading, *, suspect: bool) -> None:
        """Its worker is lost, perhaps for this reason; or it did not get to it."""
        self._take_back(reading)
        reading.number, reading.tries = next(self._numbers), reading.tries + 1
        if suspect:
            self._lost_over.update(reading.paths)
        if self._lost_over[reading.paths[0]] >= TIMES_LOST:
            why = f"{TIMES_LOST} workers were lost over it"
        elif reading.tries >= MOST_TRIES:
            why = f"{MOST_TRIES} workers in turn did not take the order"
        else:
            self._order(reading)
            return
        fault = Fault(code=PhotoCode.WORKERS_LOST, message=f"The photo could not be read: {why}.")
        reading.on_end(Outcome(read=([Unusable(status=Status.FAILED, fault=fault)], False)))

    def _end(self, reading: Reading, outcome: Outcome) -> None:
        self._take_back(reading)
        reading.on_end(outcome)

    def _take_back(self, reading: Reading) -> None:
        del self._given[reading.number]
        if (member := self._workers.members.get(reading.instance)) is not None:
            member.reading -= 1
            member.alone = False
        if self._waiting:
            self.give_out()
