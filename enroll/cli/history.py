"""`enroll history`: what changed in the library, and when."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from enroll.cli import options
from enroll.cli.command import SettingsCommand, command_line_option, option
from enroll.cli.parameters import WholeNumber
from enroll.cli.terminal import printing
from enroll.settings import find_ledger


@click.command(cls=SettingsCommand)
@options.any_ledger
@command_line_option("--user-id", help="Only what happened to this person's faces.")
@option(
    "--since",
    type=click.DateTime(
        ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
    ),
    metavar="TIME",
    help="Only what happened since this time, in UTC: 2025-01-31 or 2025-01-31T09:30:00Z.",
)
@command_line_option("--run", type=WholeNumber(1, 1_000_000_000), help="Only what this run did.")
def history(
    ledger: Path | None,
    group_id: str | None,
    endpoint: str | None,
    user_id: str | None,
    since: datetime | None,
    run: int | None,
) -> int:
    """Print what changed in the library, and when, as CSV."""
    from enroll.ledger import read_ledger
    from enroll.report.export import print_history

    reader = read_ledger(find_ledger(ledger=ledger, endpoint=endpoint, group_id=group_id))
    at = None if since is None else int(since.replace(tzinfo=UTC).timestamp() * 1000)
    try:
        latest = next(iter(reader.status(runs=1).runs), None)
        if run is not None and (latest is None or run > latest.run):
            raise click.UsageError(
                f"There is no run {run}; the ledger's last is {latest.run if latest else 0}. "
                "`enroll status` lists them."
            )
        with printing():
            print_history(reader.history(user_id=user_id, since=at, run=run))
    finally:
        reader.close()
    return 0
