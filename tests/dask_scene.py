"""An archive that Dask's workers enroll, all of them real processes, and where chance strikes."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from archive import Archive
from dask_processes import Site

LONGEST = 200.0
"""Seconds; a command that takes longer hangs."""


@dataclass
class Scene:
    """An archive, the processes of Dask that enroll it, and where chance strikes."""

    archive: Archive
    site: Site
    chance: random.Random
    more: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)

    @property
    def said(self) -> str:
        return (self.archive.folder / "said.txt").read_text(encoding="utf-8")

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        """The command, at work."""
        command = replace(
            self.archive.command, environ={**self.archive.command.environ, **self.environ}
        )
        arguments = [
            *self.archive.arguments,
            *("--engine", "dask", "--scheduler", self.site.address, "--no-progress"),
            *self.more,
        ]
        with (
            (self.archive.folder / "said.txt").open("a", encoding="utf-8") as said,
            command.started(*arguments, stdout=said, stderr=said) as process,
        ):
            yield process

    def ended(self, process: subprocess.Popen[str]) -> int:
        """Wait for its end; the exit code."""
        code = process.wait(LONGEST)
        self.codes.append(code)
        return code

    def reached(self, process: subprocess.Popen[str], calls: int) -> bool:
        """Wait for a moment after so many calls; whether the command is still at work."""
        until = time.monotonic() + LONGEST
        while process.poll() is None and self.archive.calls() < calls:
            assert time.monotonic() < until, "it hangs"
            time.sleep(0.005)
        time.sleep(self.chance.uniform(0.0, 0.15))
        return process.poll() is None and not self.is_done()

    def is_done(self) -> bool:
        return self.archive.calls(ended=True) >= len(self.archive.rows)

    def problems(self) -> list[str]:
        """Run until everything is done; what is wrong then."""
        while not self.codes or self.codes[-1] != 0:
            if len(self.codes) > 12 or not set(self.codes) <= {0, 1, 4, 7, 9, -signal.SIGKILL}:
                return [f"ended with {self.codes}: {self.said}"]
            with self.started() as process:
                self.ended(process)
        return self.archive.problems()
