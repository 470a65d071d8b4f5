"""What `enroll run` and `enroll sync` have in common: options, settings, and what is shown."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from enroll.allowed import (
    GROUP_ID_NEEDED,
    LONGEST_WAIT_SECONDS,
    MIN_FACE_ALONE,
    Range,
    wrong_choice,
)
from enroll.cli import options, reading, scheduled
from enroll.cli.signals import SignalDesk
from enroll.credentials import read_credentials
from enroll.settings import CodeRule, FailOn, RunSettings
from enroll.text.logs import LastingStream, log, set_up
from enroll.text.wording import as_shown

if TYPE_CHECKING:
    from enroll.commands.run_closing import Report

S = TypeVar("S", bound=RunSettings)

NOWHERE = Path("none")
"""The --results that writes none."""


def _code_rules(
    ctx: click.Context, parameter: click.Parameter, value: Sequence[str]
) -> dict[str, CodeRule]:
    rules = {}
    for code, rule in reading.pairs(ctx, parameter, value).items():
        if wrong := wrong_choice(rule, CodeRule):
            raise click.BadParameter(wrong)
        rules[_overrulable(code)] = CodeRule(rule)
    return rules


def _overrulable(code: str) -> str:
    from enroll.facesearch.answers import why_fixed

    if reason := why_fixed(reading.error_code(code)):
        raise click.BadParameter(reason)
    return code


def _codes(ctx: click.Context, parameter: click.Parameter, value: Sequence[str]) -> frozenset[str]:
    return frozenset(reading.error_code(code) for text in value for code in text.split(","))


def _choose_log_format(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Before the other options are looked at, so that what is wrong with them is said in it."""
    if not ctx.resilient_parsing:
        stream = LastingStream(sys.stderr)
        set_up(stream=stream, as_json=value == "json", file=None, quiet=False)
    return value


reading_options = options.together(
    options.config,
    options.group_id,
    options.endpoint,
    options.ledger,
    reading.manifest_options,
    reading.max_in_flight,
    reading.multi_oriented_detection,
    reading.preparing,
    reading.prechecking,
    options.command_line_option(
        "--retry",
        multiple=True,
        callback=_codes,
        metavar="CODE,…",
        help="Try rows again that ended with one of these error codes; repeatable.",
    ),
    click.option("--checksum", is_flag=True, help="Read every photo, also unchanged ones."),
    reading.readers,
)

seed = click.option(
    "--seed",
    type=options.number_of("seed"),
    default=0,
    show_default=True,
    metavar="S",
    help="Which rows --sample draws: the same ones for the same number.",
)

partial_options = (
    click.option(
        "--limit", type=options.number_of("limit"), metavar="N", help="Take up at most N due rows."
    ),
    click.option(
        "--sample",
        type=options.number_of("sample"),
        metavar="N",
        help="A trial: take up N of the due rows, drawn from the whole manifest, and reckon what "
        "all of them would come to.",
    ),
    seed,
)
"""For a part of what is due."""

_bounding_rate = click.option(
    "--rate",
    type=options.number_of("rate"),
    metavar="CALLS_PER_SECOND",
    help="Let no more calls leave per second. `run --dry-run` estimates the time with it.",
)


def run_options(
    *further: Callable[[options.F], options.F],
    give_up_after: float,
    fail_on: FailOn,
    dry_run: str,
    partial: Sequence[Callable[[options.F], options.F]] = (),
) -> Callable[[options.F], options.F]:
    """The options of a command that enrolls, with its `further` ones, and its defaults."""
    return options.together(
        reading.manifest,
        reading_options,
        *further,
        options.named_option(
            "--results",
            type=options.FILE,
            metavar="FILE",
            help="Where the results go; none writes none.  [default: MANIFEST with .results.csv "
            "for its suffix]",
        ),
        options.credentials,
        options.transport,
        click.option(
            "--attempts",
            type=options.number_of("attempts"),
            default=5,
            show_default=True,
            help="Calls for a row in one run, refused ones not counted.",
        ),
        click.option(
            "--give-up-after",
            type=options.number_of("give_up_after"),
            default=give_up_after,
            show_default=True,
            metavar="SECONDS",
            help="End when the service could not be reached for so long.",
        ),
        click.option(
            "--drain",
            type=options.number_of("drain"),
            default=25.0,
            show_default=True,
            metavar="SECONDS",
            help="How long calls in flight may take to end after a signal.",
        ),
        click.option(
            "--settle-after",
            type=options.number_of("settle_after"),
            default=10.0,
            show_default=True,
            metavar="SECONDS",
            help="How long after its signature's expiry a call may still be applied by the "
            "service.",
        ),
        reading.send_as,
        *partial,
        click.option(
            "--max-calls",
            type=options.number_of("max_calls"),
            metavar="N",
            help="Make at most N calls of any kind, then end.",
        ),
        scheduled.max_duration,
        click.option(
            "--on-code",
            multiple=True,
            callback=_code_rules,
            metavar="CODE=RULE",
            help="What to do about a service's code: reject, retry or stop; repeatable.",
        ),
        click.option(
            "--fail-on",
            type=options.Member(FailOn),
            default=fail_on.value,
            show_default=True,
            help="Which bad rows make exit code 1: any, only new ones, none.",
        ),
        options.command_line_option("--dry-run", is_flag=True, help=dry_run),
        options.command_line_option(
            "--allow-nonempty",
            is_flag=True,
            help="Add to a library that holds faces which the ledger does not know.",
        ),
        options.command_line_option(
            "--create-library",
            is_flag=True,
            help="Make the library first, if the account has none such.",
        ),
        click.option(
            "--progress/--no-progress", default=None, help="Show a bar.  [default: on a terminal]"
        ),
        click.option(
            "--stats",
            type=options.Number(Range(least=1, most=LONGEST_WAIT_SECONDS)),
            default=60.0,
            show_default=True,
            metavar="SECONDS",
            help="Without a bar: how often a line tells how far it is.",
        ),
        scheduled.quiet,
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            is_eager=True,
            callback=_choose_log_format,
            help="Log lines for people, or one JSON object a line.",
        ),
        options.named_option(
            "--log-file", type=options.FILE, help="Write every log line to this file, too."
        ),
        scheduled.figures,
        options.show_user_ids,
        _bounding_rate,
    )


def settings_of(ctx: click.Context, manifest: Path, given: Mapping[str, Any], kind: type[S]) -> S:
    results = given.get("results")
    names = kind.__dataclass_fields__
    taken = {name: value for name, value in given.items() if name in names}
    if not given["group_id"] and "results" in given:
        raise click.UsageError(GROUP_ID_NEEDED, ctx=ctx)
    if taken["min_face"] and taken["precheck"] == "off":
        if options.typed(ctx, "min_face"):
            raise click.UsageError(MIN_FACE_ALONE, ctx=ctx)
        taken["min_face"] = 0  # a file that serves several commands, or runs of several kinds
    taken |= {
        "group_id": given["group_id"] or "",
        "results": None if results == NOWHERE else results,
        "write_results": results != NOWHERE,
        "origins": options.origins(ctx),
        "in_use": options.in_use(given.get("credentials"), ca_bundle=given.get("ca_bundle")),
    }
    taken["written"] = scheduled.written(given)
    taken["in_use"] |= taken["written"]
    return kind(manifest=manifest, **taken)


def perform(
    ctx: click.Context,
    settings: RunSettings,
    given: Mapping[str, Any],
    load: Callable[[], Callable[..., Report]],
) -> int:
    """Set signals and log lines up, enroll, and print and write how that went; the exit code.

    `load` gives what enrolls: a signal must find us ready before anything large is loaded, and
    is answered when the figures of an interrupted run can be written.
    """
    desk = SignalDesk(holding=True)
    enroll = load()
    from enroll.report.publishing import publishing

    stream = LastingStream(sys.stderr)
    as_json = given["log_format"] == "json"
    publications = scheduled.publications(settings, given)
    set_up(stream=stream, as_json=as_json, file=given["log_file"], quiet=given["quiet"])
    for warning in options.warnings(ctx):
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
    from enroll.engine.threads import OneCore
    from enroll.report.console import Console
    from enroll.report.summary import log_summary, needs_a_person, summary_lines, urgent_lines

    reading.tame_pillow()
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
    credentials: Path | None = given["credentials"]
    report = enroll(
        settings,
        lambda: read_credentials(credentials, os.environ),
        screen=console,
        core=OneCore(),
    )
    log_summary(report, urgent=as_json and needs_a_person(report))
    if not as_json:
        well = given["quiet"] and report.exit_code == 0
        told = urgent_lines if well else summary_lines
        lines = told(report, show_user_ids=given["show_user_ids"])
        LastingStream(sys.stdout).write(as_shown(lines))
    return report
