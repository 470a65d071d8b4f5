"""Syncs that are killed: started again, the library is what the manifest says."""

from __future__ import annotations

import csv
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from killing import Kill, Runner
from small_case import Case

from enroll.sandbox import Limits, Sandbox

FREE = ("--grace", "0", "--max-removals", "100%", "--max-changes", "100", "--max-missing", "100%")
"""No grace, and no guard."""


@dataclass
class Nights(Case):
    """The same with a text for each row, kept like its manifest."""

    texts: dict[tuple[str, str], str] = field(default_factory=dict)

    def person(self, name: str, number: int, text: str = "") -> str:
        user_id = self.row(name, number)
        self.texts[self.rows[-1]] = text
        return user_id

    def gone(self, name: str) -> None:
        self.rows = [row for row in self.rows if row[0] != f"{self.group_id}-{name}"]

    def write_manifest(self) -> None:
        with (self.folder / "staff.csv").open("w", encoding="utf-8", newline="") as file:
            lines = [(*row, self.texts.get(row, "")) for row in self.rows]
            csv.writer(file).writerows([("user_id", "image", "user_data"), *lines])

    @property
    def arguments(self) -> list[str]:
        return ["sync", *super().arguments[1:], *FREE]


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False, fault_lag=0.2, limits=Limits(max_libraries=1000)) as running:
        yield running


def test_who_is_back_after_a_kill_before_the_deletion_keeps_the_face(
    box: Sandbox, runner: Runner, tmp_path: Path
) -> None:
    case = Nights(tmp_path / "case", box)
    for number, name in enumerate(("same", "both", "leaver")):
        case.person(name, number, "before")
    case.write_manifest()
    assert runner.run(case.arguments, folder=case.folder, environ=case.environ) == 0
    rows = list(case.rows)
    case.gone("leaver")
    case.write_manifest()
    kill = Kill("call", "before", 2)
    code = runner.run(case.arguments, folder=case.folder, environ=case.environ, kill=kill)
    assert (code, len(box.faces(case.group_id))) == (-signal.SIGKILL, 3)
    case.rows = rows  # the list is corrected, and the photo is not there
    case.write_manifest()
    (case.folder / "2.jpg").unlink()
    assert runner.run(case.arguments, folder=case.folder, environ=case.environ) == 4
    assert len(box.faces(case.group_id)) == 3
