"""Log lines for people or for programs, on stderr and in a file. No secrets, ids masked."""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TextIO

from enroll.errors import UsageError
from enroll.ownership import check_trusted
from enroll.text.wording import as_shown
from enroll.visible import json_text, path_text, visible

LOGGER = logging.getLogger("enroll")

_OTHERS = logging.getLogger()
"""Loggers of libraries: their warnings would be printed raw among log lines that are objects."""


TRACEBACK = "traceback"
"""The field of a bug's traceback; in a text log it is written as lines of its own."""

NAMELESS = "***"
"""What a short user id is masked to."""


def mask(user_id: str) -> str:
    """Mask a user id so that those who know it recognise it and nobody else can read it:
    `10***7`."""
    if len(user_id) < 6:
        return NAMELESS
    return f"{user_id[:2]}***{user_id[-1]}"


def several(people: Sequence[str], *, most: int, shown: bool) -> str:
    """The first of some people, by their user ids if they may be `shown`, else masked; those that
    a mask would leave without a name are only counted."""
    names = [one if shown else mask(one) for one in people]
    named = [one for one in names if shown or one != NAMELESS]
    hint = " (--show-user-ids names them)" if len(named) < len(names) else ""
    first = named[:most]
    left = len(names) - len(first)
    if not first:
        return f"{left:,} {'person' if left == 1 else 'people'}{hint}"
    return ", ".join(first) + (f" and {left:,} more{hint}" if left else "")


class LastingStream:
    """A stream whose reader may go away: what can no longer be shown is dropped.

    Closing a terminal must not end a run.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def close(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.close()

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        """tqdm reads it to choose between blocks and ASCII."""
        return self._stream.encoding


class _LogFile(LastingStream):
    """Says once that lines are lost: of a run with --quiet, the file may be the only trace."""

    def __init__(self, stream: TextIO, file: Path) -> None:
        super().__init__(stream)
        self._file = file
        self._said = False

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and not self._said:
                self._said = True
                log(
                    "warning",
                    f"Warning: the log file {self._file} cannot be written: {error.strerror}. The "
                    "run is not affected.",
                    {},
                    level=logging.WARNING,
                )
            return len(text)


class _FileHandler(logging.StreamHandler[LastingStream]):
    """Closes its file without raising; logging's own would end a run on a full disk."""

    def close(self) -> None:
        super().close()
        self.stream.close()


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S")
        line = f"{at} {record.levelname.lower()}: {visible(record.getMessage())}"
        bug = getattr(record, "fields", {}).get(TRACEBACK)
        return "\n".join([line, *map(visible, bug.splitlines())]) if bug else line


class _Bare(logging.Formatter):
    """A sentence for a person, wrapped to the terminal that shows it."""

    def __init__(self, stream: LastingStream) -> None:
        super().__init__()
        self._stream = stream

    def format(self, record: logging.LogRecord) -> str:
        what = "Note: " if getattr(record, "event", "") == "note" else ""
        return as_shown([f"{what}{record.getMessage()}"], self._stream).removesuffix("\n")


class _Json(logging.Formatter):
    """One object per line: time, level, event, run, message, and the event's own fields."""

    run: ClassVar[int | None] = None

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "run": self.run,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json_text(told)


_OURS = (_Text, _Bare, _Json)


def log(
    event: str,
    message: str,
    fields: Mapping[str, Any],
    *,
    level: int = logging.INFO,
    aside: bool = False,
) -> None:
    """Log an event: a sentence for people, fields for programs.

    An `aside` event goes only into complete logs: a terminal shows it differently, and with --quiet
    it is not shown at all.
    """
    extra = {"event": event, "fields": dict(fields), "aside": aside}
    LOGGER.log(level, "%s", message, extra=extra)


def log_run(number: int | None) -> None:
    """Name the run in every JSON line from now on."""
    _Json.run = number


def log_error(message: str, exit_code: int, **more: str) -> bool:
    """Log why a command ends, with the fields in `more`: to the log file, and to stderr if its log
    lines are JSON objects. Returns False if the message still has to be shown on stderr."""
    record = _record("error", message, {"exit_code": exit_code, **more}, level=logging.ERROR)
    as_json = logs_json()
    for handler in LOGGER.handlers:
        if as_json or isinstance(handler, _FileHandler):
            handler.handle(record)
    return as_json


def log_signal(message: str, fields: Mapping[str, Any]) -> bool:
    """The same for a signal, from its handler: without Python's locks and buffers, which the signal
    may have interrupted in the middle of a write."""
    record = _record("signal", message, fields, level=logging.WARNING)
    as_json = logs_json()
    # The file first: a second signal, sent by whoever reads stderr, finds the line in both.
    for handler in reversed(LOGGER.handlers):
        if isinstance(handler, logging.StreamHandler) and (
            as_json or isinstance(handler, _FileHandler)
        ):
            with suppress(OSError, ValueError):
                os.write(handler.stream.fileno(), f"{handler.format(record)}\n".encode())
    return as_json


def logs_json() -> bool:
    """Whether log lines are objects: then nothing else may be printed among them."""
    return any(isinstance(handler.formatter, _Json) for handler in LOGGER.handlers)


def _record(
    event: str, message: str, fields: Mapping[str, Any], *, level: int
) -> logging.LogRecord:
    extra = {"event": event, "fields": dict(fields), "aside": False}
    return LOGGER.makeRecord(LOGGER.name, level, "", 0, "%s", (message,), None, extra=extra)


def set_up(*, stream: LastingStream, as_json: bool, file: Path | None, quiet: bool) -> None:
    """Send log lines to `stream` (all of them as JSON, as text only warnings) and to a file.

    Raises UsageError for a file that cannot be written.
    """
    log_run(None)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    for logger in (LOGGER, _OTHERS):
        for old in [each for each in logger.handlers if isinstance(each.formatter, _OURS)]:
            logger.removeHandler(old)
            old.close()
    shown: logging.Handler = logging.StreamHandler(stream)
    shown.setFormatter(_Json() if as_json else _Bare(stream))
    if quiet or not as_json:
        shown.setLevel(logging.WARNING)
        shown.addFilter(lambda record: not getattr(record, "aside", False))
    _send_to(shown)
    if file is not None:
        _send_to(_file_handler(file, as_json=as_json))


def take_over() -> None:
    """Log what Python itself would print on stderr: warnings, and exceptions that nobody caught."""
    warnings.showwarning = _log_warning
    threading.excepthook = lambda lost: _log_lost(lost.exc_value, lost.thread)
    sys.unraisablehook = lambda lost: _log_lost(lost.exc_value, lost.object)


def _send_to(handler: logging.Handler) -> None:
    LOGGER.addHandler(handler)
    _OTHERS.addHandler(handler)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    where = {"category": category.__name__, "file": path_text(filename), "line": lineno}
    log("warning", f"{category.__name__}: {message}", where, level=logging.WARNING)


def _log_lost(error: BaseException | None, where: object) -> None:
    told = "".join(traceback.format_exception(error)) if error is not None else ""
    message = f"{type(error).__name__} in {where!r}: {error}"
    log("warning", message, {"traceback": told}, level=logging.WARNING)


_OF_THE_SYSTEM = ("/dev", "/dev/fd", "/proc/self/fd")
"""Folders in which only the system can have made links, such as `/dev/stderr`."""


def _file_handler(file: Path, *, as_json: bool) -> logging.Handler:
    handler = _FileHandler(_LogFile(_opened(file), file))
    handler.setFormatter(_Json() if as_json else _Text())
    return handler


def _opened(file: Path) -> TextIO:
    """The log file, opened for appending. Raises UsageError, also for a link or another user's
    file: in a folder that others can write, they could make the log overwrite any file of this
    user."""
    of_the_system = str(file.absolute().parent) in _OF_THE_SYSTEM
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    flags |= 0 if of_the_system else os.O_NOFOLLOW
    try:
        # Opening a pipe that nobody reads would wait for a reader, and no signal would end that.
        descriptor = os.open(file, flags | os.O_NONBLOCK, 0o600)
        os.set_blocking(descriptor, True)
        opened = os.fdopen(
            descriptor, "a", 1, encoding="utf-8", errors="backslashreplace"
        )  # by lines: a second signal ends the process without flushing
    except OSError as error:
        if error.errno == errno.ENXIO and file.is_fifo():
            raise UsageError(
                f"The log file {file} is a pipe that nobody reads. Start its reader first, or name "
                "another with --log-file."
            ) from error
        if error.errno == errno.ELOOP:
            raise UsageError(
                f"The log file {file} is a symbolic link, which is not followed. Name the file "
                "itself with --log-file."
            ) from error
        raise UsageError(
            f"The log file {file} cannot be written: {error.strerror}. "
            "Name another with --log-file."
        ) from error
    found = os.fstat(opened.fileno())
    if stat.S_ISREG(found.st_mode) and not of_the_system:
        try:
            _check_log(found, file)
        except UsageError:
            opened.close()
            raise
        if _is_cut_off(file):
            opened.write("\n")
    return opened


def _is_cut_off(file: Path) -> bool:
    """Whether a log ends within a line, as after a full disk or a kill: the next line would not be
    JSON either."""
    with suppress(OSError), file.open("rb") as log:
        log.seek(-1, os.SEEK_END)  # of an empty file an OSError
        return log.read(1) != b"\n"
    return False


def _check_log(found: os.stat_result, file: Path) -> None:
    check_trusted(
        found,
        file,
        what="The log file",
        otherwise="name another with --log-file",
        group_may_write=True,
    )
    if found.st_nlink > 1:
        raise UsageError(
            f"The log file {file} has another name (a hard link) and might be any file. Name "
            "another with --log-file."
        )
