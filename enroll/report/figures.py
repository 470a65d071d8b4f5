"""A run's figures in one table: each one's name, value, and how every output shows it.

`--summary` (JSON), `--metrics-file` (`metrics.py`), the log event `run_ended` and the remarks in
the printed summary are all made from this table, and docs/reference.md is checked against it. No
figure contains a user id or a photo's path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from enroll.commands.run_closing import Report
from enroll.ledger import FindingKind
from enroll.model import Status
from enroll.report.outcome import OF_COMMAND, Ending, Figure, Value, plain
from enroll.session.tally import Latencies, by_kind
from enroll.text.wording import amount
from enroll.visible import path_text


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnding(Ending):
    """A run or sync that has ended. `report` is None if no run was started, or if it hit a bug;
    `counts` are then those of a refused difference."""

    report: Report | None = None
    counts: Mapping[str, int] | None = None


def _refused_share(run: Report) -> float:
    calls = run.ended.tally.calls.total()
    return round(run.ended.tally.refused / calls, 4) if calls else 0.0


def _quantile(took: Latencies, share: float) -> float | None:
    seconds = took.quantile(share)
    return None if seconds is None else round(seconds, 4)


def _on_record(run: Report) -> dict[str, int] | None:
    held = run.on_record
    return None if held is None else {status.value: count for status, count in held.items()}


def _tally(name: str, **shown: Any) -> Figure[Report]:
    """The figure that the tally of a run has by the same name."""
    return Figure(name, attrgetter(f"ended.tally.{name}"), **shown)


OF_RUN: Sequence[Figure[Report]] = (
    Figure("library_created", lambda run: run.place.library.add_time),
    Figure("run_exit_code", lambda run: int(run.exit_code), in_json=False, log="exit_code"),
    Figure(
        "rows",
        lambda run: {status.value: run.ended.tally.statuses[status] for status in Status},
        help="Rows of the manifest after the last run.",
        label="status",
        log="rows",
        sparse=True,
    ),
    _tally("not_reached"),
    Figure("repeats", lambda run: len(run.ended.tally.suspects.repeats)),
    Figure("not_photos", lambda run: run.place.not_photos),
    Figure(
        "errors",
        lambda run: {str(code): n for (_, code), n in sorted(run.ended.tally.codes.items())},
        log="errors",
    ),
    _tally(
        "enrolled_now",
        help="Rows that the last run enrolled.",
    ),
    _tally(
        "enrolled_before",
        help="Rows that were enrolled before the last run.",
    ),
    _tally("renewed"),
    _tally("bad"),
    _tally(
        "new_bad",
        help="Rows that are rejected, invalid, failed or held since the last run.",
    ),
    Figure(
        "calls",
        lambda run: by_kind(run.ended.tally.calls),
        help="Calls that the last run made.",
        label="kind",
        log="calls",
        sparse=True,
    ),
    _tally(
        "refused",
        help="Calls of the last run that were refused because of the account's limit.",
        log="refused",
    ),
    Figure(
        "refused_share",
        _refused_share,
        help="Share of the last run's calls that were refused because of the account's limit, 0 "
        "to 1.",
    ),
    Figure(
        "service_seconds_median",
        lambda run: _quantile(run.ended.tally.service_took, 0.5),
        help="Median of the service's time for the last run's adds.",
    ),
    Figure(
        "service_seconds_p95",
        lambda run: _quantile(run.ended.tally.service_took, 0.95),
        help="95th percentile of the service's time for the last run's adds.",
    ),
    Figure(
        "call_seconds_median",
        lambda run: _quantile(run.ended.tally.calls_took, 0.5),
        help="Median of the whole time of the last run's adds.",
    ),
    Figure(
        "call_seconds_p95",
        lambda run: _quantile(run.ended.tally.calls_took, 0.95),
        help="95th percentile of the whole time of the last run's adds.",
    ),
    Figure("in_flight", lambda run: run.gauge.limit, in_json=False, log="limit"),
    Figure(
        "limit",
        lambda run: run.gauge.ceiling,
        help="Calls at a time that the account takes, once found.",
        log="ceiling",
    ),
    Figure(
        "limit_per_second",
        lambda run: run.gauge.spacing,
        help="Calls a second that the account takes, if it limits those.",
        log="spacing",
    ),
    Figure("run_seconds", lambda run: round(run.seconds, 3), in_json=False, log="seconds"),
    Figure("run_ledger", lambda run: path_text(run.place.ledger), in_json=False, log="ledger"),
    Figure(
        "results",
        lambda run: None if run.results is None else path_text(run.results.absolute()),
        log="results",
    ),
    _tally(
        "adopted",
        help="Faces in doubt that the last run found in the library.",
        remark=lambda count, _: (
            f"{amount(count, 'face')} found in the library that the ledger did not know, for "
            "example after a lost answer: enrolled with the token from the library."
        ),
    ),
    _tally(
        "not_applied",
        remark=lambda count, _: (
            f"{amount(count, 'face')} in doubt not found in the library: not added by then, and "
            "due again."
        ),
    ),
    _tally(
        "surplus",
        help="Surplus copies of faces that the last run found in the library.",
        remark=lambda count, _: (
            f"{amount(count, 'further copy', 'further copies')} of a face found in the library: "
            "`enroll verify --remove-surplus` deletes them."
        ),
        urgent=True,
    ),
    _tally(
        "unchecked",
        in_json=False,
        remark=lambda count, _: (
            f"{amount(count, 'face')} sent again after a doubt, and not yet checked for a second "
            "copy: the next run checks, as does `enroll verify`."
        ),
    ),
    _tally(
        "user_data_changed",
        remark=lambda count, sync: (
            f"{amount(count, 'enrolled row')} whose user_data differs from the library's: left as "
            + (
                "enrolled, because another row has the same face, and its user_data."
                if sync
                else "enrolled, because the service cannot update it."
            )
        ),
    ),
    _tally(
        "gone",
        remark=lambda count, _: (
            f"{amount(count, 'enrolled row')} whose photo is no longer there: left as enrolled."
        ),
    ),
    _tally(
        "kept",
        remark=lambda count, sync: (
            f"{amount(count, 'row')} whose new {'photo or text' if sync else 'photo'} cannot be "
            "used: the face enrolled before stays."
        ),
    ),
    _tally(
        "undeleted",
        in_json=False,
        remark=lambda count, _: (
            f"It is not known whether {amount(count, 'face')} {'was' if count == 1 else 'were'} "
            "deleted: the next run or sync finds out."
        ),
    ),
    _tally(
        "behind",
        in_json=False,
        remark=lambda count, _: (
            f"{amount(count, 'person', 'people')} {'has' if count == 1 else 'have'} another "
            "user_data in the library than in the manifest, because a call of an earlier run had "
            "to be settled first: the next sync adds it."
        ),
    ),
    _tally(
        "superseded",
        remark=lambda count, sync: (
            ""
            if sync
            else f"{amount(count, 'older face')} superseded by new photos: still in the library, "
            "listed by `enroll export --status superseded`."
        ),
    ),
    _tally(
        "others_in_doubt",
        help="Faces in doubt that do not belong to the manifest.",
        remark=lambda count, _: (
            f"{amount(count, 'face')} of other manifests {'is' if count == 1 else 'are'} in doubt: "
            "listed by `enroll export --status in_doubt`, decided by `enroll resolve`."
        ),
        urgent=True,
    ),
    Figure("swapped", lambda run: len(run.ended.tally.swapped)),
    Figure("shared_photos", lambda run: run.ended.tally.shared),
    Figure(
        "unforgotten",
        lambda run: run.place.unforgotten,
        help="People that `enroll forget` has not completely forgotten.",
    ),
    Figure(
        "findings",
        lambda run: {kind.value: run.findings.get(kind, 0) for kind in FindingKind},
        help="What searches with photos have found wrong and nobody has accepted.",
        label="kind",
        of_ledger=True,
    ),
    Figure(
        "sync",
        lambda run: None if run.sync_result is None else run.sync_result.figures(),
        help="What the last sync found and did.",
        label="what",
        log="sync",
        optional=True,
    ),
    Figure(
        "doubtful",
        lambda run: {str(code): n for code, n in run.ended.tally.warnings.items()} or None,
        in_json=False,
        log="doubtful",
        optional=True,
    ),
    Figure(
        "on_record",
        _on_record,
        in_json=False,
        log="on_record",
        optional=True,
    ),
)
"""Figures that only a run has; None if the command started none. The summary's remarks have the
same order."""


def remarks(report: Report, *, urgent: bool = False) -> list[str]:
    """What the summary says of a run's figures that are not zero; only the `urgent` ones."""
    sync = report.sync_result is not None
    lines = []
    for figure in OF_RUN:
        count = figure.value(report)
        if urgent and not figure.urgent:
            continue
        if figure.remark and isinstance(count, int | float) and count:
            lines.append(figure.remark(int(count), sync))
    return [line for line in lines if line]


def log_fields(report: Report) -> dict[str, Any]:
    """A run's figures as fields of a log line."""
    fields: dict[str, Any] = {}
    for figure in OF_RUN:
        value = figure.value(report)
        if figure.sparse and isinstance(value, Mapping):
            value = {name: number for name, number in value.items() if number}
        if figure.log and not (figure.optional and value is None):
            fields[figure.log] = value
    return fields


def figures_of_run(ending: RunEnding) -> Iterator[tuple[Figure[Any], Value]]:
    """Every figure with its value."""
    for of_command in OF_COMMAND:
        yield of_command, of_command.value(ending)
    for figure in OF_RUN:
        if ending.report is not None:
            yield figure, figure.value(ending.report)
        else:
            yield figure, ending.counts if figure.name == "sync" else None


def in_json(ending: RunEnding) -> dict[str, Any]:
    """The figures that `--summary` has."""
    return plain(one for one in figures_of_run(ending) if one[0].in_json)
