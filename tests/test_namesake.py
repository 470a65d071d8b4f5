"""A missing photo, and a file whose name is nearly the same."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest
from real_command import Command
from small_archive import Archive, portrait

from enroll.photo.namesake import Listings, find_namesake

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
        ("y.jpg", "x.jpg", ""),
        ("x.jpeg", "x.jpg", ""),
    ],
)
def test_a_name_that_differs_in_case_or_form_only_is_found(
    tmp_path: Path, there: str, named: str, said: str
) -> None:
    (tmp_path / there).touch()
    assert find_namesake(f"{tmp_path}/{named}") == said


def test_a_folder_that_is_not_there_has_no_namesake(tmp_path: Path) -> None:
    assert find_namesake(f"{tmp_path}/photos/x.jpg") == ""


def test_a_namesake_that_has_gone_is_not_said(tmp_path: Path) -> None:
    (tmp_path / "X.JPG").touch()
    assert find_namesake(f"{tmp_path}/x.jpg") != ""
    (tmp_path / "X.JPG").unlink()
    assert find_namesake(f"{tmp_path}/x.jpg") == ""


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
    rows = archive.people(2)
    archive.manifest([*rows, ("a1", "", "photos/x.jpg"), ("a2", "", "photos/y.jpg")])
    assert command(*RUN).code == 1
    enrolled, case, missing = archive.results()
    assert enrolled["status"] == "enrolled"
    assert case["message"] == (
        "There is no photo at this path; there is 'X.JPG', which differs in case only. "
        "Correct the path, or rename the file."
    )
    assert missing["message"] == "There is no photo at this path. Check the path."
