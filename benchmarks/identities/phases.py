"""The real command against the stand-in, each as a process of its own: what it takes and asks."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.process import Usage, measured
from suite.ways import surroundings

from .staff import MANIFEST
from .stand_in import GROUP_ID, KEY, SECRET, StandIn, stand_in

RESULTS = "results.csv"
FINDINGS = "findings.csv"
SUMMARY = "audit.json"
_LEDGER = "ledger.sqlite"
_ROWS = "--results", RESULTS, "--no-progress"
_IN_FLIGHT = "8"
"""Calls. The stand-in, which takes a call at a time, keeps up with no more."""


@dataclass(frozen=True, slots=True)
class Phase:
    """What the command took, and the stand-in: seconds, memory, and calls by kind."""

    name: str
    used: Usage
    box: StandIn

    def calls(self, kind: str) -> int:
        return self.box.calls.get(kind, 0)


@dataclass(frozen=True, slots=True)
class Command:
    """`enroll` in `folder`, and a stand-in whose scores follow from the seed."""

    folder: Path
    seed: int

    def run(self) -> Phase:
        """Enroll the manifest."""
        return self._phase("run", MANIFEST, *_ROWS, codes=[0])

    def audit(self, *, score: float, unlike: float) -> Phase:
        """Search with every photo that is enrolled; exit code 1 where there are findings."""
        limits = "--score", f"{score:g}", "--unlike", f"{unlike:g}"
        files = "--findings", FINDINGS, "--summary", SUMMARY
        return self._phase("audit", *limits, *files, codes=[0, 1])

    def sync(self) -> Phase:
        """A night, which holds whoever looks like somebody else; exit code 1 where it does."""
        return self._phase("sync", MANIFEST, *_ROWS, "--lookalikes", "hold", codes=[0, 1])

    def _phase(self, word: str, *arguments: str, codes: Sequence[int]) -> Phase:
        command = [
            *(sys.executable, "-m", "enroll", word, *arguments, "--group-id", GROUP_ID),
            *("--ledger", _LEDGER, "--max-in-flight", _IN_FLIGHT),
        ]
        with stand_in(self.folder, seed=self.seed) as box:
            environ = {
                **surroundings(self.folder, box.endpoint),
                "ENROLL_API_KEY": KEY,
                "ENROLL_API_SECRET": SECRET,
            }
            used = measured(command, cwd=self.folder, environ=environ, codes=codes)
        return Phase(word, used, box)


def lines(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by the names of its columns."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
