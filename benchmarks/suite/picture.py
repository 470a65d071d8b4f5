"""One picture: a hidden limit, the calls in flight against it, and the refused ones, over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from enroll.sandbox import Call

_IN_FLIGHT_SECONDS = 0.25
"""Of a dot of the line: the most calls under way at the arrivals within it."""


def draw(
    path: Path, *, calls: Sequence[Call], phases: Sequence[tuple[float, int]], end: float
) -> None:
    """Write the picture as PNG. `calls` are those of `add`, as the stand-in noted them; `phases`
    are the limits, each with when it began; times are UNIX seconds, and `end` is the last."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load, and only for this

    start = phases[0][0]
    shown = [call for call in calls if start <= call.time < end]
    drawing = Figure(figsize=(10, 5.5), layout="constrained")
    above, below = drawing.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    moments = [at - start for at, _ in phases] + [end - start]
    limits = [limit for _, limit in phases]
    above.step(moments, [*limits, limits[-1]], where="post", color="black", label="hidden limit")
    in_flight = _in_flight(shown, start)
    above.plot(list(in_flight), list(in_flight.values()), color="tab:blue", label="calls in flight")
    above.set_ylabel("calls in flight")
    above.set_ylim(bottom=0)
    above.legend(loc="upper left")
    above.grid(alpha=0.3)
    refused = Counter(int(call.time - start) for call in shown if call.status == 403)
    below.bar(
        [second + 0.5 for second in refused], list(refused.values()), width=1, color="tab:red"
    )
    below.set_ylabel("refused a second")
    below.set_xlabel("seconds")
    below.grid(alpha=0.3)
    drawing.savefig(path, dpi=110)


def _in_flight(calls: Sequence[Call], start: float) -> dict[float, int]:
    """The most calls under way in each short piece of time, by its beginning."""
    most: dict[float, int] = {}
    for call in calls:
        at = int((call.time - start) / _IN_FLIGHT_SECONDS) * _IN_FLIGHT_SECONDS
        most[at] = max(most.get(at, 0), call.under_way)
    return most
