"""Workers of Dask beside threads: what a row takes, and of whom; how much goes through Dask; how
full the account's places are kept; and what the cores of a second machine add.

As in `row_cost`, everything is a difference between few rows and many.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from . import cluster
from .archives import Archive
from .bench import Bench
from .figures import OURS, Figure, figure
from .limits import figures, hold
from .nginx import running
from .row_cost import cost
from .ways import IN_FLIGHT, Way, ours, run, tokens_in_results

ROW_CASE = "a row of 64 KB by two workers of Dask"
PLACES_CASE = "places by two workers of Dask"
PREPARING_CASE = "preparing by workers of one core each"
LOCAL = "enroll, local:2"
THREADS = "enroll, threads"
ONE_WORKER = "enroll, one worker"

_LOCAL = ("--engine", "dask", "--scheduler", "local:2")
_WORKERS = 2
_SIDE = 1280
_TARGETS = {"CPU of the command": "≤ 1.1", "through the command": "≤ 10"}


def measure(bench: Bench) -> Iterator[Figure]:
    """CPU and bytes of a row; places; photos a second of one worker and of two."""
    if find_spec("distributed") is None:
        return
    yield from _rows(bench)
    yield from _places(bench)
    yield from _preparing(bench)


def _rows(bench: Bench) -> Iterator[Figure]:
    few, many = bench.size.engine_rows
    archive = bench.usual(max(*bench.size.row_cost, many))
    used: dict[tuple[str, str], list[float]] = defaultdict(list)
    with running() as nginx, cluster.running(_WORKERS) as dask:
        options = {OURS: dask.options, LOCAL: _LOCAL, THREADS: ()}
        _spent(bench, archive, nginx.endpoint, dask, dask.options, rows=few)  # they import it all
        for _, name in bench.rounds(list(options)):
            of_few, of_many = (
                _spent(bench, archive, nginx.endpoint, dask, options[name], rows=rows)
                for rows in (few, many)
            )
            for measure, spent in of_many.items():
                used[name, measure].append((spent - of_few[measure]) / (many - few))
    for (name, measure), values in used.items():
        unit = "kB" if measure.startswith("through") else "ms"
        target = _TARGETS.get(measure, "")
        yield figure(ROW_CASE, name, measure, values=values, unit=unit, target=target)


def _spent(
    bench: Bench,
    archive: Archive,
    endpoint: str,
    dask: cluster.Dask,
    options: Sequence[str],
    *,
    rows: int,
) -> dict[str, float]:
    """Milliseconds of processor and kilobytes of a run of so many rows. What a run starts itself
    is counted together."""
    before = dask.used()
    with bench.scratch() as folder:
        manifest = archive.manifest(rows).resolve()
        found = run(_way(options), manifest, endpoint, folder / "run", rows=rows)
    spent = {"CPU of the command": 1000 * found.own}
    if options == dask.options:
        spent |= {measure: now - before[measure] for measure, now in dask.used().items()}
    elif options:
        spent["CPU of scheduler and workers"] = 1000 * (found.cpu - found.own)
    return spent


def _way(options: Sequence[str]) -> Way:
    """Ours, with these options of `enroll run`."""
    usual = "--max-in-flight", str(IN_FLIGHT)
    return Way(
        command=lambda manifest, _, folder: ours("run", manifest, folder, *usual, *options),
        tokens=tokens_in_results,
    )


def _places(bench: Bench) -> Iterator[Figure]:
    """One round, as for other limits."""
    places, latency = bench.size.places
    case = f"{places} {PLACES_CASE}, calls of {latency:g} s"
    options = "--max-in-flight", str(places)
    for name, engine in ((OURS, _LOCAL), (THREADS, ())):
        held = hold(bench, [places], name=name, latency=latency, options=(*options, *engine))
        yield from figures(bench, case, name, held)


def _preparing(bench: Bench) -> Iterator[Figure]:
    """Workers have a core each, as if each were a machine; all else is wherever there is room."""
    cores = sorted(os.sched_getaffinity(0))[:_WORKERS]
    if len(cores) < _WORKERS:
        return
    archive, most = bench.large(), bench.size.large_photos
    side = "--max-side", str(_SIDE // bench.size.shrink)
    wall: dict[str, list[float]] = defaultdict(list)
    used = {OURS: cores, ONE_WORKER: cores[:1]}
    with running() as nginx:
        for _, name in bench.rounds(list(used)):
            with cluster.running(len(used[name]), cores=used[name]) as dask:
                way = _way((*side, *dask.options))
                cost(bench, way, archive, nginx.endpoint, (0, len(cores)))  # they import it all
                sizes = most // 8, most
                wall[name].append(cost(bench, way, archive, nginx.endpoint, sizes).wall)
    for name, values in wall.items():
        yield figure(PREPARING_CASE, name, "wall time", values=values, unit="ms")
    times = [one / two for one, two in zip(wall[ONE_WORKER], wall[OURS], strict=True)]
    yield figure(PREPARING_CASE, OURS, "photos", values=times, unit="× one", target="≥ 1.7")
