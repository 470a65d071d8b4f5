"""enroll.manifest.rules: files of user ids, of people who are to be deleted."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from cases import cases
from openpyxl import Workbook

from enroll.errors import UsageError
from enroll.manifest.rules import read_user_ids

MARK = "\ufeff"


@cases(
    ("text", "ids"),
    [
        ("a1\n b2 \r\n\na1\rc3", ["a1", " b2 ", "c3"]),
        ("user_id\n0042\n", ["0042"]),
        (f'{MARK}{MARK}"user_id"\n"a""1"\n', ['a"1']),
        ('name;user_id\n"x\ny";a1\nz;b2\nshort\n', ["a1", "b2"]),
        ("user_id|name\na1|x\n", ["a1"]),
        (f'sep=,\r\n{MARK}"user_id",name\r\na1,x\r\n', ["a1"]),
        ("name,\u200buser_id \nx,a1\n", ["a1"]),
    ],
)
@cases("packed", [False, True])
def test_ids_are_read_one_a_line_or_from_their_column(
    text: str, ids: list[str], packed: bool, tmp_path: Path
) -> None:
    content = text.encode()
    path = tmp_path / "ids"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_user_ids(path) == ids


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,id\nx,a1\n", "has no column user_id"),
        ('name,user_id\n"x,a1\n', "is not a valid CSV"),
        ("\n \n", "There is no user_id in"),
    ],
)
def test_a_file_without_ids_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=sentence):
        read_user_ids(path)


def test_ids_that_a_spreadsheet_hides_are_nobodys_choice(tmp_path: Path) -> None:
    made = Workbook()
    sheet = made.worksheets[0]
    for user_id in ("user_id", "a1", "a2", "a3"):
        sheet.append((user_id,))
    made.save(tmp_path / "ids.xlsx")
    assert read_user_ids(tmp_path / "ids.xlsx") == ["a1", "a2", "a3"]
    sheet.row_dimensions[3].hidden = True
    made.save(tmp_path / "ids.xlsx")
    with pytest.raises(UsageError, match="has 1 row that the spreadsheet hides, by hand or by a"):
        read_user_ids(tmp_path / "ids.xlsx")
