"""The results file: each row of the manifest and what became of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from enroll.addresses import ObjectPath
from enroll.errors import UsageError
from enroll.manifest.header import FREE_TEXT, result_names, short_name
from enroll.model import Entry, Row
from enroll.text.files import RESULT_COLUMNS, same_file
from enroll.text.remedies import sentence
from enroll.text.tables import (
    MAX_CELL_UNITS,
    Cell,
    CsvForm,
    Rule,
    free_text,
    new_table,
    too_long_for_workbook,
)

if TYPE_CHECKING:
    from enroll.manifest.manifest import Manifest


def default_results_path(manifest: Path) -> Path:
    """The manifest's path with the suffix `.results.csv`: `staff.csv.gz` gives
    `staff.results.csv`, and the folder `photos` gives `photos.results.csv` beside it. Of one in a
    bucket they are in the current folder."""
    if isinstance(manifest, ObjectPath):
        manifest = Path(manifest.name)
    if manifest.is_dir():
        folder = Path(os.path.realpath(manifest)) if manifest.name in ("", "..") else manifest
        return folder.with_name(f"{folder.name}.results.csv")
    plain = manifest.with_suffix("") if manifest.suffix.lower() == ".gz" else manifest
    return plain.with_name(f"{plain.stem}.results.csv")


def check_results(manifest: Manifest, path: Path) -> None:
    """Raise UsageError if the results would be a workbook whose cells cannot hold the manifest's
    texts."""
    if path.suffix.lower() != ".xlsx":
        return
    for chunk in manifest.chunks():
        for place, name in enumerate(manifest.own_columns):
            cells = chunk.iloc[:, place].tolist()
            found = next((n for n, cell in enumerate(cells) if too_long_for_workbook(cell)), None)
            if found is not None:
                raise UsageError(
                    f"--results {path} cannot hold the manifest: the text in line "
                    f"{chunk.index[found]:,}, column {short_name(name)!r}, has "
                    f"{len(cells[found]):,} characters, and a cell of a workbook holds "
                    f"{MAX_CELL_UNITS:,}. Give a name that ends in .csv."
                )


def write_results(
    manifest: Manifest,
    path: Path,
    lookup: Callable[[Sequence[Row]], Sequence[Entry | None]],
    *,
    raw: bool = False,
) -> bool:
    """Write a line for each row of the manifest; returns whether the file changed.

    `lookup` returns the entries of rows, in order; a row without one gets empty cells. A CSV has
    the manifest's delimiter and line ends. `raw` escapes nothing. UsageError when `path` is the
    manifest itself, LocalError when it cannot be written.
    """
    if same_file(path, manifest.path):
        raise UsageError(
            f"The results would overwrite the manifest {manifest.path}; "
            "give another name with --results."
        )
    renamed = result_names(manifest.own_columns)
    own = [renamed.get(name, name) for name in manifest.own_columns]
    rules: dict[str, Rule] = dict.fromkeys([*own, *FREE_TEXT], free_text)
    rules |= {renamed.get(name, name): rule for name, rule in manifest.rules.items()}
    # It came from a spreadsheet, which needs the mark, if it had one or was not in UTF-8.
    bom = manifest.bom or manifest.encoding not in {"utf-8", "ascii"}
    form = CsvForm(delimiter=manifest.delimiter, newline=manifest.newline, bom=bom)
    names = [*own, *RESULT_COLUMNS]
    with new_table(path, names, rules={} if raw else rules, form=form) as table:
        for chunk in manifest.chunks():
            entries = lookup(manifest.rows_of(chunk))
            cells = [chunk.iloc[:, place].tolist() for place in range(len(own))]
            table.write_columns([*cells, *_result_cells(entries)])
    return table.replaced


def message_of(entry: Entry) -> str:
    """The message of an entry in results and exports."""
    return sentence(entry.error, entry.status, entry.message) if entry.error else entry.message


def _result_cells(entries: Sequence[Entry | None]) -> list[list[Cell]]:
    """The eight columns, in the order of RESULT_COLUMNS."""
    columns = []
    for name in RESULT_COLUMNS:
        value = message_of if name == "message" else attrgetter(name)
        columns.append([None if entry is None else value(entry) for entry in entries])
    return columns
