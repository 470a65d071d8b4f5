"""The structure of a CSV file: its delimiter, its header, and a check of every record after it."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from enroll.errors import ManifestError
from enroll.rows.header import count_roles, is_orphan
from enroll.rows.source import Source, Stream

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_HEAD = 1 << 16  # characters, and the rest of the line: within that the header has to end
_EXCEL_HINT = re.compile(r'("?)sep=([,;|\t])\1(?:\r\n|\r|\n)', re.IGNORECASE)
"""Excel's own first line for saying the delimiter; it writes and obeys it, so people add it.
Programs that quote every cell quote this one, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    r"""The header: its names as written, and where it stands.

    `record` is its 0-based number among the records, blank lines counted; `line` is 1-based;
    `newline` is how its line ends, `\n` or `\r\n` (an old Mac's `\r` counts as `\n`).
    """

    names: tuple[str, ...]
    record: int
    line: int
    delimiter: str
    newline: str


@dataclass(frozen=True, slots=True)
class LineNumbers:
    """Turns the number of a record into the line on which it starts.

    Only the records that take more than one line are kept: their numbers, in order, and how many
    lines were added up to and with each.
    """

    records: array[int]
    added: array[int]

    def of(self, first: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The 1-based lines of `count` records from number `first` (0-based, header included)."""
        numbers = np.arange(first, first + count, dtype=np.int64)
        if not self.records:
            return numbers + 1
        added = np.concatenate(([0], np.asarray(self.added, dtype=np.int64)))
        return numbers + 1 + added[np.searchsorted(np.asarray(self.records), numbers)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What the check of every record brought: how many records and lines, and their places.

    `orphans` are the numbers of an export's records that are no rows, in order.
    """

    records: int
    line_count: int
    lines: LineNumbers
    orphans: array[int]


@contextmanager
def open_text(source: Source, codec: str) -> Iterator[tuple[Stream, io.TextIOWrapper]]:
    """The content as bytes and as text, with the line ends that it has in the file.

    `\\r\\n`, `\\n` and `\\r` end a line, and inside quotes belong to the cell: so the parsers are
    given them unchanged.
    """
    with source.open() as file, io.TextIOWrapper(file, encoding=codec, newline="") as text:
        yield file, text


def find_head(source: Source, codec: str, asked: Mapping[str, str]) -> Head:
    """The first line that is not blank, cut at the delimiter that makes most sense of it.

    That is the one under which most roles find their column (`asked` is `--columns`), then the
    one that gives most columns.
    """
    with open_text(source, codec) as (_, text):
        start = text.read(_HEAD) + text.readline()
    hint = _EXCEL_HINT.match(start)
    delimiters = [hint[2]] if hint else list(_DELIMITERS)
    heads = [head for mark in delimiters if (head := _head(start, mark, skip=1 if hint else 0))]
    if not heads:
        raise ManifestError(f"{source.path} is empty: there is no header line in it.")
    return max(heads, key=lambda head: (count_roles(head.names, asked), len(head.names)))


def check_structure(
    source: Source, codec: str, head: Head, orphans_at: tuple[int, int] | None = None
) -> Structure:
    """Read every record and hold it against the header; ManifestError names the first bad line.

    `orphans_at` is what `orphan_places` says of the header.
    """
    header, width = list(head.names), len(head.names)
    long_records, added, orphans = array("q"), array("q"), array("q")
    record, line = -1, 0
    with open_text(source, codec) as (_, text):
        # strict: an open quote at the end, or text after a closing one, is an error and no guess.
        reader = csv.reader(text, delimiter=head.delimiter, strict=True)
        try:
            for record, cells in enumerate(reader):
                start, line = line + 1, reader.line_num
                if line != start:
                    long_records.append(record)
                    added.append((added[-1] if added else 0) + line - start)
                if record <= head.record:
                    continue
                if len(cells) > width:
                    _refuse_long_row(source.path, start, len(cells), head)
                if cells == header:
                    raise ManifestError(
                        f"{source.path}, line {start} is the header once more, as when two files "
                        "are joined; remove the line."
                    )
                if orphans_at is not None and is_orphan(cells, orphans_at):
                    orphans.append(record)
        except csv.Error as exc:
            _refuse_quoting(source.path, line + 1, exc)
    return Structure(
        records=record + 1,
        line_count=line,
        lines=LineNumbers(long_records, added),
        orphans=orphans,
    )


def find_foreign(
    source: Source, codec: str, head: Head, order: Sequence[str]
) -> tuple[int, str, str] | None:
    """The first cell with more than ASCII in it: its line, its column's name, its text.

    Of one record's cells the one whose column stands first in `order` is taken. Column names
    come last: then the line is the header's, and name and text are the same.
    """
    places = sorted(range(len(head.names)), key=lambda i: _place(head.names[i], order))
    line = 0
    with open_text(source, codec) as (_, text):
        reader = csv.reader(text, delimiter=head.delimiter)
        for record, cells in enumerate(reader):
            start, line = line + 1, reader.line_num
            if record <= head.record or "".join(cells).isascii():
                continue
            for place in places:
                if place < len(cells) and not cells[place].isascii():
                    return start, head.names[place], cells[place]
    names = (name for name in head.names if not name.isascii())
    return next(((head.line, name, name) for name in names), None)


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _head(start: str, delimiter: str, *, skip: int) -> Head | None:
    reader = csv.reader(io.StringIO(start, newline=""), delimiter=delimiter)
    line = 1
    try:
        for record, names in enumerate(reader):
            if record >= skip and any(name.strip() for name in names):
                return Head(
                    names=tuple(names),
                    record=record,
                    line=line,
                    delimiter=delimiter,
                    newline=_newline(start, reader.line_num),
                )
            line = reader.line_num + 1
    except csv.Error:
        return None
    return None


def _newline(start: str, line: int) -> str:
    text = io.StringIO(start, newline="")
    for _ in range(line - 1):
        text.readline()
    return "\r\n" if text.readline().endswith("\r\n") else "\n"


def _refuse_long_row(path: Path, line: int, fields: int, head: Head) -> NoReturn:
    name = _DELIMITERS.get(head.delimiter, f"{head.delimiter!r}")
    raise ManifestError(
        f"{path}, line {line} has {fields} fields, but the header only {len(head.names)}; "
        f"put a cell that contains a {name} in quotes."
    )


def _refuse_quoting(path: Path, line: int, exc: csv.Error) -> NoReturn:
    # The csv module tells its errors apart by their text only; an unknown text gets the last.
    if "unexpected end" in str(exc):
        why = "a quote that is opened in this row is never closed; close it"
    elif "field limit" in str(exc):
        why = (
            f"a cell is longer than {csv.field_size_limit():,} characters; "
            "close the quote that is probably open there"
        )
    else:
        why = "text follows a closing quote; write a quote inside a quoted cell twice"
    raise ManifestError(f"{path}, line {line}: {why}.") from exc
