"""Tasks that run on other threads; the loop takes their results on its own. Calls are tasks that
take a slot of the limiter; what has to wait for a time is in `Later`.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from enroll import clock
from enroll.engine import Engine, HeldPhoto, Read
from enroll.errors import EnrollError, ShortageError
from enroll.facesearch import FaceSearch, SignedCall
from enroll.limiter.limits import CallEnd, Limiter, Slot
from enroll.model import Answer
from enroll.runner.health import Reachability
from enroll.settings import Preparation

AGAIN_SECONDS = 1.0
"""After how long a task is repeated that found no file descriptor free."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task:
    """A task that has ended: `on_end` takes its value, `again` repeats it where that is safe."""

    on_end: Callable[[Any], None]
    future: Future[Any]
    again: Callable[[], Future[Any]] | None


class Tasks:
    """Every task of a run, given to its engine. `wake` may come from a signal, all else from the
    loop's thread, on which `on_end` of each task is called with its value."""

    def __init__(self, engine: Engine, *, scanner: Executor) -> None:
        """`scanner` reads the manifest, in one piece."""
        self._engine = engine
        self._scanner = scanner
        self._ended: SimpleQueue[Task | None] = SimpleQueue()
        self._under_way = 0
        self._put_off: deque[tuple[float, Task]] = deque()
        self.stop: EnrollError | None = None
        """Why the run cannot go on, from a task or from what takes its value."""
        self.bug: Exception | None = None
        """What a bug has raised in a task."""

    @property
    def failed(self) -> bool:
        """Whether something keeps the run from going on."""
        return self.stop is not None or self.bug is not None

    @property
    def readers(self) -> int:
        """How many photos can be read at a time now."""
        return self._engine.readers

    @property
    def fault(self) -> EnrollError | None:
        """Why the engine carries out nothing any more."""
        return self._engine.fault

    def read(
        self, paths: Sequence[str], preparation: Preparation, on_end: Callable[[Read], None]
    ) -> None:
        """Have the first of these photos read and prepared."""
        again = partial(self._engine.read, paths, preparation)
        self._watch(again(), on_end, again=again)

    def call(
        self, call: SignedCall, photo: HeldPhoto | None, on_end: Callable[[Answer], None]
    ) -> None:
        """Have a call made. Raises ShortageError where it could not begin at once."""
        self._watch(self._engine.call(call, photo), on_end)

    def drop(self, photo: HeldPhoto) -> None:
        """Let go of a photo that was read."""
        self._engine.drop(photo)

    def scan(self, task: Callable[[], T], on_end: Callable[[T], None]) -> None:
        """Have a part of the manifest scanned."""
        self._watch(self._scanner.submit(task), on_end)

    def _watch(
        self,
        future: Future[T],
        on_end: Callable[[T], None],
        *,
        again: Callable[[], Future[T]] | None = None,
    ) -> None:
        self._under_way += 1
        future.add_done_callback(lambda done: self._ended.put(Task(on_end, done, again)))

    def wake(self) -> None:
        """End a wait now."""
        self._ended.put(None)

    def hear(self, patience: float, reach: Reachability) -> None:
        """Wait at most `patience` seconds for a task to end, then handle all that have ended. One
        that ran out of files or threads changed nothing, and is put off."""
        heard = []
        for task in self._wait(patience):
            try:
                heard.append((task.on_end, task.future.result()))
                if task.again is not None:
                    reach.shortage.passed()
            except EnrollError as error:
                if isinstance(error, ShortageError) and task.again is not None:
                    now = clock.monotonic()
                    reach.shortage.met(str(error), now)
                    reach.make_room()  # what rests is closed
                    self._put_off.append((now + AGAIN_SECONDS, task))
                else:
                    self.stop = self.stop or error
            except Exception as error:  # noqa: BLE001  # a bug; what is in flight comes first
                self.bug = self.bug or error
        for on_end, value in heard:
            try:
                on_end(value)
            except EnrollError as error:
                self.stop = self.stop or error

    def _wait(self, patience: float) -> list[Task]:
        ended: list[Task | None] = []
        try:
            ended.append(self._next(patience))
            while True:
                ended.append(self._ended.get_nowait())
        except Empty:
            pass
        tasks = [task for task in ended if task is not None]
        self._under_way -= len(tasks)
        return tasks

    def _next(self, patience: float) -> Task | None:
        if not patience:
            return self._ended.get_nowait()
        if self._under_way:
            return self._ended.get(timeout=patience)
        return clock.wait(self._ended, patience)  # only time has to pass, or a signal to come

    def due_at(self) -> float | None:
        """When the next task that was put off is to be repeated (monotonic seconds)."""
        return self._put_off[0][0] if self._put_off else None

    def repeat_due(self, now: float) -> None:
        """Repeat the tasks that were put off until now."""
        while self._put_off and self._put_off[0][0] <= now:
            task = self._put_off.popleft()[1]
            if task.again is not None:
                self._watch(task.again(), task.on_end, again=task.again)


class Calls:
    """Signed calls. Each takes its slot when it leaves and gives it back when it has ended."""

    def __init__(
        self, service: FaceSearch, tasks: Tasks, limiter: Limiter, reach: Reachability
    ) -> None:
        self._service = service
        self._tasks = tasks
        self.limiter = limiter
        self.reach = reach

    def service_time(self) -> float:
        """What time it is on the service's clock, at the earliest, in UNIX seconds."""
        return clock.time() + self._service.clock.least

    def send(
        self,
        call: SignedCall,
        photo: HeldPhoto | None,
        on_answer: Callable[[Answer], None],
        *,
        now: float,
    ) -> bool:
        """Have a call made; `on_answer` gets its answer. False where no thread took it: it has not
        left, and has no slot."""
        slot = self.limiter.sent(now)
        try:
            self._tasks.call(call, photo, partial(self._ended, slot, on_answer))
        except ShortageError as error:
            self.reach.shortage.met(str(error), now)
            self.limiter.release(slot, now, CallEnd.BLOCKED)
            return False
        return True

    def _ended(self, slot: Slot, on_answer: Callable[[Answer], None], answer: Answer) -> None:
        service_time = self.service_time()
        self.limiter.answered(slot, answer, now=clock.monotonic(), service_time=service_time)
        on_answer(answer)


class Later(Generic[T]):
    """What goes on at a time (monotonic seconds), the earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        return (one for _, _, one in self._heap)

    def put(self, at: float, one: T) -> None:
        """Have it wait until then."""
        heapq.heappush(self._heap, (at, next(self._order), one))

    def due_at(self) -> float | None:
        """When the first may go on; None where nothing waits."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[tuple[float, T]]:
        """Take out what may go on, with its time."""
        while self._heap and self._heap[0][0] <= now:
            at, _, one = heapq.heappop(self._heap)
            yield at, one
