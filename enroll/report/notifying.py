"""Tells others how a run goes: `--ping` a monitor, `--after` a command. Neither can fail a run."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

import requests

from enroll import __version__, clock
from enroll.credentials import without_secrets
from enroll.errors import ExitCode, UsageError
from enroll.text.logs import log

MOST_SECONDS = 10.0
"""How long a ping or a command may keep the run; both together take no longer."""

PING_SECONDS = 4.0
"""Time limit for the connection of a ping, and for each wait for a part of its answer."""

SHOWN_OUTPUT = 2_000
"""Bytes of a failed command's output that the log shows, the last ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifications:
    """What to call: `ping` is the base URL of a check, as of healthchecks.io
    (https://healthchecks.io/docs/http_api/), `after` a command line. The command has the variables
    of `environment`, without key and secret."""

    ping: str | None = None
    after: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def check(self) -> None:
        """Raise UsageError for what cannot be called, before anything is done."""
        if self.ping is not None and not _is_url(self.ping):
            raise UsageError(
                "--ping is not a URL that begins with http:// or https://. Give the URL of "
                "your monitor's check."
            )
        if self.after is not None:
            try:
                words = shlex.split(self.after)
            except ValueError as error:
                raise UsageError(
                    f"--after cannot be split into words: {error}. Check its quotes."
                ) from error
            if not words:
                raise UsageError("--after is empty. Give a command, or leave it out.")

    def began(self) -> None:
        """Ping that a run begins. Does not wait for the answer."""
        if self.ping is not None:
            _in_background(partial(_ping, self.ping, "start"))

    def ended(self, exit_code: ExitCode, figures: str) -> None:
        """Ping how the run has ended, and run the command with the `figures`, JSON, on its standard
        input. Waits for both, `MOST_SECONDS` at most."""
        until = clock.monotonic() + MOST_SECONDS
        pinging = None
        # Another run has this ledger: how it goes is what its own pings say.
        if self.ping is not None and exit_code is not ExitCode.LEDGER_BUSY:
            what = str(int(exit_code)) if exit_code else ""
            pinging = _in_background(partial(_ping, self.ping, what))
        if self.after is not None:
            safe = without_secrets(self.environment)
            _run(shlex.split(self.after), figures, environment=safe)
        if pinging is not None:
            pinging.join(max(until - clock.monotonic(), 0.0))


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for one that is no number, or too large
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _in_background(act: Callable[[], None]) -> threading.Thread:
    # A daemon, because the process must not wait for a monitor that does not answer.
    thread = threading.Thread(target=act, name="enroll-ping", daemon=True)
    thread.start()
    return thread


def _ping(url: str, what: str) -> None:
    """GET the URL, with `what` appended to its path."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + f"/{what}" if what else parts.path
    target = urlunsplit(parts._replace(path=path))
    try:
        # A page to which a redirect leads, such as a login, would answer in the monitor's place.
        answer = requests.get(
            target,
            timeout=PING_SECONDS,
            headers={"User-Agent": f"enroll/{__version__}"},
            allow_redirects=False,
        )
        well = answer.status_code < 300
        trouble = "" if well else f"it answered HTTP {answer.status_code}"
    except requests.RequestException as error:
        trouble = type(error).__name__
    if trouble:
        # Whoever has the URL can fake a ping, so only the host is shown.
        host = parts.hostname
        _warn(f"The ping to {host} failed ({trouble}). The run is not affected: check --ping.")


def _run(words: Sequence[str], figures: str, *, environment: Mapping[str, str]) -> None:
    # Files, not pipes: what the command leaves in the background may keep its output open.
    with ExitStack() as files:
        try:
            given = files.enter_context(_in_memory())
            output = files.enter_context(_file_or_none())
            given.write(figures.encode())
            given.seek(0)
            process = subprocess.Popen(  # noqa: S603  # what the user has named
                words,
                stdin=given,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            _warn(f"The command of --after could not be started: {error.strerror}. Check --after.")
            return
        try:
            process.wait(MOST_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _warn(
                f"The command of --after took longer than {MOST_SECONDS:.0f} seconds and was "
                "killed. Let it start longer work in the background."
            )
            return
        if process.returncode:
            output.seek(max(output.seek(0, os.SEEK_END) - SHOWN_OUTPUT, 0))
            said = output.read().decode(errors="replace").strip()
            how = (
                f"ended with exit code {process.returncode}"
                if process.returncode > 0
                else f"was killed by signal {-process.returncode}"
            )
            _warn(
                f"The command of --after {how}; the run is not "
                f"affected.{f' It printed: {said}' if said else ''}"
            )


def _in_memory() -> IO[bytes]:
    """A file, if possible in memory: the run may have ended because the disk is full."""
    if hasattr(os, "memfd_create"):  # Linux
        return os.fdopen(os.memfd_create("figures"), "w+b")
    return tempfile.TemporaryFile()


def _file_or_none() -> IO[bytes]:
    """A file for the command's output, or one that keeps nothing."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return Path(os.devnull).open("r+b")


def _warn(message: str) -> None:
    log("warning", f"Warning: {message}", {}, level=logging.WARNING)
