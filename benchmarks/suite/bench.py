"""What every case is given, and how rounds are made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from . import archives
from .archives import Archive
from .sizes import STEP, Size


@dataclass(frozen=True, slots=True)
class Bench:
    """How much is measured, and the folder that results and archives go to."""

    size: Size
    folder: Path

    def usual(self, rows: int) -> Archive:
        """Photos of 64 KB."""
        return archives.usual(self._archives, rows)

    def small(self) -> Archive:
        """As many small photos as any case needs."""
        return archives.small(
            self._archives, max(self.size.many, *self.size.growth, self.held_rows)
        )

    def large(self) -> Archive:
        """Photos of 12 megapixels, their sides divided by the size's `shrink`."""
        return archives.large(self._archives, self.size.large_photos, self.size.shrink)

    def mixed(self) -> Archive:
        """Photos of many sizes and kinds."""
        return archives.mixed(self._archives, self.size.mixed_photos, self.size.shrink)

    def camera(self, width: int, height: int) -> Archive:
        """Photos of these sides, divided by the size's `shrink`, as cameras write them."""
        shrink = self.size.shrink
        sides = width // shrink, height // shrink
        return archives.camera(self._archives, max(self.size.prepared), sides)

    @property
    def _archives(self) -> Path:
        return self.folder / "archives"

    @property
    def held_rows(self) -> int:
        """Rows that last longer than any limit is held."""
        return self.rows_for(max(*self.size.limits, sum(STEP)), self.size.latency)

    def rows_for(self, places: int, latency: float) -> int:
        """Rows that last longer than so many places are held, with calls of so many seconds."""
        return round(1.2 * places * self.size.limit_seconds / latency) + 100

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is gone afterwards."""
        folder = self.folder / "scratch"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        try:
            yield folder.resolve()
        finally:
            shutil.rmtree(folder)

    def rounds(self, names: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Round and name, alternating; each round begins with another name."""
        for number in range(self.size.rounds):
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                click.echo(f"  round {number + 1}: {name}", err=True)
                yield number, name
