"""Options for runs that nobody watches: their end, and what they leave to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enroll.cli import options
from enroll.settings import RunSettings

if TYPE_CHECKING:
    from enroll.report.publishing import Publications

max_duration = click.option(
    "--max-duration",
    type=options.Duration(),
    metavar="SECONDS|6h|90m",
    help="End softly after so long: nothing more is sent, calls in flight may end.",
)

quiet = click.option("--quiet", is_flag=True, help="Print only what needs a person.")

figures = options.together(
    options.named_option(
        "--summary", type=options.FILE, help="Write the run's figures to this file, as JSON."
    ),
    options.named_option(
        "--metrics-file",
        type=options.FILE,
        help="Write them to this file as metrics, for node_exporter's textfile collector.",
    ),
)

_WRITTEN = {
    "log_file": "the log file",
    "summary": "the summary",
    "metrics_file": "the metrics",
    "differences": "the differences",
}
"""What is written beside the results, which must not take its place: among the files in use."""


def written(given: Mapping[str, Any]) -> dict[str, Path]:
    """The files that are written beside the results, by what they are; `given` are the options."""
    return {what: given[name] for name, what in _WRITTEN.items() if given.get(name) is not None}


def publications(settings: RunSettings, given: Mapping[str, Any]) -> Publications:
    """Where figures and log go. Raises UsageError for a file that is something else."""
    from enroll.report.publishing import Publications

    where = Publications(
        summary=given["summary"], metrics=given["metrics_file"], log=given["log_file"]
    )
    where.check(settings)
    return where
