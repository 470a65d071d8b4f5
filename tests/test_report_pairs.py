"""Faces that resemble another person, as `enroll report` shows them."""

from __future__ import annotations

import shlex
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from archive import portrait
from openpyxl import load_workbook
from real_command import Command
from reported import Page, Person, find, read, token, write

from enroll.ledger import Finding, FindingKind
from enroll.model import Status
from enroll.report import pairs as report_pairs
from enroll.report.pairs import PairGroup
from enroll.report.texts import texts_of
from enroll.settings import Language

LOOKALIKE, UNLIKE = FindingKind.LOOKALIKE, FindingKind.UNLIKE
NOT_ITSELF, UNLIKE_BEFORE = FindingKind.NOT_ITSELF, FindingKind.UNLIKE_BEFORE


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command without any account or key."""
    folder = tmp_path / "archive"
    folder.mkdir()
    return Command(home=tmp_path / "home", folder=folder)


def like(number: int, user_id: str, score: float | None, kind: FindingKind = LOOKALIKE) -> Finding:
    return Finding(kind=kind, other_token=token(number), other_user_id=user_id, score=score)


def some(folder: Path, *, command: str = "run") -> Path:
    """Findings of every kind: p2 and p3 are held replacements that were swapped, p4 a held
    replacement, p5 is held and new. p7 is twice in the list, p9 has two photos."""
    for number in range(1, 11):
        (folder / f"{number}.jpg").write_bytes(portrait(number))
    held = Status.HELD
    people = [
        Person("p1", "Ada", "1.jpg"),
        Person("p2", "Bo", "2.jpg", "Ops", held, "UNLIKE_BEFORE", "Resembles p3."),
        Person("p3", "Cy", "3.jpg", "Sales", held, "UNLIKE_BEFORE", "Resembles p2."),
        Person("p4", "Di", "4.jpg", "Ops", held, "UNLIKE_BEFORE", "Resembles p1."),
        Person("p5", "Ed", "gone.jpg", "Sales", held, "LOOKALIKE", "Resembles p1."),
        Person("p6", "Flo", "6.jpg", "Ops"),
        Person("p7", "Gus", "7.jpg", "Sales"),
        Person("p8", "Gus", "8.jpg", "Ops"),
        Person("p9", "Ida", "9.jpg", "Sales"),
        Person("p9", "Ida", "10.jpg", "Sales"),
    ]
    ledger = write(folder, people, command=command)
    find(
        ledger,
        {
            2: [like(3, "p3", 93.25, UNLIKE_BEFORE)],
            3: [like(2, "p2", 91.0, UNLIKE_BEFORE)],
            4: [like(1, "p1", 88.0, UNLIKE_BEFORE)],
            5: [like(1, "p1", 97.0)],
            6: [like(99, "x,1", 86.0), like(1, "p1", 90.5)],
            7: [like(8, "p8", 99.0)],
            9: [like(10, "p9", 41.0, UNLIKE), like(5, "p9", None, UNLIKE)],
            1: [Finding(kind=NOT_ITSELF, other_token="", other_user_id="", score=None)],
        },
        held=[2, 3, 4, 5],
    )
    return ledger


def reported(command: Command, *arguments: object, name: str = "out.html") -> Page:
    """The page that is written with these arguments."""
    done = command("report", name, "--ledger", "ledger.sqlite", *arguments)
    assert (done.code, done.err) == (0, ""), done
    return read(command.folder / name)


def shown(page: Page) -> list[list[tuple[Any, ...]]]:
    """Of each group its pairs: scores and ids."""
    return [
        [(pair["scores"], *(side[0] for side in pair["sides"])) for pair in group]
        for group in page.pairs
    ]


def test_pairs_are_grouped_and_those_that_are_most_certain_come_first(command: Command) -> None:
    some(command.folder)
    page = reported(command)
    assert shown(page) == [
        [([93.25, 91.0], "p2", "p3")],
        [([88.0], "p4", "p1")],
        [([97.0], "p5", "p1")],
        [([99.0], "p7", "p8"), ([90.5], "p6", "p1"), ([86.0], "p6", "x,1")],
        [([], "p9", "p9"), ([41.0], "p9", "p9")],
        [([], "p1", "")],
    ]
    for group in PairGroup:
        words = texts_of(Language.EN).pair_group(group)
        assert page.html.count(f">{words.title.replace(chr(39), '&#39;')}<") == 1, group
    (swapped,), _, (new,), (twice, _, stranger), _, _ = page.pairs
    # Of new photos that were swapped, both are shown.
    assert [side[:4] for side in swapped["sides"]] == [
        ["p2", "Bo", "2.jpg", 3],
        ["p3", "Cy", "3.jpg", 4],
    ]
    assert all(side[5] >= 0 for side in (*swapped["sides"], *twice["sides"]))
    assert [side[7] for side in new["sides"]] == ["held", ""]
    missing = page.facts["faults"][-2 - new["sides"][0][5]]
    assert missing == "There is no photo where the list says"
    assert stranger["sides"][1] == ["x,1", "", "", 0, None, -1, 1, "", False]  # another program's
    # Those that are held need a person, and are in the table.
    assert [(one["code"], one["count"]) for one in page.facts["reasons"]] == [
        ("UNLIKE_BEFORE", 3),
        ("LOOKALIKE", 1),
    ]
    assert page.html.count('class="to-faces"') == 2
    assert page.lines["id"][:4] == ["p2", "p3", "p4", "p5"]


def test_each_pair_has_the_commands_that_settle_it(command: Command) -> None:
    ledger = some(command.folder).resolve()
    page = reported(command)
    (swapped,), (renewed,), (new,), (twice, _, stranger), (unlike, _), (lost,) = page.pairs
    place = ["--group-id", "staff", "--endpoint", "https://host", "--ledger", str(ledger)]
    assert shlex.split(twice["accept"]) == ["enroll", "audit", "--accept", "p7,p8", *place]
    assert unlike["accept"].startswith("enroll audit --accept p9,p9 ")
    assert [user_id for user_id, _ in twice["remove"]] == ["p7", "p8"]
    first, then = twice["remove"][0][1].split(" && ")
    assert first == "echo p7 > wrong.txt"
    assert shlex.split(then) == ["enroll", "remove", "--user-ids", "wrong.txt", *place]
    # The new photo was not sent: only the other face can be removed, and of two, none.
    assert [[user_id for user_id, _ in one["remove"]] for one in (swapped, renewed, new)] == [
        [],
        ["p1"],
        ["p1"],
    ]
    assert [(one["accept"], one["remove"]) for one in (stranger, lost)] == [("", [])] * 2
    assert page.html.count("enroll remove --user-ids FILE") == 4
    # What is shown can be typed.
    for accept in (twice["accept"], unlike["accept"]):
        done = command(*shlex.split(accept)[1:])
        assert done.code == 0, done
    assert [len(group) for group in reported(command).pairs] == [1, 1, 1, 2, 1]
    # A sync removes who is no longer in the list.
    (command.folder / "ledger.sqlite").unlink()
    some(command.folder, command="sync")
    page = reported(command)
    assert "enroll remove" not in page.everything
    assert page.html.count("enroll sync") >= 6


def test_what_several_photos_of_a_person_tell_is_said(command: Command) -> None:
    people = [
        Person(user_id, "", f"{user_id}{number}.jpg")
        for user_id in ("a", "b", "c", "d", "e", "f")
        for number in (1, 2)
    ]
    ledger = write(command.folder, people)
    find(
        ledger,
        {
            # a's second photo shows b, and b's second photo shows a.
            1: [like(2, "a", 20.0, UNLIKE), like(4, "b", 95.0)],
            2: [like(3, "b", 94.0)],
            3: [like(4, "b", None, UNLIKE)],
            # c and d are one person.
            5: [like(7, "d", 96.0), like(8, "d", 93.0)],
            6: [like(7, "d", 92.0), like(8, "d", 91.0)],
            # f's second photo shows e.
            9: [like(12, "f", 90.0)],
            10: [like(12, "f", 89.0)],
            11: [like(12, "f", 30.0, UNLIKE)],
        },
    )
    page = reported(command)
    swapped, alike, unlike = shown(page)
    assert swapped == [([95.0], "a", "b"), ([94.0], "a", "b")]
    assert [pair[0] for pair in alike] == [[96.0], [93.0], [92.0], [91.0], [90.0], [89.0]]
    assert [pair[0] for pair in unlike] == [[], [20.0], [30.0]]
    misplaced = {
        side[2] for group in page.pairs for pair in group for side in pair["sides"] if side[8]
    }
    assert misplaced == {"f2.jpg"}


def test_without_a_finding_there_is_no_section(command: Command) -> None:
    write(command.folder, [Person("p1", "Ada", "1.jpg")])
    page = reported(command)
    assert (page.pairs, 'id="faces"' in page.html) == ([], False)
    assert texts_of(Language.EN).text["all_well"].replace("'", "&#39;") in page.html


def test_only_pairs_of_the_statuses_that_are_asked_for(command: Command) -> None:
    some(command.folder)
    page = reported(command, "--status", "held")
    assert [len(group) for group in page.pairs] == [1, 1, 1]
    assert len(page.lines["id"]) == 4
    page = reported(command, "--status", "rejected")
    assert page.pairs == []


def test_a_pair_is_in_the_files_of_both_departments_and_says_little_of_the_other(
    command: Command,
) -> None:
    some(command.folder)
    arguments = ("--by", "Department", "--split")
    done = command("report", "parts", "--ledger", "ledger.sqlite", *arguments)
    assert done.code == 0, done
    for name, (own, other) in {"Sales": ((0, 7), (1, 8)), "Ops": ((1, 8), (0, 7))}.items():
        page = read(command.folder / f"parts/{name}.html")
        twice = next(pair for group in page.pairs for pair in group if pair["sides"][0][0] == "p7")
        here, there = twice["sides"][own[0]], twice["sides"][other[0]]
        assert here[:5] == [f"p{own[1]}", "Gus", f"{own[1]}.jpg", own[1] + 1, name]
        assert there[:5] == [f"p{other[1]}", "", "", 0, {"Sales": "Ops", "Ops": "Sales"}[name]]
        assert there[5] >= 0
    masked = command("report", "masked", "--ledger", "ledger.sqlite", *arguments, "--mask")
    assert masked.code == 0, masked
    page = read(command.folder / "masked/Sales.html")
    for pair in (pair for group in page.pairs for pair in group):
        assert (pair["accept"], pair["remove"]) == ("", [])
        for side in pair["sides"]:
            assert side[4] == "Sales" or side == ["", "", "", 0, None, -1, 2, "", False], side


def test_pairs_of_people_without_a_row_are_counted_where_no_file_has_them(
    command: Command,
) -> None:
    ledger = write(command.folder, [Person(f"p{n}", "", f"{n}.jpg") for n in range(1, 4)])
    find(ledger, {1: [like(2, "p2", 90.0)]})
    (command.folder / "staff.csv").write_text("user_id,image,Department\np3,3.jpg,Ops\n")
    assert shown(reported(command)) == [[([90.0], "p1", "p2")]]
    done = command(
        *("report", "parts", "--ledger", "ledger.sqlite", "--by", "Department", "--split")
    )
    assert done.code == 0, done
    assert "1 pair of faces is in no file, as neither person is in the list" in done.out


def test_a_masked_report_has_pairs_and_no_user_id(command: Command) -> None:
    ids = [f"7{number:03}77{number}" for number in range(1, 5)]
    people = [Person(one, f"Name of {one}", f"{one}.jpg") for one in ids]
    ledger = write(command.folder, people)
    find(ledger, {1: [like(2, ids[1], 90.0), like(9, "777700", 89.0)], 3: [like(4, ids[3], 95.0)]})
    page = reported(command, "--mask")
    assert [len(group) for group in page.pairs] == [3]
    assert [one for one in (*ids, "777700") if one in page.everything] == []
    assert "--accept ID1,ID2" in page.html
    assert [side[3] for side in page.pairs[0][0]["sides"]] == [4, 5]  # who is meant
    assert command("report", "o.xlsx", "--ledger", "ledger.sqlite", "--mask").code == 0
    with zipfile.ZipFile(command.folder / "o.xlsx") as book:
        content = b"".join(map(book.read, book.namelist()))
    assert [one for one in (*ids, "777700") if one.encode() in content] == []


def test_hostile_texts_in_pairs_stay_text_and_reach_no_shell(command: Command) -> None:
    ledger = write(command.folder, [Person("a&b#1", "<script>x</script>", "1.jpg")])
    hostile = ["$(reboot)", "x\u202ey", "-rf", "'; ls", "</script><img src=x>"]
    find(ledger, {1: [like(n, one, 90.0) for n, one in enumerate(hostile, start=5)]})
    page = reported(command)
    assert "<script>x" not in page.html
    assert "<img" not in page.html
    accepted = {pair["sides"][1][0]: shlex.split(pair["accept"])[3:4] for pair in page.pairs[0]}
    assert accepted == {
        **{one: [f"a&b#1,{one}"] for one in hostile if "\u202e" not in one},
        "x\\u202ey": [],
    }
    (removed,) = {
        command for pair in page.pairs[0] for one, command in pair["remove"] if one == hostile[0]
    }
    assert removed.startswith("echo '$(reboot)' > wrong.txt && ")


def test_pairs_keep_to_the_size_of_the_report_and_have_pictures_first(command: Command) -> None:
    folder = command.folder
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(portrait(number))
    people = [
        Person(f"u{n:04}", sha256(b"%d" % n).hexdigest(), f"{n % 10}.jpg") for n in range(1, 1001)
    ]
    people += [
        Person(f"bad{n}", "", f"{n}.jpg", status=Status.REJECTED, code="NO_FACE_FOUND")
        for n in range(10)
    ]
    ledger = write(folder, people)
    find(
        ledger,
        {n: [like(n + 1, people[n].user_id, 85 + n / 100)] for n in range(1, 1000, 2)},
    )
    whole = reported(command, "--thumbnails", "4")
    assert len(whole.pairs[0]) == 500
    assert [side[5] for side in whole.pairs[0][0]["sides"]] == [0, 1]
    assert "not in this file.</p>" not in whole.html
    small = reported(command, "--max-size", "0.2", name="small.html")
    assert (folder / "small.html").stat().st_size <= 200_000
    assert 0 < len(small.pairs[0]) < 500
    assert small.pairs[0][0]["sides"][0][0] == whole.pairs[0][0]["sides"][0][0]
    assert f"{500 - len(small.pairs[0]):,} more pairs of this group" in small.html
    assert ">500<" in small.html
    done = command("report", "o.xlsx", "--ledger", "ledger.sqlite", "--max-size", "0.2")
    assert done.code == 0, done
    assert (folder / "o.xlsx").stat().st_size <= 200_000


def test_more_pairs_than_anybody_compares_are_not_read(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    some(command.folder)
    monkeypatch.setattr(report_pairs, "READ_PAIRS", 2)
    page = reported(command)
    assert [len(group) for group in page.pairs] == [1, 1, 1, 2, 1]
    assert texts_of(Language.EN).text["pairs_more"] in page.html


def test_a_workbook_has_both_pictures_of_a_pair_in_its_row(command: Command) -> None:
    some(command.folder)
    arguments = ("--ledger", "ledger.sqlite", "--by", "Department")
    assert command("report", "o.xlsx", *arguments).code == 0
    book = load_workbook(command.folder / "o.xlsx")
    assert book.sheetnames == ["attention", "faces", "entries", "runs"]
    sheet = book["faces"]
    heads = [cell.value for cell in sheet[1]]
    assert heads == [
        *("Finding", "Score", "Photo", "Id", "Text", "Department", "Path", "Line", "Status"),
        *("Other: Photo", "Other: Id", "Other: Text", "Other: Department", "Other: Path"),
        *("Other: Line", "Other: Status", "What to do", "Commands for this pair"),
    ]
    assert [sheet.cell(row, 4).value for row in range(2, 11)] == [
        *("p2", "p4", "p5", "p7", "p6", "p6", "p9", "p9", "p1"),
    ]
    assert sheet["B2"].value == "93.25 / 91"
    assert sheet["C4"].value == "There is no photo where the list says"
    assert [sheet[f"J{row}"].value for row in (7, 10)] == ["no photo on record", "no face found"]
    commands = str(sheet["R5"].value).splitlines()
    assert [line.partition(":")[0] for line in commands] == [
        *("If p7 is wrong", "If p8 is wrong", "If both are right"),
    ]
    anchors = [image.anchor._from for image in sheet._images]  # type: ignore[attr-defined]
    places = {(anchor.row, anchor.col) for anchor in anchors}
    assert {(1, 2), (1, 9), (4, 2), (4, 9)} <= places
    assert (3, 2) not in places
    cells = [cell for row in sheet.iter_rows() for cell in row if cell.value is not None]
    assert {cell.data_type for cell in cells} == {"s"}
