"""One run at a time: a lock on LEDGER.lock that the system drops with the process.

A sidecar, because SQLite locks the database file itself, and closing any other descriptor of a
file drops every POSIX lock that the process holds on it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from enroll.errors import LedgerBusyError, LocalError
from enroll.ledger.mounts import refuse_network

LOOK_SECONDS = 0.5
"""For so long a lock that is held may be held by somebody who only looks whether it is: `status`
and `verify` do, for an instant."""

_HELD = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


class LedgerLock:
    """Holds a ledger for this process until closed; a context manager.

    Raises LedgerBusyError, saying who holds it, and LocalError where no lock can be had or
    would not keep others out.
    """

    def __init__(self, ledger: Path) -> None:
        ledger = ledger.resolve()  # a link to a ledger is the same ledger
        refuse_network(ledger)
        self._path = ledger.with_name(ledger.name + ".lock")
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LocalError(
                f"No lock file can be made beside the ledger ({error.strerror}: {self._path}). "
                "Mend the folder's permissions, or choose another place with --ledger."
            ) from error
        try:
            _take(self._descriptor)
        except OSError as error:
            holder = _holder(self._descriptor)
            os.close(self._descriptor)
            if error.errno in _HELD:
                raise LedgerBusyError(
                    f"Another run holds the ledger {ledger}{holder}. Wait until it ends, or watch "
                    "it with `enroll status --watch`."
                ) from error
            raise LocalError(
                f"The ledger {ledger} cannot be locked ({error.strerror}); network file systems "
                "often cannot. Choose a local place with --ledger."
            ) from error
        self.last_run = _remembered(self._descriptor, "last_run")
        """When the last run began that added faces by this ledger (UNIX ms), as far as the lock
        file remembers it, else 0: a ledger without that run was put back since."""
        self._made_good = _remembered(self._descriptor, "made_good")
        self._sign()

    def began(self, at: int) -> None:
        """Remember that a run that may add faces began at `at` (UNIX ms)."""
        self.last_run = at
        self._sign()

    @property
    def made_good(self) -> bool:
        """Whether it is known what was deleted by the last run that a ledger lacks that was put
        back, and by those before it."""
        return self._made_good == self.last_run != 0

    def is_made_good(self) -> None:
        """Remember that."""
        self._made_good = self.last_run
        self._sign()

    def _sign(self) -> None:
        """Write down who holds the lock, for whoever finds it held; on a full disk, nobody."""
        about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            "last_run": self.last_run,
            "made_good": self._made_good,
        }
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(about).encode(), 0)

    def close(self) -> None:
        """Let the ledger go. The file stays: removing it would race with the next holder."""
        os.close(self._descriptor)

    def __enter__(self) -> LedgerLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def holder_of(ledger: Path) -> str | None:
    """Who holds a ledger, in words (they may be empty); None where nobody does.

    Asked by holding it for an instant; a run that begins in this very moment tries again.
    """
    ledger = ledger.resolve()  # as the lock does
    try:
        descriptor = os.open(ledger.with_name(ledger.name + ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _take(descriptor: int) -> None:
    """Lock it for this process alone. Raises OSError, one of `_HELD` where somebody keeps it."""
    until = time.monotonic() + LOOK_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD or time.monotonic() >= until:
                raise
        time.sleep(LOOK_SECONDS / 50)


def _remembered(descriptor: int, name: str) -> int:
    try:
        return int(json.loads(os.pread(descriptor, 1000, 0)).get(name, 0))
    except (ValueError, TypeError, AttributeError, OSError):
        return 0


def _holder(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 1000, 0))
        return f": process {about['pid']} on {about['host']}, since {about['since']}"
    except (ValueError, KeyError, TypeError, OSError):
        return ""
