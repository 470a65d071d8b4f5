"""A run that was stopped is started again: seconds from its start to the first `add` at the server.

The manifest is unchanged, and 30 % of the ledger's entries are due. The moment is that at which
nginx has read the first bytes of the call. The script of requests and threads is given results in
which the same rows are done.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path

import click

from .archives import Archive
from .bench import Bench
from .figures import OURS, Figure, figure
from .ledgers import fabricate
from .nginx import Nginx, running
from .process import measured, watched
from .unchanged import renew
from .ways import REQUESTS, Command, ours, script, surroundings

_DUE = 0.3
_MOST_SECONDS = 600.0
_LOOK_SECONDS = 0.02


def measure(bench: Bench) -> Iterator[Figure]:
    """Seconds to the first call, for ours and the script."""
    archive, rows = bench.small(), bench.size.many
    manifest = archive.manifest(rows).resolve()
    seconds: dict[str, list[float]] = {OURS: [], REQUESTS: []}
    with running(logged=True) as nginx, bench.scratch() as folder:
        part = folder / "part.sqlite"
        environ = surroundings(folder, nginx.endpoint)
        fabricate(part, archive, rows, enrolled=1 - _DUE)
        # The run that was stopped: it has scanned the manifest and kept the scan cache.
        stopped = ours("run", manifest, folder, "--limit", "1", ledger=part)
        measured(stopped, cwd=folder, environ=environ, codes=[0, 6])
        for _, name in bench.rounds(list(seconds)):
            if name == OURS:
                renew(folder / "ledger.sqlite", part)
                command = ours("run", manifest, folder)
            else:
                _results(folder / "results.csv", archive, round(rows * (1 - _DUE)))
                command = script("with_requests.py", manifest, nginx.endpoint, folder)
            seconds[name].append(_first_add(command, nginx, folder=folder, environ=environ))
            (folder / "results.csv").unlink(missing_ok=True)
    case = f"first call after a restart, {rows:,} entries"
    for name, values in seconds.items():
        yield figure(case, name, "wall time", values=values, unit="s", target="≤ 3")


def _first_add(command: Command, nginx: Nginx, *, folder: Path, environ: dict[str, str]) -> float:
    """Start it, and end it once its first call has been answered."""
    nginx.forget()
    with watched(command, cwd=folder, environ=environ) as process:
        until = time.monotonic() + _MOST_SECONDS
        while time.monotonic() < until:
            at = nginx.first_add()
            if at is not None:
                return at - process.started_at
            time.sleep(_LOOK_SECONDS)
    raise click.ClickException(f"No call within {_MOST_SECONDS:g} s: {command!r}")


def _results(path: Path, archive: Archive, rows: int) -> None:
    """What the script has written of the rows that are done."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "user_data", "image", "sha256", "face_token", "error"])
        writer.writerows([*line, "0" * 64, "0" * 32, ""] for line in archive.lines(rows))
