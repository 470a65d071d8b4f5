"""Tables that are written to files: CSV, workbook, JSON lines or Parquet, as the file's name ends.

A CSV is for spreadsheets, which run some texts as formulas: they get an apostrophe. In a workbook
every cell is text, so only texts get one from which reading would take one away. JSON lines and
Parquet hold the texts unchanged.
"""

from __future__ import annotations

import codecs
import csv
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

from enroll.errors import LocalError
from enroll.text.files import NewFile, new_file, table_suffix
from enroll.visible import json_text, storable

Cell = str | int | None
"""What a cell may hold; None where nothing is known."""

Rule = Callable[[str], object]
"""Whether a cell breaks the rule of its column. Only cells that break it are escaped. That can be
undone, because a cell that breaks a rule also breaks it with an apostrophe before it."""

BATCH = 10_000
"""Rows written at a time."""

_ROW_GROUP_ROWS, _ROW_GROUP_BYTES = 20_000, 64 << 20
"""What a row group of Parquet has at most; five times as many rows compressed no better and took
100 MB more."""


def free_text(cell: str) -> bool:
    """The rule of a column whose text comes from outside: any formula is escaped."""
    return True


# Escapes

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""What spreadsheets take for a formula: the four characters of OWASP's page on CSV injection,
blanks that some strip first, and the full-width forms that East Asian versions accept."""

_ESCAPED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
_FIRST = frozenset("'=+-@\t\r\n＝＋－＠")


def escape(cell: str, rule: Rule = free_text) -> str:
    """The cell, safe for a CSV that a spreadsheet opens."""
    return "'" + cell if _FORMULA.match(cell) and rule(cell) else cell


def unescape(cell: str, rule: Rule = free_text) -> str:
    """The cell before `escape`."""
    return cell[1:] if _ESCAPED.match(cell) and rule(cell) else cell


def escape_column(cells: list[str], rule: Rule = free_text) -> list[str]:
    """`escape` for a column; the same list when no cell can need it."""
    return [escape(cell, rule) for cell in cells] if _may_need_escape(cells) else cells


def unescape_column(cells: list[str], rule: Rule = free_text) -> list[str]:
    """`unescape` for a column; the same list when no cell can need it."""
    return [unescape(cell, rule) for cell in cells] if _may_need_escape(cells) else cells


def _protect_column(cells: list[str], rule: Rule) -> list[str]:
    """Cells of a workbook: `unescape` gives each as it was, also one that looks escaped."""
    if not _may_need_escape(cells):
        return cells
    return ["'" + cell if unescape(cell, rule) != cell else cell for cell in cells]


def _may_need_escape(cells: Iterable[str]) -> bool:
    # Comparing the first characters is several times faster than matching every cell.
    return not _FIRST.isdisjoint({cell[:1] for cell in cells})


# Tables


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvForm:
    r"""A CSV's delimiter, line end (`\n` or `\r\n`), and whether it begins with a byte-order
    mark."""

    delimiter: str = ","
    newline: str = "\n"
    bom: bool = False


PLAIN = CsvForm()


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """A table's columns: `names` in their order; `rules` of those that are escaped, by name; and
    `numbers`, which are whole numbers in JSON lines and Parquet. All others are text."""

    names: Sequence[str]
    rules: Mapping[str, Rule]
    numbers: Collection[str]

    @property
    def keys(self) -> list[str]:
        """The names as JSON and Parquet need them: different, and in UTF-8."""
        names = [storable(name) for name in self.names]
        keys: list[str] = []
        for place, name in enumerate(names, start=1):
            key = name
            while not key or key in keys or (key != name and key in names):
                key = f"{key or 'column'} {place}"
            keys.append(key)
        return keys

    def texts(self, cells: Sequence[Sequence[Cell]]) -> list[list[str]]:
        """Columns of cells as text."""
        return [
            [one if type(one) is str else "" if one is None else str(one) for one in column]
            for column in cells
        ]

    def escaped(
        self, cells: Sequence[Sequence[Cell]], change: Callable[[list[str], Rule], list[str]]
    ) -> list[list[str]]:
        """Columns of cells as text, with those changed that have a rule."""
        return [
            change(column, rule) if (rule := self.rules.get(name)) else column
            for name, column in zip(self.names, self.texts(cells), strict=True)
        ]


class Table(ABC):
    """A table that is being written: rows go to its file as they come."""

    replaced = False
    """Whether the file changed; known once the `with` has ended."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def write(self, rows: Iterable[Sequence[Cell]]) -> int:
        """Append rows; returns how many."""
        rest, count = iter(rows), 0
        while batch := list(islice(rest, BATCH)):
            self.write_columns(list(zip(*batch, strict=True)))
            count += len(batch)
        return count

    @abstractmethod
    def write_columns(self, cells: Sequence[Sequence[Cell]]) -> None:
        """Append rows, given as a column of cells for each name."""


@contextmanager
def new_table(
    path: Path,
    names: Sequence[str],
    *,
    rules: Mapping[str, Rule] | None = None,
    numbers: Collection[str] = (),
    form: CsvForm = PLAIN,
) -> Iterator[Table]:
    """A table in a new file, which replaces the old one once it is complete, as `new_file` says.

    `rules` and `numbers` are those of `Columns`; `form` is for a CSV. Raises UsageError for a name
    with another suffix, or if a package is missing, and LocalError if it cannot be written.
    """
    columns = Columns(names=names, rules=rules or {}, numbers=numbers)
    write_kind = _KINDS.get(table_suffix(path), _csv_table)
    with new_file(path) as new, write_kind(new, columns, path, form) as table:
        yield table
    table.replaced = new.replaced


@contextmanager
def maybe_table(
    path: Path | None, names: Sequence[str], *, rules: Mapping[str, Rule] | None = None
) -> Iterator[Table | None]:
    """The same; None if there is no path."""
    if path is None:
        yield None
        return
    with new_table(path, names, rules=rules) as table:
        yield table


# CSV


class CsvTable(Table):
    """A CSV in UTF-8, which `write` gets piece by piece."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        names: Sequence[str],
        *,
        rules: Mapping[str, Rule] | None = None,
        form: CsvForm = PLAIN,
    ) -> None:
        super().__init__(Columns(names=names, rules=rules or {}, numbers=()))
        self._write = write
        self._form = form
        # Names are escaped, too: a spreadsheet evaluates a formula anywhere.
        header = escape_column(list(names)) if rules else names
        write((codecs.BOM_UTF8 if form.bom else b"") + _csv_bytes([header], form))

    def write_columns(self, cells: Sequence[Sequence[Cell]]) -> None:
        columns = self._columns.escaped(cells, escape_column)
        self._write(_csv_bytes(zip(*columns, strict=True), self._form))


def _csv_bytes(rows: Iterable[Iterable[str]], form: CsvForm) -> bytes:
    """Rows as lines of a CSV in UTF-8; what UTF-8 or a CSV cannot hold is written as `\\x00`."""
    lines = _Lines()
    # The writer always quotes `\r` and `\n` only when both are in its own line end
    # (Python 3.11 to 3.13), so the form's line end is put there afterwards.
    csv.writer(lines, delimiter=form.delimiter, lineterminator="\r\n").writerows(rows)
    whole = lines if form.newline == "\r\n" else [line[:-2] + form.newline for line in lines]
    return storable("".join(whole)).replace("\0", "\\x00").encode()


class _Lines(list[str]):
    """A list that a csv.writer can write to, one item per row."""

    write = list.append


@contextmanager
def _csv_table(new: NewFile, columns: Columns, path: Path, form: CsvForm) -> Iterator[Table]:
    yield CsvTable(new.file.write, columns.names, rules=columns.rules, form=form)


# JSON lines


class _JsonLines(Table):
    """JSON objects with the same keys, one a line."""

    def __init__(self, file: IO[bytes], columns: Columns) -> None:
        super().__init__(columns)
        self._file = file
        self._keys = columns.keys

    def write_columns(self, cells: Sequence[Sequence[Cell]]) -> None:
        rows = zip(*_typed(self._columns, cells), strict=True)
        lines = [f"{json_text(dict(zip(self._keys, row, strict=True)))}\n" for row in rows]
        self._file.write("".join(lines).encode())


@contextmanager
def _json_table(new: NewFile, columns: Columns, path: Path, form: CsvForm) -> Iterator[Table]:
    yield _JsonLines(new.file, columns)


def _typed(columns: Columns, cells: Sequence[Sequence[Cell]]) -> list[Sequence[Cell]]:
    """Columns of cells as text, except those of numbers."""
    return [
        given if name in columns.numbers else text
        for name, given, text in zip(columns.names, cells, columns.texts(cells), strict=True)
    ]


# Parquet


class _Parquet(Table):
    """Parquet, in row groups."""

    def __init__(self, writer: Any, columns: Columns) -> None:
        super().__init__(columns)
        self._writer = writer
        self._waiting: list[Any] = []

    def write_columns(self, cells: Sequence[Sequence[Cell]]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - of the extra, and slow to load

        typed = [[_arrow_cell(one) for one in column] for column in _typed(self._columns, cells)]
        self._waiting.append(pa.table(typed, schema=self._writer.schema))
        rows = sum(one.num_rows for one in self._waiting)
        size = sum(one.nbytes for one in self._waiting)
        if rows >= _ROW_GROUP_ROWS or size >= _ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write a row group of what is waiting."""
        import pyarrow as pa  # noqa: PLC0415

        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting.clear()


def _arrow_cell(cell: Cell) -> Cell:
    """A cell without unpaired surrogates, which Arrow refuses."""
    return cell if not isinstance(cell, str) or cell.isascii() else storable(cell)


@contextmanager
def _parquet_table(new: NewFile, columns: Columns, path: Path, form: CsvForm) -> Iterator[Table]:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    types = [pa.int64() if name in columns.numbers else pa.string() for name in columns.names]
    schema = pa.schema(list(zip(columns.keys, types, strict=True)))
    with parquet.ParquetWriter(new.file, schema, compression="zstd") as writer:
        table = _Parquet(writer, columns)
        yield table
        table.flush()


# Workbooks

LAST_ROW = 1_048_576
"""Rows of a sheet in Excel; the first is the header."""

MAX_CELL_UNITS = 32_767
"""Characters that a workbook's cell can hold, counted in UTF-16.
https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3"""

_NARROW, _WIDE = 8, 60
"""Widths of a column, in characters."""

_CREATED = datetime(2000, 1, 1, tzinfo=UTC)
"""The time that a workbook says it was made at: always the same, so that equal tables are equal
files."""


_NOT_IN_XML = re.compile("_(?=x[0-9A-Fa-f]{4}_)|[\x00-\x08\x0b-\x1f\ufffe\uffff]")
"""What an ST_Xstring escapes: characters that XML cannot hold, and what looks like an escape
(ECMA-376, part 1, 22.9.2.19)."""


def too_long_for_workbook(cell: str) -> bool:
    """Whether a workbook's cell cannot hold the text."""
    if len(cell) <= MAX_CELL_UNITS // 2:
        return False
    return len(cell.encode("utf-16-le", "surrogatepass")) // 2 > MAX_CELL_UNITS


class _Workbook(Table):
    """A workbook in which every cell is text; rows that do not fit go to further sheets."""

    def __init__(self, book: Any, columns: Columns, path: Path) -> None:
        super().__init__(columns)
        self._book = book
        self._path = path
        self._text = book.add_format({"num_format": "@"})
        self._bold = book.add_format({"num_format": "@", "bold": True})
        names = list(map(storable, columns.names))
        self._header = _protect_column(names, free_text) if columns.rules else names
        self._widths = [len(name) + 3 for name in self._header]  # with the filter's button
        self._rows = 0  # of the sheet
        self._sheet = self._new_sheet()

    def write_columns(self, cells: Sequence[Sequence[Cell]]) -> None:
        columns = self._columns.escaped(cells, _protect_column)
        for place, column in enumerate(columns):
            self._widths[place] = max(self._widths[place], max(map(len, column), default=0) + 1)
        for row in zip(*columns, strict=True):
            if self._rows == LAST_ROW:
                self.finish_sheet()
                self._sheet = self._new_sheet()
            self._put(row, self._text)

    def finish_sheet(self) -> None:
        """Set what is only known once all rows are there."""
        self._sheet.autofilter(0, 0, self._rows - 1, len(self._header) - 1)
        for place, width in enumerate(self._widths):
            self._sheet.set_column(place, place, min(max(width, _NARROW), _WIDE), self._text)

    def _new_sheet(self) -> Any:
        sheet = add_text_sheet(self._book)
        sheet.freeze_panes(1, 0)
        self._sheet, self._rows = sheet, 0
        self._put(self._header, self._bold)
        return sheet

    def _put(self, row: Sequence[str], style: Any) -> None:
        for place, text in enumerate(row):
            if not text.isprintable():
                text = storable(text).replace("\0", "\\x00")  # noqa: PLW2901 - as in a CSV
            # write_string cuts a text that is too long, and says so.
            if text and self._sheet.write_string(self._rows, place, text, style):
                raise LocalError(
                    f"{self._path} cannot be written: the text in row {self._rows + 1}, column "
                    f"{self._header[place]!r}, has {len(text):,} characters, and a cell of a "
                    f"workbook holds {MAX_CELL_UNITS:,}. Give a name that ends in .csv, .jsonl or "
                    ".parquet."
                )
        self._rows += 1


def add_text_sheet(book: Any, name: str | None = None) -> Any:
    """A new sheet of an XlsxWriter workbook, for cells of any text: a text like `<r>…</r>` is no
    XML, `_x005F_x0041_` is escaped, and ids are not marked as numbers stored as text."""
    from xlsxwriter.worksheet import Worksheet  # noqa: PLC0415 - of an extra

    class TextSheet(Worksheet):  # type: ignore[misc]
        @staticmethod
        def _escape_control_characters(data: str) -> str:
            return _NOT_IN_XML.sub(lambda found: f"_x{ord(found[0]):04X}_", data)

        def _xml_rich_inline_string(self, string: str, attributes: Any = ()) -> None:
            self._xml_inline_string(string, False, attributes)

    sheet = book.add_worksheet(name, worksheet_class=TextSheet)
    sheet.ignore_errors({"number_stored_as_text": f"A1:XFD{LAST_ROW}"})
    return sheet


@contextmanager
def _workbook_table(new: NewFile, columns: Columns, path: Path, form: CsvForm) -> Iterator[Table]:
    import xlsxwriter  # noqa: PLC0415
    from xlsxwriter.exceptions import FileCreateError  # noqa: PLC0415

    # Its temporary files hold the whole table: they are kept beside the file, for its owner only.
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp"
    ) as folder:
        options = {
            "constant_memory": True,
            "tmpdir": folder,
            "strings_to_numbers": False,
            "strings_to_formulas": False,
            "strings_to_urls": False,
        }
        book = xlsxwriter.Workbook(new.file, options)
        book.use_zip64()
        book.set_properties({"created": _CREATED})
        try:
            table = _Workbook(book, columns, path)
            yield table
            table.finish_sheet()
            try:
                book.close()
            except FileCreateError as error:  # it holds the OSError, which `new_file` explains
                raise error.args[0] from error
        finally:
            for sheet in book.worksheets():
                sheet.row_data_fh.close()


_KINDS = {".xlsx": _workbook_table, ".jsonl": _json_table, ".parquet": _parquet_table}
