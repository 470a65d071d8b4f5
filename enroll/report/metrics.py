"""A run's figures as metrics, in the text format of OpenMetrics, also while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from enroll.errors import ExitCode
from enroll.model import CallKind
from enroll.report.figures import RunEnding, figures_of_run
from enroll.report.outcome import About, Value
from enroll.settings import host_of

SUCCESS = frozenset({ExitCode.DONE, ExitCode.SOME_ROWS_FAILED, ExitCode.IN_DOUBT})
"""Exit codes of a run that has gone through its whole manifest."""

IN_PROGRESS = "enroll_run_in_progress"
LAST_SUCCESS = "enroll_last_success_timestamp_seconds"
LAST_PROGRESS = "enroll_last_progress_timestamp_seconds"
STARTED = "enroll_run_start_timestamp_seconds"

_HELP = {
    IN_PROGRESS: "1 while a run is going on, else 0; it stays 1 after a kill.",
    LAST_SUCCESS: "When a run last ended after it had gone through its whole manifest.",
    LAST_PROGRESS: "When a run last succeeded, or ended at a bound after it had added or deleted "
    "faces; until then, when the first run was started.",
    STARTED: "When the last run was started.",
}


def metrics_text(ending: RunEnding, *, before: str = "") -> bytes:
    """The metrics of a run that has ended, each labelled with the endpoint's `host` and the
    library's `group_id`; unknown figures are left out.

    `before` are the metrics of this library that were written before: the last success and the
    last progress are kept.
    """
    metrics = _Metrics(ending.about)
    for figure, value in figures_of_run(ending):
        if not figure.help or value is None:
            continue
        for labelled, number in _numbers(value).items():
            of_run = "" if figure.of_ledger else "run_"
            name = f"enroll_{of_run}{figure.metric or figure.name}"
            metrics.put(name, figure.help, number, **({figure.label: labelled} if labelled else {}))
    metrics.put(IN_PROGRESS, _HELP[IN_PROGRESS], 0)
    if ending.exit_code in SUCCESS:
        metrics.put(LAST_SUCCESS, _HELP[LAST_SUCCESS], ending.ended)
    else:
        metrics.take(before, only=LAST_SUCCESS)
    if ending.exit_code in SUCCESS or _got_on(ending):
        metrics.put(LAST_PROGRESS, _HELP[LAST_PROGRESS], ending.ended)
    else:
        metrics.put(LAST_PROGRESS, _HELP[LAST_PROGRESS], ending.started)
        metrics.take(before, only=LAST_PROGRESS)
    return metrics.text()


def _got_on(ending: RunEnding) -> bool:
    """Whether a run ended at a bound of its settings, and would have come to its end in a few more
    like it."""
    if ending.exit_code is not ExitCode.ENDED_EARLY or ending.report is None:
        return False
    calls = ending.report.ended.tally.calls
    return calls[CallKind.ADD] + calls[CallKind.DELETE] > 0


def metrics_in_progress(about: About, started: float, *, before: str) -> bytes:
    """The metrics while a run goes on that was `started` then (UNIX seconds): else those of the run
    before."""
    metrics = _Metrics(about)
    metrics.put(LAST_PROGRESS, _HELP[LAST_PROGRESS], started)  # before the first has ended
    metrics.take(before)
    for name, number in ((STARTED, started), (IN_PROGRESS, 1)):
        metrics.put(name, _HELP[name], number)
    return metrics.text()


class _Metrics:
    """Gauges of one library."""

    def __init__(self, about: About) -> None:
        self._library = {"host": host_of(about.endpoint or ""), "group_id": about.group_id or ""}
        self._known: dict[str, tuple[str, dict[tuple[tuple[str, str], ...], float]]] = {}

    def put(self, name: str, help_text: str, number: float, **labels: str) -> None:
        """Set a gauge, for these further labels."""
        _, numbers = self._known.setdefault(name, (help_text, {}))
        numbers[tuple(labels.items())] = number

    def take(self, text: str, *, only: str = "") -> None:
        """Set the gauges that this text has of the library, or only one of them."""
        from prometheus_client.openmetrics.parser import (  # noqa: PLC0415
            text_string_to_metric_families,
        )

        with suppress(ValueError):  # whatever is there, it is not ours
            for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
                for sample in family.samples if only in ("", family.name) else ():
                    labels = dict(sample.labels)
                    library = {name: labels.pop(name, None) for name in self._library}
                    if library == self._library:
                        self.put(sample.name, family.documentation, sample.value, **labels)

    def text(self) -> bytes:
        """All of them in the text format of OpenMetrics."""
        # Here, not above: it is an extra, and nobody else waits for it.
        from prometheus_client import CollectorRegistry, Gauge  # noqa: PLC0415
        from prometheus_client.openmetrics.exposition import generate_latest  # noqa: PLC0415

        registry = CollectorRegistry()
        for name, (help_text, numbers) in self._known.items():
            further = [label for label, _ in next(iter(numbers))]
            gauge = Gauge(name, help_text, [*self._library, *further], registry=registry)
            for labels, number in numbers.items():
                gauge.labels(**self._library, **dict(labels)).set(number)
        text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
        return text


def _numbers(value: Value) -> Mapping[str, float]:
    """A figure's numbers by label; a single number has an empty label."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, datetime):
        return {"": value.timestamp()}
    return {"": float(str(value))}
