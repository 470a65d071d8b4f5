"""The structure of a CSV file: its delimiter, its header, and a check of every record after it."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np

from enroll.errors import ManifestError
from enroll.manifest.bounds import LONGEST_LINE, MOST_AT_ONCE, MOST_COLUMNS, below
from enroll.manifest.header import count_roles, is_orphan
from enroll.manifest.source import Source, Stream
from enroll.visible import MARK

csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
# The module's own limit of 131,072 is less than a photo as Base64 takes. It is one for the process.

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_HEAD = 1 << 16  # characters, and the rest of the line: within that the header has to end
_LONG = 131_072  # characters; a cell of more that looks like rows is no cell
EXCEL_HINT = re.compile(r'("?)sep=([,;|\t])\1(?:\r\n|\r|\n)', re.IGNORECASE)
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

    `orphans` are the numbers of an export's records that are no rows, in order; `heavy` those of
    the records with which another MOST_AT_ONCE of text is complete.
    """

    records: int
    line_count: int
    lines: LineNumbers
    orphans: array[int]
    heavy: array[int]


class Text:
    """A list's text without byte-order marks: what the codec leaves of them before the first line,
    and, where that says the delimiter, before the second.

    Programs put a mark before a file that has one, or a line before the mark.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        start = text.readline().lstrip(MARK)
        if EXCEL_HINT.match(start):
            start += text.readline().lstrip(MARK)
        self._start = io.StringIO(start, newline="")
        self._rest = text

    def __iter__(self) -> Iterator[str]:
        """The lines."""
        return chain(self._start, self._rest)

    def read(self, size: int = -1) -> str:
        """Up to so many characters, perhaps fewer; none at the end.

        The first lines never come alone: pandas drops a byte-order mark from a piece of text
        before which it has ended no line, and a lone carriage return ends one only with the
        character after it.
        """
        start = self._start.read(size)
        left = size - len(start) if size >= 0 else size
        return start + (self._rest.read(left) if left else "")


@contextmanager
def open_text(source: Source, codec: str) -> Iterator[tuple[Stream, Text]]:
    """The content as bytes and as text, with the line ends that it has in the file.

    `\\r\\n`, `\\n` and `\\r` end a line, and inside quotes belong to the cell: so the parsers are
    given them unchanged.
    """
    with source.open() as file, io.TextIOWrapper(file, encoding=codec, newline="") as text:
        yield file, Text(text)


def find_head(source: Source, codec: str, asked: Mapping[str, str]) -> Head:
    """The first line that is not blank, cut at the delimiter that makes most sense of it.

    That is the one under which most roles find their column (`asked` is `--columns`), then the
    one that gives most columns.
    """
    with open_text(source, codec) as (_, text):
        start = _whole_lines(text)
    hint = EXCEL_HINT.match(start)
    delimiters = [hint[2]] if hint else list(DELIMITERS)
    heads = [head for mark in delimiters if (head := _head(start, mark, skip=1 if hint else 0))]
    if not heads:
        raise ManifestError(f"{source.path} is empty: there is no header line in it.")
    head = max(heads, key=lambda head: (count_roles(head.names, asked), len(head.names)))
    return _narrow(source.path, head)


def check_structure(
    source: Source, codec: str, head: Head, orphans_at: tuple[int, int] | None = None
) -> Structure:
    """Read every record and hold it against the header; ManifestError names the first bad line.

    `orphans_at` is what `orphan_places` says of the header.
    """
    first, *others = head.names
    # Where files with a byte-order mark each were joined, there is one before it.
    headers = [[mark, *others] for mark in (first, f"{MARK}{first}", f'{MARK}"{first}"')]
    width = len(head.names)
    long_records, added, orphans, heavy = array("q"), array("q"), array("q"), array("q")
    record, line, read, begun = -1, 0, 0, 0
    with open_text(source, codec) as (file, text):
        bytes_of = below(file)
        # strict: an open quote at the end, or text after a closing one, is an error and no guess.
        reader = csv.reader(iter(text), delimiter=head.delimiter, strict=True)
        try:
            for record, cells in enumerate(reader):
                start, line = line + 1, reader.line_num
                if line != start:
                    long_records.append(record)
                    added.append((added[-1] if added else 0) + line - start)
                if bytes_of.count != read:  # once a block, and for all that is longer than one
                    read = bytes_of.count
                    _refuse_swallowed(cells, source.path, start, head)
                    if read - begun > MOST_AT_ONCE:
                        heavy.append(record)
                        begun = read
                if record <= head.record:
                    continue
                if len(cells) > width:
                    _cut_empty(cells, source, start, head)
                if cells in headers:
                    raise ManifestError(
                        f"{source.path}, line {start} repeats the header, as when two files are "
                        "joined; remove the line."
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
        heavy=heavy,
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
        reader = csv.reader(iter(text), delimiter=head.delimiter)
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


def _holds_rows(cell: str, head: Head) -> bool:
    """Whether a cell is so long and so much like rows that a quote must have been left open before
    them: then they would be rows no more."""
    if len(cell) <= _LONG:
        return False
    lines = cell.splitlines()
    like = sum(line.count(head.delimiter) >= len(head.names) - 1 for line in lines)
    return 2 * like > len(lines)


def _whole_lines(text: Text) -> str:
    """The first _HEAD characters, and what is missing of the line that they end in."""
    start = ""
    while len(start) < _HEAD and (more := text.read(_HEAD)):
        start += more
    return start + next(iter(text), "")


def _narrow(path: Path, head: Head) -> Head:
    """A header of as many columns as a list may have, without the nameless ones that spreadsheets
    leave to the right of a table. Raises ManifestError for more."""
    names = head.names
    if len(names) <= MOST_COLUMNS:
        return head
    while names and not names[-1].strip():
        names = names[:-1]
    if len(names) > MOST_COLUMNS:
        raise ManifestError(
            f"{path}, line {head.line} has {len(names):,} columns, but a list may have "
            f"{MOST_COLUMNS:,}; remove those that are not needed."
        )
    return replace(head, names=names)


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


def _cut_empty(cells: list[str], source: Source, line: int, head: Head) -> None:
    """Take off the cells behind the last column, which are empty where a program ends every line
    with a delimiter. Raises ManifestError where they are not."""
    width = len(head.names)
    if "".join(cells[width:]).strip():
        if source.is_workbook:
            raise ManifestError(
                f"{source.path}, line {line} has text to the right of the last column that the "
                "header names; name that column, too, or remove the text."
            )
        raise ManifestError(
            f"{source.path}, line {line} has {len(cells)} fields, but the header only {width}; "
            f"put a cell that contains a {DELIMITERS[head.delimiter]} in quotes."
        )
    del cells[width:]


def _refuse_swallowed(cells: Sequence[str], path: Path, line: int, head: Head) -> None:
    if any(_holds_rows(cell, head) for cell in cells):
        raise ManifestError(
            f"{path}, line {line}: a cell is longer than {_LONG:,} characters and looks like rows; "
            "close the quote that is probably open there."
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
