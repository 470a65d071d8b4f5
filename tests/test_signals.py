"""Signals during a run, which is a process of its own here."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from archive import QUICK_DOUBTS, Archive
from real_command import SECONDS, Command, Done

from enroll.errors import ExitCode
from enroll.sandbox import Sandbox

RUN = ("run", "staff.csv", "--group-id", "staff", "--max-in-flight", "2")

SIGNALS = [
    (signal.SIGINT, ExitCode.INTERRUPTED),
    (signal.SIGTERM, ExitCode.TERMINATED),
    (signal.SIGHUP, ExitCode.HANGUP),
]


def statuses(archive: Archive) -> Counter[str]:
    return Counter(line["status"] for line in archive.results())


def wait_for_words(process: subprocess.Popen[str], words: str) -> None:
    """Read what the process says on stderr until these words are among it."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"it never said {words!r}")


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_the_first_signal_lets_calls_in_flight_end_and_writes_the_results(
    box: Sandbox, archive: Archive, command: Command, number: signal.Signals, code: ExitCode
) -> None:
    archive.manifest(archive.portraits(1, 2, 3, 4, 5, 6))
    box.latency = 0.4
    with command.started(*RUN) as process:
        assert box.wait_count("add", 2)
        process.send_signal(number)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code
    assert err.splitlines()[-1] == (
        "Stopping: calls in flight may finish, then the results are written. "
        "A second signal quits at once."
    )
    assert "then interrupted. Run the same command again to continue." in out
    assert statuses(archive) == {"enrolled": 2, "pending": 4}
    assert len(box.faces("staff")) == 2

    box.latency = 0.0
    assert command(*RUN).code == 0
    assert statuses(archive) == {"enrolled": 6}
    assert (box.count("add"), len(box.faces("staff"))) == (6, 6)


def test_calls_that_outlast_the_drain_are_in_doubt_and_hold_nobody_up(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    box.script(["timeout-after", "timeout-before"])
    with command.started(*RUN, "--drain", "0.2") as process:
        assert box.wait_count("add", 2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS / 2)  # the calls' own deadline is 60 s
    assert process.returncode == ExitCode.TERMINATED
    assert statuses(archive) == {"in_doubt": 2, "pending": 1}


def test_the_second_signal_leaves_at_once_and_nothing_is_added_twice(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3, 4, 5))
    box.script(["timeout-after"] * 2)
    with command.started(*RUN) as process:
        assert box.wait_count("add", 2)
        process.send_signal(signal.SIGINT)
        wait_for_words(process, "A second signal quits at once")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == ExitCode.INTERRUPTED
        assert time.monotonic() - began < 10  # --drain would let it wait for 25 s
    assert err == "Quit at once. The next run settles the calls that were in flight.\n"
    assert not (archive.folder / "staff.results.csv").exists()

    # What was in flight, and at most as many again whose intent was on the disk.
    left = list(csv.DictReader(io.StringIO(command("export", "-", "--status", "sending").out)))
    assert 2 <= len(left) <= 4
    assert len(box.faces("staff")) == 2


@pytest.mark.parametrize("signals", [1, 2])
def test_a_json_log_is_json_to_its_last_line_when_signals_end_the_run(
    box: Sandbox, archive: Archive, command: Command, signals: int
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    box.script(["timeout-after"] * 2)
    more = ("--log-format", "json", "--progress", "--drain", "0.2" if signals == 1 else "25")
    with command.started(*RUN, *more, "--log-file", "run.jsonl") as process:
        assert box.wait_count("add", 2)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        err = ""
        for line in process.stderr:
            err += line
            if "A second signal quits at once" in line:
                break
        if signals == 2:
            process.send_signal(signal.SIGTERM)
        out, rest = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (ExitCode.TERMINATED, "")
    events = [json.loads(line) for line in (err + rest).splitlines()]
    told = [event for event in events if event["event"] == "signal"]
    assert [(event["signal"], event["level"]) for event in told] == [
        ("SIGTERM", "warning")
    ] * signals
    assert events[-1]["event"] == ("run_ended" if signals == 1 else "signal")
    logged = (archive.folder / "run.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["event"] for line in logged.splitlines()] == [
        event["event"] for event in events
    ]


def test_hangups_drain_as_one_whatever_their_number(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    # A shell that ends sends one, and the kernel another when the terminal goes.
    archive.manifest(archive.portraits(1, 2, 3, 4))
    box.latency = 1.0
    with command.started(*RUN) as process:
        assert box.wait_count("add", 2)
        process.send_signal(signal.SIGHUP)
        wait_for_words(process, "A second signal quits at once")
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == ExitCode.HANGUP
    assert ("then interrupted" in out, err) == (True, "")
    assert statuses(archive) == {"enrolled": 2, "pending": 2}


def test_after_a_hangup_another_signal_still_leaves_at_once(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    box.script(["timeout-after"])
    with command.started(*RUN) as process:
        assert box.wait_count("add", 1)
        process.send_signal(signal.SIGHUP)
        wait_for_words(process, "A second signal quits at once")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS / 4) == ExitCode.TERMINATED  # --drain is 25 s
    assert not (archive.folder / "staff.results.csv").exists()


def test_a_kill_loses_nothing_and_adds_nothing_twice(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3, 4, 5, 6))
    box.script([None, None, "timeout-after", "timeout-after"])
    with command.started(*RUN, *QUICK_DOUBTS) as process:
        assert box.wait_count("add", 4)
        process.kill()
        assert process.wait(SECONDS) == -signal.SIGKILL
    assert command(*RUN, *QUICK_DOUBTS).code == ExitCode.DONE
    added = Counter(face.user_id for face in box.faces("staff"))
    assert set(added.values()) == {1}
    assert statuses(archive) == {"enrolled": 6}


def test_a_signal_before_the_first_photo_ends_the_command_there(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    box.script(["timeout"], call="group_list")
    with command.started(*RUN) as process:
        assert box.wait_count("group_list", 1)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=SECONDS / 2)
    assert process.returncode == ExitCode.TERMINATED
    told = Done(process.returncode, "", err).told
    assert told == "Interrupted. Everything that was sent is on record.\n"
    assert not (archive.folder / "staff.results.csv").exists()
    assert command(*RUN).code == 0


WHILE_IMPORTING = """
import builtins, os, signal

real = builtins.__import__

def __import__(name, *arguments, **named):
    if name == "pandas" and not hasattr(builtins, "signalled"):
        builtins.signalled = True
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            if {how!r} == "another error":
                raise ImportError("a module in C could not be loaded") from None
    return real(name, *arguments, **named)

builtins.__import__ = __import__
"""
"""What Python and modules in C do to an exception that a signal raises while they are loading."""


@pytest.mark.parametrize("how", ["dropped", "another error"])
def test_a_signal_that_is_lost_while_modules_are_loading_ends_the_command_all_the_same(
    box: Sandbox, archive: Archive, command: Command, tmp_path: Path, how: str
) -> None:
    archive.manifest(archive.portraits(1))
    (tmp_path / "sitecustomize.py").write_text(WHILE_IMPORTING.replace("{how!r}", repr(how)))
    command.environ["PYTHONPATH"] = str(tmp_path)
    done = command.run(*RUN, "--summary", "run.json", "--log-file", "run.log")
    assert done.code == ExitCode.TERMINATED, done
    assert box.count("add") == 0
    assert "bug" not in done.err
    assert json.loads((command.folder / "run.json").read_text())["reason"] == "TERMINATED"
    assert "interrupted" in (command.folder / "run.log").read_text().lower()


def test_a_hangup_that_nohup_ignores_stays_ignored(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    box.latency = 0.3
    with command.started(*RUN, wrapped=("nohup",)) as process:
        for calls in (1, 2, 3):
            assert box.wait_count("add", calls)
            process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=SECONDS)
    assert (process.returncode, "3 rows enrolled" in out) == (0, True), out
    assert statuses(archive) == {"enrolled": 3}


def test_a_run_can_be_looked_at_and_keeps_others_out_while_it_goes_on(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    box.script(["late"])
    with command.started(*RUN, "--max-in-flight", "1", "--log-file", "run.log") as process:
        assert box.wait_count("add", 1)
        status = command("status")
        assert status.code == 0
        assert f"in progress (process {process.pid})" in status.out
        told = json.loads(command("status", "--json").out)
        # One is in flight, and the intent of the next may be on the disk already.
        sending = told["counts"]["sending"]
        assert sending in (1, 2)
        assert told["counts"] == {"pending": 3 - sending, "sending": sending}
        exported = command("export", "-", "--status", "pending", "--status", "sending").out
        assert exported.count("\n") == 1 + 3
        assert command("history").code == 0
        assert command("plan", "staff.csv", "--group-id", "staff").code == 0

        second = command(*RUN)
        assert second.code == ExitCode.LEDGER_BUSY
        assert f"process {process.pid} " in second.err

        written = {path.name: path.stat().st_mode for path in command.ledger.parent.iterdir()}
        assert set(written) >= {"staff.sqlite", "staff.sqlite-wal", "staff.sqlite-shm"}
        assert {mode & 0o777 for mode in written.values()} == {0o600}
        assert command.ledger.parent.stat().st_mode & 0o777 == 0o700
        assert (archive.folder / "run.log").stat().st_mode & 0o777 == 0o600


def wait_until_it_waits(pid: int) -> None:
    """Wait until a process that has asked something reads the answer: Python does not hear of a
    signal that comes between the two before the next key is pressed."""
    asleep = 0
    while asleep < 5:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        assert state != "Z", "it has ended"
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_at_a_question_leaves_its_line(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    pid, ours = pty.fork()
    if not pid:
        signal.alarm(round(SECONDS))  # we read what it says until it has ended
        with suppress(OSError):
            os.chdir(archive.folder)
            words = [sys.executable, "-m", "enroll", "remove", "--run", "1"]
            os.execve(sys.executable, words, command.surroundings())
        os._exit(71)
    said = b""
    with suppress(OSError):  # what Linux says when the other end is closed
        while part := os.read(ours, 4096):
            said += part  # the question may come in pieces
            if said.endswith(b"[y/N]: "):
                wait_until_it_waits(pid)
                os.write(ours, b"\x03")
    os.close(ours)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == ExitCode.INTERRUPTED
    _, _, rest = said.decode().rpartition("[y/N]: ")
    assert rest.splitlines()[1:] == ["Interrupted. Everything that was sent is on record."]
    assert len(box.faces("staff")) == 1


def test_on_a_terminal_signals_are_answered_on_lines_of_their_own_without_a_word_cut(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    box.script(["timeout-after"] * 2)
    ours, end = os.openpty()
    termios.tcsetwinsize(end, (24, 40))
    with command.started(*RUN, stderr=end) as process:
        os.close(end)
        assert box.wait_count("add", 2)
        shown = b""
        with suppress(OSError):  # what Linux says when the other end is closed
            for words in (b"0/3 [", b"quits at once.", b"never said"):
                while words not in shown:
                    shown += os.read(ours, 4096)
                process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == ExitCode.INTERRUPTED
    os.close(ours)
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    began = lines.index("Stopping: calls in flight may finish,")
    assert lines[began + 1 : began + 3] == [
        "then the results are written. A second",
        "signal quits at once.",
    ]
    assert lines[-3:] == [
        "Quit at once. The next run settles the",
        "calls that were in flight.",
        "",
    ]


def test_ctrl_c_ends_a_look_at_a_ledger(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    with command.started("status", "--watch", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["counts"] == {"enrolled": 1}
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "")
