"""How a command on a ledger ended, as JSON for programs: printed, written to a file, or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from enroll import __version__, clock
from enroll.errors import EnrollError, ExitCode
from enroll.text.files import new_file
from enroll.text.wording import say_aside, say_json
from enroll.visible import json_text


class Ended(Protocol):
    """What a command has come to. `stop` is what ended it early, None if nothing did."""

    @property
    def exit_code(self) -> ExitCode: ...

    @property
    def stop(self) -> EnrollError | None: ...


E = TypeVar("E", bound=Ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Where a command's figures go: a file, standard output, or neither."""

    summary: Path | None = None
    printed: bool = False

    def of(self, act: Callable[[], E], figures_of: Callable[[E], Mapping[str, Any]]) -> ExitCode:
        """Carry a command out and publish its figures, however it ends; returns its exit code.

        The file must have been checked before. Raises what `act` raises and what stopped the
        command, and LocalError if the file cannot be written.
        """
        started = clock.time()
        try:
            ended = act()
        except BaseException as error:  # an interruption, too
            try:
                self._publish(_outcome(_code_of(error), error, started))
            except EnrollError as fault:  # something worse has to be reported
                say_aside(f"Warning: {fault}")
            raise
        self._publish({**_outcome(ended.exit_code, ended.stop, started), **figures_of(ended)})
        if ended.stop is not None:
            raise ended.stop
        return ended.exit_code

    def _publish(self, figures: Mapping[str, Any]) -> None:
        if self.printed:
            say_json(figures)
        if self.summary is not None:
            with new_file(self.summary) as new:
                new.file.write((json_text(figures, indent=2) + "\n").encode())


def _code_of(error: BaseException) -> ExitCode:
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return ExitCode(getattr(error, "exit_code", ExitCode.BUG))


def _outcome(code: ExitCode, error: BaseException | None, started: float) -> dict[str, Any]:
    ended = clock.time()
    meant_for_users = isinstance(error, EnrollError) or code >= ExitCode.HANGUP
    return {
        "exit_code": int(code),
        "reason": code.name,
        "message": str(error) if meant_for_users else "",
        "started": _iso(started),
        "ended": _iso(ended),
        "seconds": round(max(ended - started, 0.0), 3),
        "version": __version__,
    }


def _iso(seconds: float) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    at = datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
