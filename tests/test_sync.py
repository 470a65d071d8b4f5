"""enroll sync: the library is what the manifest says, whatever becomes of a night."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from archive import GROUP, Archive, Told, read_csv
from moved_clock import LaterClock, MovedClock
from sqlalchemy.dialects import sqlite

from enroll import clock
from enroll.clock import now_ms
from enroll.commands import sync_compare
from enroll.commands.sync import sync_manifest
from enroll.commands.sync_compare import preview
from enroll.commands.verify import VerifySettings, verify
from enroll.errors import EnrollError, ExitCode, GuardError, TimeOverError
from enroll.ledger import read_ledger
from enroll.ledger.diff_queries import find_unlisted
from enroll.model import Photo, Status, Unusable
from enroll.photos import PhotoStore, folder, read_photo
from enroll.report.summary import summary_lines
from enroll.runner.transitions import mark_sending
from enroll.sandbox import Sandbox
from enroll.settings import Bound, Preparation

pytestmark = pytest.mark.usefixtures("moved_clock")

DAY_MS = 86_400_000


@pytest.fixture
def archive(faceless_box: Sandbox, tmp_path: Path) -> Archive:
    """Three people, enrolled by a first sync."""
    there = Archive(tmp_path, faceless_box)
    there.people(1, 2, 3)
    report = there.sync()
    assert report.exit_code is ExitCode.DONE
    return there


def too_short_a_night(
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    *,
    dry: bool = False,
    grace: float = 0.0,
) -> None:
    """A night whose time is over when its first photo has been read."""
    late = LaterClock()
    read: Callable[..., Photo | Unusable] = vars(sync_compare)["read_photo"]

    def slowly(path: str, store: PhotoStore, preparation: Preparation) -> Photo | Unusable:
        late.ahead = 600.0
        return read(path, store, preparation)

    with monkeypatch.context() as patched, clock.using(late):
        patched.setattr(sync_compare, "read_photo", slowly)
        settings = archive.sync_settings(max_duration=600.0, readers=1, grace=grace)
        if dry:
            list(preview(settings))
        else:
            sync_manifest(settings, lambda: archive.credentials)


def test_a_night_without_a_difference_makes_no_call_but_the_opening_one(archive: Archive) -> None:
    before = len(archive.box.calls)
    report = archive.sync()
    assert report.exit_code is ExitCode.DONE
    assert [call.kind for call in archive.box.calls[before:]] == ["group_list"]


def test_new_rows_are_added_and_rows_that_are_gone_are_removed(archive: Archive) -> None:
    archive.people(4)
    del archive.rows[0]
    report = archive.sync()
    assert report.exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()
    assert report.sync_result is not None
    assert (report.sync_result.people, report.sync_result.faces) == (1, 1)
    assert archive.face("u1").status is Status.REMOVED


def late_copy(archive: Archive) -> None:
    """A copy of the face of `u1` lands late, after the face was removed."""
    token = archive.add("u1", "1.jpg", user_data="name 1")
    (face,) = archive.faces("u1")
    assert face.status is Status.REMOVED
    archive.surplus("u1", token)


def test_a_copy_that_lands_after_its_face_was_removed_is_deleted_too(archive: Archive) -> None:
    del archive.rows[0]
    archive.sync()
    late_copy(archive)
    archive.sync()
    assert archive.there() == archive.as_listed()


def test_such_a_copy_of_somebody_who_is_listed_again_stays(archive: Archive) -> None:
    row = archive.rows.pop(0)
    archive.sync()
    late_copy(archive)
    archive.rows.insert(0, row)
    (archive.folder / "1.jpg").unlink()  # so that nothing else shows the person tonight
    archive.sync()
    assert archive.there() == archive.as_listed()


def test_a_changed_photo_is_added_before_the_old_face_is_deleted(archive: Archive) -> None:
    old = archive.face("u1").face_token
    archive.photo("1.jpg", 99)
    report = archive.sync()
    assert report.exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()
    assert old not in archive.in_library()
    kinds = [call.kind for call in archive.box.calls]
    assert kinds.index("delete") > len(kinds) - 1 - kinds[::-1].index("add")
    assert report.sync_result is not None and report.sync_result.replaced == 1


def test_a_changed_text_is_added_anew_with_the_same_photo(archive: Archive) -> None:
    old = archive.face("u1").face_token
    archive.rows[0] = ("u1", "another name", "1.jpg")
    report = archive.sync()
    assert report.exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()
    assert old not in archive.in_library()
    face = archive.face("u1")
    assert (face.status, face.user_data, face.former_token) == (
        Status.ENROLLED,
        "another name",
        None,
    )
    assert face.face_token in archive.in_library()
    assert report.ended.tally.renewed == 1
    before = archive.box.count("add")
    archive.sync()
    assert archive.box.count("add") == before


def test_who_comes_back_later_is_added_anew(archive: Archive) -> None:
    row = archive.rows.pop(0)
    archive.sync()
    assert len(archive.there()) == 2
    archive.rows.insert(0, row)
    assert archive.sync().exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()


def test_a_leaver_is_removed_when_the_grace_is_over_and_not_before(archive: Archive) -> None:
    row = archive.rows.pop(0)
    report = archive.sync(grace=2.0)
    assert len(archive.there()) == 3
    assert report.sync_result is not None
    assert (report.sync_result.counted.waiting, report.sync_result.counted.newly_gone) == (1, 1)
    report = archive.sync(grace=2.0)
    assert report.sync_result is not None
    assert (report.sync_result.counted.waiting, report.sync_result.counted.newly_gone) == (1, 0)
    archive.rows.insert(0, row)
    report = archive.sync(grace=2.0)
    assert report.sync_result is not None
    assert report.sync_result.counted.returned == 1
    assert archive.box.count("delete") == 0
    del archive.rows[0]
    archive.sync(grace=2.0)
    assert len(archive.there()) == 3
    archive.sync(grace=0.0)
    assert archive.there() == archive.as_listed()


def test_a_photo_that_turned_unreadable_keeps_the_old_face(archive: Archive) -> None:
    (archive.folder / "1.jpg").write_bytes(b"no picture")
    report = archive.sync()
    assert archive.there() == archive.as_listed()
    assert report.exit_code is ExitCode.SOME_ROWS_FAILED
    assert report.sync_result is not None and report.sync_result.kept == 1
    again = archive.sync()
    assert again.exit_code is ExitCode.DONE  # old news
    assert archive.there() == archive.as_listed()
    archive.photo("1.jpg", 77)
    assert archive.sync().exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()
    assert archive.box.count("delete") == 1


def test_a_row_of_several_that_is_gone_loses_its_face_alone(archive: Archive) -> None:
    archive.photo("extra.jpg", 50)
    archive.rows.append(("u1", "name 1", "extra.jpg"))
    archive.sync()
    assert len(archive.there()) == 4
    archive.rows.pop()
    archive.sync()
    assert archive.there() == archive.as_listed()


def test_faces_that_the_ledger_does_not_know_are_never_touched(archive: Archive) -> None:
    strange = [archive.add("u1", "1.jpg"), archive.add("nobody", "2.jpg")]
    del archive.rows[0]
    archive.sync()
    assert set(strange) <= archive.in_library()
    assert len(archive.there()) == 4


def test_two_texts_for_one_photo_do_not_take_turns(archive: Archive) -> None:
    archive.photo("same.jpg", 3)
    archive.rows.append(("u1", "other text", "same.jpg"))
    archive.sync()
    before = archive.box.count("add")
    archive.sync()
    assert archive.box.count("add") == before


def test_what_is_added_anew_and_rejected_leaves_the_old_face(archive: Archive) -> None:
    old = archive.face("u1").face_token
    archive.rows[0] = ("u1", "another name", "1.jpg")
    archive.box.script(["unknown-code"], call="add")
    report = archive.sync()
    assert report.ended.tally.kept == 1
    face = archive.face("u1")
    assert (face.face_token, face.status, face.user_data) == (old, Status.ENROLLED, "name 1")
    assert old in archive.in_library()
    archive.sync()
    assert archive.there() == archive.as_listed()


def test_a_run_beside_it_deletes_nothing(archive: Archive) -> None:
    del archive.rows[0]
    archive.rows[0] = ("u2", "another", "2.jpg")
    archive.run()
    assert len(archive.there()) == 3
    assert archive.box.count("delete") == 0


def test_the_ledger_says_which_runs_were_syncs(archive: Archive) -> None:
    reader = read_ledger(archive.ledger)
    (run,) = reader.status().runs
    reader.close()
    assert run.start.options["command"] == "sync"


def test_a_text_that_will_not_do_is_old_news_the_second_night(archive: Archive) -> None:
    archive.rows[0] = ("u1", "x" * 3000, "1.jpg")
    report = archive.sync()
    assert (report.exit_code, report.ended.tally.kept) == (ExitCode.SOME_ROWS_FAILED, 1)
    archive.people(4)
    report = archive.sync()
    assert (report.exit_code, report.ended.tally.kept) == (ExitCode.DONE, 1)
    archive.rows[0] = ("u1", "short", "1.jpg")
    assert archive.sync().exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()


def test_a_text_that_a_run_has_seen_since_the_last_sync_is_added_by_the_next(
    archive: Archive,
) -> None:
    archive.rows = [(user_id, "new", image) for user_id, _, image in archive.rows]
    assert archive.sync(limit=1).exit_code is ExitCode.ENDED_EARLY
    assert archive.run().exit_code is ExitCode.DONE
    report = archive.sync()
    assert report.sync_result is not None
    assert report.sync_result.counted.user_data == 2
    assert archive.there() == archive.as_listed()


def test_an_old_face_whose_row_a_run_has_replaced_since_the_last_sync_is_deleted_by_the_next(
    archive: Archive,
) -> None:
    archive.sync()
    archive.photo("2.jpg", 77)
    archive.run()
    archive.run()  # the part of the scan is quiet again
    report = archive.sync()
    assert report.sync_result is not None
    assert (report.sync_result.counted.superseded, report.sync_result.replaced) == (1, 1)
    assert archive.there() == archive.as_listed()


@pytest.mark.parametrize("image", ["1.jpg", "extra.jpg"])  # one of them is sent first
def test_an_old_face_stays_until_every_row_of_its_person_has_its_new_text(
    archive: Archive, image: str
) -> None:
    (before,) = archive.faces("u1")
    archive.photo("extra.jpg", 50)
    archive.rows.append(("u1", "name 1", "extra.jpg"))
    archive.sync()
    (extra,) = [face for face in archive.faces("u1") if face != before]
    archive.photo(image, 99)
    archive.rows = [
        (user_id, "new" if user_id == "u1" else text, path) for user_id, text, path in archive.rows
    ]
    archive.box.script([None, "unknown-code"], user_id="u1")
    archive.sync()
    assert (before if image == "1.jpg" else extra).face_token in archive.in_library()
    assert archive.sync().exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()


def test_a_row_that_breaks_a_rule_now_says_so_beside_its_token_until_it_is_mended(
    archive: Archive,
) -> None:
    token = archive.face("u1").face_token
    well = archive.rows[0]
    archive.rows[0] = ("u1", "x" * 130, "1.jpg")
    assert archive.sync().exit_code is ExitCode.SOME_ROWS_FAILED
    assert told_of(archive, "u1") == ("enrolled", token, "USER_DATA_TOO_LONG")
    assert archive.sync().exit_code is ExitCode.DONE  # it is no news any more
    archive.rows[0] = well
    assert archive.sync().exit_code is ExitCode.DONE
    assert told_of(archive, "u1") == ("enrolled", token, "")
    assert archive.box.count("add") == 3


def test_a_text_that_could_not_be_added_anew_is_news_for_one_night(archive: Archive) -> None:
    archive.rows[0] = ("u1", "another name", "1.jpg")
    archive.box.script(["unknown-code"] * 2, user_id="u1")
    assert archive.sync().exit_code is ExitCode.SOME_ROWS_FAILED
    assert archive.sync().exit_code is ExitCode.DONE
    assert archive.there()[0] == ("u1", "name 1")
    assert archive.sync().exit_code is ExitCode.DONE
    assert archive.there()[0] == ("u1", "another name")


def test_who_comes_back_with_a_photo_that_stands_twice_in_the_list_is_added_once(
    archive: Archive,
) -> None:
    whole = archive.photo("9.jpg", 27).read_bytes()
    for name, comment in (("9.jpg", b"hello"), ("copy.jpg", b"again")):
        (archive.folder / name).write_bytes(whole[:2] + b"\xff\xfe\x00\x07" + comment + whole[2:])
    others = list(archive.rows)
    twice: list[tuple[str, ...]] = [("u9", "name 9", "9.jpg"), ("u9", "name 9", "copy.jpg")]
    for order in (twice, twice, twice[::-1]):
        archive.rows[:] = others + order
        assert archive.sync().exit_code is ExitCode.DONE
        assert [user_id for user_id, _ in archive.there()].count("u9") == 1
        archive.rows[:] = others
        assert archive.sync().exit_code is ExitCode.DONE


def test_nights_that_are_too_short_to_read_what_was_touched_get_on_all_the_same(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: str, store: PhotoStore, preparation: Preparation) -> Photo | Unusable:
        read.append(path)
        return read_photo(path, store, preparation)

    monkeypatch.setattr(sync_compare, "read_photo", counted)
    for path in archive.folder.glob("*.jpg"):
        path.write_bytes(path.read_bytes())
    calls = len(archive.box.calls)
    while len(read) < 3:
        before = len(read)
        with pytest.raises(TimeOverError, match="What was read is kept"):
            too_short_a_night(archive, monkeypatch)
        assert before < len(read)
    assert len(archive.box.calls) == calls
    report = archive.sync()
    assert (report.exit_code, len(set(read)), len(read)) == (ExitCode.DONE, 3, 3)
    assert report.ended.tally.due == 0  # nor has the run anything to read


def test_who_is_back_keeps_the_face_that_a_dead_night_was_about_to_delete(archive: Archive) -> None:
    old = archive.face("u1").face_token
    archive.about_to_delete("u1")
    (archive.folder / "1.jpg").unlink()  # so that it could not be added again
    report = archive.sync()
    assert report.exit_code is ExitCode.DONE
    assert archive.box.count("delete") == 0
    assert archive.face("u1").face_token == old
    assert archive.there() == archive.as_listed()


def test_a_deletion_that_may_still_be_carried_out_stays_open_until_it_cannot(
    archive: Archive,
) -> None:
    archive.about_to_delete("u1", ago=60.0)
    first = archive.sync()
    assert (first.exit_code, first.ended.tally.undeleted) == (ExitCode.IN_DOUBT, 1)
    archive.delete(archive.face("u1").face_token or "")  # it is carried out now
    second = archive.sync()
    assert second.exit_code is ExitCode.DONE
    assert second.ended.tally.enrolled_now == 1
    assert archive.there() == archive.as_listed()


def test_a_run_deletes_nothing_that_a_dead_sync_was_about_to(archive: Archive) -> None:
    archive.about_to_delete("u1", "u2")
    del archive.rows[0]
    archive.run()
    assert [user_id for user_id, _ in archive.there()] == ["u1", "u2", "u3"]
    assert archive.sync().exit_code is ExitCode.DONE  # which is for the next sync to do
    assert archive.there() == archive.as_listed()


def test_what_a_dead_night_has_deleted_is_found_to_be_gone(archive: Archive) -> None:
    archive.about_to_delete("u1", "u2", ago=0.0)
    archive.delete(*(archive.face(user_id).face_token or "" for user_id in ("u1", "u2")))
    del archive.rows[0]
    report = archive.sync()
    assert report.exit_code is ExitCode.DONE
    assert report.ended.tally.enrolled_now == 1
    assert archive.face("u1").status is Status.REMOVED
    assert archive.there() == archive.as_listed()


def test_who_has_not_the_text_of_the_list_yet_is_counted_and_has_it_the_next_night(
    archive: Archive,
) -> None:
    being = mark_sending(archive.face("u1"), at=now_ms(), run=1, expires=0.0, user_data="B")
    archive.record(replace(being, status=Status.IN_DOUBT, code="INTERRUPTED", expires=0.0))
    archive.add("u1", "1.jpg", user_data="B")  # the call of a night that was killed
    archive.rows[0] = ("u1", "C", "1.jpg")
    first = archive.sync()
    assert first.exit_code is ExitCode.IN_DOUBT
    assert "1 person has another user_data in the library" in "\n".join(summary_lines(first))
    assert first.sync_result is not None
    assert first.sync_result.kept == 1
    assert archive.there() == [("u1", "B"), ("u2", "name 2"), ("u3", "name 3")]
    second = archive.sync()
    assert second.exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()


@pytest.mark.parametrize("text", ["another name", "x" * 130])
def test_a_row_without_its_photo_and_with_another_text_keeps_its_persons_other_faces(
    archive: Archive, text: str
) -> None:
    archive.photo("second.jpg", 55)
    archive.rows.append(("u1", "name 1", "second.jpg"))
    archive.sync()
    archive.rows.pop()
    (archive.folder / "1.jpg").rename(archive.folder / "away.jpg")
    archive.rows[0] = ("u1", text, "1.jpg")
    for _ in range(2):
        archive.sync()
        assert [user_id for user_id, _ in archive.there()].count("u1") == 2
    (archive.folder / "away.jpg").rename(archive.folder / "1.jpg")
    archive.rows[0] = ("u1", "a third name", "1.jpg")
    assert archive.sync().exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()


def edited(archive: Archive, name: str, comment: bytes) -> None:
    """Another program writes the photo: other bytes of the file, and the same are sent."""
    path = archive.folder / name
    whole = path.read_bytes()
    head = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    path.write_bytes(whole[:2] + head + whole[2:])


def test_a_photo_that_was_edited_while_its_row_broke_a_rule_has_the_mended_text(
    archive: Archive,
) -> None:
    archive.rows[0] = ("u1", "x" * 130, "1.jpg")
    archive.sync()
    edited(archive, "1.jpg", b"edited")
    archive.sync()
    archive.rows[0] = ("u1", "another name", "1.jpg")
    assert archive.sync().exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()


def test_photos_that_were_edited_before_a_night_that_was_cut_off_are_no_new_ones(
    archive: Archive,
) -> None:
    for number in (1, 2, 3):
        edited(archive, f"{number}.jpg", b"edited")
    archive.people(4)
    with pytest.raises(GuardError):
        archive.sync(max_changes=Bound(0))  # it has read them, and does no more
    archive.rows.pop()
    report = archive.sync(max_changes=Bound(0))
    assert report.sync_result is not None
    assert (report.exit_code, report.sync_result.counted.photos) == (ExitCode.DONE, 0)


def test_photos_whose_metadata_alone_was_rewritten_are_no_change_after_a_night_that_was_too_short(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        edited(archive, name, b"hello")
    with pytest.raises(TimeOverError, match="What was read is kept"):
        too_short_a_night(archive, monkeypatch)
    report = archive.sync(max_changes=Bound(0))
    assert report.sync_result is not None
    assert report.sync_result.counted.photos == 0


def test_photos_whose_metadata_alone_was_rewritten_are_no_change_after_a_refused_night(
    archive: Archive,
) -> None:
    for name in ("1.jpg", "2.jpg"):
        edited(archive, name, b"hello")
    gone = archive.rows.pop()
    with pytest.raises(GuardError):  # for another reason
        archive.sync(max_changes=Bound(0), max_removals=Bound(0))
    archive.rows.append(gone)
    archive.sync(max_changes=Bound(0))
    assert archive.there() == archive.as_listed()


@pytest.mark.parametrize("trouble", ["no folder", "no service", "no time"])
def test_who_stands_in_a_list_that_could_not_be_followed_is_marked_anew_when_they_leave_again(
    archive: Archive, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = archive.rows.pop(0)
    archive.sync(grace=2.0)
    with closing(sqlite3.connect(archive.ledger)) as raw, raw:
        raw.execute("UPDATE absence SET since = since - ?", [3 * DAY_MS])  # three days ago
    archive.rows.insert(0, row)  # is back, on the night before last
    with pytest.raises(EnrollError):
        if trouble == "no folder":
            archive.sync(grace=2.0, images=archive.folder / "not-mounted")
        elif trouble == "no service":
            archive.box.script(["auth"], call="group_list")
            archive.sync(grace=2.0, give_up_after=0.0)
        else:
            edited(archive, "2.jpg", b"hello")
            edited(archive, "3.jpg", b"hello")
            too_short_a_night(archive, monkeypatch, grace=2.0)
    archive.rows.remove(row)  # gone again, by a bad export
    archive.sync(grace=2.0)
    assert "u1" in [user_id for user_id, _ in archive.there()]


def test_an_old_photo_that_was_in_doubt_goes_in_the_night_that_settles_it(archive: Archive) -> None:
    archive.doubt("u1")  # the call of a night that was killed; the library has the face
    archive.photo("1.jpg", 99)
    report = archive.sync()
    assert report.exit_code is ExitCode.DONE
    assert archive.there() == archive.as_listed()


def test_a_mark_of_a_night_whose_clock_was_ahead_does_not_keep_a_leaver_for_years(
    archive: Archive,
) -> None:
    del archive.rows[0]
    for days in (3650, 0, 30):  # ahead, right again, later
        with clock.using(MovedClock(days * DAY_MS / 1000)):
            archive.sync(grace=2.0)
    assert archive.there() == archive.as_listed()


def test_the_summary_counts_somebody_whose_old_face_waits_for_the_next_night(
    archive: Archive,
) -> None:
    archive.doubt("u1")
    archive.photo("1.jpg", 99)
    report = archive.sync()
    assert report.sync_result is not None
    left = len(archive.there()) - len(archive.rows)
    assert report.sync_result.kept == left


def test_rows_that_a_run_has_only_seen_are_changes_that_no_guard_has_judged(
    archive: Archive,
) -> None:
    archive.people(4, 5, 6)
    archive.run(limit=1)  # a trial of a wrong list
    with pytest.raises(GuardError):
        archive.sync(max_changes=Bound(0))


def test_a_leaver_whose_face_verify_has_mended_has_not_been_there_meanwhile(
    archive: Archive,
) -> None:
    copy = archive.add("u1", "1.jpg", user_data="name 1")
    archive.surplus("u1", copy)
    del archive.rows[0]
    archive.sync(grace=2.0)
    with closing(sqlite3.connect(archive.ledger)) as raw, raw:
        raw.execute("UPDATE absence SET since = since - ?", [3 * DAY_MS])
    archive.delete(archive.face("u1").face_token or "")
    mending = VerifySettings(ledger=archive.ledger, requeue_missing=True)
    verify(mending, lambda: archive.credentials, Told())
    archive.sync(grace=2.0)
    assert archive.there() == archive.as_listed()


def test_a_photo_whose_first_face_was_removed_is_known_by_the_face_that_it_has_now(
    archive: Archive,
) -> None:
    plain = (archive.folder / "1.jpg").read_bytes()
    archive.photo("1.jpg", 99)
    archive.sync()
    (archive.folder / "1.jpg").write_bytes(plain)
    edited(archive, "1.jpg", b"edited")
    archive.sync()
    (archive.folder / "1.jpg").write_bytes(plain)
    archive.sync()
    report = archive.sync(max_changes=Bound(0))
    assert report.sync_result is not None
    assert report.sync_result.counted.photos == 0


def told_of(archive: Archive, user_id: str) -> tuple[str, str, str]:
    (line,) = [
        one for one in read_csv(archive.folder / "staff.results.csv") if one["user_id"] == user_id
    ]
    return line["status"], line["face_token"], line["error"]


def marks(archive: Archive) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(archive.ledger)) as raw:
        return raw.execute("SELECT user_id, since, run FROM absence").fetchall()


def test_a_joiner_whom_a_run_did_not_come_to_is_added_with_the_text_of_the_manifest(
    archive: Archive,
) -> None:
    archive.people(4, 5, 6)
    archive.run(limit=1)  # two rows are pending, with the texts of today's list
    archive.rows[3:] = [
        (user_id, f"{text}, renamed", image) for user_id, text, image in archive.rows[3:]
    ]
    archive.sync(limit=1)
    archive.sync()
    added = [(face.user_id, face.user_data) for face in archive.box.faces(GROUP)]
    assert sorted(added)[3:] == archive.as_listed()[3:]


def test_a_dry_run_changes_nothing_in_the_ledger(archive: Archive) -> None:
    row = archive.rows.pop(0)
    archive.sync(grace=2.0)
    before = marks(archive)
    assert before
    archive.rows.insert(0, row)  # an old list, looked at by hand
    list(preview(archive.sync_settings(grace=2.0)))
    assert marks(archive) == before


def test_a_dry_run_ends_when_its_time_is_over_and_keeps_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in archive.folder.glob("*.jpg"):
        path.write_bytes(path.read_bytes())

    for _ in range(2):
        with pytest.raises(TimeOverError, match="A dry run keeps nothing"):
            too_short_a_night(archive, monkeypatch, dry=True)
    list(preview(archive.sync_settings(max_duration=600.0)))


def test_a_dry_run_goes_on_beside_a_ledger_that_it_may_only_read(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    list(preview(archive.sync_settings()))


def test_a_dry_run_does_not_wait_for_a_run_that_is_writing(archive: Archive) -> None:
    with closing(sqlite3.connect(archive.ledger, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        list(preview(archive.sync_settings()))


def test_a_mark_holds_though_somebody_else_was_marked_before_the_face_was_added(
    archive: Archive,
) -> None:
    archive.people(4)
    archive.sync()
    del archive.rows[0]
    archive.sync(grace=30.0)  # u1 is marked as gone
    archive.photo("5a.jpg", 91)
    archive.photo("5b.jpg", 97)
    archive.rows += [("u5", "name 5", "5a.jpg"), ("u5", "name 5", "5b.jpg")]
    archive.run()  # adds u5
    archive.rows = [row for row in archive.rows if row[0] != "u5"]
    archive.sync(grace=30.0)  # u5 is marked as gone
    (before,) = [mark for mark in marks(archive) if mark[0] == "u5"]
    archive.delete(archive.faces("u5")[0].face_token or "")  # by another program
    settings = VerifySettings(ledger=archive.ledger, requeue_missing=True)
    verify(settings, lambda: archive.credentials, Told())
    archive.sync(grace=30.0)
    (after,) = [mark for mark in marks(archive) if mark[0] == "u5"]
    assert after == before  # nobody has added a face of u5 since


def test_whether_a_face_was_added_since_a_mark_is_asked_of_that_mark_alone() -> None:
    sql = str(find_unlisted().compile(dialect=sqlite.dialect()))
    froms = re.findall(r"FROM ([^\n]*)", sql)
    assert len(froms) == 4, sql
    # Else each mark is held against every other one.
    assert not [one for one in froms[1:] if "absence" in one]


def test_no_leaver_is_counted_below_nothing(archive: Archive) -> None:
    del archive.rows[0]
    archive.sync()
    token = archive.add("u1", "1.jpg", user_data="name 1")
    archive.surplus("u1", token)
    report = archive.sync()
    assert token not in archive.in_library()
    assert not [line for line in summary_lines(report) if "not removed yet" in line]


def test_joiners_whose_photos_cannot_be_opened_are_judged_once(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.people(*range(5, 11))

    def refused(path: str, flags: int) -> int:
        if path.endswith(".jpg"):
            raise OSError(errno.EACCES, "Permission denied")
        return os.open(path, flags)

    fake = SimpleNamespace(**{**vars(os), "open": refused})
    monkeypatch.setattr(folder, "os", fake)
    archive.sync(max_changes=Bound(6, percent=False))  # said once
    assert archive.box.count("add") == 3
    archive.sync(max_changes=Bound(5, percent=False))
