"""Calls on their way: which may leave, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from enroll import clock
from enroll.clock import Clock
from enroll.engine import HeldPhoto
from enroll.errors import LocalError
from enroll.expiry import INTENT_SECONDS
from enroll.facesearch import FaceSearch, SignedCall
from enroll.limiter.limits import FixedLimiter
from enroll.model import Answer, Credentials, FaceRecord, FileTimes, SendAs, Status, Verdict
from enroll.runner.health import CredentialWait, Reachability
from enroll.runner.job import Job, Work
from enroll.runner.sender import Sender
from enroll.runner.tasks import Calls
from enroll.runner.transitions import Policy
from enroll.session.account import Connection
from enroll.session.tally import Tally

PHOTO = HeldPhoto(times=FileTimes(4, 0, 0), sha256=b"", media_type="image/jpeg", handle=1, size=4)


class Watching:
    """Stands where tasks are handed out, and keeps the calls."""

    def __init__(self) -> None:
        self.calls: list[SignedCall] = []

    def call(self, call: SignedCall, photo: HeldPhoto, on_end: Callable[..., None]) -> None:
        del photo, on_end
        self.calls.append(call)


def calls_of(journal: object, tasks: Watching) -> Sender:
    work = SimpleNamespace(group_id="staff", send_as=SendAs.FILE, policy=Policy(attempts=5))
    endpoint, credentials = "http://127.0.0.1:9", Credentials("key", "secret")
    connection = Connection(
        endpoint=endpoint,
        service=FaceSearch(endpoint, credentials, timeout=5.0),
        credentials=credentials,
        read_credentials=lambda: credentials,
    )
    return Sender(
        cast(Work, work),
        connection,
        cast(Any, journal),
        calls=Calls(connection.service, cast(Any, tasks), FixedLimiter(10), Reachability()),
        credential_wait=CredentialWait(0.0),
    )


def job(number: int) -> Job:
    face = FaceRecord(
        face_id=number, user_id=f"u{number}", sha256=b"", status=Status.PENDING, user_data=""
    )
    made = Job(cast(Any, None), PHOTO)
    made.face = face
    return made


def test_no_call_leaves_when_the_sign_of_life_has_grown_old_while_others_were_handed_out() -> None:
    tasks = Watching()
    handed_out = tasks.calls
    lasts_for = 3  # calls, each of which may have a thread started for it

    journal = SimpleNamespace(
        intent=lambda due, photo, face, expires: replace(face, expires=expires),
        alive=lambda now: len(handed_out) < lasts_for,
        took=0.0,
    )
    calls = calls_of(journal, tasks)
    for number in range(10):
        calls.take(job(number))
    calls.arm()
    calls.committed()
    calls.send(0.0)
    assert (len(handed_out), calls.in_flight) == (3, 3)
    lasts_for = 10  # the next commit
    calls.send(0.0)
    assert (len(handed_out), calls.in_flight) == (10, 10)


class Moved(Clock):
    """A clock that a test moves."""

    ahead = 0.0

    def time_ns(self) -> int:
        return super().time_ns() + int(self.ahead * 1e9)


def test_a_call_that_would_outlive_its_intent_waits_for_a_later_one_to_be_on_disk() -> None:
    tasks = Watching()
    moved = Moved()
    on_disk: dict[int, float] = {}

    def renew(face: FaceRecord, *, expires: float) -> FaceRecord:
        on_disk[face.face_id] = expires
        return replace(face, expires=expires)

    journal = SimpleNamespace(
        intent=lambda due, photo, face, expires: renew(face, expires=expires),
        renew_intent=renew,
        alive=lambda now: True,
        took=0.0,
    )
    calls = calls_of(journal, tasks)
    with clock.using(moved):
        calls.take(job(1))
        calls.arm()
        calls.committed()
        moved.ahead = INTENT_SECONDS + 2.0  # it waited, or somebody set the clock
        calls.send(0.0)
        assert tasks.calls == []
        assert calls.starving(0.0)  # asks for a commit
        calls.committed()
        calls.send(0.0)
    (call,) = tasks.calls
    assert call.expires <= on_disk[1]


def test_each_answer_is_recorded_whatever_becomes_of_the_others() -> None:
    recorded: list[int] = []

    def record(face: FaceRecord, *, ended: bool) -> None:
        del ended
        if face.face_id == 1:
            raise LocalError("The disk is full.")
        recorded.append(face.face_id)

    def holders_of(tokens: object) -> dict[str, int]:
        raise LocalError("The ledger cannot be read.")

    journal = SimpleNamespace(
        ledger=SimpleNamespace(holders_of=holders_of), tally=Tally(), face=record, run=1
    )
    calls = calls_of(journal, Watching())
    jobs = [job(number) for number in (1, 2, 3)]
    for one, token in zip(jobs, ("a", "b", "b"), strict=True):
        calls._hear_later(one, Answer(verdict=Verdict.APPLIED, face_token=token))
    assert calls.hear_all() == jobs[1:]
    assert recorded == [2, 3]
    assert [one.face.status for one in jobs[1:]] == [Status.ENROLLED, Status.IN_DOUBT]
    assert str(calls.unrecorded) == "The ledger cannot be read."
    assert calls.answered == 0
