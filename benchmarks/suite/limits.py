"""How well a hidden limit of parallel calls is found and held, over real HTTP.

The stand-in refuses what is beyond the limit, and tells it to nobody. The ideal is every place
taken all the time by calls of exactly the stand-in's latency: what reading, answering and the way
between two calls take is lost to everybody. The places taken tell the two apart: what is not taken
is the client's loss, what is taken and not served is the stand-in's.
benchmarks/throttle_cases.py has more cases, and half an hour of each, in simulated time.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from enroll.ledger import read_ledger
from enroll.model import Status
from enroll.sandbox import Call, Sandbox

from .bench import Bench
from .figures import OURS, Figure, figure
from .nginx import GROUP_ID
from .picture import draw
from .process import watched
from .sizes import STEP
from .ways import KEY, REQUESTS, SECRET, Command, ours, script, surroundings

PICTURE = "limit.png"
REFUSED = "CONCURRENCY_LIMIT_EXCEEDED"

_WORKERS = 32
"""Of the script: what somebody sets who does not know the limit."""

_FIRST_CALL_SECONDS = 60.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How a run went: the calls of `add`, each limit with when it began (UNIX seconds), and the
    rows that failed because they were refused. `looks` are moments, each with the share of the
    places that was taken then."""

    calls: Sequence[Call]
    phases: Sequence[tuple[float, int]]
    end: float
    latency: float
    failed: int
    looks: Sequence[tuple[float, float]]

    def share(self, warm_up: float) -> float:
        """Time in places for which calls of exactly the latency were served, as % of the ideal,
        behind the first `warm_up` seconds."""
        begin = self.phases[0][0] + warm_up
        ends = [*(at for at, _ in self.phases[1:]), self.end]
        ideal = sum(
            limit * max(until - max(since, begin), 0.0)
            for (since, limit), until in zip(self.phases, ends, strict=True)
        )
        served = sum(
            max(min(call.time + self.latency, self.end) - max(call.time, begin), 0.0)
            for call in self.calls
            if call.status == 200
        )
        return 100 * served / ideal

    def refused(self, warm_up: float) -> float:
        """Refused calls as % of all, behind the first `warm_up` seconds."""
        counted = self._counted(self.phases[0][0] + warm_up)
        return 100 * sum(call.code == REFUSED for call in counted) / max(len(counted), 1)

    def taken(self, warm_up: float) -> float:
        """Places taken as % of all, behind the first `warm_up` seconds."""
        begin = self.phases[0][0] + warm_up
        return 100 * statistics.fmean(share for at, share in self.looks if at >= begin)

    def _counted(self, begin: float) -> list[Call]:
        return [call for call in self.calls if begin <= call.time < self.end]


def measure(bench: Bench) -> Iterator[Figure]:
    """Share of the ideal, refused calls and failed rows for each limit, and the picture."""
    for limit in bench.size.limits:
        names = [OURS, REQUESTS] if limit in bench.size.beside_limits else [OURS]
        for name in names:
            held = hold(bench, [limit], name=name)
            yield from figures(bench, f"hidden limit {limit}", name, held)
    held = hold(bench, STEP)
    draw(bench.folder / PICTURE, calls=held.calls, phases=held.phases, end=held.end)
    yield from figures(bench, f"hidden limit {'→'.join(map(str, STEP))}", OURS, held)


def figures(bench: Bench, case: str, name: str, held: Held) -> Iterator[Figure]:
    """What there is to say of how a run went."""
    warm_up = bench.size.warm_up
    share, refused = held.share(warm_up), held.refused(warm_up)
    yield figure(case, name, "of the ideal", values=[share], unit="%", target="≥ 97")
    yield figure(case, name, "places taken", values=[held.taken(warm_up)], unit="%")
    yield figure(case, name, "refused", values=[refused], unit="%", target="≤ 1")
    yield figure(case, name, "failed by refusals", values=[held.failed], unit="rows", target="0")


def hold(
    bench: Bench,
    limits: Sequence[int],
    *,
    name: str = OURS,
    latency: float | None = None,
    options: Sequence[str] = (),
) -> Held:
    """Enroll against each limit for its time, then stop; `options` are of `enroll run`."""
    archive, size = bench.small(), bench.size
    latency = latency or size.latency
    manifest = archive.manifest(bench.rows_for(max(limits), latency)).resolve()
    with (
        Sandbox(
            parallel=limits[0],
            latency=latency,
            detect=False,
            api_key=KEY,
            api_secret=SECRET,
        ) as box,
        bench.scratch() as folder,
    ):
        box.create_library(GROUP_ID)
        command: Command = ours("run", manifest, folder, *options)
        if name == REQUESTS:
            command = script("with_requests.py", manifest, box.endpoint, folder, workers=_WORKERS)
        environ = surroundings(folder, box.endpoint)
        with watched(command, cwd=folder, environ=environ) as process:
            box.wait_count("add", 1, _FIRST_CALL_SECONDS)
            phases: list[tuple[float, int]] = []
            looks: list[tuple[float, float]] = []
            for limit in limits:
                box.parallel = limit
                phases.append((time.time(), limit))
                looks += _looks(box, limit, size.limit_seconds)
            end = time.time()
            time.sleep(1.5 * latency)  # what is under way now counts, too
            if name != REQUESTS:
                process.interrupt()
                process.wait(codes=[130])
        return Held(
            calls=[call for call in box.calls if call.kind == "add"],
            phases=phases,
            end=end,
            latency=latency,
            failed=_failed(folder),
            looks=looks,
        )


def _looks(box: Sandbox, limit: int, seconds: float) -> Iterator[tuple[float, float]]:
    """For so long, look again and again at how many of the stand-in's places are taken."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        under_way = sum(not call.finished for call in box.calls)
        yield time.time(), min(under_way, limit) / limit
        time.sleep(_LOOK_SECONDS)


def _failed(folder: Path) -> int:
    """Rows that were given up because their calls were refused."""
    ledger = folder / "ledger.sqlite"
    if ledger.exists():
        reader = read_ledger(ledger)
        try:
            entries = reader.entries([Status.FAILED])
            return sum(entry.error == REFUSED for entry in entries)
        finally:
            reader.close()
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return sum(not line["face_token"] for line in csv.DictReader(file))
