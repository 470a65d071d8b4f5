"""`enroll verify`, `enroll adopt` and `enroll resolve`: ledger and library brought together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from enroll import clock
from enroll.cli import options, reading
from enroll.cli.signals import SignalDesk
from enroll.credentials import has_credentials, read_credentials
from enroll.errors import UsageError
from enroll.model import Credentials
from enroll.settings import RunSettings, find_ledger
from enroll.text.wording import confirm, say, say_aside

PROGRESS_SECONDS = 2.0
"""How often a terminal is told how far a command is."""

known_ledger = options.together(
    options.config,
    options.ledger,
    options.group_id,
    options.named_option(
        "--endpoint", metavar="URL", help="Base URL.  [default: as in the ledger's last run]"
    ),
    options.credentials,
    options.transport,
)


class Terminal:
    """Says things on standard output, tells progress on a terminal, and asks a person there."""

    def __init__(self, *, yes: bool = False) -> None:
        """`yes` agrees to everything."""
        self._yes = yes
        self._told_at = clock.monotonic()

    def connecting(self, endpoint: str, credentials: str) -> None:
        """Print on stderr where calls go, and with which credentials."""
        from enroll.text.wording import account_lines

        context = click.get_current_context()
        known = "as in the ledger's last run" if context.params["endpoint"] is None else "default"
        origin = options.origins(context).get("endpoint", known)
        say_aside(*account_lines(endpoint, origin, credentials))

    def say(self, *lines: str) -> None:
        """Print lines."""
        with options.printing():
            say(*lines)

    def progress(self, done: int, what: str) -> None:
        """Tell a terminal now and then how far it is."""
        now = clock.monotonic()
        if now - self._told_at >= PROGRESS_SECONDS and sys.stderr.isatty():
            self._told_at = now
            say_aside(f"… {done:,} {what}")

    def confirm(self, question: str) -> bool:
        """Ask a person. Raises UsageError where there is none."""
        if self._yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError(
                f"Nothing was done, as nobody can be asked here: {question} Agree with --yes."
            )
        return confirm(question)


def credentials_reader(path: Path | None) -> Callable[[], Credentials]:
    """Reads key and secret, from the environment or a file."""
    return lambda: read_credentials(path, os.environ)


@click.command(cls=options.SettingsCommand)
@known_ledger
@reading.max_in_flight
@click.option(
    "--deep",
    is_flag=True,
    help="Ask for each face of the ledger that `list` does not show, a call each.",
)
@options.command_line_option(
    "--remove-surplus",
    is_flag=True,
    help="Delete copies from the library that are on record as surplus, or proved by search.",
)
@options.command_line_option(
    "--requeue-missing",
    is_flag=True,
    help="Make faces due again that the library does not hold any more.",
)
@options.named_option("--differences", type=options.FILE, help="Write the differences to this CSV.")
@options.yes
def verify(
    ledger: Path | None,
    group_id: str | None,
    endpoint: str | None,
    credentials: Path | None,
    yes: bool,
    **given: Any,
) -> int:
    """Compare the ledger with the library.

    Changes nothing unless --remove-surplus or --requeue-missing is given, and asks first.
    """
    from enroll.commands.verify import verify as verify_ledger
    from enroll.session.session import VerifySettings

    SignalDesk()
    reading.tame_pillow()
    settings = VerifySettings(
        ledger=find_ledger(ledger=ledger, endpoint=endpoint, group_id=group_id),
        endpoint=endpoint,
        group_id=group_id,
        in_use=options.in_use(credentials, ca_bundle=given["ca_bundle"]),
        **given,
    )
    return verify_ledger(settings, credentials_reader(credentials), Terminal(yes=yes)).exit_code


@click.command(cls=options.SettingsCommand)
@known_ledger
@options.command_line_option("--user-id", required=True, metavar="ID", help="Whose face it is.")
@options.command_line_option(
    "--token", metavar="TOKEN", help="The library holds the face: this is its token."
)
@options.command_line_option(
    "--not-added", is_flag=True, help="The library does not hold the face."
)
@options.command_line_option(
    "--sha256",
    default="",
    metavar="PREFIX",
    help="Of several faces in doubt, the one whose photo's SHA-256 begins so.",
)
@click.option("--offline", is_flag=True, help="Do not ask the service whether that is so.")
def resolve(
    ledger: Path | None,
    group_id: str | None,
    endpoint: str | None,
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
        raise click.UsageError("Say one of --token TOKEN and --not-added.")
    SignalDesk()
    settings = ResolveSettings(
        ledger=find_ledger(ledger=ledger, endpoint=endpoint, group_id=group_id),
        token=token,
        endpoint=endpoint,
        group_id=group_id,
        **given,
    )
    ask = not offline and has_credentials(credentials, os.environ)
    terminal = Terminal()
    resolved = resolve_doubt(
        settings,
        credentials_reader(credentials) if ask else None,
        announce=terminal.connecting,
    )
    terminal.say(resolved.sentence)
    return 0


@click.command(cls=options.SettingsCommand)
@reading.manifest
@options.config
@options.group_id
@options.endpoint
@options.ledger
@reading.manifest_options
@options.credentials
@options.transport
@reading.max_in_flight
@reading.multi_oriented_detection
@reading.send_as
@click.option(
    "--score",
    type=options.number_of("score"),
    metavar="SCORE",
    help="The least score at which a face counts as a photo's own.  [default: learned]",
)
@options.named_option("--report", type=options.FILE, help="Write the rows to look at to this CSV.")
@options.command_line_option(
    "--dry-run", is_flag=True, help="Only tell what it takes; search for nothing."
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
    reading.tame_pillow()
    in_use = options.in_use(credentials, ca_bundle=given["ca_bundle"])
    settings = AdoptSettings(
        run=RunSettings(manifest=manifest, in_use=in_use, **given),
        score=score,
        dry_run=dry_run,
        report=report,
    )
    return adopt_faces(settings, credentials_reader(credentials), Terminal()).exit_code
