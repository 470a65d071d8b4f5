"""Full disks and vanished files: one sentence, exit code 7, and afterwards nobody is added twice
and nobody is lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from archive import Archive
from real_command import Done
from sqlalchemy import event

from enroll.errors import ExitCode
from enroll.expiry import ClockOffsets
from enroll.ledger.writer import SqlLedger
from enroll.model import Status
from enroll.sandbox import Sandbox

PEOPLE = 16

needs_linux = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="only Linux limits a process from outside"
)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False, latency=0.05) as running:
        yield running


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not let us mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Write until the disk is full; the file that fills it."""
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return filling
    pytest.fail("the disk would take everything")


def disturbed(archive: Archive, disturb: Callable[[int], object], *more: object) -> Done:
    """Run the command; `disturb` it, by its process id, when a few calls have been made."""
    with archive.command.started(*archive.arguments, *more) as process:
        archive.wait_calls(5, process)
        disturb(process.pid)
        out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, err)


def finish(archive: Archive, *more: object) -> None:
    """The same command again, when the trouble is over, has to come to its end."""
    done = archive.command.run(*archive.arguments, *more)
    assert done.code == 0, done


def said_once(done: Done, *words: str) -> None:
    """Whether the command stopped with exit code 7, and one sentence with these words."""
    assert done.code == ExitCode.LOCAL, done
    lines = [line for line in (done.out + done.err).splitlines() if words[0] in line]
    assert len(lines) == 1, done
    assert all(word in lines[0] for word in words), lines[0]
    assert "Traceback" not in done.err


def test_a_disk_that_fills_up_under_the_ledger_stops_the_run(
    box: Sandbox, tmp_path: Path, tiny_disk: Path
) -> None:
    archive = Archive.new(tmp_path / "full", box, ledger_folder=tiny_disk)
    archive.crowd(PEOPLE)
    filling: list[Path] = []
    done = disturbed(archive, lambda pid: filling.append(fill(tiny_disk)))
    said_once(done, "database or disk is full", str(archive.ledger), "make room", "again")
    assert box.count("add") < PEOPLE
    filling[0].unlink()
    finish(archive)
    assert archive.problems() == []


@needs_linux
def test_a_ledger_that_may_not_grow_stops_the_run(box: Sandbox, tmp_path: Path) -> None:
    archive = Archive.new(tmp_path / "limited", box)
    archive.crowd(PEOPLE)

    def limit(pid: int) -> None:
        size = archive.ledger.with_name("ledger.sqlite-wal").stat().st_size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))

    said_once(disturbed(archive, limit), "cannot be used", str(archive.ledger), "again")
    assert box.count("add") < PEOPLE
    finish(archive)
    assert archive.problems() == []


@needs_linux
def test_results_that_find_no_room_leave_the_ledger_whole(box: Sandbox, tmp_path: Path) -> None:
    archive = Archive.new(tmp_path / "wide", box)
    archive.crowd(PEOPLE)
    manifest = archive.folder / "staff.csv"
    head, *lines = manifest.read_text(encoding="utf-8").splitlines()
    note = "x" * 100_000  # the results repeat the manifest's columns, the ledger does not
    wide = [f"{head},note", *(f"{line},{note}" for line in lines)]
    manifest.write_text("\n".join(wide) + "\n", encoding="utf-8")
    most = 1_000_000
    done = disturbed(
        archive, lambda pid: resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
    )
    said_once(done, "staff.results.csv cannot be written", "Make room", "is unchanged")
    assert {entry.status for entry in archive.entries()} == {"enrolled"}
    finish(archive)
    assert box.count("add") == PEOPLE
    assert archive.problems() == []


def test_a_folder_for_results_that_is_gone_leaves_the_ledger_whole(
    box: Sandbox, tmp_path: Path
) -> None:
    archive = Archive.new(tmp_path / "gone", box)
    archive.crowd(PEOPLE)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    results = folder / "out.csv"
    done = disturbed(archive, lambda pid: folder.rmdir(), "--results", results)
    said_once(done, f"{results} cannot be written", "No such file or directory")
    folder.mkdir()
    finish(archive, "--results", results)
    assert box.count("add") == PEOPLE
    assert archive.problems(results) == []


def remove(ledger: Path) -> None:
    ledger.unlink()


def remove_folder(ledger: Path) -> None:
    shutil.rmtree(ledger.parent)


def move(ledger: Path) -> None:
    ledger.rename(ledger.with_name("moved.sqlite"))


@pytest.mark.parametrize("vanish", [remove, remove_folder, move])
def test_a_ledger_that_vanishes_during_a_run_is_put_back_and_the_run_stops(
    box: Sandbox, tmp_path: Path, vanish: Callable[[Path], None]
) -> None:
    place = tmp_path / "ledgers"
    place.mkdir()
    archive = Archive.new(tmp_path / "vanished", box, ledger_folder=place)
    archive.crowd(PEOPLE)
    done = disturbed(archive, lambda pid: vanish(archive.ledger))
    said_once(done, "moved or removed", str(archive.ledger), "put back", "again")
    assert box.count("add") < PEOPLE
    assert archive.ledger.stat().st_mode & 0o777 == 0o600
    finish(archive)
    assert archive.problems() == []


def test_another_file_in_a_ledgers_place_is_left_alone(box: Sandbox, tmp_path: Path) -> None:
    archive = Archive.new(tmp_path / "replaced", box)
    archive.crowd(PEOPLE)
    saved = archive.folder / "saved.sqlite"

    def replace(pid: int) -> None:
        archive.ledger.rename(saved)
        archive.ledger.write_text("something else", encoding="utf-8")

    done = disturbed(archive, replace)
    said_once(done, "moved or removed", "was left alone", "put the ledger back")
    assert archive.ledger.read_text(encoding="utf-8") == "something else"
    saved.replace(archive.ledger)
    finish(archive)
    assert archive.problems() == []


def test_a_ledger_that_became_read_only_is_named_and_nothing_is_sent(
    box: Sandbox, tmp_path: Path
) -> None:
    # What the mode of a file forbids, root may do all the same, unless that right is dropped.
    plain = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    wrapped = [] if os.geteuid() else plain
    if wrapped and shutil.which("setpriv") is None:
        pytest.skip("root cannot drop its rights here")
    archive = Archive.new(tmp_path / "readonly", box)
    archive.crowd(4)
    assert archive.command.run(*archive.arguments, "--limit", "2").code == ExitCode.ENDED_EARLY
    with ExitStack() as stack:
        archive.ledger.chmod(0o400)
        stack.callback(archive.ledger.chmod, 0o600)
        done = archive.command.run(*archive.arguments, wrapped=wrapped)
    said_once(done, str(archive.ledger), "readonly database", "permissions")
    assert box.count("add") == 2
    finish(archive)
    assert archive.problems() == []


def spoil(manifest: Path) -> None:
    manifest.write_text("user_id,image\nanother,other.jpg\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("trouble", "words"), [(Path.unlink, "There is no manifest"), (spoil, "was changed while")]
)
def test_a_manifest_that_goes_away_during_a_run_costs_nothing(
    box: Sandbox, tmp_path: Path, trouble: Callable[[Path], None], words: str
) -> None:
    archive = Archive.new(tmp_path / "unread", box)
    archive.crowd(PEOPLE)
    done = disturbed(archive, lambda pid: trouble(archive.folder / "staff.csv"))
    said_once(done, words, "is in the ledger", "the same command again")
    assert {entry.status for entry in archive.entries()} == {"enrolled"}
    assert "Results  not written" in done.out
    archive.manifest()
    finish(archive)
    assert box.count("add") == PEOPLE
    assert archive.problems() == []


def test_results_that_become_a_folder_during_a_run_are_this_machines_trouble(
    box: Sandbox, tmp_path: Path
) -> None:
    archive = Archive.new(tmp_path / "folder", box)
    archive.crowd(PEOPLE)
    done = disturbed(archive, lambda pid: (archive.folder / "staff.results.csv").mkdir())
    said_once(done, "is a folder", "is in the ledger", "the same command again")
    assert {entry.status for entry in archive.entries()} == {"enrolled"}


def test_an_interrupted_run_says_why_its_results_were_not_written(
    box: Sandbox, tmp_path: Path
) -> None:
    archive = Archive.new(tmp_path / "both", box)
    archive.crowd(PEOPLE)

    def disturb(pid: int) -> None:
        (archive.folder / "staff.results.csv").mkdir()
        os.kill(pid, signal.SIGTERM)

    done = disturbed(archive, disturb)
    assert done.code == ExitCode.TERMINATED
    (line,) = [line for line in done.out.splitlines() if line.startswith("Results")]
    assert "not written: " in line
    assert "is a folder" in line


def test_a_summary_says_what_is_on_record_where_the_disk_takes_no_more(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive.new(tmp_path / "short", box)
    archive.crowd(PEOPLE)
    commit = SqlLedger.commit

    def no_room(*_: object) -> None:
        raise sqlite3.OperationalError("disk is full")

    def full(ledger: SqlLedger, *, ahead: float = 0.0, offsets: ClockOffsets | None = None) -> None:
        if box.count("add") < 8:
            commit(ledger, ahead=ahead, offsets=offsets)
            return
        engine = ledger._connection.engine
        event.listen(engine, "do_execute", no_room)
        try:
            commit(ledger, ahead=ahead, offsets=offsets)
        finally:
            event.remove(engine, "do_execute", no_room)

    with monkeypatch.context() as patched:
        patched.setattr(SqlLedger, "commit", full)
        done = archive.command(*archive.arguments)
    said_once(done, "disk is full", str(archive.ledger))
    counts = Counter(entry.status for entry in archive.entries())
    assert counts[Status.SENDING] > 0
    (line,) = [line for line in done.out.splitlines() if "on record" in line]
    for status, count in counts.items():
        assert f"{count} {status}" in line
    assert "next run" in line
    finish(archive)
    assert archive.problems() == []


def test_a_file_system_for_reading_only_has_a_remedy_of_its_own(
    box: Sandbox, tmp_path: Path, tiny_disk: Path
) -> None:
    archive = Archive.new(tmp_path / "read-only", box, ledger_folder=tiny_disk)
    archive.crowd(2)
    run = archive.command
    assert run(*archive.arguments).code == ExitCode.DONE
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    elsewhere = ("--ledger", tmp_path / "other.sqlite")
    for arguments, code in (
        (archive.arguments, ExitCode.LOCAL),
        (["export", tiny_disk / "export.csv", "--ledger", archive.ledger], ExitCode.LOCAL),
        ([*archive.arguments, *elsewhere, "--results", tiny_disk / "results.csv"], ExitCode.USAGE),
    ):
        done = run(*arguments)
        assert done.code == code
        assert "Mount the file system for writing, or " in done.err.replace("\n", " ")
        assert "permissions" not in done.err
