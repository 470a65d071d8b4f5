"""Syncs that end early: softly, with what is left for the next one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from checked_library import GROUP, Place
from following import about_to_delete, sync_settings, synced, there
from moved_clock import standin

from enroll.commands import sync
from enroll.commands.run import Screen
from enroll.commands.run_closing import Report
from enroll.commands.run_opening import Place as Opened
from enroll.commands.sync import sync_manifest
from enroll.errors import ExitCode, LocalError
from enroll.ledger import read_ledger
from enroll.sandbox import Sandbox
from enroll.session import deletions as deleting

pytestmark = pytest.mark.usefixtures("moved_clock")


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with standin(detect=False) as running:
        running.create_library(GROUP)
        yield running


@pytest.fixture
def place(box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Eight people, enrolled, of whom six have left; each is deleted with a call of its own, and
    the first of these takes a second."""
    monkeypatch.setattr(deleting, "DELETE_PAGE", 1)
    there = Place(tmp_path, box)
    there.people(*range(1, 9))
    assert synced(there).exit_code is ExitCode.DONE
    del there.rows[2:]
    box.script(["timeout"], call="delete")
    return there


def done_next_time(place: Place) -> bool:
    """Whether the next sync does what is left."""
    report = synced(place, timeout=1.0)
    wanted = sorted((user_id, text) for user_id, text, _ in place.rows)
    return report.exit_code is ExitCode.DONE and there(place) == wanted


class Interrupting(Screen):
    """Interrupts a sync when its first call of `delete` has arrived."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self._first = box.count("delete") + 1

    def opened(self, place: Opened, interrupt: Callable[[int], None]) -> None:
        def wait() -> None:
            assert self._box.wait_count("delete", self._first)
            interrupt(signal.SIGTERM)

        threading.Thread(target=wait).start()


def interrupted(place: Place) -> Report:
    settings = sync_settings(place, timeout=1.0)
    return sync_manifest(settings, lambda: place.credentials, screen=Interrupting(place.box))


def test_a_signal_lets_the_deletion_under_way_end_and_no_other_begin(place: Place) -> None:
    report = interrupted(place)
    assert report.exit_code is ExitCode.TERMINATED
    assert place.box.count("delete") == 1
    assert done_next_time(place)


def test_a_night_that_is_over_leaves_deletions_for_the_next(place: Place) -> None:
    report = synced(place, timeout=1.0, max_duration=0.9)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert report.ended.bound is not None and "--max-duration" in report.ended.bound
    assert len(there(place)) >= 7
    assert done_next_time(place)


def test_calls_that_may_not_be_made_leave_deletions_for_the_next(place: Place) -> None:
    report = synced(place, timeout=1.0, max_calls=2)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert report.ended.bound is not None and "--max-calls" in report.ended.bound
    assert done_next_time(place)


def test_a_lost_answer_to_a_deletion_costs_no_call_that_may_not_be_made(place: Place) -> None:
    place.box.script(["500"] * 3, call="delete")
    before = len(place.box.calls)
    report = synced(place, timeout=1.0, max_calls=4)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert len(place.box.calls) - before == 4


def test_what_a_dead_night_left_is_looked_up_within_the_calls_that_may_be_made(
    place: Place,
) -> None:
    about_to_delete(place, *(f"u{number}" for number in range(1, 9)))
    before = len(place.box.calls)
    report = synced(place, max_calls=4)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert len(place.box.calls) - before == 4
    assert done_next_time(place)


def test_a_night_whose_disk_is_full_at_its_first_deletions_has_an_end_on_record(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    due_at_once(place)

    def full(*_: object, **__: object) -> None:
        raise LocalError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(sync, "delete_chosen", full)
        report = synced(place)
    assert report.exit_code is ExitCode.LOCAL
    assert report.results is not None
    assert last_end(place) == (int(ExitCode.LOCAL), "The disk is full.")
    assert done_next_time(place)


def test_a_signal_during_the_first_deletions_ends_the_night_softly(place: Place) -> None:
    due_at_once(place)
    before = place.box.count("delete")
    report = interrupted(place)
    assert report.exit_code is ExitCode.TERMINATED
    assert place.box.count("delete") == before + 1
    assert last_end(place) == (int(ExitCode.TERMINATED), "")
    assert done_next_time(place)


def test_the_first_deletions_count_among_the_calls_that_may_be_made(place: Place) -> None:
    due_at_once(place)
    place.people(10, 11, 12)
    before = len(place.box.calls)
    report = synced(place, timeout=1.0, max_calls=4)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert len(place.box.calls) - before == 4
    assert done_next_time(place)


def due_at_once(place: Place) -> None:
    """Let the next night begin with a deletion: of several rows of a person one is gone, and the
    others are enrolled."""
    place.rows.append(("u1", "name 1", "2.jpg"))
    assert done_next_time(place)
    place.rows.pop()
    place.box.script(["timeout"], call="delete")


def last_end(place: Place) -> tuple[int | None, str]:
    with closing(read_ledger(place.ledger)) as reader:
        end = reader.status(runs=1).runs[0].end
    assert end is not None
    return end.exit_code, end.reason


def test_a_service_that_stops_the_sync_loses_no_leaver(place: Place) -> None:
    place.people(9)
    place.box.script(["auth"], user_id="u9")
    report = synced(place)
    assert report.exit_code is ExitCode.SERVICE
    assert len(there(place)) == 8
    assert place.box.count("delete") == 0
    assert done_next_time(place)


def test_the_time_of_a_night_is_all_of_it(place: Place) -> None:
    place.rows.pop()
    place.box.latency = 0.2
    calls = len(place.box.calls)
    report = synced(place)
    kinds = [call.kind for call in place.box.calls[calls:]]
    assert (kinds[0], kinds[-1], kinds.count("add")) == ("group_list", "delete", 0)
    assert report.ended.seconds > 2 * 0.2
