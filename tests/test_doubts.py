"""Faces in doubt in whole runs: when they are looked at, with how much memory, and when looks fail.

Real HTTP against the stand-in, real files, a real ledger.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checked_library import GROUP, Place

from enroll import enrollment
from enroll.enrollment import Report, Unwatched, enroll_manifest
from enroll.errors import ExitCode
from enroll.model import Candidate, Credentials, Photo, Status
from enroll.resolve import ResolveSettings, resolve
from enroll.sandbox import Sandbox


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Sandbox(detect=False) as box:
        box.create_library(GROUP)
        yield Place(tmp_path, box)


@pytest.fixture
def _searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every library is too large to be listed whole."""
    monkeypatch.setattr("enroll.doubts.LIST_PAGE", 1)


def run(
    place: Place,
    *,
    screen: Unwatched | None = None,
    executors: Callable[[int], Executor] = ThreadPoolExecutor,
    read: Callable[[], Credentials] | None = None,
    **changed: Any,
) -> Report:
    return enroll_manifest(
        place.settings(**changed),
        read or (lambda: place.credentials),
        screen=screen,
        executors=executors,
    )


def doubted(place: Place, *numbers: int) -> None:
    """People whose faces were added, and of whom the ledger does not know it."""
    place.people(*numbers)
    place.run()
    for number in numbers:
        place.doubt(f"u{number}")


def test_a_killed_run_is_reckoned_with_by_the_clock_of_its_own_service(place: Place) -> None:
    # `resolve --offline` asks nobody what time it is, and is what finds the killed run's calls.
    place.box.clock_skew = 3600.0
    place.people(1, 2)
    place.run()
    place.doubt("u2")
    place.record(replace(place.face("u1"), status=Status.SENDING, face_token=None))
    resolve(ResolveSettings(ledger=place.ledger, user_id="u2", token=None), None)
    found = place.face("u1")
    assert found.status is Status.IN_DOUBT
    assert found.expires is not None
    # The call's own five seconds and a margin from now, on a clock that is an hour ahead.
    assert 3600 < found.expires - time.time() < 3660


class Counting(ThreadPoolExecutor):
    """Looks how many photos are in memory whenever a task is handed out."""

    most = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        photos = sum(isinstance(one, Photo) for one in gc.get_objects())
        Counting.most = max(Counting.most, photos)
        return super().submit(fn, *args, **named)


@pytest.mark.usefixtures("_searched")
def test_no_more_photos_are_in_memory_for_searches_than_calls_may_be_in_flight(
    place: Place,
) -> None:
    place.people(0)
    place.run()
    doubted(place, *range(1, 13))
    place.rows.clear()  # else photos are read for the manifest's rows, too
    # The first search is for the control.
    place.box.script([None, "500-before", "not-json", "refused", "500-before"], call="search")
    for number in (3, 4):
        (place.folder / f"{number}.jpg").unlink()
    place.box.latency = 0.02
    gc.collect()
    Counting.most = 0
    report = run(place, executors=Counting, max_in_flight=2)
    # The two whose photos are gone cannot be searched for, and nothing else is known of them.
    assert report.ended.tally.adopted == 10
    assert {face.status for number in (3, 4) for face in place.faces(f"u{number}")} == {
        Status.IN_DOUBT
    }
    assert 1 <= Counting.most <= 2


def test_one_list_that_fails_is_asked_for_again(place: Place) -> None:
    doubted(place, 1, 2)
    place.box.script(["502-before"], call="list")
    before = place.box.count("list")
    report = run(place)
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 2)
    assert place.box.count("list") == before + 2
    assert place.box.count("add") == 2


class Rotated(Credentials):
    """Credentials that equal no others, and are as good: what an exchange looks like from here."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@pytest.mark.parametrize("call", ["list", "search"])
def test_a_look_that_is_refused_for_its_signature_is_made_again_with_new_credentials(
    place: Place, call: str
) -> None:
    place.people(5)
    place.run()
    doubted(place, 1)
    place.box.script(["auth"], call=call)
    read = [0]

    def credentials() -> Credentials:
        read[0] += 1
        return Rotated(place.box.api_key, place.box.api_secret)

    report = run(place, read=credentials)
    assert (report.exit_code, report.ended.tally.adopted) == (ExitCode.DONE, 1)
    assert read[0] == 2
    assert place.box.count("add") == 2


class PullThePlug(Unwatched):
    """Stops the service when so many rows are done."""

    def __init__(self, box: Sandbox, rows: int) -> None:
        self.box, self.left = box, rows

    def opened(self, place: enrollment.Place, interrupt: Callable[[int], None]) -> None:
        if not self.left:
            self.box.stop()

    def finished(self, row: Candidate, status: Status, code: str, message: str) -> None:
        self.left -= 1
        if not self.left:
            self.box.stop()


@pytest.mark.parametrize("rows", [0, 1])
def test_a_service_that_is_away_is_given_up_though_only_doubts_are_left(
    place: Place, rows: int
) -> None:
    doubted(place, 1)
    if rows:
        place.people(2)
    report = run(place, screen=PullThePlug(place.box, rows), give_up_after=1.0)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert "could not be reached" in (report.ended.bound or "")
    assert report.ended.seconds < 30
    assert place.face("u1").status is Status.IN_DOUBT
