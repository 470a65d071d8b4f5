"""Proofs of a review of the nightly job."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checked_library import GROUP, Place, Told
from following import about_to_delete, night, sync_settings, there
from real_command import Command, account_of
from sqlalchemy.dialects import sqlite

from enroll.calling import asking
from enroll.calling.bench import VerifySettings
from enroll.calling.deleting import ROUNDS
from enroll.errors import ExitCode, GuardError, ServiceError
from enroll.ledger.comparing import FIND_GONE
from enroll.ledger.forgetting import _plain
from enroll.removing.forget import ForgetSettings, Forgotten, forget
from enroll.removing.remove import Removed, RemoveSettings, remove
from enroll.repair.verify import verify
from enroll.reports.summary import urgent_lines
from enroll.rows.idlist import read_user_ids
from enroll.sandbox import Sandbox
from enroll.settings import Bound
from enroll.sync.night import preview


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


def forgotten(place: Place, *people: str, told: Told | None = None, **changed: Any) -> Forgotten:
    settings = ForgetSettings(ledger=place.ledger, people=people)
    return forget(replace(settings, **changed), lambda: place.credentials, told or Told())


def removed(place: Place, told: Told | None = None, **changed: Any) -> Removed:
    settings = replace(RemoveSettings(ledger=place.ledger), **changed)
    return remove(settings, lambda: place.credentials, told or Told())


def ids(place: Place, *people: str) -> Path:
    path = place.folder / "ids.txt"
    path.write_text("".join(f"{one}\n" for one in people), encoding="utf-8")
    return path


def test_a_joiner_whom_a_run_did_not_come_to_is_added_with_the_text_of_the_manifest(
    place: Place,
) -> None:
    place.people(4, 5, 6)
    place.run(limit=1)  # two rows are pending, with the texts of today's list
    place.rows[3:] = [
        (user_id, f"{text}, renamed", image) for user_id, text, image in place.rows[3:]
    ]
    night(place, limit=1)
    night(place)
    added = [(face.user_id, face.user_data) for face in place.box.faces(GROUP)]
    assert sorted(added)[3:] == as_listed(place)[3:]


def test_a_leaver_whom_a_dated_export_has_enrolled_is_no_news_of_another_manifest(
    place: Place,
) -> None:
    def tonight(day: int, **changed: Any) -> Any:
        dated = place.folder / f"staff-{day}.csv"
        dated.write_bytes(place.manifest().read_bytes())
        return night(place, manifest=dated, write_results=False, **changed)

    place.people(4)
    tonight(2)
    place.people(5)
    tonight(3)
    del place.rows[3]  # u4, who joined with the export of day 2, leaves
    report = tonight(4, grace=2.0)
    assert report.exit_code is ExitCode.DONE
    assert not [line for line in urgent_lines(report) if "another" in line or "none" in line], (
        urgent_lines(report)
    )


def test_the_same_forget_goes_on_though_one_of_its_people_had_an_id_that_nobody_can_have(
    place: Place,
) -> None:
    place.photo("odd.jpg", 80)
    place.rows.append(("anna bell", "Anna", "odd.jpg"))  # the service would take no such id
    night(place)
    place.box.script(["500"] * ROUNDS, call="delete")  # u1 cannot be finished tonight
    first = forgotten(place, "u1", "anna bell")
    assert set(first.left) == {"u1"}
    again = forgotten(place, "u1", "anna bell")  # as it was told to do
    assert again.exit_code is ExitCode.DONE


def test_a_remove_that_is_not_agreed_to_deletes_nothing(place: Place) -> None:
    about_to_delete(place, "u1")  # by a killed sync; u1 stands in the list again
    told = Told(agrees=False)
    removed(place, told, user_ids=ids(place, "u2"))
    assert "Nothing was deleted." in told.text
    assert [user_id for user_id, _ in there(place)] == ["u1", "u2", "u3"]


def test_what_somebody_has_agreed_to_remove_is_finished_though_a_sync_was_to_delete_it_before(
    place: Place,
) -> None:
    about_to_delete(place, "u1", ago=86_400.0)
    place.box.script(["500"] * 3, call="delete")
    told = Told()
    found = removed(place, told, user_ids=ids(place, "u1"))
    assert found.unknown
    assert place.box.count("delete") == 3
    with closing(sqlite3.connect(place.ledger)) as raw, raw:
        raw.execute("UPDATE event SET at = at - 7200000")  # two hours later
    del place.rows[0]
    place.run()
    assert [user_id for user_id, _ in there(place)] == ["u2", "u3"]


def test_a_quote_in_a_list_of_ids_does_not_make_one_id_of_two(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text('"12\n34\n56\n', encoding="utf-8")
    assert "123456" not in read_user_ids(path)


def marks(place: Place) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(place.ledger)) as raw:
        return raw.execute("SELECT user_id, since, run FROM leaver").fetchall()


def test_a_dry_run_changes_nothing_in_the_ledger(place: Place) -> None:
    row = place.rows.pop(0)
    night(place, grace=2.0)
    before = marks(place)
    assert before
    place.rows.insert(0, row)  # an old list, looked at by hand
    list(preview(sync_settings(place, grace=2.0)))
    assert marks(place) == before


def test_a_dry_run_goes_on_beside_a_ledger_that_it_may_only_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enroll.ledger.files.os.access", lambda path, mode: False)
    list(preview(sync_settings(place)))


def test_a_dry_run_does_not_wait_for_a_run_that_is_writing(place: Place) -> None:
    with closing(sqlite3.connect(place.ledger, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        list(preview(sync_settings(place)))


def test_a_mark_holds_though_somebody_else_was_marked_before_the_face_was_added(
    place: Place,
) -> None:
    place.people(4)
    night(place)
    del place.rows[0]
    night(place, grace=30.0)  # u1 is marked as gone
    place.photo("5a.jpg", 91)
    place.photo("5b.jpg", 97)
    place.rows += [("u5", "name 5", "5a.jpg"), ("u5", "name 5", "5b.jpg")]
    place.run()  # adds u5
    place.rows = [row for row in place.rows if row[0] != "u5"]
    night(place, grace=30.0)  # u5 is marked as gone
    (before,) = [mark for mark in marks(place) if mark[0] == "u5"]
    place.delete(place.faces("u5")[0].face_token or "")  # by another program
    settings = VerifySettings(ledger=place.ledger, requeue_missing=True)
    verify(settings, lambda: place.credentials, Told())
    night(place, grace=30.0)
    (after,) = [mark for mark in marks(place) if mark[0] == "u5"]
    assert after == before  # nobody has added a face of u5 since


def test_people_with_nearly_the_same_id_are_looked_for_in_one_go(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = 300
    with closing(sqlite3.connect(place.ledger)) as raw, raw:
        raw.executemany(
            "INSERT INTO row VALUES (?, ?, '', NULL, NULL, 'invalid', 'X', '', 1)",
            [(f"000{number}", f"/p/{number}.jpg") for number in range(1000, 1000 + people)],
        )
    asked = 0

    def plain(user_id: str) -> str:
        nonlocal asked
        asked += 1
        return _plain(user_id)

    monkeypatch.setattr("enroll.ledger.forgetting._plain", plain)
    with place.writing() as ledger:
        found = ledger.forgetting.strangers([str(n) for n in range(1000, 1000 + people)])
    assert len(found) == people and all(len(others) == 1 for others in found.values())
    assert asked <= 10 * people


@pytest.mark.parametrize("from_file", [False, True])
def test_who_stands_in_the_ledger_with_a_blank_before_the_id_can_be_forgotten(
    place: Place, from_file: bool
) -> None:
    place.photo("odd.jpg", 80)
    place.rows.append((" ada", "Ada Lovelace", "odd.jpg"))
    night(place)
    assert " ada" in [entry.user_id for entry in place.entries()]
    command = Command(place.folder / "home", place.folder, account_of(place.box))
    whom = ("--user-ids", str(ids(place, " ada"))) if from_file else ("--user-id", " ada")
    done = command("forget", "--ledger", str(place.ledger), "--yes", *whom)
    assert done.code == 0, done
    assert "Ada Lovelace" not in [entry.user_data for entry in place.entries()]


def test_people_whose_photos_came_a_night_later_are_joiners_that_a_guard_judges(
    place: Place,
) -> None:
    place.rows += [(f"u{n}", f"name {n}", f"{n}.jpg") for n in range(10, 30)]
    night(place)  # no photo of theirs is there yet: nobody joins
    for n in range(10, 30):
        place.photo(f"{n}.jpg", n)
    with pytest.raises(GuardError):
        night(place, max_changes=Bound(10))
    assert len(there(place)) == 3


def test_a_run_begins_though_the_account_may_not_ask_about_single_faces(place: Place) -> None:
    about_to_delete(place, "u1")
    place.people(4)
    place.box.script(["auth"] * 100, call="face_info")
    place.run()
    assert ("u4", "name 4") in there(place)


def test_faces_that_are_known_to_be_gone_are_counted_though_forget_could_not_go_on(
    place: Place,
) -> None:
    place.add("x9", "1.jpg")
    place.add("x9", "2.jpg")  # of somebody whom the ledger does not know
    place.box.script(["500-after", "unknown-code"], call="delete")
    place.box.script(["stale"] + ["500"] * asking.TRIES, call="face_info")
    with pytest.raises(ServiceError):
        forgotten(place, "x9", max_in_flight=1)
    assert "x9" not in [user_id for user_id, _ in there(place)]
    again = forgotten(place, "x9")
    assert again.in_all >= 1


def test_whether_a_face_was_added_since_a_mark_is_asked_of_that_mark_alone() -> None:
    sql = str(FIND_GONE.compile(dialect=sqlite.dialect()))
    assert "FROM event, leaver" not in sql  # each mark held against every other one
