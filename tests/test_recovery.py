"""A ledger that was put back from a backup: whose faces were deleted since are added again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from archive import Archive

from enroll.commands import run_opening
from enroll.errors import ExitCode, UsageError
from enroll.ledger import read_ledger
from enroll.sandbox import Sandbox
from enroll.session import recovery

pytestmark = pytest.mark.usefixtures("short_back_off")


@pytest.fixture
def archive(faceless_box: Sandbox, tmp_path: Path) -> Archive:
    """Four people, enrolled by a first sync."""
    there = Archive(tmp_path, faceless_box)
    there.people(1, 2, 3, 4)
    assert there.sync().exit_code is ExitCode.DONE
    return there


def copy_ledger(archive: Archive) -> None:
    shutil.copy(archive.ledger, archive.folder / "backup")


def put_back(archive: Archive) -> None:
    """Put the copy back in the ledger's place, as from a backup of the machine."""
    for end in ("-wal", "-shm"):
        archive.ledger.with_name(archive.ledger.name + end).unlink(missing_ok=True)
    shutil.copy(archive.folder / "backup", archive.ledger)


def deleted_since(archive: Archive, count: int) -> None:
    """So many people left after the copy was taken; they are back when it is put back."""
    copy_ledger(archive)
    rows, archive.rows = archive.rows, archive.rows[count:]
    archive.sync()
    put_back(archive)
    archive.rows = rows


def test_who_left_and_came_back_since_is_not_added_twice_where_nonempty_is_allowed(
    archive: Archive,
) -> None:
    copy_ledger(archive)
    rows, archive.rows = archive.rows, archive.rows[1:]
    archive.sync()
    archive.rows = rows
    archive.sync()  # back, with a new token
    assert archive.there() == archive.as_listed()
    put_back(archive)
    archive.run(allow_nonempty=True)
    assert archive.there() == archive.as_listed()


def test_a_put_back_ledger_whose_every_text_was_changed_since_goes_on_by_the_same_sync(
    archive: Archive,
) -> None:
    copy_ledger(archive)
    archive.rows = [(user_id, f"new {text}", image) for user_id, text, image in archive.rows]
    archive.sync()
    put_back(archive)
    listed = archive.as_listed()
    # No face is known beside which the others could be looked for.
    assert archive.sync().exit_code is ExitCode.IN_DOUBT
    assert archive.there() == listed
    archive.people(5)
    assert archive.sync().exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()


def test_what_max_calls_has_cut_off_of_it_is_done_by_the_next_run(archive: Archive) -> None:
    deleted_since(archive, 3)
    archive.run(max_calls=3)
    for _ in range(2):
        archive.run()
    assert archive.there() == archive.as_listed()


def test_a_copy_that_max_calls_did_not_let_us_look_at_is_not_added_beside(archive: Archive) -> None:
    archive.surplus("u1", archive.add("u1", "1.jpg", user_data="name 1"))
    copy_ledger(archive)
    archive.people(5)
    archive.sync()  # a run that the copy lacks
    archive.delete(archive.face("u1").face_token or "")
    put_back(archive)
    archive.run(max_calls=3)  # group_list, list, face_info of the face
    for _ in range(2):
        archive.run()
    assert [one for one in archive.there() if one[0] == "u1"] == [("u1", "name 1")]


def test_a_run_goes_on_though_the_account_may_not_ask_about_single_faces_of_a_put_back_ledger(
    archive: Archive,
) -> None:
    deleted_since(archive, 1)
    archive.people(5)
    archive.box.script(["auth"] * 3, call="face_info")
    archive.run()
    assert ("u5", "name 5") in archive.there()


def test_what_the_service_would_not_say_of_a_put_back_ledger_is_asked_again(
    archive: Archive,
) -> None:
    deleted_since(archive, 1)
    archive.box.script(["auth"] * 3, call="face_info")
    for _ in range(4):
        archive.run()
    assert archive.there() == archive.as_listed()


def test_what_the_service_left_open_of_a_put_back_ledger_is_asked_again(archive: Archive) -> None:
    deleted_since(archive, 1)
    archive.box.script(["500"] * 5, call="face_info")
    for _ in range(3):
        archive.run()
    assert archive.there() == archive.as_listed()


def test_a_kill_while_a_put_back_ledger_is_mended_loses_nobody(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted_since(archive, 2)

    class Killed(BaseException):
        pass

    def dies(*args: object, **named: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(recovery, "requeue_missing", dies)
        with pytest.raises(Killed):
            archive.run()
    for _ in range(2):
        archive.run()
    assert archive.there() == archive.as_listed()


def test_a_put_back_ledger_whose_library_was_not_shown_to_its_end_is_mended_by_the_next_run(
    archive: Archive,
) -> None:
    deleted_since(archive, 1)
    archive.people(5)
    archive.box.script(["auth"], call="list")  # for once
    for _ in range(3):
        archive.run()
    assert archive.there() == archive.as_listed()


def test_other_commands_know_the_service_after_a_run_that_a_put_back_ledger_has_not_begun(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted_since(archive, 1)
    with monkeypatch.context() as patched:
        patched.setattr(run_opening, "choose_photo_store", nowhere)
        with pytest.raises(UsageError):
            archive.run()
    reader = read_ledger(archive.ledger)
    try:
        (last,) = reader.status(runs=1).runs
    finally:
        reader.close()
    # What `open_session` takes from it, else it calls the service's public address.
    assert last.start.options.get("endpoint") == archive.box.endpoint


def nowhere(*args: object, **named: object) -> None:
    raise UsageError("There is no folder of photos.")


def test_a_ledger_that_is_put_back_gives_nobody_a_text_twice(archive: Archive) -> None:
    copy_ledger(archive)
    archive.rows[0] = ("u1", "another name", "1.jpg")
    archive.sync()
    put_back(archive)
    for _ in range(2):
        assert archive.sync(allow_nonempty=False).exit_code is ExitCode.DONE
        assert archive.there() == archive.as_listed()


def test_who_was_deleted_after_a_ledgers_copy_was_taken_is_added_again(archive: Archive) -> None:
    copy_ledger(archive)
    rows, archive.rows = archive.rows, archive.rows[1:]
    archive.photo("2.jpg", 99)
    archive.sync()
    archive.photo("2.jpg", 2 * 3)
    put_back(archive)
    archive.rows = rows
    report = archive.sync()
    assert report.exit_code is ExitCode.DONE
    assert any(
        "2 faces that it counted as enrolled are no longer there" in one
        for one in report.place.urgent
    )
    assert ("u1", "name 1") in archive.there()
    lists = archive.box.count("list")
    assert archive.sync().exit_code is ExitCode.DONE
    assert not archive.sync().place.urgent
    assert archive.box.count("list") == lists
