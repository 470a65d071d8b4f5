"""Faces that a ledger does not know, because it was restored, emptied, or made too late."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archive import Archive
from moved_clock import standin

from enroll.commands.run import enroll_manifest
from enroll.commands.run_closing import Report
from enroll.errors import ExitCode, UsageError
from enroll.runner import lookups, unknown_faces
from enroll.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("moved_clock")


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with standin(detect=False) as running:
        yield running


@pytest.fixture
def archive(box: Sandbox, tmp_path: Path) -> Archive:
    return Archive.new(tmp_path / "staff", box)


def run(archive: Archive, **changed: Any) -> Report:
    settings = archive.settings(timeout=1.0, settle_after=0.1, **changed)
    return enroll_manifest(settings, lambda: archive.credentials)


def restored(archive: Archive, *, before: int, after: int) -> None:
    """Enroll so many people, and then more with a ledger that is then lost to its backup."""
    archive.crowd(before)
    run(archive)
    backup = archive.folder / "backup.sqlite"
    shutil.copy(archive.ledger, backup)
    archive.crowd(before + after)
    run(archive)
    shutil.copy(backup, archive.ledger)


def test_a_restored_ledger_adds_nobody_twice_and_finds_what_it_has_lost(archive: Archive) -> None:
    restored(archive, before=3, after=4)
    archive.row("new", 50)
    report = run(archive)
    assert report.exit_code is ExitCode.DONE
    assert (report.ended.tally.adopted, report.ended.tally.enrolled_now) == (4, 5)
    assert archive.box.count("add") == 8
    assert archive.problems() == []


@pytest.mark.parametrize("whole", [True, False])
def test_the_library_is_listed_from_where_the_ledger_ends(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, *, whole: bool
) -> None:
    page = 100 if whole else 4
    for module in (lookups, unknown_faces):
        monkeypatch.setattr(module, "LIST_PAGE", page)
    restored(archive, before=9, after=10)
    asked = archive.box.count("list")
    report = run(archive)
    pages = 1 if whole else 4  # from the 7th of 19 faces on
    # One more to look for all that were found, and one for what was deleted since.
    assert archive.box.count("list") - asked == pages + 2
    assert (report.ended.tally.adopted, archive.box.count("add")) == (10, 19)
    assert archive.problems() == []


@pytest.mark.parametrize("left", [1, 5])
def test_what_a_ledger_has_lost_is_found_though_others_have_deleted_most_that_it_knows(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    for module in (lookups, unknown_faces):
        monkeypatch.setattr(module, "LIST_PAGE", 4)
    restored(archive, before=19, after=3)
    there = [face.face_token for face in archive.box.faces(archive.group_id)]
    archive.delete(*there[: 19 - left])
    asked = archive.box.count("list")
    report = run(archive)
    assert report.exit_code is ExitCode.DONE
    # Whose faces are gone, whoever has deleted them, are added again.
    assert (report.ended.tally.adopted, archive.box.count("add")) == (3, 22 + 19 - left)
    # From the 17th face on, the 8th, the 4th, the 2nd: until one is seen that the ledger knows.
    # Then on to the end, and at most once more for each of the three.
    assert archive.box.count("list") - asked <= 10


def test_another_photo_of_a_person_that_the_ledger_lost_is_added(archive: Archive) -> None:
    restored(archive, before=2, after=1)
    archive.rows.pop()
    user_id = archive.row("p2", 60)
    report = run(archive)
    assert report.exit_code is ExitCode.DONE
    assert archive.held()[user_id, archive.digest("60.jpg")] == 1
    assert archive.held().total() == 4
    assert run(archive).ended.tally.calls == Counter({"group_list": 1})


def test_nothing_is_listed_when_nothing_is_due_or_the_library_began_empty(archive: Archive) -> None:
    archive.crowd(2)
    first = run(archive)
    assert first.ended.tally.calls == Counter({"group_list": 1, "list": 1, "add": 2})
    assert run(archive).ended.tally.calls == Counter({"group_list": 1})


def test_a_service_that_does_not_list_does_not_hold_the_run_up(archive: Archive) -> None:
    archive.crowd(2)
    run(archive)
    archive.row("new", 50)
    archive.box.script(["auth"] * 3, call="list")
    assert run(archive).exit_code is ExitCode.DONE
    assert archive.problems() == []


def test_a_list_that_fails_for_once_is_asked_for_again(archive: Archive) -> None:
    restored(archive, before=2, after=2)
    archive.box.script(["500", "reset"], call="list")
    assert run(archive).exit_code is ExitCode.DONE
    assert archive.box.count("add") == 4
    assert archive.problems() == []


def test_a_ledger_that_knows_no_face_needs_a_decision_as_a_new_one_does(archive: Archive) -> None:
    archive.crowd(2)
    other = archive.folder / "other.sqlite"
    archive.rows, rows = [], archive.rows
    run(archive)  # a ledger of a manifest without rows
    archive.rows = rows
    run(archive, ledger=other)
    with pytest.raises(UsageError, match="knows none of them"):
        run(archive)
    assert archive.box.count("add") == 2
    assert run(archive, allow_nonempty=True).exit_code is ExitCode.DONE
    assert archive.box.count("add") == 4


def test_a_face_that_is_due_again_is_not_added_beside_one_that_somebody_else_added(
    archive: Archive,
) -> None:
    archive.crowd(3)
    run(archive)
    other = archive.folder / "other.sqlite"
    token = next(one for one in archive.entries() if one.user_id.endswith("p1")).face_token
    archive.delete(token)
    archive.rows, rows = archive.rows[1:2], archive.rows
    run(archive, ledger=other, allow_nonempty=True)
    archive.rows = rows
    mended = archive.command("verify", "--ledger", archive.ledger, "--requeue-missing", "--yes")
    assert mended.code == ExitCode.SOME_ROWS_FAILED, mended.err
    assert run(archive).exit_code is ExitCode.DONE
    assert archive.box.count("add") == 4
    assert archive.problems() == []


@pytest.mark.parametrize("remedy", ["adopt", "allow_nonempty"])
def test_a_restored_ledger_sends_nothing_while_the_library_is_not_shown_to_its_end(
    archive: Archive, remedy: str
) -> None:
    restored(archive, before=3, after=2)
    archive.box.script(["auth"] * 4, call="list")
    for _ in range(2):  # it is not forgotten by being run again
        report = run(archive)
        assert report.exit_code is ExitCode.USAGE
        assert "enroll adopt" in str(report.ended.stop)
    assert archive.box.count("add") == 5
    if remedy == "adopt":
        done = archive.command("adopt", *archive.arguments[1:6], "--images", archive.folder)
        assert done.code == 0, done.err
        archive.box.script(["auth"] * 2, call="list")
        assert run(archive).exit_code is ExitCode.DONE
        assert archive.problems() == []
    else:
        archive.row("new", 50)
        assert run(archive, allow_nonempty=True).exit_code is ExitCode.DONE
        assert archive.box.count("add") == 8
