"""Faces that a ledger does not know, because it was restored, emptied, or made too late."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from moved_clock import standin
from small_case import Case

from enroll.commands.run import enroll_manifest
from enroll.commands.run_closing import Report
from enroll.errors import ExitCode, UsageError
from enroll.facesearch import FaceSearch
from enroll.model import Credentials
from enroll.run import lookups, unknown_faces
from enroll.sandbox import Sandbox
from enroll.settings import RunSettings

pytestmark = pytest.mark.usefixtures("moved_clock")


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with standin(detect=False) as running:
        yield running


@pytest.fixture
def case(box: Sandbox, tmp_path: Path) -> Case:
    return Case(tmp_path / "staff", box)


def run(case: Case, *, ledger: Path | None = None, allow_nonempty: bool = False) -> Report:
    case.write_manifest()
    settings = RunSettings(
        manifest=case.folder / "staff.csv",
        group_id=case.group_id,
        endpoint=case.box.endpoint,
        ledger=ledger or case.ledger,
        timeout=1.0,
        settle_after=0.1,
        allow_nonempty=allow_nonempty,
    )
    credentials = Credentials(case.box.api_key, case.box.api_secret)
    return enroll_manifest(settings, lambda: credentials)


def restored(case: Case, *, before: int, after: int) -> None:
    """Enroll so many people, and then more with a ledger that is then lost to its backup."""
    case.people(before)
    run(case)
    backup = case.folder / "backup.sqlite"
    shutil.copy(case.ledger, backup)
    case.people(before + after)
    run(case)
    shutil.copy(backup, case.ledger)


def test_a_restored_ledger_adds_nobody_twice_and_finds_what_it_has_lost(case: Case) -> None:
    restored(case, before=3, after=4)
    case.row("new", 50)
    report = run(case)
    assert report.exit_code is ExitCode.DONE
    assert (report.ended.tally.adopted, report.ended.tally.enrolled_now) == (4, 5)
    assert case.box.count("add") == 8
    assert case.problems() == []


@pytest.mark.parametrize("whole", [True, False])
def test_the_library_is_listed_from_where_the_ledger_ends(
    case: Case, monkeypatch: pytest.MonkeyPatch, *, whole: bool
) -> None:
    page = 100 if whole else 4
    for module in (lookups, unknown_faces):
        monkeypatch.setattr(module, "LIST_PAGE", page)
    restored(case, before=9, after=10)
    asked = case.box.count("list")
    report = run(case)
    pages = 1 if whole else 4  # from the 7th of 19 faces on
    # One more to look for all that were found, and one for what was deleted since.
    assert case.box.count("list") - asked == pages + 2
    assert (report.ended.tally.adopted, case.box.count("add")) == (10, 19)
    assert case.problems() == []


@pytest.mark.parametrize("left", [1, 5])
def test_what_a_ledger_has_lost_is_found_though_others_have_deleted_most_that_it_knows(
    case: Case, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    for module in (lookups, unknown_faces):
        monkeypatch.setattr(module, "LIST_PAGE", 4)
    restored(case, before=19, after=3)
    there = [face.face_token for face in case.box.faces(case.group_id)]
    account = Credentials(case.box.api_key, case.box.api_secret)
    with closing(FaceSearch(case.box.endpoint, account, timeout=5.0)) as service:
        service.delete(group_id=case.group_id, face_tokens=there[: 19 - left])
    asked = case.box.count("list")
    report = run(case)
    assert report.exit_code is ExitCode.DONE
    # Whose faces are gone, whoever has deleted them, are added again.
    assert (report.ended.tally.adopted, case.box.count("add")) == (3, 22 + 19 - left)
    # From the 17th face on, the 8th, the 4th, the 2nd: until one is seen that the ledger knows.
    # Then on to the end, and at most once more for each of the three.
    assert case.box.count("list") - asked <= 10


def test_another_photo_of_a_person_that_the_ledger_lost_is_added(case: Case) -> None:
    restored(case, before=2, after=1)
    case.rows.pop()
    user_id = case.row("p2", 60)
    report = run(case)
    assert report.exit_code is ExitCode.DONE
    assert case.there()[user_id, case.digest("60.jpg")] == 1
    assert case.there().total() == 4
    assert run(case).ended.tally.calls == Counter({"group_list": 1})


def test_nothing_is_listed_when_nothing_is_due_or_the_library_began_empty(case: Case) -> None:
    case.people(2)
    first = run(case)
    assert first.ended.tally.calls == Counter({"group_list": 1, "list": 1, "add": 2})
    assert run(case).ended.tally.calls == Counter({"group_list": 1})


def test_a_service_that_does_not_list_does_not_hold_the_run_up(case: Case) -> None:
    case.people(2)
    run(case)
    case.row("new", 50)
    case.box.script(["auth"] * 3, call="list")
    assert run(case).exit_code is ExitCode.DONE
    assert case.problems() == []


def test_a_list_that_fails_for_once_is_asked_for_again(case: Case) -> None:
    restored(case, before=2, after=2)
    case.box.script(["500", "reset"], call="list")
    assert run(case).exit_code is ExitCode.DONE
    assert case.box.count("add") == 4
    assert case.problems() == []


def test_a_ledger_that_knows_no_face_needs_a_decision_as_a_new_one_does(case: Case) -> None:
    case.people(2)
    other = case.folder / "other.sqlite"
    case.rows, rows = [], case.rows
    run(case)  # a ledger of a manifest without rows
    case.rows = rows
    run(case, ledger=other)
    with pytest.raises(UsageError, match="knows none of them"):
        run(case)
    assert case.box.count("add") == 2
    assert run(case, allow_nonempty=True).exit_code is ExitCode.DONE
    assert case.box.count("add") == 4


def test_a_face_that_is_due_again_is_not_added_beside_one_that_somebody_else_added(
    case: Case,
) -> None:
    case.people(3)
    run(case)
    other = case.folder / "other.sqlite"
    token = next(one for one in case.entries() if one.user_id.endswith("p1")).face_token
    account = Credentials(case.box.api_key, case.box.api_secret)
    with closing(FaceSearch(case.box.endpoint, account, timeout=5.0)) as service:
        service.delete(group_id=case.group_id, face_tokens=[token])
    case.rows, rows = case.rows[1:2], case.rows
    run(case, ledger=other, allow_nonempty=True)
    case.rows = rows
    mended = case.command("verify", "--ledger", case.ledger, "--requeue-missing", "--yes")
    assert mended.code == ExitCode.SOME_ROWS_FAILED, mended.err
    assert run(case).exit_code is ExitCode.DONE
    assert case.box.count("add") == 4
    assert case.problems() == []


@pytest.mark.parametrize("remedy", ["adopt", "allow_nonempty"])
def test_a_restored_ledger_sends_nothing_while_the_library_is_not_shown_to_its_end(
    case: Case, remedy: str
) -> None:
    restored(case, before=3, after=2)
    case.box.script(["auth"] * 4, call="list")
    for _ in range(2):  # it is not forgotten by being run again
        report = run(case)
        assert report.exit_code is ExitCode.USAGE
        assert "enroll adopt" in str(report.ended.stop)
    assert case.box.count("add") == 5
    if remedy == "adopt":
        done = case.command("adopt", *case.arguments[1:6], "--images", case.folder)
        assert done.code == 0, done.err
        case.box.script(["auth"] * 2, call="list")
        assert run(case).exit_code is ExitCode.DONE
        assert case.problems() == []
    else:
        case.row("new", 50)
        assert run(case, allow_nonempty=True).exit_code is ExitCode.DONE
        assert case.box.count("add") == 8
