"""Syncs that are killed: started again, the library is what the manifest says."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive import Archive
from killing import Kill, Runner

from enroll.sandbox import Limits, Sandbox

FREE = ("--grace", "0", "--max-removals", "100%", "--max-changes", "100", "--max-missing", "100%")
"""No grace, and no guard."""


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False, fault_lag=0.2, limits=Limits(max_libraries=1000)) as running:
        yield running


def test_who_is_back_after_a_kill_before_the_deletion_keeps_the_face(
    box: Sandbox, runner: Runner, tmp_path: Path
) -> None:
    archive = Archive.new(tmp_path / "nights", box)

    def sync(kill: Kill | None = None) -> int:
        archive.manifest()
        arguments = ["sync", *archive.arguments[1:], *FREE]
        environ = archive.command.environ
        return runner.run(arguments, folder=archive.folder, environ=environ, kill=kill)

    for number, name in enumerate(("same", "both", "leaver")):
        archive.row(name, number, "before")
    assert sync() == 0
    leaver = archive.rows.pop()
    assert sync(Kill("call", "before", 2)) == -signal.SIGKILL
    assert len(archive.there()) == 3
    archive.rows.append(leaver)  # the list is corrected, and the photo is not there
    (archive.folder / "2.jpg").unlink()
    assert sync() == 4
    assert len(archive.there()) == 3
