"""enroll sync: the library is what the manifest says, whatever becomes of a night."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checked_library import GROUP, Place, Told
from following import about_to_delete, as_listed, sync_settings, synced, there
from moved_clock import LaterClock, MovedClock
from small_archive import read_csv
from sqlalchemy.dialects import sqlite

from enroll import clock
from enroll.clock import now_ms
from enroll.commands import sync_compare
from enroll.commands.sync_compare import preview
from enroll.commands.verify import VerifySettings, verify
from enroll.errors import EnrollError, ExitCode, GuardError, TimeOverError
from enroll.ledger import read_ledger
from enroll.ledger.diff_queries import FIND_UNLISTED
from enroll.model import Photo, Status, Unusable
from enroll.photos import PhotoStore, folder, read_photo
from enroll.report.summary import summary_lines
from enroll.run.transitions import mark_sending
from enroll.sandbox import Sandbox
from enroll.settings import Bound, Preparation

pytestmark = pytest.mark.usefixtures("moved_clock")

DAY_MS = 86_400_000


@pytest.fixture
def place(faceless_box: Sandbox, tmp_path: Path) -> Place:
    """Three people, enrolled by a first sync."""
    there = Place(tmp_path, faceless_box)
    there.people(1, 2, 3)
    report = synced(there)
    assert report.exit_code is ExitCode.DONE
    return there


def too_short_a_night(place: Place, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """A night whose time is over when its first photo has been read."""
    late = LaterClock()
    read: Callable[..., Photo | Unusable] = vars(sync_compare)["read_photo"]

    def slowly(path: str, store: PhotoStore, preparation: Preparation) -> Photo | Unusable:
        late.ahead = 600.0
        return read(path, store, preparation)

    with monkeypatch.context() as patched, clock.using(late):
        patched.setattr(sync_compare, "read_photo", slowly)
        synced(place, max_duration=600.0, readers=1, **settings)


def test_a_night_without_a_difference_makes_no_call_but_the_opening_one(place: Place) -> None:
    before = len(place.box.calls)
    report = synced(place)
    assert report.exit_code is ExitCode.DONE
    assert [call.kind for call in place.box.calls[before:]] == ["group_list"]


def test_new_rows_are_added_and_rows_that_are_gone_are_removed(place: Place) -> None:
    place.people(4)
    del place.rows[0]
    report = synced(place)
    assert report.exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)
    assert report.sync_result is not None
    assert (report.sync_result.people, report.sync_result.faces) == (1, 1)
    assert place.face("u1").status is Status.REMOVED


def late_copy(place: Place) -> None:
    """A copy of the face of `u1` lands late, after the face was removed."""
    token = place.add("u1", "1.jpg", user_data="name 1")
    (face,) = place.faces("u1")
    assert face.status is Status.REMOVED
    place.surplus("u1", token)


def test_a_copy_that_lands_after_its_face_was_removed_is_deleted_too(place: Place) -> None:
    del place.rows[0]
    synced(place)
    late_copy(place)
    synced(place)
    assert there(place) == as_listed(place)


def test_such_a_copy_of_somebody_who_is_listed_again_stays(place: Place) -> None:
    row = place.rows.pop(0)
    synced(place)
    late_copy(place)
    place.rows.insert(0, row)
    (place.folder / "1.jpg").unlink()  # so that nothing else shows the person tonight
    synced(place)
    assert there(place) == as_listed(place)


def test_a_changed_photo_is_added_before_the_old_face_is_deleted(place: Place) -> None:
    old = place.face("u1").face_token
    place.photo("1.jpg", 99)
    report = synced(place)
    assert report.exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)
    assert old not in place.in_library()
    kinds = [call.kind for call in place.box.calls]
    assert kinds.index("delete") > len(kinds) - 1 - kinds[::-1].index("add")
    assert report.sync_result is not None and report.sync_result.replaced == 1


def test_a_changed_text_is_added_anew_with_the_same_photo(place: Place) -> None:
    old = place.face("u1").face_token
    place.rows[0] = ("u1", "another name", "1.jpg")
    report = synced(place)
    assert report.exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)
    assert old not in place.in_library()
    face = place.face("u1")
    assert (face.status, face.user_data, face.former_token) == (
        Status.ENROLLED,
        "another name",
        None,
    )
    assert face.face_token in place.in_library()
    assert report.ended.tally.renewed == 1
    before = place.box.count("add")
    synced(place)
    assert place.box.count("add") == before


def test_who_comes_back_later_is_added_anew(place: Place) -> None:
    row = place.rows.pop(0)
    synced(place)
    assert len(there(place)) == 2
    place.rows.insert(0, row)
    assert synced(place).exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)


def test_a_leaver_is_removed_when_the_grace_is_over_and_not_before(place: Place) -> None:
    row = place.rows.pop(0)
    report = synced(place, grace=2.0)
    assert len(there(place)) == 3
    assert report.sync_result is not None
    assert (report.sync_result.counted.waiting, report.sync_result.counted.newly_gone) == (1, 1)
    report = synced(place, grace=2.0)
    assert report.sync_result is not None
    assert (report.sync_result.counted.waiting, report.sync_result.counted.newly_gone) == (1, 0)
    place.rows.insert(0, row)
    report = synced(place, grace=2.0)
    assert report.sync_result is not None
    assert report.sync_result.counted.returned == 1
    assert place.box.count("delete") == 0
    del place.rows[0]
    synced(place, grace=2.0)
    assert len(there(place)) == 3
    synced(place, grace=0.0)
    assert there(place) == as_listed(place)


def test_a_photo_that_turned_unreadable_keeps_the_old_face(place: Place) -> None:
    (place.folder / "1.jpg").write_bytes(b"no picture")
    report = synced(place)
    assert there(place) == as_listed(place)
    assert report.exit_code is ExitCode.SOME_ROWS_FAILED
    assert report.sync_result is not None and report.sync_result.kept == 1
    again = synced(place)
    assert again.exit_code is ExitCode.DONE  # old news
    assert there(place) == as_listed(place)
    place.photo("1.jpg", 77)
    assert synced(place).exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)
    assert place.box.count("delete") == 1


def test_a_row_of_several_that_is_gone_loses_its_face_alone(place: Place) -> None:
    place.photo("extra.jpg", 50)
    place.rows.append(("u1", "name 1", "extra.jpg"))
    synced(place)
    assert len(there(place)) == 4
    place.rows.pop()
    synced(place)
    assert there(place) == as_listed(place)


def test_faces_that_the_ledger_does_not_know_are_never_touched(place: Place) -> None:
    strange = [place.add("u1", "1.jpg"), place.add("nobody", "2.jpg")]
    del place.rows[0]
    synced(place)
    assert set(strange) <= place.in_library()
    assert len(there(place)) == 4


def test_two_texts_for_one_photo_do_not_take_turns(place: Place) -> None:
    place.photo("same.jpg", 3)
    place.rows.append(("u1", "other text", "same.jpg"))
    synced(place)
    before = place.box.count("add")
    synced(place)
    assert place.box.count("add") == before


def test_what_is_added_anew_and_rejected_leaves_the_old_face(place: Place) -> None:
    old = place.face("u1").face_token
    place.rows[0] = ("u1", "another name", "1.jpg")
    place.box.script(["unknown-code"], call="add")
    report = synced(place)
    assert report.ended.tally.kept == 1
    face = place.face("u1")
    assert (face.face_token, face.status, face.user_data) == (old, Status.ENROLLED, "name 1")
    assert old in place.in_library()
    synced(place)
    assert there(place) == as_listed(place)


def test_a_run_beside_it_deletes_nothing(place: Place) -> None:
    del place.rows[0]
    place.rows[0] = ("u2", "another", "2.jpg")
    place.run()
    assert len(there(place)) == 3
    assert place.box.count("delete") == 0


def test_the_ledger_says_which_runs_were_syncs(place: Place) -> None:
    reader = read_ledger(place.ledger)
    (run,) = reader.status().runs
    reader.close()
    assert run.start.options["command"] == "sync"


def test_a_text_that_will_not_do_is_old_news_the_second_night(place: Place) -> None:
    place.rows[0] = ("u1", "x" * 3000, "1.jpg")
    report = synced(place)
    assert (report.exit_code, report.ended.tally.kept) == (ExitCode.SOME_ROWS_FAILED, 1)
    place.people(4)
    report = synced(place)
    assert (report.exit_code, report.ended.tally.kept) == (ExitCode.DONE, 1)
    place.rows[0] = ("u1", "short", "1.jpg")
    assert synced(place).exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)


@pytest.mark.parametrize("image", ["1.jpg", "extra.jpg"])  # one of them is sent first
def test_an_old_face_stays_until_every_row_of_its_person_has_its_new_text(
    place: Place, image: str
) -> None:
    (before,) = place.faces("u1")
    place.photo("extra.jpg", 50)
    place.rows.append(("u1", "name 1", "extra.jpg"))
    synced(place)
    (extra,) = [face for face in place.faces("u1") if face != before]
    place.photo(image, 99)
    place.rows = [
        (user_id, "new" if user_id == "u1" else text, path) for user_id, text, path in place.rows
    ]
    place.box.script([None, "unknown-code"], user_id="u1")
    synced(place)
    assert (before if image == "1.jpg" else extra).face_token in place.in_library()
    assert synced(place).exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)


def test_a_row_that_breaks_a_rule_now_says_so_beside_its_token_until_it_is_mended(
    place: Place,
) -> None:
    token = place.face("u1").face_token
    well = place.rows[0]
    place.rows[0] = ("u1", "x" * 130, "1.jpg")
    assert synced(place).exit_code is ExitCode.SOME_ROWS_FAILED
    assert told_of(place, "u1") == ("enrolled", token, "USER_DATA_TOO_LONG")
    assert synced(place).exit_code is ExitCode.DONE  # it is no news any more
    place.rows[0] = well
    assert synced(place).exit_code is ExitCode.DONE
    assert told_of(place, "u1") == ("enrolled", token, "")
    assert place.box.count("add") == 3


def test_a_text_that_could_not_be_added_anew_is_news_for_one_night(place: Place) -> None:
    place.rows[0] = ("u1", "another name", "1.jpg")
    place.box.script(["unknown-code"] * 2, user_id="u1")
    assert synced(place).exit_code is ExitCode.SOME_ROWS_FAILED
    assert synced(place).exit_code is ExitCode.DONE
    assert there(place)[0] == ("u1", "name 1")
    assert synced(place).exit_code is ExitCode.DONE
    assert there(place)[0] == ("u1", "another name")


def test_who_comes_back_with_a_photo_that_stands_twice_in_the_list_is_added_once(
    place: Place,
) -> None:
    whole = place.photo("9.jpg", 27).read_bytes()
    for name, comment in (("9.jpg", b"hello"), ("copy.jpg", b"again")):
        (place.folder / name).write_bytes(whole[:2] + b"\xff\xfe\x00\x07" + comment + whole[2:])
    others = list(place.rows)
    twice = [("u9", "name 9", "9.jpg"), ("u9", "name 9", "copy.jpg")]
    for order in (twice, twice, twice[::-1]):
        place.rows[:] = others + order
        assert synced(place).exit_code is ExitCode.DONE
        assert [user_id for user_id, _ in there(place)].count("u9") == 1
        place.rows[:] = others
        assert synced(place).exit_code is ExitCode.DONE


def test_nights_that_are_too_short_to_read_what_was_touched_get_on_all_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: str, store: PhotoStore, preparation: Preparation) -> Photo | Unusable:
        read.append(path)
        return read_photo(path, store, preparation)

    monkeypatch.setattr(sync_compare, "read_photo", counted)
    for path in place.folder.glob("*.jpg"):
        path.write_bytes(path.read_bytes())
    calls = len(place.box.calls)
    while len(read) < 3:
        before = len(read)
        with pytest.raises(TimeOverError, match="What was read is kept"):
            too_short_a_night(place, monkeypatch)
        assert before < len(read)
    assert len(place.box.calls) == calls
    report = synced(place)
    assert (report.exit_code, len(set(read)), len(read)) == (ExitCode.DONE, 3, 3)
    assert report.ended.tally.due == 0  # nor has the run anything to read


def test_who_is_back_keeps_the_face_that_a_dead_night_was_about_to_delete(place: Place) -> None:
    old = place.face("u1").face_token
    about_to_delete(place, "u1")
    (place.folder / "1.jpg").unlink()  # so that it could not be added again
    report = synced(place)
    assert report.exit_code is ExitCode.DONE
    assert place.box.count("delete") == 0
    assert place.face("u1").face_token == old
    assert there(place) == as_listed(place)


def test_a_deletion_that_may_still_be_carried_out_stays_open_until_it_cannot(
    place: Place,
) -> None:
    about_to_delete(place, "u1", ago=60.0)
    first = synced(place)
    assert (first.exit_code, first.ended.tally.undeleted) == (ExitCode.IN_DOUBT, 1)
    place.delete(place.face("u1").face_token or "")  # it is carried out now
    second = synced(place)
    assert second.exit_code is ExitCode.DONE
    assert second.ended.tally.enrolled_now == 1
    assert there(place) == as_listed(place)


def test_a_run_deletes_nothing_that_a_dead_sync_was_about_to(place: Place) -> None:
    about_to_delete(place, "u1", "u2")
    del place.rows[0]
    place.run()
    assert [user_id for user_id, _ in there(place)] == ["u1", "u2", "u3"]
    assert synced(place).exit_code is ExitCode.DONE  # which is for the next sync to do
    assert there(place) == as_listed(place)


def test_what_a_dead_night_has_deleted_is_found_to_be_gone(place: Place) -> None:
    about_to_delete(place, "u1", "u2", ago=0.0)
    place.delete(*(place.face(user_id).face_token or "" for user_id in ("u1", "u2")))
    del place.rows[0]
    report = synced(place)
    assert report.exit_code is ExitCode.DONE
    assert report.ended.tally.enrolled_now == 1
    assert place.face("u1").status is Status.REMOVED
    assert there(place) == as_listed(place)


def test_who_has_not_the_text_of_the_list_yet_is_counted_and_has_it_the_next_night(
    place: Place,
) -> None:
    being = mark_sending(place.face("u1"), at=now_ms(), run=1, expires=0.0, user_data="B")
    place.record(replace(being, status=Status.IN_DOUBT, code="INTERRUPTED", expires=0.0))
    place.add("u1", "1.jpg", user_data="B")  # the call of a night that was killed
    place.rows[0] = ("u1", "C", "1.jpg")
    first = synced(place)
    assert first.exit_code is ExitCode.ENDED_EARLY
    assert first.sync_result is not None
    assert first.sync_result.kept == 1
    assert there(place) == [("u1", "B"), ("u2", "name 2"), ("u3", "name 3")]
    second = synced(place)
    assert second.exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)


@pytest.mark.parametrize("text", ["another name", "x" * 130])
def test_a_row_without_its_photo_and_with_another_text_keeps_its_persons_other_faces(
    place: Place, text: str
) -> None:
    place.photo("second.jpg", 55)
    place.rows.append(("u1", "name 1", "second.jpg"))
    synced(place)
    place.rows.pop()
    (place.folder / "1.jpg").rename(place.folder / "away.jpg")
    place.rows[0] = ("u1", text, "1.jpg")
    for _ in range(2):
        synced(place)
        assert [user_id for user_id, _ in there(place)].count("u1") == 2
    (place.folder / "away.jpg").rename(place.folder / "1.jpg")
    place.rows[0] = ("u1", "a third name", "1.jpg")
    assert synced(place).exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)


def edited(place: Place, name: str, comment: bytes) -> None:
    """Another program writes the photo: other bytes of the file, and the same are sent."""
    path = place.folder / name
    whole = path.read_bytes()
    head = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    path.write_bytes(whole[:2] + head + whole[2:])


def test_a_photo_that_was_edited_while_its_row_broke_a_rule_has_the_mended_text(
    place: Place,
) -> None:
    place.rows[0] = ("u1", "x" * 130, "1.jpg")
    synced(place)
    edited(place, "1.jpg", b"edited")
    synced(place)
    place.rows[0] = ("u1", "another name", "1.jpg")
    assert synced(place).exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)


def test_photos_that_were_edited_before_a_night_that_was_cut_off_are_no_new_ones(
    place: Place,
) -> None:
    for number in (1, 2, 3):
        edited(place, f"{number}.jpg", b"edited")
    place.people(4)
    with pytest.raises(GuardError):
        synced(place, max_changes=Bound(0))  # it has read them, and does no more
    place.rows.pop()
    report = synced(place, max_changes=Bound(0))
    assert report.sync_result is not None
    assert (report.exit_code, report.sync_result.counted.photos) == (ExitCode.DONE, 0)


def test_photos_whose_metadata_alone_was_rewritten_are_no_change_after_a_night_that_was_too_short(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        edited(place, name, b"hello")
    with pytest.raises(TimeOverError, match="What was read is kept"):
        too_short_a_night(place, monkeypatch)
    report = synced(place, max_changes=Bound(0))
    assert report.sync_result is not None
    assert report.sync_result.counted.photos == 0


def test_photos_whose_metadata_alone_was_rewritten_are_no_change_after_a_refused_night(
    place: Place,
) -> None:
    for name in ("1.jpg", "2.jpg"):
        edited(place, name, b"hello")
    gone = place.rows.pop()
    with pytest.raises(GuardError):  # for another reason
        synced(place, max_changes=Bound(0), max_removals=Bound(0))
    place.rows.append(gone)
    synced(place, max_changes=Bound(0))
    assert there(place) == as_listed(place)


@pytest.mark.parametrize("trouble", ["no folder", "no service", "no time"])
def test_who_stands_in_a_list_that_could_not_be_followed_is_marked_anew_when_they_leave_again(
    place: Place, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = place.rows.pop(0)
    synced(place, grace=2.0)
    with closing(sqlite3.connect(place.ledger)) as raw, raw:
        raw.execute("UPDATE absence SET since = since - ?", [3 * DAY_MS])  # three days ago
    place.rows.insert(0, row)  # is back, on the night before last
    with pytest.raises(EnrollError):
        if trouble == "no folder":
            synced(place, grace=2.0, images=place.folder / "not-mounted")
        elif trouble == "no service":
            place.box.script(["auth"], call="group_list")
            synced(place, grace=2.0, give_up_after=0.0)
        else:
            edited(place, "2.jpg", b"hello")
            edited(place, "3.jpg", b"hello")
            too_short_a_night(place, monkeypatch, grace=2.0)
    place.rows.remove(row)  # gone again, by a bad export
    synced(place, grace=2.0)
    assert "u1" in [user_id for user_id, _ in there(place)]


def test_an_old_photo_that_was_in_doubt_goes_in_the_night_that_settles_it(place: Place) -> None:
    place.doubt("u1")  # the call of a night that was killed; the library has the face
    place.photo("1.jpg", 99)
    report = synced(place)
    assert report.exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)


def test_a_mark_of_a_night_whose_clock_was_ahead_does_not_keep_a_leaver_for_years(
    place: Place,
) -> None:
    del place.rows[0]
    for days in (3650, 0, 30):  # ahead, right again, later
        with clock.using(MovedClock(days * DAY_MS / 1000)):
            synced(place, grace=2.0)
    assert there(place) == as_listed(place)


def test_the_summary_counts_somebody_whose_old_face_waits_for_the_next_night(
    place: Place,
) -> None:
    place.doubt("u1")
    place.photo("1.jpg", 99)
    report = synced(place)
    assert report.sync_result is not None
    left = len(there(place)) - len(place.rows)
    assert report.sync_result.kept == left


def test_rows_that_a_run_has_only_seen_are_changes_that_no_guard_has_judged(place: Place) -> None:
    place.people(4, 5, 6)
    place.run(limit=1)  # a trial of a wrong list
    with pytest.raises(GuardError):
        synced(place, max_changes=Bound(0))


def test_a_leaver_whose_face_verify_has_mended_has_not_been_there_meanwhile(place: Place) -> None:
    copy = place.add("u1", "1.jpg", user_data="name 1")
    place.surplus("u1", copy)
    del place.rows[0]
    synced(place, grace=2.0)
    with closing(sqlite3.connect(place.ledger)) as raw, raw:
        raw.execute("UPDATE absence SET since = since - ?", [3 * DAY_MS])
    place.delete(place.face("u1").face_token or "")
    mending = VerifySettings(ledger=place.ledger, requeue_missing=True)
    verify(mending, lambda: place.credentials, Told())
    synced(place, grace=2.0)
    assert there(place) == as_listed(place)


def test_a_photo_whose_first_face_was_removed_is_known_by_the_face_that_it_has_now(
    place: Place,
) -> None:
    plain = (place.folder / "1.jpg").read_bytes()
    place.photo("1.jpg", 99)
    synced(place)
    (place.folder / "1.jpg").write_bytes(plain)
    edited(place, "1.jpg", b"edited")
    synced(place)
    (place.folder / "1.jpg").write_bytes(plain)
    synced(place)
    report = synced(place, max_changes=Bound(0))
    assert report.sync_result is not None
    assert report.sync_result.counted.photos == 0


def told_of(place: Place, user_id: str) -> tuple[str, str, str]:
    (line,) = [
        one for one in read_csv(place.folder / "staff.results.csv") if one["user_id"] == user_id
    ]
    return line["status"], line["face_token"], line["error"]


def marks(place: Place) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(place.ledger)) as raw:
        return raw.execute("SELECT user_id, since, run FROM absence").fetchall()


def test_a_joiner_whom_a_run_did_not_come_to_is_added_with_the_text_of_the_manifest(
    place: Place,
) -> None:
    place.people(4, 5, 6)
    place.run(limit=1)  # two rows are pending, with the texts of today's list
    place.rows[3:] = [
        (user_id, f"{text}, renamed", image) for user_id, text, image in place.rows[3:]
    ]
    synced(place, limit=1)
    synced(place)
    added = [(face.user_id, face.user_data) for face in place.box.faces(GROUP)]
    assert sorted(added)[3:] == as_listed(place)[3:]


def test_a_dry_run_changes_nothing_in_the_ledger(place: Place) -> None:
    row = place.rows.pop(0)
    synced(place, grace=2.0)
    before = marks(place)
    assert before
    place.rows.insert(0, row)  # an old list, looked at by hand
    list(preview(sync_settings(place, grace=2.0)))
    assert marks(place) == before


def test_a_dry_run_goes_on_beside_a_ledger_that_it_may_only_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    list(preview(sync_settings(place)))


def test_a_dry_run_does_not_wait_for_a_run_that_is_writing(place: Place) -> None:
    with closing(sqlite3.connect(place.ledger, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        list(preview(sync_settings(place)))


def test_a_mark_holds_though_somebody_else_was_marked_before_the_face_was_added(
    place: Place,
) -> None:
    place.people(4)
    synced(place)
    del place.rows[0]
    synced(place, grace=30.0)  # u1 is marked as gone
    place.photo("5a.jpg", 91)
    place.photo("5b.jpg", 97)
    place.rows += [("u5", "name 5", "5a.jpg"), ("u5", "name 5", "5b.jpg")]
    place.run()  # adds u5
    place.rows = [row for row in place.rows if row[0] != "u5"]
    synced(place, grace=30.0)  # u5 is marked as gone
    (before,) = [mark for mark in marks(place) if mark[0] == "u5"]
    place.delete(place.faces("u5")[0].face_token or "")  # by another program
    settings = VerifySettings(ledger=place.ledger, requeue_missing=True)
    verify(settings, lambda: place.credentials, Told())
    synced(place, grace=30.0)
    (after,) = [mark for mark in marks(place) if mark[0] == "u5"]
    assert after == before  # nobody has added a face of u5 since


def test_whether_a_face_was_added_since_a_mark_is_asked_of_that_mark_alone() -> None:
    sql = str(FIND_UNLISTED.compile(dialect=sqlite.dialect()))
    assert "FROM event, leaver" not in sql  # each mark held against every other one


def test_no_leaver_is_counted_below_nothing(place: Place) -> None:
    del place.rows[0]
    synced(place)
    token = place.add("u1", "1.jpg", user_data="name 1")
    place.surplus("u1", token)
    report = synced(place)
    assert token not in place.in_library()
    assert not [line for line in summary_lines(report) if "not removed yet" in line]


def test_joiners_whose_photos_cannot_be_opened_are_judged_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.people(*range(5, 11))

    def refused(path: str, flags: int) -> int:
        if path.endswith(".jpg"):
            raise OSError(errno.EACCES, "Permission denied")
        return os.open(path, flags)

    fake = SimpleNamespace(**{**vars(os), "open": refused})
    monkeypatch.setattr(folder, "os", fake)
    synced(place, max_changes=Bound(6, percent=False))  # said once
    assert place.box.count("add") == 3
    synced(place, max_changes=Bound(5, percent=False))
