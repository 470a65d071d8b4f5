"""A run's figures for programs: what `--summary` writes. No user id, no path of a photo."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from enroll import __version__
from enroll.beginning import ledger_path
from enroll.ending import Report
from enroll.errors import ExitCode, GuardError, ManifestError, UsageError
from enroll.model import CallKind, Status
from enroll.settings import RunSettings
from enroll.tally import Latencies
from enroll.text.newfile import new_file
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
    now = time.time()
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
