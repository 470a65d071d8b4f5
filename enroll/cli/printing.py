"""What a command prints on standard output: lines, or one JSON object however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from enroll import clock
from enroll.errors import EnrollError, ExitCode, LocalError
from enroll.text.wording import say_aside, say_json

if TYPE_CHECKING:
    from enroll.report.outcome import About, Ended


@contextmanager
def printing() -> Iterator[None]:
    """Around printing a command's answer. Raises LocalError if stdout cannot be written. If its
    reader has gone, as in `enroll export - | head`, the command is done."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise click.exceptions.Exit(0) from None
    except OSError as error:
        raise LocalError(
            f"Standard output cannot be written: {error.strerror}. Make room, or send it elsewhere."
        ) from error


class Figures:
    """The figures of a command that has --json, which are published when it ends, however it does.

    `SettingsCommand` makes them before it reads the options, and what ends the command without
    `end` is published where errors become exit codes.
    """

    current: ClassVar[Figures | None] = None
    """Those of the command that is being carried out."""

    def __init__(self, command: str, *, printed: bool) -> None:
        """`command` is its words; `printed` says whether --json was given."""
        self._printed = printed
        self._command = command
        self._options: Mapping[str, Any] = {}
        self._about: About | None = None
        self._summary: Path | None = None
        self._started = clock.time()
        self._published = False

    def parsed(self, options: Mapping[str, Any]) -> None:
        """The options could be used: until it is known better, what they name is what the command
        is about."""
        self._printed = bool(options.get("as_json"))
        self._options = options

    @classmethod
    def of(cls, about: About, *, summary: Path | None = None) -> Figures:
        """Those of the command that is being carried out, now that it is known what it is `about`.
        From now on they go to the file `summary`, too, which must have been checked."""
        figures = cls.current or cls(about.command, printed=False)
        figures._about, figures._summary = about, summary
        return figures

    def end(self, ended: Ended) -> ExitCode:
        """Publish the figures of a command that has ended; returns its exit code.

        Raises what stopped it, and LocalError if the figures cannot be written.
        """
        from enroll.report.outcome import GOES_BEFORE, figures_of

        figures = figures_of(self._known(), ended, started=self._started)
        try:
            self._write(figures)
        except EnrollError as fault:
            if ended.exit_code in GOES_BEFORE:  # no wrong usage: it was carried out
                raise LocalError(*fault.lines) from fault
            say_aside(f"Warning: {fault}")
        if self._printed:
            self.show(figures)
        self._published = True
        if ended.stop is not None:
            raise ended.stop
        return ended.exit_code

    @classmethod
    def show(cls, value: Any) -> None:
        """Print what --json prints of a command; no figures are printed after that."""
        with printing():
            say_json(value)
        if cls.current is not None:
            cls.current._published = True

    def fail(self, error: BaseException, exit_code: ExitCode, message: str | None = None) -> None:
        """Publish that an error or a signal has ended the command, unless it has published its
        figures. `message` is a sentence that takes the place of the error's."""
        if self._published or not (self._printed or self._summary):
            return
        from enroll.report.outcome import figures_of_error

        figures = figures_of_error(
            self._known(), error, started=self._started, exit_code=exit_code, message=message
        )
        try:
            self._write(figures)
        except EnrollError as fault:  # something worse has to be reported
            say_aside(f"Warning: {fault}")
        if self._printed:
            with suppress(OSError, EnrollError, click.exceptions.Exit):
                self.show(figures)

    def _known(self) -> About:
        from enroll.report.outcome import About

        named = ("manifest", "ledger", "endpoint", "group_id")
        given = {name: self._options.get(name) for name in named}
        return self._about or About(command=self._command, **given)

    def _write(self, figures: dict[str, Any]) -> None:
        from enroll.report.outcome import write_figures

        if self._summary is not None:
            try:
                write_figures(self._summary, figures)
            except EnrollError:
                self._summary = None  # not tried again
                raise
