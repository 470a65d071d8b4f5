"""What `enroll match` takes for as many people as photos, named in several ways."""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from .bench import Bench
from .figures import OURS, Figure, figure
from .process import measured
from .ways import surroundings

_MOST = 50_000
"""People, and photos."""

_ONSETS = ("b", "br", "d", "f", "g", "h", "j", "k", "kr", "l", "m", "n", "p", "r", "s", "st", "w")
_VOWELS = ("a", "e", "i", "o", "u", "ei", "au", "ä", "ö", "ü")
_ENDS = ("", "n", "r", "s", "sen", "mann", "ke")
_FIRST_NAMES, _LAST_NAMES = 1_500, 12_000
"""Few enough for namesakes: one in seven has one, or nearly so."""


def measure(bench: Bench) -> Iterator[Figure]:
    """Time, CPU and memory, from the list and the folder to the proposals."""
    people = min(bench.size.many, _MOST)
    case = f"match, {people:,} people"
    with bench.scratch() as folder:
        _name(folder, people)
        environ = surroundings(folder, "http://127.0.0.1:9")
        used = []
        command = (sys.executable, "-m", "enroll", "match", "list.csv", "photos", "--output")
        for place in range(bench.size.rounds):
            used.append(measured((*command, f"{place}.csv"), cwd=folder, environ=environ))
    values = {
        ("wall time", "s"): [one.wall for one in used],
        ("CPU", "s"): [one.cpu for one in used],
        ("memory", "MB"): [one.memory / 1e6 for one in used],
    }
    for (what, unit), found in values.items():
        yield figure(case, OURS, what, values=found, unit=unit)


def _name(folder: Path, people: int) -> None:
    """Write a list, and an empty photo for each person: matching reads nothing but names."""
    draw = random.Random(7)
    first, last = (
        [_word(draw, syllables) for _ in range(count)]
        for syllables, count in ((1, _FIRST_NAMES), (2, _LAST_NAMES))
    )
    (folder / "photos").mkdir()
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "Vorname", "Nachname"))
        for number in range(people):
            one, other = draw.choice(first), draw.choice(last)
            writer.writerow((f"E{number:06}", one, other))
            at = draw.randrange(len(other) - 1)
            swapped = other[:at] + other[at + 1] + other[at] + other[at + 2 :]
            name = draw.choice(
                (f"{one} {other}", f"{other}, {one}", f"{other}_{one}".lower(), f"{one} {swapped}")
            )
            path = folder / "photos" / f"{name}.jpg"
            if path.exists():
                path = folder / "photos" / f"{name} ({number}).jpg"
            path.touch()


def _word(draw: random.Random, syllables: int) -> str:
    parts = (draw.choice(_ONSETS) + draw.choice(_VOWELS) for _ in range(syllables))
    return ("".join(parts) + draw.choice(_ENDS)).capitalize()
