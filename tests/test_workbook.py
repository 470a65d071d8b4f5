"""Workbooks as manifests: real files, written by openpyxl or changed by hand."""

from __future__ import annotations

import csv
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook
from openpyxl.chart import BarChart
from real_command import Command
from small_archive import Archive

from enroll.errors import ExitCode, ManifestError
from enroll.rows.manifest import Manifest, open_manifest
from enroll.sandbox import Sandbox

HEAD = ("user_id", "user_data", "image")
RUN = ("run", "staff.xlsx", "--group-id", "staff")


def book(path: Path, *sheets: tuple[str, Sequence[Sequence[Any]]]) -> Path:
    """Write a workbook; a cell (value, format) gets that number format."""
    made = Workbook()
    made.remove(made.worksheets[0])
    for title, rows in sheets:
        sheet = made.create_sheet(title)
        for number, row in enumerate(rows, start=1):
            for place, given in enumerate(row, start=1):
                value, number_format = given if isinstance(given, tuple) else (given, None)
                if value is not None:
                    cell = sheet.cell(number, place, value)
                    cell.number_format = number_format or cell.number_format
    made.save(path)
    return path


def changed(path: Path, member: str, change: Callable[[str], str]) -> None:
    """Change a part of a workbook's XML."""
    with zipfile.ZipFile(path) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    before = parts[member].decode()
    parts[member] = change(before).encode()
    assert parts[member].decode() != before
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in parts.items():
            packed.writestr(name, content)


def rows(manifest: Manifest) -> list[tuple[int, str, str, str]]:
    return [
        (row.line, row.user_id, row.user_data, row.image)
        for chunk in manifest.rows()
        for row in chunk
    ]


def test_cells_are_the_text_that_they_show(tmp_path: Path) -> None:
    path = book(
        tmp_path / "staff.xlsx",
        (
            "Staff",
            [
                HEAD,
                ((7, "00000"), (date(2026, 3, 5), "dd.mm.yyyy"), "1.jpg"),
                (4711.0, "Müller, Ann", "2.jpg"),
                ("0042", "two\nlines", "3.jpg"),
                (None, None, None),
                (5, None, "5.jpg"),
            ],
        ),
    )
    manifest = open_manifest(path)
    assert rows(manifest) == [
        (2, "00007", "05.03.2026", "1.jpg"),
        (3, "4711", "Müller, Ann", "2.jpg"),
        (4, "0042", "two\nlines", "3.jpg"),
        (6, "5", "", "5.jpg"),
    ]
    assert (manifest.encoding, manifest.bom, manifest.notes) == ("utf-8", True, ())


def test_empty_cells_behind_and_rows_before_the_header_are_nothing(tmp_path: Path) -> None:
    path = book(
        tmp_path / "staff.xlsx",
        ("Staff", [(), (), (*HEAD, None, ""), ("a1", "A", "1.jpg", "", None, ""), (), ()]),
    )
    assert rows(open_manifest(path)) == [(4, "a1", "A", "1.jpg")]


def test_wrong_dimensions_hide_no_row(tmp_path: Path) -> None:
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, ("a1", "A", "1.jpg")]))
    changed(
        path,
        "xl/worksheets/sheet1.xml",
        lambda text: re.sub(r'<dimension ref="[^"]*"', '<dimension ref="A1:A1"', text),
    )
    assert rows(open_manifest(path)) == [(2, "a1", "A", "1.jpg")]


def test_a_sheet_is_chosen_by_its_name_and_never_guessed(tmp_path: Path) -> None:
    path = book(
        tmp_path / "staff.xlsx",
        ("Staff", [HEAD, ("a1", "A", "1.jpg")]),
        ("Leavers", [HEAD, ("b2", "B", "2.jpg")]),
    )
    with pytest.raises(ManifestError, match=r"2 sheets: 'Staff', 'Leavers'. Choose with --sheet"):
        open_manifest(path)
    with pytest.raises(ManifestError, match="no sheet 'staff'; it has 'Staff', 'Leavers'"):
        open_manifest(path, sheet="staff")
    assert rows(open_manifest(path, sheet="Leavers")) == [(2, "b2", "B", "2.jpg")]
    plain = tmp_path / "staff.csv"
    plain.write_text("user_id,image\na1,1.jpg\n")
    with pytest.raises(ManifestError, match="is no workbook, so it has no sheet 'Staff'"):
        open_manifest(plain, sheet="Staff")


@pytest.mark.parametrize("charts", [0, 1])
def test_a_chart_sheet_is_no_sheet_with_rows(charts: int, tmp_path: Path) -> None:
    path = tmp_path / "staff.xlsx"
    made = Workbook()
    page = made.create_chartsheet("Faces a day", 0)
    for _ in range(charts):
        page.add_chart(BarChart())
    sheet = made.worksheets[0]
    sheet.append(HEAD)
    sheet.append(("a1", "A", "1.jpg"))
    sheet.print_title_rows = "1:1"  # a name that counts the sheets
    made.save(path)
    assert rows(open_manifest(path)) == [(2, "a1", "A", "1.jpg")]
    with pytest.raises(ManifestError, match="'Faces a day' is a chart and has no cells; its"):
        open_manifest(path, sheet="Faces a day")


@pytest.mark.parametrize("number", [1_048_577, 99_999_999])
def test_a_row_behind_the_last_of_a_spreadsheet_is_refused(number: int, tmp_path: Path) -> None:
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, ("a1", "A", "1.jpg")]))
    changed(
        path,
        "xl/worksheets/sheet1.xml",
        lambda text: re.sub(r'<c r="([A-C])2"', rf'<c r="\g<1>{number}"', text).replace(
            '<row r="2"', f'<row r="{number}"'
        ),
    )
    with pytest.raises(ManifestError, match="number above 1,048,576, the last of a spreadsheet"):
        open_manifest(path)


def test_a_formula_counts_as_its_saved_result(tmp_path: Path) -> None:
    path = book(
        tmp_path / "staff.xlsx",
        ("Staff", [HEAD, ("a1", '="A"&"B"', "1.jpg"), ("=3+4", "", "2.jpg")]),
    )
    with pytest.raises(ManifestError, match="cell B2 holds a formula whose result is not in"):
        open_manifest(path)

    def saved(text: str) -> str:
        text = re.sub(r'<c r="B2"[^>]*>(<f>.*?</f>)<v ?/>', r'<c r="B2" t="str">\1<v>AB</v>', text)
        return re.sub(r'<c r="A3"[^>]*>(<f>.*?</f>)<v ?/>', r'<c r="A3">\1<v>7</v>', text)

    sheet = "xl/worksheets/sheet1.xml"
    changed(path, sheet, saved)
    assert rows(open_manifest(path)) == [(2, "a1", "AB", "1.jpg"), (3, "7", "", "2.jpg")]
    changed(path, sheet, lambda text: text.replace("<v>AB</v>", "<v></v>"))  # an empty text
    assert rows(open_manifest(path))[0] == (2, "a1", "", "1.jpg")


def test_a_workbook_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    cases = {
        "old.xls": (ole, "neither a CSV file nor a workbook of the kind .xlsx"),
        "secret.xlsx": (ole + "EncryptedPackage".encode("utf-16-le"), "encrypted with a password"),
        "cut.xlsx": (b"PK\x03\x04" + bytes(100), "is a workbook that cannot be read"),
    }
    for name, (content, sentence) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ManifestError, match=sentence):
            open_manifest(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "staff.ods", "w") as packed:
        packed.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    with pytest.raises(ManifestError, match=r"save it as 'CSV UTF-8' or \.xlsx"):
        open_manifest(tmp_path / "staff.ods")
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, ("a1", "A", "1.jpg")]))
    changed(path, "xl/worksheets/sheet1.xml", lambda text: text[: len(text) // 2])
    with pytest.raises(ManifestError, match=r"cannot be read \(ParseError\)"):
        open_manifest(path)


def test_without_its_package_a_workbook_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, ("a1", "A", "1.jpg")]))
    for name in ("openpyxl", "openpyxl.chartsheet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ManifestError, match=r"run `pip install 'enroll\[excel\]'`"):
        open_manifest(path)


def test_a_run_of_a_workbook_writes_its_results_as_a_csv(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    people = [(id_, name, image) for id_, name, image in archive.people(1, 2)]
    sheet = [HEAD, *people, ((42, "00000"), "Gone", "gone.jpg")]
    book(archive.folder / "staff.xlsx", ("Staff", sheet), ("Notes", [("nothing",)]))
    assert command(*RUN).code == ExitCode.USAGE
    command.environ["ENROLL_SHEET"] = "Staff"
    done = command(*RUN, "--show-user-ids", "--encoding", "windows-1252")
    assert (done.code, "Line 4, 00042: failed, PHOTO_MISSING" in done.err) == (1, True), done
    results = archive.folder / "staff.results.csv"
    assert results.read_bytes().startswith(b"\xef\xbb\xbf")
    with results.open(encoding="utf-8-sig", newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["user_id"], row["status"]) for row in found] == [
        ("person-0001", "enrolled"),
        ("person-0002", "enrolled"),
        ("00042", "failed"),
    ]
    calls = box.count("add")
    assert command(*RUN).code == 1
    assert "already enrolled" in command("plan", *RUN[1:]).out
    del command.environ["ENROLL_SHEET"]
    assert command("run", results, "--group-id", "staff").code == 1  # it is a manifest itself
    assert box.count("add") == calls == 2


def test_another_sheet_of_the_same_file_is_another_manifest(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    one, two = archive.people(1, 2)
    book(archive.folder / "staff.xlsx", ("A", [HEAD, one]), ("B", [HEAD, two]))
    assert command(*RUN, "--sheet", "A").code == 0
    assert command(*RUN, "--sheet", "B").code == 0
    assert {face.user_id for face in box.faces("staff")} == {"person-0001", "person-0002"}
    assert [row["user_id"] for row in read(archive)] == ["person-0002"]


def read(archive: Archive) -> list[dict[str, str]]:
    path = archive.folder / "staff.results.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_several_readers_of_a_sheet_do_not_disturb_each_other(tmp_path: Path) -> None:
    people = [(f"a{number}", "", f"{number}.jpg") for number in range(3000)]
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, *people]))
    manifest = open_manifest(path)
    one, other = manifest.rows(1000), manifest.rows(500)
    seen = [next(one)[0].line, next(other)[-1].line, next(one)[0].line, next(other)[0].line]
    assert seen == [2, 500, 1001, 501]
    assert sum(map(len, one)) == 1001
    other.close()  # type: ignore[attr-defined]
