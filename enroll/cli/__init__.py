"""The command line: options in, one call, one exit code out."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback

import click

from enroll import __version__
from enroll.cli.signals import Interrupted
from enroll.errors import EnrollError, ExitCode

_COMMANDS = {
    "plan": ("enroll.cli.enrolling", "plan"),
    "run": ("enroll.cli.enrolling", "run"),
    "status": ("enroll.cli.looking", "status"),
    "export": ("enroll.cli.looking", "export"),
    "history": ("enroll.cli.looking", "history"),
    "library": ("enroll.cli.library", "library"),
    "sandbox": ("enroll.cli.rehearsing", "sandbox"),
    "demo": ("enroll.cli.rehearsing", "demo"),
}


class _Commands(click.Group):
    """Commands in the order above; their modules load pandas and SQLAlchemy only when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="enroll")
def cli() -> None:
    """Put a whole photo archive into a FaceSearch face library.

    Every row of a CSV manifest (user_id, user_data, image) is enrolled once, with parallel calls
    and retries; a ledger keeps the face tokens and errors, and the same command goes on from it.
    Try it without an account: `enroll demo`.
    """


def main() -> None:
    """Run a command and leave with its exit code; see docs/exit-codes.md."""
    code = _exit_code_of_command()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # who read our output is gone
        code = code or ExitCode.DONE
    # A call that outlasts --drain would hold the interpreter until its own deadline.
    os._exit(code)


def _exit_code_of_command() -> int:
    try:
        return int(cli.main(standalone_mode=False) or ExitCode.DONE)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except BrokenPipeError:  # `enroll export - | head`
        return ExitCode.DONE
    except (click.ClickException, click.Abort, Interrupted, EnrollError) as error:
        return _complain(error)
    except Exception as error:  # noqa: BLE001  # a bug: one sentence, and the traceback in a file
        return _confess(error)


def _complain(error: click.ClickException | click.Abort | Interrupted | EnrollError) -> int:
    """Say what is wrong in a sentence; the exit code that it stands for."""
    if isinstance(error, click.Abort):
        click.echo("Nothing was done.", err=True)
        return ExitCode.INTERRUPTED
    if isinstance(error, Interrupted):
        click.echo(str(error), err=True)
        return error.exit_code
    if isinstance(error, EnrollError):
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    click.echo(f"Error: {error.format_message()}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"`{error.ctx.command_path} --help` lists the options.", err=True)
    return ExitCode.USAGE


def _confess(error: Exception) -> int:
    with tempfile.NamedTemporaryFile(  # readable by its owner alone
        "w", prefix="enroll-bug-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(error, file=file)
    click.echo(
        f"Error: a bug in enroll {__version__} ({type(error).__name__}). What was recorded is "
        f"safe, and running again goes on from there. Please report it with {file.name}.",
        err=True,
    )
    return ExitCode.BUG
