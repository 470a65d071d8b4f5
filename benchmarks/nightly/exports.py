"""What the staff department sends: the export as it should be, and every way in which it is not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from .photos import Photo
from .staff import COLUMNS, Company, Row, manifest


class Export(Enum):
    """Kinds of export, by what the table calls them."""

    PLAIN = "plain"
    TWICE = "every line twice"
    STALE = "yesterday's file"
    SHUFFLED = "other order and a column more"
    TOUCHED = "all photos copied anew"
    EMPTY = "header alone"
    NOTHING = "no byte"
    HALVED = "half the lines"
    TORN = "half the bytes"
    ZEROS_LOST = "leading zeros lost"
    PHOTOS_MISSING = "a third of the photos missing"
    FOLDER_MISSING = "no photo folder"
    FOLDER_EMPTY = "empty photo folder"
    NO_IMAGE_COLUMN = "image column renamed"
    NO_DATA_COLUMN = "user_data column renamed"
    SWAPPED = "columns swapped"


ODD = tuple(kind for kind in Export if kind is not Export.PLAIN)
"""All that is not as usual, whether it may be carried out or not."""

GOOD = {Export.PLAIN, Export.TWICE, Export.SHUFFLED, Export.TOUCHED}
"""These say what the staff is today."""

UNREADABLE = {Export.NOTHING, Export.TORN, Export.NO_IMAGE_COLUMN}
"""These may be told as an unreadable manifest (exit code 2) as well."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An export: the file's bytes, and what it says: the rows, and what lies at their paths."""

    kind: Export
    content: bytes
    rows: tuple[Row, ...]
    photos: dict[str, Photo]


def export(
    kind: Export,
    company: Company,
    *,
    yesterday: Sequence[Row],
    chance: random.Random,
) -> Sent:
    """Today's rows as `kind` has them; the photos are those of the company, or what is left."""
    rows, photos = tuple(company.rows()), dict(company.photos)
    match kind:
        case Export.NOTHING:
            return Sent(kind, b"", (), photos)
        case Export.TORN:
            content = manifest(rows)
            half = content[: len(content) // 2]
            return Sent(kind, half, rows[: half.count(b"\n") - 1], photos)
        case Export.SHUFFLED:
            told = tuple(chance.sample(rows, len(rows)))
            return Sent(kind, _wider(manifest(told)), told, photos)
        case Export.PHOTOS_MISSING:
            photos = {image: photo for image, photo in photos.items() if image not in lost(rows)}
        case Export.FOLDER_MISSING | Export.FOLDER_EMPTY:
            photos = {}
        case _:
            pass
    written, read = _rows(kind, rows, yesterday)
    return Sent(kind, manifest(written, columns=_COLUMNS.get(kind, COLUMNS)), read, photos)


_COLUMNS = {
    Export.NO_IMAGE_COLUMN: ("user_id", "user_data", "portrait_file"),
    Export.NO_DATA_COLUMN: ("user_id", "display_name", "image"),
    Export.SWAPPED: ("user_data", "user_id", "image"),
}


def _rows(
    kind: Export, rows: tuple[Row, ...], yesterday: Sequence[Row]
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """What is written, and what that says where the header is believed."""
    told = rows
    match kind:
        case Export.TWICE:
            told = (*rows, *rows)
        case Export.STALE:
            told = tuple(yesterday)
        case Export.EMPTY:
            told = ()
        case Export.HALVED:
            told = rows[: len(rows) // 2]
        case Export.ZEROS_LOST:
            told = tuple(replace(row, user_id=row.user_id.lstrip("0")) for row in rows)
        case Export.NO_DATA_COLUMN:
            return rows, tuple(replace(row, user_data="") for row in rows)
        case Export.SWAPPED:
            return rows, tuple(Row(row.user_data, row.user_id, row.image) for row in rows)
        case _:
            pass
    return told, told


def _wider(content: bytes) -> bytes:
    """The CSV with a column more."""
    head, *lines = content.splitlines(keepends=True)
    wide = [line[:-1] + b",%d\n" % floor for floor, line in enumerate(lines)]
    return b"".join([head[:-1] + b",floor\n", *wide])


def lost(rows: Sequence[Row]) -> set[str]:
    """The photos that are not there when a third is missing."""
    return {row.image for row in rows[::3]}


@contextmanager
def delivered(sent: Sent, company: Company, path: Path) -> Iterator[None]:
    """The export at `path` and the photo folder as it goes with it; all well again afterwards."""
    path.write_bytes(sent.content)
    folder, aside = company.folder, company.folder.with_name("aside")
    if sent.kind is Export.TOUCHED:
        for file in folder.iterdir():
            _write_anew(file)
    away: list[str] = []
    if sent.kind is Export.PHOTOS_MISSING:
        away = sorted(image for image in lost(sent.rows) if (folder / image).exists())
    elif sent.kind in (Export.FOLDER_MISSING, Export.FOLDER_EMPTY):
        away = sorted(file.name for file in folder.iterdir())
    aside.mkdir()
    for image in away:
        (folder / image).rename(aside / image)
    if sent.kind is Export.FOLDER_MISSING:
        folder.rmdir()
    try:
        yield
    finally:
        folder.mkdir(exist_ok=True)
        for image in away:
            (aside / image).rename(folder / image)
        aside.rmdir()


def _write_anew(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
