"""A run's figures for programs: what `--summary` writes. No user id, no path of a photo."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from enroll import __version__, clock
from enroll.commands.run_closing import Report
from enroll.commands.run_opening import ledger_path, results_path
from enroll.errors import EnrollError, ExitCode, GuardError, LocalError, ManifestError, UsageError
from enroll.model import CallKind, Status
from enroll.session.tally import Latencies
from enroll.settings import RunSettings, host_of
from enroll.text.files import InUse, Output, check_output, new_file, try_folder
from enroll.text.logs import log
from enroll.visible import json_text, path_text

_STOPPED = "enroll status and the command's own output say why."
"""A sentence about a row's error may name its person or photo: those two are for their owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How a command went; docs/reference.md describes each. Times are UNIX seconds.

    What is not known is None: all that comes of a run, where none could be begun.
    """

    exit_code: int
    reason: str
    message: str
    started: float
    ended: float
    seconds: float
    version: str
    manifest: str
    group_id: str
    endpoint: str
    ledger: str | None
    library_created: str | None = None
    run: int | None = None
    results: str | None = None
    rows: Mapping[str, int] | None = None
    errors: Mapping[str, int] | None = None
    enrolled_now: int | None = None
    enrolled_before: int | None = None
    renewed: int | None = None
    bad: int | None = None
    new_bad: int | None = None
    calls: Mapping[str, int] | None = None
    refused: int | None = None
    refused_share: float | None = None
    service_seconds_median: float | None = None
    service_seconds_p95: float | None = None
    call_seconds_median: float | None = None
    call_seconds_p95: float | None = None
    limit: int | None = None
    limit_per_second: float | None = None
    adopted: int | None = None
    not_applied: int | None = None
    surplus: int | None = None
    others_in_doubt: int | None = None
    superseded: int | None = None
    gone: int | None = None
    kept: int | None = None
    user_data_changed: int | None = None
    shared_photos: int | None = None
    unforgotten: int | None = None
    sync: Mapping[str, int] | None = None

    def as_json(self) -> str:
        """One object, times in ISO 8601 and UTC."""
        known: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("started", "ended"):
            at = datetime.fromtimestamp(known[name], UTC).isoformat(timespec="milliseconds")
            known[name] = at.replace("+00:00", "Z")
        return json_text(known, indent=2) + "\n"


def figures_of(report: Report, settings: RunSettings, *, started: float) -> Figures:
    """The figures of a run that was begun; `started` is when the command was."""
    tally, gauge = report.ended.tally, report.gauge
    calls = tally.calls.total()
    return Figures(
        **_of_command(settings, report.exit_code, started),
        message=_message(report),
        ledger=path_text(report.place.ledger),
        library_created=report.place.library.add_time,
        run=report.place.run,
        results=None if report.results is None else path_text(report.results.absolute()),
        rows={status.value: tally.statuses[status] for status in Status},
        errors={str(code): count for (_, code), count in sorted(tally.codes.items())},
        enrolled_now=tally.enrolled_now,
        enrolled_before=tally.unchanged + tally.recognised + tally.gone,
        renewed=tally.renewed,
        bad=tally.bad,
        new_bad=tally.new_bad,
        calls={kind.value: tally.calls[kind] for kind in CallKind},
        refused=tally.refused,
        refused_share=round(tally.refused / calls, 4) if calls else 0.0,
        service_seconds_median=_quantile(tally.service_took, 0.5),
        service_seconds_p95=_quantile(tally.service_took, 0.95),
        call_seconds_median=_quantile(tally.calls_took, 0.5),
        call_seconds_p95=_quantile(tally.calls_took, 0.95),
        limit=gauge.ceiling,
        limit_per_second=gauge.spacing,
        adopted=tally.adopted,
        not_applied=tally.not_applied,
        surplus=tally.surplus,
        others_in_doubt=tally.others_in_doubt,
        superseded=tally.superseded,
        gone=tally.gone,
        kept=tally.kept,
        user_data_changed=tally.user_data_changed,
        shared_photos=tally.shared,
        unforgotten=report.place.unforgotten,
        sync=None if report.followed is None else report.followed.figures(),
    )


def _quantile(took: Latencies, share: float) -> float | None:
    seconds = took.quantile(share)
    return None if seconds is None else round(seconds, 4)


def figures_of_failure(error: BaseException, settings: RunSettings, *, started: float) -> Figures:
    """The figures of a command that could not begin a run, or met a bug in it."""
    code = ExitCode(getattr(error, "exit_code", ExitCode.BUG))
    message = str(error)
    if isinstance(error, ManifestError):  # it may quote cells
        message = "The manifest cannot be used; the command's own output says why."
    counts = error.counts if isinstance(error, GuardError) else None
    if code is ExitCode.GUARD:
        message = "Refused: the difference is too large; the command's own output says why."
    if code is ExitCode.BUG:
        message = "A bug; the command's own output names the file with the traceback."
    try:
        ledger = path_text(ledger_path(settings))
    except UsageError:
        ledger = None
    command = _of_command(settings, code, started)
    return Figures(**command, message=message, ledger=ledger, sync=counts)


def write_summary(path: Path, figures: Figures) -> None:
    """Put the figures where `path` is, for their owner alone. Raises LocalError."""
    with new_file(path) as new:
        new.file.write(figures.as_json().encode())


def _of_command(settings: RunSettings, code: ExitCode, started: float) -> dict[str, Any]:
    now = clock.time()
    return {
        "exit_code": int(code),
        "reason": code.name,
        "started": started,
        "ended": now,
        "seconds": round(max(now - started, 0.0), 3),
        "version": __version__,
        "manifest": path_text(settings.manifest.absolute()),
        "group_id": settings.group_id,
        "endpoint": settings.endpoint,
    }


def _message(report: Report) -> str:
    ended = report.ended
    if ended.signal is not None:
        return "Interrupted by a signal; run the same command again to go on."
    if ended.stop is not None:
        by = "the service" if ended.stop.exit_code is ExitCode.SERVICE else "this machine"
        return f"Stopped by {by}; {_STOPPED}"
    if ended.bound is not None:
        return f"{ended.bound}. Run the same command again to go on."
    return ""


MODE = 0o644
"""Anybody may read it: the collector runs as another user, who could not read a file of ours
otherwise. It holds counts, times, and the names of host and library; nothing of a person."""

Labels = tuple[str, ...]

_NUMBERS = {
    "exit_code": "How the last run ended, as docs/exit-codes.md has it; 0 is done.",
    "enrolled_now": "Rows that the last run enrolled.",
    "enrolled_before": "Rows that were enrolled before the last run.",
    "new_bad": "Rows that are rejected, invalid or failed since the last run.",
    "refused": "Calls of the last run that the account's limit refused.",
    "refused_share": "Share of the last run's calls that the account's limit refused, 0 to 1.",
    "service_seconds_median": "Half of the last run's adds took the service no longer.",
    "service_seconds_p95": "95 % of the last run's adds took the service no longer.",
    "call_seconds_median": "Half of the last run's adds took no longer as a whole.",
    "call_seconds_p95": "95 % of the last run's adds took no longer as a whole.",
    "limit": "Calls at a time that the account takes, as far as it was found.",
    "limit_per_second": "Calls a second that the account takes, where it counts those.",
    "adopted": "Faces in doubt that the last run found in the library.",
    "surplus": "Further copies of faces that the last run found in the library.",
    "others_in_doubt": "Faces in doubt that are none of the manifest's.",
    "unforgotten": "People of whom `enroll forget` has not deleted everything yet.",
}
"""Figures that are one number, by their name there and in the metric."""


def check_metrics() -> None:
    """Raise UsageError where the extra `metrics` is not installed."""
    try:
        import prometheus_client  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError(
            "--metrics-file needs the package prometheus_client: "
            "run `pip install 'enroll[metrics]'`."
        ) from error


def write_metrics(path: Path, figures: Figures) -> None:
    """Put the metrics where `path` is, readable by everybody. Raises LocalError."""
    with new_file(path, mode=MODE) as new:
        new.file.write(metrics_text(figures))


def metrics_text(figures: Figures) -> bytes:
    """The metrics, each labelled with the endpoint's `host` and the library's `group_id`; what is
    not known is left out."""
    # Here, not above: it is an extra, and nobody else waits for it.
    from prometheus_client import CollectorRegistry, Gauge  # noqa: PLC0415
    from prometheus_client.openmetrics.exposition import generate_latest  # noqa: PLC0415

    registry = CollectorRegistry()
    library = (host_of(figures.endpoint), figures.group_id)
    for name, meaning, label, values in _metrics(figures):
        labels = ["host", "group_id", *([label] if label else [])]
        gauge = Gauge(f"enroll_run_{name}", meaning, labels, registry=registry)
        for value_of, number in values.items():
            gauge.labels(*library, *([value_of] if label else [])).set(number)
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


def _metrics(figures: Figures) -> Iterator[tuple[str, str, str, Mapping[str, float]]]:
    """Name, meaning, second label (or none), and the values by that label's."""
    yield (
        "start_timestamp_seconds",
        "When the last run was started.",
        "",
        {"": figures.started},
    )
    yield "end_timestamp_seconds", "When the last run ended.", "", {"": figures.ended}
    yield "duration_seconds", "How long the last run took.", "", {"": figures.seconds}
    for name, meaning in _NUMBERS.items():
        number = getattr(figures, name)
        if number is not None:
            yield name, meaning, "", {"": number}
    if figures.rows is not None:
        yield "rows", "Rows of the manifest after the last run.", "status", figures.rows
    if figures.sync is not None:
        yield "sync", "What the last sync found and did.", "what", figures.sync
    if figures.calls is not None:
        yield "calls", "Calls that the last run made.", "kind", figures.calls


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
    started, outcome = clock.time(), Outcome()
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
