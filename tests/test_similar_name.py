"""A missing photo, and a file whose name is nearly the same."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest
from archive import Archive, portrait, read_csv
from real_command import Command

from enroll.photos.similar_name import Listings, describe_similar, describe_unseen

RUN = ("run", "staff.csv", "--group-id", "staff")
COMPOSED, DECOMPOSED = normalize("NFC", "Jörg.jpg"), normalize("NFD", "Jörg.jpg")


@pytest.mark.parametrize(
    ("there", "named", "said"),
    [
        ("X.JPG", "x.jpg", "'X.JPG', which differs in case only"),
        ("JÖRG.jpg", DECOMPOSED, "'JÖRG.jpg', which differs in case only"),
        ("STRASSE.jpg", "straße.jpg", "'STRASSE.jpg', which differs in case only"),
        (
            DECOMPOSED,
            COMPOSED,
            f"'{DECOMPOSED}', the same letters in another Unicode form, decomposed (NFD)",
        ),
        (COMPOSED, DECOMPOSED, f"'{COMPOSED}', the same letters in another Unicode form, NFC"),
        *(
            (
                "10001.jpg",
                name,
                f"'10001.jpg', without the {character} at position {place} of the name {name!r}",
            )
            for name, character, place in [
                ("10001.jpg\xa0", "NO-BREAK SPACE (U+00A0)", 10),
                (" 10001.jpg", "SPACE (U+0020)", 1),
                ("10001.JPG ", "SPACE (U+0020)", 10),
                ("10\u200b001.jpg", "ZERO WIDTH SPACE (U+200B)", 3),
                ("\ufeff10001.jpg", "BYTE-ORDER MARK (U+FEFF)", 1),
                ("10001.jpg\u200f", "RIGHT-TO-LEFT MARK (U+200F)", 10),
            ]
        ),
        (
            "10001\u200b.jpg",
            "10001.jpg",
            "'10001\\u200b.jpg', whose name has ZERO WIDTH SPACE (U+200B) at position 6",
        ),
        (
            "a\xa0b.jpg",
            "a b.jpg",
            "'a\\xa0b.jpg', whose name has NO-BREAK SPACE (U+00A0) at position 2",
        ),
        ("a b.jpg", "ab.jpg", ""),
        ("y.jpg", "x.jpg", ""),
        ("x.jpeg", "x.jpg", ""),
    ],
)
def test_a_name_that_differs_in_case_or_form_only_is_found(
    tmp_path: Path, there: str, named: str, said: str
) -> None:
    (tmp_path / there).touch()
    assert describe_similar(f"{tmp_path}/{named}") == said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("photos\xa0/1.jpg", "'photos\\xa0' has NO-BREAK SPACE (U+00A0) at position 7"),
        ("photos/1.jpg ", "'1.jpg ' has SPACE (U+0020) at position 6"),
        ("photos/\u2060/1.jpg", "'\\u2060' has WORD JOINER (U+2060) at position 1"),
        ("photos of staff/1 2.jpg", ""),
    ],
)
def test_what_nobody_sees_in_a_path_is_named(path: str, said: str) -> None:
    assert describe_unseen(f"/with\xa0blank/{path}", "/with\xa0blank") == said


def test_a_folder_that_is_not_there_has_no_namesake(tmp_path: Path) -> None:
    assert describe_similar(f"{tmp_path}/photos/x.jpg") == ""


def test_a_namesake_that_has_gone_is_not_said(tmp_path: Path) -> None:
    (tmp_path / "X.JPG").touch()
    assert describe_similar(f"{tmp_path}/x.jpg") != ""
    (tmp_path / "X.JPG").unlink()
    assert describe_similar(f"{tmp_path}/x.jpg") == ""


def test_a_folder_is_listed_once_and_what_is_remembered_has_bounds(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        folder.mkdir()
        for name in ("X", "Y", "Z"):
            (folder / name).touch()
    listings = Listings(folders=2, names=100)
    assert [len(listings.names(str(folder))) for folder in folders] == [3, 3, 0, 0]
    (folders[0] / "new").touch()
    assert len(listings.names(str(folders[0]))) == 3
    listings = Listings(folders=100, names=5)
    assert [len(listings.names(str(folder))) for folder in folders] == [4, 1, 0, 0]


def test_the_row_of_a_missing_photo_names_the_file_that_is_there(
    archive: Archive, command: Command
) -> None:
    archive.photo("photos/X.JPG", portrait(1))
    rows = archive.portraits(2)
    odd = [("a3", "", "photos/X.JPG\u200b"), ("a4", "", "photos /X.JPG")]
    archive.manifest([*rows, ("a1", "", "photos/x.jpg"), ("a2", "", "photos/y.jpg"), *odd])
    assert "PHOTO_MISSING" in command("plan", *RUN[1:], "--report", "plan.csv").out
    report = read_csv(archive.folder / "plan.csv")
    assert command(*RUN).code == 1
    enrolled, case, missing, unseen, folder = archive.results()
    assert [row["message"] for row in report[1:]] == [
        row["message"] for row in (case, missing, unseen, folder)
    ]
    assert unseen["message"] == (
        "There is no photo at this path; there is 'X.JPG', without the ZERO WIDTH SPACE (U+200B) "
        "at position 6 of the name 'X.JPG\\u200b'. Correct the path, or rename the file."
    )
    assert folder["message"] == (
        "There is no photo at this path: its part 'photos ' has SPACE (U+0020) at position 7. "
        "Remove that from the path."
    )
    assert enrolled["status"] == "enrolled"
    assert case["message"] == (
        "There is no photo at this path; there is 'X.JPG', which differs in case only. "
        "Correct the path, or rename the file."
    )
    assert missing["message"] == "There is no photo at this path. Check the path."
