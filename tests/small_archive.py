"""A folder with drawn portraits and a manifest of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from enroll.cli import demo
from enroll.sandbox import Sandbox

QUICK_DOUBTS = ("--timeout", "2", "--settle-after", "0")
"""Options with which a doubt is looked at after some four seconds."""

COLUMNS = ("user_id", "user_data", "image")


def portrait(person: int) -> bytes:
    """The JPEG of one of the demo's people."""
    return demo.portrait(person)


@lru_cache
def nobody() -> bytes:
    """A JPEG without a face."""
    return _jpeg(Image.new("RGB", (120, 120), (90, 120, 90)))


def let_nobody_look(box: Sandbox) -> None:
    """Have the account not search or list, so that no doubt can be settled."""
    for call in ("list", "search"):
        box.script(["auth"] * 100, call=call)


def _jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG")
    return out.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a results file or an export, by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@dataclass(frozen=True)
class Archive:
    """Photos and manifests in one folder."""

    folder: Path

    def photo(self, name: str, content: bytes) -> Path:
        """Write a photo."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def manifest(
        self, rows: Iterable[tuple[str, ...]], *, name: str = "staff.csv", head: str = ""
    ) -> Path:
        """Write a manifest of (user_id, user_data, image)."""
        path = self.folder / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head.split(",") if head else COLUMNS)
            writer.writerows(rows)
        return path

    def people(self, *persons: int) -> list[tuple[str, str, str]]:
        """A photo and a row for each of some people: `person-0001`, their name, a path."""
        rows = []
        for person in persons:
            self.photo(f"photos/{person}.jpg", portrait(person))
            rows.append((f"person-{person:04}", f"Name {person}", f"photos/{person}.jpg"))
        return rows

    def results(self, name: str = "staff.results.csv") -> list[dict[str, str]]:
        """The results file's lines."""
        return read_csv(self.folder / name)
