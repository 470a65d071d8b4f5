"""What enroll costs and how fast it is, beside what a user would pick instead.

    python benchmarks/performance.py --size quick

Prints a table, and writes it as figures.csv, with the picture limit.png, into bench-results. The
archives that it needs stay there for the next time. The exit code says nothing about the figures.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from suite import (
    database,
    engines,
    first_call,
    growth,
    in_flight,
    limits,
    match,
    objects,
    preparing,
    report,
    row_cost,
    startup,
    unchanged,
)
from suite.bench import Bench
from suite.figures import Figure, table, write_csv
from suite.programs import HOW_TO_GET, find, need, need_linux
from suite.sizes import SIZES

CASES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "startup": startup.measure,
    "row-cost": row_cost.measure,
    "tls-row-cost": row_cost.measure_tls,
    "preparing": preparing.measure,
    "unchanged": unchanged.measure,
    "quiet-sync": unchanged.measure_sync,
    "due": unchanged.measure_due,
    "first-call": first_call.measure,
    "in-flight": in_flight.measure,
    "growth": growth.measure,
    "limits": limits.measure,
    "report": report.measure,
    "match": match.measure,
    "objects": objects.measure,
    "engines": engines.measure,
    "database": database.measure,
}
"""In the order in which they run."""


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="quick", show_default=True)
@click.option(
    "--only", type=click.Choice(list(CASES)), multiple=True, help="This case alone; repeatable."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-results"),
    show_default=True,
    help="Where results and archives go.",
)
def main(size: str, only: tuple[str, ...], folder: Path) -> None:
    """Measure, and print medians with their ratios to ours."""
    need_linux()
    need("nginx")
    # So that nginx and what is being measured end with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # And so that what is being measured can be interrupted: a shell that starts us in the
    # background has SIGINT ignored, and our children would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in sorted(HOW_TO_GET):
        if find(name) is None:
            click.echo(f"Left out, as there is no `{name}`; {HOW_TO_GET[name]}.", err=True)
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(SIZES[size], folder)
    figures: list[Figure] = []
    for name, measure in CASES.items():
        if not only or name in only:
            click.echo(f"{name} …", err=True)
            figures += measure(bench)
            write_csv(folder / "figures.csv", figures)
    click.echo(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, "
        f"size {size}. Medians of the rounds; ratio is value / enroll."
    )
    for line in table(figures):
        click.echo(line)


if __name__ == "__main__":
    main()
