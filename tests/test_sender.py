"""Calls on their way: which may leave, and when."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from enroll import clock
from enroll.clock import Clock
from enroll.expiry import INTENT_SECONDS
from enroll.facesearch import FaceSearch, SignedCall
from enroll.limiter.limits import FixedLimiter
from enroll.model import Credentials, FaceRecord, FileTimes, Photo, SendAs, Status
from enroll.run.health import Reachability, Unchanging
from enroll.run.job import Job
from enroll.run.sender import Sender
from enroll.run.transitions import Policy

PHOTO = Photo(times=FileTimes(4, 0, 0), sha256=b"", content=b"jpeg", media_type="image/jpeg")


def calls_of(journal: object) -> Sender:
    return Sender(
        FaceSearch("http://127.0.0.1:9", Credentials("key", "secret"), timeout=5.0),
        cast(Any, journal),
        FixedLimiter(10),
        reach=Reachability(),
        group_id="staff",
        send_as=SendAs.FILE,
        policy=Policy(),
        refresh=Unchanging(),
    )


def job(number: int) -> Job:
    face = FaceRecord(
        face_id=number, user_id=f"u{number}", sha256=b"", status=Status.PENDING, user_data=""
    )
    made = Job(cast(Any, None), PHOTO)
    made.face = face
    return made


def test_no_call_leaves_when_the_sign_of_life_has_grown_old_while_others_were_handed_out() -> None:
    handed_out: list[Callable[..., Any]] = []
    lasts_for = 3  # calls, each of which may have a thread started for it

    def submit(
        executor: Executor, heard: Callable[..., None], task: Callable[..., Any], *args: Any
    ) -> None:
        handed_out.append(task)

    journal = SimpleNamespace(
        intent=lambda due, photo, face, expires: replace(face, expires=expires),
        alive=lambda now: len(handed_out) < lasts_for,
        took=0.0,
    )
    calls = calls_of(journal)
    for number in range(10):
        calls.take(job(number))
    calls.arm()
    calls.committed()
    calls.send(submit, cast(Any, None), now=0.0)
    assert (len(handed_out), calls.in_flight) == (3, 3)
    lasts_for = 10  # the next commit
    calls.send(submit, cast(Any, None), now=0.0)
    assert (len(handed_out), calls.in_flight) == (10, 10)


class Moved(Clock):
    """A clock that a test moves."""

    ahead = 0.0

    def time_ns(self) -> int:
        return super().time_ns() + int(self.ahead * 1e9)


def test_a_call_that_would_outlive_its_intent_waits_for_a_later_one_to_be_on_disk() -> None:
    handed_out: list[SignedCall] = []
    moved = Moved()
    on_disk: dict[int, float] = {}

    def renew(face: FaceRecord, *, expires: float) -> FaceRecord:
        on_disk[face.face_id] = expires
        return replace(face, expires=expires)

    def submit(
        executor: Executor, heard: Callable[..., None], task: Callable[..., Any], *args: Any
    ) -> None:
        handed_out.append(args[0])

    journal = SimpleNamespace(
        intent=lambda due, photo, face, expires: renew(face, expires=expires),
        renew_intent=renew,
        alive=lambda now: True,
        took=0.0,
    )
    calls = calls_of(journal)
    with clock.using(moved):
        calls.take(job(1))
        calls.arm()
        calls.committed()
        moved.ahead = INTENT_SECONDS + 2.0  # it waited, or somebody set the clock
        calls.send(submit, cast(Any, None), now=0.0)
        assert handed_out == []
        assert calls.starving(0.0)  # asks for a commit
        calls.committed()
        calls.send(submit, cast(Any, None), now=0.0)
    (call,) = handed_out
    assert call.expires <= on_disk[1]
