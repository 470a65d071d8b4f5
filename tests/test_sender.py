"""Calls on their way: which may leave, and when."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from types import SimpleNamespace
from typing import Any, cast

from enroll.limiter.limits import FixedLimiter
from enroll.model import FaceRecord, SendAs, Status
from enroll.run.health import Reachability, Unchanging
from enroll.run.sender import Calls, Job
from enroll.run.transitions import Policy


def test_no_call_leaves_when_the_sign_of_life_has_grown_old_while_others_were_handed_out() -> None:
    handed_out: list[Callable[..., Any]] = []
    lasts_for = 3  # calls, each of which may have a thread started for it

    def submit(
        executor: Executor, heard: Callable[..., None], task: Callable[..., Any], *args: Any
    ) -> None:
        handed_out.append(task)

    journal = SimpleNamespace(
        intent=lambda due, photo, face: face, alive=lambda now: len(handed_out) < lasts_for
    )
    calls = Calls(
        cast(Any, SimpleNamespace(add=lambda **fields: None)),
        cast(Any, journal),
        FixedLimiter(10),
        reach=Reachability(),
        group_id="staff",
        send_as=SendAs.FILE,
        policy=Policy(),
        left=lambda job: None,
        doubted=lambda job: None,
        refresh=Unchanging(),
    )
    for number in range(10):
        face = FaceRecord(
            face_id=number, user_id=f"u{number}", sha256=b"", status=Status.PENDING, user_data=""
        )
        calls.take(Job(cast(Any, None), cast(Any, None), face))
    calls.arm()
    calls.committed()
    calls.send(submit, cast(Any, None), now=0.0)
    assert (len(handed_out), calls.in_flight) == (3, 3)
    lasts_for = 10  # the next commit
    calls.send(submit, cast(Any, None), now=0.0)
    assert (len(handed_out), calls.in_flight) == (10, 10)
