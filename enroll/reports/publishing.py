"""Whatever becomes of a run, its figures are written where they were asked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from enroll.beginning import ledger_path, results_path
from enroll.ending import Report
from enroll.errors import EnrollError, ExitCode, LocalError
from enroll.reports.figures import Figures, figures_of, figures_of_failure, write_summary
from enroll.reports.metrics import check_metrics, write_metrics
from enroll.settings import RunSettings
from enroll.text.logs import log
from enroll.text.outputs import InUse, Output, check_output, try_folder

GOES_BEFORE = frozenset(
    {ExitCode.DONE, ExitCode.SOME_ROWS_FAILED, ExitCode.IN_DOUBT, ExitCode.ENDED_EARLY}
)
"""Exit codes before which 7 comes, as docs/exit-codes.md has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publications:
    """Where a run's figures and log go, None for nowhere."""

    summary: Path | None = None
    metrics: Path | None = None
    log: Path | None = None

    def check(self, settings: RunSettings) -> None:
        """Raise UsageError for a file that must not or cannot be written; hours before it is."""
        if self.metrics is not None:
            check_metrics()
        outputs = [
            Output(path=path, option=option, content=content, is_log=path is self.log)
            for option, path, content in (
                ("--summary", self.summary, "JSON"),
                ("--metrics-file", self.metrics, "metrics as text"),
                ("--log-file", self.log, "log lines"),
            )
            if path is not None
        ]
        results = results_path(settings)
        for output in outputs:
            files = {f"what {one.option} names,": one.path for one in outputs if one is not output}
            files |= {
                what: path for what, path in settings.in_use.items() if path is not output.path
            }
            if results is not None:
                files["the results"] = results
            manifests = [settings.manifest]
            in_use = InUse(ledger=ledger_path(settings), manifests=manifests, files=files)
            check_output(output, in_use)
            if not output.is_log:
                try_folder(output)


@dataclass(slots=True)
class Outcome:
    """What has become of a run; `report` stays None where it was not begun or met a bug."""

    report: Report | None = None


@contextmanager
def publishing(settings: RunSettings, publications: Publications) -> Iterator[Outcome]:
    """Around a run: its figures are written when it ends, also by an exception, which goes on.

    Raises LocalError where they cannot be, and nothing worse has happened.
    """
    started, outcome = time.time(), Outcome()
    try:
        yield outcome
    except BaseException as error:  # an interruption, too
        _publish(figures_of_failure(error, settings, started=started), publications, later=True)
        raise
    if outcome.report is not None:
        worse = outcome.report.exit_code not in GOES_BEFORE
        figures = figures_of(outcome.report, settings, started=started)
        _publish(figures, publications, later=worse)


def _publish(figures: Figures, publications: Publications, *, later: bool) -> None:
    """Write the figures, each file whatever became of the other; with `later` a fault in that is
    only logged, as there is worse to say."""
    faults: list[str] = []
    with ExitStack() as writing:  # which goes on to the other file after a bug, too
        if publications.metrics is not None:
            writing.callback(_try, faults, write_metrics, publications.metrics, figures)
        if publications.summary is not None:
            writing.callback(_try, faults, write_summary, publications.summary, figures)
    if not later and faults:  # no wrong usage any more: faces may have been added
        raise LocalError(*faults)
    for fault in faults:
        log("warning", f"Warning: {fault}", {}, level=logging.WARNING)


def _try(
    faults: list[str], write: Callable[[Path, Figures], None], path: Path, figures: Figures
) -> None:
    try:
        write(path, figures)
    except EnrollError as error:
        faults.append(str(error))
