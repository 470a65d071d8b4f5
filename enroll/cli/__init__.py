"""The command line: options in, one call, one exit code out."""

from __future__ import annotations

import importlib
import io
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress

import click

from enroll import __version__
from enroll.cli.signals import Interrupted, SignalDesk
from enroll.errors import EnrollError, ExitCode
from enroll.output.logs import log_error

_COMMANDS = {
    "plan": ("enroll.cli.enrolling", "plan"),
    "run": ("enroll.cli.enrolling", "run"),
    "sync": ("enroll.cli.syncing", "sync"),
    "status": ("enroll.cli.looking", "status"),
    "export": ("enroll.cli.looking", "export"),
    "history": ("enroll.cli.looking", "history"),
    "verify": ("enroll.cli.checking", "verify"),
    "adopt": ("enroll.cli.checking", "adopt"),
    "resolve": ("enroll.cli.checking", "resolve"),
    "remove": ("enroll.cli.removing", "remove"),
    "forget": ("enroll.cli.forgetting", "forget"),
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
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `enroll.__main__` has left it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _keep_memory_to_ourselves()
    _ready_streams()
    code = exit_code_of()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # who read our output is gone, or its disk is full
            stream.flush()
    # A call that outlasts --drain would hold the interpreter until its own deadline.
    os._exit(code)


def _keep_memory_to_ourselves() -> None:
    """Key, secret and photos are in memory: no core dump is to put them on a disk.

    Programs that dumps are piped to (systemd-coredump, apport) go by the same limit. Marking the
    process as not dumpable would say more, and take /proc/self from every user but root.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _ready_streams() -> None:
    """Where we were started without a standard stream, nothing else may take its number: what is
    said would go into a ledger. And a name that the terminal cannot show must not end a command.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def exit_code_of(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments (by default the process's) name; its exit code."""
    try:
        code = cli.main(arguments, standalone_mode=False)
        return int(code or ExitCode.DONE)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (click.ClickException, click.Abort, Interrupted, EnrollError) as error:
        return _complain(_early_signal() or error)
    except Exception as error:  # noqa: BLE001  # a bug: one sentence, and the traceback in a file
        early = _early_signal()
        return _confess(error) if early is None else _complain(early)


def _early_signal() -> Interrupted | None:
    """The signal that has come before a run, of which something else may have been made."""
    return Interrupted(SignalDesk.early) if SignalDesk.early else None


def _complain(error: click.ClickException | click.Abort | Interrupted | EnrollError) -> int:
    """Say what is wrong in a sentence; the exit code that it stands for."""
    if isinstance(error, click.Abort):
        return _tell("Nothing was done.", ExitCode.INTERRUPTED)
    if isinstance(error, Interrupted):
        return _tell(str(error), error.exit_code)
    if isinstance(error, EnrollError):
        return _tell(str(error), error.exit_code, lead="Error: ")
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        _say(error.format_message())  # `enroll` or `enroll library` alone: it is the help
        return ExitCode.USAGE
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"\n`{error.ctx.command_path} --help` lists the options."
    return _tell(error.format_message(), ExitCode.USAGE, lead="Error: ", hint=hint)


def _tell(message: str, code: int, *, lead: str = "", hint: str = "") -> int:
    """Tell a person, or the program that reads our log, why the command ends; the exit code."""
    if not log_error(message, code):
        _say(f"{lead}{message}{hint}")
    return code


def _say(text: str) -> None:
    """Print on stderr; where nobody listens any more, the exit code must still be right."""
    with suppress(OSError):
        click.echo(text, err=True)


def _confess(error: Exception) -> int:
    try:
        with tempfile.NamedTemporaryFile(  # readable by its owner alone
            "w", prefix="enroll-bug-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            traceback.print_exception(error, file=file)
        told = file.name
    except OSError:  # a full disk may have brought the bug about
        _say("".join(traceback.format_exception(error)))
        told = "the lines above"
    return _tell(
        f"a bug in enroll {__version__} ({type(error).__name__}). What was recorded is "
        f"safe, and running again goes on from there. Please report it with {told}.",
        ExitCode.BUG,
        lead="Error: ",
    )
