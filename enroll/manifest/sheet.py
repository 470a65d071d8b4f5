"""Reads a sheet's XML, piece by piece and within bounds, into rows of the text that cells show.

Number formats and dates come from openpyxl. Its own reader keeps something of every row, undoes
only half of the escapes, and leaves out rows that are not in order.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import NoReturn

from enroll.errors import ManifestError
from enroll.manifest.bounds import (
    MAX_CELL_LENGTH,
    MAX_CELLS,
    MAX_COLUMNS,
    MAX_SHARED_STRINGS,
    ScratchFile,
)
from enroll.manifest.celltext import GENERAL, cell_text
from enroll.manifest.package import Package, parser_for

LAST_ROW = 1_048_576
"""Rows of a sheet in Excel, and in LibreOffice by default."""

_LAST_COLUMN = "XFD"

_MAX_FORMAT_CHARACTERS = 255
"""Characters of a number format that a spreadsheet accepts."""

_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
_MAX_ESCAPED_CHARACTERS = MAX_CELL_LENGTH * len("_x000D_")
_TRUE = frozenset({"1", "true"})


class TooLongError(Exception):
    """A text that is too long for a cell."""


def unescape_xstring(text: str) -> str:
    """The text of an ST_Xstring, in which `_x000D_` is a character that XML cannot hold (ECMA-376,
    part 1, 22.9.2.19)."""
    if "_x" not in text:
        return text
    plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    # Above U+FFFF a character is two escapes, the halves of UTF-16.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class _BoundedText:
    """Collects the text of an element, but no more of it than a cell can hold."""

    __slots__ = ("_length", "_parts")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0

    def add(self, text: str) -> None:
        self._length += len(text)
        if self._length <= _MAX_ESCAPED_CHARACTERS:
            self._parts.append(text)

    def whole(self) -> str:
        """Raises TooLongError."""
        if self._length > _MAX_ESCAPED_CHARACTERS:
            raise TooLongError
        text = unescape_xstring("".join(self._parts))
        if len(text) > MAX_CELL_LENGTH:
            raise TooLongError
        return text


class SharedStrings:
    """A workbook's table of shared strings, in a file; each takes 8 bytes of memory."""

    def __init__(self, package: Package, part: str, path: Path) -> None:
        """Read the table; none when `part` is ""."""
        self._path = path
        self._file = ScratchFile(path)
        self._ends = array("q", [0])
        self._too_long: set[int] = set()
        self._piece: _BoundedText | None = None
        self._phonetic = self._collecting = False
        self._new: list[bytes] = []
        if part:
            parser = parser_for(start=self._start, end=self._end, text=self._text)
            for _ in package.parse(part, parser):
                self._file.write(b"".join(self._new))
                self._new.clear()

    def __getitem__(self, number: int) -> str:
        """A string by its number. Raises TooLongError for one that no cell can hold."""
        if number in self._too_long:
            raise TooLongError
        if not 0 <= number < len(self._ends) - 1:
            raise IndexError(number)
        return self._file.read_range(self._ends[number], self._ends[number + 1]).decode()

    def _start(self, name: str, _: Mapping[str, str]) -> None:
        if name == "si":
            self._piece = _BoundedText()
        elif name == "rPh":  # phonetic text, for reading aloud
            self._phonetic = True
        elif name == "t":
            self._collecting = not self._phonetic

    def _text(self, text: str) -> None:
        if self._collecting and self._piece is not None:
            self._piece.add(text)

    def _end(self, name: str) -> None:
        self._collecting = False
        if name == "rPh":
            self._phonetic = False
        elif name == "si" and self._piece is not None:
            self._add(self._piece)
            self._piece = None

    def _add(self, piece: _BoundedText) -> None:
        number = len(self._ends) - 1
        if number >= MAX_SHARED_STRINGS:
            _refuse_number(self._path, MAX_SHARED_STRINGS, "texts")
        try:
            content = piece.whole().encode("utf-8", "replace")
        except TooLongError:
            self._too_long.add(number)
            content = b""
        self._new.append(content)
        self._ends.append(self._ends[-1] + len(content))


@dataclass(frozen=True, slots=True)
class Format:
    """A cell's number format, and whether its number is a point in time or a duration."""

    code: str
    is_datetime: bool = False
    is_duration: bool = False


def read_formats(package: Package, part: str) -> Sequence[Format]:
    """The formats of a workbook's cells, by style number; none when `part` is ""."""
    from openpyxl.styles.numbers import (  # noqa: PLC0415  # an extra
        BUILTIN_FORMATS,
        is_date_format,
        is_timedelta_format,
    )

    own: dict[int, str] = {}
    of_cells: list[int] = []
    within = ""

    def start(name: str, attributes: Mapping[str, str]) -> None:
        nonlocal within
        if name == "numFmt" and within == "numFmts":
            own[int(attributes["numFmtId"])] = attributes["formatCode"]
        elif name == "xf":
            if within == "cellXfs":
                of_cells.append(int(attributes.get("numFmtId", 0)))
        elif name in ("numFmts", "cellXfs", "cellStyleXfs", "cellStyles", "dxfs"):
            within = name

    if part:
        package.read(part, start)
    codes = [own.get(number) or BUILTIN_FORMATS.get(number, GENERAL) for number in of_cells]
    codes = [code if len(code) <= _MAX_FORMAT_CHARACTERS else GENERAL for code in codes]
    return [Format(code, is_date_format(code), is_timedelta_format(code)) for code in codes]


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A row: its 1-based number, the text of its cells up to the last that is not empty, and
    whether the spreadsheet hides it."""

    number: int
    cells: list[str]
    hidden: bool


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
        self._done: list[SheetRow] = []
        self._row = self._column = self._count = 0
        self._cells: dict[int, str] = {}
        self._hidden = self._has_formula = self._phonetic = False
        self._style = 0
        self._kind = self._where = ""
        self._value: _BoundedText | None = None
        self._inline: _BoundedText | None = None
        self._into: _BoundedText | None = None

    def rows(self, package: Package, part: str) -> Iterator[SheetRow]:
        """The rows in the file, in order. Raises ManifestError."""
        parser = parser_for(start=self._start, end=self._end, text=self._text)
        for _ in package.parse(part, parser):
            yield from self._done
            self._done.clear()

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "c":
            self._begin_cell(attributes)
        elif name == "v":
            self._into = self._value = _BoundedText()
        elif name == "f":
            self._has_formula = True
        elif name == "t":
            self._into = None if self._phonetic else self._inline
        elif name == "is":
            self._inline = _BoundedText()
        elif name == "rPh":
            self._phonetic = True
        elif name == "row":
            self._begin_row(attributes)
        elif name == "col" and attributes.get("hidden") in _TRUE:
            self.hidden_columns.append((int(attributes["min"]), int(attributes["max"])))

    def _text(self, text: str) -> None:
        if self._into is not None:
            self._into.add(text)

    def _end(self, name: str) -> None:
        self._into = None
        if name == "c":
            self._end_cell()
        elif name == "row":
            self._end_row()
        elif name == "rPh":
            self._phonetic = False

    def _begin_row(self, attributes: Mapping[str, str]) -> None:
        before = self._row
        self._row = int(float(attributes["r"])) if "r" in attributes else before + 1
        if self._row <= before:
            raise ValueError("rows that are not in order")
        if self._row > LAST_ROW:
            raise ManifestError(
                f"{self._path} has a row with a number above {LAST_ROW:,}, the last of a "
                "spreadsheet; open it in the spreadsheet and save it again."
            )
        self._hidden = attributes.get("hidden") in _TRUE
        self._column = 0
        self._cells = {}

    def _begin_cell(self, attributes: Mapping[str, str]) -> None:
        self._count += 1
        if self._count > MAX_CELLS:
            _refuse_number(self._path, MAX_CELLS, "cells")
        self._where = attributes.get("r", "")
        letters = self._where.rstrip("0123456789")
        self._column = self._place(letters) if letters else self._column + 1
        self._kind = attributes.get("t", "n")
        self._style = int(attributes.get("s") or 0)
        self._value = self._inline = None
        self._has_formula = False

    def _place(self, letters: str) -> int:
        place = self._places.get(letters, 0)
        if not place:
            if len(letters) > len(_LAST_COLUMN):
                raise ValueError("a cell after the last column of a spreadsheet")
            for letter in letters.upper():
                place = 26 * place + "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(letter) + 1
            self._places[letters] = place
        return place

    def _end_cell(self) -> None:
        try:
            text = self._cell_text()
        except TooLongError:
            raise ManifestError(
                f"{self._path}, {self._cell()} has more than {MAX_CELL_LENGTH:,} characters, more "
                "than a spreadsheet's cell can hold; open it in the spreadsheet and save it again."
            ) from None
        if not text:
            return
        if "\0" in text:
            raise ManifestError(f"{self._path}, {self._cell()} holds a NUL character; remove it.")
        if self._column > MAX_COLUMNS:
            raise ManifestError(
                f"{self._path}, {self._cell()} is in column {self._column:,}, but a list may have "
                f"{MAX_COLUMNS:,}; remove the columns that are not needed."
            )
        self._cells[self._column] = text

    def _end_row(self) -> None:
        cells = [self._cells.get(place, "") for place in range(1, max(self._cells, default=0) + 1)]
        self._done.append(SheetRow(self._row, cells, self._hidden))

    def _cell_text(self) -> str:
        """The text that the cell shows."""
        if self._kind == "inlineStr":
            return "" if self._inline is None else self._inline.whole()
        value = "" if self._value is None else self._value.whole()
        if not value:
            if self._has_formula and self._kind == "n":
                self._refuse_formula()
            return ""
        match self._kind:
            case "s":
                value = self._texts[int(value)]
            case "n":
                value = self._number(value)
            case "b":
                value = cell_text(value.lower() in _TRUE, None)
            case "d":
                value = cell_text(self._from_iso(value), self._format().code)
        return value

    def _number(self, value: str) -> str:
        number = float(value) if not _WHOLE.fullmatch(value) else int(value)
        if not math.isfinite(number):
            raise ValueError("a number that is not one")
        number_format = self._format()
        if not number_format.is_datetime:
            return cell_text(number, number_format.code)
        try:
            value_at = self._from_number(number, self._epoch, timedelta=number_format.is_duration)
            return cell_text(value_at, number_format.code)
        except (OverflowError, ValueError):
            return "#VALUE!"  # as the spreadsheet shows it

    def _format(self) -> Format:
        return self._formats[self._style] if self._formats else _GENERAL

    def _cell(self) -> str:
        return f"cell {self._where or f'{self._column} of row {self._row}'}"

    def _refuse_formula(self) -> NoReturn:
        raise ManifestError(
            f"{self._path}, {self._cell()} holds a formula whose result is not in the file; open "
            "it in the spreadsheet, save it there, and run again."
        )


_WHOLE = re.compile(r"[+-]?\d+")
_GENERAL = Format(GENERAL)


def _refuse_number(path: Path, most: int, what: str) -> NoReturn:
    raise ManifestError(
        f"{path} has more than {most:,} {what}, more than a list should need; check what it "
        "holds, or split it."
    )
