"""Rows that are probably mistakes: another text for a person, ids that a spreadsheet changed."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from archive import Archive
from real_command import Command

from enroll.manifest.scan import CHUNK_ROWS, MOST_ROWS
from enroll.manifest.suspects import NONE, Pairs, Suspects, SuspectSearch
from enroll.model import Row

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


def found_in(given: list[Row], *, size: int = 2) -> Suspects:
    search = SuspectSearch()
    for at in range(0, len(given), size):
        some = given[at : at + size]
        search.add(some, [row.image for row in some])
    return search.found()


def pairs(found: Pairs) -> list[tuple[int, int]]:
    return list(zip(found.lines, found.firsts, strict=True))


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
        found = found_in(given, size=size)
        assert pairs(found.repeats) == [(6, 2), (7, 5), (8, 2)]
        assert pairs(found.texts) == [(4, 2)]
    assert SuspectSearch().found() == NONE


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


def test_ids_that_differ_only_in_zeros_are_found_in_the_list() -> None:
    given = rows(
        ("0012", "", "1.jpg"),
        ("12", "", "2.jpg"),
        ("0012", "", "3.jpg"),
        ("012", "", "4.jpg"),
        ("a12", "", "5.jpg"),
        ("0a12", "", "6.jpg"),
        ("-12", "", "7.jpg"),
        ("0", "", "8.jpg"),
        ("00", "", "9.jpg"),
    )
    assert pairs(found_in(given).zeros) == [(3, 2), (5, 2)]


@pytest.mark.parametrize(
    ("ids", "shortened"),
    [
        (["12345678901234500000"], True),
        (["0012345678901234500000", "12345678901234567890"], True),
        (["12345678901234567890", "99999999999999999999"], False),
        (["1234567890123450"], False),  # every tenth of 16 digits
        ([f"123456789012{n:03}0" for n in range(20)], True),
        ([f"123456789012{n:04}" for n in range(500)], False),
        (["1234567890123450"] * 50, False),  # one person
        (["123456789012300"], False),  # of which a spreadsheet keeps every digit
    ],
)
def test_ids_whose_last_digits_a_spreadsheet_has_cut_off_are_found(
    ids: list[str], *, shortened: bool
) -> None:
    found = found_in(rows(*[(one, "", f"{n}.jpg") for n, one in enumerate(ids)]))
    cut = [n for n, one in enumerate(ids, start=2) if not one.lstrip("0")[15:].strip("0")]
    assert list(found.shortened) == (cut if shortened else [])


def test_a_million_rows_take_little_memory() -> None:
    """Also where every row is suspicious."""
    search = SuspectSearch()
    tracemalloc.start()
    try:
        for chunk in range(20):
            search.add(
                [
                    Row(line=line, user_id="0" * (line % 2) + "7", user_data=str(line), image="x")
                    for line in range(chunk * 1_000, chunk * 1_000 + 1_000)
                ],
                ["x"] * 1_000,
            )
        found = search.found()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.texts) + len(found.repeats) >= 19_998
    assert most < 20_000 * 300


ENDS = " If the ids are right, nothing needs to be done."


def test_every_command_names_ids_that_the_ledger_knows_with_other_zeros(
    archive: Archive, command: Command
) -> None:
    one, two, three, four = (image for _, _, image in archive.portraits(1, 2, 3, 4))
    people = [("0012", "A", one), ("0034", "B", two), ("u7", "C", three)]
    archive.manifest(people)
    assert command("run", *GROUP).code == 0
    archive.manifest([("12", "A", one), ("34", "B", two), *people[2:], ("56", "D", four)])
    note = (
        "2 rows of new people whose user_id the ledger knows with more or fewer zeros before it: "
        "line 2 (4 digits in the ledger, 2 here), line 3 (4 digits in the ledger, 2 here). They "
        "count as other people. If a spreadsheet has removed the zeros, enter or import the ids as "
        "text, and export the list again." + ENDS
    )
    done = command("plan", *GROUP, "--report", "plan.csv")
    assert (done.code, f"Note: {note}" in done.out) == (0, True), done
    lines = {one["line"]: one["error"] for one in archive.results("plan.csv")}
    assert lines == {"2": "USER_ID_ZEROS", "3": "USER_ID_ZEROS", "5": ""}
    done = command("sync", *GROUP, "--dry-run", "--max-removals", "100%")
    assert (done.code, f"Note: {note}" in done.out) == (0, True), done
    done = command("run", *GROUP)
    assert done.code == 0
    assert note in done.out
    assert f"Warning: {note}" in done.err
    # Enrolled so, they are known.
    assert "zeros" not in command("run", *GROUP).out


def test_every_command_names_ids_and_texts_that_the_list_itself_contradicts(
    archive: Archive, command: Command
) -> None:
    ids = ["007", "7", "12345678901234500000", "u1", "u1"]
    photos = [image for _, _, image in archive.portraits(*range(len(ids)))]
    archive.manifest([(one, f"name {n}", photos[n]) for n, one in enumerate(ids)])
    notes = [
        "1 row with the user_id of an earlier row, but for the zeros before it: line 3 and line 2.",
        "1 row whose user_id has only zeros after its 15th digit: line 4.",
        "1 row with another user_data than the first row of the same user_id: line 6 and line 5.",
    ]
    done = command("plan", *GROUP, "--report", "plan.csv")
    assert [note in done.out for note in notes] == [True] * 3, done
    errors = {one["line"]: one["error"] for one in archive.results("plan.csv")}
    marked = {"3": "USER_ID_ZEROS", "4": "USER_ID_SHORTENED", "6": "USER_DATA_DIFFERS"}
    assert errors == {"2": "", "5": ""} | marked
    done = command("sync", *GROUP, "--dry-run")
    assert [note in done.out for note in notes] == [True] * 3, done
    done = command("run", *GROUP, "--quiet")
    assert [note in done.out for note in notes] == [True, True, False], done  # it may be meant
    archive.manifest(
        [(one, f"name {n}", photos[n]) for n, one in enumerate(ids)] + [("u2", "", "")]
    )
    done = command("run", *GROUP)
    assert [note in done.out for note in notes] == [True] * 3, done
    assert {(face.user_id, face.user_data) for face in archive.box.faces("staff")} == {
        (one, f"name {n}") for n, one in enumerate(ids)
    }


def test_a_person_whose_photo_is_new_is_no_new_person(archive: Archive, command: Command) -> None:
    one, two = (image for _, _, image in archive.portraits(1, 2))
    archive.manifest([("0012", "", one)])
    assert command("run", *GROUP).code == 0
    archive.manifest([("0012", "", one), ("0012", "", two)])
    for arguments in (["plan", *GROUP], ["sync", *GROUP, "--dry-run"], ["run", *GROUP]):
        done = command(*arguments)
        assert (done.code, "zeros" in done.out + done.err) == (0, False), done


def test_more_ids_that_are_found_later_are_told_of_too(archive: Archive, command: Command) -> None:
    """The first as soon as they are found, and how many there were once all rows are read."""
    (one,) = (image for _, _, image in archive.portraits(1))
    archive.manifest([("0012", "", one), ("0034", "", one)])
    assert command("run", *GROUP).code == 0
    archive.manifest([("12", "", one), *[("no id", "", one)] * MOST_ROWS, ("34", "", one)])
    done = command("run", *GROUP)
    warnings = [line for line in done.err.splitlines() if line.startswith("Warning: ")]
    assert [line.split(" of new people")[0] for line in warnings] == [
        "Warning: 1 row",
        "Warning: 2 rows",
    ]
