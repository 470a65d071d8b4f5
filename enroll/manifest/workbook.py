"""Converts a sheet of a workbook (.xlsx) to a CSV of the text that its cells show.

The CSV is in a temporary file without a name, so a long sheet takes no more memory than a short
one. A workbook's parts are found as ECMA-376 part 2 says: by relationships and content types,
wherever they are. Programs write names of parts with `\\` for `/`, with and without a leading `/`,
in any case; all are found. XML is read piece by piece, and elements are known by their names
without prefixes, so that the strict format, which has other namespaces, is read like the usual one.
"""

from __future__ import annotations

import csv
import io
import math
import posixpath
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import unquote
from xml.parsers import expat

from enroll.errors import ManifestError
from enroll.manifest.bounds import BLOCK, MAX_UNPACKED_BYTES, Bounded, ScratchFile
from enroll.manifest.sheet import (
    Element,
    SharedStrings,
    Sheet,
    read_formats,
    unescape_xstring,
)

ZIP, OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The first bytes of workbooks: of .xlsx and .ods; of .xls and encrypted ones."""

_MAX_TAG_BYTES = 4 << 20
"""Bytes of a tag, which the parser keeps until the tag ends; tags of sheets are far shorter."""

_MAX_DIRECTORY_BYTES = 4 << 20
"""Bytes of the zip's directory, enough for some 40,000 parts. `zipfile` reads all of it, and takes
ten times as much memory."""

_MAX_DEPTH = 100
"""Nested elements, each of which the parser keeps until it ends; sheets have ten."""

_MAX_NAMES = 10_000
"""Names of elements and attributes, all of which the parser keeps; workbooks have some hundred."""

_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_BLOCK = 1 << 20

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    expat.ExpatError,
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
            package = _Package(file, path, until=until)
            self._write(package, _Workbook(package, path), sheet)

    def open(self) -> io.BufferedReader:
        """A reader of the CSV, independent of other readers."""
        return self._copy.open()

    def _write(self, package: _Package, book: _Workbook, title: str | None) -> None:
        chosen = book.choose(title)
        sheet = book.sheet_reader()
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        text.write("\ufeff")
        hidden, last = array("q"), 0
        for row in sheet.rows(package.elements(chosen.part, whole="c")):
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


class _SheetEntry(NamedTuple):
    """A sheet in the workbook's list."""

    title: str
    part: str
    kind: str
    hidden: bool


class _Workbook:
    """The main part of a workbook: its sheets, and where its other parts are."""

    def __init__(self, package: _Package, path: Path) -> None:
        self._package = package
        self._path = path
        main = package.main()
        self._related = package.related(main) if main else {}
        self._sheets: list[_SheetEntry] = []
        self._counts_from_1904 = False
        root = ""
        for element in package.elements(main) if main.lower().endswith(".xml") else ():
            root = root or element.name
            if element.name == "workbookPr":
                self._counts_from_1904 = element.attributes.get("date1904") in ("1", "true")
            elif element.name == "sheet":
                self._add_sheet(element)
        if root != "workbook":
            raise ManifestError(_not_a_workbook(path))

    def _add_sheet(self, element: Element) -> None:
        leads = self._related.get(element.attributes.get("id", ""))
        if leads is not None and leads.part in self._package:
            title = unescape_xstring(element.attributes["name"])
            hidden = element.attributes.get("state", "visible") != "visible"
            self._sheets.append(_SheetEntry(title, leads.part, leads.kind, hidden))

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

            formats = read_formats(self._elements("styles"))
        except ImportError as error:
            raise ManifestError(
                f"{self._path} is a workbook; to read it run `pip install 'enroll[excel]'`, or "
                "save it in the spreadsheet as 'CSV UTF-8' and give that file."
            ) from error
        return Sheet(
            self._path,
            texts=SharedStrings(self._elements("sharedStrings", whole="si"), self._path),
            formats=formats,
            epoch=MAC_EPOCH if self._counts_from_1904 else WINDOWS_EPOCH,
        )

    def _elements(self, kind: str, *, whole: str = "") -> Iterable[Element]:
        """The elements of a part, found by its relationship, else by its content type; none where
        there is no such part."""
        related = (found.part for found in self._related.values() if found.kind == kind)
        part = next((part for part in related if part in self._package), "")
        part = part or self._package.of_type(f"{kind}+xml")
        return self._package.elements(part, whole=whole) if part else ()


class _Relationship(NamedTuple):
    """A reference to another part: `kind` is the last word of its type, `part` the target's
    name."""

    kind: str
    part: str


class _Package:
    """An open workbook file and its parts."""

    def __init__(self, file: IO[bytes], path: Path, *, until: float) -> None:
        """Raises what `zipfile` raises for a damaged file."""
        archive: Any = _Archive(file, path)  # its type asks for more than zipfile uses
        self._zip = zipfile.ZipFile(archive)
        self._path = path
        self._until = until
        self._parts = {_key(info.filename): info for info in self._zip.infolist()}

    def __contains__(self, part: str) -> bool:
        return _key(part) in self._parts or _key(unquote(part)) in self._parts

    def main(self) -> str:
        """The name of the main part, the workbook itself; "" where there is none."""
        for found in self.related("").values():
            if found.kind == "officeDocument" and found.part in self:
                return found.part
        return self.of_type("sheet.main+xml")

    def of_type(self, ending: str) -> str:
        """The first part whose content type ends with `ending`, or ""."""
        if "[Content_Types].xml" not in self:
            return ""
        found = (
            element.attributes["PartName"]
            for element in self.elements("[Content_Types].xml")
            if element.name == "Override" and element.attributes["ContentType"].endswith(ending)
        )
        return next((part for part in found if part in self), "")

    def related(self, part: str) -> dict[str, _Relationship]:
        """A part's relationships by their ids; "" is the package itself."""
        folder, name = posixpath.split(part.replace("\\", "/"))
        relationships = posixpath.join(folder, "_rels", f"{name}.rels")
        found: dict[str, _Relationship] = {}
        if relationships not in self:
            return found
        for element in self.elements(relationships):
            attributes = element.attributes
            if element.name == "Relationship" and attributes.get("TargetMode") != "External":
                kind = attributes["Type"].rpartition("/")[2]
                target = attributes["Target"].replace("\\", "/")
                joined = posixpath.normpath(posixpath.join("/", folder, target))
                found[attributes["Id"]] = _Relationship(kind, joined)
        return found

    def elements(self, part: str, *, whole: str = "") -> Iterator[Element]:
        """The elements of a part: those called `whole` at their ends, with the texts in them;
        others at their beginnings, unless they are within such an element."""
        info = self._parts.get(_key(part)) or self._parts[_key(unquote(part))]
        reader = _ElementReader(whole)
        with self._zip.open(info) as opened:
            unpacked: Any = opened  # its type has no readinto
            stream = Bounded(unpacked, self._path, until=self._until, max_bytes=MAX_UNPACKED_BYTES)
            while block := stream.read(BLOCK):
                yield from reader.feed(block)
            yield from reader.feed(b"")


class _Archive:
    """A workbook's file for `zipfile`, which would read a directory of any size at once."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Raises ManifestError for more bytes than a directory may have."""
        if size > _MAX_DIRECTORY_BYTES:
            raise ManifestError(
                f"{self._path} has more parts than a workbook needs; save the list in the "
                "spreadsheet as 'CSV UTF-8' and give that file."
            )
        return self._file.read(size)


class _ElementReader:
    """Parses XML within bounds. Names lose their prefixes, and phonetic text (`rPh`), which is for
    reading aloud, is left out."""

    def __init__(self, whole: str) -> None:
        self._whole = whole
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = _refuse_definitions
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._finish
        parser.CharacterDataHandler = self._text
        self._fed = self._depth = 0
        self._names = _Names()
        self._found: list[Element] = []
        self._open: Element | None = None
        self._into: list[str] | None = None
        self._is_phonetic = False

    def feed(self, block: bytes) -> list[Element]:
        """The elements that this block completes; an empty one is the end of the part."""
        self._parser.Parse(block, not block)  # takes no keywords
        self._fed += len(block)
        if self._fed - max(self._parser.CurrentByteIndex, 0) > _MAX_TAG_BYTES:
            raise ValueError("a tag without an end")
        found, self._found = self._found, []
        return found

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("elements nested too deeply")
        names = self._names
        name = names[name]
        if self._open is not None:
            self._is_phonetic = self._is_phonetic or name == "rPh"
            texts = self._open.texts
            self._into = None if self._is_phonetic else texts.setdefault(name, [])
            return
        element = Element(name, {names[key]: value for key, value in attributes.items()})
        if name == self._whole:
            self._open = element
        else:
            self._found.append(element)

    def _text(self, text: str) -> None:
        if self._open is not None and self._into is not None:
            self._open.add(self._into, text)

    def _finish(self, name: str) -> None:
        self._depth -= 1
        self._into = None
        name = self._names[name]
        if name == "rPh":
            self._is_phonetic = False
        elif name == self._whole and self._open is not None:
            self._found.append(self._open)
            self._open = None


def _refuse_definitions(*_: object) -> None:
    raise ValueError("a document type, which could define endless entities")


class _Names(dict[str, str]):
    """Names without prefixes, by the names with them."""

    def __missing__(self, name: str) -> str:
        if len(self) >= _MAX_NAMES:
            raise ValueError("more names than a workbook has")
        local = self[name] = name.rpartition(":")[2]
        return local


def _key(part: str) -> str:
    return part.replace("\\", "/").lstrip("/").casefold()


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
