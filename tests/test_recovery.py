"""A ledger that was put back from a backup: whose faces were deleted since are added again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from checked_library import Place
from following import as_listed, synced, there

from enroll.commands import run_opening
from enroll.errors import ExitCode, UsageError
from enroll.ledger import read_ledger
from enroll.sandbox import Sandbox
from enroll.session import recovery

pytestmark = pytest.mark.usefixtures("short_back_off")


@pytest.fixture
def place(faceless_box: Sandbox, tmp_path: Path) -> Place:
    """Four people, enrolled by a first sync."""
    there = Place(tmp_path, faceless_box)
    there.people(1, 2, 3, 4)
    assert synced(there).exit_code is ExitCode.DONE
    return there


def copy_ledger(place: Place) -> None:
    shutil.copy(place.ledger, place.folder / "backup")


def put_back(place: Place) -> None:
    """Put the copy back in the ledger's place, as from a backup of the machine."""
    for end in ("-wal", "-shm"):
        place.ledger.with_name(place.ledger.name + end).unlink(missing_ok=True)
    shutil.copy(place.folder / "backup", place.ledger)


def deleted_since(place: Place, count: int) -> None:
    """So many people left after the copy was taken; they are back when it is put back."""
    copy_ledger(place)
    rows, place.rows = place.rows, place.rows[count:]
    synced(place)
    put_back(place)
    place.rows = rows


def test_who_left_and_came_back_since_is_not_added_twice_where_nonempty_is_allowed(
    place: Place,
) -> None:
    copy_ledger(place)
    rows, place.rows = place.rows, place.rows[1:]
    synced(place)
    place.rows = rows
    synced(place)  # back, with a new token
    assert there(place) == as_listed(place)
    put_back(place)
    place.run(allow_nonempty=True)
    assert there(place) == as_listed(place)


def test_a_put_back_ledger_whose_every_text_was_changed_since_goes_on_by_the_same_sync(
    place: Place,
) -> None:
    copy_ledger(place)
    place.rows = [(user_id, f"new {text}", image) for user_id, text, image in place.rows]
    synced(place)
    put_back(place)
    listed = as_listed(place)
    # No face is known beside which the others could be looked for.
    assert synced(place).exit_code is ExitCode.IN_DOUBT
    assert there(place) == listed
    place.people(5)
    assert synced(place).exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)


def test_what_max_calls_has_cut_off_of_it_is_done_by_the_next_run(place: Place) -> None:
    deleted_since(place, 3)
    place.run(max_calls=3)
    for _ in range(2):
        place.run()
    assert there(place) == as_listed(place)


def test_a_copy_that_max_calls_did_not_let_us_look_at_is_not_added_beside(place: Place) -> None:
    place.surplus("u1", place.add("u1", "1.jpg", user_data="name 1"))
    copy_ledger(place)
    place.people(5)
    synced(place)  # a run that the copy lacks
    place.delete(place.face("u1").face_token or "")
    put_back(place)
    place.run(max_calls=3)  # group_list, list, face_info of the face
    for _ in range(2):
        place.run()
    assert [one for one in there(place) if one[0] == "u1"] == [("u1", "name 1")]


def test_a_run_goes_on_though_the_account_may_not_ask_about_single_faces_of_a_put_back_ledger(
    place: Place,
) -> None:
    deleted_since(place, 1)
    place.people(5)
    place.box.script(["auth"] * 3, call="face_info")
    place.run()
    assert ("u5", "name 5") in there(place)


def test_what_the_service_would_not_say_of_a_put_back_ledger_is_asked_again(place: Place) -> None:
    deleted_since(place, 1)
    place.box.script(["auth"] * 3, call="face_info")
    for _ in range(4):
        place.run()
    assert there(place) == as_listed(place)


def test_what_the_service_left_open_of_a_put_back_ledger_is_asked_again(place: Place) -> None:
    deleted_since(place, 1)
    place.box.script(["500"] * 5, call="face_info")
    for _ in range(3):
        place.run()
    assert there(place) == as_listed(place)


def test_a_kill_while_a_put_back_ledger_is_mended_loses_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted_since(place, 2)

    class Killed(BaseException):
        pass

    def dies(*args: object, **named: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(recovery, "requeue_missing", dies)
        with pytest.raises(Killed):
            place.run()
    for _ in range(2):
        place.run()
    assert there(place) == as_listed(place)


def test_a_put_back_ledger_whose_library_was_not_shown_to_its_end_is_mended_by_the_next_run(
    place: Place,
) -> None:
    deleted_since(place, 1)
    place.people(5)
    place.box.script(["auth"], call="list")  # for once
    for _ in range(3):
        place.run()
    assert there(place) == as_listed(place)


def test_other_commands_know_the_service_after_a_run_that_a_put_back_ledger_has_not_begun(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted_since(place, 1)
    with monkeypatch.context() as patched:
        patched.setattr(run_opening, "choose_photo_store", nowhere)
        with pytest.raises(UsageError):
            place.run()
    reader = read_ledger(place.ledger)
    try:
        (last,) = reader.status(runs=1).runs
    finally:
        reader.close()
    # What `open_session` takes from it, else it calls the service's public address.
    assert last.start.options.get("endpoint") == place.box.endpoint


def nowhere(*args: object, **named: object) -> None:
    raise UsageError("There is no folder of photos.")


def test_a_ledger_that_is_put_back_gives_nobody_a_text_twice(place: Place) -> None:
    copy_ledger(place)
    place.rows[0] = ("u1", "another name", "1.jpg")
    synced(place)
    put_back(place)
    for _ in range(2):
        assert synced(place, allow_nonempty=False).exit_code is ExitCode.DONE
        assert there(place) == as_listed(place)


def test_who_was_deleted_after_a_ledgers_copy_was_taken_is_added_again(place: Place) -> None:
    copy_ledger(place)
    rows, place.rows = place.rows, place.rows[1:]
    place.photo("2.jpg", 99)
    synced(place)
    place.photo("2.jpg", 2 * 3)
    put_back(place)
    place.rows = rows
    report = synced(place)
    assert report.exit_code is ExitCode.DONE
    assert any(
        "2 faces that it counted as enrolled are no longer there" in one
        for one in report.place.urgent
    )
    assert ("u1", "name 1") in there(place)
    lists = place.box.count("list")
    assert synced(place).exit_code is ExitCode.DONE
    assert not synced(place).place.urgent
    assert place.box.count("list") == lists
