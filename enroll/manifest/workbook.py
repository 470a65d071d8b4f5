"""Converts a sheet of a workbook (.xlsx) to a CSV of the text that its cells show.

The CSV is in a temporary file without a name, so a long sheet takes no more memory than a short
one.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.parsers.expat import ExpatError

from enroll.errors import ManifestError
from enroll.manifest.bounds import ScratchFile
from enroll.manifest.package import Package, Relationship
from enroll.manifest.sheet import SharedStrings, Sheet, read_formats, unescape_xstring

ZIP, OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The first bytes of workbooks: of .xlsx and .ods; of .xls and encrypted ones."""

_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_BLOCK = 1 << 20

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ExpatError,
    KeyError,
    IndexError,
    OverflowError,
    TypeError,
    ValueError,
    RuntimeError,  # a zip's own encryption
)
"""Errors that a damaged file can cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """What a spreadsheet hides of a sheet: `rows` are the 0-based numbers of hidden rows with text,
    `columns` the first and last of each hidden group, 1-based."""

    title: str
    sheet: bool
    rows: array[int]
    columns: Sequence[tuple[int, int]]

    def hides(self, column: int) -> bool:
        """Whether the column with this 0-based number is hidden."""
        return any(first <= column + 1 <= last for first, last in self.columns)


class SheetCsv:
    """A sheet as a CSV in UTF-8 with a byte-order mark, as spreadsheets write it; one record per
    row."""

    hidden: Hidden

    def __init__(
        self, file: IO[bytes], path: Path, sheet: str | None, *, until: float = math.inf
    ) -> None:
        """Convert a sheet of the workbook at `path`, open in `file`; `sheet` None is its only one.
        Raises ManifestError, LocalError when the disk is full, and TimeOverError."""
        self._copy = ScratchFile(path)
        with _mapped_errors(path):
            if file.read(len(OLE)) == OLE:
                raise ManifestError(_explain_ole(file, path))
            file.seek(0)
            self._write(_Workbook(Package(file, path, until=until), path), sheet)

    def open(self) -> io.BufferedReader:
        """A reader of the CSV, independent of other readers."""
        return self._copy.open()

    def _write(self, book: _Workbook, title: str | None) -> None:
        chosen = book.choose(title)
        sheet = book.sheet_reader()
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        text.write("\ufeff")
        hidden, last = array("q"), 0
        for row in sheet.rows(book.package, chosen.part):
            for _ in range(last + 1, row.number):  # rows that the file leaves out
                writer.writerow(())
            last = row.number
            writer.writerow(row.cells)
            if row.hidden and row.cells:
                hidden.append(row.number - 1)
            if text.tell() >= _BLOCK:
                self._flush(text)
        self._flush(text)
        self.hidden = Hidden(
            title=chosen.title, sheet=chosen.hidden, rows=hidden, columns=sheet.hidden_columns
        )

    def _flush(self, text: io.StringIO) -> None:
        self._copy.write(text.getvalue().encode("utf-8", "replace"))
        text.seek(0)
        text.truncate()


@dataclass(frozen=True, slots=True, kw_only=True)
class _SheetEntry:
    """A sheet in the workbook's list."""

    title: str
    part: str
    kind: str
    hidden: bool


class _Workbook:
    """The main part of a workbook: its sheets, and where its other parts are."""

    def __init__(self, package: Package, path: Path) -> None:
        self.package = package
        self._path = path
        self._main = package.main()
        self._related = package.related(self._main) if self._main else {}
        self._sheets: list[_SheetEntry] = []
        self._counts_from_1904 = False
        self._root = ""
        if self._main.lower().endswith(".xml"):
            package.read(self._main, self._start)
        if self._root != "workbook":
            raise ManifestError(_not_a_workbook(path))

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._root = self._root or name
        if name == "workbookPr":
            self._counts_from_1904 = attributes.get("date1904") in ("1", "true")
        elif name == "sheet" and attributes.get("id"):
            leads = self._related.get(attributes["id"], Relationship("", ""))
            if leads.part in self.package:
                self._sheets.append(
                    _SheetEntry(
                        title=unescape_xstring(attributes["name"]),
                        part=leads.part,
                        kind=leads.kind,
                        hidden=attributes.get("state", "visible") != "visible",
                    )
                )

    def choose(self, title: str | None) -> _SheetEntry:
        """The sheet with this title, or the only one. Raises ManifestError."""
        sheets = [one for one in self._sheets if one.kind == "worksheet"]
        if title is None and len(sheets) == 1:
            return sheets[0]
        listed = ", ".join(repr(one.title) for one in sheets) or "none"
        if title is None:
            raise ManifestError(
                f"{self._path} has {len(sheets)} sheets: {listed}. Choose with --sheet."
            )
        for one in sheets:
            if one.title == title:
                return one
        if any(one.title == title for one in self._sheets):
            raise ManifestError(
                f"{self._path}: {title!r} is a chart and has no cells; its sheets are {listed}. "
                "Correct --sheet."
            )
        raise ManifestError(
            f"{self._path} has no sheet {title!r}; it has {listed}. Correct --sheet."
        )

    def sheet_reader(self) -> Sheet:
        """A reader of the workbook's sheets. Raises ManifestError when openpyxl is not
        installed."""
        try:
            from openpyxl.utils.datetime import MAC_EPOCH, WINDOWS_EPOCH  # noqa: PLC0415

            formats = read_formats(self.package, self._part("styles", "styles+xml"))
        except ImportError as error:
            raise ManifestError(
                f"{self._path} is a workbook; to read it run `pip install 'enroll[excel]'`, or "
                "save it in the spreadsheet as 'CSV UTF-8' and give that file."
            ) from error
        strings = self._part("sharedStrings", "sharedStrings+xml")
        return Sheet(
            self._path,
            texts=SharedStrings(self.package, strings, self._path),
            formats=formats,
            epoch=MAC_EPOCH if self._counts_from_1904 else WINDOWS_EPOCH,
        )

    def _part(self, kind: str, content_type: str) -> str:
        """A part by its relationship, else by its content type; "" where there is none."""
        for found in self._related.values():
            if found.kind == kind and found.part in self.package:
                return found.part
        return self.package.of_type(content_type)


def _explain_ole(file: IO[bytes], path: Path) -> str:
    end = b""
    while block := file.read(_BLOCK):
        if _ENCRYPTED in end + block:
            return (
                f"{path} is encrypted with a password; save it in the spreadsheet without one, "
                "where only you can read it."
            )
        end = block[-len(_ENCRYPTED) :]
    return _not_a_workbook(path)


def _not_a_workbook(path: Path) -> str:
    return (
        f"{path} is neither a CSV file nor a workbook of the kind .xlsx; "
        "in the spreadsheet, save it as 'CSV UTF-8' or .xlsx and give that file."
    )


@contextmanager
def _mapped_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise ManifestError(
            f"{path} is a workbook that cannot be read ({type(error).__name__}: {error}); open it "
            "in the spreadsheet and save it again, or save it as 'CSV UTF-8' and give that file."
        ) from error
