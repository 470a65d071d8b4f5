"""The results file: each row of the manifest and what became of it, safe for a spreadsheet."""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from enroll.errors import UsageError
from enroll.manifest.header import FREE_TEXT, RESULT_COLUMNS, result_names
from enroll.model import Entry, Fault, Row
from enroll.text.files import new_file, same_file
from enroll.text.remedies import sentence
from enroll.visible import storable

if TYPE_CHECKING:
    from enroll.manifest.manifest import Manifest

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""What spreadsheets take for a formula: the four characters of OWASP's page on CSV injection,
blanks that some strip first, and the full-width forms that East Asian versions accept."""

_ESCAPED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
_FIRST = frozenset("'=+-@\t\r\n＝＋－＠")


Rule = Callable[[str], Fault | None]
"""A check of a cell. With a rule, only cells that break it are escaped. That can be undone, because
a cell that breaks a rule also breaks it with an apostrophe before it."""


def escape(cell: str, rule: Rule | None = None) -> str:
    """The cell, safe for a file that a spreadsheet opens."""
    return "'" + cell if _FORMULA.match(cell) and _breaks(rule, cell) else cell


def unescape(cell: str, rule: Rule | None = None) -> str:
    """The cell before `escape`."""
    return cell[1:] if _ESCAPED.match(cell) and _breaks(rule, cell) else cell


def escape_column(cells: list[str], rule: Rule | None = None) -> list[str]:
    """`escape` for a column; the same list when no cell can need it."""
    return [escape(cell, rule) for cell in cells] if _may_need_escape(cells) else cells


def unescape_column(cells: list[str], rule: Rule | None = None) -> list[str]:
    """`unescape` for a column; the same list when no cell can need it."""
    return [unescape(cell, rule) for cell in cells] if _may_need_escape(cells) else cells


def _breaks(rule: Rule | None, cell: str) -> bool:
    return rule is None or rule(cell) is not None


def _may_need_escape(cells: Iterable[str]) -> bool:
    # Comparing the first characters is several times faster than matching every cell.
    return not _FIRST.isdisjoint({cell[:1] for cell in cells})


def default_results_path(manifest: Path) -> Path:
    """The manifest's path with the suffix `.results.csv`: `staff.csv.gz` gives
    `staff.results.csv`, and the folder `photos` gives `photos.results.csv` beside it."""
    if manifest.is_dir():
        folder = Path(os.path.realpath(manifest)) if manifest.name in ("", "..") else manifest
        return folder.with_name(f"{folder.name}.results.csv")
    plain = manifest.with_suffix("") if manifest.suffix.lower() == ".gz" else manifest
    return plain.with_name(f"{plain.stem}.results.csv")


def write_results(
    manifest: Manifest,
    path: Path,
    lookup: Callable[[Sequence[Row]], Sequence[Entry | None]],
    *,
    raw: bool = False,
) -> bool:
    r"""Write one line for each row of the manifest; returns whether the file changed.

    `lookup` returns the entries of rows, in order; a row without one gets empty cells. The
    delimiter and line end (`\n`, or `\r\n` where the header has it) are the manifest's, the
    encoding is UTF-8, with a byte-order mark when the manifest had one or was not UTF-8: then it
    came from a spreadsheet, which needs the mark. `raw` escapes nothing. UsageError
    when `path` is the manifest itself, LocalError when it cannot be written.
    """
    if same_file(path, manifest.path):
        raise UsageError(
            f"The results would overwrite the manifest {manifest.path}; "
            "give another name with --results."
        )
    own = manifest.own_columns
    rules = manifest.rules
    with new_file(path) as new:
        spreadsheet = manifest.bom or manifest.encoding not in {"utf-8", "ascii"}
        new.file.write(codecs.BOM_UTF8 if spreadsheet else b"")
        new.file.write(_header_line(manifest, raw=raw))
        for chunk in manifest.chunks():
            entries = lookup(manifest.rows_of(chunk))
            cells = [chunk.iloc[:, place].tolist() for place in range(len(own))]
            if not raw:
                cells = [
                    escape_column(column, rules.get(name))
                    for name, column in zip(own, cells, strict=True)
                ]
            cells += _result_cells(entries, raw=raw)
            new.file.write(
                csv_bytes(
                    zip(*cells, strict=True),
                    delimiter=manifest.delimiter,
                    newline=manifest.newline,
                )
            )
    return new.replaced


def csv_bytes(
    rows: Iterable[Iterable[object]], *, delimiter: str = ",", newline: str = "\n"
) -> bytes:
    """Rows as lines of a CSV in UTF-8; what UTF-8 or a CSV cannot hold is written as `\\x00`."""
    lines = _Lines()
    # The writer always quotes `\r` and `\n` only when both are in its own line end
    # (Python 3.11 to 3.13), so the manifest's line end is put there afterwards.
    csv.writer(lines, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    whole = lines if newline == "\r\n" else [line[:-2] + newline for line in lines]
    return storable("".join(whole)).replace("\0", "\\x00").encode()


class _Lines(list[str]):
    """A list that a csv.writer can write to, one item per row."""

    write = list.append


def message_of(entry: Entry) -> str:
    """The message of an entry in results and exports."""
    return sentence(entry.error, entry.status, entry.message) if entry.error else entry.message


def _header_line(manifest: Manifest, *, raw: bool) -> bytes:
    own = manifest.own_columns
    renamed = result_names(own)
    names = [renamed.get(name, name) for name in own]
    # Names are escaped too: a spreadsheet evaluates a formula anywhere.
    line = [chain(names if raw else map(escape, names), RESULT_COLUMNS)]
    return csv_bytes(line, delimiter=manifest.delimiter, newline=manifest.newline)


def _result_cells(entries: Sequence[Entry | None], *, raw: bool) -> list[list[str]]:
    """The eight columns, in the order of RESULT_COLUMNS."""
    columns = []
    for name in RESULT_COLUMNS:
        value = message_of if name == "message" else attrgetter(name)
        column = ["" if entry is None else value(entry) for entry in entries]
        columns.append(escape_column(column) if name in FREE_TEXT and not raw else column)
    return columns
