"""`enroll forget`: delete people's faces and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from enroll.cli import options
from enroll.cli.command import SettingsCommand, command_line_option, option
from enroll.cli.parameters import FILE
from enroll.cli.signals import SignalDesk
from enroll.cli.terminal import Terminal, credentials_reader, tame_pillow


@click.command(cls=SettingsCommand)
@options.known_ledger
@options.max_in_flight
@command_line_option(
    "--user-id", "people", multiple=True, metavar="ID", help="The person to forget; repeatable."
)
@command_line_option(
    "--user-ids",
    type=FILE,
    help="Everybody in this file: one id a line, or a CSV with a column user_id.",
)
@command_line_option(
    "--readmit",
    "readmitted",
    multiple=True,
    metavar="ID",
    help="Allow a forgotten person to be enrolled again; calls nothing; repeatable.",
)
@option("--show-user-ids", is_flag=True, help="Show user ids in what is printed.")
@options.yes
def forget(
    credentials: Path | None,
    yes: bool,
    **given: Any,
) -> int:
    """Delete all that library and ledger hold of people, and do not enroll them again.

    Asks first. Rows that still name them are withheld.
    """
    from enroll.commands.forget import ForgetSettings, readmit
    from enroll.commands.forget import forget as forget_people

    wanted = bool(given["people"] or given["user_ids"])
    if wanted is bool(given["readmitted"]):
        raise click.UsageError(
            "Give --user-id ID or --user-ids FILE. --readmit ID is given without these."
        )
    if not all(user_id.strip() for user_id in (*given["people"], *given["readmitted"])):
        raise click.UsageError("A user_id is empty. Correct it.")
    SignalDesk()
    tame_pillow()
    settings = ForgetSettings(**options.session_settings(given, credentials))
    if given["readmitted"]:
        readmit(settings, Terminal(yes=yes))
        return 0
    return forget_people(settings, credentials_reader(credentials), Terminal(yes=yes)).exit_code
