"""Runs that are told to end while rows wait, and runs whose terminal or reader goes away."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from real_command import SECONDS
from small_case import Case

from enroll.errors import ExitCode
from enroll.sandbox import Sandbox

AT_ONCE = 10.0
"""Seconds within which a run ends that has no call in flight. What it waits for takes longer, and
so does --drain."""


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False) as running:
        yield running


def waiting_for_back_off(case: Case) -> list[str]:
    """Have the service say something unknown over and over; further options for the run."""
    case.box.script(["unknown-code"] * 50)
    return ["--on-code", "FACE_LEFT_THE_BUILDING=retry", "--attempts", "50"]


def waiting_for_retry_after(case: Case) -> list[str]:
    case.box.script(["429"] * 50)
    return []


def waiting_to_settle(case: Case) -> list[str]:
    case.box.script(["500-after"] * 2)
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
    wait: Callable[[Case], list[str]],
    calls: int,
    left: str,
) -> None:
    case = Case(tmp_path / "waiting", box)
    case.people(2)
    with case.command.started(*case.arguments, *wait(case), "--drain", "30") as process:
        case.wait_calls(calls, process, ended=True)
        process.send_signal(number)
        began = time.monotonic()
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code, (out, err)
    assert time.monotonic() - began < AT_ONCE
    assert "Stopping: calls in flight end first" in err
    assert case.statuses() == {left: 2}
    assert {entry.status.value for entry in case.entries()} == {left}


def test_what_a_signal_cut_off_is_not_sent_again_before_it_can_land(tmp_path: Path) -> None:
    # The drain ends before the calls do, as it does by default (25 and 60 seconds); one of them
    # is applied just before its signature expires.
    with Sandbox(detect=False, late_after=4.8) as box:
        case = Case(tmp_path / "late", box)
        case.people(4)
        box.script(["late", "timeout-after", "timeout-before", "500-after"])
        arguments = [*case.arguments, "--timeout", "3", "--max-in-flight", "4"]
        with case.command.started(*arguments, "--drain", "0") as process:
            case.wait_calls(4, process)
            process.terminate()
            process.communicate(timeout=SECONDS)
        assert process.returncode == ExitCode.TERMINATED
        assert case.statuses() == {"in_doubt": 4}
        done = case.command.run(*arguments)
        assert done.code == 0, done
        assert box.wait_idle(SECONDS)
        assert case.problems() == []


def test_a_hangup_ignored_from_the_start_leaves_a_run_that_settles_alone(
    box: Sandbox, tmp_path: Path
) -> None:
    case = Case(tmp_path / "nohup", box)
    case.people(2)
    box.script(["500-after", "503-before"])
    with case.command.started(*case.arguments, wrapped=["nohup"]) as process:
        case.wait_calls(2, process, ended=True)
        for looks in (1, 2):
            process.send_signal(signal.SIGHUP)
            assert box.wait_count("list", 1 + looks)  # the first one was for the new ledger
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, (out, err)
    assert case.problems() == []


def test_a_terminal_that_goes_away_does_not_end_a_run(box: Sandbox, tmp_path: Path) -> None:
    case = Case(tmp_path / "terminal", box)
    case.people(12)
    box.latency = 0.1
    box.script([None, None, "500-after", "unknown-code"])
    ours, theirs = pty.openpty()
    with case.command.started(
        *case.arguments, "--progress", stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        try:
            assert os.read(ours, 10)  # it has begun to say something
            case.wait_calls(4, process)
        finally:
            os.close(ours)
        code = process.wait(SECONDS)
    assert code == ExitCode.SOME_ROWS_FAILED
    assert case.statuses() == {"enrolled": 11, "failed": 1}
    assert case.command.run(*case.arguments).code == 0
    assert case.problems() == []


def test_a_terminal_of_its_own_that_goes_away_ends_a_run_softly(
    box: Sandbox, tmp_path: Path
) -> None:
    case = Case(tmp_path / "session", box)
    case.people(12)
    box.latency = 0.3
    pid, ours = pty.fork()
    if not pid:
        with suppress(OSError):
            os.chdir(case.folder)
            command = [sys.executable, "-m", "enroll", *case.arguments]
            os.execve(sys.executable, command, case.command.surroundings())
        os._exit(71)
    try:
        assert os.read(ours, 10)
        assert box.wait_count("add", 2)
    finally:
        os.close(ours)  # the kernel sends SIGHUP, and every further word is EIO
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == ExitCode.HANGUP
    assert set(case.statuses()) == {"enrolled", "pending"}
    box.latency = 0.0
    assert case.command.run(*case.arguments).code == 0
    assert case.problems() == []


@pytest.mark.parametrize("options", [["--stats", "1"], ["--log-format", "json"]])
def test_readers_that_go_away_do_not_end_a_run(
    box: Sandbox, tmp_path: Path, options: list[str]
) -> None:
    case = Case(tmp_path / "pipes", box)
    case.people(12)
    box.latency = 0.25
    box.script([None, None, "unknown-code"])
    with case.command.started(*case.arguments, *options) as process:
        case.wait_calls(1, process)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        code = process.wait(SECONDS)
    assert code == ExitCode.SOME_ROWS_FAILED
    assert case.statuses() == {"enrolled": 11, "failed": 1}
