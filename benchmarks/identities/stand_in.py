"""`enroll sandbox` as a process of its own, and what it was asked for."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

GROUP_ID = "staff"
KEY, SECRET = "identity-key", "identity-secret"
"""Of an account that exists on this machine only, while the benchmark runs."""

_STORE = "service.sqlite"
_SAID = re.compile(r"Calls: (.*)\.")


@dataclass
class StandIn:
    """Where it listens; when it has stopped, calls by kind and the seconds of processor."""

    endpoint: str
    calls: dict[str, int] = field(default_factory=dict)
    cpu: float = 0.0


@contextmanager
def stand_in(folder: Path, *, seed: int) -> Iterator[StandIn]:
    """Start it on what an earlier one has stored in `folder`; it stops at the end of the block.

    Raises ClickException when it ends by itself.
    """
    command = [
        *(sys.executable, "-m", "enroll", "sandbox", "--port", "0", "--store", _STORE),
        *("--library", GROUP_ID, "--matcher", "model", "--seed", str(seed)),
    ]
    environ = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "ENROLL_API_KEY": KEY,
        "ENROLL_API_SECRET": SECRET,
    }
    with subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        try:
            box = StandIn(_endpoint(process))
            yield box
            process.send_signal(signal.SIGTERM)
            said = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            box.cpu = used.ru_utime + used.ru_stime
            box.calls = _counted(said)
        finally:
            if process.returncode is None:
                process.kill()
    if process.returncode:
        raise click.ClickException(f"The stand-in left with {process.returncode}: {said}")


def faces_in(folder: Path) -> Counter[tuple[str, str]]:
    """`user_id` and SHA-256 (hex) of the photo of each face, once the stand-in has stopped."""
    with closing(sqlite3.connect(folder / _STORE)) as store:
        return Counter(store.execute("SELECT user_id, lower(hex(sha256)) FROM face"))


def _endpoint(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    endpoint = ""
    for line in process.stdout:
        name, _, value = line.strip().removeprefix("export ").partition("=")
        if name == "ENROLL_ENDPOINT":
            endpoint = value
        if name.startswith("enroll library list"):
            return endpoint
    raise click.ClickException("The stand-in has not started.")


def _counted(said: str) -> dict[str, int]:
    found = _SAID.search(said)
    if found is None:
        return {}
    words = (one.split() for one in re.split(r", (?=\d)", found[1]))
    return {kind: int(count.replace(",", "")) for count, kind in words}
