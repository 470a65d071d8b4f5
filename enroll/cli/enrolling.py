"""`enroll plan` and `enroll run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enroll.cli import options, reading
from enroll.cli.running import (
    partial_options,
    perform,
    reading_options,
    run_options,
    seed,
    settings_of,
)
from enroll.settings import FailOn, RunSettings
from enroll.text.wording import say

if TYPE_CHECKING:
    from enroll.commands.run_closing import Report

_rate = click.option(
    "--rate",
    type=options.number_of("rate"),
    metavar="CALLS_PER_SECOND",
    help="Rate for the estimate of the time.  [default: the last run's]",
)


@click.command(cls=options.SettingsCommand)
@reading.manifest
@reading_options
@reading.send_as
@_rate
@click.option(
    "--full", is_flag=True, help="Read and prepare every photo that is due, as for a call."
)
@click.option(
    "--sample",
    type=options.number_of("sample"),
    metavar="N",
    help="Read and prepare N of the due photos, drawn from the whole manifest, and reckon what all "
    "of them would come to.",
)
@seed
@options.named_option(
    "--report", type=options.FILE, help="Write what is done to each photo to this CSV."
)
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
    """Tell what `run` would do with MANIFEST. Calls nothing, writes nothing but --report."""
    if full and given["sample"] is not None:
        raise click.UsageError("Say one of --full and --sample.", ctx=ctx)
    return _print_plan(
        settings_of(ctx, manifest, given, RunSettings), rate, full=full, report=report
    )


def _print_plan(
    settings: RunSettings, rate: float | None, *, full: bool = False, report: Path | None = None
) -> int:
    from enroll.commands.plan import make_plan
    from enroll.commands.plan_text import plan_lines

    reading.tame_pillow()
    lines = plan_lines(make_plan(settings, rate=rate, full=full, report=report))
    if settings.create_library:
        lines += [
            "",
            f"The library {settings.group_id} would be made if the account has none such.",
        ]
    with options.printing():
        say(*lines)
    return 0


@click.command(cls=options.SettingsCommand)
@run_options(
    give_up_after=7200.0,
    fail_on=FailOn.ANY,
    dry_run="The same as `enroll plan`.",
    partial=partial_options,
)
@click.pass_context
def run(ctx: click.Context, /, manifest: Path, dry_run: bool, **given: Any) -> int:
    """Enroll every row of MANIFEST that is not enrolled yet.

    MANIFEST is a CSV with the columns user_id, user_data and image (a photo's path). Run the
    same command again to go on after an interruption, or with what has changed since.
    """
    settings = settings_of(ctx, manifest, given, RunSettings)
    if dry_run:
        return _print_plan(settings, given["rate"])
    return perform(ctx, settings, given, _enrolling)


def _enrolling() -> Callable[..., Report]:
    from enroll.commands.run import enroll_manifest

    return enroll_manifest
