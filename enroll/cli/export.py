"""`enroll export`: write a ledger's entries to a file."""

from __future__ import annotations

from pathlib import Path

import click

from enroll.cli import options
from enroll.cli.command import SettingsCommand, command_line_option, in_use, option
from enroll.cli.parameters import File, Member
from enroll.cli.terminal import printing
from enroll.model import Status
from enroll.settings import find_ledger
from enroll.text.wording import say


@click.command(cls=SettingsCommand)
@click.argument("output", type=File(stdio=True))
@options.any_ledger
@option(
    "--status",
    "statuses",
    multiple=True,
    type=Member(Status),
    help="Only entries of this status; repeatable.",
)
@command_line_option(
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
                InUse(ledger=path, manifests=reader.manifests(), files=in_use()),
            )
        with printing():
            count = write_export(reader.entries(statuses), output, raw=raw)
            if output != STDOUT:
                say(f"{amount(count, 'entry', 'entries')} written to {output}.")
    finally:
        reader.close()
    return 0
