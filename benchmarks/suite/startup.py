"""How long `enroll --help` takes, beside a Python that does nothing."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator

from .bench import Bench
from .figures import OURS, Figure, figure
from .process import measured
from .ways import surroundings


def measure(bench: Bench) -> Iterator[Figure]:
    """Wall time of both."""
    commands = {OURS: ("-m", "enroll", "--help"), "python -c pass": ("-c", "pass")}
    wall: dict[str, list[float]] = defaultdict(list)
    with bench.scratch() as folder:
        environ = surroundings(folder, "http://127.0.0.1:9")
        for _, name in bench.rounds(list(commands)):
            for _ in range(bench.size.startups):
                command = (sys.executable, *commands[name])
                wall[name].append(measured(command, cwd=folder, environ=environ).wall)
    for name, values in wall.items():
        yield figure("enroll --help", name, "wall time", values=values, unit="s", target="≤ 0.2")
