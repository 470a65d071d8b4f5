"""A CSV file's structure: its delimiter, its header, and a check of every record."""

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
from enroll.manifest.bounds import MAX_CHUNK_BYTES, MAX_COLUMNS, MAX_LINE_LENGTH, Bounded
from enroll.manifest.header import Orphans, count_roles, is_results_header
from enroll.manifest.source import Source
from enroll.manifest.template import Template
from enroll.visible import BYTE_ORDER_MARK

csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_LENGTH))
# Python's default of 131,072 is too small for a photo as Base64. The limit is process-wide; what
# holds for a list is its source's longest line.

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_HEAD = 1 << 16  # characters, then the rest of the line: the header has to end within them
_LONG = 131_072  # characters; a longer cell that looks like rows is a quote left open
EXCEL_HINT = re.compile(r'("?)sep=([,;|\t])\1(?:\r\n|\r|\n)', re.IGNORECASE)
"""Excel's optional first line that names the delimiter. Programs that quote every cell quote it
too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    r"""The header: its names as written, and its place.

    `above` lines are before the first record and never parsed: a title. `record` is its 0-based
    number among the records, blank lines counted; `line` is 1-based; `newline` is how its line
    ends, `\n` or `\r\n` (an old Mac's `\r` counts as `\n`).
    """

    names: tuple[str, ...]
    record: int
    line: int
    delimiter: str
    newline: str
    above: int = 0


@dataclass(frozen=True, slots=True)
class LineNumbers:
    """Converts record numbers to line numbers.

    Only records of several lines are kept: `records` are their numbers, in order, `added` is how
    many extra lines there are up to the end of each. `above` lines are before the first record.
    """

    records: array[int]
    added: array[int]
    above: int = 0

    def of(self, first: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The 1-based lines on which `count` records start, from record `first` (0-based) on."""
        numbers = np.arange(first, first + count, dtype=np.int64)
        lines = numbers + 1 + self.above
        if not self.records:
            return lines
        added = np.concatenate(([0], np.asarray(self.added, dtype=np.int64)))
        return lines + added[np.searchsorted(np.asarray(self.records), numbers)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What the check of every record found.

    `orphans` are the numbers of an export's records that are not rows, in order; `heavy` those of
    the records with which another MAX_CHUNK_BYTES of text are complete.
    """

    records: int
    lines: LineNumbers
    orphans: array[int]
    heavy: array[int]


class Text:
    """A list's text without the byte-order marks that the codec leaves before the first line, and
    before the second where the first names the delimiter.

    Some programs add a second mark, or put a line before the mark.
    """

    def __init__(self, text: io.TextIOWrapper, *, above: int = 0) -> None:
        """Leave out the `above` first lines."""
        start = text.readline().lstrip(BYTE_ORDER_MARK)
        hint = EXCEL_HINT.match(start)
        self.hint = hint[2] if hint else ""
        """The delimiter that the first line names, if it does, even if it is left out."""
        if above:
            for _ in range(above - 1):
                text.readline()
            start = text.readline().lstrip(BYTE_ORDER_MARK)
        elif hint:
            start += text.readline().lstrip(BYTE_ORDER_MARK)
        self._start = io.StringIO(start, newline="")
        self._rest = text

    def __iter__(self) -> Iterator[str]:
        """The lines."""
        return chain(self._start, self._rest)

    def read(self, size: int = -1) -> str:
        """At most `size` characters; empty at the end.

        The first lines never come alone: pandas drops a byte-order mark from any piece of text
        before it has seen the end of a line, and a lone carriage return ends one only with the
        character after it.
        """
        start = self._start.read(size)
        left = size - len(start) if size >= 0 else size
        return start + (self._rest.read(left) if left else "")


@contextmanager
def open_text(
    source: Source, codec: str, *, above: int = 0
) -> Iterator[tuple[io.BufferedReader[Bounded], Text]]:
    """The content as bytes and as text, with the line ends that it has in the file, and without the
    `above` first lines.

    `\\r\\n`, `\\n` and `\\r` end a line, but belong to the cell inside quotes, so the parsers get
    them unchanged.
    """
    with source.open() as file, io.TextIOWrapper(file, encoding=codec, newline="") as text:
        yield file, Text(text, above=above)


def find_header(
    source: Source,
    codec: str,
    given: Mapping[str, Template],
    *,
    header_row: int | None = None,
    delimiter: str | None = None,
) -> Header:
    """The header, split at the most plausible delimiter: the first line that is not blank, or the
    one that `header_row` (1-based) names.

    That delimiter is the one with which most roles find their column (`given` is `--columns`), then
    the one that gives most columns; or the one given. A results file or export begins with its
    header, whatever was given for the list that it was made from.
    """
    for mark in (None, delimiter) if header_row or delimiter else ():
        head = _best_head(source, codec, given, delimiter=mark)
        if head is not None and is_results_header(head.names):
            return _narrow(source.path, head)
    head = _best_head(source, codec, given, delimiter=delimiter, header_row=header_row)
    if head is None and header_row is not None:
        raise ManifestError(
            f"{source.path}, line {header_row} is empty or beyond the end, but --header-row names "
            "it as the header. Correct --header-row."
        )
    if head is None:
        raise ManifestError(f"{source.path} is empty: there is no header line in it.")
    return _narrow(source.path, head)


def _best_head(
    source: Source,
    codec: str,
    given: Mapping[str, Template],
    *,
    delimiter: str | None,
    header_row: int | None = None,
) -> Header | None:
    """The most plausible header; None if there is none, or none in the row named."""
    # A title may have a quote that is never closed, so its lines are not parsed. In a sheet, whose
    # quotes are right, a cell may have several lines.
    record = (header_row or 1) - 1
    above = 0 if source.is_converted else record
    record -= above
    with open_text(source, codec, above=above) as (_, text):
        start, hint = _whole_lines(text), text.hint
    marks = [delimiter] if delimiter else [hint] if hint else list(DELIMITERS)
    skip = max(record, 1 if hint and not above else 0)
    heads = [head for mark in marks if (head := _parse_header(start, mark, skip=skip))]
    if header_row is not None:
        heads = [head for head in heads if head.record == record]
    if not heads:
        return None
    head = max(heads, key=lambda head: (count_roles(head.names, given), len(head.names)))
    line = head.record + 1 if source.is_converted else head.line + above
    return replace(head, line=line, above=above)


def check_structure(
    source: Source, codec: str, head: Header, lines_of: Orphans | None = None
) -> Structure:
    """Compare every record with the header; ManifestError names the first bad line.

    `lines_of` is what `orphans_of` returns for the header.
    """
    first, *others = head.names
    # Joined files may each begin with a byte-order mark, which is then before the second header.
    headers = [
        [mark, *others]
        for mark in (first, f"{BYTE_ORDER_MARK}{first}", f'{BYTE_ORDER_MARK}"{first}"')
    ]
    width = len(head.names)
    long_records, added, orphans, heavy = array("q"), array("q"), array("q"), array("q")
    record, line, read, begun = -1, head.above, 0, 0
    csv.field_size_limit(source.longest_line)
    with open_text(source, codec, above=head.above) as (file, text):
        # strict: an open quote at the end, or text after a closing one, is an error.
        reader = csv.reader(iter(text), delimiter=head.delimiter, strict=True)
        try:
            for record, cells in enumerate(reader):
                start, line = line + 1, head.above + reader.line_num
                if line != start:
                    long_records.append(record)
                    added.append((added[-1] if added else 0) + line - start)
                if file.raw.count != read:  # a block was read, so this is looked at once per block
                    read = file.raw.count
                    _refuse_swallowed(cells, source.path, start, head)
                    if read - begun > MAX_CHUNK_BYTES:
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
                if lines_of is not None and lines_of.has(cells):
                    orphans.append(record)
        except csv.Error as exc:
            _refuse_quoting(source.path, line + 1, exc)
    return Structure(
        records=record + 1,
        lines=LineNumbers(long_records, added, head.above),
        orphans=orphans,
        heavy=heavy,
    )


def find_non_ascii(
    source: Source, codec: str, head: Header, order: Sequence[str]
) -> tuple[int, str, str] | None:
    """The first cell that is not ASCII: its line, its column's name, its text.

    Among the cells of a record, the columns in `order` go first. Column names are tried last; then
    the line is the header's, and name and text are the same.
    """
    places = sorted(range(len(head.names)), key=lambda i: _place(head.names[i], order))
    line = head.above
    with open_text(source, codec, above=head.above) as (_, text):
        reader = csv.reader(iter(text), delimiter=head.delimiter)
        for record, cells in enumerate(reader):
            start, line = line + 1, head.above + reader.line_num
            if record <= head.record or "".join(cells).isascii():
                continue
            for place in places:
                if place < len(cells) and not cells[place].isascii():
                    return start, head.names[place], cells[place]
    names = (name for name in head.names if not name.isascii())
    return next(((head.line, name, name) for name in names), None)


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _holds_rows(cell: str, head: Header) -> bool:
    lines = cell.splitlines()
    like = sum(line.count(head.delimiter) >= len(head.names) - 1 for line in lines)
    return 2 * like > len(lines)


def _whole_lines(text: Text) -> str:
    """The first _HEAD characters, and the rest of the line in which they end."""
    start = ""
    while len(start) < _HEAD and (more := text.read(_HEAD)):
        start += more
    return start + next(iter(text), "")


def _narrow(path: Path, head: Header) -> Header:
    """The header; if it is too wide, without the nameless columns that spreadsheets leave to the
    right of a table. Raises ManifestError when it is still too wide."""
    names = head.names
    if len(names) <= MAX_COLUMNS:
        return head
    while names and not names[-1].strip():
        names = names[:-1]
    if len(names) > MAX_COLUMNS:
        raise ManifestError(
            f"{path}, line {head.line} has {len(names):,} columns, but a list may have "
            f"{MAX_COLUMNS:,}; remove those that are not needed."
        )
    return replace(head, names=names)


def _parse_header(start: str, delimiter: str, *, skip: int) -> Header | None:
    reader = csv.reader(io.StringIO(start, newline=""), delimiter=delimiter)
    line = 1
    try:
        for record, names in enumerate(reader):
            if record >= skip and any(name.strip() for name in names):
                return Header(
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


def _cut_empty(cells: list[str], source: Source, line: int, head: Header) -> None:
    """Remove the cells after the last column, which are empty where a program ends every line with
    a delimiter. Raises ManifestError when they are not."""
    width = len(head.names)
    if "".join(cells[width:]).strip():
        if source.is_workbook:
            raise ManifestError(
                f"{source.path}, line {line} has text to the right of the last column that the "
                "header names; name that column, too, or remove the text."
            )
        raise ManifestError(
            f"{source.path}, line {line} has {len(cells)} fields, but the header only {width}; "
            f"put a cell that contains a {DELIMITERS.get(head.delimiter, head.delimiter)} in "
            "quotes."
        )
    del cells[width:]


def _refuse_swallowed(cells: Sequence[str], path: Path, line: int, head: Header) -> None:
    if any(len(cell) > _LONG and _holds_rows(cell, head) for cell in cells):
        raise ManifestError(
            f"{path}, line {line}: a cell is longer than {_LONG:,} characters and looks like rows; "
            "close the quote that is probably open there."
        )


def _refuse_quoting(path: Path, line: int, exc: csv.Error) -> NoReturn:
    # Errors of the csv module differ only in their text; an unknown text is taken for the last
    # kind.
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
