"""A workbook's file and its parts, found as ECMA-376 part 2 says: by relationships and content
types, wherever they are.

Programs write names of parts with `\\` for `/`, with and without a leading `/`, in any case; all
are found. XML is read piece by piece, and elements are known by their names without prefixes, so
that the strict format, which has other namespaces, is read like the usual one.
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
from enroll.manifest.bounds import BLOCK, MAX_UNPACKED_BYTES, Bounded

_MAX_TAG_BYTES = 4 << 20
"""Bytes of a tag, which the parser keeps until the tag ends; tags of sheets are far shorter."""

_MAX_DIRECTORY_BYTES = 4 << 20
"""Bytes of the zip's directory, enough for some 40,000 parts. `zipfile` reads all of it, and takes
ten times as much memory."""

_MAX_DEPTH = 100
"""Nested elements, each of which the parser keeps until it ends; sheets have ten."""

_MAX_NAMES = 10_000
"""Names of elements and attributes, all of which the parser keeps; workbooks have some hundred."""

Start = Callable[[str, Mapping[str, str]], None]
"""Called with an element's name and its attributes, both without prefixes."""


@dataclass(frozen=True, slots=True)
class Relationship:
    """A reference to another part: `kind` is the last word of its type, `part` the target's
    name."""

    kind: str
    part: str


class Package:
    """An open workbook file."""

    def __init__(self, file: IO[bytes], path: Path, *, until: float = math.inf) -> None:
        """Raises what `zipfile` raises for a damaged file."""
        bounded: Any = _Archive(file, path)  # its type asks for more than zipfile uses
        self._zip = zipfile.ZipFile(bounded)
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
        """Call `start` for every element of a part."""
        for _ in self.parse(part, parser_for(start=start)):
            pass

    def parse(self, part: str, parser: expat.XMLParserType) -> Iterator[None]:
        """Parse a part; yields after every piece, so that the caller can use what was found in
        it."""
        with self._open(part) as stream:
            fed = 0
            while block := stream.read(BLOCK):
                parser.Parse(block, False)  # takes no keywords
                fed += len(block)
                if fed - max(parser.CurrentByteIndex, 0) > _MAX_TAG_BYTES:
                    raise ValueError("a tag without an end")
                yield
            parser.Parse(b"", True)
            yield

    @contextmanager
    def _open(self, part: str) -> Iterator[Bounded]:
        info = self._parts.get(_key(part)) or self._parts[_key(unquote(part))]
        with self._zip.open(info) as stream:
            unpacked: Any = stream  # its type has no readinto
            yield Bounded(unpacked, self._path, until=self._until, max_bytes=MAX_UNPACKED_BYTES)


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


def parser_for(
    *,
    start: Start,
    end: Callable[[str], None] | None = None,
    text: Callable[[str], None] | None = None,
) -> expat.XMLParserType:
    """A parser that reports elements, by their names without prefixes, and text; within bounds."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_definitions
    elements = _Elements(start, end)
    parser.StartElementHandler = elements.begin
    parser.EndElementHandler = elements.finish
    parser.CharacterDataHandler = text
    return parser


def _refuse_definitions(*_: object) -> None:
    raise ValueError("a document type, which could define endless entities")


class _Names(dict[str, str]):
    """Names without prefixes, by the names with them."""

    def __missing__(self, name: str) -> str:
        if len(self) >= _MAX_NAMES:
            raise ValueError("more names than a workbook has")
        local = self[name] = name.rpartition(":")[2]
        return local


class _Elements:
    """Handlers that strip prefixes from names and bound the depth."""

    def __init__(self, start: Start, end: Callable[[str], None] | None) -> None:
        self._start = start
        self._end = end
        self._names = _Names()
        self._depth = 0

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("elements nested too deeply")
        names = self._names
        self._start(names[name], {names[key]: value for key, value in attributes.items()})

    def finish(self, name: str) -> None:
        self._depth -= 1
        if self._end is not None:
            self._end(self._names[name])


def _key(part: str) -> str:
    return part.replace("\\", "/").lstrip("/").casefold()
