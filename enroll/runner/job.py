"""What a run is to do, and a due row on its way: the one object that carries it from the feed to
its outcome."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain

from enroll.engine import HeldPhoto
from enroll.ledger import Finding
from enroll.model import Candidate, Credentials, FaceRecord, Fault, Row, SendAs, Unusable
from enroll.photos import PhotoStore
from enroll.runner.sample import Sample
from enroll.runner.tasks import Tasks
from enroll.runner.transitions import Policy
from enroll.settings import Lookalikes, Preparation


class Trust(Enum):
    """How far the ledger is trusted to know its library."""

    WHOLE = "whole"
    """Fully: the library was empty a moment ago, or a person vouches for the ledger."""
    UNLESS_SEEN = "unless seen"
    """Until an unknown face is seen: another program may have added some."""
    LESS = "less"
    """Less: it was restored to an earlier state, so what the library holds has to be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run is to do: the settings that its loop and its parts go by.

    `store` has the photos; `fault_of` says why a row can never be sent; `limit` is the most rows to
    process; `sample` draws the rows of a trial.
    `give_up_after`, `credentials_grace`, `drain`, `settle_after` and `max_duration` are seconds;
    `until` is when the run has to end (monotonic). With `reread` every photo is read, even if its
    file looks unchanged. `trust` says how far the ledger is believed to know the library,
    `lookalikes` what to do with a new face that looks like another person.
    """

    run: int
    group_id: str
    store: PhotoStore
    fault_of: Callable[[Row], Fault | None]
    policy: Policy
    send_as: SendAs
    preparation: Preparation
    limit: int | None
    sample: Sample | None
    give_up_after: float
    credentials_grace: float
    drain: float
    settle_after: float
    max_duration: float
    until: float
    reread: bool
    trust: Trust
    lookalikes: Lookalikes


@dataclass(slots=True, eq=False)
class Job:
    """A due row, what reading its photo has shown, and the face that it is about.

    `seen` is None until the photo is read, and again while the job waits for its person or for a
    look at the library: many of them may wait, and a photo is soon read again. `face` is set by the
    planner. `tries` counts this run's answers, `setbacks` the times that a call had to be put off.
    `credentials` signed the last call, which left at `left_at` (monotonic seconds), and `expires`
    is when that signature expires;
    `previous_expires` is the expiry of the last attempt before it that ended in doubt.
    `compared` is whether the library has been searched for people who look like it, and `findings`
    are what that has found of a face that is added all the same.
    """

    due: Candidate
    seen: HeldPhoto | Unusable | None = None
    face: FaceRecord = field(init=False, repr=False)
    tries: int = 0
    setbacks: int = 0
    credentials: Credentials | None = None
    left_at: float = 0.0
    expires: float = 0.0
    previous_expires: float | None = None
    compared: bool = False
    findings: Sequence[Finding] = ()

    @property
    def photo(self) -> HeldPhoto:
        """The photo of a job that is planned to be sent."""
        if not isinstance(self.seen, HeldPhoto):
            raise TypeError("a job whose photo was not read is not sent")
        return self.seen

    def drop_photo(self, tasks: Tasks) -> None:
        """Let go of its photo, if it has one."""
        if isinstance(self.seen, HeldPhoto):
            tasks.drop(self.seen)
        self.seen = None


class People:
    """Persons with a face that is on its way or in doubt, and the jobs that wait for that."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Job]] = {}

    def __bool__(self) -> bool:
        """Whether anybody is busy."""
        return bool(self._waiting)

    def busy(self, user_id: str) -> bool:
        """Whether a face of this person is under way."""
        return user_id in self._waiting

    def occupy(self, user_id: str) -> None:
        """A face of this person is under way from now on."""
        self._waiting.setdefault(user_id, deque())

    def park(self, job: Job) -> None:
        """Keep a job back whose person is busy."""
        self._waiting[job.due.row.user_id].append(job)

    def parked(self) -> Iterator[Job]:
        """Every job that waits."""
        return chain.from_iterable(self._waiting.values())

    def free(self, user_id: str) -> deque[Job]:
        """The person's face has its outcome; the jobs that have waited for that."""
        return self._waiting.pop(user_id, deque())
