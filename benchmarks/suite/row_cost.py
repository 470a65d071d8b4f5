"""What a row costs: photos of 64 KB, over plain HTTP and over HTTPS, everything but start-up in.

Each way enrolls two manifests, the smaller one the beginning of the larger; the difference of what
they take, divided by the difference of their rows, is what a row takes. So start-up, opening calls
and closing are left out where they do not grow with the rows, and whatever grows is in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .archives import Archive
from .bench import Bench
from .figures import OURS, Figure, figure
from .nginx import Nginx, running
from .process import Usage
from .ways import PARALLEL, REQUESTS, Way, run, trusting, ways

CASE = "a row of 64 KB"
TLS_CASE = "a row of 64 KB over HTTPS"
PLAIN = "enroll over HTTP"
_TARGET = "≤ 0.7"


def measure(bench: Bench) -> Iterator[Figure]:
    """CPU and wall time of a row, and the most memory, for every way."""
    with running() as nginx:
        known = {name: (way, nginx) for name, way in ways().items()}
        yield from _measured(bench, CASE, known, bench.size.row_cost, target=_TARGET)


def measure_tls(bench: Bench) -> Iterator[Figure]:
    """The same over HTTPS for ours and the script of requests and threads, and for ours over HTTP
    in the same rounds: the difference is what TLS costs."""
    known = ways()
    with running() as plain, running(tls=True) as secure:
        beside = {
            OURS: (trusting(known[OURS], secure.authority), secure),
            PLAIN: (known[OURS], plain),
            REQUESTS: (trusting(known[REQUESTS], secure.authority), secure),
        }
        yield from _measured(bench, TLS_CASE, beside, bench.size.tls_row_cost)


def _measured(
    bench: Bench,
    case: str,
    known: Mapping[str, tuple[Way, Nginx]],
    usual: tuple[int, int],
    *,
    target: str = "",
) -> Iterator[Figure]:
    """Each way to the server that belongs to it, between two numbers of rows."""
    archive = bench.usual(max(bench.size.row_cost))
    costs: dict[str, list[RowCost]] = defaultdict(list)
    for _, name in bench.rounds(list(known)):
        way, nginx = known[name]
        sizes = bench.size.slow_row_cost if name == PARALLEL else usual
        costs[name].append(cost(bench, way, archive, nginx.endpoint, sizes))
    for name, found in costs.items():
        cpu, wall, memory = zip(*found, strict=True)
        yield figure(case, name, "CPU", values=cpu, unit="ms", target=target)
        yield figure(case, name, "wall time", values=wall, unit="ms")
        yield figure(case, name, "memory", values=memory, unit="MB")


class RowCost(NamedTuple):
    """What a row takes, in ms of CPU and of wall time, and the most memory of all rows, in MB."""

    cpu: float
    wall: float
    memory: float


def cost(
    bench: Bench, way: Way, archive: Archive, endpoint: str, sizes: tuple[int, int]
) -> RowCost:
    """Enroll so few rows and so many, and divide the difference."""
    used = {0: Usage(wall=0, cpu=0, memory=0)}
    few, many = sizes
    for rows in filter(None, sizes):
        with bench.scratch() as folder:
            manifest = archive.manifest(rows).resolve()
            used[rows] = run(way, manifest, endpoint, folder / "run", rows=rows)
    return RowCost(
        cpu=1000 * (used[many].cpu - used[few].cpu) / (many - few),
        wall=1000 * (used[many].wall - used[few].wall) / (many - few),
        memory=used[many].memory / 1e6,
    )
