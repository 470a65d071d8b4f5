"""`enroll resolve`: decide about a face in doubt by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from enroll.cli import options
from enroll.cli.command import SettingsCommand, command_line_option, option
from enroll.cli.signals import SignalDesk
from enroll.cli.terminal import Terminal, credentials_reader
from enroll.credentials import has_credentials


@click.command(cls=SettingsCommand)
@options.known_ledger
@command_line_option("--user-id", required=True, metavar="ID", help="Whose face it is.")
@command_line_option(
    "--token", metavar="TOKEN", help="The library holds the face: this is its token."
)
@command_line_option("--not-added", is_flag=True, help="The library does not hold the face.")
@command_line_option(
    "--sha256",
    default="",
    metavar="PREFIX",
    help="Of several faces in doubt, the one whose photo's SHA-256 begins with this.",
)
@option("--offline", is_flag=True, help="Do not check with the service.")
def resolve(
    credentials: Path | None,
    token: str | None,
    not_added: bool,
    offline: bool,
    **given: Any,
) -> int:
    """Decide by hand about a face in doubt: it has --token T, or was --not-added.

    Both are checked with the service, if there are credentials for it.
    """
    from enroll.commands.resolve import ResolveSettings
    from enroll.commands.resolve import resolve as resolve_doubt

    if (token is None) is not not_added:
        raise click.UsageError("Give one of --token TOKEN and --not-added.")
    SignalDesk()
    settings = ResolveSettings(token=token, **options.session_settings(given, credentials))
    ask = not offline and has_credentials(credentials, os.environ)
    terminal = Terminal()
    resolved = resolve_doubt(
        settings,
        credentials_reader(credentials) if ask else None,
        announce=terminal.connecting,
    )
    terminal.say(resolved.sentence)
    return 0
