"""`enroll remove`: take faces out of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from enroll.cli import options
from enroll.cli.command import SettingsCommand, command_line_option, named_option
from enroll.cli.parameters import FILE, number_of
from enroll.cli.signals import SignalDesk
from enroll.cli.terminal import Terminal, credentials_reader


@click.command(cls=SettingsCommand)
@options.known_ledger
@options.max_in_flight
@command_line_option(
    "--run",
    "of_run",
    type=number_of("of_run"),
    metavar="R",
    help="The faces that this run has added; `enroll status` lists the runs.",
)
@command_line_option("--superseded", is_flag=True, help="The faces that no row points to any more.")
@command_line_option(
    "--user-ids",
    type=FILE,
    help="Every face of the people in this file: one id a line, or a CSV with a column user_id.",
)
@named_option("--list", type=FILE, help="Write the faces to this CSV before asking.")
@options.show_user_ids
@options.yes
def remove(
    credentials: Path | None,
    yes: bool,
    **given: Any,
) -> int:
    """Take faces out of the library again: those of a run, superseded ones, or people's.

    Shows how many and which, and asks first. Faces that the ledger does not know stay.
    """
    from enroll.commands.remove import RemoveSettings
    from enroll.commands.remove import remove as remove_faces

    if sum(bool(given[name]) for name in ("of_run", "superseded", "user_ids")) != 1:
        raise click.UsageError("Give one of --run R, --superseded and --user-ids FILE.")
    SignalDesk()
    settings = RemoveSettings(**options.session_settings(given, credentials))
    return remove_faces(settings, credentials_reader(credentials), Terminal(yes=yes)).exit_code
