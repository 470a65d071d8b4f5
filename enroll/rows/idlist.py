"""A file of user ids, for the commands that are about people."""

from __future__ import annotations

import csv
from pathlib import Path

from enroll.errors import UsageError
from enroll.rows.encoding import find_encoding
from enroll.rows.source import Source


def read_user_ids(path: Path) -> list[str]:
    """The ids in a file: one a line, or the column `user_id` of a CSV. Raises UsageError."""
    if not path.exists():
        raise UsageError(f"There is no file {path}. Name one with one id a line, or a CSV.")
    source = Source.of(path)
    codec = find_encoding(source).codec
    with source.open() as file:
        lines = file.read().decode(codec).splitlines()
    head = lines[0] if lines else ""
    delimiter = next((mark for mark in ";\t," if mark in head), None)
    table = list(csv.reader(lines, delimiter=delimiter or ","))
    if delimiter is None:
        ids = [cells[0].strip() for cells in table if cells]
        ids = ids[1:] if ids[:1] == ["user_id"] else ids
    else:
        names = [name.strip() for name in table[0]]
        if "user_id" not in names:
            raise UsageError(
                f"{path} has no column user_id. Give a file with one id a line, or a CSV with "
                "such a column."
            )
        place = names.index("user_id")
        ids = [cells[place].strip() for cells in table[1:] if len(cells) > place]
    found = list(dict.fromkeys(filter(None, ids)))
    if not found:
        raise UsageError(f"There is no user_id in {path}.")
    return found
