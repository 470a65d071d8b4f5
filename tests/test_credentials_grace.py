"""A key that is rotated during a run, at the service and on this machine at different times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from archive import Archive
from moved_clock import MovedClock, standin

from enroll import clock
from enroll.commands.run import Screen
from enroll.errors import ExitCode, ServiceError
from enroll.model import Candidate, Credentials, Status
from enroll.session.account import OTHER_CREDENTIALS

PEOPLE = 40
IN_FLIGHT = 25  # more than the same errors in a row that stop a run


@pytest.fixture
def place(tmp_path: Path, moved_clock: MovedClock) -> Iterator[Archive]:
    with standin(detect=False) as box:
        archive = Archive.new(tmp_path / "archive", box)
        archive.crowd(PEOPLE)
        yield archive


class Rotation(Screen):
    """The service takes another secret from the third enrolled row on; this machine has it some
    `seconds` later."""

    def __init__(self, place: Archive, seconds: float) -> None:
        self._place = place
        self._seconds = seconds
        self._old = place.credentials
        self._rotated_at: float | None = None
        self._enrolled = 0
        self.waited: list[str] = []

    def finished(self, row: Candidate, status: Status, code: str, message: str) -> None:
        self._enrolled += status is Status.ENROLLED
        if self._enrolled == 3 and self._rotated_at is None:
            self._rotated_at = clock.monotonic()
            self._place.box.rotate_secret("the next secret")

    def waits(self, what: str) -> None:
        self.waited.append(what)

    def read(self) -> Credentials:
        at = self._rotated_at
        if at is None or clock.monotonic() - at < self._seconds:
            return self._old
        return Credentials(self._old.api_key, "the next secret")


class Heard(Screen):
    """What is said while a run waits."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def waits(self, what: str) -> None:
        self.events.append(f"waits for {what}")

    def unreached(self, seconds: float, code: str, because: str) -> None:
        self.events.append("unreached")

    def reached(self) -> None:
        self.events.append("reached")


@pytest.mark.parametrize("lookalikes", ["off", "hold"])
@pytest.mark.parametrize("seconds", [0.0, 40.0])
def test_a_run_waits_until_the_new_key_has_reached_this_machine(
    place: Archive, seconds: float, lookalikes: str
) -> None:
    rotation = Rotation(place, seconds)
    report = place.run(
        screen=rotation,
        read=rotation.read,
        max_in_flight=IN_FLIGHT,
        credentials_grace=120.0,
        lookalikes=lookalikes,
    )
    assert report.exit_code is ExitCode.DONE
    assert place.statuses() == ["enrolled"] * PEOPLE
    assert bool(rotation.waited) == bool(seconds)
    refused = place.box.count("add") + place.box.count("search") - PEOPLE
    refused -= PEOPLE * (lookalikes == "hold")
    assert refused <= IN_FLIGHT + 2 * (seconds / 5 + 1)


def test_a_run_that_gets_no_new_key_stops_when_the_grace_is_over(place: Archive) -> None:
    rotation = Rotation(place, 1e9)
    began = clock.monotonic()
    report = place.run(
        screen=rotation, read=rotation.read, max_in_flight=IN_FLIGHT, credentials_grace=60.0
    )
    assert report.exit_code is ExitCode.SERVICE
    assert 60 <= clock.monotonic() - began < 90
    assert {*place.statuses()} == {"enrolled", "pending"}


def test_a_run_with_a_known_ledger_waits_for_a_new_key_at_its_beginning(place: Archive) -> None:
    place.box.script(["auth"], call="group_list")
    with pytest.raises(ServiceError):  # a first run: the key is wrong
        place.run(credentials_grace=120.0)
    place.run(limit=1)
    place.box.script(["auth"] * 3, call="group_list")
    heard = Heard()
    assert place.run(credentials_grace=120.0, screen=heard).exit_code is ExitCode.DONE
    assert heard.events == [f"waits for {OTHER_CREDENTIALS}"]  # and the service was never away
    before = place.box.count("group_list")
    place.box.script(["auth"] * 99, call="group_list")
    with pytest.raises(ServiceError, match="AUTHORIZATION_ERROR"):
        place.run(credentials_grace=120.0)
    assert 120 / 5 <= place.box.count("group_list") - before <= 120 / 5 + 3
