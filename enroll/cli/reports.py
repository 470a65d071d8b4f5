"""`enroll status`, `report`, `export` and `history`: what a ledger holds."""

from __future__ import annotations

import shutil
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from enroll import clock
from enroll.allowed import Range
from enroll.cli import options
from enroll.cli.command import SettingsCommand, command_line_option, in_use, option, together
from enroll.cli.parameters import FILE, FILE_OR_OBJECT, File, Member, Number, Time
from enroll.cli.printing import Figures, printing
from enroll.cli.signals import begin_line
from enroll.model import Status
from enroll.settings import Language, find_ledger
from enroll.text.wording import amount, as_shown, say


@click.command(cls=SettingsCommand)
@options.any_ledger
@options.as_json
@option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
def status(as_json: bool, watch: bool, **library: Any) -> int:
    """Show counts, errors and runs of a ledger; also during a run."""
    from enroll.report.status import read_status, status_json, status_lines

    path = find_ledger(**library)
    try:
        while True:
            found, holder = read_status(path)
            with printing():
                if as_json:
                    Figures.show(status_json(found, path, holder=holder))
                elif watch:
                    lines = status_lines(found, path, holder=holder, watched=True)
                    click.clear()
                    say(*_first_screen(lines))
                else:
                    say(*status_lines(found, path, holder=holder))
            if not watch:
                return 0
            clock.sleep(2)
    except KeyboardInterrupt:
        begin_line()
        return 0


def _first_screen(lines: list[str]) -> list[str]:
    """Lines without those that would move the first ones off a terminal."""
    shown = as_shown(lines, sys.stdout).splitlines()
    rows = shutil.get_terminal_size().lines - 1  # the last one is the cursor's
    if not sys.stdout.isatty() or len(shown) <= rows:
        return shown
    return [*shown[: rows - 1], "… `enroll status` shows the rest."]


_report_options = together(
    option(
        "--by", metavar="COLUMN", help="A manifest's column to group by, such as the department."
    ),
    option(
        "--split",
        is_flag=True,
        help="Write a file for each value of --by. OUTPUT is then a folder, of workbooks if its "
        "name ends in .xlsx.",
    ),
    option(
        "--status",
        "statuses",
        multiple=True,
        type=Member(Status),
        help="Only rows of this status; repeatable.",
    ),
    option(
        "--thumbnails",
        type=Number(Range(least=0, most=100_000, whole=True)),
        default=2_000,
        show_default=True,
        metavar="N",
        help="At most this many pictures.",
    ),
    option(
        "--max-size",
        type=Number(Range(least=0.2, most=1_000)),
        default=25.0,
        show_default=True,
        metavar="MB",
        help="Each file is no larger: pictures become smaller, then rows are left out.",
    ),
    option("--mask", is_flag=True, help="Show no user ids."),
    option(
        "--language",
        type=Member(Language),
        default=Language.EN.value,
        show_default=True,
        help="The language of headings and reasons.",
    ),
    heading=options.OUTPUT,
)


@click.command(cls=SettingsCommand)
@click.argument("output", type=FILE)
@options.any_ledger
@option(
    "--manifest",
    type=FILE_OR_OBJECT,
    help="The list whose rows are reported on.  [default: that of the ledger's last run]",
)
@options.manifest_options
@_report_options
@options.memory
def report(output: Path, **given: Any) -> int:
    """Write a report for people to OUTPUT: .html or .xlsx.

    It groups what needs a person by reason, with pictures and what to do. No calls are made.
    """
    from enroll.report.files import ReportSettings, write_reports
    from enroll.report.findings import Asked

    library = {name: given.pop(name) for name in ("ledger", "group_id", "endpoint")}
    own = {name: given.pop(name) for name in ("thumbnails", "max_size", "language", "memory")}
    about = {name: given.pop(name) for name in ("manifest", "images", "by", "split", "mask")}
    asked = Asked(
        ledger=find_ledger(**library),
        statuses=frozenset(given.pop("statuses")),
        options=given,
        **about,
    )
    settings = ReportSettings(
        output=output,
        asked=asked,
        language=own["language"],
        most_pictures=own["thumbnails"],
        max_bytes=int(own["max_size"] * 1_000_000),
        memory=own["memory"],
        in_use=in_use(),
    )
    for line in write_reports(settings):
        with printing():
            say(line)
    return 0


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
def export(output: Path, statuses: tuple[Status, ...], raw: bool, **library: Any) -> int:
    """Write a ledger's entries to OUTPUT: .csv, .xlsx, .jsonl or .parquet.

    With - for OUTPUT they are written to standard output, as CSV.
    """
    from enroll.ledger import read_ledger
    from enroll.report.export import STDOUT, write_export
    from enroll.text.files import InUse, Output, check_output

    path = find_ledger(**library)
    with closing(read_ledger(path)) as reader:
        if output != STDOUT:
            check_output(
                Output(path=output, option="OUTPUT"),
                InUse(
                    ledger=path,
                    manifests=reader.manifests(),
                    results=reader.results(),
                    files=in_use(),
                ),
            )
        with printing():
            count = write_export(reader.entries(statuses), output, raw=raw)
            if output != STDOUT:
                say(f"{amount(count, 'entry', 'entries')} written to {output}.")
    return 0


@click.command(cls=SettingsCommand)
@options.any_ledger
@command_line_option("--user-id", help="Only what happened to this person's faces.")
@option(
    "--since",
    type=Time(),
    help="Only what happened since this time, in UTC: 2026-11-23 or 2026-11-23T08:30:00.",
)
@command_line_option(
    "--run",
    type=Number(Range(least=1, most=1_000_000_000, whole=True)),
    help="Only what this run did.",
)
def history(user_id: str | None, since: datetime | None, run: int | None, **library: Any) -> int:
    """Print what changed in the library, and when, as CSV."""
    from enroll.ledger import read_ledger
    from enroll.report.export import print_history

    at = None if since is None else int(since.timestamp() * 1000)
    with closing(read_ledger(find_ledger(**library))) as reader:
        latest = next(iter(reader.runs(1)), None)
        if run is not None and (latest is None or run > latest.run):
            raise click.UsageError(
                f"There is no run {run}; the ledger's last is {latest.run if latest else 0}. "
                "`enroll status` lists them."
            )
        with printing():
            print_history(reader.history(user_id=user_id, since=at, run=run))
    return 0
