"""`enroll plan --duplicates`: the rows that have the same photo as others."""

from __future__ import annotations

import sqlite3
from io import BytesIO

import pytest
from archive import Archive, picture, portrait, read_csv
from PIL import Image
from real_command import Command
from real_pictures import exif, saved, scene

from enroll.photos import alike
from enroll.sandbox import Sandbox

PLAN = ("plan", "staff.csv", "--group-id", "staff", "--duplicates", "same.csv")


def groups(archive: Archive) -> list[tuple[str, str, list[str]]]:
    """What is in the file: kind, people and rows of each group."""
    found: dict[int, tuple[str, str, list[str]]] = {}
    for line in read_csv(archive.folder / "same.csv"):
        group = found.setdefault(int(line["group"]), (line["kind"], line["people"], []))
        assert group[:2] == (line["kind"], line["people"])
        group[2].append(f"{line['line']} {line['user_id']} {line['image']}")
    assert sorted(found) == list(range(1, len(found) + 1))
    return list(found.values())


def an_archive_of_repeats(archive: Archive) -> None:
    for name, content in {
        "1.jpg": picture(1),
        "copy.jpg": picture(1),
        "2.jpg": picture(2),
        "3.jpg": saved(scene(), quality=80),
        "3 exif.jpg": saved(scene(), quality=80, exif=exif()),
        "3.png": saved(Image.open(BytesIO(saved(scene(), quality=80))), "PNG"),
        "like 3.jpg": saved(scene(), quality=79),
        "5.jpg": saved(scene(90, 90)),
        "5 web.jpg": saved(scene(90, 90), progressive=True),
        "none.jpg": b"no photo",
    }.items():
        archive.photo(name, content)
    archive.manifest(
        [
            ("ann", "", "2.jpg"),
            ("ann", "", "2.jpg"),
            ("bea", "B", "1.jpg"),
            ("cyn", "C", "copy.jpg"),
            ("cyn", "C", "./1.jpg"),
            ("dan", "", "3.jpg"),
            ("eve", "=1+1", "3 exif.jpg"),
            ("not an id", "", "none.jpg"),
            ("fay", "", "none.jpg"),
            ("gus", "", "missing.jpg"),
            ("hal", "", "missing.jpg"),
            ("ida", "", ""),
            ("joe", "", "3.png"),
            ("kim", "", "like 3.jpg"),
            ("lee", "", "5.jpg"),
            ("mia", "", "5 web.jpg"),
        ]
    )


EXPECTED = [
    ("content", "several people", ["4 bea 1.jpg", "5 cyn copy.jpg", "6 cyn ./1.jpg"]),
    ("pixels", "several people", ["7 dan 3.jpg", "8 eve 3 exif.jpg", "14 joe 3.png"]),
    ("content", "several people", ["9 not an id none.jpg", "10 fay none.jpg"]),
    ("pixels", "several people", ["16 lee 5.jpg", "17 mia 5 web.jpg"]),
    ("content", "same person", ["2 ann 2.jpg", "3 ann 2.jpg"]),
]


def test_every_group_of_rows_with_the_same_photo_is_listed_those_of_several_people_first(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    an_archive_of_repeats(archive)
    for further in ((), ("--full",), ("--sample", "1")):
        done = command(*PLAN, *further)
        assert done.code == 0, done
        assert groups(archive) == EXPECTED, further
        said = next(line for line in done.out.splitlines() if line.startswith("Duplicates"))
        assert "4 photos of several people (9 people), 1 photo repeated for one person" in said
        assert "in same.csv; 1 photo could not be read" in said
    assert read_csv(archive.folder / "same.csv")[4]["user_data"] == "'=1+1"
    assert box.calls == []


def test_rows_that_are_not_due_are_compared_with_the_others(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("1.jpg", portrait(1))
    archive.photo("2.jpg", portrait(2))
    archive.manifest([("ann", "", "1.jpg"), ("bea", "", "2.jpg")])
    run = ("run", "staff.csv", "--group-id", "staff")
    assert command(*run).code == 0
    assert command("forget", "--user-id", "bea", "--yes").code == 0
    archive.photo("3.jpg", portrait(1))
    archive.photo("4.jpg", portrait(2))
    archive.manifest(
        [(name, "", f"{number}.jpg") for number, name in enumerate(["ann", "bea", "cyn", "dan"], 1)]
    )
    calls = len(box.calls)
    done = command(*PLAN)
    assert done.code == 0, done
    found = read_csv(archive.folder / "same.csv")
    assert [(line["group"], line["user_id"], line["status"]) for line in found] == [
        ("1", "ann", "enrolled"),
        ("1", "cyn", ""),
        ("2", "bea", "withheld"),
        ("2", "dan", ""),
    ]
    assert len(box.calls) == calls


def test_only_photos_whose_heads_leave_a_doubt_are_decoded(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of these JPEGs have one size and one coding: without their metadata, their bytes say
    which are the same."""

    def bug(*_: object, **__: object) -> None:
        raise AssertionError("a photo was decoded")

    for name in ("1", "2", "3"):
        archive.photo(f"{name}.jpg", picture(int(name)))
    archive.photo("1 xmp.jpg", picture(1)[:2] + b"\xff\xe1\x00\x08xmp .." + picture(1)[2:])
    names = ("1", "2", "3", "1 xmp")
    archive.manifest([(f"u{n}", "", f"{name}.jpg") for n, name in enumerate(names)])
    with monkeypatch.context() as patched:
        patched.setattr(alike, "use_shown", bug)
        assert command(*PLAN).code == 0
    expected = [("pixels", "several people", ["2 u0 1.jpg", "5 u3 1 xmp.jpg"])]
    assert groups(archive) == expected
    archive.photo("lossless.png", saved(scene(64, 64), "PNG"))
    rows = [(f"u{n}", "", f"{name}.jpg") for n, name in enumerate(names)]
    archive.manifest([*rows, ("u9", "", "lossless.png")])
    whole = alike._hashes

    def bug_if_grey(decoded: Image.Image) -> tuple[bytes, bytes]:
        assert decoded.mode == "RGB", "a JPEG was decoded whole"
        return whole(decoded)

    with monkeypatch.context() as patched:
        patched.setattr(alike, "_hashes", bug_if_grey)
        assert command(*PLAN).code == 0
    assert groups(archive) == expected


def test_no_duplicates_make_a_table_without_rows(archive: Archive, command: Command) -> None:
    archive.photo("1.jpg", picture(1))
    archive.manifest([("ann", "", "1.jpg")])
    done = command(*PLAN)
    assert "Duplicates  none, in same.csv" in done.out
    assert (archive.folder / "same.csv").read_text().count("\n") == 1


def test_many_rows_are_compared_in_parts(archive: Archive, command: Command) -> None:
    archive.photo("1.jpg", picture(1))
    archive.photo("2.jpg", picture(1))
    archive.manifest([(f"u{n}", "", f"{n % 2 + 1}.jpg") for n in range(4_500)])
    assert command(*PLAN).code == 0
    ((kind, people, rows),) = groups(archive)
    assert (kind, people, len(rows)) == ("content", "several people", 4_500)
    assert [int(row.split()[0]) for row in rows] == list(range(2, 4_502))


def test_a_full_disk_for_temporary_files_is_said(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    archive.photo("1.jpg", picture(1))
    archive.manifest([("ann", "", "1.jpg")])
    with monkeypatch.context() as patched:
        patched.setattr("enroll.commands.plan_duplicates.Duplicates._look", full)
        done = command(*PLAN)
    assert done.code == 7
    assert "disk is full" in done.err
    assert "SQLITE_TMPDIR" in done.err
    assert not (archive.folder / "same.csv").exists()
