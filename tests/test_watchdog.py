"""When a run counts as standing still, and what is said of that, on simulated time."""

from __future__ import annotations

from pathlib import Path

import pytest
from archive import GROUP, Archive

from enroll.commands.run import Screen, enroll_manifest
from enroll.model import Answer, CallKind, Verdict
from enroll.runner import progress as watching
from enroll.runner.health import Reachability
from enroll.runner.progress import AWAY_SECONDS, STILL_SECONDS, Watchdog
from enroll.sandbox import Sandbox
from enroll.session.tally import Observer, Tally


def test_a_run_that_only_makes_calls_stands_still() -> None:
    tally, watchdog = Tally(in_doubt_now=1), Watchdog(Observer(), now=0.0)
    assert not watchdog.note(tally, 0.0)
    tally.calls[CallKind.SEARCH] += 1
    assert not watchdog.note(tally, STILL_SECONDS - 1)
    tally.calls[CallKind.SEARCH] += 1
    assert watchdog.note(tally, STILL_SECONDS)
    assert not watchdog.note(tally, STILL_SECONDS + 1)  # it has just been said


def test_a_row_or_a_doubt_that_moves_on_is_progress() -> None:
    moved = (Tally(done=1), Tally(due=1), Tally(in_doubt_now=1), Tally(adopted=1), Tally(surplus=1))
    for tally in moved:
        watchdog = Watchdog(Observer(), now=0.0)
        assert not watchdog.note(Tally(), 0.0)
        assert not watchdog.note(tally, STILL_SECONDS - 1), tally
        assert not watchdog.note(tally, STILL_SECONDS), tally
        assert watchdog.note(tally, 2 * STILL_SECONDS), tally


class Listener(Screen):
    """Remembers what is waited for."""

    def __init__(self) -> None:
        self.waited: list[str] = []

    def waits(self, what: str) -> None:
        self.waited.append(what)


def test_a_machine_without_open_files_is_told_of_once() -> None:
    listener, reach = Listener(), Reachability()
    watchdog = Watchdog(listener, now=0.0)
    reach.heard(Answer(verdict=Verdict.BLOCKED, message="All files are in use."), 1.0)
    watchdog.heed(reach, AWAY_SECONDS)
    assert not listener.waited
    for now in (1.0 + AWAY_SECONDS, 2.0 + AWAY_SECONDS):
        watchdog.heed(reach, now)
    assert listener.waited == ["open files or threads (All files are in use)"]


def test_a_run_that_makes_one_call_now_and_then_says_what_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "STILL_SECONDS", 0.0)
    listener = Listener()
    with Sandbox(detect=False) as box:
        box.create_library(GROUP)
        archive = Archive(tmp_path, box)
        archive.people(1, 2)
        settings = archive.settings(rate=1.0)
        enroll_manifest(settings, lambda: archive.credentials, screen=listener)
    assert "a slot for 1 row (--rate)" in listener.waited
    assert not [what for what in listener.waited if "nothing known" in what]
