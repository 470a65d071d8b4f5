"""A year of nights: `enroll sync` on a company's exports, good and bad, through faults and kills.

    python benchmarks/year.py --nights 365 --people 500 --faults 0.15 --seed 1

The stand-in runs in this process. `enroll sync` runs as a process of its own on each night's export
of a made-up staff: people join, leave, come back, have new photos and names. Some exports are bad
(empty, halved, zeros lost, photos missing, columns renamed, ...), some nights bring faults of the
service, and signals at random moments, after which the same command is run again. After some the
ledger of the day before is put back. With --database the ledger is in PostgreSQL; sessions are
ended and, with `local`, processes of the server are killed. The clocks of process and stand-in are
put ahead, so that a night takes seconds. After every night an oracle,
which knows the documented rules and nothing of the code, says what the library must hold; exit code
1 when it holds anything else, or when anything was wrong on the way. What staff, exports, faults
and kills there are follows from the seed; how a run's threads take turns does not.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
from nightly import ledgers
from nightly.command import Tally
from nightly.ledgers import LedgerPlace
from nightly.nights import Year
from nightly.oracle import Bounds
from nightly.schedule import Night, plan_nights

_SHOWN = 40
"""Findings that are printed as they come."""


def table(tally: Tally) -> list[str]:
    """What came of each kind of export, by exit code, and what there was besides."""
    codes = sorted({code for _, code in tally.exports})
    kinds = sorted({kind.value for kind, _ in tally.exports})
    counts = {(kind.value, code): count for (kind, code), count in tally.exports.items()}
    lines = [f"{'export':<32}" + "".join(f"{f'exit {code}':>9}" for code in codes)]
    for kind in kinds:
        cells = "".join(f"{counts.get((kind, code), 0) or '':>9}" for code in codes)
        lines.append(f"{kind:<32}{cells}")
    every = ", ".join(f"{count:,} x {code}" for code, count in sorted(tally.codes.items()))
    calls = ", ".join(f"{count:,} {kind}" for kind, count in sorted(tally.calls.items()))
    return [
        *lines,
        f"{tally.runs:,} runs, {tally.struck:,} killed, {tally.abandoned:,} of them left so until "
        f"the next night; {tally.rehearsed:,} rehearsals; "
        f"guards lifted {tally.lifted} times; ledger put back {tally.restored} times"
        f"{f'; its server struck {tally.cut} times' if tally.cut else ''}",
        f"exit codes: {every}",
        f"calls: {calls}",
    ]


def live(
    folder: Path,
    *,
    nights: int,
    people: int,
    seed: int,
    faults: float,
    bounds: Bounds,
    ledger: LedgerPlace | None = None,
) -> Tally:
    """Live through that many nights in `folder`, and print what is found."""
    said = 0

    def say(finding: str) -> None:
        nonlocal said
        said += 1
        if said <= _SHOWN:
            click.echo(f"  {finding}")

    year = Year(folder, people, seed, faults, bounds, say, ledger=ledger)
    began = time.monotonic()

    def each(night: Night) -> None:
        if night.number % 30 == 29:
            click.echo(
                f"{night.number + 1} nights, {time.monotonic() - began:.0f} s, "
                f"{len(year.oracle.faces)} faces, {len(year.tally.findings)} findings"
            )

    plan = plan_nights(nights, chance=random.Random(seed), server_points=year.place.points)
    return year.live(plan, each=each)


@click.command(help=__doc__)
@click.option("--nights", type=click.IntRange(1), default=365, show_default=True)
@click.option("--people", type=click.IntRange(20), default=500, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--faults",
    type=click.FloatRange(0, 0.9),
    default=0.15,
    show_default=True,
    metavar="SHARE",
    help="Share of calls that meet trouble, on nights with trouble.",
)
@click.option("--grace", type=float, default=2.0, show_default=True, help="Days, as of sync.")
@click.option("--max-removals", type=int, help="As of sync; its default where it is not given.")
@click.option("--max-changes", type=int, help="The same.")
@click.option(
    "--database",
    default="",
    metavar="ADDRESS",
    help="Have the ledger in a new schema of this database (postgresql://…), or, with `local`, of "
    "a server that is started for it.",
)
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Leave photos and ledger in this folder."
)
def main(
    nights: int,
    people: int,
    seed: int,
    faults: float,
    grace: float,
    max_removals: int | None,
    max_changes: int | None,
    database: str,
    keep: Path | None,
) -> None:
    """Print a table and a verdict; exit 1 when anything is wrong."""
    folder = keep or Path(tempfile.mkdtemp(prefix="enroll-year-"))
    shutil.rmtree(folder / "company", ignore_errors=True)
    began = time.monotonic()
    bounds = Bounds(removals=max_removals, changes=max_changes, grace=grace)
    with ExitStack() as stack:
        place = None
        if database:
            found = stack.enter_context(ledgers.database(database))
            place = found.place(f"year{seed}_{os.getpid()}", folder)
        tally = live(
            folder / "company",
            nights=nights,
            people=people,
            seed=seed,
            faults=faults,
            bounds=bounds,
            ledger=place,
        )
        if place is not None and not tally.findings:
            place.drop()
    click.echo("\n".join(table(tally)))
    if tally.findings:
        click.echo(f"Photos, ledger and what the runs said are in {folder}.")
    elif keep is None:
        shutil.rmtree(folder)
    click.echo(
        f"{nights} nights, {people} people, seed {seed}, "
        f"{(time.monotonic() - began) / 60:.1f} minutes: {len(tally.findings)} findings"
    )
    sys.exit(1 if tally.findings else 0)


if __name__ == "__main__":
    main()
