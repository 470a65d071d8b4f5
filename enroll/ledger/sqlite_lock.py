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
import stat
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from enroll import clock
from enroll.errors import LedgerBusyError, LocalError, UsageError
from enroll.ledger.sqlite_connection import refuse_network
from enroll.ownership import check_trusted, how_to_write

LOOK_SECONDS = 0.5
"""For so long a lock that is held may be held by somebody who only looks whether it is: `status`
and `verify` do, for an instant."""

LONGEST = 1000
"""Bytes of a lock file, more than enough for what is written into it."""

_AS_IT_IS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""No link is followed, as somebody else may have put it there, and no pipe waited for."""

_HELD = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


class LedgerLock(AbstractContextManager["LedgerLock"]):
    """Holds a ledger for this process until closed; see `enroll.ledger.LedgerHold`.

    Raises LedgerBusyError, saying who holds it, LocalError where no lock can be had or would not
    keep others out, and UsageError where somebody else's file or a link is in the lock's place.
    """

    def __init__(self, ledger: Path) -> None:
        ledger = Path(os.path.realpath(ledger))  # a link to a ledger is the same ledger
        refuse_network(ledger)
        self._path = ledger.with_name(ledger.name + ".lock")
        self._descriptor = _opened(self._path)
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
        try:
            _check_is_lock(self._descriptor, self._path)
        except UsageError:
            os.close(self._descriptor)
            raise
        said = _said(self._descriptor) or {}
        self.last_run = _moment(said, "last_run")
        self._caught_up = _moment(said, "caught_up")
        self._sign()

    def remember_run(self, at: int) -> None:
        self.last_run, self._caught_up = at, 0
        self._sign()

    @property
    def caught_up(self) -> bool:
        return self._caught_up == self.last_run != 0

    def mark_caught_up(self) -> None:
        self._caught_up = self.last_run
        self._sign()

    def _sign(self) -> None:
        """Write down who holds the lock, for whoever finds it held; on a full disk, nobody."""
        about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.fromtimestamp(clock.time(), UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            "last_run": self.last_run,
            "caught_up": self._caught_up,
        }
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(about).encode(), 0)

    def close(self) -> None:
        """Let the ledger go. The file stays: removing it would race with the next holder."""
        os.close(self._descriptor)

    def __exit__(self, *_: object) -> None:
        self.close()


def holder_of(ledger: Path) -> str | None:
    """Who holds a ledger, in words (they may be empty); None where nobody does.

    Asked by holding it for an instant; a run that begins in this very moment tries again.
    """
    ledger = Path(os.path.realpath(ledger))  # as the lock does
    try:
        descriptor = os.open(ledger.with_name(ledger.name + ".lock"), os.O_RDONLY | _AS_IT_IS)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _opened(path: Path) -> int:
    """A lock file's descriptor, made where it is missing. Raises LocalError, and UsageError for a
    file that others may write, or that is none."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _AS_IT_IS, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(
                f"The lock file {path} is a symbolic link, which is not followed. Remove the link "
                "if no run is in progress, or choose another place with --ledger."
            ) from error
        remedy = how_to_write(error, "Fix the folder's permissions")
        raise LocalError(
            f"No lock file can be made beside the ledger ({error.strerror}: {path}). {remedy}, or "
            "choose another place with --ledger."
        ) from error
    try:
        check_trusted(
            os.fstat(descriptor),
            path,
            what="The lock file",
            otherwise="choose another place with --ledger",
            group_may_write=True,
        )
    except UsageError:
        os.close(descriptor)
        raise
    return descriptor


def _check_is_lock(descriptor: int, path: Path) -> None:
    """Raise UsageError for a file that is no lock file: it may be a hard link to any file, and what
    it holds would be lost."""
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size <= LONGEST and _said(descriptor) is not None:
        return
    raise UsageError(
        f"{path} is not a lock file of enroll, and was left alone. Move it away, or choose another "
        "place with --ledger."
    )


def _take(descriptor: int) -> None:
    """Lock it for this process alone. Raises OSError, one of `_HELD` where somebody keeps it."""
    until = clock.monotonic() + LOOK_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD or clock.monotonic() >= until:
                raise
        clock.sleep(LOOK_SECONDS / 50)


def _said(descriptor: int) -> dict[str, Any] | None:
    """What a lock file says, nothing for an empty one; None for a file that is no lock file."""
    try:
        content = os.pread(descriptor, LONGEST, 0).strip(b"\0")  # NULs: left by a power cut
        said = json.loads(content) if content else {}
    except (ValueError, OSError):
        return None
    return said if isinstance(said, dict) else None


def _moment(said: dict[str, Any], name: str) -> int:
    moment = said.get(name)
    return moment if isinstance(moment, int) else 0


def _holder(descriptor: int) -> str:
    said = _said(descriptor) or {}
    if not {"pid", "host", "since"} <= said.keys():
        return ""
    return f": process {said['pid']} on {said['host']}, since {said['since']}"
