"""Rows that repeat an earlier row's person and photo with another text, which is ignored."""

from __future__ import annotations

import json

import pytest
from archive import Archive
from real_command import Command

from enroll.manifest.scan import CHUNK_ROWS, Repeats
from enroll.model import Repeat, Row

GROUP = ("staff.csv", "--group-id", "staff")

NOTE = (
    "1 row with the user_id and image of an earlier row, but another user_data, which is ignored: "
    "line 5 repeats line 2."
)


def rows(*named: tuple[str, str, str]) -> list[Row]:
    return [
        Row(line=line, user_id=user_id, user_data=text, image=image)
        for line, (user_id, text, image) in enumerate(named, start=2)
    ]


def test_a_repeat_has_the_person_and_photo_of_an_earlier_row_and_another_text() -> None:
    given = rows(
        ("ada", "Ada", "1.jpg"),
        ("ada", "Ada", "1.jpg"),  # says the same
        ("ada", "Ada, other photo", "2.jpg"),
        ("bob", "another person's", "1.jpg"),
        ("ada", "Ada Lovelace", "1.jpg"),
        ("bob", "Bob", "1.jpg"),
        ("ada", "A. Lovelace", "1.jpg"),
    )
    for size in (1, 3, len(given)):  # however many are added at a time
        repeats = Repeats()
        for at in range(0, len(given), size):
            some = given[at : at + size]
            repeats.add(some, [row.image for row in some])
        assert repeats.found() == [Repeat(6, 2), Repeat(7, 5), Repeat(8, 2)]
    assert Repeats().found() == []


@pytest.fixture
def repeating(archive: Archive) -> Archive:
    people = archive.portraits(1, 2)
    user_id, _, image = people[0]
    archive.manifest([*people, people[0], (user_id, "Another Name", image)])
    return archive


def test_every_command_that_reads_the_rows_names_the_lines_of_repeats(
    repeating: Archive, command: Command
) -> None:
    for arguments in (["plan", *GROUP], ["sync", *GROUP, "--dry-run"]):
        done = command(*arguments)
        assert (done.code, NOTE in done.out.replace("\n", " ")) == (0, True)
    done = command("run", *GROUP, "--quiet", "--summary", "summary.json")
    assert (done.code, NOTE in done.out.replace("\n", " ")) == (0, True)
    summary = json.loads((repeating.folder / "summary.json").read_text(encoding="utf-8"))
    assert (summary["repeats"], summary["rows"]["enrolled"]) == (1, 4)
    assert {face.user_data for face in repeating.box.faces("staff")} == {"Name 1", "Name 2"}
    # The same manifest again is not read anew, and nothing is to be said of it.
    assert command("run", *GROUP, "--quiet").out == ""


def test_rows_far_from_each_other_repeat_each_other_too(archive: Archive, command: Command) -> None:
    archive.photo("1.jpg", 3)
    others = [(f"u{number}", "", "none.jpg") for number in range(CHUNK_ROWS)]
    archive.manifest([("ada", "Ada", "1.jpg"), *others, ("ada", "Ada L.", "1.jpg")])
    done = command("plan", *GROUP)
    assert f"line {CHUNK_ROWS + 3:,} repeats line 2." in done.out.replace("\n", " ")
