"""Syncs that end early: softly, with what is left for the next one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from archive import GROUP, Archive
from moved_clock import standin

from enroll.commands import sync
from enroll.commands.run import Screen
from enroll.commands.run_closing import Report
from enroll.commands.run_opening import Destination as Opened
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
def archive(box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """Eight people, enrolled, of whom six have left; each is deleted with a call of its own, and
    the first of these takes a second."""
    monkeypatch.setattr(deleting, "DELETE_PAGE", 1)
    there = Archive(tmp_path, box)
    there.people(*range(1, 9))
    assert there.sync().exit_code is ExitCode.DONE
    del there.rows[2:]
    box.script(["timeout"], call="delete")
    return there


def done_next_time(archive: Archive) -> bool:
    """Whether the next sync does what is left."""
    report = archive.sync(timeout=1.0)
    wanted = sorted((user_id, text) for user_id, text, _ in archive.rows)
    return report.exit_code is ExitCode.DONE and archive.there() == wanted


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


def interrupted(archive: Archive) -> Report:
    settings = archive.sync_settings(timeout=1.0)
    return sync_manifest(settings, lambda: archive.credentials, screen=Interrupting(archive.box))


def test_a_signal_lets_the_deletion_under_way_end_and_no_other_begin(archive: Archive) -> None:
    report = interrupted(archive)
    assert report.exit_code is ExitCode.TERMINATED
    assert archive.box.count("delete") == 1
    assert done_next_time(archive)


def test_a_night_that_is_over_leaves_deletions_for_the_next(archive: Archive) -> None:
    report = archive.sync(timeout=1.0, max_duration=0.9)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert report.ended.bound is not None and "--max-duration" in report.ended.bound
    assert len(archive.there()) >= 7
    assert done_next_time(archive)


def test_calls_that_may_not_be_made_leave_deletions_for_the_next(archive: Archive) -> None:
    report = archive.sync(timeout=1.0, max_calls=2)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert report.ended.bound is not None and "--max-calls" in report.ended.bound
    assert done_next_time(archive)


def test_a_lost_answer_to_a_deletion_costs_no_call_that_may_not_be_made(archive: Archive) -> None:
    archive.box.script(["500"] * 3, call="delete")
    before = len(archive.box.calls)
    report = archive.sync(timeout=1.0, max_calls=4)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert len(archive.box.calls) - before == 4


def test_what_a_dead_night_left_is_looked_up_within_the_calls_that_may_be_made(
    archive: Archive,
) -> None:
    archive.about_to_delete(*(f"u{number}" for number in range(1, 9)))
    before = len(archive.box.calls)
    report = archive.sync(max_calls=4)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert len(archive.box.calls) - before == 4
    assert done_next_time(archive)


def test_a_night_whose_disk_is_full_at_its_first_deletions_has_an_end_on_record(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    due_at_once(archive)

    def full(*_: object, **__: object) -> None:
        raise LocalError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(sync, "delete_chosen", full)
        report = archive.sync()
    assert report.exit_code is ExitCode.LOCAL
    assert report.results is not None
    assert last_end(archive) == (int(ExitCode.LOCAL), "The disk is full.")
    assert done_next_time(archive)


def test_a_signal_during_the_first_deletions_ends_the_night_softly(archive: Archive) -> None:
    due_at_once(archive)
    before = archive.box.count("delete")
    report = interrupted(archive)
    assert report.exit_code is ExitCode.TERMINATED
    assert archive.box.count("delete") == before + 1
    assert last_end(archive) == (int(ExitCode.TERMINATED), "")
    assert done_next_time(archive)


def test_the_first_deletions_count_among_the_calls_that_may_be_made(archive: Archive) -> None:
    due_at_once(archive)
    archive.people(10, 11, 12)
    before = len(archive.box.calls)
    report = archive.sync(timeout=1.0, max_calls=4)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert len(archive.box.calls) - before == 4
    assert done_next_time(archive)


def due_at_once(archive: Archive) -> None:
    """Let the next night begin with a deletion: of several rows of a person one is gone, and the
    others are enrolled."""
    archive.rows.append(("u1", "name 1", "2.jpg"))
    assert done_next_time(archive)
    archive.rows.pop()
    archive.box.script(["timeout"], call="delete")


def last_end(archive: Archive) -> tuple[int | None, str]:
    with closing(read_ledger(archive.ledger)) as reader:
        end = reader.status(runs=1).runs[0].end
    assert end is not None
    return end.exit_code, end.reason


def test_a_service_that_stops_the_sync_loses_no_leaver(archive: Archive) -> None:
    archive.people(9)
    archive.box.script(["auth"], user_id="u9")
    report = archive.sync()
    assert report.exit_code is ExitCode.SERVICE
    assert len(archive.there()) == 8
    assert archive.box.count("delete") == 0
    assert done_next_time(archive)


def test_the_time_of_a_night_is_all_of_it(archive: Archive) -> None:
    archive.rows.pop()
    archive.box.latency = 0.2
    calls = len(archive.box.calls)
    report = archive.sync()
    kinds = [call.kind for call in archive.box.calls[calls:]]
    assert (kinds[0], kinds[-1], kinds.count("add")) == ("group_list", "delete", 0)
    assert report.ended.seconds > 2 * 0.2


def test_what_was_deleted_before_the_service_refuses_is_reported(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleting, "DELETE_PAGE", 1)
    archive = Archive(tmp_path, box)
    archive.people(*range(1, 5))
    assert archive.sync().exit_code is ExitCode.DONE
    del archive.rows[1:]
    box.script([None, None, "auth"], call="delete")
    report = archive.sync()
    assert report.exit_code is ExitCode.SERVICE
    assert report.sync_result is not None
    assert (report.sync_result.people, report.sync_result.faces) == (2, 2)
    assert len(archive.there()) == 2
