"""enroll.manifest.rules."""

from __future__ import annotations

import string

import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from enroll.manifest.rules import RowCode, check_row
from enroll.model import Fault, Row

ALLOWED = string.ascii_letters + string.digits + "-%@#&_"


def checked(*, user_id: str = "13900001111", user_data: str = "", image: str = "a.jpg") -> Fault:
    fault = check_row(Row(line=2, user_id=user_id, user_data=user_data, image=image))
    assert fault is not None
    return fault


@given(
    st.text(ALLOWED, min_size=1, max_size=48),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=128),
)
def test_a_row_within_the_rules_has_no_fault(user_id: str, user_data: str) -> None:
    row = Row(line=2, user_id=user_id, user_data=user_data, image="照片/张 三.jpg")
    assert check_row(row) is None


def test_line_breaks_and_tabs_in_user_data_are_text() -> None:
    assert check_row(Row(line=2, user_id="7", user_data="a\tb\r\nc", image="a.jpg")) is None


@given(st.characters(exclude_characters=ALLOWED))
def test_every_other_character_in_a_user_id_is_a_fault(character: str) -> None:
    assert checked(user_id=f"7{character}8").code == RowCode.USER_ID_CHARACTER


@cases(
    ("user_id", "code", "words"),
    [
        ("", RowCode.USER_ID_EMPTY, ["no user_id"]),
        (" \u3000", RowCode.USER_ID_EMPTY, ["no user_id"]),
        ("x" * 49, RowCode.USER_ID_TOO_LONG, ["49 bytes", "takes 48"]),
        ("139１5", RowCode.USER_ID_CHARACTER, ["FULLWIDTH DIGIT ONE (U+FF11)", "position 4"]),
        ("139 5", RowCode.USER_ID_CHARACTER, ["has SPACE (U+0020)", "position 4"]),
        ("1395 ", RowCode.USER_ID_CHARACTER, ["ends with a blank", "SPACE", "position 5"]),
        ("\xa01395", RowCode.USER_ID_CHARACTER, ["begins", "NO-BREAK SPACE", "position 1"]),
        ("139.5", RowCode.USER_ID_CHARACTER, ["FULL STOP", "position 4", "-%@#&_"]),
        ("139\x005", RowCode.USER_ID_CHARACTER, ["NUL (U+0000)"]),
        ("139\x015", RowCode.USER_ID_CHARACTER, ["a control character (U+0001)"]),
        ("1395\n", RowCode.USER_ID_CHARACTER, ["ends with a blank", "LINE FEED"]),
        ("139\ud8005", RowCode.USER_ID_CHARACTER, ["half a character (U+D800)"]),
        ("ä" * 49, RowCode.USER_ID_CHARACTER, ["LATIN SMALL LETTER A WITH DIAERESIS"]),
    ],
)
def test_a_faulty_user_id_is_named_by_rule_and_place(
    user_id: str, code: RowCode, words: list[str]
) -> None:
    fault = checked(user_id=user_id)
    assert fault.code == code
    for word in words:
        assert word in fault.message


def test_no_message_repeats_a_user_id() -> None:
    for user_id in ("13900001111 ", "13900001111.", "13900001111" * 5):
        assert "13900001111" not in checked(user_id=user_id).message


@pytest.mark.parametrize(
    ("user_data", "code", "words"),
    [
        ("张" * 129, RowCode.USER_DATA_TOO_LONG, ["129 characters", "takes 128"]),
        ("Anna\x1b[1m", RowCode.USER_DATA_CHARACTER, ["ESCAPE (U+001B)", "position 5"]),
        ("\udc80", RowCode.USER_DATA_CHARACTER, ["half a character (U+DC80)", "position 1"]),
    ],
)
def test_a_faulty_user_data_is_named(user_data: str, code: RowCode, words: list[str]) -> None:
    fault = checked(user_data=user_data)
    assert fault.code == code
    for word in words:
        assert word in fault.message


@pytest.mark.parametrize(
    ("image", "code", "words"),
    [
        ("", RowCode.IMAGE_EMPTY, ["names no photo"]),
        ("  ", RowCode.IMAGE_EMPTY, ["names no photo"]),
        ("x" * 4097, RowCode.IMAGE_TOO_LONG, ["4097 characters", "not the photo itself"]),
        ("a\0.jpg", RowCode.IMAGE_CHARACTER, ["NUL", "position 2"]),
        ("a.jpg\nb.jpg", RowCode.IMAGE_CHARACTER, ["LINE FEED", "position 6"]),
    ],
)
def test_a_faulty_photo_path_is_named(image: str, code: RowCode, words: list[str]) -> None:
    fault = checked(image=image)
    assert fault.code == code
    for word in words:
        assert word in fault.message


def test_codes_are_their_own_names() -> None:
    assert [code.value for code in RowCode] == [code.name for code in RowCode]


@pytest.mark.parametrize(
    ("image", "size"),
    [("x" * 256, 256), (f"folder/{'照' * 86}.jpg", 262), (f"{'y' * 300}/1.jpg", 300)],
)
def test_a_name_that_no_file_can_have_is_a_fault(image: str, size: int) -> None:
    fault = checked(image=image)
    assert fault.code == RowCode.IMAGE_TOO_LONG
    assert f"has {size} bytes" in fault.message


def test_a_long_path_of_short_names_is_none() -> None:
    image = "/".join(["照片" * 20] * 10)
    assert check_row(Row(line=2, user_id="7", user_data="", image=image)) is None
