"""enroll.manifest.manifest, with what it reads through: source, structure and header."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from cases import cases
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enroll.errors import ManifestError, TimeOverError
from enroll.manifest import source as source_module
from enroll.manifest.header import EXPORT_COLUMNS
from enroll.manifest.manifest import Manifest, manifest_from_json, open_manifest
from enroll.manifest.source import Source
from enroll.model import Row

PLAIN = "user_id,user_data,image\n7,Anna,a.jpg\n8,Bob,b.jpg\n"

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "staff.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def all_rows(manifest: Manifest, size: int = 10_000) -> list[Row]:
    return [row for rows in manifest.rows(size) for row in rows]


def all_cells(manifest: Manifest, size: int = 10_000) -> list[tuple[int, list[str]]]:
    return [
        (line, cells)
        for chunk in manifest.chunks(size)
        for line, cells in zip(chunk.index.tolist(), chunk.to_numpy().tolist(), strict=True)
    ]


def refusal(path: Path, columns: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ManifestError) as caught:
        open_manifest(path, columns=columns)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_a_plain_manifest_says_what_it_is_and_gives_its_rows(write: Write) -> None:
    path = write(PLAIN)
    manifest = open_manifest(path)
    assert manifest.sha256 == hashlib.sha256(PLAIN.encode()).hexdigest()
    assert (manifest.encoding, manifest.encoding_was_guessed, manifest.bom) == (
        "utf-8",
        False,
        False,
    )
    assert (manifest.delimiter, manifest.newline) == (",", "\n")
    assert manifest.header == ("user_id", "user_data", "image")
    assert manifest.rows_at_most == 2
    assert manifest.notes == ()
    assert not manifest.is_results
    assert all_rows(manifest) == [
        Row(line=2, user_id="7", user_data="Anna", image="a.jpg"),
        Row(line=3, user_id="8", user_data="Bob", image="b.jpg"),
    ]


def test_everything_is_text_as_it_stands_there(write: Write) -> None:
    cells = [
        ["007", "NA", "1e5"],
        ["null", "None", "nan"],
        ["TRUE", "#N/A", "2024-01-02"],
        ["1,5", "<NA>", " a "],
        ["0x10", "-inf", "1_000"],
    ]
    text = io.StringIO()
    csv.writer(text).writerows([["user_id", "user_data", "image"], *cells])
    assert [found for _, found in all_cells(open_manifest(write(text.getvalue())))] == cells


def test_cells_are_str_and_the_index_is_the_line(write: Write) -> None:
    (chunk,) = open_manifest(write(PLAIN)).chunks()
    assert chunk.index.name == "line"
    assert list(chunk.columns) == ["user_id", "user_data", "image"]
    assert {type(cell) for cell in chunk.to_numpy().ravel()} == {str}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_although_the_others_stand_in_quotes(
    write: Write, delimiter: str
) -> None:
    text = f'"a,b;c\td;e|f,g"{delimiter}user_id{delimiter}image\nx{delimiter}7{delimiter}a.jpg\n'
    manifest = open_manifest(write(text))
    assert manifest.delimiter == delimiter
    assert manifest.header == ("a,b;c\td;e|f,g", "user_id", "image")


def test_the_delimiter_is_the_one_that_shows_the_columns_not_the_most_frequent(
    write: Write,
) -> None:
    assert open_manifest(write("user_id,image,a;b;c;d\n")).delimiter == ","


@pytest.mark.parametrize("line", ["sep=|", '"sep=|"', '"SEP=|"'])
def test_excels_own_line_about_the_delimiter_is_obeyed(write: Write, line: str) -> None:
    manifest = open_manifest(write(f"{line}\r\nuser_id|image\r\n7|a,b.jpg\r\n"))
    assert all_rows(manifest) == [Row(line=3, user_id="7", user_data="", image="a,b.jpg")]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("columns", [EXPORT_COLUMNS, EXPORT_COLUMNS[:-1]])  # an older version's
def test_an_exports_faces_without_a_row_are_no_rows(
    write: Write, size: int, columns: tuple[str, ...]
) -> None:
    def line(user_id: str, image: str, sha256: str) -> str:
        cells = f"{user_id},,{image},superseded,t,,,1,r,{sha256},,,1,30".split(",")
        return ",".join(cells[: len(columns)]) + "\n"

    text = (
        f"{','.join(columns)}\n"
        + line("1", "", "ab")
        + line("2", "2.jpg", "ab")
        + line("3", " ", "ab")
        + line("4", "", "")  # a row that never named a photo: it is still wrong
        + line("5", "", "ab")
        + line("6", "6.jpg", "")
    )
    manifest = open_manifest(write(text))
    found = [(row.line, row.user_id) for rows in manifest.rows(size) for row in rows]
    assert found == [(3, "2"), (5, "4"), (7, "6")]
    (note,) = manifest.notes
    assert "3 lines without a photo" in note


def test_in_another_file_a_row_without_a_photo_stays_a_row(write: Write) -> None:
    manifest = open_manifest(write("user_id,image,sha256,status\n1,,ab,superseded\n"))
    assert [row.user_id for row in all_rows(manifest)] == ["1"]


def test_lines_are_right_across_quotes_blank_lines_and_all_line_ends(write: Write) -> None:
    text = (
        "\r\n"
        '"user_\nx",user_id,image\r\n'  # lines 2 and 3
        "1,7,a\r\n"
        "\r\n"
        '"1\r\n2\n3\r4",8,b\r\n'  # lines 6 to 9
        "1,9,c\r"
        "   \n"
        ",,\n"
        "1,10,d"
    )
    rows = all_rows(open_manifest(write(text)))
    assert [(row.line, row.user_id) for row in rows] == [(4, "7"), (6, "8"), (10, "9"), (13, "10")]


def test_a_row_of_blanks_alone_is_no_row_but_one_with_any_cell_is(write: Write) -> None:
    rows = all_rows(open_manifest(write("user_id,image,x\n,,\n \t, ,\n,,x\n,a.jpg,\n")))
    assert [row.line for row in rows] == [4, 5]


def test_what_a_short_row_lacks_is_empty(write: Write) -> None:
    manifest = open_manifest(write("user_id,image,user_data,more\n7,a.jpg\n8\n"))
    assert [cells for _, cells in all_cells(manifest)] == [
        ["7", "a.jpg", "", ""],
        ["8", "", "", ""],
    ]


def test_a_header_without_rows_has_no_rows(write: Write) -> None:
    assert all_rows(open_manifest(write("user_id,image\n"))) == []
    assert all_rows(open_manifest(write("user_id,image"))) == []


def test_columns_are_matched_by_name_then_without_case_and_blanks(write: Write) -> None:
    manifest = open_manifest(write("IMAGE, User_ID ,image\nx,7,a.jpg\n"))
    assert manifest.columns == {"user_id": " User_ID ", "image": "image"}
    assert all_rows(manifest)[0].user_id == "7"


@pytest.mark.parametrize("columns", [{}, {"user_id": "EMP_NO", "image": "PHOTO"}])
def test_a_title_above_the_header_is_named_as_what_may_be_wrong(
    write: Write, columns: dict[str, str]
) -> None:
    path = write("Staff list 2026,,\nEMP_NO,PHOTO,NAME\na1,a.jpg,A\n")
    with pytest.raises(ManifestError, match="--header-row N if this line is a title"):
        open_manifest(path, columns=columns)
    path = write("EMP,PICTURE,NAME\na1,a.jpg,A\n")
    with pytest.raises(ManifestError, match=r"EMP, PICTURE, NAME\. .*--columns") as caught:
        open_manifest(path, columns=columns)
    assert "is a title" not in str(caught.value)


def test_columns_option_overrules_the_names(write: Write) -> None:
    path = write("emp_no,NAME,PHOTO,user_id\n7,Anna,a.jpg,no\n")
    asked = {"user_id": "EMP_NO", "user_data": "NAME", "image": "PHOTO"}
    assert all_rows(open_manifest(path, columns=asked)) == [
        Row(line=2, user_id="7", user_data="Anna", image="a.jpg")
    ]


def test_user_data_may_be_missing_unless_it_was_asked_for(write: Write) -> None:
    path = write("user_id,image\n7,a.jpg\n")
    assert all_rows(open_manifest(path))[0].user_data == ""
    assert "'NAME'" in refusal(path, {"user_data": "NAME"})


def test_empty_cells_behind_the_last_column_are_no_data(write: Write) -> None:
    path = write("user_id,user_data,image\n7,Anna,a.jpg,\n8,Bob,b.jpg,, \t,\n9,Carl,c.jpg\n,,,,,\n")
    cells = [["7", "Anna", "a.jpg"], ["8", "Bob", "b.jpg"], ["9", "Carl", "c.jpg"]]
    assert [found for _, found in all_cells(open_manifest(path))] == cells


def test_nameless_columns_beyond_the_most_are_none(write: Write) -> None:
    path = write(f"user_id,image{',' * 16_382}\n7,a.jpg{',' * 16_382}\n")
    manifest = open_manifest(path)
    assert manifest.header == ("user_id", "image")
    assert [(row.user_id, row.image) for row in all_rows(manifest)] == [("7", "a.jpg")]
    path.write_text(f"user_id,image{',' * 16_382}\n7,a.jpg{',' * 1_000}x\n", encoding="utf-8")
    assert "line 2 has 1002 fields" in refusal(path)


@pytest.mark.parametrize("photo", ["iVBORw0KGgo" * 200_000, "iVBORw0KGgo=\r\n" * 50_000])
def test_a_long_cell_of_a_column_that_is_not_used_is_no_fault(write: Write, photo: str) -> None:
    path = write(f'user_id,user_data,photo,image\n7,Anna,"{photo}",a.jpg\n8,Bob,,b.jpg\n')
    manifest = open_manifest(path)
    assert [row.user_id for row in all_rows(manifest)] == ["7", "8"]
    assert all_cells(manifest)[0][1][2] == photo


def test_few_rows_with_long_cells_are_read_at_once(write: Write) -> None:
    body = "".join(f"{n},{n}.jpg,{'x' * 1_000_000}\n" for n in range(20))
    manifest = manifest_from_json(  # as a later run has it
        Source.of(path := write(f"user_id,image,photo\n{body}")), open_manifest(path).to_json()
    )
    chunks = [len(chunk) for chunk in manifest.chunks()]
    assert (sum(chunks), max(chunks) <= 9) == (20, True)
    assert [row.line for row in all_rows(manifest)] == list(range(2, 22))


MARK = "\ufeff"


@cases(
    "text",
    [
        f"{MARK}{MARK}user_id;image\r\n7;a.jpg\r\n",
        f'{MARK}{MARK}{MARK}"user_id";"image"\r\n7;a.jpg\r\n',
        f"{MARK}sep=;\r\n{MARK}user_id;image\r\n7;a.jpg\r\n",
        f'sep=;\r\n{MARK}"user_id";image\r\n7;a.jpg\r\n',
        f'"{MARK}user_id"; \u200bimage\xa0\r\n7;a.jpg\r\n',
    ],
)
@cases("encoding", ["utf-8", "utf-16", "gb18030"])
def test_further_byte_order_marks_are_no_part_of_a_name(
    tmp_path: Path, text: str, encoding: str
) -> None:
    path = tmp_path / "staff.csv"
    path.write_bytes(text.encode(encoding))
    manifest = open_manifest(path, encoding="gb18030" if encoding == "gb18030" else None)
    assert [(row.user_id, row.image) for row in all_rows(manifest)] == [("7", "a.jpg")]


def test_a_joined_file_is_found_behind_its_mark(write: Write) -> None:
    assert "repeats the header" in refusal(write(f"{PLAIN}{MARK}{PLAIN}"))
    quoted = PLAIN.replace("user_id", '"user_id"')
    assert "repeats the header" in refusal(write(f"{quoted}{MARK}{quoted}"))


def test_what_is_unseen_in_a_name_is_shown_in_a_refusal(write: Write) -> None:
    sentence = refusal(write("user_id,pho\u200bto\n7,a.jpg\n"))
    assert "it has: user_id, pho<ZERO WIDTH SPACE (U+200B)>to" in sentence


@pytest.mark.parametrize(("most", "text"), [(100, PLAIN * 9), (5_000, "user_id,image\n" * 900)])
def test_a_gzip_file_that_unpacks_without_end_is_refused(
    most: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "MAX_UNPACKED_BYTES", most)
    path = tmp_path / "staff.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert "unpacks to more than 1 GB, more than a list should need" in refusal(path)


@pytest.mark.parametrize("name", ["staff.csv", "staff.csv.gz"])
def test_reading_a_list_takes_no_longer_than_it_may(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = PLAIN.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(TimeOverError, match="--max-duration was over while"):
        open_manifest(path, until=time.monotonic())
    manifest = open_manifest(path, until=time.monotonic() + 3600)
    assert len(all_rows(manifest)) == 2


def test_what_was_opened_in_time_can_be_read_when_it_is_over(write: Write) -> None:
    source = Source.of(write(PLAIN), until=(now := time.monotonic()) + 3600)
    manifest = open_manifest(source.path, source=source)
    late = replace(source, until=now)
    assert len(all_rows(manifest_from_json(late, manifest.to_json()))) == 2


def test_columns_without_a_name_may_be_many(write: Write) -> None:
    manifest = open_manifest(write("user_id,image,,\n7,a.jpg,x,y\n"))
    assert all_cells(manifest) == [(2, ["7", "a.jpg", "x", "y"])]


def test_gzip_is_unpacked_and_the_hash_is_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "staff.csv.gz"
    path.write_bytes(gzip.compress(PLAIN.encode()))
    manifest = open_manifest(path)
    assert manifest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [row.user_id for row in all_rows(manifest)] == ["7", "8"]


def test_chunks_have_the_size_asked_for(write: Write) -> None:
    body = "".join(f"{n},a.jpg\n" for n in range(25))
    manifest = open_manifest(write("user_id,image\n" + body))
    chunks = list(manifest.chunks(10))
    assert max(map(len, chunks)) == 10
    assert [row.line for row in all_rows(manifest, 10)] == list(range(2, 27))


REFUSED = {
    "no user_id": (
        "EMP_NO,image\n7,a.jpg\n",
        ["line 1", "'user_id'", "EMP_NO, image", "--columns user_id="],
    ),
    "no image": ("user_id;PHOTO\n7;a.jpg\n", ["'image'", "user_id, PHOTO", "--columns image="]),
    "a column twice": ("user_id,image,Note,Note \n", ["'Note' twice"]),
    "two that could be it": ("User_ID,USER_ID,image\n", ["more than one", "User_ID, USER_ID"]),
    "too many fields": (
        PLAIN + '9,"x\ny",c.jpg\n10,Carl, the Great,d.jpg\n',
        ["line 6 has 4 fields", "header only 3", "comma", "quotes"],
    ),
    "too many fields, semicolon": ("user_id;image\n7;a;b\n", ["line 2", "semicolon"]),
    "a field too many behind an empty one": (
        "user_id,image\n7,a,,b\n",
        ["line 2 has 4 fields", "header only 2"],
    ),
    "the header again": (PLAIN + PLAIN, ["line 4", "repeats the header"]),
    "an open quote": (PLAIN + '9,"Carl,c.jpg\n10,Dora,d.jpg\n', ["line 4", "never closed"]),
    "text after a quote": (PLAIN + '9,"Carl "the" Great",c.jpg\n', ["line 4", "twice"]),
    "a cell that has swallowed rows": (
        PLAIN + '9,"Carl,c.jpg\n' + "10,Dora,d.jpg\n" * 20_000 + '11,Eve the best",e.jpg\n',
        ["line 4", "131,072", "quote"],
    ),
    "an endless cell": (
        PLAIN + '9,"Carl,c.jpg\n' + f"10,{'Dora' * 1_000_000},d.jpg\n" * 3,
        ["line 4", "8,388,608", "quote"],
    ),
    "too many columns": (
        ",".join(["user_id", "image", *map(str, range(999))]) + "\n",
        ["line 1 has 1,001 columns", "may have 1,000"],
    ),
    "nothing": ("", ["is empty", "no header"]),
    "blank lines alone": ("\n  \n\t\n", ["is empty"]),
    "a mark alone": ("\ufeff", ["is empty"]),
    "a NUL": (PLAIN + "9,Ca\0rl,c.jpg\n", ["line 4", "NUL", "not a text file"]),
    "one endless line": ("user_id,image\n" + "x" * 9_000_000, ["line 2", "8,388,608"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_faulty_file_is_refused_in_one_sentence_with_its_line(case: str, write: Write) -> None:
    content, words = REFUSED[case]
    path = write(content)
    sentence = refusal(path)
    assert str(path) in sentence
    for word in words:
        assert word in sentence


def test_a_wide_header_is_not_listed_without_end(write: Write) -> None:
    sentence = refusal(write(",".join(f"column {n} {'x' * 500}" for n in range(500)) + "\n"))
    assert "and 480 more" in sentence
    assert len(sentence) < 1500


def test_an_unknown_role_is_refused(write: Write) -> None:
    with pytest.raises(ManifestError, match=r"'photo'.*user_id, user_data, image"):
        open_manifest(write(PLAIN), columns={"photo": "image"})


def test_a_missing_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    assert "no manifest at" in refusal(tmp_path / "absent.csv")
    os.mkfifo(tmp_path / "pipe")
    assert "not a plain file" in refusal(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(write: Write) -> None:
    path = write(PLAIN)
    path.chmod(0)
    assert "cannot be read by this user" in refusal(path)


def test_a_workbook_and_a_photo_are_refused(write: Write) -> None:
    assert "save it as 'CSV UTF-8'" in refusal(write(b"PK\x03\x04\x14\0\0\0rest"))
    assert "line 1: a NUL" in refusal(write(b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\xd9\xff\n"))


def test_a_gzip_that_is_cut_off_or_damaged_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress((PLAIN + "".join(f"{n},x,{n}.jpg\n" for n in range(9, 9999))).encode())
    path = tmp_path / "staff.csv.gz"
    path.write_bytes(packed[:-200])
    assert "ends too early" in refusal(path)
    path.write_bytes(packed[:300] + bytes([packed[300] ^ 0xFF]) + packed[301:])
    assert "damaged gzip" in refusal(path)
    path.write_bytes(packed + b"more")
    assert "damaged gzip" in refusal(path)


def test_a_file_that_changes_meanwhile_is_refused_and_a_touched_one_is_not(write: Write) -> None:
    path = write(PLAIN)
    manifest = open_manifest(path)
    os.utime(path, ns=(1, 1))
    assert len(all_rows(manifest)) == 2
    with path.open("a", encoding="utf-8") as file:
        file.write("9,Carl,c.jpg\n")
    with pytest.raises(ManifestError, match="was changed while"):
        all_rows(manifest)


def test_a_change_between_two_chunks_is_noticed(write: Write) -> None:
    path = write("user_id,image\n" + "".join(f"{n},a.jpg\n" for n in range(100)))
    chunks = open_manifest(path).chunks(10)
    next(chunks)
    with path.open("a", encoding="utf-8") as file:
        file.write("9,c.jpg\n")
    with pytest.raises(ManifestError, match="was changed while"):
        list(chunks)


# What a reader can meet, with much of what has a meaning in CSV.
SPECIAL = st.sampled_from([*",;\t\"'\r\n =+-@\ufeff\x85\u2028\x1c0N＝ä张😀", "NA", "\r\n", '""'])
CELLS = st.lists(
    SPECIAL | st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6
).map("".join)
TABLES = st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), max_size=6)
HEADER = ("user_id", "user_data", "image", "more")


def written(
    table: list[tuple[str, ...]], *, delimiter: str, newline: str, quote_all: bool, blank: int
) -> tuple[str, list[tuple[int, list[str]]]]:
    """A CSV's text, and each row's line, counted in the text that was written before it."""
    text, expected = "", []
    for number, cells in enumerate([HEADER, *table]):
        text += newline * (blank if number else 0)
        line = 1 + len(re.findall(r"\r\n|\r|\n", text))
        record = io.StringIO(newline="")
        # With both in its line end the writer quotes cells with either, on every Python.
        csv.writer(
            record,
            delimiter=delimiter,
            lineterminator="\r\n",
            quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
        ).writerow(cells)
        text += record.getvalue()[:-2] + newline
        if number and any(cell.strip() for cell in cells):
            expected.append((line, list(cells)))
    return text, expected


@settings(max_examples=120)
@given(
    table=TABLES,
    delimiter=st.sampled_from(",;\t"),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    quote_all=st.booleans(),
    blank=st.integers(0, 2),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
    size=st.sampled_from([1, 3, 1000]),
)
@example(
    table=[("1", "a\r\nb", "c", "")] * 4,
    delimiter=",",
    newline="\n",
    quote_all=False,
    blank=1,
    encoding="utf-8",
    size=3,
)
@example(
    table=[("\ufeff", "", "", "")],
    delimiter=",",
    newline="\r",
    quote_all=False,
    blank=0,
    encoding="utf-8",
    size=3,
)
def test_any_cells_come_back_with_their_lines(
    tmp_path_factory: pytest.TempPathFactory,
    table: list[tuple[str, ...]],
    delimiter: str,
    newline: str,
    quote_all: bool,
    blank: int,
    encoding: str,
    size: int,
) -> None:
    text, expected = written(
        table, delimiter=delimiter, newline=newline, quote_all=quote_all, blank=blank
    )
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(text.encode(encoding))
    asked = "gb18030" if encoding == "gb18030" else None
    manifest = open_manifest(path, encoding=asked)
    assert manifest.delimiter == delimiter
    assert manifest.newline == ("\r\n" if newline == "\r\n" else "\n")
    assert all_cells(manifest, size) == expected
    assert manifest.rows_at_most >= len(expected)


@settings(max_examples=120)
@given(content=st.text(alphabet=list('a,;\t"\r\n '), max_size=30))
def test_any_text_is_read_as_the_csv_module_reads_it_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "text.csv"
    path.write_bytes(f"user_id,image\n{content}".encode())
    try:
        records = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    except csv.Error:
        records = None
    if records is None or any(cell.strip() for record in records for cell in record[2:]):
        refusal(path)
        return
    padded = [[*record, "", ""][:2] for record in records]
    expected = [cells for cells in padded if any(cell.strip() for cell in cells)]
    assert [cells for _, cells in all_cells(open_manifest(path))] == expected
