"""Follows a command for its caller: log lines, callbacks, cancelling, and answers to questions."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Self, TypeVar

from enroll import clock
from enroll.api.reports import E, NotDoneError, Outcome, outcome_of
from enroll.commands.run_opening import Destination
from enroll.errors import ExitCode
from enroll.ledger import shown_path
from enroll.model import Candidate, Entry, Fault, Status
from enroll.report.console import Console
from enroll.report.outcome import of_session_settings
from enroll.session.session import SessionSettings
from enroll.session.tally import Tally
from enroll.settings import RunSettings
from enroll.text.logs import LOGGER, LastingStream, log

LOGGER.addHandler(logging.NullHandler())

T = TypeVar("T")

STATS_SECONDS = 60.0
"""How often progress is logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: `done` of `due` rows. Until the whole manifest was `compared`, `due` is the
    most that there can be. `enrolled` rows were enrolled by this run; `bad` rows of the manifest
    are rejected, invalid, failed or held. `seconds` have passed since the run began."""

    done: int
    due: int
    compared: bool
    enrolled: int
    bad: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far a command other than a run is: `done` of `of`, which is None if it is not known.
    `what` says what is counted, such as "faces listed". `seconds` have passed since it began."""

    done: int
    of: int | None
    what: str
    seconds: float


OnProgress = Callable[[Progress], None]
"""Called a few times a second with how far the run is. It has to be quick."""

OnRow = Callable[[Entry], None]
"""Called for each row that has an outcome in this run. It has to be quick."""

OnStep = Callable[[Step], None]
"""Called after each call of a command that is no run. It has to be quick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a caller wants to hear of a run, and how they end it."""

    on_progress: OnProgress | None
    on_row: OnRow | None
    cancel: Event | None


def check_cancelled(cancel: Event | None, sentence: str) -> None:
    """Raise NotDoneError if that is set."""
    if cancel is not None and cancel.is_set():
        raise NotDoneError(sentence, ExitCode.INTERRUPTED)


class Watch(Console):
    """Logs what the command logs, and calls back. What a callback raises ends the run gracefully,
    and goes on once the run has been closed."""

    def __init__(self, settings: RunSettings, hooks: Hooks, *, show_user_ids: bool) -> None:
        self._null = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # see `close`
        super().__init__(
            settings,
            LastingStream(self._null),
            progress=False,
            stats=STATS_SECONDS,
            quiet=True,
            show_user_ids=show_user_ids,
        )
        self._on_progress = hooks.on_progress
        self._on_row = hooks.on_row
        self._cancel = hooks.cancel
        self._interrupt: Callable[[int], None] | None = None
        self._started = clock.monotonic()
        self._last: Tally | None = None
        self._heeded = self._interrupted = False
        self._root = ""
        self.error: BaseException | None = None
        """What a callback has raised."""

    def close(self) -> None:
        """Release what it has open."""
        self._null.close()

    def check(self) -> None:
        """Raise NotDoneError if the command was cancelled before it began."""
        check_cancelled(self._cancel, "Cancelled before anything was sent.")

    def connecting(self, endpoint: str, credentials: str) -> None:
        self.check()
        super().connecting(endpoint, credentials)

    def opened(self, destination: Destination, interrupt: Callable[[int], None]) -> None:
        self._interrupt = interrupt
        self._root = destination.store.root
        super().opened(destination, interrupt)
        self._heed()

    def scanned(self, tally: Tally) -> None:
        super().scanned(tally)
        self._report(tally)

    def finished(self, row: Candidate, status: Status, code: str, message: str) -> None:
        super().finished(row, status, code, message)
        if self._on_row is not None:
            known = row.row
            self._call(
                self._on_row,
                Entry(
                    user_id=known.user_id,
                    user_data=known.user_data,
                    image=shown_path(known.path, self._root),
                    status=status,
                    error=str(code),
                    message=message,
                ),
            )
        self._heed()

    def warned(self, row: Candidate, fault: Fault) -> None:
        super().warned(row, fault)
        self._heed()

    def ticked(self, tally: Tally) -> None:
        super().ticked(tally)
        self._report(tally)

    def waits(self, what: str) -> None:
        super().waits(what)
        self._heed()

    def unreached(self, seconds: float, code: str, because: str) -> None:
        super().unreached(seconds, code, because)
        self._heed()

    def closed(self) -> None:
        super().closed()
        if self._last is not None:
            self._report(self._last)

    def _report(self, tally: Tally) -> None:
        self._last = tally
        if self._on_progress is not None:
            progress = Progress(
                done=tally.done,
                due=max(tally.expected, tally.done),
                compared=tally.scanned,
                enrolled=tally.enrolled_now,
                bad=tally.bad,
                seconds=clock.monotonic() - self._started,
            )
            self._call(self._on_progress, progress)
        self._heed()

    def _call(self, callback: Callable[[T], None], value: T) -> None:
        if self.error is not None:
            return
        try:
            callback(value)
        except KeyboardInterrupt:  # which ends a run at any other place in the same way
            self._interrupted = True
        except BaseException as error:  # noqa: BLE001  # raised in the end
            self.error = error

    def _heed(self) -> None:
        """End the run if that is wanted. Nothing more is sent, and what is in flight ends."""
        cancelled = self._cancel is not None and self._cancel.is_set()
        if not (cancelled or self._interrupted or self.error is not None):
            return
        if self._interrupt is not None:
            if not self._heeded:
                self._heeded = True
                self._interrupt(signal.SIGINT)
        else:  # the service is being waited for, so nothing was sent
            self.check()


class Answers:
    """Plays the person at a terminal: logs and keeps what is shown, answers every question with
    `yes` or no, and ends the command once its caller wants that. A context manager, which raises
    what a callback has raised."""

    def __init__(
        self, *, yes: bool = True, on_progress: OnStep | None = None, cancel: Event | None = None
    ) -> None:
        self._yes = yes
        self._on_progress = on_progress
        self._cancel = cancel
        self._began = clock.monotonic()
        self._lines: list[str] = []
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        if self._error is not None:
            raise self._error from None

    def outcome(self, settings: SessionSettings, act: Callable[[], E]) -> Outcome[E]:
        """Carry out a command on an existing ledger. One whose question was answered with no was
        only tried, so it is done."""
        about = of_session_settings(settings)
        began = clock.time()
        with self:
            result = act()
        code = ExitCode.DONE if result.exit_code is ExitCode.INTERRUPTED else None
        return outcome_of(about, result, text=self.text, started=began, exit_code=code)

    @property
    def text(self) -> str:
        """What was shown."""
        return "\n".join(self._lines)

    def connecting(self, endpoint: str, credentials: str) -> None:
        self._check()
        log(
            "connecting",
            f"calling {endpoint} with {credentials}",
            {"endpoint": endpoint, "credentials": credentials},
        )

    def say(self, *lines: str) -> None:
        self._lines += lines
        for line in filter(str.strip, lines):
            log("said", line, {})

    def progress(self, done: int, what: str, *, of: int | None = None) -> None:
        if self._on_progress is not None:
            step = Step(done=done, of=of, what=what, seconds=clock.monotonic() - self._began)
            try:
                self._on_progress(step)
            except KeyboardInterrupt:  # which the ledger records as what it is
                raise
            except BaseException as error:
                self._error = error
                raise NotDoneError("A callback has ended it.", ExitCode.INTERRUPTED) from error
        self._check()

    def confirm(self, question: str, *, changes: bool = True) -> bool:
        self._check()
        agrees = self._yes or not changes
        log("asked", f"{question} {'yes' if agrees else 'no'}", {})
        if not agrees:
            self._lines.append(f"Not asked in a dry run: {question}")
        return agrees

    def _check(self) -> None:
        check_cancelled(
            self._cancel, "Cancelled. What was done is on record, and the same call continues."
        )
