"""A ledger in PostgreSQL beside one in a file: a quiet night, what a row costs, and how fast it is.

The server is a child of this process, reached by its Unix socket, with its settings as they are.
Its data are where temporary files are. What it computes itself is not in the command's CPU, and is
in all wall times.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from enroll.addresses import ledger_named
from enroll.ledger import Changes, Ledger, LibraryIdentity, ledger_at
from enroll.model import ScannedRow, Status
from enroll.photos import open_store

from . import postgres
from .archives import Archive
from .bench import Bench
from .figures import OURS, Figure, figure
from .ledgers import changes_of, fabricate, run_start
from .nginx import ADD_TIME, GROUP_ID, running
from .postgres import PostgresServer
from .process import Usage, measured
from .ways import ours, surroundings

SQLITE = "enroll, SQLite"
QUIET = "quiet night, ledger in PostgreSQL"
COMPARED = "an unchanged row compared in PostgreSQL"
RECORDED = "a row recorded in PostgreSQL"

_CHUNK = 2_000
"""Rows that a run compares at a time."""

_MOST_RECORDED = 20_000

_BATCH = 8
"""Outcomes, and as many intents, of a commit."""


def measure(bench: Bench) -> Iterator[Figure]:
    """All of it; nothing where there is no server."""
    if missing := postgres.missing():
        click.echo(f"  left out, as there is no {missing}", err=True)
        return
    with postgres.running() as server:
        yield from _quiet(bench, server)
        yield from _in_process(bench, server)


def _quiet(bench: Bench, server: PostgresServer) -> Iterator[Figure]:
    """A sync and a run that find nothing to do, of the same rows over both, each after a first."""
    archive, rows = bench.small(), bench.size.many
    manifest = archive.manifest(rows).resolve()
    used: dict[tuple[str, str], list[Usage]] = defaultdict(list)
    with running() as nginx, bench.scratch() as folder:
        # Each has a folder of its own: results that another ledger has written are written again.
        folders = {way: folder / name for way, name in ((OURS, "postgres"), (SQLITE, "sqlite"))}
        for of_way in folders.values():
            of_way.mkdir()
        address = ledger_named(server.address("quiet"))
        ways = {OURS: address, SQLITE: folders[SQLITE] / "ledger.sqlite"}
        environ = surroundings(folder, nginx.endpoint)

        def give(word: str, way: str, kept: str) -> None:
            command = ours(word, manifest, folders[way], ledger=ways[way])
            used[kept, way].append(measured(command, cwd=folders[way], environ=environ))

        for way, ledger in ways.items():
            fabricate(ledger, archive, rows)
            give("run", way, "first run")
            give("sync", way, "first sync")
        server.vacuum()  # as it does itself within minutes, long before the next night
        for _, way in bench.rounds(list(ways)):
            give("run", way, "run")
            give("sync", way, "sync")
    for (word, way), usages in used.items():
        case = f"{QUIET}: {word}, {rows:,} rows"
        target = "≤ 1.2 × SQLite" if word in ("run", "sync") else ""
        walls = [one.wall for one in usages]
        yield figure(case, way, "wall time", values=walls, unit="s", target=target)
        yield figure(case, way, "CPU", values=[one.cpu for one in usages], unit="s")
        memory = [one.memory / 1e6 for one in usages]
        yield figure(case, way, "memory", values=memory, unit="MB", target="≤ 200")


def _in_process(bench: Bench, server: PostgresServer) -> Iterator[Figure]:
    """What a ledger takes of this process, and how long, for rows recorded and then compared."""
    archive, rows = bench.small(), min(bench.size.many, _MOST_RECORDED)
    costs: dict[tuple[str, str], list[_Cost]] = defaultdict(list)
    with bench.scratch() as folder:
        for number, way in bench.rounds([OURS, SQLITE]):
            address = ledger_named(server.address(f"recorded_{number}"))
            path = address if way == OURS else folder / f"{number}.sqlite"
            with closing(_opened(path)) as ledger:
                run = ledger.start_run(run_start(archive, archive.manifest(rows)))
                batches = _batches(ledger, archive, rows, run=run)
                costs[RECORDED, way].append(_cost(rows, partial(_record, ledger, batches)))
                chunks = _chunks(batches)
                costs[COMPARED, way].append(_cost(rows, partial(_compare, ledger, chunks, run)))
    targets = {
        RECORDED: (f"≤ {1e6 / 1_500:.0f}, for 1,500 a second", "≤ 2.5 × SQLite"),
        COMPARED: ("≤ 15", ""),
    }
    for (case, way), found in costs.items():
        for measure, values, target in zip(
            ("wall time", "CPU"), zip(*found, strict=True), targets[case], strict=True
        ):
            yield figure(case, way, measure, values=values, unit="µs", target=target)


_Cost = tuple[float, float]
"""Microseconds a row: of wall time, and of this process's CPU."""


def _cost(rows: int, do: Callable[[], None]) -> _Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    used = time.perf_counter() - wall, time.process_time() - cpu
    return 1e6 * used[0] / rows, 1e6 * used[1] / rows


def _opened(path: Path) -> Ledger:
    identity = LibraryIdentity(host="127.0.0.1", group_id=GROUP_ID, add_time=ADD_TIME)
    return ledger_at(path).open(identity, began_empty=True)


def _batches(ledger: Ledger, archive: Archive, rows: int, *, run: int) -> list[list[Changes]]:
    """What is recorded of rows in the end, as many in a batch as a commit has."""
    store, lines = open_store(archive.folder.resolve()), list(enumerate(archive.lines(rows)))
    of_a_row = [changes_of(ledger, archive, [line], run=run, store=store) for line in lines]
    return [of_a_row[first : first + _BATCH] for first in range(0, rows, _BATCH)]


def _record(ledger: Ledger, batches: Sequence[Sequence[Changes]]) -> None:
    """As a run does whose calls are answered eight at a time: each commit has their outcomes, and
    the intents of the next."""
    ended: Sequence[Changes] = ()
    for batch in (*batches, ()):
        for changes in (*ended, *map(_begun, batch)):
            ledger.record(changes)
        ledger.commit()
        ended = batch


def _begun(ended: Changes) -> Changes:
    """The intent before an outcome."""
    (face,) = ended.faces
    sending = replace(face, status=Status.SENDING, face_token=None, enrolled_at=None)
    return Changes(faces=[sending], rows=ended.rows, photos=ended.photos)


def _chunks(batches: Sequence[Sequence[Changes]]) -> list[list[ScannedRow]]:
    """The same rows as a scan finds them."""
    scanned = []
    for line, changes in enumerate((one for batch in batches for one in batch), start=2):
        (row,), (photo,) = changes.rows, changes.photos
        scanned.append(
            ScannedRow(
                line=line,
                user_id=row.user_id,
                user_data=row.user_data,
                image=row.path,
                path=row.path,
                times=photo.times,
            )
        )
    return [scanned[first : first + _CHUNK] for first in range(0, len(scanned), _CHUNK)]


def _compare(ledger: Ledger, chunks: Sequence[Sequence[ScannedRow]], run: int) -> None:
    """As a run does that scans a manifest of which nothing has changed."""
    for rows in chunks:
        found = ledger.due_rows.compare(rows, run=run)
        if found.unchanged != len(rows):
            raise click.ClickException(f"{found} of {len(rows)} unchanged rows")
    ledger.commit()
