"""`enroll run`: enroll every row of a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from enroll.cli import options
from enroll.cli.command import SettingsCommand, option, together
from enroll.cli.parameters import number_of
from enroll.cli.plan import print_plan
from enroll.cli.run_options import perform, run_options, settings_of
from enroll.cli.signals import SignalDesk
from enroll.settings import FailOn, RunSettings

_part = together(
    option("--limit", type=number_of("limit"), metavar="N", help="Process at most N due rows."),
    option(
        "--sample",
        type=number_of("sample"),
        metavar="N",
        help="A trial: process N of the due rows, drawn at random from the whole manifest, and "
        "estimate the totals for all of them.",
    ),
    options.seed,
    heading=options.ROWS,
)
"""Options that choose a part of what is due."""


@click.command(cls=SettingsCommand)
@run_options(
    _part,
    give_up_after=7200.0,
    fail_on=FailOn.ANY,
    dry_run="The same as `enroll plan`.",
)
@click.pass_context
def run(ctx: click.Context, /, manifest: Path, dry_run: bool, **given: Any) -> int:
    """Enroll every row of MANIFEST that is not enrolled yet.

    MANIFEST is a CSV with the columns user_id, user_data and image (a photo's path). Run the
    same command again to go on after an interruption, or with what has changed since.
    """
    settings = settings_of(ctx, manifest, given, RunSettings)
    if dry_run:
        return print_plan(settings, given["rate"])
    desk = SignalDesk(holding=True)
    from enroll.commands.run import enroll_manifest

    return perform(ctx, settings, given, desk=desk, enroll=enroll_manifest)
