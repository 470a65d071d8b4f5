"""enroll.text.tables: what is written is what is read, in every format."""

from __future__ import annotations

import json
import resource
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from archive import read_csv

from enroll.errors import LocalError, UsageError
from enroll.manifest.manifest import open_manifest
from enroll.manifest.results import write_results
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.model import Entry, Row, Status
from enroll.text import tables
from enroll.text.files import RESULT_COLUMNS, TABLES
from enroll.text.tables import free_text, new_table

openpyxl = pytest.importorskip("openpyxl")
pytest.importorskip("xlsxwriter")
parquet = pytest.importorskip("pyarrow.parquet")

IDS = ["0012", "12345678901234567890", "1e5", "-", "@x", "%1", "00", "1" * 48]
"""Ids that a spreadsheet would change or run."""

TEXTS = [
    *("=1+1", "@x", "-", "+1", "'a", "'=x", "''=x", "＝1", "0012", "1,5", "TRUE", "2026-11-30"),
    *("a\nb", "a\r\nb", "\r", "\t", " a ", "Müller, Ärztin", "张伟", "😀", "e\u0301"),
    *("_x0041_", "_x000D_", "_x005F_x0041_", "\x01", "\x0b\x1f", "\x7f\x85", "a\ufffeb\uffff"),
    *("<r>x</r>", "<r>\x01&<b></r>", "&amp;<!-- -->", '"quoted"', "http://example.org/a"),
]


def cells_of(path: Path) -> list[list[Any]]:
    """A table's header and rows as a program finds them; of a CSV as text."""
    if path.suffix == ".csv":
        found = read_csv(path)
        return [list(found[0]), *[list(one.values()) for one in found]]
    if path.suffix == ".jsonl":
        objects = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert len({tuple(one) for one in objects}) == 1
        return [list(objects[0]), *[list(one.values()) for one in objects]]
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        return [table.column_names, *[list(one.values()) for one in table.to_pylist()]]
    (sheet,) = openpyxl.load_workbook(path).worksheets
    return [["" if one is None else one for one in row] for row in sheet.values]


def test_every_format_holds_every_text(tmp_path: Path) -> None:
    wrong = []
    for suffix in (".csv", ".jsonl", ".parquet"):
        path = tmp_path / f"out{suffix}"
        with new_table(path, ["text", "number", ""], numbers={"number"}) as table:
            table.write((text, number or None, "x") for number, text in enumerate(TEXTS))
        header, *rows = cells_of(path)
        empty, name = ("", "") if suffix == ".csv" else (None, "column 3")
        kind = str if suffix == ".csv" else int
        expected = [[text, kind(n) if n else empty, "x"] for n, text in enumerate(TEXTS)]
        wrong += [f"{suffix}: {header}"] if header != ["text", "number", name] else []
        wrong += [f"{suffix}: {a}, not {b}" for a, b in zip(rows, expected, strict=True) if a != b]
        wrong += [f"{suffix}: others may read it"] if path.stat().st_mode & 0o77 else []
    assert not wrong


def outcome(rows: Sequence[Row]) -> list[Entry | None]:
    return [
        Entry(
            user_id=row.user_id,
            user_data=row.user_data,
            image=row.image,
            status=Status.REJECTED,
            face_token="=f",
            message=TEXTS[row.line % len(TEXTS)],
            attempts=2,
        )
        for row in rows
    ]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_results_are_the_same_manifest_again(tmp_path: Path, suffix: str) -> None:
    """Also results of results, and the results themselves; the workbook first as a manifest."""
    rows = [(one, text, text, text) for one, text in zip(cycle(IDS), TEXTS, strict=False)]
    rows += [(text, "", "a.jpg", "") for text in TEXTS]
    first = tmp_path / "first.csv"
    with new_table(first, ["user_id", "user_data", "image", "=free"]) as table:
        table.write(rows)
    manifest = open_manifest(first)
    expected = [cell for chunk in manifest.chunks() for cell in chunk.values.tolist()]
    assert expected == [list(row) for row in rows]
    for number in range(3):
        path = tmp_path / f"results{number}{suffix}"
        write_results(manifest, path, outcome)
        manifest = open_manifest(path)
        assert manifest.is_results
        assert manifest.own_columns == ("user_id", "user_data", "image", "=free")
        found = [cell for chunk in manifest.chunks() for cell in chunk.values.tolist()]
        wrong = [(a, b) for a, b in zip(found, expected, strict=True) if a != b]
        assert not wrong, (number, wrong)


def test_an_equal_workbook_is_left_as_it_is(tmp_path: Path) -> None:
    path, replaced = tmp_path / "out.xlsx", []
    for text in ("a", "a", "b"):
        with new_table(path, ["text"]) as table:
            table.write([(text,)])
        replaced.append(table.replaced)
    assert replaced == [True, False, True]


def test_a_workbook_is_made_for_reading(tmp_path: Path) -> None:
    with new_table(tmp_path / "out.XLSX", ["user_id", "text", "none"]) as table:
        table.write([("0012", "x" * 300, ""), ("=1+1", "http://a", "")])
    (sheet,) = openpyxl.load_workbook(tmp_path / "out.XLSX").worksheets
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", "A1:C3")
    assert [int(sheet.column_dimensions[one].width) for one in "ABC"] == [10, 60, 8]
    cells = [cell for row in sheet.iter_rows() for cell in row if cell.value is not None]
    assert {(cell.data_type, cell.number_format, cell.hyperlink) for cell in cells} == {
        ("s", "@", None)
    }
    assert [cell.value for cell in cells][3:] == ["0012", "x" * 300, "=1+1", "http://a"]


def test_more_rows_than_a_sheet_holds_go_to_further_sheets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LAST_ROW", 3)
    path = tmp_path / "out.xlsx"
    with new_table(path, ["user_id", *RESULT_COLUMNS, "image"]) as table:
        table.write([str(number)] * 10 for number in range(5))
    sheets = openpyxl.load_workbook(path).worksheets
    assert [(sheet.title, sheet.max_row, sheet.freeze_panes) for sheet in sheets] == [
        ("Sheet1", 3, "A2"),
        ("Sheet2", 3, "A2"),
        ("Sheet3", 2, "A2"),
    ]
    with pytest.raises(Exception, match=r"'Sheet1', 'Sheet2', 'Sheet3'\. Choose with --sheet"):
        open_manifest(path)
    (rows,) = open_manifest(path, sheet="Sheet3").rows()
    assert [row.user_id for row in rows] == ["4"]


def test_a_text_that_no_cell_of_a_workbook_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.xlsx"
    path.write_bytes(b"old")
    for text in ("x" * 32_768, "😀" * 16_384):
        with (
            pytest.raises(LocalError, match=r"row 2, column 'b'.*32,767.*\.csv"),
            new_table(path, ["a", "b"]) as table,
        ):
            table.write([("1", text)])
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])
    with new_table(path, ["a", "b"]) as table:
        table.write([("1", "x" * 32_767), ("2", "😀" * 16_383)])


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet"])
def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setitem(sys.modules, TABLES[suffix], None)
    with (
        pytest.raises(UsageError, match=r"pip install 'enroll\[(excel|parquet)\]'"),
        new_table(tmp_path / f"out{suffix}", ["a"]),
    ):
        pytest.fail("it was opened")
    assert list(tmp_path.iterdir()) == []


FAILING: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "an error": lambda: iter([("1", "2"), ("1",)]),  # type: ignore[list-item]
    "a full disk": lambda: ((str(number), secrets.token_hex(50)) for number in range(30_000)),
}


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("failing", FAILING)
def test_what_fails_leaves_the_old_table_and_nothing_else(
    tmp_path: Path, suffix: str, failing: str
) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with (
            pytest.raises((LocalError, ValueError)),
            new_table(path, ["a", "b"]) as table,
        ):
            table.write(FAILING[failing]())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


@pytest.mark.parametrize("suffix", TABLES)
def test_a_kill_while_it_is_written_leaves_the_old_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    script = """
        import os, sys
        from pathlib import Path
        from enroll.text.tables import new_table

        def rows():
            for number in range(30_000):
                yield str(number), "x" * 50
            os.kill(os.getpid(), 9)

        with new_table(Path(sys.argv[1]), ["a", "b"]) as table:
            table.write(rows())
        """
    killed = subprocess.run([sys.executable, "-c", dedent(script), path], check=False, timeout=60)
    assert killed.returncode == -9
    assert path.read_bytes() == b"old"
    assert all(one.name.startswith(".out") for one in tmp_path.iterdir() if one != path)
    with new_table(path, ["a", "b"]) as table:
        assert table.write([("1", "2")]) == 1
    assert cells_of(path) == [["a", "b"], ["1", "2"]]


def test_reports_escape_what_a_spreadsheet_runs_in_a_csv_only(tmp_path: Path) -> None:
    rules = {"user_id": user_id_fault, "image": image_fault, "text": free_text}
    rows = {".csv": ["-1", "'=x y", "=a", "'=a"], ".xlsx": ["-1", "=x y", "=a", "=a"]}
    for suffix, expected in rows.items():
        path = tmp_path / f"out{suffix}"
        with new_table(path, ["user_id", "other", "image", "text"], rules=rules) as table:
            table.write([("-1", "'=x y" if suffix == ".csv" else "=x y", "=a", "=a")])
        assert cells_of(path)[1] == expected
