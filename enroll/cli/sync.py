"""`enroll sync`: make the library match a manifest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from enroll.cli.command import SettingsCommand, named_option, option, together
from enroll.cli.parameters import FILE, BoundType, number_of
from enroll.cli.run_options import perform, run_options, settings_of
from enroll.cli.signals import SignalDesk
from enroll.cli.terminal import printing, tame_pillow
from enroll.settings import FailOn, SyncSettings
from enroll.text.wording import say


def _bound(name: str, default: str, text: str) -> Any:
    return option(
        name, type=BoundType(), default=default, show_default=True, metavar="N|P%", help=text
    )


_guards = together(
    _bound(
        "--max-removals",
        "1%",
        "How many people may be removed, and how many may be missing for the first time: a "
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
    option(
        "--grace",
        type=number_of("grace"),
        default=2.0,
        show_default=True,
        metavar="DAYS",
        help="Remove people only after they have been missing for this long.",
    ),
    named_option(
        "--differences",
        type=FILE,
        help="Write the differences to this CSV, one line for each row or face.",
    ),
    heading="What may differ",
)


@click.command(cls=SettingsCommand)
@run_options(
    _guards,
    give_up_after=600.0,
    fail_on=FailOn.NEW,
    dry_run="Print the differences, and call nothing.",
)
@click.pass_context
def sync(ctx: click.Context, /, manifest: Path, dry_run: bool, **given: Any) -> int:
    """Make the library match MANIFEST, for the people that the ledger knows.

    New rows are added. If a photo or user_data changed, the new face is added before the old one is
    deleted. People who are no longer in MANIFEST are removed. Faces that the ledger does not know
    are never touched. A difference that is too large is refused with exit code 8, and nothing is
    done.
    """
    settings = settings_of(ctx, manifest, given, SyncSettings)
    show = given["show_user_ids"]
    if dry_run:
        return _print_difference(settings, show_user_ids=show)
    desk = SignalDesk(holding=True)
    from enroll.commands.sync import sync_manifest

    return perform(
        ctx, settings, given, desk=desk, enroll=partial(sync_manifest, show_user_ids=show)
    )


def _print_difference(settings: SyncSettings, *, show_user_ids: bool) -> int:
    from enroll.commands.sync_compare import preview
    from enroll.commands.sync_report import difference_lines, strange_lines

    tame_pillow()
    for found in preview(settings, show_user_ids=show_user_ids):
        with printing():
            say(f"How {settings.manifest} differs from the ledger; nothing was called.")
            say(*(f"Note: {note}" for note in found.notes))
            say(*difference_lines(found.counted), *strange_lines(found))
            if settings.differences is not None:
                say(f"The differences are in {settings.differences}.")
    return 0
