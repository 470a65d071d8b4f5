"""What a list may need beyond names of columns: templates, --header-row, --delimiter."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from archive import Archive, portrait
from openpyxl import Workbook
from real_command import Command

from enroll.errors import ManifestError
from enroll.manifest.manifest import Manifest, manifest_from_json, open_manifest
from enroll.manifest.source import Source
from enroll.model import Row
from enroll.settings import RunSettings

NAME = "{Last}, {First}"


def rows(manifest: Manifest) -> list[tuple[int, str, str, str]]:
    return [
        (row.line, row.user_id, row.user_data, row.image)
        for some in manifest.rows(1)
        for row in some
    ]


def listed(tmp_path: Path, text: str, name: str = "staff.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_a_template_is_filled_from_the_columns_of_its_row(tmp_path: Path) -> None:
    path = listed(
        tmp_path,
        "Site,No,Last,First,PHOTO\n"
        "B,7,Müller,Änne,7.jpg\n"
        "B,8,Wu,,8.jpg\n"
        ",9,,Bob,9.jpg\n"
        "B, ,,,x.jpg\n"
        ",,,,\n"
        "%s,1,{First},100%,y.jpg\n",
    )
    columns = {"user_id": "{ site }-{NO}", "user_data": NAME, "image": "{{x}}/{photo}"}
    manifest = open_manifest(path, columns=columns)
    assert rows(manifest) == [
        (2, "B-7", "Müller, Änne", "{x}/7.jpg"),
        (3, "B-8", "Wu, ", "{x}/8.jpg"),
        (4, "", ", Bob", "{x}/9.jpg"),  # an id without its site would be somebody else's
        (5, "", "", "{x}/x.jpg"),
        (7, "%s-1", "{First}, 100%", "{x}/y.jpg"),  # what cells hold is no template
    ]
    again = manifest_from_json(Source.of(path), manifest.to_json())
    assert again == manifest
    assert rows(again) == rows(manifest)


def test_braces_without_a_column_are_part_of_a_columns_name(tmp_path: Path) -> None:
    path = listed(tmp_path, "{no},image\n7,7.jpg\n")
    assert rows(open_manifest(path, columns={"user_id": "{{no}}"})) == [(2, "7", "", "7.jpg")]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{Last}, {Frist}", "no column 'Frist', which --columns user_data refers to; 'First' is"),
        ("{Last}, {xyz}", "refers to; it has: user_id, image, Last, First"),
        ("{Last}, {First", "single '{'"),
        ("Last}", "single '}'"),
        ("{}{Last}", "no column between the braces"),
        ("Lasst", "'Last' is the nearest"),
    ],
)
def test_a_template_that_cannot_be_filled_says_why(
    tmp_path: Path, template: str, words: str
) -> None:
    path = listed(tmp_path, "user_id,image,Last,First\n")
    with pytest.raises(ManifestError) as caught:
        open_manifest(path, columns={"user_data": template})
    assert words in str(caught.value)


def test_an_id_of_two_columns_with_nothing_between_them_is_refused(tmp_path: Path) -> None:
    path = listed(tmp_path, "site,no,image\nA,11,1.jpg\nA1,1,2.jpg\n")
    with pytest.raises(ManifestError, match="A with 11 and A1 with 1 would be one person"):
        open_manifest(path, columns={"user_id": "{site}{no}"})
    read = rows(open_manifest(path, columns={"user_id": "{site}-{no}", "user_data": "{site}{no}"}))
    assert [row[1] for row in read] == ["A-11", "A1-1"]


TITLED = 'A "list, of 2026\n\nmade by X;Y\nuser_id;image;Last\n1;1.jpg;"a\nb"\n2;2.jpg;c\n'


def test_the_header_is_in_the_row_named_and_lines_above_it_are_not_parsed(tmp_path: Path) -> None:
    manifest = open_manifest(listed(tmp_path, TITLED), header_row=4)
    assert (manifest.header, manifest.delimiter) == (("user_id", "image", "Last"), ";")
    assert [(line, user) for line, user, *_ in rows(manifest)] == [(5, "1"), (7, "2")]
    again = manifest_from_json(Source.of(manifest.path), manifest.to_json())
    assert rows(again) == rows(manifest)
    # A delimiter that Excel's first line names still holds.
    hinted = listed(tmp_path, "sep=|\nTitle\nuser_id|image|a,b,c,d,e\n1|1.jpg|\n")
    assert open_manifest(hinted, header_row=3).delimiter == "|"
    with pytest.raises(ManifestError, match="line 5 has 3 fields, but the header only 2"):
        open_manifest(listed(tmp_path, "T\nT\nuser_id,image\n1,1\n2,2,2\n"), header_row=3)


@pytest.mark.parametrize("row", [2, 8, 100])
def test_a_header_row_that_is_empty_or_beyond_the_end_is_named(tmp_path: Path, row: int) -> None:
    with pytest.raises(ManifestError, match=f"line {row} is empty or beyond the end"):
        open_manifest(listed(tmp_path, TITLED), header_row=row)


def test_a_sheets_header_is_in_the_row_named_whatever_the_title_holds(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet["A1"] = "A title\nof two lines"
    for cells in (["user_id", "image"], ["007", "7.jpg"]):
        sheet.append(cells)
    sheet.insert_rows(2)  # the header is in row 3
    book.save(tmp_path / "staff.xlsx")
    manifest = open_manifest(tmp_path / "staff.xlsx", header_row=3, delimiter="^")
    assert rows(manifest) == [(4, "007", "", "7.jpg")]
    with pytest.raises(ManifestError, match="line 2 is empty"):
        open_manifest(tmp_path / "staff.xlsx", header_row=2)


@pytest.mark.parametrize("delimiter", ["^", ":", " ", "\x1f", "'", "\t", "."])
def test_any_delimiter_can_be_named(tmp_path: Path, delimiter: str) -> None:
    text = f'user_id{delimiter}image{delimiter}"a,b;c"\n7{delimiter}x{delimiter}"1{delimiter}2"\n'
    manifest = open_manifest(listed(tmp_path, text), delimiter=delimiter)
    assert manifest.delimiter == delimiter
    (chunk,) = manifest.chunks()
    assert chunk.to_numpy().tolist() == [["7", "x", f"1{delimiter}2"]]


def test_a_row_gets_its_line_wherever_the_header_is(tmp_path: Path) -> None:
    path = listed(tmp_path, "T\n" * 4 + "user_id,image\n" + "1,1.jpg\n" * 3)
    (some,) = open_manifest(path, header_row=5).rows()
    assert some[-1] == Row(line=8, user_id="1", user_data="", image="1.jpg")


def test_a_delimiter_that_no_list_has_is_refused(command: Command) -> None:
    wrong = ["", ",,", "a", '"', "\n", "§"]
    command.folder.joinpath("staff.csv").write_text("user_id,image\n")
    for given in wrong:
        done = command.run("plan", "staff.csv", "--delimiter", given)
        assert (done.code, "cannot be a delimiter" in done.err) == (2, True), given
        with pytest.raises(Exception, match="cannot be a delimiter"):
            RunSettings(manifest=Path("staff.csv"), group_id="staff", delimiter=given)
    assert command.run("plan", "staff.csv", "--header-row", "0").code == 2


def test_a_list_with_title_templates_and_odd_delimiter_enrolls_once(
    archive: Archive, command: Command
) -> None:
    folder = archive.folder
    for number in (1, 2):
        archive.photo(f"{number}.jpg", portrait(number))
    (folder / "people.txt").write_text(
        "Staff of 2026\nNo^Last^First^Photo\n1^Li^Ann^1\n2^Wu^Bob^2\n", encoding="utf-8"
    )
    (folder / "enroll.toml").write_text(
        'header-row = 2\ndelimiter = "^"\n'
        '[columns]\nuser_id = "E{No}"\nuser_data = "{Last}, {First}"\nimage = "{Photo}.jpg"\n'
    )
    run = ("run", "people.txt", "--group-id", "staff")
    first = command.run(*run)
    assert first.code == 0, first.err
    assert archive.there() == [("E1", "Li, Ann"), ("E2", "Wu, Bob")]
    again = command.run(*run)
    assert (again.code, archive.box.count("add")) == (0, 2)
    results = folder / "people.results.csv"
    with results.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file, delimiter="^"))
    assert [one["status"] for one in found] == ["enrolled", "enrolled"]
    # A results file begins with its header: the same settings read it.
    done = command.run("run", results.name, *run[2:], "--results", "again.csv")
    assert (done.code, archive.box.count("add")) == (0, 2), done.err
    # With other options the rows are others, however the first run's scan is remembered.
    other = command.run(
        *run, "--columns", "user_id={No},user_data={First} {Last},image={Photo}.jpg"
    )
    assert (other.code, archive.box.count("add")) == (0, 4), other.err
