"""A large manifest of which nothing is due, beside rsync; and what its runs take in memory.

The first run of a manifest compares it row by row with the ledger; later ones use the scan cache
that the first has kept. rsync compares the same tree with itself: two looks a file, as with a copy.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .archives import IN_A_FOLDER, Archive
from .bench import Bench
from .figures import OURS, Figure, figure
from .ledgers import fabricate
from .nginx import running
from .process import Usage, measured
from .programs import find
from .ways import Command, ours, surroundings

CASE = "nothing to do"
FIRST = "enroll, first run"
RSYNC = "rsync -a --dry-run"
SYNC = "enroll sync"
AFTER_SYNC = "enroll, run after a sync"
FIRST_SYNC = "enroll, first sync"
NEXT_EXPORT = "enroll sync, next export"
_LEFT = 50
"""Rows, evenly spread, that a manifest has and the next export has not."""
_DUE = 0.3


def measure(bench: Bench) -> Iterator[Figure]:
    """Wall time, CPU and memory of a run that finds nothing to do."""
    archive, rows = bench.small(), bench.size.many
    manifest = archive.manifest(rows).resolve()
    used: dict[str, list[Usage]] = defaultdict(list)
    names = ["enroll, then enroll again", *([RSYNC] if find("rsync") else [])]
    with running() as nginx, bench.scratch() as folder:
        full = folder / "full.sqlite"
        fabricate(full, archive, rows)
        environ = surroundings(folder, nginx.endpoint)
        ledger = folder / "ledger.sqlite"
        for _, name in bench.rounds(names):
            if name == RSYNC:
                used[RSYNC].append(_rsync(archive, rows, folder=folder, environ=environ))
                continue
            renew(ledger, full)
            (folder / "results.csv").unlink(missing_ok=True)
            for way in (FIRST, OURS):
                command = ours("run", manifest, folder)
                used[way].append(measured(command, cwd=folder, environ=environ))
    yield from _figures(f"{CASE}, {rows:,} rows", used, targets={OURS: "≤ rsync"})


def _figures(
    case: str, used: Mapping[str, Sequence[Usage]], *, targets: Mapping[str, str]
) -> Iterator[Figure]:
    """Time, CPU and memory of each way; `targets` are those for the time."""
    for way, usages in used.items():
        walls, target = [one.wall for one in usages], targets.get(way, "")
        yield figure(case, way, "wall time", values=walls, unit="s", target=target)
        yield figure(case, way, "CPU", values=[one.cpu for one in usages], unit="s")
        memory = [one.memory / 1e6 for one in usages]
        yield figure(case, way, "memory", values=memory, unit="MB", target="≤ 200")


def measure_due(bench: Bench) -> Iterator[Figure]:
    """Memory of a run on the same manifest with a part due, of which it takes up some."""
    archive, rows = bench.small(), bench.size.many
    limit = max(rows // 100, 1)
    memory = []
    with running() as nginx, bench.scratch() as folder:
        part = folder / "part.sqlite"
        fabricate(part, archive, rows, enrolled=1 - _DUE)
        environ = surroundings(folder, nginx.endpoint)
        ledger = folder / "ledger.sqlite"
        for _ in bench.rounds([OURS]):
            renew(ledger, part)
            command = ours("run", archive.manifest(rows).resolve(), folder, "--limit", str(limit))
            used = measured(command, cwd=folder, environ=environ, codes=[6])
            memory.append(used.memory / 1e6)
    case = f"{rows:,} rows, 30 % due, {limit:,} taken up"
    yield figure(case, OURS, "memory", values=memory, unit="MB", target="≤ 200")


def measure_sync(bench: Bench) -> Iterator[Figure]:
    """A sync that finds nothing to do, compared with such a run, and the run after it; a sync of
    the next export, compared with a first one, which compares everybody."""
    rows = bench.size.many
    manifest = bench.small().manifest(rows).resolve()
    used: dict[str, list[Usage]] = defaultdict(list)
    with running() as nginx, bench.scratch() as folder:
        fabricate(folder / "ledger.sqlite", bench.small(), rows)
        environ = surroundings(folder, nginx.endpoint)

        def run(word: str, way: str, rows_of: Path = manifest) -> None:
            used[way].append(measured(ours(word, rows_of, folder), cwd=folder, environ=environ))

        run("sync", FIRST_SYNC)
        for _, word in bench.rounds(["run", "sync, run"]):
            if word == "run":
                run("run", OURS)
            else:
                run("sync", SYNC)
                run("run", AFTER_SYNC)
        with _next_export(manifest, rows) as shorter:
            run("sync", NEXT_EXPORT, shorter)
    yield from _figures(f"quiet sync, {rows:,} rows", used, targets={SYNC: "≤ 1.3 × run"})


@contextmanager
def _next_export(manifest: Path, rows: int) -> Iterator[Path]:
    """The manifest without some rows, beside it, as its photos are relative to it."""
    path, step = manifest.with_name("next.csv"), max(rows // _LEFT, 2)
    with manifest.open() as lines, path.open("w") as next_lines:
        next_lines.writelines(line for number, line in enumerate(lines) if number % step != 1)
    try:
        yield path
    finally:
        path.unlink()


def renew(ledger: Path, master: Path) -> None:
    """Put a copy of a ledger in the place of the one that was used."""
    for path in ledger.parent.glob(f"{ledger.name}*"):
        path.unlink()
    shutil.copyfile(master, ledger)
    ledger.chmod(0o600)


def _rsync(archive: Archive, rows: int, *, folder: Path, environ: dict[str, str]) -> Usage:
    """Compare the folders of the first `rows` photos with themselves."""
    photos = archive.folder.resolve() / "p"
    subfolders = [photos / f"{number:04}" for number in range(-(-rows // IN_A_FOLDER))]
    command: Command = ("rsync", "-a", "--dry-run", *subfolders, photos)
    return measured(command, cwd=folder, environ=environ)
