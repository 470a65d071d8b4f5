"""How time and memory grow with the manifest: `plan`, a first run, a run with nothing to do.

The photos are small, and nginx answers at once. One round, as the larger ones take long.
"""

from __future__ import annotations

from collections.abc import Iterator

from .bench import Bench
from .figures import OURS, Figure, figure
from .nginx import running
from .process import measured
from .ways import IN_FLIGHT, ours, surroundings


def measure(bench: Bench) -> Iterator[Figure]:
    """Wall time, CPU and memory of each command at each number of rows."""
    archive = bench.small()
    with running() as nginx:
        for rows in bench.size.growth:
            manifest = archive.manifest(rows).resolve()
            with bench.scratch() as folder:
                run = ours("run", manifest, folder, "--max-in-flight", str(IN_FLIGHT))
                steps = {
                    "plan": ours("plan", manifest, folder),
                    "first run": run,
                    "run, nothing to do": run,
                }
                for step, command in steps.items():
                    environ = surroundings(folder, nginx.endpoint)
                    used = measured(command, cwd=folder, environ=environ)
                    case = f"growth: {step}, {rows:,} rows"
                    yield figure(case, OURS, "wall time", values=[used.wall], unit="s")
                    yield figure(case, OURS, "CPU", values=[used.cpu], unit="s")
                    yield figure(case, OURS, "memory", values=[used.memory / 1e6], unit="MB")
