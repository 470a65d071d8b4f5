"""`enroll plan`, `run` and `sync`: enroll a manifest, or show what that would do."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
    SettingsCommand,
    command_line_option,
    in_use,
    named_option,
    option,
    origins,
    together,
    typed,
    warnings,
)
from enroll.cli.options import setting
from enroll.cli.parameters import (
    FILE,
    BoundType,
    Duration,
    Number,
    RateOrTimetable,
    error_code,
    pairs,
)
from enroll.cli.printing import Figures, printing
from enroll.cli.signals import SignalDesk
from enroll.cli.terminal import credentials_reader, tame_pillow
from enroll.credentials import credentials_are_fixed
from enroll.settings import CodeRule, Lookalikes, RunSettings, SyncSettings
from enroll.text.logs import LastingStream, log, set_up
from enroll.text.wording import amount, as_shown, say, say_aside
from enroll.timetable import Timetable

if TYPE_CHECKING:
    from enroll.commands.plan_report import Plan
    from enroll.commands.run_closing import Report

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


def _calls(kind: type[RunSettings]) -> Callable[[F], F]:
    return together(
        options.connection,
        options.max_in_flight,
        options.rate("`run --dry-run` estimates the time with it."),
        setting("--attempts", "Maximum calls for a row in one run, not counting refused ones."),
        setting(
            "--give-up-after",
            "End when the service has been away for this long.",
            metavar="SECONDS",
            of=kind,
        ),
        setting(
            "--credentials-grace",
            "How long to wait for other credentials in the file once the service refuses those in "
            "use.",
            metavar="SECONDS",
        ),
        setting(
            "--drain", "How long to wait for calls in flight after a signal.", metavar="SECONDS"
        ),
        setting(
            "--settle-after",
            "How long after its signature expired the service may still apply a call.",
            metavar="SECONDS",
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


_work_done_by = together(
    setting(
        "--engine",
        "Who reads photos and makes calls: threads of this process, or workers of Dask, which has "
        "to be installed: pip install 'enroll[dask]'.",
    ),
    option(
        "--scheduler",
        default="local",
        show_default=True,
        metavar="local:N|tls://HOST:PORT",
        help="With --engine dask: start N worker processes here (local: one for each core), or "
        "connect to this scheduler.",
    ),
    heading=options.WORKERS,
)


def _rows(kind: type[RunSettings], dry_run: str) -> Callable[[F], F]:
    return together(
        options.retry,
        options.max_calls,
        option(
            "--max-duration",
            type=Duration(),
            metavar="SECONDS|6h|90m",
            help="End gracefully after this time: nothing more is sent, calls in flight may "
            "finish.",
        ),
        setting(
            "--fail-on", "Which bad rows lead to exit code 1: any, only new ones, none.", of=kind
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
        help="Where to write the results (.csv, .xlsx, .jsonl or .parquet), or none.  [default: "
        "MANIFEST with .results.csv for its suffix]",
    ),
    named_option("--summary", type=FILE, help="Write the run's figures to this file, as JSON."),
    named_option(
        "--metrics-file",
        type=FILE,
        help="Write the run's figures to this file as metrics, for node_exporter's textfile "
        "collector.",
    ),
    named_option(
        "--ping",
        metavar="URL",
        help="Get URL/start when the run begins, and URL, or URL/EXIT_CODE on failure, when it has "
        "ended, for a monitor such as healthchecks.io.",
    ),
    named_option(
        "--after",
        metavar="COMMAND",
        help="Run this command when the run has ended, with its figures as JSON on standard input.",
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
    option("--quiet", is_flag=True, help="Print only what needs attention."),
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


def _enrolling(
    kind: type[RunSettings], further: Callable[[F], F], *, dry_run: str
) -> Callable[[F], F]:
    """The options of a command that enrolls, with its `further` ones and its defaults."""
    return together(
        options.manifest,
        options.library,
        options.manifest_options,
        further,
        _rows(kind, dry_run),
        _calls(kind),
        options.photos,
        _work_done_by,
        _output,
    )


@click.command(cls=SettingsCommand)
@options.manifest
@options.library
@options.manifest_options
@options.photos
@options.retry
@options.max_in_flight
@option(
    "--rate",
    type=RateOrTimetable(),
    metavar="CALLS_PER_SECOND|TIMETABLE",
    help="Rate for estimating the time; of a timetable its mean.  [default: the last run's]",
)
@option("--full", is_flag=True, help="Read and prepare every due photo, as for a call.")
@setting(
    "--sample",
    "Read and prepare N of the due photos, drawn at random from the whole manifest, and "
    "estimate the totals for all of them.",
    metavar="N",
)
@options.seed
@named_option(
    "--report",
    type=FILE,
    help="Write what is done to each photo to this file (.csv, .xlsx, .jsonl or .parquet).",
)
@named_option(
    "--orphans",
    type=FILE,
    help="Write the photos that no row uses to this file (.csv, .xlsx, .jsonl or .parquet).",
)
@named_option(
    "--duplicates",
    type=FILE,
    help="Write the rows that have the same photo as others to this file (.csv, .xlsx, .jsonl or "
    ".parquet).",
)
@options.as_json
@options.summary
@click.pass_context
def plan(
    ctx: click.Context,
    /,
    manifest: Path,
    rate: float | Timetable | None,
    full: bool,
    report: Path | None,
    orphans: Path | None,
    duplicates: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Show what `run` would do with MANIFEST. Makes no calls, writes nothing but --report,
    --orphans, --duplicates and --summary."""
    desk = SignalDesk(holding=True)
    from enroll.report.outcome import check_summary, of_run_settings

    if full and given["sample"] is not None:
        raise click.UsageError("Give only one of --full and --sample.", ctx=ctx)
    settings = _settings(ctx, manifest, given, RunSettings)
    tables = {"report": report, "orphans": orphans, "duplicates": duplicates}
    about, summary = of_run_settings(settings, command="plan"), given["summary"]
    others = {f"the {name}": path for name, path in tables.items()}
    check_summary(summary, settings, about, others=others)
    figures = Figures.of(about, summary=summary)
    desk.ready()
    planned = _planned(settings, rate, full=full, **tables)
    if not as_json:
        _print_plan(settings, planned)
    return figures.end(planned)


def _planned(settings: RunSettings, rate: float | Timetable | None, **given: Any) -> Plan:
    from enroll.commands.plan import make_plan

    tame_pillow()
    return make_plan(settings, rate=rate, say=say_aside, **given)


def _print_plan(settings: RunSettings, planned: Plan) -> None:
    from enroll.commands.plan_report import plan_lines

    lines = plan_lines(planned)
    if settings.create_library:
        lines += [
            "",
            f"The library {settings.group_id} would be created if the account does not have it.",
        ]
    with printing():
        say(*lines)


_part = together(
    setting("--limit", "Process at most N due rows.", metavar="N"),
    setting(
        "--sample",
        "A trial: process N of the due rows, drawn at random from the whole manifest, and estimate "
        "the totals for all of them.",
        metavar="N",
    ),
    options.seed,
    heading=options.ROWS,
)
"""Options that choose a part of what is due."""


@click.command(cls=SettingsCommand)
@_enrolling(RunSettings, _part, dry_run="The same as `enroll plan`.")
@click.pass_context
def run(ctx: click.Context, /, manifest: Path, dry_run: bool, **given: Any) -> int:
    """Enroll every row of MANIFEST that is not enrolled yet.

    MANIFEST is a list (.csv or .xlsx) with the columns user_id, user_data and image (a photo's
    path), or a folder or ZIP archive of photos. Run the same command again to continue after an
    interruption, or when something has changed.
    """
    settings = _settings(ctx, manifest, given, RunSettings)
    if dry_run:
        _print_plan(settings, _planned(settings, given["rate"]))
        return 0
    desk = SignalDesk(holding=True)
    from enroll.commands.run import enroll_manifest

    return _perform(ctx, settings, given, desk=desk, enroll=enroll_manifest)


def _bound(name: str, default: str, text: str) -> Callable[[F], F]:
    return option(
        name, type=BoundType(), default=default, show_default=True, metavar="N|P%", help=text
    )


_guards = together(
    _bound(
        "--max-removals",
        "1%",
        "How many people may be removed, and how many may be absent for the first time: a "
        "number, or a share of those in the library, at least 10.",
    ),
    _bound(
        "--max-changes",
        "10%",
        "How many faces may be added or replaced: a number, or a share of the people in the "
        "library, at least 100; no limit on a first sync.",
    ),
    _bound(
        "--max-missing",
        "10%",
        "How many photos may be missing: a number, or a share of the manifest's rows.",
    ),
    setting(
        "--grace",
        "Remove people only after they have been absent for this long.",
        metavar="DAYS",
        of=SyncSettings,
    ),
    named_option(
        "--differences",
        type=FILE,
        help="Write the differences to this file (.csv, .xlsx, .jsonl or .parquet), one line "
        "for each row or face.",
    ),
    heading="How much may change",
)


@click.command(cls=SettingsCommand)
@_enrolling(SyncSettings, _guards, dry_run="Print the differences; make no calls.")
@click.pass_context
def sync(ctx: click.Context, /, manifest: Path, dry_run: bool, **given: Any) -> int:
    """Make the library match MANIFEST.

    New rows are added. If a photo or user_data changed, the new face is added before the old one is
    deleted. People who are no longer in MANIFEST are removed. Faces that the ledger does not know
    are never touched. A difference that is too large is refused with exit code 8, and nothing is
    done.
    """
    settings = _settings(ctx, manifest, given, SyncSettings)
    show = given["show_user_ids"]
    if dry_run:
        return _print_difference(settings, show_user_ids=show)
    desk = SignalDesk(holding=True)
    from enroll.commands.sync import sync_manifest

    enroll = partial(sync_manifest, show_user_ids=show)
    return _perform(ctx, settings, given, desk=desk, enroll=enroll)


def _print_difference(settings: SyncSettings, *, show_user_ids: bool) -> int:
    from enroll.commands.sync_compare import preview
    from enroll.commands.sync_guards import difference_lines, strange_lines

    tame_pillow()
    for found in preview(settings, show_user_ids=show_user_ids):
        with printing():
            say(f"How {settings.manifest} differs from the ledger. No calls were made.")
            say(*(f"Note: {note}" for note in found.notes))
            say(*difference_lines(found.counted), *strange_lines(found))
            if settings.lookalikes is not Lookalikes.OFF:
                photos = amount(found.counted.compared, "photo")
                say(f"The library would be searched for people who look like {photos}.")
            if settings.differences is not None:
                say(f"The differences are in {settings.differences}.")
    return 0


_WRITTEN = {
    "log_file": "the log file",
    "summary": "the summary",
    "metrics_file": "the metrics",
    "differences": "the differences",
}
"""Files that are written besides the results, which must not replace them."""


def _settings(ctx: click.Context, manifest: Path, given: Mapping[str, Any], kind: type[S]) -> S:
    results = given.get("results")
    taken = {name: value for name, value in given.items() if name in kind.__dataclass_fields__}
    if not given["group_id"] and "results" in given:
        raise click.UsageError(GROUP_ID_NEEDED, ctx=ctx)
    if taken["min_face"] and taken["precheck"] == "off":
        if typed(ctx, "min_face"):
            raise click.UsageError(MIN_FACE_ALONE, ctx=ctx)
        taken["min_face"] = 0  # a file that serves several commands, or runs of several kinds
    if credentials_are_fixed(given.get("credentials"), os.environ):
        taken["credentials_grace"] = 0.0
    written = {what: given[name] for name, what in _WRITTEN.items() if given.get(name)}
    taken |= {
        "group_id": given["group_id"] or "",
        "results": None if results == NOWHERE else results,
        "write_results": results != NOWHERE,
        "origins": origins(ctx),
        "in_use": in_use(given.get("credentials"), ca_bundle=given.get("ca_bundle")) | written,
        "written": written,
    }
    return kind(manifest=manifest, **taken)


def _perform(
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
    from enroll.report.notifying import Notifications
    from enroll.report.publishing import Publications, publishing

    publications = Publications(
        summary=given["summary"],
        metrics=given["metrics_file"],
        log=given["log_file"],
        notifications=Notifications(
            ping=given["ping"], after=given["after"], environment=os.environ
        ),
    )
    publications.check(settings)
    stream = LastingStream(sys.stderr)
    as_json = given["log_format"] == "json"
    set_up(stream=stream, as_json=as_json, file=given["log_file"], quiet=given["quiet"])
    for warning in warnings(ctx):
        log("warning", f"Warning: {warning}", {}, level=logging.WARNING)
    act = partial(_run, settings, stream, desk, given, enroll)
    return publishing(settings, publications, act).exit_code


def _run(
    settings: RunSettings,
    stream: LastingStream,
    desk: SignalDesk,
    given: Mapping[str, Any],
    enroll: Callable[..., Report],
    on_record: Callable[[], None],
) -> Report:
    desk.ready()
    from enroll.report.console import Console
    from enroll.report.summary import log_summary, needs_a_person, summary_lines, urgent_lines
    from enroll.threads import OneCore

    tame_pillow()
    quiet, as_json = given["quiet"], given["log_format"] == "json"
    show_user_ids = given["show_user_ids"]

    def opened(interrupt: Callable[[int], None]) -> None:
        desk.soften(interrupt)
        on_record()

    console = Console(
        settings,
        stream,
        progress=given["progress"],
        stats=given["stats"],
        quiet=quiet,
        as_json=as_json,
        show_user_ids=show_user_ids,
        on_opened=opened,
    )
    try:
        report = enroll(
            settings, credentials_reader(given["credentials"]), screen=console, core=OneCore()
        )
    except Exception:
        desk.ready()  # a signal may have become this error while a module was loading
        raise
    log_summary(report, urgent=as_json and needs_a_person(report))
    if as_json:
        return report
    if quiet and report.exit_code == 0:
        lines = urgent_lines(report, show_user_ids=show_user_ids)
    else:
        lines = summary_lines(report, show_user_ids=show_user_ids, brief=quiet)
    LastingStream(sys.stdout).write(as_shown(lines, sys.stdout))
    return report
