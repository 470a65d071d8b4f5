"""What a run takes in memory with many large photos in flight.

The stand-in answers after a second, so that all places are taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from enroll.sandbox import Sandbox

from .archives import Archive
from .bench import Bench
from .figures import OURS, Figure, figure
from .nginx import GROUP_ID
from .process import measured
from .ways import KEY, REQUESTS, SECRET, ours, script, surroundings

_SECONDS_A_CALL = 1.0
_LEAST = "400MB"


def measure(bench: Bench) -> Iterator[Figure]:
    """The most memory: with photos that are sent as they are, for ours and the script of requests
    and threads, and with photos of mixed kinds, most of which are decoded, for ours with the least
    memory that may be asked for."""
    places = bench.size.in_flight
    alike = f"{places} in flight, photos of 12 megapixels"
    yield from _measured(bench, alike, bench.large(), [OURS, REQUESTS])
    mixed = f"{places} in flight, photos of mixed kinds, --memory {_LEAST}"
    yield from _measured(bench, mixed, bench.mixed(), [OURS], "--memory", _LEAST)


def _measured(
    bench: Bench, case: str, archive: Archive, ways: Sequence[str], *options: str
) -> Iterator[Figure]:
    manifest, places = archive.manifest().resolve(), bench.size.in_flight
    memory: dict[str, list[float]] = defaultdict(list)
    most: dict[str, list[float]] = defaultdict(list)
    for _, name in bench.rounds(ways):
        with (
            Sandbox(latency=_SECONDS_A_CALL, detect=False, api_key=KEY, api_secret=SECRET) as box,
            bench.scratch() as folder,
        ):
            box.create_library(GROUP_ID)
            environ = surroundings(folder, box.endpoint)
            command = (
                ours("run", manifest, folder, "--max-in-flight", str(places), *options)
                if name == OURS
                else script("with_requests.py", manifest, box.endpoint, folder, workers=places)
            )
            memory[name].append(measured(command, cwd=folder, environ=environ).memory / 1e6)
            most[name].append(max(call.under_way for call in box.calls))
    for name, values in memory.items():
        yield figure(case, name, "memory", values=values, unit="MB", target="≤ 400")
        yield figure(case, name, "most in flight", values=most[name], unit="calls")
