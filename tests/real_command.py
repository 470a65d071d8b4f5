"""The command, as a process of its own or (much quicker) in this one."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any, TextIO
from unittest.mock import patch

import forked
from forked import Forked
from moved_clock import ahead, later

from enroll.cli import exit_code_of
from enroll.cli.signals import SIGNALS
from enroll.sandbox import Sandbox
from enroll.text.logs import LOGGER

SECONDS = 60.0
"""Nothing here takes so long; a command that does is stuck."""

NO_LIMITS: Mapping[int, tuple[int, int]] = {}

LIMITED = """
import os, resource, sys
for limit in {}.items():
    resource.setrlimit(*limit)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A program that becomes another one with limits."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """What was said on stderr after where the calls go."""
        lines = self.err.splitlines(keepends=True)
        banner = [line.split()[0] for line in lines[:2]] == ["Endpoint", "Account"]
        return "".join(lines[2:]) if banner else self.err


@dataclass(frozen=True)
class Command:
    """`enroll`, started in `folder` with `home` for its home and nothing else of ours around it.

    `environ` holds the ENROLL_ variables that it gets.
    """

    home: Path
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """Where ledgers are that no --ledger names."""
        return self.home / "state" / "enroll"

    @property
    def ledger(self) -> Path:
        """The ledger of the stand-in's library `staff`."""
        return self.state / "127.0.0.1" / "staff.sqlite"

    def surroundings(self) -> dict[str, str]:
        """The whole environment of the command."""
        self.home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            **self.environ,
        }

    def run(
        self,
        *arguments: object,
        wrapped: Sequence[str] = (),
        fresh: bool = False,
        limits: Mapping[int, tuple[int, int]] = NO_LIMITS,
    ) -> Done:
        """Run it as a process; `wrapped` stands before it, as `nohup` does, a `fresh` one loads its
        modules by itself, and `limits` are its soft and hard ones, as `resource` numbers them."""
        with self.started(*arguments, wrapped=wrapped, fresh=fresh, limits=limits) as process:
            out, err = process.communicate(timeout=SECONDS)
        return Done(process.returncode, out, err)

    @contextmanager
    def started(
        self,
        *arguments: object,
        wrapped: Sequence[str] = (),
        fresh: bool = False,
        limits: Mapping[int, tuple[int, int]] = NO_LIMITS,
        **streams: Any,
    ) -> Iterator[subprocess.Popen[str]]:
        """Start it as a process, which is killed if it is still there in the end, or is stuck.

        A `fresh` one loads its modules by itself.
        """
        pipes: Mapping[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options = {
            "cwd": self.folder,
            "env": self.surroundings(),
            "stdin": subprocess.DEVNULL,
            **pipes,
            **streams,
        }
        given = [str(argument) for argument in arguments]
        process: subprocess.Popen[str]
        fresh = fresh or any(name.startswith(("PYTHON", "LC_")) for name in self.environ)
        if forked.available and not (fresh or wrapped or streams.keys() - pipes.keys()):
            process = Forked(given, ahead=ahead(), limits=limits, **options)
        else:
            begun = [*wrapped, sys.executable, *(later() or ("-m", "enroll")), *given]
            if limits:
                begun = [sys.executable, "-c", LIMITED.format(dict(limits)), *begun]
            process = subprocess.Popen(begun, text=True, **options)
        # Whoever reads what one that is stuck says, or waits for its end, is stuck as well.
        stuck = Timer(4 * SECONDS, process.kill)
        stuck.daemon = True
        stuck.start()
        with process:
            try:
                yield process
            finally:
                stuck.cancel()
                process.kill()

    def __call__(self, *arguments: object) -> Done:
        """Run it within this process: the same words in, the same words and code out."""
        out, err = _text(), _text()
        code = self.within(arguments, out, err)
        return Done(code, _said(out), _said(err))

    def within(self, arguments: Sequence[object], out: TextIO, err: TextIO) -> int:
        """Run it within this process with these streams, and leave no handler behind; returns the
        exit code."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            with (
                patch.dict(os.environ, self.surroundings(), clear=True),
                chdir(self.folder),
                redirect_stdout(out),
                redirect_stderr(err),
            ):
                return exit_code_of([str(argument) for argument in arguments])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for logged in list(LOGGER.handlers):
                LOGGER.removeHandler(logged)
                logged.close()


def account_of(box: Sandbox) -> dict[str, str]:
    """What the environment says for a run to go to this stand-in."""
    return {
        "ENROLL_ENDPOINT": box.endpoint,
        "ENROLL_API_KEY": box.api_key,
        "ENROLL_API_SECRET": box.api_secret,
    }


def _text() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _said(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()
