"""`enroll plan`: what a run would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from enroll.cli import options
from enroll.cli.command import SettingsCommand, named_option, option
from enroll.cli.parameters import FILE, number_of
from enroll.cli.run_options import settings_of
from enroll.cli.terminal import printing, tame_pillow
from enroll.settings import RunSettings
from enroll.text.wording import say

_rate = option(
    "--rate",
    type=number_of("rate"),
    metavar="CALLS_PER_SECOND",
    help="Rate for estimating the time.  [default: the last run's]",
)


@click.command(cls=SettingsCommand)
@options.manifest
@options.library
@options.manifest_options
@options.photos
@options.retry
@options.max_in_flight
@_rate
@option("--full", is_flag=True, help="Read and prepare every due photo, as for a call.")
@option(
    "--sample",
    type=number_of("sample"),
    metavar="N",
    help="Read and prepare N of the due photos, drawn at random from the whole manifest, and "
    "estimate the totals for all of them.",
)
@options.seed
@named_option("--report", type=FILE, help="Write what is done to each photo to this CSV.")
@click.pass_context
def plan(
    ctx: click.Context,
    /,
    manifest: Path,
    rate: float | None,
    full: bool,
    report: Path | None,
    **given: Any,
) -> int:
    """Show what `run` would do with MANIFEST. Makes no calls, writes nothing but --report."""
    if full and given["sample"] is not None:
        raise click.UsageError("Give only one of --full and --sample.", ctx=ctx)
    return print_plan(
        settings_of(ctx, manifest, given, RunSettings), rate, full=full, report=report
    )


def print_plan(
    settings: RunSettings, rate: float | None, *, full: bool = False, report: Path | None = None
) -> int:
    from enroll.commands.plan import make_plan
    from enroll.commands.plan_text import plan_lines

    tame_pillow()
    lines = plan_lines(make_plan(settings, rate=rate, full=full, report=report))
    if settings.create_library:
        lines += [
            "",
            f"The library {settings.group_id} would be created if the account does not have it.",
        ]
    with printing():
        say(*lines)
    return 0
