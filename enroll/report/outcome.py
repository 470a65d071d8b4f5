"""How a command ended, in figures for programs: the names that all commands share, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from enroll import __version__, clock
from enroll.commands.run_input import check_beside_results, ledger_path
from enroll.errors import EnrollError, ExitCode, GuardError, ManifestError, UsageError, run_of
from enroll.ledger import ledger_at
from enroll.session.session import SessionSettings, check_outputs, run_defaults
from enroll.settings import RunSettings
from enroll.text.files import Output, new_file
from enroll.visible import json_text, path_text

Value = datetime | str | float | Mapping[str, int] | None
"""A figure's value; None if it is not known."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure(Generic[T]):
    """One figure of a `T`: either of a command that has ended, or of a run's report.

    `name` is its key in JSON; without `in_json` only the log has it. `help` is the help text of the
    metric `enroll_run_NAME`, or of `metric` in place of NAME; without `help` there is no metric.
    Of a ledger, not of a run, it is `enroll_NAME` (`of_ledger`).
    `label` is the second label of a mapping's numbers. `log` is its key in the log, where a
    `sparse` figure omits zeros, and an `optional` one is omitted if it is unknown. `remark` words
    it for the summary, given the number and whether the command is a sync; `urgent` remarks are
    shown with --quiet, too.
    """

    name: str
    value: Callable[[T], Value]
    _: KW_ONLY
    in_json: bool = True
    help: str = ""
    metric: str = ""
    of_ledger: bool = False
    label: str = ""
    log: str = ""
    sparse: bool = False
    optional: bool = False
    remark: Callable[[int, bool], str] | None = None
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a command is about, as far as it is known before it begins. `command` is its words
    without `enroll`."""

    command: str
    manifest: Path | None = None
    ledger: Path | None = None
    endpoint: str | None = None
    group_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a command ended: `message` says why it did not succeed, if that has a sentence. Times are
    UNIX seconds. `run` is its number in the ledger, None if it is not on record."""

    about: About
    exit_code: ExitCode
    message: str
    started: float
    ended: float
    run: int | None = None


OF_COMMAND: Sequence[Figure[Ending]] = (
    Figure("command", lambda ending: ending.about.command),
    Figure("run", lambda ending: ending.run),
    Figure(
        "exit_code",
        lambda ending: int(ending.exit_code),
        help="How the last run ended, as in docs/exit-codes.md; 0 is done.",
    ),
    Figure("reason", lambda ending: ending.exit_code.name),
    Figure("message", lambda ending: ending.message),
    Figure(
        "started",
        lambda ending: datetime.fromtimestamp(ending.started, UTC),
        help="When the last run was started.",
        metric="start_timestamp_seconds",
    ),
    Figure(
        "ended",
        lambda ending: datetime.fromtimestamp(ending.ended, UTC),
        help="When the last run ended.",
        metric="end_timestamp_seconds",
    ),
    Figure(
        "seconds",
        lambda ending: round(max(ending.ended - ending.started, 0.0), 3),
        help="How long the last run took.",
        metric="duration_seconds",
    ),
    Figure("version", lambda _: __version__),
    Figure("manifest", lambda ending: _path(ending.about.manifest)),
    Figure("ledger", lambda ending: _path(ending.about.ledger)),
    Figure("endpoint", lambda ending: ending.about.endpoint),
    Figure("group_id", lambda ending: ending.about.group_id),
)
"""Figures of every command whose options could be used."""


def _path(path: Path | None) -> str | None:
    return None if path is None else path_text(path.absolute())


def of_run_settings(settings: RunSettings, *, command: str = "") -> About:
    """What a command with a manifest is about: a run, or another `command`."""
    ledger = None
    if settings.ledger or settings.group_id:
        try:
            ledger = ledger_path(settings)
        except UsageError:  # no home folder
            ledger = None
    return About(
        command=command or settings.command,
        manifest=settings.manifest,
        ledger=ledger,
        endpoint=settings.endpoint,
        group_id=settings.group_id or None,
    )


def check_summary(
    summary: Path | None,
    settings: RunSettings,
    about: About,
    *,
    others: Mapping[str, Path | None],
) -> None:
    """Raise UsageError for a --summary of a command with a manifest that must not or cannot be
    written; `others` are its other outputs, by what they are."""
    if summary is not None:
        output = Output(path=summary, option="--summary", content="JSON")
        named = {what: path for what, path in others.items() if path is not None}
        check_beside_results(output, settings, ledger=about.ledger, others=named)


def of_session_settings(settings: SessionSettings) -> About:
    """What a command on an existing ledger is about. Raises UsageError for a file that it must not
    or cannot write, and what opening the ledger raises."""
    with closing(ledger_at(settings.ledger).read()) as reader:
        check_outputs(settings, reader)
        return About(
            command=settings.command,
            ledger=settings.ledger,
            endpoint=run_defaults(reader, endpoint=settings.endpoint).endpoint,
            group_id=settings.group_id or reader.identity().group_id,
        )


class Ended(Protocol):
    """What a command has come to. `stop` is what ended it early, None if nothing did. `figures`
    are its own: they name no person and no photo."""

    @property
    def exit_code(self) -> ExitCode: ...

    @property
    def stop(self) -> EnrollError | None: ...

    def figures(self) -> dict[str, Any]: ...


def figures_of(
    about: About, ended: Ended, *, started: float, exit_code: ExitCode | None = None
) -> dict[str, Any]:
    """The figures of a command that has ended, as plain values: those of `OF_COMMAND`, and its own.

    `started` is UNIX seconds, `exit_code` one that takes the place of the command's own.
    """
    ending = Ending(
        about=about,
        exit_code=ended.exit_code if exit_code is None else exit_code,
        message="" if ended.stop is None else why(ended.stop),
        started=started,
        ended=clock.time(),
    )
    return {**plain((figure, figure.value(ending)) for figure in OF_COMMAND), **ended.figures()}


def figures_of_error(
    about: About,
    error: BaseException,
    *,
    started: float,
    exit_code: ExitCode,
    message: str | None = None,
) -> dict[str, Any]:
    """The figures of a command that an error or a signal has ended. `message` takes the place of
    the error's."""
    ending = Ending(
        about=about,
        exit_code=exit_code,
        message=why(error) if message is None else message,
        started=started,
        ended=clock.time(),
        run=run_of(error),
    )
    return plain((figure, figure.value(ending)) for figure in OF_COMMAND)


def plain(figures: Iterable[tuple[Figure[Any], Value]]) -> dict[str, Any]:
    """Figures by name, with times in ISO 8601 and UTC."""
    known: dict[str, Any] = {}
    for figure, value in figures:
        known[figure.name] = value
        if isinstance(value, datetime):
            text = value.isoformat(timespec="milliseconds")
            known[figure.name] = text.replace("+00:00", "Z")
    return known


def why(error: BaseException) -> str:
    """Why a command ended, in a sentence that names no person: what else the command prints may."""
    if isinstance(error, GuardError):
        return "Refused: the difference is too large; the command's own output shows why."
    if isinstance(error, ManifestError):  # it may quote cells
        return "The manifest cannot be used; the command's own output shows why."
    if hasattr(error, "exit_code"):  # it is meant for users, or says which signal came
        return str(error)
    return "A bug; the command's own output names the file with the traceback."


GOES_BEFORE = frozenset(
    {
        ExitCode.DONE,
        ExitCode.SOME_ROWS_FAILED,
        ExitCode.IN_DOUBT,
        ExitCode.ENDED_EARLY,
        ExitCode.UNREACHED,
    }
)
"""Exit codes that 7 takes precedence over if the figures cannot be written, as in
docs/exit-codes.md."""


def as_text(figures: Mapping[str, Any]) -> str:
    """Figures as JSON, a line for each."""
    return json_text(figures, indent=2) + "\n"


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures to `path` as JSON, readable by its owner only. Raises LocalError."""
    with new_file(path) as new:
        new.file.write(as_text(figures).encode())
