"""Runs that are told to end while rows wait, and runs whose terminal or reader goes away."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from archive import Archive
from real_command import SECONDS

from enroll.errors import ExitCode
from enroll.sandbox import Sandbox

AT_ONCE = 10.0
"""Seconds within which a run ends that has no call in flight. What it waits for takes longer, and
so does --drain."""


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False) as running:
        yield running


def waiting_for_back_off(archive: Archive) -> list[str]:
    """Have the service say something unknown over and over; further options for the run."""
    archive.box.script(["unknown-code"] * 50)
    return ["--on-code", "FACE_LEFT_THE_BUILDING=retry", "--attempts", "50"]


def waiting_for_retry_after(archive: Archive) -> list[str]:
    archive.box.script(["429"] * 50)
    return []


def waiting_to_settle(archive: Archive) -> list[str]:
    archive.box.script(["500-after"] * 2)
    return ["--settle-after", "300"]


@pytest.mark.parametrize(
    ("number", "code", "wait", "calls", "left"),
    [
        (signal.SIGHUP, ExitCode.HANGUP, waiting_for_back_off, 4, "pending"),
        (signal.SIGTERM, ExitCode.TERMINATED, waiting_for_retry_after, 2, "pending"),
        (signal.SIGINT, ExitCode.INTERRUPTED, waiting_to_settle, 2, "in_doubt"),
        (signal.SIGHUP, ExitCode.HANGUP, waiting_to_settle, 2, "in_doubt"),
    ],
)
def test_a_signal_ends_a_run_that_only_waits(
    box: Sandbox,
    tmp_path: Path,
    number: signal.Signals,
    code: ExitCode,
    wait: Callable[[Archive], list[str]],
    calls: int,
    left: str,
) -> None:
    archive = Archive.new(tmp_path / "waiting", box)
    archive.crowd(2)
    with archive.command.started(*archive.arguments, *wait(archive), "--drain", "30") as process:
        archive.wait_calls(calls, process, ended=True)
        process.send_signal(number)
        began = time.monotonic()
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code, (out, err)
    assert time.monotonic() - began < AT_ONCE
    assert "Stopping: calls in flight may finish" in err
    assert Counter(archive.statuses()) == {left: 2}
    assert {entry.status.value for entry in archive.entries()} == {left}


def test_what_a_signal_cut_off_is_not_sent_again_before_it_can_land(tmp_path: Path) -> None:
    # The drain ends before the calls do, as it does by default (25 and 60 seconds); one of them
    # is applied just before its signature expires.
    with Sandbox(detect=False, late_after=4.8) as box:
        archive = Archive.new(tmp_path / "late", box)
        archive.crowd(4)
        box.script(["late", "timeout-after", "timeout-before", "500-after"])
        arguments = [*archive.arguments, "--timeout", "3", "--max-in-flight", "4"]
        with archive.command.started(*arguments, "--drain", "0") as process:
            archive.wait_calls(4, process)
            process.terminate()
            process.communicate(timeout=SECONDS)
        assert process.returncode == ExitCode.TERMINATED
        assert Counter(archive.statuses()) == {"in_doubt": 4}
        done = archive.command.run(*arguments)
        assert done.code == 0, done
        assert box.wait_idle(SECONDS)
        assert archive.problems() == []


def test_a_hangup_ignored_from_the_start_leaves_a_run_that_settles_alone(
    box: Sandbox, tmp_path: Path
) -> None:
    archive = Archive.new(tmp_path / "nohup", box)
    archive.crowd(2)
    box.script(["500-after", "503-before"])
    with archive.command.started(*archive.arguments, wrapped=["nohup"]) as process:
        archive.wait_calls(2, process, ended=True)
        for looks in (1, 2):
            process.send_signal(signal.SIGHUP)
            assert box.wait_count("list", 1 + looks)  # the first one was for the new ledger
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, (out, err)
    assert archive.problems() == []


def test_a_terminal_that_goes_away_does_not_end_a_run(box: Sandbox, tmp_path: Path) -> None:
    archive = Archive.new(tmp_path / "terminal", box)
    archive.crowd(12)
    box.latency = 0.1
    box.script([None, None, "500-after", "unknown-code"])
    ours, theirs = pty.openpty()
    with archive.command.started(
        *archive.arguments, "--progress", stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        try:
            assert os.read(ours, 10)  # it has begun to say something
            archive.wait_calls(4, process)
        finally:
            os.close(ours)
        code = process.wait(SECONDS)
    assert code == ExitCode.SOME_ROWS_FAILED
    assert Counter(archive.statuses()) == {"enrolled": 11, "failed": 1}
    assert archive.command.run(*archive.arguments).code == 0
    assert archive.problems() == []


def test_a_terminal_of_its_own_that_goes_away_ends_a_run_softly(
    box: Sandbox, tmp_path: Path
) -> None:
    archive = Archive.new(tmp_path / "session", box)
    archive.crowd(12)
    box.latency = 0.3
    pid, ours = pty.fork()
    if not pid:
        signal.alarm(round(SECONDS))  # we wait for what it says, and for its end
        with suppress(OSError):
            os.chdir(archive.folder)
            command = [sys.executable, "-m", "enroll", *archive.arguments]
            os.execve(sys.executable, command, archive.command.surroundings())
        os._exit(71)
    try:
        assert os.read(ours, 10)
        assert box.wait_count("add", 2)
    finally:
        os.close(ours)  # the kernel sends SIGHUP, and every further word is EIO
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == ExitCode.HANGUP
    assert set(archive.statuses()) == {"enrolled", "pending"}
    box.latency = 0.0
    assert archive.command.run(*archive.arguments).code == 0
    assert archive.problems() == []


@pytest.mark.parametrize("options", [["--stats", "1"], ["--log-format", "json"]])
def test_readers_that_go_away_do_not_end_a_run(
    box: Sandbox, tmp_path: Path, options: list[str]
) -> None:
    archive = Archive.new(tmp_path / "pipes", box)
    archive.crowd(12)
    box.latency = 0.25
    box.script([None, None, "unknown-code"])
    with archive.command.started(*archive.arguments, *options) as process:
        archive.wait_calls(1, process)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        code = process.wait(SECONDS)
    assert code == ExitCode.SOME_ROWS_FAILED
    assert Counter(archive.statuses()) == {"enrolled": 11, "failed": 1}
