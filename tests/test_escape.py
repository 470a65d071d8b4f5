"""enroll.text.tables: the escapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.manifest.rules import image_fault, user_id_fault
from enroll.text.tables import (
    Rule,
    escape,
    escape_column,
    unescape,
    unescape_column,
)

TEXT = st.lists(st.sampled_from(list("'=+-@\t\r\n＝＋－＠a1 ")) | st.characters()).map("".join)


@pytest.mark.parametrize("start", list("=+-@\t\r\n＝＋－＠"))
def test_what_a_spreadsheet_would_run_is_escaped(start: str) -> None:
    assert escape(f"{start}cmd|' /C calc'!A1") == f"'{start}cmd|' /C calc'!A1"


@pytest.mark.parametrize("cell", ["", "Anna", "a=b", " =1", "O'Brien", "'tis", "1-2", "ä@b"])
def test_other_text_is_left_as_it_is(cell: str) -> None:
    assert escape(cell) == cell
    assert unescape(cell) == cell


def test_a_cell_that_looks_escaped_is_not_confused_with_one_that_is() -> None:
    assert escape("'=1") == "''=1"
    assert unescape("''=1") == "'=1"


@given(TEXT, st.integers(1, 4))
def test_the_escape_is_undone_exactly_however_often(cell: str, times: int) -> None:
    escaped = cell
    for _ in range(times):
        escaped = escape(escaped)
    for _ in range(times):
        escaped = unescape(escaped)
    assert escaped == cell


@given(TEXT)
def test_no_escaped_cell_begins_with_what_runs(cell: str) -> None:
    assert escape(cell)[:1] not in set("=+-@\t\r\n＝＋－＠")


@pytest.mark.parametrize("rule", [user_id_fault, image_fault])
@given(TEXT | TEXT.map(lambda text: (text + "/") * 200), st.integers(1, 4))
def test_what_breaks_a_rule_is_escaped_and_that_is_undone(
    rule: Rule, cell: str, times: int
) -> None:
    escaped = cell
    for _ in range(times):
        escaped = escape(escaped, rule)
    assert escaped == cell or rule(cell) is not None
    assert rule(cell) is None or escaped[:1] not in set("=+-@\t\r\n＝＋－＠")
    for _ in range(times):
        escaped = unescape(escaped, rule)
    assert escaped == cell


@given(st.lists(TEXT))
def test_a_column_is_its_cells(cells: list[str]) -> None:
    escaped = escape_column(cells)
    assert escaped == [escape(cell) for cell in cells]
    assert unescape_column(escaped) == cells
