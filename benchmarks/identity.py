"""Whether `enroll` finds people under two ids and photos under the wrong id, among very many.

    python benchmarks/identity.py --people 20000 --faults 500 --seed 1

A made-up staff is enrolled with faults: people under two ids, photos under another's id, swapped
photos. The stand-in (`enroll sandbox --matcher model`) draws scores at the vendor's error rates.
`enroll audit` must find every fault that the scores show, and all other pairs that score as much,
and nothing else. In the nights that follow, `enroll sync --lookalikes hold` must hold whoever looks
like somebody else. Exit code 1 when anything is missed or invented. Stand-in and command are
processes of their own; all but the order of calls follows from the seed.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
from identities import audited
from identities.audited import Judged
from identities.nights import Nights
from identities.oracle import Library
from identities.phases import Command, Phase
from identities.staff import Staff, founded, write_manifest, write_photo
from suite.programs import need_linux

_SHOWN = 40
"""Of what is wrong in a phase."""

_NIGHTLY = 0.1
"""Faults of a night, as a share of those that are planted before."""


def tell(title: str, judged: Judged, phase: Phase) -> int:
    """Print what came of a phase, what it took, and what is wrong; return how much is wrong."""
    used = phase.used
    click.echo(f"\n{title}")
    for line in judged.table:
        click.echo(f"  {line}".rstrip())
    click.echo(f"  {costs(phase)}; {used.memory / 1e6:.0f} MB")
    for finding in judged.wrong[:_SHOWN]:
        click.echo(f"  WRONG {finding}")
    return len(judged.wrong)


def costs(phase: Phase) -> str:
    """Seconds of a phase."""
    return f"{phase.used.wall:.0f} s; CPU {phase.used.cpu:.0f} s, stand-in {phase.box.cpu:.0f} s"


def enrolled(staff: Staff, command: Command) -> None:
    """Enroll the staff, and say what it took."""
    write_manifest(staff.rows, command.folder)
    for row in staff.rows:
        write_photo(row, command.folder)
    phase = command.run()
    click.echo(f"enrolled: {phase.calls('add'):,} photos, {costs(phase)}")


def live(staff: Staff, command: Command, *, score: float, unlike: float, nights: int) -> int:
    """Enroll, audit, and live through the nights; return how much is wrong."""
    enrolled(staff, command)
    library = Library(staff.rows, seed=command.seed)
    phase = command.audit(score=score, unlike=unlike)
    found = audited.findings(command.folder)
    judged = audited.judge(staff, library, found, phase, score=score, unlike=unlike)
    judged.table.append(audited.told_apart(command.folder, staff.planted))
    wrong = tell(f"enroll audit --score {score:g} --unlike {unlike:g}", judged, phase)
    future = Nights(staff, command.folder, command.seed)
    for night in range(1, nights + 1):
        changes = future.change(faults=max(round(_NIGHTLY * len(staff.planted)), 3))
        phase = command.sync()
        wrong += tell(f"night {night}: --lookalikes hold", future.judge(changes, phase), phase)
    return wrong


@click.command(help=__doc__)
@click.option("--people", type=click.IntRange(40), default=20_000, show_default=True)
@click.option("--faults", type=click.IntRange(3), default=500, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--score", type=click.FloatRange(75, 90), default=85.0, show_default=True)
@click.option("--unlike", type=click.FloatRange(0, 75), default=60.0, show_default=True)
@click.option("--nights", type=click.IntRange(0), default=2, show_default=True)
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Leave photos and ledger in this folder."
)
def main(
    people: int,
    faults: int,
    seed: int,
    score: float,
    unlike: float,
    nights: int,
    keep: Path | None,
) -> None:
    """Print tables and a verdict; exit 1 when anything is wrong."""
    need_linux()
    # So that what was started ends with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if 4 * faults > people:
        raise click.UsageError("--people must be at least four times --faults.")
    base = keep or Path(tempfile.mkdtemp(prefix="enroll-identity-"))
    folder = base / "made-up-staff"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    staff = founded(people=people, faults=faults, seed=seed)
    click.echo(f"{people:,} people, {len(staff.rows):,} photos, {faults:,} faults, seed {seed}")
    wrong = live(staff, Command(folder, seed), score=score, unlike=unlike, nights=nights)
    if wrong:
        click.echo(f"Photos, ledger and findings are in {folder}.")
    elif keep is None:
        shutil.rmtree(base)
    click.echo(f"{(time.monotonic() - began) / 60:.1f} minutes: {wrong} things wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
