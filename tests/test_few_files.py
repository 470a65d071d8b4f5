"""The command where it may open few files or start few threads: everything is enrolled all the
same; or it ends with one sentence, and the next run enrolls the rest."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from archive import Archive, until

from enroll.errors import ExitCode
from enroll.sandbox import Sandbox

FEW = 40
"""Open files. Of these a run has about ten at work."""

PEOPLE = 150

AUTO = ("--max-in-flight", "auto", "--timeout", "30")

needs_linux = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="only Linux limits a process from outside"
)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False, latency=0.1) as running:
        yield running


@pytest.fixture
def archive(box: Sandbox, tmp_path: Path) -> Archive:
    archive = Archive.new(tmp_path / "few", box)
    archive.crowd(PEOPLE)
    return archive


def files(soft: int, hard: int) -> dict[int, tuple[int, int]]:
    """How many files the command may have open."""
    return {resource.RLIMIT_NOFILE: (soft, hard)}


def test_with_few_open_files_everything_is_enrolled(archive: Archive) -> None:
    done = archive.command.run(*archive.arguments, *AUTO, limits=files(FEW, FEW))
    assert done.code == 0, done
    assert not archive.problems()
    assert "been away" not in done.out + done.err


def test_more_calls_than_there_are_open_files_for_get_a_note(archive: Archive) -> None:
    arguments = [*archive.arguments, "--max-in-flight", 200]
    done = archive.command.run(*arguments, "--limit", 5, limits=files(FEW, FEW))
    assert done.code == ExitCode.ENDED_EARLY, done
    (note,) = [line for line in done.err.splitlines() if "--max-in-flight 200" in line]
    assert "ulimit -n" in note
    enough = archive.command.run(*arguments)
    assert (enough.code, "ulimit" in enough.err) == (0, False), enough


def test_the_soft_limit_of_open_files_is_no_limit(archive: Archive) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    arguments = [*archive.arguments, "--max-in-flight", 200, "--limit", 5]
    done = archive.command.run(*arguments, limits=files(FEW, most))
    assert (done.code, "ulimit" in done.err) == (ExitCode.ENDED_EARLY, False), done


def test_an_adoption_keeps_within_few_open_files(archive: Archive) -> None:
    assert archive.command.run(*archive.arguments, "--max-in-flight", 50).code == 0
    adopt = ("adopt", "staff.csv", "--group-id", archive.group_id, "--ledger", "other.sqlite")
    done = archive.command.run(*adopt, limits=files(FEW, FEW))
    assert done.code == 0, done
    assert "150 " in done.out
    assert archive.box.count("search") == PEOPLE


def sockets_of(pid: int) -> int:
    """How many connections a process has open."""
    count = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            count += str(file.readlink()).startswith("socket:")
    return count


@needs_linux
def test_files_that_cannot_be_opened_for_a_while_are_nobodys_fault(archive: Archive) -> None:
    with archive.command.started(*archive.arguments, "--readers", 2) as process:
        archive.wait_calls(5, process)
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        # What rests is closed for a photo to be opened; that is all that can be done.
        until(lambda: sockets_of(process.pid) == 0, process, "its connections were not closed")
        assert archive.calls() < PEOPLE
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    assert not archive.problems()
    assert "been away" not in out + err


@needs_linux
def test_a_run_that_can_open_nothing_any_more_ends_and_the_next_goes_on(archive: Archive) -> None:
    with archive.command.started(*archive.arguments, "--give-up-after", 1) as process:
        archive.wait_calls(5, process)
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.LOCAL, (out, err)
    assert "ulimit -n" in out + err
    assert "Traceback" not in err
    done = archive.command.run(*archive.arguments)
    assert done.code == 0, done
    assert not archive.problems()


def test_so_few_files_that_nothing_can_begin_is_a_sentence(archive: Archive) -> None:
    done = archive.command.run(*archive.arguments, fresh=True, limits=files(6, 6))
    assert done.code == ExitCode.LOCAL, done
    (said,) = done.told.splitlines()
    assert "6 files and connections" in said
    assert "ulimit -n" in said


@pytest.fixture
def another_user() -> tuple[str, ...]:
    """What starts a command as a user who has no other process: root's are never limited."""
    user = str(40_000 + os.getpid() % 20_000)
    prefix = ("setpriv", "--reuid", user, "--regid", user, "--clear-groups")
    try:
        subprocess.run(
            [*prefix, sys.executable, "-c", ""], check=True, timeout=120, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("another user cannot be had here, or cannot start this Python")
    return prefix


@pytest.mark.parametrize(("threads", "code"), [(12, ExitCode.DONE), (2, ExitCode.LOCAL)])
def test_with_few_threads_everything_is_enrolled_and_without_any_nothing(
    box: Sandbox, another_user: tuple[str, ...], threads: int, code: ExitCode
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # nobody else can enter pytest's
        archive = Archive.new(Path(folder) / f"few{threads}", box)
        archive.crowd(60)
        archive.command.surroundings()
        for path in (Path(folder), archive.folder, archive.command.home):
            path.chmod(0o777)
        limits = {resource.RLIMIT_NPROC: (threads, threads)}
        arguments = (*archive.arguments, *AUTO)
        done = archive.command.run(*arguments, wrapped=another_user, limits=limits)
        assert done.code == code, done
        if code is ExitCode.DONE:
            assert not archive.problems()
        else:
            assert "ulimit -u" in done.err
            assert not archive.held()
