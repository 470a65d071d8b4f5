"""Runs whose ledger is in PostgreSQL, where sessions end, the server fails, or two machines meet.

Whatever befalls a run, the next brings all to its end: nobody is in the library twice, nobody is
lost, and the ledger knows every face.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from archive import Archive, until
from nightly.ledgers import BACKEND, SERVER, SESSION, Database, ServerPlace
from postgres_server import new_schema, server
from real_command import SECONDS, Command

from enroll.addresses import ledger_named
from enroll.sandbox import Limits, Sandbox

SOME_GO_WRONG = ("500-after", None, "reset-before", None, "503-after", None, "timeout-after")
"""What befalls the first calls."""


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False, fault_lag=0.2, limits=Limits(max_libraries=100)) as running:
        yield running


def in_postgres(folder: Path, box: Sandbox, *, people: int = 12) -> Archive:
    """An archive whose ledger will be in a schema that is not there yet."""
    archive = Archive.new(folder, box)
    archive.address = ledger_named(new_schema())
    archive.crowd(people)
    return archive


def place(archive: Archive) -> ServerPlace:
    """The archive's ledger, whose server can be struck."""
    schema = str(archive.ledger).partition("schema=")[2].partition("&")[0]
    return Database(server().address(), server()).place(schema, archive.folder)


def elsewhere(archive: Archive) -> Command:
    """The command on another machine, which remembers nothing of this one's runs."""
    return replace(archive.command, home=archive.folder / "elsewhere")


def cut_off(archive: Archive, point: str, calls: int) -> list[str]:
    """Strike the server when a run has made so many calls, and run it again on another machine;
    what is wrong then."""
    with archive.command.started(*archive.arguments) as process:
        until(lambda: archive.calls() >= calls, process, f"there were no {calls} calls")
        place(archive).strike(point)
        _, err = process.communicate(timeout=2 * SECONDS)
    found = [] if process.returncode in (0, 7) else [f"ended with {process.returncode}: {err}"]
    again = elsewhere(archive).run(*archive.arguments)
    if again.code:
        found.append(f"the next run ended with {again.code}: {again.err}")
    where = f"{point} at call {calls}"
    return [f"{where}: {problem}" for problem in found + archive.problems()]


@pytest.mark.thorough
def test_whatever_fails_at_the_server_the_next_run_brings_all_to_its_end(
    box: Sandbox, tmp_path: Path
) -> None:
    problems = []
    box.latency = 0.05
    for point in (SESSION, BACKEND, SERVER):
        for calls in (1, 5, 12):
            archive = in_postgres(tmp_path / f"{point}-{calls}", box)
            for (user_id, *_), fault in zip(archive.rows, SOME_GO_WRONG, strict=False):
                box.script([fault], user_id=user_id)
            problems += cut_off(archive, point, calls)
    assert problems == []


@pytest.mark.thorough
def test_a_server_that_fails_while_runs_begin_and_end_spoils_no_ledger(
    box: Sandbox, tmp_path: Path
) -> None:
    """Five runs, each of which is started while the server recovers, or ends while it dies."""
    archive = in_postgres(tmp_path / "failing", box, people=0)
    codes = []
    for number in range(5):
        archive.row(f"p{number}", number)
        archive.manifest()
        with archive.command.started(*archive.arguments) as process:
            place(archive).strike((SERVER, BACKEND)[number % 2])
            process.communicate(timeout=2 * SECONDS)
        codes.append(process.returncode)
    assert set(codes) <= {0, 7}
    done = archive.command.run(*archive.arguments)
    assert (done.code, archive.problems()) == (0, []), done.err


@pytest.mark.thorough
@pytest.mark.parametrize("other", ["has ended", "goes on"])
def test_a_run_that_was_stopped_and_lost_its_session_makes_no_further_call(
    box: Sandbox, tmp_path: Path, other: str
) -> None:
    archive = in_postgres(tmp_path / "stopped", box)
    box.latency = 0.3
    with archive.command.started(*archive.arguments) as first:
        archive.wait_calls(3, first)
        first.send_signal(signal.SIGSTOP)
        assert box.wait_idle()
        held = elsewhere(archive).run(*archive.arguments)
        assert held.code == 5, held.err
        assert f"process {first.pid} on " in held.err
        # As the server does when a machine has not answered for half a minute.
        place(archive).strike(SESSION)
        if other == "goes on":  # and has calls under way meanwhile
            called = {call.user_id for call in box.calls}
            for user_id, *_ in archive.rows:
                box.script([None if user_id in called else "timeout"], user_id=user_id)
        with elsewhere(archive).started(*archive.arguments, "--timeout", "8") as second:
            if other == "goes on":
                archive.wait_calls(archive.calls() + 2, second)
            else:
                second.wait(SECONDS)
            made = len(box.calls)
            first.send_signal(signal.SIGCONT)
            _, said = first.communicate(timeout=SECONDS)
            assert len(box.calls) == made
            assert first.returncode in (5, 7), said
            # Its calls that were cut off are looked for when their signatures have expired.
            _, err = second.communicate(timeout=3 * SECONDS)
        assert (second.returncode, archive.problems()) == (0, []), err
    third = archive.command.run(*archive.arguments)
    assert (third.code, archive.problems()) == (0, []), third.err


def both_started(archive: Archive) -> list[str]:
    """Start a run on two machines at once; what is wrong in the end."""
    box = archive.box
    box.script(["timeout"] * 2, call="add", user_id=archive.rows[0][0])
    arguments = [*archive.arguments, "--timeout", "6"]
    runs: list[subprocess.Popen[str]] = []
    with (
        archive.command.started(*arguments) as one,
        elsewhere(archive).started(*arguments, "--results", "elsewhere.csv") as other,
    ):
        runs = [one, other]
        said = [process.communicate(timeout=2 * SECONDS)[1] for process in runs]
    codes = sorted(process.returncode for process in runs)
    results = "staff.results.csv" if runs[0].returncode == 0 else "elsewhere.csv"
    found = [] if codes == [0, 5] else [f"ended with {codes}: {said}"]
    return found or archive.problems(results)


@pytest.mark.thorough
def test_of_two_runs_that_begin_at_once_in_a_new_ledger_one_is_refused(
    box: Sandbox, tmp_path: Path
) -> None:
    archives = [in_postgres(tmp_path / f"both-{number}", box, people=2) for number in range(10)]
    with ThreadPoolExecutor(5) as threads:
        found = list(threads.map(both_started, archives))
    assert [problem for problems in found for problem in problems] == []
