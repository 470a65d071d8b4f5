"""What a review of the nightly job has found; each of these fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from checked_library import GROUP, Place, Told
from following import about_to_delete, night, there

from enroll import asking, deleting
from enroll.bench import VerifySettings
from enroll.errors import EnrollError, ExitCode, GuardError, TimeOverError
from enroll.facesearch import FaceSearch
from enroll.forget import ForgetSettings, forget
from enroll.idlist import read_user_ids
from enroll.ledger import Target
from enroll.recorder import now_ms
from enroll.sandbox import Sandbox
from enroll.settings import Bound
from enroll.verify import verify

DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def _short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "BACK_OFF_SECONDS", 0.01)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False, fault_lag=600.0) as running:
        running.create_library(GROUP)
        yield running


@pytest.fixture
def place(box: Sandbox, tmp_path: Path) -> Place:
    there = Place(tmp_path, box)
    there.people(1, 2, 3)
    assert night(there).exit_code is ExitCode.DONE
    return there


def as_listed(place: Place) -> list[tuple[str, str]]:
    return sorted((user_id, user_data) for user_id, user_data, _ in place.rows)


def with_comment(path: Path) -> None:
    """Change the file, and not what is sent of it."""
    whole = path.read_bytes()
    path.write_bytes(whole[:2] + b"\xff\xfe\x00\x07hello" + whole[2:])


@pytest.mark.parametrize("later", [("face_info", "auth"), ("delete", "unknown-code")])
def test_a_deletion_whose_answer_is_lost_is_not_forgotten_when_the_next_call_is_refused(
    place: Place, later: tuple[str, str]
) -> None:
    row = place.rows.pop(0)
    place.box.script(["500-after"], call="delete")
    call, fault = later
    if call == "delete":
        place.box.script(["500"] * 5, call="face_info")
    place.box.script([fault], call=call)
    night(place)
    assert [user_id for user_id, _ in there(place)] == ["u2", "u3"]  # it was carried out
    place.rows.insert(0, row)
    for _ in range(3):
        night(place)
    assert there(place) == as_listed(place)


def test_what_a_killed_remove_has_deleted_is_found_out_though_the_next_call_is_refused(
    place: Place,
) -> None:
    face = place.face("u1")
    target = Target(face_token=face.face_token or "", face_id=face.face_id, user_id="u1", run=1)
    with place.writing() as ledger:
        run = ledger.status(runs=1).runs[0]
        assert run
        ledger.removals.intend([target])
    with closing(sqlite3.connect(place.ledger)) as raw, raw:  # the run was no sync's
        raw.execute("UPDATE run SET options = json_set(options, '$.command', 'remove')")
    place.delete(face.face_token or "")
    place.box.script(["unknown-code"], call="delete")
    with suppress(EnrollError):
        place.run()
    for _ in range(2):
        place.run()  # u1 still stands in the manifest
    assert there(place) == as_listed(place)


def test_what_somebody_has_agreed_to_remove_is_finished_though_one_call_is_refused(
    place: Place,
) -> None:
    face = place.face("u1")
    target = Target(face_token=face.face_token or "", face_id=face.face_id, user_id="u1", run=1)
    with place.writing() as ledger:
        ledger.removals.intend([target])
    with closing(sqlite3.connect(place.ledger)) as raw, raw:
        raw.execute("UPDATE run SET options = json_set(options, '$.command', 'remove')")
    del place.rows[0]
    place.box.script(["unknown-code"], call="delete")
    with suppress(EnrollError):
        place.run()
    place.run()
    assert there(place) == as_listed(place)


def test_photos_whose_metadata_alone_was_rewritten_are_no_change_after_a_night_that_was_too_short(
    place: Place,
) -> None:
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        with_comment(place.folder / name)
    with pytest.raises(TimeOverError, match="What was read is kept"):
        night(place, max_duration=1e-6, readers=1)
    report = night(place, max_changes=Bound(0))
    assert report.followed is not None
    assert report.followed.counted.photos == 0


def test_photos_whose_metadata_alone_was_rewritten_are_no_change_after_a_refused_night(
    place: Place,
) -> None:
    for name in ("1.jpg", "2.jpg"):
        with_comment(place.folder / name)
    gone = place.rows.pop()
    with pytest.raises(GuardError):  # for another reason
        night(place, max_changes=Bound(0), max_removals=Bound(0))
    place.rows.append(gone)
    night(place, max_changes=Bound(0))
    assert there(place) == as_listed(place)


def test_a_path_that_only_a_refused_night_has_seen_is_forgotten_too(place: Place) -> None:
    (place.folder / "1.jpg").rename(place.folder / "ada-portrait.jpg")
    place.rows[0] = ("u1", "name 1", "ada-portrait.jpg")
    gone = place.rows.pop()
    with pytest.raises(GuardError):
        night(place, max_removals=Bound(0))
    place.rows.append(gone)
    settings = ForgetSettings(ledger=place.ledger, people=["u1"], timeout=5.0)
    assert forget(settings, lambda: place.credentials, Told()).exit_code is ExitCode.DONE
    for path in place.folder.glob("ledger.sqlite*"):
        assert b"ada-portrait" not in path.read_bytes(), path


@pytest.mark.parametrize("trouble", ["no folder", "no service", "no time"])
def test_who_stands_in_a_list_that_could_not_be_followed_is_marked_anew_when_they_leave_again(
    place: Place, trouble: str
) -> None:
    row = place.rows.pop(0)
    night(place, grace=2.0)
    with closing(sqlite3.connect(place.ledger)) as raw, raw:
        raw.execute("UPDATE leaver SET since = since - ?", [3 * DAY_MS])  # three days ago
    place.rows.insert(0, row)  # is back, on the night before last
    with pytest.raises(EnrollError):
        if trouble == "no folder":
            night(place, grace=2.0, images=place.folder / "not-mounted")
        elif trouble == "no service":
            place.box.script(["auth"], call="group_list")
            night(place, grace=2.0, give_up_after=0.0)
        else:
            with_comment(place.folder / "2.jpg")
            with_comment(place.folder / "3.jpg")
            night(place, grace=2.0, max_duration=1e-6, readers=1)
    place.rows.remove(row)  # gone again, by a bad export
    night(place, grace=2.0)
    assert "u1" in [user_id for user_id, _ in there(place)]


def test_an_old_photo_that_was_in_doubt_goes_in_the_night_that_settles_it(place: Place) -> None:
    place.doubt("u1")  # the call of a night that was killed; the library has the face
    place.photo("1.jpg", 99)
    report = night(place)
    assert report.exit_code is ExitCode.DONE
    assert there(place) == as_listed(place)


def test_a_mark_of_a_night_whose_clock_was_ahead_does_not_keep_a_leaver_for_years(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    del place.rows[0]
    ahead = now_ms() + 3650 * DAY_MS
    with monkeypatch.context() as patched:
        patched.setattr("enroll.sync.now_ms", lambda: ahead)
        night(place, grace=2.0)
    night(place, grace=2.0)  # the clock is right again
    monkeypatch.setattr("enroll.sync.now_ms", lambda: now_ms() + 30 * DAY_MS)
    night(place, grace=2.0)
    assert there(place) == as_listed(place)


def test_ids_in_a_column_that_is_quoted_are_the_ids(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text('"user_id"\n"8400123"\n')
    assert read_user_ids(path) == ["8400123"]


def test_an_intent_recorded_by_a_clock_that_was_ahead_is_no_doubt_for_years(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    about_to_delete(place, "u1", ago=-3650 * 86_400.0)
    assert night(place).exit_code is ExitCode.IN_DOUBT
    monkeypatch.setattr(deleting, "now_ms", lambda: now_ms() + 2 * 3_600_000)
    assert night(place).exit_code is ExitCode.DONE


def test_a_copy_of_an_old_photo_that_lands_after_that_was_replaced_goes_too(place: Place) -> None:
    token = place.add("u1", "1.jpg", user_data="name 1")  # lands late
    place.surplus("u1", token)
    place.photo("1.jpg", 99)
    with closing(sqlite3.connect(place.ledger)) as raw, raw:
        (copy,) = raw.execute("SELECT * FROM surplus").fetchall()
        raw.execute("DELETE FROM surplus")
    night(place)  # the old face is deleted
    with closing(sqlite3.connect(place.ledger)) as raw, raw:
        raw.execute("INSERT INTO surplus VALUES (?, ?, ?, ?)", copy)  # as settling does
    for _ in range(2):
        night(place)
    assert there(place) == as_listed(place)


def test_a_deletion_whose_answer_is_lost_is_not_forgotten_when_the_service_is_away_then(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = place.rows.pop(0)
    place.box.script(["500-after"], call="delete")
    real = deleting._ask_to_delete

    def then_away(*args: object) -> object:
        answer = real(*args)  # type: ignore[arg-type]
        monkeypatch.setattr(FaceSearch, "face_info", nowhere("face_info"))
        monkeypatch.setattr(FaceSearch, "delete", nowhere("delete"))
        return answer

    def nowhere(name: str) -> object:
        call = getattr(FaceSearch, name)

        def away(service: FaceSearch, **named: object) -> object:
            gone = FaceSearch("http://127.0.0.1:9", place.credentials, timeout=1.0)
            try:
                return call(gone, **named)
            finally:
                gone.close()

        return away

    with monkeypatch.context() as patched:
        patched.setattr(deleting, "_ask_to_delete", then_away)
        patched.setattr(FaceSearch, "face_info", FaceSearch.face_info)
        night(place)
    monkeypatch.undo()
    assert [user_id for user_id, _ in there(place)] == ["u2", "u3"]
    place.rows.insert(0, row)
    for _ in range(2):
        night(place)
    assert there(place) == as_listed(place)


def test_the_summary_counts_somebody_whose_old_face_waits_for_the_next_night(
    place: Place,
) -> None:
    place.doubt("u1")
    place.photo("1.jpg", 99)
    report = night(place)
    assert report.followed is not None
    left = len(there(place)) - len(place.rows)
    assert report.followed.kept == left


def test_a_photo_that_is_back_does_not_cost_the_other_while_its_own_deletion_is_open(
    place: Place,
) -> None:
    old = place.face("u1").face_token or ""
    place.photo("1.jpg", 99)
    place.box.script(["500"] * 3, call="delete")
    assert night(place).exit_code is ExitCode.IN_DOUBT
    place.photo("1.jpg", 3)  # as it was
    night(place)
    place.delete(old)  # what was in doubt is carried out after all, within the hour
    assert "u1" in [user_id for user_id, _ in there(place)]


def test_rows_that_a_run_has_only_seen_are_changes_that_no_guard_has_judged(place: Place) -> None:
    place.people(4, 5, 6)
    place.run(limit=1)  # a trial of a wrong list
    with pytest.raises(GuardError):
        night(place, max_changes=Bound(0))


def test_a_leaver_whose_face_verify_has_mended_has_not_been_there_meanwhile(place: Place) -> None:
    copy = place.add("u1", "1.jpg", user_data="name 1")
    place.surplus("u1", copy)
    del place.rows[0]
    night(place, grace=2.0)
    with closing(sqlite3.connect(place.ledger)) as raw, raw:
        raw.execute("UPDATE leaver SET since = since - ?", [3 * DAY_MS])
    place.delete(place.face("u1").face_token or "")
    mending = VerifySettings(ledger=place.ledger, requeue_missing=True)
    verify(mending, lambda: place.credentials, Told())
    night(place, grace=2.0)
    assert there(place) == as_listed(place)
