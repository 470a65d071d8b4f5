"""Faces that are deleted while answers are lost, calls are refused, and commands killed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from archive import Archive, Told
from moved_clock import MovedClock

from enroll import clock
from enroll.commands.remove import Removed, RemoveSettings, remove
from enroll.errors import ExitCode
from enroll.facesearch import Call, FaceSearch
from enroll.ledger import Target
from enroll.model import Answer, CallKind
from enroll.sandbox import Sandbox
from enroll.session import deletions as deleting

pytestmark = pytest.mark.usefixtures("short_back_off")


@pytest.fixture
def archive(faceless_box: Sandbox, tmp_path: Path) -> Archive:
    there = Archive(tmp_path, faceless_box)
    there.people(1, 2, 3)
    assert there.sync().exit_code is ExitCode.DONE
    return there


@pytest.mark.parametrize("later", [("face_info", "auth"), ("delete", "unknown-code")])
def test_a_deletion_whose_answer_is_lost_is_not_forgotten_when_the_next_call_is_refused(
    archive: Archive, later: tuple[str, str]
) -> None:
    row = archive.rows.pop(0)
    archive.box.script(["500-after"], call="delete")
    call, fault = later
    if call == "delete":
        archive.box.script(["500"] * 5, call="face_info")
    archive.box.script([fault], call=call)
    archive.sync()
    assert [user_id for user_id, _ in archive.there()] == ["u2", "u3"]  # it was carried out
    archive.rows.insert(0, row)
    for _ in range(3):
        archive.sync()
    assert archive.there() == archive.as_listed()


def agreed_to_remove(archive: Archive, user_id: str) -> str:
    """Leave the ledger as an `enroll remove` that was killed when it was about to delete a person's
    face; its token."""
    face = archive.face(user_id)
    token = face.face_token or ""
    with archive.writing() as ledger:
        ledger.deletions.intend(
            [Target(face_token=token, face_id=face.face_id, user_id=user_id, run=1)]
        )
    with closing(sqlite3.connect(archive.ledger)) as raw, raw:
        raw.execute("UPDATE run SET command = 'remove'")
    return token


def test_what_a_killed_remove_has_deleted_is_found_out_though_deletions_are_refused(
    archive: Archive,
) -> None:
    archive.delete(agreed_to_remove(archive, "u1"))
    archive.box.script(["unknown-code"], call="delete")
    archive.run()
    archive.run()  # u1 still stands in the manifest
    assert archive.there() == archive.as_listed()


def test_what_somebody_has_agreed_to_remove_is_finished_though_one_call_is_refused(
    archive: Archive,
) -> None:
    agreed_to_remove(archive, "u1")
    del archive.rows[0]
    archive.box.script(["unknown-code"], call="delete")
    report = archive.run()
    assert (report.exit_code, report.ended.tally.undeleted) == (ExitCode.IN_DOUBT, 1)
    assert any("does not delete faces" in note for note in report.place.urgent)
    assert archive.run().exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()


def test_an_intent_recorded_by_a_clock_that_was_ahead_is_no_doubt_for_years(
    archive: Archive, moved_clock: MovedClock
) -> None:
    archive.about_to_delete("u1", ago=-3650 * 86_400.0)
    assert archive.sync().exit_code is ExitCode.IN_DOUBT
    moved_clock.ahead += 2 * 3600.0
    assert archive.sync().exit_code is ExitCode.DONE


def test_a_copy_of_an_old_photo_that_lands_after_that_was_replaced_goes_too(
    archive: Archive,
) -> None:
    token = archive.add("u1", "1.jpg", user_data="name 1")  # lands late
    archive.surplus("u1", token)
    archive.photo("1.jpg", 99)
    with closing(sqlite3.connect(archive.ledger)) as raw, raw:
        (copy,) = raw.execute("SELECT * FROM surplus").fetchall()
        raw.execute("DELETE FROM surplus")
    archive.sync()  # the old face is deleted
    with closing(sqlite3.connect(archive.ledger)) as raw, raw:
        raw.execute("INSERT INTO surplus VALUES (?, ?, ?, ?)", copy)  # as settling does
    for _ in range(2):
        archive.sync()
    assert archive.there() == archive.as_listed()


def test_a_deletion_whose_answer_is_lost_is_not_forgotten_when_the_service_is_away_then(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = archive.rows.pop(0)
    archive.box.script(["500-after"], call="delete")
    real = deleting._ask_to_delete

    def then_away(*args: object) -> object:
        answer = real(*args)  # type: ignore[arg-type]
        monkeypatch.setattr(FaceSearch, "make", away)
        return answer

    make = FaceSearch.make

    def away(service: FaceSearch, call: Call) -> Answer:
        if call.kind not in (CallKind.FACE_INFO, CallKind.DELETE):
            return make(service, call)
        gone = FaceSearch("http://127.0.0.1:9", archive.credentials, timeout=1.0)
        try:
            return make(gone, call)
        finally:
            gone.close()

    with monkeypatch.context() as patched:
        patched.setattr(deleting, "_ask_to_delete", then_away)
        archive.sync()
    monkeypatch.undo()
    assert [user_id for user_id, _ in archive.there()] == ["u2", "u3"]
    archive.rows.insert(0, row)
    for _ in range(2):
        archive.sync()
    assert archive.there() == archive.as_listed()


def test_a_photo_that_is_back_does_not_cost_the_other_while_its_own_deletion_is_open(
    archive: Archive,
) -> None:
    old = archive.face("u1").face_token or ""
    archive.photo("1.jpg", 99)
    archive.box.script(["500"] * 3, call="delete")
    assert archive.sync().exit_code is ExitCode.IN_DOUBT
    archive.photo("1.jpg", 3)  # as it was
    archive.sync()
    archive.delete(old)  # what was in doubt is carried out after all, within the hour
    assert "u1" in [user_id for user_id, _ in archive.there()]


def test_a_run_begins_though_the_account_may_not_ask_about_single_faces(archive: Archive) -> None:
    archive.about_to_delete("u1")
    archive.people(4)
    archive.box.script(["auth"] * 100, call="face_info")
    archive.run()
    assert ("u4", "name 4") in archive.there()


def removed(archive: Archive, user_id: str, *, told: Told) -> Removed:
    """Ask for a person's faces to be removed."""
    ids = archive.folder / "ids.txt"
    ids.write_text(f"{user_id}\n", encoding="utf-8")
    settings = RemoveSettings(ledger=archive.ledger, user_ids=ids)
    return remove(settings, lambda: archive.credentials, told)


def test_a_remove_that_is_not_agreed_to_deletes_nothing(archive: Archive) -> None:
    archive.about_to_delete("u1")  # by a killed sync; u1 stands in the list again
    told = Told(agrees=False)
    removed(archive, "u2", told=told)
    assert "Nothing was deleted." in told.text
    assert [user_id for user_id, _ in archive.there()] == ["u1", "u2", "u3"]


def test_what_somebody_has_agreed_to_remove_is_finished_though_a_sync_was_to_delete_it_before(
    archive: Archive,
) -> None:
    archive.about_to_delete("u1", ago=86_400.0)
    archive.box.script(["500"] * 3, call="delete")
    told = Told()
    found = removed(archive, "u1", told=told)
    assert found.unknown
    assert archive.box.count("delete") == 3
    with closing(sqlite3.connect(archive.ledger)) as raw, raw:
        raw.execute("UPDATE event SET at = at - 7200000")  # two hours later
    del archive.rows[0]
    archive.run()
    assert [user_id for user_id, _ in archive.there()] == ["u2", "u3"]


def test_an_intent_that_may_still_be_carried_out_outlives_a_later_refusal(archive: Archive) -> None:
    token = archive.face("u1").face_token or ""
    archive.about_to_delete("u1", ago=60.0)  # its call is under way yet
    row = archive.rows.pop(0)
    archive.box.script(["unknown-code"], call="delete")
    archive.sync()
    archive.delete(token)  # it lands
    archive.rows.insert(0, row)
    for _ in range(2):
        archive.sync()
    assert archive.there() == archive.as_listed()


def test_what_somebody_has_agreed_to_remove_outlives_a_sync_that_was_to_delete_it_too(
    archive: Archive,
) -> None:
    face = archive.face("u1")
    token = face.face_token or ""
    ids = archive.folder / "ids.txt"
    ids.write_text("u1\n", encoding="utf-8")
    settings = RemoveSettings(ledger=archive.ledger, user_ids=ids)
    archive.box.script(["500"] * 3, call="delete")
    assert remove(settings, lambda: archive.credentials, Told()).unknown == 1
    row = archive.rows.pop(0)
    archive.box.script(["unknown-code"] * 2, call="delete")
    archive.sync()
    archive.rows.insert(0, row)
    for _ in range(2):
        archive.sync()
    assert token not in archive.in_library()


def test_a_call_that_was_refused_is_waited_for_asleep(archive: Archive, tmp_path: Path) -> None:
    class Counting(MovedClock):
        sleeps = 0

        def sleep(self, seconds: float) -> None:
            self.sleeps += 1
            super().sleep(seconds)

    ids = tmp_path / "ids.txt"
    ids.write_text("u1\n", encoding="utf-8")
    archive.box.script(["refused", "refused"], call="delete")
    settings = RemoveSettings(ledger=archive.ledger, user_ids=ids)
    counting = Counting()
    with clock.using(counting):
        removed = remove(settings, lambda: archive.credentials, Told())
    assert (removed.exit_code, removed.gone) == (ExitCode.DONE, 1)
    assert 2 <= counting.sleeps <= 20
