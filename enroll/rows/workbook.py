"""A sheet of a workbook (.xlsx) as a CSV: its cells as the text that they show.

The CSV is in a temporary file without a name, readable by nobody else and gone with the process;
a sheet of any length takes no more memory than the workbook's table of texts.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
import warnings
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import ParseError

from enroll.errors import LocalError, ManifestError
from enroll.rows.shown import shown

ZIP, OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How workbooks begin: .xlsx and .ods; .xls and whatever is encrypted."""

_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_FORMULA = re.compile(rb"<(?:\w+:)?f[\s/>]")
_BLOCK = 1 << 20

LAST_ROW = 1_048_576
"""Rows of a sheet of Excel, and of LibreOffice as it is usually set."""

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ParseError,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    RuntimeError,  # a zip's own encryption
)
"""What zipfile and openpyxl raise for a file that is not as it should be."""


class Table:
    """A sheet as a CSV in UTF-8, with the mark that spreadsheets want before it; a record a row."""

    def __init__(self, file: IO[bytes], path: Path, sheet: str | None) -> None:
        """Read the sheet of the workbook that is open in `file` and lies at `path`; `sheet` None is
        its only one. Raises ManifestError, and LocalError for want of space."""
        with tempfile.TemporaryFile() as nameless:
            self._descriptor = os.dup(nameless.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        with _faults(path):
            if file.read(len(OLE)) == OLE:
                raise ManifestError(_of_ole(file, path))
            file.seek(0)
            _refuse_others(file, path)
            self._write(file, path, sheet)

    def open(self) -> io.BufferedReader:
        """The CSV from its beginning; several readers do not disturb each other."""
        return io.BufferedReader(_At(self._descriptor), _BLOCK)

    def _write(self, file: IO[bytes], path: Path, sheet: str | None) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        self._put("\ufeff")
        for cells in _rows(file, path, sheet):
            while cells and not cells[-1]:
                cells.pop()
            writer.writerow(cells)
            if text.tell() >= _BLOCK:
                self._put(text.getvalue())
                text.seek(0)
                text.truncate()
        self._put(text.getvalue())

    def _put(self, text: str) -> None:
        try:
            with open(self._descriptor, "wb", closefd=False) as file:
                file.write(text.encode("utf-8", "replace"))
        except OSError as error:
            raise LocalError(
                f"There is no room for a copy of the sheet in {tempfile.gettempdir()}: "
                f"{error.strerror}. Make room, or name another folder with TMPDIR."
            ) from error


class _At(io.RawIOBase):
    """A file read at a place of its own: a duplicate of its descriptor would share one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._place = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = os.pread(self._descriptor, len(buffer), self._place)
        buffer[: len(read)] = read
        self._place += len(read)
        return len(read)


def _rows(file: IO[bytes], path: Path, sheet: str | None) -> Iterator[list[str]]:
    """The cells of each row of a sheet as text; a row that the file leaves out is empty."""
    values = _cells(file, path, sheet, data_only=True)
    if not _has_formulas(file):
        for row in values:
            yield [shown(cell.value, cell.number_format) for cell in row]
        return
    formulas = _cells(file, path, sheet, data_only=False)
    for row, written in zip(values, formulas, strict=True):
        for cell, formula in zip(row, written, strict=True):
            # An empty text that was reckoned is of the type "str".
            if formula.data_type == "f" and cell.value is None and cell.data_type == "n":
                raise ManifestError(
                    f"{path}, cell {cell.coordinate} holds a formula whose result is not in the "
                    "file; open it in the spreadsheet, save it there, and run again."
                )
        yield [shown(cell.value, cell.number_format) for cell in row]


def _cells(
    file: IO[bytes], path: Path, sheet: str | None, *, data_only: bool
) -> Iterable[tuple[Any, ...]]:
    try:
        from openpyxl.chartsheet import Chartsheet  # noqa: PLC0415  # an extra
        from openpyxl.reader.excel import ExcelReader  # noqa: PLC0415
    except ImportError as error:
        raise ManifestError(
            f"{path} is a workbook; to read it run `pip install 'enroll[excel]'`, or save it in "
            "the spreadsheet as 'CSV UTF-8' and give that file."
        ) from error
    reader: Any = ExcelReader(file, read_only=True, data_only=data_only, keep_links=False)

    def skip_charts(sheet: Any, _: object) -> None:
        """Openpyxl fails on a chart sheet without a chart. Names count the sheets: it stays one."""
        charts: Any = Chartsheet()
        charts._parent, charts.title = reader.wb, sheet.name
        reader.wb._add_sheet(charts)

    reader.read_chartsheet = skip_charts
    reader.read()
    book = reader.wb
    charts = [one.title for one in book.chartsheets]
    found = book[_chosen(path, sheet, [one.title for one in book.worksheets], charts)]
    found.reset_dimensions()  # some programs write wrong ones
    return _bounded(path, found.iter_rows())


def _bounded(path: Path, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The rows, of which openpyxl makes up those that the file leaves out."""
    for number, row in enumerate(rows, start=1):
        if number > LAST_ROW:
            raise ManifestError(
                f"{path} has a row with a number above {LAST_ROW:,}, the last of a spreadsheet; "
                "open it in the spreadsheet and save it anew."
            )
        yield row


def _chosen(path: Path, sheet: str | None, titles: list[str], charts: list[str]) -> str:
    if sheet is None and len(titles) == 1:
        return titles[0]
    listed = ", ".join(map(repr, titles)) or "none"
    if sheet is None:
        raise ManifestError(f"{path} has {len(titles)} sheets: {listed}. Choose with --sheet.")
    if sheet in charts:
        raise ManifestError(
            f"{path}: {sheet!r} is a chart and has no cells; its sheets are {listed}. "
            "Correct --sheet."
        )
    if sheet not in titles:
        raise ManifestError(f"{path} has no sheet {sheet!r}; it has {listed}. Correct --sheet.")
    return sheet


def _has_formulas(file: IO[bytes]) -> bool:
    """Whether any sheet holds a formula, by its XML: most lists hold none, and are read once."""
    with zipfile.ZipFile(file) as packed:
        for name in packed.namelist():
            if not name.startswith("xl/worksheets/") or not name.endswith(".xml"):
                continue
            with packed.open(name) as sheet:
                end = b""
                while block := sheet.read(_BLOCK):
                    if _FORMULA.search(end + block):
                        return True
                    end = block[-64:]
    return False


def _of_ole(file: IO[bytes], path: Path) -> str:
    end = b""
    while block := file.read(_BLOCK):
        if _ENCRYPTED in end + block:
            return (
                f"{path} is encrypted with a password; save it in the spreadsheet without one, "
                "where only you can read it."
            )
        end = block[-len(_ENCRYPTED) :]
    return _save_it(path)


def _refuse_others(file: IO[bytes], path: Path) -> None:
    with zipfile.ZipFile(file) as packed:
        if "xl/workbook.xml" not in packed.namelist():
            raise ManifestError(_save_it(path))


def _save_it(path: Path) -> str:
    return (
        f"{path} is neither a CSV file nor a workbook of the kind .xlsx; "
        "in the spreadsheet, save it as 'CSV UTF-8' or .xlsx and give that file."
    )


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of what openpyxl does not keep, such as drop-down lists
            yield
    except _DAMAGED as error:
        raise ManifestError(
            f"{path} is a workbook that cannot be read ({type(error).__name__}); open it in the "
            "spreadsheet and save it anew, or save it as 'CSV UTF-8' and give that file."
        ) from error
