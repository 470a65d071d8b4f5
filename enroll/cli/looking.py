"""`enroll status`, `enroll export` and `enroll history`: what a ledger holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from enroll import clock
from enroll.cli import options
from enroll.model import Status
from enroll.settings import find_ledger
from enroll.text.wording import say, say_json

_which = options.together(
    options.config,
    options.ledger,
    options.group_id,
    options.named_option(
        "--endpoint", metavar="URL", help="The library's endpoint, if several are known."
    ),
)


@click.command(cls=options.SettingsCommand)
@_which
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
def status(
    ledger: Path | None, group_id: str | None, endpoint: str | None, as_json: bool, watch: bool
) -> int:
    """Show counts, errors and runs of a ledger; also during a run."""
    from enroll.ledger import read_ledger
    from enroll.report.status import read_status, status_json, status_lines

    path = find_ledger(ledger=ledger, endpoint=endpoint, group_id=group_id)
    reader = read_ledger(path)
    try:
        while True:
            found, holder = read_status(reader, path)
            with options.printing():
                if as_json:
                    say_json(status_json(found, path, holder=holder))
                else:
                    if watch:
                        click.clear()
                    say(*status_lines(found, path, holder=holder))
            if not watch:
                return 0
            clock.sleep(2)
    except KeyboardInterrupt:
        return 0
    finally:
        reader.close()


@click.command(cls=options.SettingsCommand)
@click.argument("output", type=options.File(stdio=True))
@_which
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=options.Member(Status),
    help="Only entries of this status; repeatable.",
)
@options.command_line_option(
    "--raw", is_flag=True, help="Do not escape cells that a spreadsheet would run."
)
def export(
    output: Path,
    ledger: Path | None,
    group_id: str | None,
    endpoint: str | None,
    statuses: tuple[Status, ...],
    raw: bool,
) -> int:
    """Write a ledger's entries to OUTPUT: .csv, .jsonl or .parquet.

    With - for OUTPUT they are written to standard output, as CSV.
    """
    from enroll.ledger import read_ledger
    from enroll.report.export import STDOUT, write_export
    from enroll.text.files import InUse, Output, check_output
    from enroll.text.wording import amount

    path = find_ledger(ledger=ledger, endpoint=endpoint, group_id=group_id)
    reader = read_ledger(path)
    try:
        if output != STDOUT:
            check_output(
                Output(path=output, option="OUTPUT", content=".csv, .jsonl or .parquet"),
                InUse(ledger=path, manifests=reader.manifests(), files=options.in_use()),
            )
        with options.printing():
            count = write_export(reader.entries(statuses), output, raw=raw)
            if output != STDOUT:
                say(f"{amount(count, 'entry', 'entries')} written to {output}.")
    finally:
        reader.close()
    return 0


@click.command(cls=options.SettingsCommand)
@_which
@options.command_line_option("--user-id", help="Only what happened to this person's faces.")
@click.option(
    "--since",
    type=click.DateTime(
        ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
    ),
    metavar="TIME",
    help="Only what happened since then, in UTC: 2025-01-31 or 2025-01-31T09:30:00Z.",
)
@options.command_line_option(
    "--run", type=options.WholeNumber(1, 1_000_000_000), help="Only what this run did."
)
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
        with options.printing():
            print_history(reader.history(user_id=user_id, since=at, run=run))
    finally:
        reader.close()
    return 0
