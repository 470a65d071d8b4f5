"""What a row costs: photos of 64 KB over plain HTTP, everything but start-up in.

Each way enrolls two manifests, the smaller one the beginning of the larger; the difference of what
they take, divided by the difference of their rows, is what a row takes. So start-up, opening calls
and closing are left out where they do not grow with the rows, and whatever grows is in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from .bench import Bench
from .figures import Figure, figure
from .nginx import running
from .ways import PARALLEL, run, ways

CASE = "a row of 64 KB"
_TARGET = "≤ 0.7"


def measure(bench: Bench) -> Iterator[Figure]:
    """CPU and wall time of a row, and the most memory, for every way."""
    known = ways()
    archive = bench.usual(max(bench.size.row_cost))
    cpu, wall, memory = defaultdict(list), defaultdict(list), defaultdict(list)
    with running() as nginx:
        for _, name in bench.rounds(list(known)):
            sizes = bench.size.slow_row_cost if name == PARALLEL else bench.size.row_cost
            used = []
            for rows in sizes:
                with bench.scratch() as folder:
                    manifest = archive.manifest(rows).resolve()
                    used.append(
                        run(known[name], manifest, nginx.endpoint, folder / "run", rows=rows)
                    )
            few, many = used
            more = sizes[1] - sizes[0]
            cpu[name].append(1000 * (many.cpu - few.cpu) / more)
            wall[name].append(1000 * (many.wall - few.wall) / more)
            memory[name].append(many.memory / 1e6)
    for name in known:
        yield figure(CASE, name, "CPU", values=cpu[name], unit="ms", target=_TARGET)
        yield figure(CASE, name, "wall time", values=wall[name], unit="ms")
        yield figure(CASE, name, "memory", values=memory[name], unit="MB")
