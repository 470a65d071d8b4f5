"""`enroll demo`: an archive, a stand-in and a run, to look at."""

from __future__ import annotations

from pathlib import Path

import click

from enroll.cli.command import SettingsCommand
from enroll.cli.parameters import FILE
from enroll.cli.sandbox import needs_extra, with_remedy


@click.command(cls=SettingsCommand)
@click.argument("folder", type=FILE, default=Path("enroll-demo"), metavar="[DIR]")
def demo(folder: Path) -> int:
    """Draw an archive, start the stand-in, enroll into it.

    Everything stays in DIR (enroll-demo). Run it twice: the second run adds nothing.
    """
    try:
        from enroll.cli.demo import run_demo
        from enroll.sandbox import StoreError
    except ImportError as error:
        raise needs_extra(error) from error
    try:
        return run_demo(folder)
    except StoreError as error:
        raise with_remedy(error, "Name another folder for this demo.") from error
