"""Writes a run's figures for programs when it ends, however it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from enroll import clock
from enroll.commands.run_closing import Report
from enroll.commands.run_input import check_beside_results, ledger_path
from enroll.errors import (
    EnrollError,
    ExitCode,
    GuardError,
    LocalError,
    ServiceError,
    UsageError,
    run_of,
)
from enroll.ledger import ledger_at
from enroll.report.figures import RunEnding, in_json
from enroll.report.metrics import metrics_in_progress, metrics_text
from enroll.report.notifying import Notifications
from enroll.report.outcome import GOES_BEFORE, as_text, of_run_settings, why, write_figures
from enroll.settings import RunSettings
from enroll.text.files import Output, new_file
from enroll.text.logs import log

_STOPPED = "enroll status and the command's own output show why."
"""A sentence about a row's error may name its person or photo, so only files of the owner have
it."""


def command_message(report: Report) -> str:
    """Why a run ended early, without anything that names a person; empty if it did not."""
    ended = report.ended
    if ended.signal is not None:
        return "Interrupted by a signal; run the same command again to continue."
    if ended.stop is not None:
        by = "the service" if isinstance(ended.stop, ServiceError) else "this machine"
        return f"Stopped by {by}; {_STOPPED}"
    if ended.bound is not None:
        return f"{ended.bound}. Run the same command again to continue."
    return ""


def run_ending(settings: RunSettings, report: Report, *, started: float, ended: float) -> RunEnding:
    """How a run has ended. Times are UNIX seconds, those of the command."""
    return RunEnding(
        about=replace(of_run_settings(settings), ledger=report.place.ledger),
        exit_code=report.exit_code,
        message=command_message(report),
        started=started,
        ended=ended,
        run=report.place.run,
        report=report,
    )


def _failed(settings: RunSettings, error: BaseException, started: float) -> RunEnding:
    """A command that could not start a run, or hit a bug in it."""
    return RunEnding(
        about=of_run_settings(settings),
        exit_code=ExitCode(getattr(error, "exit_code", ExitCode.BUG)),
        message=why(error),
        started=started,
        ended=clock.time(),
        run=run_of(error),
        counts=error.counts if isinstance(error, GuardError) else None,
    )


MODE = 0o644
"""Everybody may read it, because the collector runs as another user. It holds counts, times, and
the names of host and library, but no personal data."""


def write_summary(path: Path, ending: RunEnding) -> None:
    """Write the figures to `path`, readable by its owner only. Raises LocalError."""
    write_figures(path, in_json(ending))


def write_metrics(path: Path, ending: RunEnding) -> None:
    """Write the metrics to `path`, readable by everybody. Raises LocalError."""
    _write_metrics(path, metrics_text(ending, before=_read(path)))


def _write_metrics(path: Path, text: bytes) -> None:
    with new_file(path, mode=MODE) as new:
        new.file.write(text)


def _read(path: Path) -> str:
    """The metrics that are there; empty where nothing can be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publications:
    """Where a run's figures and log go, None for nowhere, and who is notified."""

    summary: Path | None = None
    metrics: Path | None = None
    log: Path | None = None
    notifications: Notifications = field(default_factory=Notifications)

    def check(self, settings: RunSettings) -> None:
        """Raise UsageError for a file that must not or cannot be written, before a run of hours."""
        self.notifications.check()
        if self.metrics is not None and not find_spec("prometheus_client"):
            raise UsageError(
                "--metrics-file needs the package prometheus_client: "
                "run `pip install 'enroll[metrics]'`."
            )
        outputs = [
            Output(path=path, option=option, content=content, is_log=path is self.log)
            for option, path, content in (
                ("--summary", self.summary, "JSON"),
                ("--metrics-file", self.metrics, "metrics as text"),
                ("--log-file", self.log, "log lines"),
            )
            if path is not None
        ]
        for output in outputs:
            others = {f"what {one.option} names,": one.path for one in outputs if one is not output}
            check_beside_results(output, settings, ledger=ledger_path(settings), others=others)


def publishing(
    settings: RunSettings,
    publications: Publications,
    run: Callable[[Callable[[], None]], Report],
) -> Report:
    """Run, and write the figures when that ends, also after an exception, which goes on.

    `run` is given what it has to call once the run is on record. Raises LocalError if the figures
    cannot be written and nothing worse has happened.
    """
    started = clock.time()
    publications.notifications.began()
    try:
        report = run(partial(_note_progress, settings, publications, started))
    except BaseException as error:  # an interruption, too
        _publish(_failed(settings, error, started), publications, later=True)
        raise
    worse = report.exit_code not in GOES_BEFORE
    ending = run_ending(settings, report, started=started, ended=clock.time())
    _publish(ending, publications, later=worse)
    return report


def _note_progress(settings: RunSettings, publications: Publications, started: float) -> None:
    """Write that a run is in progress. If that fails, the end of the run will report it."""
    path = publications.metrics
    if path is not None:
        with suppress(EnrollError):
            about = of_run_settings(settings)
            _write_metrics(path, metrics_in_progress(about, started, before=_read(path)))


def _publish(ending: RunEnding, publications: Publications, *, later: bool) -> None:
    """Write both files, each even if the other fails, and notify; with `later`, a failure is only
    logged, because something worse has to be reported."""
    faults: list[str] = []
    with ExitStack() as writing:  # which goes on to the others after a bug, too
        writing.callback(
            publications.notifications.ended, ending.exit_code, as_text(in_json(ending))
        )
        if ending.report is None and _is_held(ending):
            log("note", _OF_ANOTHER_RUN, {}, aside=True)
        else:
            if publications.metrics is not None:
                writing.callback(_try, faults, write_metrics, publications.metrics, ending)
            if publications.summary is not None:
                writing.callback(_try, faults, write_summary, publications.summary, ending)
    if not later and faults:  # no wrong usage any more: faces may have been added
        raise LocalError(*faults)
    for fault in faults:
        log("warning", f"Warning: {fault}", {}, level=logging.WARNING)


_OF_ANOTHER_RUN = (
    "The summary and the metrics were left as they are: they are those of the run in progress."
)


def _is_held(ending: RunEnding) -> bool:
    """Whether another process has the command's ledger."""
    if ending.exit_code is ExitCode.LEDGER_BUSY:
        return True
    try:
        return (
            ending.about.ledger is not None and ledger_at(ending.about.ledger).holder() is not None
        )
    except EnrollError:
        return False


def _try(
    faults: list[str], write: Callable[[Path, RunEnding], None], path: Path, ending: RunEnding
) -> None:
    try:
        write(path, ending)
    except EnrollError as error:
        faults.append(str(error))
