"""A file of user ids, for the commands that are about people."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from enroll.characters import as_seen
from enroll.errors import UsageError
from enroll.manifest.encoding import find_encoding
from enroll.manifest.records import EXCEL_HINT, Text, open_text
from enroll.manifest.source import Source
from enroll.text.wording import amount

_DELIMITERS = ";\t,|"
_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"\s*')


def read_user_ids(path: Path) -> list[str]:
    """The ids in a file, each once, as they stand there: one a line, or the column `user_id` of a
    CSV or of a workbook's only sheet. Raises UsageError, also where rows of that are hidden: nobody
    has looked at them, and these people are to be deleted."""
    if not path.exists():
        raise UsageError(f"There is no file {path}. Name one with one id a line, or a CSV.")
    source = Source.of(path)
    if source.hidden is not None and source.hidden.rows:
        raise UsageError(
            f"{path} has {amount(len(source.hidden.rows), 'row')} that the spreadsheet hides, by "
            "hand or by a filter. Delete them or show them, and save the file again."
        )
    with open_text(source, find_encoding(source).codec) as (_, text):
        found = list(dict.fromkeys(one for one in _ids(path, text) if one.strip()))
    if not found:
        raise UsageError(f"There is no user_id in {path}.")
    return found


def _ids(path: Path, text: Text) -> Iterator[str]:
    lines = iter(text)
    first = next(lines, "")
    if hint := EXCEL_HINT.match(first):
        return _of_table(path, lines, hint[2])
    delimiter = next((mark for mark in _DELIMITERS if mark in first), None)
    lines = chain([first], lines)
    return _of_lines(lines) if delimiter is None else _of_table(path, lines, delimiter)


def _of_lines(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        user_id = _unquoted(line.rstrip("\r\n"))
        if number or user_id.strip() != "user_id":
            yield user_id


def _unquoted(line: str) -> str:
    whole = _QUOTED.fullmatch(line)
    return line if whole is None else whole[1].replace('""', '"')


def _of_table(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[str]:
    try:
        table = csv.reader(lines, delimiter=delimiter, strict=True)
        names = [as_seen(name) for name in next(table, [])]
        if "user_id" not in names:
            raise UsageError(
                f"{path} has no column user_id. Give a file with one id a line, or a CSV with such "
                "a column."
            )
        place = names.index("user_id")
        yield from (cells[place] for cells in table if len(cells) > place)
    except csv.Error as error:
        raise UsageError(
            f"{path} is no sound CSV: {error}. Repair it, or write one id a line."
        ) from error
