"""A run's figures as metrics: what `--metrics-file` writes, in the OpenMetrics text form.

Gauges only and no timestamps, which node_exporter's textfile collector would refuse; so the file is
in Prometheus's older text form, too, to which the last line is a comment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from enroll.errors import UsageError
from enroll.reports.figures import Figures
from enroll.settings import host_of
from enroll.text.newfile import new_file

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
