"""`enroll adopt`: take faces that the library already holds into a ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from enroll.cli import options
from enroll.cli.command import SettingsCommand, command_line_option, in_use, named_option, option
from enroll.cli.parameters import FILE, number_of
from enroll.cli.signals import SignalDesk
from enroll.cli.terminal import Terminal, credentials_reader, tame_pillow
from enroll.settings import RunSettings


@click.command(cls=SettingsCommand)
@options.manifest
@options.library
@options.manifest_options
@options.connection
@options.max_in_flight
@options.multi_oriented_detection
@options.send_as
@option(
    "--score",
    type=number_of("score"),
    metavar="SCORE",
    help="The minimum score at which a face counts as the photo's own.  [default: learned]",
)
@named_option("--report", type=FILE, help="Write the rows that need a look to this CSV.")
@command_line_option(
    "--dry-run", is_flag=True, help="Only report what it would take; search for nothing."
)
def adopt(
    manifest: Path,
    credentials: Path | None,
    score: float | None,
    report: Path | None,
    dry_run: bool,
    **given: Any,
) -> int:
    """Take faces that the library already holds into a ledger.

    They are matched to MANIFEST by user_id, and confirmed by a search with each row's photo.
    """
    from enroll.commands.adopt import NO_GROUP_ID, AdoptSettings
    from enroll.commands.adopt import adopt as adopt_faces

    if given["group_id"] is None:
        raise click.UsageError(NO_GROUP_ID)
    SignalDesk()
    tame_pillow()
    settings = AdoptSettings(
        run=RunSettings(
            manifest=manifest,
            in_use=in_use(credentials, ca_bundle=given["ca_bundle"]),
            **given,
        ),
        score=score,
        dry_run=dry_run,
        report=report,
    )
    return adopt_faces(settings, credentials_reader(credentials), Terminal()).exit_code
