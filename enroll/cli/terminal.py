"""What commands do around their one call: print, ask, read credentials, quieten Pillow."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import click

from enroll import clock
from enroll.cli.command import origins
from enroll.cli.printing import printing
from enroll.credentials import read_credentials
from enroll.errors import UsageError
from enroll.model import Credentials
from enroll.text.wording import account_lines, as_shown, say, say_aside

PROGRESS_SECONDS = 2.0
"""How often progress is shown on a terminal."""


class Terminal:
    """Prints on standard output, shows progress on a terminal, and asks the person there."""

    def __init__(
        self,
        *,
        yes: bool = False,
        unnamed: str = "as in the ledger's last run",
        silent: bool = False,
    ) -> None:
        """`yes` agrees to everything. `unnamed` says where an endpoint comes from that was not
        named and has no default. `silent` prints no line, for a command that prints JSON."""
        self._yes = yes
        self._unnamed = unnamed
        self._silent = silent
        self._told_at = clock.monotonic()

    def connecting(self, endpoint: str, credentials: str) -> None:
        """Print on stderr where calls go, and with which credentials."""
        context = click.get_current_context()
        known = self._unnamed if context.params["endpoint"] is None else "default"
        origin = origins(context).get("endpoint", known)
        say_aside(*account_lines(endpoint, origin, credentials))

    def say(self, *lines: str) -> None:
        """Print lines."""
        if self._silent:
            return
        with printing():
            say(*lines)

    def progress(self, done: int, what: str, *, of: int | None = None) -> None:
        """Show on a terminal, now and then, how far the command is."""
        now = clock.monotonic()
        if now - self._told_at >= PROGRESS_SECONDS and sys.stderr.isatty():
            self._told_at = now
            say_aside(f"… {done:,}{'' if of is None else f' of {of:,}'} {what}")

    def confirm(self, question: str, *, changes: bool = True) -> bool:
        """Ask a person. Raises UsageError if there is nobody to ask."""
        if self._yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError(
                f"Confirmation is needed, but standard input is not a terminal: {question} "
                "Nothing was done. Agree with --yes."
            )
        try:
            asked = as_shown([f"{question} [y/N]"], sys.stderr).removesuffix("\n")
            return click.confirm(asked, show_default=False, err=True)
        except click.Abort:  # Ctrl-D, or Ctrl-C where no SignalDesk takes it
            click.echo(err=True)  # off the question's line
            raise


def credentials_reader(path: Path | None) -> Callable[[], Credentials]:
    """Reads key and secret, from the environment or a file."""
    return lambda: read_credentials(path, os.environ)


def tame_pillow() -> None:
    """Keep Pillow from printing about odd or broken photos, which the rows report, and from keeping
    one picture's memory for the next."""
    from enroll.photos import give_back_memory

    warnings.filterwarnings("ignore", module="PIL")
    give_back_memory()
