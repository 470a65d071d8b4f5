"""The parts of a workbook's file, found as ECMA-376 part 2 has it: by relationships and content
types, wherever they lie.

Names are compared as programs write them: `\\` for `/`, with and without `/` before them, in any
case. XML is read piece by piece, by the names without their prefixes; so the strict kind, which has
other namespaces, is read like the usual one.
"""

from __future__ import annotations

import math
import posixpath
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote
from xml.parsers import expat

from enroll.errors import ManifestError
from enroll.manifest.bounds import BLOCK, MOST_UNPACKED, Bounded

_LONGEST_TOKEN = 4 << 20
"""Bytes of a tag, of which the parser keeps all until it ends: far more than a sheet's are."""

_LARGEST_TABLE = 4 << 20
"""Bytes of the table of a file's parts: some 40,000. A part's entry takes ten times that in memory,
and `zipfile` reads them all."""

_DEEPEST = 100
"""Elements within each other, of which the parser keeps each until it ends; sheets have ten."""

_MOST_NAMES = 10_000
"""Names of elements and attributes, of which the parser keeps each; workbooks have some hundred."""

Start = Callable[[str, Mapping[str, str]], None]
"""Given an element's name and its attributes, both without prefixes."""


@dataclass(frozen=True, slots=True)
class Relationship:
    """Where a part leads: `kind` is the last word of its type, `part` the target's name."""

    kind: str
    part: str


class Package:
    """A workbook's file, opened."""

    def __init__(self, file: IO[bytes], path: Path, *, until: float = math.inf) -> None:
        """Raises what `zipfile` raises for a file that is not sound."""
        bounded: Any = _Archive(file, path)  # typed as what has no more than it needs
        self._zip = zipfile.ZipFile(bounded)
        self._path = path
        self._until = until
        self._parts = {_key(info.filename): info for info in self._zip.infolist()}

    def __contains__(self, part: str) -> bool:
        return _key(part) in self._parts or _key(unquote(part)) in self._parts

    def main(self) -> str:
        """The name of the part that everything begins with, "" where there is none."""
        for found in self.related("").values():
            if found.kind == "officeDocument" and found.part in self:
                return found.part
        return self.of_type("sheet.main+xml")

    def of_type(self, ending: str) -> str:
        """The first part whose content type ends so, or ""."""
        found: list[str] = []

        def start(name: str, attributes: Mapping[str, str]) -> None:
            if name == "Override" and attributes["ContentType"].endswith(ending):
                found.append(attributes["PartName"])

        if "[Content_Types].xml" in self:
            self.read("[Content_Types].xml", start)
        return next((part for part in found if part in self), "")

    def related(self, part: str) -> dict[str, Relationship]:
        """A part's relationships by their ids; "" is the package itself."""
        folder, name = posixpath.split(part.replace("\\", "/"))
        found: dict[str, Relationship] = {}

        def start(name: str, attributes: Mapping[str, str]) -> None:
            if name == "Relationship" and attributes.get("TargetMode") != "External":
                kind = attributes["Type"].rpartition("/")[2]
                target = attributes["Target"].replace("\\", "/")
                joined = posixpath.normpath(posixpath.join("/", folder, target))
                found[attributes["Id"]] = Relationship(kind, joined)

        relationships = posixpath.join(folder, "_rels", f"{name}.rels")
        if relationships in self:
            self.read(relationships, start)
        return found

    def read(self, part: str, start: Start) -> None:
        """Give `start` every element of a part."""
        for _ in self.parse(part, parser_for(start=start)):
            pass

    def parse(self, part: str, parser: expat.XMLParserType) -> Iterator[None]:
        """Have a part parsed; yields after every piece, for what was found in it to be taken."""
        with self._open(part) as stream:
            fed = 0
            while block := stream.read(BLOCK):
                parser.Parse(block, False)  # takes no keywords
                fed += len(block)
                if fed - max(parser.CurrentByteIndex, 0) > _LONGEST_TOKEN:
                    raise ValueError("a tag without an end")
                yield
            parser.Parse(b"", True)
            yield

    @contextmanager
    def _open(self, part: str) -> Iterator[Bounded]:
        info = self._parts.get(_key(part)) or self._parts[_key(unquote(part))]
        with self._zip.open(info) as stream:
            unpacked: Any = stream  # typed as what has no readinto
            yield Bounded(unpacked, self._path, until=self._until, most=MOST_UNPACKED)


class _Archive:
    """A workbook's file as `zipfile` reads it, without a table of parts that has no end."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Raises ManifestError for more at once than such a table may have."""
        if size > _LARGEST_TABLE:
            raise ManifestError(
                f"{self._path} has more parts than a workbook needs; save the list in the "
                "spreadsheet as 'CSV UTF-8' and give that file."
            )
        return self._file.read(size)


def parser_for(
    *,
    start: Start,
    end: Callable[[str], None] | None = None,
    text: Callable[[str], None] | None = None,
) -> expat.XMLParserType:
    """A parser that gives elements by their names without prefixes, and text, within bounds."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_definitions
    elements = _Elements(start, end)
    parser.StartElementHandler = elements.begin
    parser.EndElementHandler = elements.finish
    parser.CharacterDataHandler = text
    return parser


def _refuse_definitions(*_: object) -> None:
    raise ValueError("a document type, of which entities could be made without end")


class _Names(dict[str, str]):
    """Names by what they are with a prefix."""

    def __missing__(self, name: str) -> str:
        if len(self) >= _MOST_NAMES:
            raise ValueError("more names than a workbook has")
        local = self[name] = name.rpartition(":")[2]
        return local


class _Elements:
    """Takes elements from a parser and gives them on, by their names without prefixes."""

    def __init__(self, start: Start, end: Callable[[str], None] | None) -> None:
        self._start = start
        self._end = end
        self._names = _Names()
        self._depth = 0

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("elements within elements without end")
        names = self._names
        self._start(names[name], {names[key]: value for key, value in attributes.items()})

    def finish(self, name: str) -> None:
        self._depth -= 1
        if self._end is not None:
            self._end(self._names[name])


def _key(part: str) -> str:
    return part.replace("\\", "/").lstrip("/").casefold()
