"""The error tree. Each leaf is one sentence for the user, with a remedy, and knows its exit code.

EnrollError
├── UsageError               2  wrong usage, or a choice is needed
│   ├── ManifestError        2  the manifest cannot be read
│   └── LedgerMismatchError  2  no ledger, one of another library or version, or put back
├── ServiceError             3  the service prevents it: credentials, library, a repeated error
│   └── UnreachedError       9  the service was away for as long as a command may wait
├── LocalError               7  this machine prevents it: disk, ledger, the photos' share
│   └── ShortageError        7  it has no open file or thread left
├── TimeOverError            6  --max-duration was over before the first photo could be sent
├── LedgerBusyError          5  another run holds the ledger
└── GuardError               8  a sync would change more than it may
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """How a command ended; docs/exit-codes.md explains each to its user."""

    DONE = 0
    SOME_ROWS_FAILED = 1
    USAGE = 2
    SERVICE = 3
    IN_DOUBT = 4
    LEDGER_BUSY = 5
    ENDED_EARLY = 6
    LOCAL = 7
    GUARD = 8
    UNREACHED = 9
    BUG = 70
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class EnrollError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one sentence with a remedy.

    `exit_code` is the `ExitCode` with which the command would end; `further` are lines below the
    sentence, where it needs a list.
    """

    exit_code = ExitCode.BUG

    def __init__(self, sentence: str = "", *further: str) -> None:
        super().__init__(sentence, *further)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it, whatever a subclass takes: between processes its exit code counts."""
        return _restored, (type(self), self.args, self.__dict__)

    @property
    def lines(self) -> Sequence[str]:
        """The lines to print; a line end within one of them came from outside."""
        return tuple(map(str, self.args))

    def __str__(self) -> str:
        return "\n".join(self.lines)


_RUN = "enroll.run"


def name_run(error: BaseException, run: int) -> None:
    """Note the number of the run, or other command on record, that an exception ends."""
    error.__dict__.setdefault(_RUN, run)


def run_of(error: BaseException) -> int | None:
    """The number that `name_run` has noted, None if it ends none."""
    found: int | None = error.__dict__.get(_RUN)
    return found


def _restored(
    kind: type[EnrollError], args: Sequence[object], state: Mapping[str, Any]
) -> EnrollError:
    error: EnrollError = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(EnrollError):
    """The command or its settings are wrong, or need a choice."""

    exit_code = ExitCode.USAGE


class ManifestError(UsageError):
    """The manifest cannot be read."""


class LedgerMismatchError(UsageError):
    """The file is not the ledger of this library as it is now, or this version cannot read it."""


class ServiceError(EnrollError):
    """The service does not let the command continue."""

    exit_code = ExitCode.SERVICE


class UnreachedError(ServiceError):
    """The service was away, or at its limit, for as long as the command may wait."""

    exit_code = ExitCode.UNREACHED


class TimeOverError(EnrollError):
    """The command's time is over before it is done."""

    exit_code = ExitCode.ENDED_EARLY


class LocalError(EnrollError):
    """This machine does not let the command continue: no space, no ledger, no photos."""

    exit_code = ExitCode.LOCAL


class ShortageError(LocalError):
    """This machine allows no further open file, connection or thread.

    Often temporary: a caller that can wait tries again, with less at a time.
    """


class LedgerBusyError(EnrollError):
    """Another run holds the ledger."""

    exit_code = ExitCode.LEDGER_BUSY


class GuardError(EnrollError):
    """A sync would change more than it may, so nothing was done.

    `counts` is the difference between manifest and ledger, numbers by name, None if it is not
    known; `masked` are the lines without user ids, for what is kept.
    """

    exit_code = ExitCode.GUARD

    def __init__(
        self,
        lines: Sequence[str],
        *,
        counts: Mapping[str, int] | None = None,
        masked: Sequence[str] | None = None,
    ) -> None:
        super().__init__(*lines)
        self.counts = counts
        self.masked = lines if masked is None else masked
