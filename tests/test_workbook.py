"""Workbooks as manifests: real files, written by openpyxl or changed by hand."""

from __future__ import annotations

import csv
import importlib
import re
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from archive import Archive
from openpyxl import Workbook, load_workbook
from openpyxl.chart import BarChart
from real_command import Command

from enroll.errors import ExitCode, ManifestError, TimeOverError
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.manifest.workbook import SheetCsv
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


def repacked(path: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Change names and contents of a workbook's parts."""
    with zipfile.ZipFile(path) as packed:
        parts = change({name: packed.read(name).decode() for name in packed.namelist()})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in parts.items():
            packed.writestr(name, content)


SHEET = "xl/worksheets/sheet1.xml"


def with_table(parts: dict[str, str], texts: Sequence[str]) -> dict[str, str]:
    """The same with a table of texts, which cells name by their numbers."""
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/sharedStrings"
    leads = f'<Relationship Id="texts" Type="{kind}" Target="sharedStrings.xml"/>'
    related = "xl/_rels/workbook.xml.rels"
    made = "".join(f"<si><t>{text}</t></si>" for text in texts)
    return {
        **parts,
        related: parts[related].replace("</Relationships>", f"{leads}</Relationships>"),
        "xl/sharedStrings.xml": f'<sst xmlns="{MAIN}">{made}</sst>',
    }


MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def at_the_root(parts: dict[str, str]) -> dict[str, str]:
    """The parts in the folder xl one folder up, and what leads to them."""
    return {
        name.replace("xl/", ""): text.replace('"/xl/', '"/').replace('"xl/', '"')
        for name, text in parts.items()
    }


def in_another_folder(parts: dict[str, str]) -> dict[str, str]:
    """The workbook under other names, which only relationships tell, in another case."""
    named = {"xl/workbook.xml": "Data/Book.XML", "xl/styles.xml": "Data/looks/s.xml"}
    named["xl/_rels/workbook.xml.rels"] = "data/_RELS/book.xml.rels"
    parts = {
        named.get(name, name): text.replace('"xl/workbook.xml', '"data/book.xml')
        .replace('"styles.xml', '"looks/s.xml')
        .replace('"sharedStrings.xml', '"../xl/sharedStrings.xml')
        .replace('"/xl/workbook', '"/data/book')
        .replace('"/xl/styles.xml', '"/Data/looks/s.xml')
        for name, text in parts.items()
    }
    assert '"looks/s.xml' in parts["data/_RELS/book.xml.rels"] or "s.xml" in str(parts)
    return parts


def with_backslashes(parts: dict[str, str]) -> dict[str, str]:
    """Names as .NET wrote them before 4.6.1, in the zip and in what leads to them."""
    return {
        name.replace("/", "\\"): re.sub(
            'Target="([^"]*)"', lambda match: match[0].replace("/", "\\"), text
        )
        for name, text in parts.items()
    }


def strict(parts: dict[str, str]) -> dict[str, str]:
    """As "Strict Open XML Spreadsheet" has it (ISO/IEC 29500-1, annex A)."""
    document = "http://schemas.openxmlformats.org/officeDocument/2006/"
    return {
        name: text.replace(MAIN, "http://purl.oclc.org/ooxml/spreadsheetml/main").replace(
            document, "http://purl.oclc.org/ooxml/officeDocument/"
        )
        for name, text in parts.items()
    }


def prefixed(parts: dict[str, str]) -> dict[str, str]:
    """Each element of the sheet with a prefix, as some programs write it."""
    sheet = "xl/worksheets/sheet1.xml"
    text = re.sub(r"<(/?)(?=[a-zA-Z])", r"<\1x:", parts[sheet]).replace(" xmlns=", " xmlns:x=")
    return {**parts, sheet: text}


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


def test_a_moment_or_number_that_cannot_be_shown_stops_no_list(tmp_path: Path) -> None:
    last, places = (2_958_465.99999999, "yyyy-mm-dd"), (0.5, "0." + "0" * 30)
    unending = (7, "0" * 300)
    people = [("a1", last, "1.jpg"), ("a2", places, "2.jpg"), ("a3", unending, "3.jpg")]
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, *people]))
    assert [row[2] for row in rows(open_manifest(path))] == ["#VALUE!", "0.5" + "0" * 29, "7"]


def test_text_beside_the_table_is_named_as_a_workbook_has_it(tmp_path: Path) -> None:
    people = [("a1", "A", "1.jpg"), ("a2", "B", "2.jpg", None, "left in May")]
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, *people]))
    with pytest.raises(ManifestError, match="line 3 has text to the right of the last column"):
        open_manifest(path)


def test_empty_cells_behind_and_rows_before_the_header_are_nothing(tmp_path: Path) -> None:
    path = book(
        tmp_path / "staff.xlsx",
        ("Staff", [(), (), (*HEAD, None, ""), ("a1", "A", "1.jpg", "", None, ""), (), ()]),
    )
    assert rows(open_manifest(path)) == [(4, "a1", "A", "1.jpg")]


@pytest.mark.parametrize(
    "change", [at_the_root, in_another_folder, with_backslashes, strict, prefixed]
)
def test_a_workbook_is_read_however_its_parts_are_named(
    change: Callable[[dict[str, str]], dict[str, str]], tmp_path: Path
) -> None:
    moment = date(2026, 3, 5), "dd.mm.yyyy"
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, ((7, "00000"), moment, "1.jpg")]))
    repacked(path, change)
    assert rows(open_manifest(path)) == [(2, "00007", "05.03.2026", "1.jpg")]


def test_a_strict_workbooks_dates_are_read(tmp_path: Path) -> None:
    at = date(2026, 3, 5), "dd.mm.yyyy"
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, ("a1", at, "1.jpg")]))
    repacked(path, strict)
    sheet = "xl/worksheets/sheet1.xml"
    changed(path, sheet, lambda text: re.sub(r"<v>46\d+</v>", "<v>2026-03-05T00:00:00</v>", text))
    changed(path, sheet, lambda text: re.sub(r'(r="B2" s="\d+") t="n"', r'\1 t="d"', text))
    assert rows(open_manifest(path)) == [(2, "a1", "05.03.2026", "1.jpg")]


ESCAPED = [
    ("Noor_x000D_\nHaddad_x005F_x", "Noor\r\nHaddad_x"),
    ("_x005F_x000D_", "_x000D_"),
    ("_xD83D__xDE00_", "\U0001f600"),
    ("_x00e4_", "ä"),
    ("_x00G4_ x005F_ _x41_", "_x00G4_ x005F_ _x41_"),
]


@pytest.mark.parametrize(("written", "shown"), ESCAPED)
def test_an_escaped_character_is_that_character_wherever_it_stands(
    written: str, shown: str, tmp_path: Path
) -> None:
    path = book(tmp_path / "staff.xlsx", ("Other", [HEAD]), ("Staff", [HEAD]))
    sheet = "xl/worksheets/sheet2.xml"

    def cells(text: str) -> str:
        inline = f'<c r="A2" t="inlineStr"><is><r><t>{written[:3]}</t></r><rPh sb="0" eb="1">'
        inline += f"<t>aloud</t></rPh><r><t>{written[3:]}</t></r></is></c>"
        formula = f'<c r="B2" t="str"><f>X</f><v>{written}</v></c>'
        table = '<c r="C2" t="s"><v>0</v></c>'
        made = f'<row r="2">{inline}{formula}{table}</row>'
        return text.replace("</sheetData>", f"{made}</sheetData>").replace(
            "</row>", '<c r="D1" t="s"><v>0</v></c></row>', 1
        )

    changed(path, sheet, cells)
    repacked(path, lambda parts: with_table(parts, [written]))
    changed(path, "xl/workbook.xml", lambda text: text.replace('"Staff"', f'"Staff {written}"'))
    manifest = open_manifest(path, sheet=f"Staff {shown}".replace("\n", " "))
    assert rows(manifest) == [(2, shown, shown, shown)]
    assert manifest.header[3] == shown


def table_of(path: Path, texts: Sequence[str], cells: str) -> Path:
    """A workbook of a table of texts and of a sheet's XML."""
    book(path, ("Staff", [("x",)]))
    repacked(path, lambda parts: with_table(parts, texts))
    data = f"<sheetData>{cells}</sheetData>"
    changed(path, SHEET, lambda text: re.sub("<sheetData>.*</sheetData>", data, text))
    return path


def test_a_text_that_no_cell_can_hold_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    cells = "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>0</v></c></row>' for n in range(1, 9_000))
    path = table_of(tmp_path / "staff.xlsx", ["x" * (1 << 20)], cells)
    with pytest.raises(ManifestError, match=r"cell A1 has more than 32,767 characters"):
        open_manifest(path)
    longest = "ä" * 32_766 + "_x000D_"
    line = '<row r="{0}"><c r="A{0}" t="s"><v>{1}</v></c><c r="B{0}" t="s"><v>{2}</v></c></row>'
    cells = line.format(1, 0, 1) + line.format(2, 2, 2)
    path = table_of(tmp_path / "staff.xlsx", ["user_id", "image", longest], cells)
    (row,) = rows(open_manifest(path))
    assert (row[1], len(row[3])) == ("ä" * 32_766 + "\r", 32_767)


def test_a_text_of_more_pieces_than_a_cell_can_hold_is_refused(tmp_path: Path) -> None:
    pieces = "<r><t>ab</t></r>" * 250_000
    cells = f'<row r="1"><c r="A1" t="inlineStr"><is>{pieces}</is></c></row>'
    path = table_of(tmp_path / "staff.xlsx", [], cells)
    with pytest.raises(ManifestError, match=r"cell A1 has more than 32,767 characters"):
        open_manifest(path)
    few = pieces[: len(pieces) // 250_000 * 16_000]
    path = table_of(tmp_path / "staff.xlsx", [], cells.replace(pieces, few))
    with pytest.raises(ManifestError, match="has no column 'user_id'"):
        open_manifest(path)


@pytest.mark.parametrize(
    ("bound", "most", "sentence"),
    [
        ("workbook.MAX_UNPACKED_BYTES", 50_000, "unpacks to more than"),
        ("bounds.MAX_COPY_BYTES", 20_000, "of text, more than a list should need"),
        ("sheet.MAX_CELLS", 5_000, "has more than 5,000 cells"),
        ("workbook._MAX_DIRECTORY_BYTES", 500, "has more parts than a workbook needs"),
    ],
)
def test_a_workbook_that_never_ends_is_refused(
    bound: str, most: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [(f"a{number}", "A person", f"{number}.jpg") for number in range(2_000)]
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, *people]))
    assert len(rows(open_manifest(path))) == 2_000
    module, name = bound.split(".")
    monkeypatch.setattr(importlib.import_module(f"enroll.manifest.{module}"), name, most)
    with pytest.raises(ManifestError, match=sentence):
        open_manifest(path)


def test_a_workbook_is_read_no_longer_than_it_may(tmp_path: Path) -> None:
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, ("a1", "A", "1.jpg")]))
    with path.open("rb") as file, pytest.raises(TimeOverError, match="--max-duration was over"):
        SheetCsv(file, path, None, until=time.monotonic())


def test_only_cells_with_text_count_as_columns(tmp_path: Path) -> None:
    wide = [*HEAD, *([None] * 16_380), (None, "0.00")]
    path = book(tmp_path / "staff.xlsx", ("Staff", [wide, ("a1", "A", "1.jpg")]))
    changed(path, SHEET, lambda text: text.replace("</row>", '<c r="XFD1" s="1"/></row>', 1))
    assert rows(open_manifest(path)) == [(2, "a1", "A", "1.jpg")]
    changed(path, SHEET, lambda text: text.replace("</row>", '<c r="ALM2"><v>1</v></c></row>'))
    with pytest.raises(ManifestError, match="cell ALM2 is in column 1,001, but a list may have"):
        open_manifest(path)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('<row r="3"', '<row r="2"', "rows that are not in order"),
        ("<worksheet", '<!DOCTYPE x [<!ENTITY a "aa">]><worksheet', "a document type"),
        ("<sheetData", f'<x y="{"z" * (5 << 20)}"/><sheetData', "a tag without an end"),
        ("</sheetData>", "</sheetData>" + "<x>" * 1_000, "elements nested too deeply"),
        ("<sheetData", "".join(f"<x{n}/>" for n in range(20_000)) + "<sheetData", "more names"),
        ('r="C3"', f'r="{"A" * 1_000_000}3"', "a cell after the last column"),
        ('<row r="3"', '<row r="1e999"', "cannot convert float infinity"),
        ("<v>12</v>", "<v>1e999</v>", "a number that is not one"),
        ("<v>12</v>", "<v>twelve</v>", "could not convert string"),
    ],
)
def test_a_sheet_that_is_not_as_it_should_be_is_refused(
    old: str, new: str, sentence: str, tmp_path: Path
) -> None:
    people = [("a1", 12, "1.jpg"), ("a2", None, "2.jpg")]
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, *people]))
    changed(path, SHEET, lambda text: text.replace(old, new))
    with pytest.raises(ManifestError, match=rf"cannot be read \(\w+: {sentence}"):
        open_manifest(path)


def hide(path: Path, *, rows: Sequence[int] = (), columns: str = "", sheet: bool = False) -> None:
    found = load_workbook(path)
    page = found.worksheets[0]
    for number in rows:
        page.row_dimensions[number].hidden = True
    for column in columns:
        page.column_dimensions[column].hidden = True
    if sheet:
        page.sheet_state = "hidden"
        found.create_chartsheet("Shown")
    found.save(path)


def test_what_a_spreadsheet_hides_is_read_and_said(tmp_path: Path) -> None:
    people = [(f"a{number}", "", f"{number}.jpg") for number in range(8)]
    path = book(tmp_path / "staff.xlsx", ("Staff", [(), HEAD, *people, (), ()]))
    hide(path, rows=[1, 4, 5, 9, 12])
    manifest = open_manifest(path)
    assert len(rows(manifest)) == 8
    assert manifest.notes == (
        f"{path}, sheet 'Staff': 3 rows are hidden, by hand or by a filter; they count like the "
        "others. Delete those that should not count.",
    )
    hide(path, columns="BC", sheet=True)
    assert [note.partition("sheet 'Staff'")[2] for note in open_manifest(path).notes[1:]] == [
        ": the column 'user_data', which is the user_data, is hidden.",
        ": the column 'image', which is the image, is hidden.",
        " is hidden itself.",
    ]


def test_plan_run_and_sync_say_that_rows_are_hidden(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    people = archive.portraits(1, 2)
    path = book(archive.folder / "staff.xlsx", ("Staff", [HEAD, *people]))
    hide(path, rows=[3])
    said = "1 row is hidden, by hand or by a filter; it counts like the others"
    assert said in command("plan", *RUN[1:]).out
    done = command(*RUN)
    assert (done.code, said in done.err) == (0, True)
    assert said in command("sync", *RUN[1:], "--dry-run").out
    assert box.count("add") == 2


def test_an_id_that_the_spreadsheet_has_rounded_is_named_as_such(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    (one,) = archive.portraits(1)
    cells = [(12345678901234567890, "0"), (1.2345678901234567e19, None), (1234567890123456, "0")]
    path = book(
        archive.folder / "staff.xlsx", ("Staff", [HEAD, *[(cell, *one[1:]) for cell in cells]])
    )
    assert [row[1] for row in rows(open_manifest(path))] == [
        "1.23457E+19",
        "1.23457E+19",
        "1.23457E+15",
    ]
    assert command(*RUN).code == 1
    assert [row["error"] for row in read(archive)] == ["USER_ID_ROUNDED"] * 3
    assert "rounded to 15 digits" in read(archive)[0]["message"]
    assert box.count("add") == 0


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
    with pytest.raises(ManifestError, match="is not a workbook, so it has no sheet 'Staff'"):
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
    with pytest.raises(ManifestError, match=r"cannot be read \(ExpatError: "):
        open_manifest(path)


def test_without_its_package_a_workbook_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = book(tmp_path / "staff.xlsx", ("Staff", [HEAD, ("a1", "A", "1.jpg")]))
    for name in ("openpyxl", "openpyxl.utils.datetime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ManifestError, match=r"run `pip install 'enroll\[excel\]'`"):
        open_manifest(path)


def test_a_run_of_a_workbook_writes_its_results_as_a_csv(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    people = [(id_, name, image) for id_, name, image in archive.portraits(1, 2)]
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
    one, two = archive.portraits(1, 2)
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
