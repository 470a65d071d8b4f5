"""The real command on one night: its arguments, its runs, and what they came to, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Timer

from . import checks
from .exports import Export
from .launcher import STUCK, Launcher, Strike
from .ledgers import LedgerPlace
from .oracle import Bounds, Face
from .schedule import fault_plan
from .watch import Watched

GROUP_ID = "year"
TIMEOUT, SETTLE_AFTER, LATENCY, IN_FLIGHT = 1.0, 0.3, 0.004, 4
"""Seconds and calls. The stand-in applies what it has accepted within milliseconds, or when the
client goes away."""

IDLE_SECONDS = 30.0
"""Until nothing is under way any more at the stand-in, when nobody waits for it."""

SHOWN_LATE_SECONDS = 60.0
"""After that much every face is shown that `search-lag` has held back."""

LIFTED = 1_000_000
_BUGS = (STUCK, 70, 71)


@dataclass
class Tally:
    """What there was, counted."""

    runs: int = 0
    struck: int = 0
    cut: int = 0
    """Strikes at the server of the ledger."""
    restored: int = 0
    abandoned: int = 0
    lifted: int = 0
    rehearsed: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    exports: Counter[tuple[Export, int]] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


@dataclass
class NightlyCommand:
    """`enroll` in `folder`, where the manifest is staff.csv and the photos are in share."""

    folder: Path
    ledger: LedgerPlace
    watched: Watched
    launcher: Launcher
    tally: Tally
    bounds: Bounds
    seed: int
    found: Callable[[str], None]

    def sync(
        self, *, lifted: bool, first: bool, faults: float, number: int, strike: Strike | None
    ) -> int:
        """One run, with this share of faults, which `number` draws; its exit code."""
        self._trouble(faults, number)
        with self._struck(strike):
            code = self._run(self._arguments(lifted=lifted, first=first), strike)
        if not self.watched.box.wait_idle(IDLE_SECONDS):
            self.found("calls are under way, and nobody waits for them")
        self.tally.runs += 1
        self.tally.codes[code] += 1
        self.tally.calls.update(self.watched.calls())
        return code

    def rehearse(self, *, first: bool) -> tuple[int, Path]:
        """`--dry-run`, which must call nothing; its exit code and the differences."""
        self._trouble(0.0, 0)
        path = self.folder / "differences.csv"
        path.unlink(missing_ok=True)
        arguments = [*self._arguments(lifted=False, first=first), "--dry-run"]
        code = self._run([*arguments, "--differences", path.name], None)
        self.tally.rehearsed += 1
        if calls := self.watched.calls():
            self.found(f"--dry-run: called {calls}")
        return code, path

    def verify(self, strangers: dict[str, Face]) -> None:
        """Ledger and library agree, but for the strangers."""
        self._trouble(0.0, 0)
        self.watched.ahead += SHOWN_LATE_SECONDS
        path = self.folder / "verify.csv"
        path.unlink(missing_ok=True)
        options = [
            "--ledger",
            self.ledger.name,
            "--differences",
            path.name,
            "--config",
            "none.toml",
        ]
        code = self._run(["verify", *options], None)
        self.tally.calls.update(self.watched.calls())
        if code != bool(strangers) or not path.exists():
            self.found(f"verify: exit code {code}")
            return
        for wrong in checks.differences(path, strangers):
            self.found(wrong)

    @contextmanager
    def _struck(self, strike: Strike | None) -> Iterator[None]:
        """What a command does meanwhile meets a strike at the ledger's server."""
        if strike is None or strike.point not in self.ledger.points:
            yield
            return

        def cut() -> None:
            self.tally.cut += 1
            self.ledger.strike(strike.point)

        timer = Timer(strike.number / 1000, cut)
        timer.start()
        yield
        timer.cancel()
        timer.join()

    def _run(self, arguments: list[str], strike: Strike | None) -> int:
        code = self.launcher.run(arguments, ahead=self.watched.ahead, strike=strike)
        if code in _BUGS:
            self.found(f"{arguments[0]}: exit code {code}")
        return code

    def _trouble(self, faults: float, number: int) -> None:
        plan = fault_plan(faults) if faults else {}
        self.watched.trouble(plan, seed=self.seed * 1_000_000 + number, latency=LATENCY)

    def _arguments(self, *, lifted: bool, first: bool) -> list[str]:
        bounds = self.bounds
        if lifted:
            bounds = replace(bounds, removals=LIFTED, changes=LIFTED)
        arguments = [
            *("sync", "staff.csv", "--group-id", GROUP_ID, "--ledger", self.ledger.name),
            *("--images", "share", "--timeout", str(TIMEOUT), "--settle-after", str(SETTLE_AFTER)),
            *("--max-in-flight", str(IN_FLIGHT), "--grace", str(bounds.grace)),
            *("--no-progress", "--config", "none.toml", "--show-user-ids"),
        ]
        if bounds.removals is not None:
            arguments += ["--max-removals", str(bounds.removals)]
        if bounds.changes is not None:
            arguments += ["--max-changes", str(bounds.changes)]
        return [*arguments, "--allow-nonempty"] if first else arguments
