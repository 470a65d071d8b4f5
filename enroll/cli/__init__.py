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
from enroll.cli.command import CommandGroup
from enroll.cli.printing import Figures
from enroll.cli.signals import Interrupted, SignalDesk
from enroll.errors import EnrollError, ExitCode, ShortageError, name_run, run_of
from enroll.resources import raise_file_limit, shortage_in
from enroll.text.logs import TRACEBACK, LastingStream, log_error, logs_json, set_up, take_over
from enroll.text.wording import say_aside

HEADINGS = {
    "Prepare a list": {"match": "match", "plan": "enrolling"},
    "Enroll": {"run": "enrolling", "sync": "enrolling"},
    "See what is enrolled": {
        "status": "reports",
        "report": "reports",
        "export": "reports",
        "history": "reports",
        "who": "library",
    },
    "Check and correct": {
        "verify": "maintain",
        "audit": "maintain",
        "adopt": "maintain",
        "resolve": "maintain",
    },
    "Delete": {"remove": "maintain", "forget": "maintain"},
    "Libraries, ledgers and accounts": {
        "library": "library",
        "ledger": "library",
        "probe": "library",
    },
    "Rehearse": {"demo": "rehearsal", "sandbox": "rehearsal"},
}
"""The commands with their modules, under the headings of the help."""

_COMMANDS = {name: module for names in HEADINGS.values() for name, module in names.items()}


class _Commands(CommandGroup):
    """Commands in the order above; their modules load pandas and SQLAlchemy only when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"enroll.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Under headings, with all texts in one column."""
        for heading, names in HEADINGS.items():
            commands = {name: self.get_command(ctx, name) for name in names}
            helps = [
                (name.ljust(max(map(len, _COMMANDS))), command.get_short_help_str(limit=200))
                for name, command in commands.items()
                if command is not None
            ]
            with formatter.section(heading):
                formatter.write_dl(helps)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="enroll")
def cli() -> None:
    """Put a whole photo archive into a FaceSearch face library.

    Enrolls every row of a list (user_id, user_data, image), or every photo of a folder, exactly
    once, with parallel calls and retries. A ledger keeps the face tokens and errors; to continue,
    run the same command again. Try it without an account: `enroll demo`.
    """


def main() -> None:
    """Run a command and leave with its exit code; see docs/exit-codes.md."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `enroll.__main__` has left it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _keep_memory_to_ourselves()
    _ready_streams()
    raise_file_limit()
    # NumPy, which pandas needs, would start a thread a core for arithmetic that we do not do.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    set_up(stream=LastingStream(sys.stderr), as_json=False, file=None, quiet=False)
    take_over()
    code = exit_code_of()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # who read our output is gone, or its disk is full
            stream.flush()
    # A call that outlasts --drain would hold the interpreter until its own deadline.
    os._exit(code)


def _keep_memory_to_ourselves() -> None:
    """Prevent core dumps: key, secret and photos are in memory and must not reach a disk.

    Programs that dumps are piped to (systemd-coredump, apport) respect the same limit. Marking the
    process as not dumpable would do more, but would take /proc/self from every user but root.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _ready_streams() -> None:
    """If a standard stream is closed, keep its number from being reused: output would go into the
    ledger. And a name that the terminal cannot show must not end a command."""
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
    """Run the command that the arguments name (by default the process's); returns its exit code."""
    Figures.current = None
    try:
        code = cli.main(arguments, standalone_mode=False)
        return int(code or ExitCode.DONE)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (click.ClickException, click.Abort, Interrupted, EnrollError) as error:
        return _complain(_cause(error) or error)
    except Exception as error:  # noqa: BLE001  # a bug: one sentence, and the traceback in a file
        cause = _cause(error)
        return _confess(error) if cause is None else _complain(cause)


def _cause(error: BaseException) -> Interrupted | ShortageError | None:
    """What has caused an error, if that is what is to be said."""
    cause = _early_signal() or _shortage(error)
    if cause is not None and (run := run_of(error)) is not None:
        name_run(cause, run)
    return cause


def _early_signal() -> Interrupted | None:
    """The signal that arrived before a run, and may have been turned into another exception."""
    return Interrupted(SignalDesk.early) if SignalDesk.early else None


def _shortage(error: BaseException) -> ShortageError | None:
    """The message if an error was caused, directly or not, by this machine having no file or thread
    left: that is neither wrong usage nor a bug."""
    behind: BaseException | None = error
    while behind is not None:
        if (short := shortage_in(behind)) is not None:
            return short
        behind = behind.__cause__
    return None


def _complain(error: click.ClickException | click.Abort | Interrupted | EnrollError) -> int:
    """Print one sentence about an error; returns the error's exit code."""
    if isinstance(error, click.Abort):
        # From click: Ctrl-C outside of a question, when a call may have been made.
        interrupted = isinstance(error.__cause__, KeyboardInterrupt)
        said = "Interrupted." if interrupted else "Nothing was done."
        _publish(error.__cause__ or error, ExitCode.INTERRUPTED, said)
        return _tell(said, ExitCode.INTERRUPTED)
    if isinstance(error, Interrupted):
        _publish(error, error.exit_code)
        return _tell(str(error), error.exit_code)
    if isinstance(error, EnrollError):
        _publish(error, error.exit_code)
        sentence, *further = error.lines
        return _tell(str(error), error.exit_code, shown=[f"Error: {sentence}", *further])
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        _say(*error.format_message().split("\n"))  # `enroll` or `enroll library` alone: the help
        return ExitCode.USAGE
    message = error.format_message()
    _publish(error, ExitCode.USAGE, message)
    shown = [f"Error: {message}"]
    if isinstance(error, click.UsageError) and error.ctx is not None:
        shown.append(f"`{error.ctx.command_path} --help` lists the options.")
    return _tell(message, ExitCode.USAGE, shown=shown)


def _publish(error: BaseException, code: int, message: str | None = None) -> None:
    """Publish that an error has ended the command, if it publishes figures."""
    if Figures.current is not None:
        Figures.current.fail(error, ExitCode(code), message)


def _tell(message: str, code: int, *, shown: Sequence[str] = ()) -> int:
    """Report why the command ends, to a person or to a program that reads the log. Returns the
    exit code. `shown` are the lines for a person, if they differ from the message."""
    if not log_error(message, code):
        _say(*(shown or [message]))
    return code


def _say(*lines: str) -> None:
    """Print on stderr; the exit code must be right even if nobody reads it any more."""
    with suppress(OSError):
        say_aside(*lines)


def _confess(error: Exception) -> int:
    """Report a bug. The traceback goes to a new file, to the log file, and to stderr unless that is
    a terminal: in a container stderr is all that survives."""
    lines = "".join(traceback.format_exception(error))
    kept = _keep(lines)
    above = "the traceback of this line" if logs_json() else "the lines above"
    message = (
        f"This is a bug in enroll {__version__} ({type(error).__name__}). What is on record is "
        f"safe: run the same command again to continue. Please report it with {kept or above}."
    )
    _publish(error, ExitCode.BUG)
    if not log_error(message, ExitCode.BUG, **{TRACEBACK: lines}):
        shown = [] if kept and sys.stderr.isatty() else lines.splitlines()
        _say(*shown, f"Error: {message}")
    return ExitCode.BUG


def _keep(lines: str) -> str:
    """Write the traceback to a new file that only its owner can read; returns its name, or an empty
    string if that fails: a full disk may have caused the bug."""
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            prefix="enroll-bug-",
            suffix=".txt",
            delete=False,
            encoding="utf-8",
            errors="backslashreplace",
        ) as file:
            file.write(lines)
    except OSError:
        return ""
    return file.name
