"""A file of user ids, for the commands that are about people."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from enroll.errors import UsageError
from enroll.rows.encoding import find_encoding
from enroll.rows.source import Source

_LINE = re.compile(r"\r\n|\r|\n")
"""What ends a line; other separators may stand in a text."""

_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"\s*')


def read_user_ids(path: Path) -> list[str]:
    """The ids in a file, each once, as they stand there: one a line, or the column `user_id` of a
    CSV. Raises UsageError."""
    if not path.exists():
        raise UsageError(f"There is no file {path}. Name one with one id a line, or a CSV.")
    source = Source.of(path)
    codec = find_encoding(source).codec
    with source.open() as file:
        text = file.read().decode(codec)
    lines = _LINE.split(text)
    delimiter = next((mark for mark in ";\t," if mark in lines[0]), None)
    ids = _of_lines(lines) if delimiter is None else _of_table(path, text, delimiter)
    found = list(dict.fromkeys(one for one in ids if one.strip()))
    if not found:
        raise UsageError(f"There is no user_id in {path}.")
    return found


def _of_lines(lines: list[str]) -> list[str]:
    ids = [_unquoted(line) for line in lines]
    return ids[1:] if [one.strip() for one in ids[:1]] == ["user_id"] else ids


def _unquoted(line: str) -> str:
    whole = _QUOTED.fullmatch(line)
    return line if whole is None else whole[1].replace('""', '"')


def _of_table(path: Path, text: str, delimiter: str) -> list[str]:
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        head, *table = lines
    except csv.Error as error:
        raise UsageError(
            f"{path} is no sound CSV: {error}. Mend it, or write one id a line."
        ) from error
    names = [name.strip() for name in head]
    if "user_id" not in names:
        raise UsageError(
            f"{path} has no column user_id. Give a file with one id a line, or a CSV with such a "
            "column."
        )
    place = names.index("user_id")
    return [cells[place] for cells in table if len(cells) > place]
