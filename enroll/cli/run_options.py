"""What `enroll run` and `enroll sync` share: options, settings, and how they are carried out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from enroll.allowed import (
    GROUP_ID_NEEDED,
    MAX_WAIT_SECONDS,
    MIN_FACE_ALONE,
    Range,
    wrong_choice,
)
from enroll.cli import options
from enroll.cli.command import (
    F,
    command_line_option,
    in_use,
    named_option,
    option,
    origins,
    together,
    typed,
    warnings,
)
from enroll.cli.parameters import FILE, Duration, Member, Number, error_code, number_of, pairs
from enroll.cli.signals import SignalDesk
from enroll.cli.terminal import credentials_reader, tame_pillow
from enroll.expiry import DEFAULT_SETTLE_AFTER
from enroll.settings import CodeRule, FailOn, RunSettings
from enroll.text.logs import LastingStream, log, set_up
from enroll.text.wording import as_shown

if TYPE_CHECKING:
    from enroll.commands.run_closing import Report
    from enroll.report.publishing import Publications

S = TypeVar("S", bound=RunSettings)

NOWHERE = Path("none")
"""The value of --results that writes none."""


def _code_rules(
    ctx: click.Context, parameter: click.Parameter, value: Sequence[str]
) -> dict[str, CodeRule]:
    from enroll.facesearch.answers import why_fixed

    rules = {}
    for code, rule in pairs(ctx, parameter, value).items():
        if wrong := wrong_choice(rule, CodeRule) or why_fixed(error_code(code)):
            raise click.BadParameter(wrong)
        rules[code] = CodeRule(rule)
    return rules


def _choose_log_format(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Runs before the other options are read, so that errors in them are logged in this format."""
    if not ctx.resilient_parsing:
        stream = LastingStream(sys.stderr)
        set_up(stream=stream, as_json=value == "json", file=None, quiet=False)
    return value


def _calls(give_up_after: float) -> Callable[[F], F]:
    return together(
        options.connection,
        options.max_in_flight,
        option(
            "--rate",
            type=number_of("rate"),
            metavar="CALLS_PER_SECOND",
            help="Send no more calls a second. `run --dry-run` estimates the time with it.",
        ),
        option(
            "--attempts",
            type=number_of("attempts"),
            default=5,
            show_default=True,
            help="Maximum calls for a row in one run, not counting refused ones.",
        ),
        option(
            "--give-up-after",
            type=number_of("give_up_after"),
            default=give_up_after,
            show_default=True,
            metavar="SECONDS",
            help="End when the service has been away for this long.",
        ),
        option(
            "--drain",
            type=number_of("drain"),
            default=25.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for calls in flight after a signal.",
        ),
        option(
            "--settle-after",
            type=number_of("settle_after"),
            default=DEFAULT_SETTLE_AFTER,
            show_default=True,
            metavar="SECONDS",
            help="How long after its signature expired the service may still apply a call.",
        ),
        option(
            "--on-code",
            multiple=True,
            callback=_code_rules,
            metavar="CODE=RULE",
            help="How to handle a code of the service: reject, retry or stop; repeatable.",
        ),
        heading=options.CALLS,
    )


def _rows(fail_on: FailOn, dry_run: str) -> Callable[[F], F]:
    return together(
        options.retry,
        option(
            "--max-calls",
            type=number_of("max_calls"),
            metavar="N",
            help="Make at most N calls of any kind, then end.",
        ),
        option(
            "--max-duration",
            type=Duration(),
            metavar="SECONDS|6h|90m",
            help="End gracefully after this time: nothing more is sent, calls in flight may end.",
        ),
        option(
            "--fail-on",
            type=Member(FailOn),
            default=fail_on.value,
            show_default=True,
            help="Which bad rows lead to exit code 1: any, only new ones, none.",
        ),
        command_line_option("--dry-run", is_flag=True, help=dry_run),
        command_line_option(
            "--allow-nonempty",
            is_flag=True,
            help="Enroll into a library that holds faces although the ledger knows none.",
        ),
        command_line_option(
            "--create-library",
            is_flag=True,
            help="Create the library first, if the account does not have it.",
        ),
        heading=options.ROWS,
    )


_output = together(
    named_option(
        "--results",
        type=FILE,
        metavar="FILE",
        help="Where to write the results; none for nowhere.  [default: MANIFEST with "
        ".results.csv for its suffix]",
    ),
    named_option("--summary", type=FILE, help="Write the run's figures to this file, as JSON."),
    named_option(
        "--metrics-file",
        type=FILE,
        help="Write the run's figures to this file as metrics, for node_exporter's textfile "
        "collector.",
    ),
    option("--progress/--no-progress", default=None, help="Show a bar.  [default: on a terminal]"),
    option(
        "--stats",
        type=Number(Range(least=1, most=MAX_WAIT_SECONDS)),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="Without a bar: print a progress line this often.",
    ),
    option("--quiet", is_flag=True, help="Print only what needs a person."),
    option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        is_eager=True,
        callback=_choose_log_format,
        help="Write log lines as text, or as one JSON object a line.",
    ),
    named_option("--log-file", type=FILE, help="Also append every log line to this file."),
    options.show_user_ids,
    heading=options.OUTPUT,
)


def run_options(
    *further: Callable[[F], F],
    give_up_after: float,
    fail_on: FailOn,
    dry_run: str,
) -> Callable[[F], F]:
    """The options of a command that enrolls, with its `further` ones and its defaults."""
    return together(
        options.manifest,
        options.library,
        options.manifest_options,
        *further,
        _rows(fail_on, dry_run),
        _calls(give_up_after),
        options.photos,
        _output,
    )


_WRITTEN = {
    "log_file": "the log file",
    "summary": "the summary",
    "metrics_file": "the metrics",
    "differences": "the differences",
}
"""Files that are written besides the results, which must not replace them."""


def settings_of(ctx: click.Context, manifest: Path, given: Mapping[str, Any], kind: type[S]) -> S:
    results = given.get("results")
    names = kind.__dataclass_fields__
    taken = {name: value for name, value in given.items() if name in names}
    if not given["group_id"] and "results" in given:
        raise click.UsageError(GROUP_ID_NEEDED, ctx=ctx)
    if taken["min_face"] and taken["precheck"] == "off":
        if typed(ctx, "min_face"):
            raise click.UsageError(MIN_FACE_ALONE, ctx=ctx)
        taken["min_face"] = 0  # a file that serves several commands, or runs of several kinds
    taken |= {
        "group_id": given["group_id"] or "",
        "results": None if results == NOWHERE else results,
        "write_results": results != NOWHERE,
        "origins": origins(ctx),
        "in_use": in_use(given.get("credentials"), ca_bundle=given.get("ca_bundle")),
    }
    taken["written"] = {what: given[name] for name, what in _WRITTEN.items() if given.get(name)}
    taken["in_use"] |= taken["written"]
    return kind(manifest=manifest, **taken)


def _publications(settings: RunSettings, given: Mapping[str, Any]) -> Publications:
    """Where figures and log go. Raises UsageError for a file that must not be overwritten."""
    from enroll.report.publishing import Publications

    where = Publications(
        summary=given["summary"], metrics=given["metrics_file"], log=given["log_file"]
    )
    where.check(settings)
    return where


def perform(
    ctx: click.Context,
    settings: RunSettings,
    given: Mapping[str, Any],
    *,
    desk: SignalDesk,
    enroll: Callable[..., Report],
) -> int:
    """Set up logging, enroll, and print and write the outcome; returns the exit code.

    `desk` was created before anything large was loaded: it holds a signal back until the figures of
    an interrupted run can be written.
    """
    from enroll.report.publishing import publishing

    stream = LastingStream(sys.stderr)
    as_json = given["log_format"] == "json"
    publications = _publications(settings, given)
    set_up(stream=stream, as_json=as_json, file=given["log_file"], quiet=given["quiet"])
    for warning in warnings(ctx):
        log("warning", f"Warning: {warning}", {}, level=logging.WARNING)
    with publishing(settings, publications) as outcome:
        desk.ready()
        report = outcome.report = _run(settings, stream, desk, given, enroll, as_json=as_json)
    return report.exit_code


def _run(
    settings: RunSettings,
    stream: LastingStream,
    desk: SignalDesk,
    given: Mapping[str, Any],
    enroll: Callable[..., Report],
    *,
    as_json: bool,
) -> Report:
    from enroll.report.console import Console
    from enroll.report.summary import log_summary, needs_a_person, summary_lines, urgent_lines
    from enroll.threads import OneCore

    tame_pillow()
    console = Console(
        settings,
        stream,
        progress=given["progress"],
        stats=given["stats"],
        quiet=given["quiet"],
        as_json=as_json,
        show_user_ids=given["show_user_ids"],
        on_opened=desk.soften,
    )
    report = enroll(
        settings,
        credentials_reader(given["credentials"]),
        screen=console,
        core=OneCore(),
    )
    log_summary(report, urgent=as_json and needs_a_person(report))
    if not as_json:
        well = given["quiet"] and report.exit_code == 0
        told = urgent_lines if well else summary_lines
        lines = told(report, show_user_ids=given["show_user_ids"])
        LastingStream(sys.stdout).write(as_shown(lines, sys.stdout))
    return report
