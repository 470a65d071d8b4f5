"""Turns the elements of a sheet's XML into rows of the text that its cells show, within bounds.

Number formats and dates come from openpyxl. Its own reader keeps something of every row, undoes
only half of the escapes, and leaves out rows that are not in order.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path

from enroll.errors import ManifestError
from enroll.manifest.bounds import (
    BLOCK,
    MAX_CELL_LENGTH,
    MAX_CELLS,
    MAX_COLUMNS,
    MAX_SHARED_STRINGS,
    ScratchFile,
)
from enroll.manifest.celltext import GENERAL, cell_text

LAST_ROW = 1_048_576
"""Rows of a sheet in Excel, and in LibreOffice by default."""

_LAST_COLUMN = "XFD"

_MAX_FORMAT_CHARACTERS = 255
"""Characters of a number format that a spreadsheet accepts."""

_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
_MAX_KEPT_CHARACTERS = 2 * MAX_CELL_LENGTH * len("_x000D_")
"""Characters of a cell's value, each of which may be an escape, and of its formula."""

_TRUE = frozenset({"1", "true"})
_WHOLE = re.compile(r"[+-]?\d+")


def unescape_xstring(text: str) -> str:
    """The text of an ST_Xstring, in which `_x000D_` is a character that XML cannot hold (ECMA-376,
    part 1, 22.9.2.19)."""
    if "_x" not in text:
        return text
    plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    # Above U+FFFF a character is two escapes, the halves of UTF-16.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class _WrongCellError(Exception):
    """What is wrong with a cell, as the rest of a sentence that begins with its place."""


class _TooLongError(_WrongCellError):
    """A text that is too long for a cell."""

    def __init__(self) -> None:
        super().__init__(
            f"has more than {MAX_CELL_LENGTH:,} characters, more than a spreadsheet's cell can "
            "hold; open it in the spreadsheet and save it again."
        )


@dataclass(slots=True)
class Element:
    """An XML element, with names without prefixes.

    `texts` holds the text of the elements within it, by their names, if it was read to its end;
    `size` is how many characters those had. Only so many are kept as a cell can hold.
    """

    name: str
    attributes: Mapping[str, str]
    texts: dict[str, list[str]] = field(default_factory=dict)
    size: int = 0

    def add(self, pieces: list[str], text: str) -> None:
        """Append to a list of `texts`."""
        self.size += len(text)
        if self.size <= _MAX_KEPT_CHARACTERS:
            pieces.append(text)

    def text(self, name: str) -> str:
        """The text of its elements with this name, without escapes; "" if it has none. Raises
        _TooLongError."""
        text = unescape_xstring("".join(self.texts.get(name, ())))
        if len(text) > MAX_CELL_LENGTH or self.size > _MAX_KEPT_CHARACTERS:
            raise _TooLongError
        return text


class SharedStrings:
    """A workbook's table of shared strings, in a file; each takes 8 bytes of memory."""

    def __init__(self, elements: Iterable[Element], path: Path) -> None:
        """`elements` are those of the table, each `si` read to its end."""
        self._file = ScratchFile(path)
        self._ends = array("q", [0])
        self._too_long: set[int] = set()
        new = bytearray()
        for element in elements:
            if element.name != "si":
                continue
            number = len(self._ends) - 1
            if number >= MAX_SHARED_STRINGS:
                raise _too_many(path, MAX_SHARED_STRINGS, "texts")
            try:
                content = element.text("t").encode("utf-8", "replace")
            except _TooLongError:
                self._too_long.add(number)
                content = b""
            self._ends.append(self._ends[-1] + len(content))
            new += content
            if len(new) >= BLOCK:
                self._file.write(new)
                new.clear()
        self._file.write(new)

    def __getitem__(self, number: int) -> str:
        """A string by its number. Raises _WrongCellError for one that no cell can hold."""
        if number in self._too_long:
            raise _TooLongError
        if not 0 <= number < len(self._ends) - 1:
            raise IndexError(number)
        return self._file.read_range(self._ends[number], self._ends[number + 1]).decode()


@dataclass(frozen=True, slots=True)
class Format:
    """A cell's number format, and whether its number is a point in time or a duration."""

    code: str
    is_datetime: bool = False
    is_duration: bool = False


def read_formats(elements: Iterable[Element]) -> Sequence[Format]:
    """The formats of a workbook's cells, by style number, from the elements of its styles."""
    from openpyxl.styles.numbers import (  # noqa: PLC0415  # an extra
        BUILTIN_FORMATS,
        is_date_format,
        is_timedelta_format,
    )

    own: dict[int, str] = {}
    of_cells: list[int] = []
    within = ""
    for element in elements:
        if element.name in ("numFmts", "cellXfs", "cellStyleXfs", "cellStyles", "dxfs"):
            within = element.name
        elif element.name == "numFmt" and within == "numFmts":
            own[int(element.attributes["numFmtId"])] = element.attributes["formatCode"]
        elif element.name == "xf" and within == "cellXfs":
            of_cells.append(int(element.attributes.get("numFmtId", 0)))
    codes = [own.get(number) or BUILTIN_FORMATS.get(number, GENERAL) for number in of_cells]
    codes = [code if len(code) <= _MAX_FORMAT_CHARACTERS else GENERAL for code in codes]
    return [Format(code, is_date_format(code), is_timedelta_format(code)) for code in codes]


_GENERAL = Format(GENERAL)


@dataclass(slots=True)
class SheetRow:
    """A row: its 1-based number, whether the spreadsheet hides it, and the text of its cells up to
    the last that is not empty. `column` is the 1-based number of the last cell in the file."""

    number: int
    hidden: bool
    cells: list[str] = field(default_factory=list)
    column: int = 0


class Sheet:
    """Reads a sheet's rows, once."""

    def __init__(
        self,
        path: Path,
        *,
        texts: SharedStrings,
        formats: Sequence[Format],
        epoch: datetime,
    ) -> None:
        """`epoch` is the workbook's day zero."""
        from openpyxl.utils.datetime import from_excel, from_ISO8601  # noqa: PLC0415

        self._from_number: Callable[..., datetime | time | timedelta] = from_excel
        self._from_iso: Callable[[str], datetime | date | time | timedelta] = from_ISO8601
        self.hidden_columns: list[tuple[int, int]] = []
        """The first and the last of each group, 1-based."""
        self._path = path
        self._texts = texts
        self._formats = formats
        self._epoch = epoch
        self._places: dict[str, int] = {}

    def rows(self, elements: Iterable[Element]) -> Iterator[SheetRow]:
        """The rows in the order of the file; each `c` of `elements` is read to its end. Raises
        ManifestError."""
        row: SheetRow | None = None
        count = 0
        for element in elements:
            if element.name == "c" and row is not None:
                count += 1
                if count > MAX_CELLS:
                    raise _too_many(self._path, MAX_CELLS, "cells")
                self._add_cell(row, element)
            elif element.name == "row":
                if row is not None:
                    yield row
                row = self._row(element.attributes, after=0 if row is None else row.number)
            elif element.name == "col" and element.attributes.get("hidden") in _TRUE:
                first, last = element.attributes["min"], element.attributes["max"]
                self.hidden_columns.append((int(first), int(last)))
        if row is not None:
            yield row

    def _row(self, attributes: Mapping[str, str], *, after: int) -> SheetRow:
        number = int(float(attributes["r"])) if "r" in attributes else after + 1
        if number <= after:
            raise ValueError("rows that are not in order")
        if number > LAST_ROW:
            raise ManifestError(
                f"{self._path} has a row with a number above {LAST_ROW:,}, the last of a "
                "spreadsheet; open it in the spreadsheet and save it again."
            )
        return SheetRow(number, hidden=attributes.get("hidden") in _TRUE)

    def _add_cell(self, row: SheetRow, cell: Element) -> None:
        reference = cell.attributes.get("r", "")
        letters = reference.rstrip("0123456789")
        row.column = self._place(letters) if letters else row.column + 1
        try:
            text = self._text(cell, row.column)
        except _WrongCellError as error:
            place = reference or f"{row.column} of row {row.number}"
            raise ManifestError(f"{self._path}, cell {place} {error}") from None
        if text:
            row.cells += [""] * (row.column - len(row.cells))
            row.cells[row.column - 1] = text

    def _place(self, letters: str) -> int:
        place = self._places.get(letters, 0)
        if not place:
            if len(letters) > len(_LAST_COLUMN):
                raise ValueError("a cell after the last column of a spreadsheet")
            for letter in letters.upper():
                place = 26 * place + "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(letter) + 1
            self._places[letters] = place
        return place

    def _text(self, cell: Element, column: int) -> str:
        """The text that a cell shows. Raises _WrongCellError."""
        text = self._shown(cell)
        if "\0" in text:
            raise _WrongCellError("holds a NUL character; remove it.")
        if text and column > MAX_COLUMNS:
            raise _WrongCellError(
                f"is in column {column:,}, but a list may have {MAX_COLUMNS:,}; remove the columns "
                "that are not needed."
            )
        return text

    def _shown(self, cell: Element) -> str:
        kind = cell.attributes.get("t", "n")
        text = cell.text("t" if kind == "inlineStr" else "v")
        if not text and kind == "n" and "f" in cell.texts:
            raise _WrongCellError(
                "holds a formula whose result is not in the file; open it in the spreadsheet, save "
                "it there, and run again."
            )
        if not text or kind not in ("s", "n", "b", "d"):
            return text
        if kind == "s":
            return self._texts[int(text)]
        if kind == "b":
            return cell_text(text.lower() in _TRUE, None)
        style = int(cell.attributes.get("s") or 0)
        number_format = self._formats[style] if self._formats else _GENERAL
        if kind == "d":
            return cell_text(self._from_iso(text), number_format.code)
        return self._number(text, number_format)

    def _number(self, value: str, number_format: Format) -> str:
        number = float(value) if not _WHOLE.fullmatch(value) else int(value)
        if not math.isfinite(number):
            raise ValueError("a number that is not one")
        if not number_format.is_datetime:
            return cell_text(number, number_format.code)
        try:
            value_at = self._from_number(number, self._epoch, timedelta=number_format.is_duration)
            return cell_text(value_at, number_format.code)
        except (OverflowError, ValueError):
            return "#VALUE!"  # as the spreadsheet shows it


def _too_many(path: Path, most: int, what: str) -> ManifestError:
    return ManifestError(
        f"{path} has more than {most:,} {what}, more than a list should need; check what it "
        "holds, or split it."
    )
