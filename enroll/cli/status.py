"""`enroll status`: counts, errors and runs of a ledger."""

from __future__ import annotations

from pathlib import Path

import click

from enroll import clock
from enroll.cli import options
from enroll.cli.command import SettingsCommand, option
from enroll.cli.terminal import printing
from enroll.settings import find_ledger
from enroll.text.wording import say, say_json


@click.command(cls=SettingsCommand)
@options.any_ledger
@option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
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
            with printing():
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
