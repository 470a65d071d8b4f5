"""`enroll verify`: compare the ledger with the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from enroll.cli import options
from enroll.cli.command import SettingsCommand, command_line_option, named_option, option
from enroll.cli.parameters import FILE
from enroll.cli.signals import SignalDesk
from enroll.cli.terminal import Terminal, credentials_reader, tame_pillow


@click.command(cls=SettingsCommand)
@options.known_ledger
@options.max_in_flight
@option(
    "--deep",
    is_flag=True,
    help="Look up each face of the ledger that `list` does not show, one call each.",
)
@command_line_option(
    "--remove-surplus",
    is_flag=True,
    help="Delete copies that are recorded as surplus, or that search has proved to be copies.",
)
@command_line_option(
    "--requeue-missing",
    is_flag=True,
    help="Make faces due again that are missing from the library.",
)
@named_option("--differences", type=FILE, help="Write the differences to this CSV.")
@options.yes
def verify(
    credentials: Path | None,
    yes: bool,
    **given: Any,
) -> int:
    """Compare the ledger with the library.

    Changes nothing unless --remove-surplus or --requeue-missing is given, and asks first.
    """
    from enroll.commands.verify import VerifySettings
    from enroll.commands.verify import verify as verify_ledger

    SignalDesk()
    tame_pillow()
    settings = VerifySettings(**options.session_settings(given, credentials))
    return verify_ledger(settings, credentials_reader(credentials), Terminal(yes=yes)).exit_code
