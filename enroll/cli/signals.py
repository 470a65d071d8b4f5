"""Signals: the first ends a run gracefully, a second quits at once, except SIGHUP."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import ClassVar, NoReturn

from enroll.text.logs import log_signal, logs_json
from enroll.text.wording import as_shown

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal arrived before or after the time in which a run can end gracefully."""

    def __init__(self, number: int) -> None:
        super().__init__("Interrupted. Everything that was sent is on record.")
        self.exit_code = 128 + number


class SignalDesk:
    """Takes the process's signals, and passes the first one to the run while it can end gracefully.

    A SIGHUP that was ignored at the start stays ignored: `nohup` asked for that. After any signal a
    SIGHUP means nothing new: a shell that ends sends one and the kernel another within a
    millisecond, without anybody being in a hurry.
    """

    early: ClassVar[int] = 0
    """The first signal, if it arrived before a run could end gracefully; else 0. The exception that
    it raised may be lost: Python drops exceptions in its own callbacks, and C modules turn them
    into an ImportError."""

    def __init__(
        self,
        *,
        holding: bool = False,
        first: str = "calls in flight may finish, then the results are written.",
        later: str = "The next run settles the calls that were in flight.",
    ) -> None:
        """`holding` keeps a signal back until `ready` is called; a second one quits at once all the
        same. `first` says what is still done after one signal, and `later` what is not after two.
        """
        self._first, self._later = first, later
        self._interrupt: Callable[[int], None] | None = None
        self._holding = holding
        self._seen = 0
        SignalDesk.early = 0
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)

    def ready(self) -> None:
        """Stop holding signals back. Raises Interrupted if one has arrived."""
        self._holding = False
        if SignalDesk.early:
            raise Interrupted(SignalDesk.early)

    def soften(self, interrupt: Callable[[int], None]) -> None:
        """From now on pass the first signal to `interrupt`, including one that has arrived
        already."""
        self._interrupt = interrupt
        if SignalDesk.early:
            interrupt(SignalDesk.early)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._seen += 1
        if self._seen > 1:
            if number != signal.SIGHUP:
                begin_line()
                self._leave(number)
            return
        begin_line()
        if self._interrupt is None:
            SignalDesk.early = number
            if self._holding:
                return
            raise Interrupted(number)
        _say(f"Stopping: {self._first} A second signal quits at once.", number)
        self._interrupt(number)

    def _leave(self, number: int) -> NoReturn:
        soft = self._interrupt is not None
        _say(f"Quit at once. {self._later}" if soft else "Quit at once.", number)
        # Not sys.exit: a thread pool would wait for its calls first.
        os._exit(128 + number)


def begin_line() -> None:
    """Move a terminal off the line where it shows ^C, behind a bar or a question."""
    if not logs_json():
        with suppress(OSError):
            os.write(2, b"\n" if os.isatty(2) else b"")


def _say(text: str, number: int) -> None:
    """Write past Python's buffers, which the signal may have interrupted in the middle of a
    write."""
    if log_signal(text, {"signal": signal.Signals(number).name}):
        return
    with suppress(OSError):
        os.write(2, as_shown([text], sys.stderr).encode())
