"""What a sync refuses to carry out: judged before any call, with the reason and the remedy."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from archive import GROUP, Archive, Told, read_csv
from cases import cases
from moved_clock import standin
from real_command import Command, account_of

from enroll.clock import now_ms
from enroll.commands.remove import RemoveSettings, remove
from enroll.commands.run_closing import Report
from enroll.commands.sync import sync_manifest
from enroll.commands.sync_compare import preview
from enroll.commands.sync_guards import Guard, difference_lines, refusals
from enroll.errors import ExitCode, GuardError
from enroll.ledger import DiffCounts, read_ledger
from enroll.report.summary import urgent_lines
from enroll.sandbox import Sandbox
from enroll.settings import Bound, SyncSettings

pytestmark = pytest.mark.usefixtures("moved_clock")

ONE, TEN = Bound(1, percent=True), Bound(10, percent=True)
GUARDED: dict[str, Any] = {"max_removals": ONE, "max_changes": TEN, "max_missing": TEN}


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with standin(detect=False) as running:
        running.create_library(GROUP)
        yield running


@pytest.fixture
def archive(box: Sandbox, tmp_path: Path) -> Archive:
    """Thirty people, enrolled by a first sync: `0101` and so on."""
    there = Archive(tmp_path, box)
    for number in range(1, 31):
        there.photo(f"{number}.jpg", number * 3)
        there.rows.append((f"0{100 + number}", f"name {number}", f"{number}.jpg"))
    # In the list's order: photos are sent in the order in which they have been read.
    assert there.sync(max_in_flight=1, readers=1).exit_code is ExitCode.DONE
    return there


def refused(archive: Archive, **changed: Any) -> str:
    """The message of a sync that is refused, before any call and without any change."""
    calls, before = len(archive.box.calls), archive.there()
    with pytest.raises(GuardError) as caught:
        archive.sync(**{**GUARDED, **changed})
    assert len(archive.box.calls) == calls
    assert archive.there() == before
    assert {entry.status.value for entry in archive.entries()} == {"enrolled"}
    return str(caught.value)


def judged(**counts: Any) -> list[Guard]:
    settings = SyncSettings(manifest=Path("m.csv"), group_id="g")
    return [one.guard for one in refusals(DiffCounts(**{"rows": 1000, **counts}), settings)]


@cases(
    ("counts", "guards"),
    [
        ({"people": 1000, "leaving": 50, "together": 10}, []),
        ({"people": 1000, "leaving": 11, "together": 11}, [Guard.REMOVALS]),
        ({"people": 1000, "leaving": 6, "together": 6, "dropped": 5}, [Guard.REMOVALS]),
        ({"people": 1000, "superseded": 11}, [Guard.REMOVALS]),
        ({"people": 1000, "together": 5, "dropped": 3, "superseded": 2}, []),
        ({"people": 5000, "together": 50}, []),
        ({"people": 5000, "newly_gone": 51}, [Guard.GONE]),
        ({"people": 20, "newly_gone": 10}, []),
        ({"people": 20, "newly_gone": 11}, [Guard.GONE]),
        ({"people": 1000, "joiners": 50, "photos": 30, "user_data": 20}, []),
        ({"people": 1000, "joiners": 50, "photos": 30, "user_data": 21}, [Guard.CHANGES]),
        ({"people": 1000, "joiners": 1000, "first": True}, []),
        ({"people": 0, "joiners": 1000}, []),
        ({"people": 0, "missing": 100}, []),
        ({"people": 0, "missing": 101, "first": True}, [Guard.MISSING]),
        ({"rows": 0}, [Guard.EMPTY]),
        ({"rows": 0, "people": 5, "newly_gone": 5, "first": True}, [Guard.EMPTY]),
    ],
)
def test_how_much_may_be_done(counts: dict[str, Any], guards: list[Guard]) -> None:
    assert judged(**counts) == guards


def test_a_number_is_taken_as_it_is_and_a_share_has_a_least() -> None:
    assert Bound(3).most(1000, least=10) == 3
    assert Bound(0).most(1000, least=10) == 0
    assert Bound(1, percent=True).most(1000, least=10) == 10
    assert Bound(1, percent=True).most(5000, least=10) == 50
    assert Bound(0.5, percent=True).most(10_000) == 50


def test_half_a_file_is_refused_and_no_day_is_counted(archive: Archive) -> None:
    rows, archive.rows = archive.rows, archive.rows[:15]
    said = refused(archive)
    assert "15 of the 30 people" in said
    assert "the file was probably cut off" in said
    assert "--max-removals 15" in said
    archive.rows = rows
    report = archive.sync(**GUARDED)
    assert report.sync_result is not None
    assert report.sync_result.counted.returned == 0  # nobody was marked as gone


def test_lost_leading_zeros_are_told(archive: Archive) -> None:
    archive.rows = [(user_id.lstrip("0"), text, image) for user_id, text, image in archive.rows]
    assert "leading zeros were probably lost" in refused(archive)


def test_swapped_columns_are_told(archive: Archive) -> None:
    archive.rows = [(text, user_id, image) for user_id, text, image in archive.rows]
    assert "the columns were probably renamed or swapped" in refused(archive)


def test_renamed_people_are_told(archive: Archive) -> None:
    archive.rows = [(f"new-{user_id}", text, image) for user_id, text, image in archive.rows]
    assert "the user ids were probably renamed" in refused(archive)


def test_texts_that_became_empty_are_told(archive: Archive) -> None:
    archive.rows = [(user_id, "", image) for user_id, _, image in archive.rows]
    said = refused(archive, max_changes=Bound(10))
    assert "30 faces would be added" in said
    assert "line 2" in said
    assert "Their user_data has become empty" in said
    assert "--max-changes 30" in said


def test_photos_that_were_only_touched_or_moved_are_no_change(archive: Archive) -> None:
    for number in range(1, 31):
        photo = archive.folder / f"{number}.jpg"
        photo.rename(photo.with_name(f"moved-{number}.jpg"))
        (archive.folder / f"moved-{number}.jpg").touch()
    archive.rows = [(user_id, text, f"moved-{image}") for user_id, text, image in archive.rows]
    before = archive.box.count("add")
    assert archive.sync(**{**GUARDED, "max_changes": Bound(0)}).exit_code is ExitCode.DONE
    assert archive.box.count("add") == before
    assert len(archive.there()) == 30


def test_photos_that_are_missing_are_refused(archive: Archive) -> None:
    for number in range(1, 5):
        (archive.folder / f"{number}.jpg").unlink()
    said = refused(archive)
    assert "4 of 30 photos are missing; the limit is 3" in said
    assert archive.sync(**{**GUARDED, "max_missing": Bound(4)}).exit_code is ExitCode.DONE
    assert len(archive.there()) == 30


@pytest.mark.parametrize("empty", [True, False])
def test_a_folder_of_photos_that_is_empty_or_gone_is_refused(archive: Archive, empty: bool) -> None:
    photos = archive.folder / "photos"
    photos.mkdir()
    for number in range(1, 31):
        shutil.move(archive.folder / f"{number}.jpg", photos)
    archive.sync(images=photos)
    shutil.rmtree(photos)
    if empty:
        photos.mkdir()
        assert "its share is probably not mounted" in refused(archive, images=photos)
    else:
        assert "gone" in refused(archive, images=photos)
    assert "does not exist" in refused(archive, images=archive.folder / "nowhere")


@pytest.mark.parametrize("lift", [{}, {"max_removals": TEN, "max_changes": Bound(1000)}])
def test_a_manifest_without_rows_is_always_refused(archive: Archive, lift: dict[str, Any]) -> None:
    archive.rows = []
    assert "has no rows" in refused(archive, **lift)


def test_a_first_sync_that_was_refused_leaves_no_ledger(box: Sandbox, tmp_path: Path) -> None:
    archive = Archive(tmp_path, box)
    archive.people(1)
    archive.rows.append(("u2", "", "nowhere.jpg"))
    with pytest.raises(GuardError):
        archive.sync(**GUARDED)
    assert not archive.ledger.exists()


def test_a_refused_night_is_on_record_and_what_died_before_it_is_not_forgotten(
    archive: Archive,
) -> None:
    rows, archive.rows = archive.rows, archive.rows[:1]
    refused(archive)
    reader = read_ledger(archive.ledger)
    last = reader.status().runs[0]
    reader.close()
    assert last.end is not None
    assert (last.end.exit_code, last.start.options["command"]) == (8, "sync")
    assert "Nothing was done" in last.end.reason
    archive.rows = rows
    assert archive.sync(**GUARDED).exit_code is ExitCode.DONE


def test_the_ledger_keeps_no_user_id_of_a_refusal_that_shows_them(archive: Archive) -> None:
    del archive.rows[1:]
    with pytest.raises(GuardError, match="Among them: 01"):
        sync_manifest(
            archive.sync_settings(**GUARDED), lambda: archive.credentials, show_user_ids=True
        )
    reader = read_ledger(archive.ledger)
    (last,) = reader.status(runs=1).runs
    reader.close()
    assert last.end is not None
    assert "29 of the 30 people" in last.end.reason
    assert "0102" not in last.end.reason


def test_what_was_accepted_and_not_done_is_not_counted_again(archive: Archive) -> None:
    # A night that replaced the photos of twelve, under new names, and died before it deleted.
    for number in range(1, 13):
        archive.photo(f"new-{number}.jpg", 200 + number)
        user_id, text, _ = archive.rows[number - 1]
        archive.rows[number - 1] = (user_id, text, f"new-{number}.jpg")
    archive.box.script(["auth"], call="delete")
    assert archive.sync(**GUARDED).exit_code is ExitCode.SERVICE
    assert len(archive.there()) == 42
    assert archive.sync(**GUARDED).exit_code is ExitCode.DONE
    assert len(archive.there()) == 30


def test_faces_that_a_run_has_superseded_are_guarded(archive: Archive) -> None:
    right = archive.in_library()
    for number in range(1, 31):  # all photos are copied under wrong names
        archive.photo(f"{number}.jpg", (number % 30 + 1) * 3)
    archive.run()
    calls = len(archive.box.calls)
    with pytest.raises(GuardError) as caught:
        archive.sync(**GUARDED)
    assert "30 faces that `enroll run` has superseded" in str(caught.value)
    assert "are the right ones" in str(caught.value)
    assert (len(archive.box.calls), right <= archive.in_library()) == (calls, True)
    for number in range(1, 31):
        archive.photo(f"{number}.jpg", number * 3)
    assert archive.sync(**{**GUARDED, "max_removals": Bound(30)}).exit_code is ExitCode.DONE
    assert archive.in_library() == right


def test_faces_that_a_sync_has_superseded_are_counted_once_only(archive: Archive) -> None:
    for number in range(1, 16):
        archive.photo(f"{number}.jpg", 200 + number)
    archive.box.script(["auth"], call="delete")
    assert archive.sync(**GUARDED).exit_code is ExitCode.SERVICE
    assert len(archive.there()) == 45
    assert archive.sync(**GUARDED).exit_code is ExitCode.DONE
    assert len(archive.there()) == 30


def test_people_whom_forget_has_not_finished_do_not_refuse_the_night(archive: Archive) -> None:
    with archive.writing() as ledger:  # killed after it has withheld them
        ledger.forgetting.block([row[0] for row in archive.rows[:12]], at=now_ms(), run=1)
    report = archive.sync(**GUARDED)
    assert report.sync_result is not None
    assert (report.sync_result.counted.newly_gone, report.sync_result.counted.rows) == (0, 30)
    assert len(archive.there()) == 30  # to delete their faces is for forget


def test_who_was_gone_before_and_is_withheld_now_is_left_to_forget(archive: Archive) -> None:
    user_id = archive.rows.pop()[0]
    archive.sync(**GUARDED, grace=2.0)
    with archive.writing() as ledger:
        ledger.forgetting.block([user_id], at=now_ms(), run=1)
    report = archive.sync(**GUARDED, grace=0.0)
    assert report.sync_result is not None
    assert (report.sync_result.counted.leaving, report.sync_result.faces) == (0, 0)
    assert len(archive.there()) == 30


def test_a_list_of_people_who_are_all_withheld_is_not_called_empty(archive: Archive) -> None:
    with archive.writing() as ledger:
        ledger.forgetting.block([row[0] for row in archive.rows], at=now_ms(), run=1)
    assert archive.sync(**GUARDED).exit_code is ExitCode.DONE
    assert len(archive.there()) == 30


def counted(report: Report) -> DiffCounts:
    assert report.sync_result is not None
    return report.sync_result.counted


def test_leavers_of_nights_that_did_not_come_to_them_may_go_in_one(archive: Archive) -> None:
    for _ in range(5):
        archive.rows = archive.rows[3:]
        assert counted(archive.sync(**GUARDED, grace=2.0)).newly_gone == 3
    report = archive.sync(**GUARDED, grace=0.0)
    assert (counted(report).leaving, counted(report).together) == (15, 3)
    assert len(archive.there()) == 15


def test_leavers_whom_one_night_has_found_are_judged_again_when_they_are_to_go(
    archive: Archive,
) -> None:
    archive.rows = archive.rows[3:]
    archive.sync(**GUARDED, grace=2.0)
    archive.rows = archive.rows[11:]
    archive.sync(**{**GUARDED, "max_removals": Bound(11)}, grace=2.0)
    said = refused(archive, grace=0.0)
    assert "11 would be removed (11 people past the grace period, all found absent by" in said
    assert "by one sync; 14 in all); the limit is 10" in said
    assert "--max-removals 11" in said
    archive.sync(**{**GUARDED, "max_removals": Bound(11)}, grace=0.0)
    assert len(archive.there()) == 16


def test_who_was_there_on_a_night_that_was_refused_was_there(archive: Archive) -> None:
    row = archive.rows.pop(0)
    assert counted(archive.sync(**GUARDED, grace=2.0)).newly_gone == 1
    rows, archive.rows = archive.rows, [row, *archive.rows[:10]]
    refused(archive, grace=2.0)
    archive.rows = rows
    assert counted(archive.sync(**GUARDED, grace=2.0)).newly_gone == 1  # and not for two nights


@pytest.mark.parametrize("removed", [True, False])
def test_a_mark_does_not_outlive_the_faces_that_it_was_about(
    archive: Archive, removed: bool
) -> None:
    user_id, text, image = archive.rows.pop(0)
    archive.sync(**GUARDED, grace=2.0)
    if removed:
        ids = archive.folder / "ids.txt"
        ids.write_text(f"{user_id}\n", encoding="utf-8")
        taken = RemoveSettings(ledger=archive.ledger, endpoint=archive.box.endpoint, user_ids=ids)
        remove(taken, lambda: archive.credentials, Told())
    else:
        archive.photo(image, 222)
    archive.rows.append((user_id, text, image))
    archive.run()  # of a list by itself
    archive.rows.pop()
    assert counted(archive.sync(**{**GUARDED, "max_removals": Bound(2)}, grace=2.0)).newly_gone == 1
    report = archive.sync(**{**GUARDED, "max_removals": Bound(2)}, grace=2.0)
    assert (counted(report).newly_gone, counted(report).waiting) == (0, 1)
    assert user_id in dict(archive.there())


@pytest.fixture
def command(archive: Archive) -> Callable[..., Any]:
    run = Command(
        home=archive.folder / "home", folder=archive.folder, environ=account_of(archive.box)
    )

    def sync(*arguments: object) -> Any:
        archive.manifest()
        named = ("--group-id", GROUP, "--ledger", archive.ledger)
        return run("sync", "staff.csv", *named, *arguments)

    return sync


def test_the_command_says_why_and_writes_its_figures(
    archive: Archive, command: Callable[..., Any]
) -> None:
    archive.rows = archive.rows[:10]
    done = command("--summary", "summary.json", "--differences", "differences.csv")
    assert done.code == ExitCode.GUARD
    assert done.err.startswith("Error: Nothing was done:")
    assert not re.search(r"\b01[1-3]\d\b", done.err)
    summary = json.loads((archive.folder / "summary.json").read_text(encoding="utf-8"))
    assert (summary["exit_code"], summary["reason"]) == (8, "GUARD")
    assert summary["sync"]["newly_gone"] == 20
    assert len(read_csv(archive.folder / "differences.csv")) == 20
    assert re.search(r"\b01[1-3]\d\b", command("--show-user-ids").err)
    assert command("--max-removals", "20", "--quiet").code == 0


def test_a_dry_run_lists_the_difference_and_calls_nothing(
    archive: Archive, command: Callable[..., Any]
) -> None:
    del archive.rows[0]
    archive.rows[0] = (*archive.rows[0][:1], "other", archive.rows[0][2])
    archive.photo("3.jpg", 222)
    archive.photo("new.jpg", 223)
    archive.rows.append(("0999", "=new", "new.jpg"))
    calls = len(archive.box.calls)
    runs = len(list(read_ledger(archive.ledger).status().runs))
    done = command("--dry-run", "--differences", "differences.csv")
    assert done.code == 0
    assert len(archive.box.calls) == calls
    assert len(list(read_ledger(archive.ledger).status().runs)) == runs
    with (archive.folder / "differences.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["change"], line["user_id"], line["user_data"]) for line in lines] == [
        ("joiner", "0999", "'=new"),
        ("photo", "0103", "name 3"),
        ("user_data", "0102", "other"),
        ("old", "0103", "name 3"),
        ("leaver", "0101", "name 1"),
    ]
    assert lines[4]["since"].endswith("Z")
    assert lines[4]["face_token"]
    assert " 1  joiners" in done.out
    archive.rows = archive.rows[:5]
    assert command("--dry-run").code == ExitCode.GUARD


def test_a_preview_without_a_ledger_counts_everybody_as_new(box: Sandbox, tmp_path: Path) -> None:
    archive = Archive(tmp_path, box)
    archive.people(1, 2)
    differences = tmp_path / "differences.csv"
    (found,) = preview(archive.sync_settings(differences=differences))
    assert (found.counted.joiners, found.counted.first) == (2, True)
    assert [line["image"] for line in read_csv(differences)] == ["1.jpg", "2.jpg"]


def test_a_column_of_texts_that_is_lost_is_refused_however_small_the_library_is(
    archive: Archive,
) -> None:
    rows = archive.rows
    archive.rows = [(user_id, "", image) for user_id, _, image in rows]
    said = refused(archive)
    assert "30 faces would be added (0 of people who have none, 0 with a new photo, 30" in said
    assert "its column was probably renamed" in said
    archive.rows = [
        (user_id, "" if n < 10 else text, i) for n, (user_id, text, i) in enumerate(rows)
    ]
    assert archive.sync(**GUARDED).exit_code is ExitCode.DONE


def test_examples_that_say_nothing_are_left_out(archive: Archive) -> None:
    rows, archive.rows = archive.rows, archive.rows[:1]
    assert "Among them" not in refused(archive)  # their ids are too short to be masked in part
    archive.rows = [(user_id, "", image) for user_id, _, image in rows]
    assert "Among them: *** (line 2), *** (line 3)" in refused(archive)


def students(archive: Archive, *numbers: int) -> Path:
    """Another manifest, that a run has enrolled into the same library."""
    staff = archive.rows
    archive.rows = []
    for number in numbers:
        archive.photo(f"s{number}.jpg", 200 + number)
        archive.rows.append((f"student-{number}", "", f"s{number}.jpg"))
    other = archive.manifest().rename(archive.folder / "students.csv")
    archive.rows = staff
    assert archive.run(manifest=other).exit_code is ExitCode.DONE
    return other


def test_leavers_who_stand_in_another_manifest_are_said_to(archive: Archive) -> None:
    other = students(archive, *range(12))
    said = refused(archive)
    assert f"They were enrolled from {other}, and hardly anybody else was" in said


def test_few_leavers_who_stand_in_another_manifest_are_said_to_also_quietly(
    archive: Archive,
) -> None:
    other = students(archive, 1, 2)
    del archive.rows[0]
    report = archive.sync(**GUARDED, grace=2.0)
    assert report.exit_code is ExitCode.DONE
    (line,) = [one for one in urgent_lines(report) if "leavers" in one]
    assert line.startswith(f"3 leavers have probably not left. They were enrolled from {other}")
    (told,) = preview(archive.sync_settings(**GUARDED, grace=2.0))
    assert told.other_manifest == str(other)


def test_leavers_of_a_list_that_has_another_name_every_night_are_ordinary_ones(
    archive: Archive,
) -> None:
    archive.manifest().rename(archive.folder / "monday.csv")
    del archive.rows[:2]
    tuesday = archive.manifest().rename(archive.folder / "tuesday.csv")
    report = archive.sync(**GUARDED, manifest=tuesday, grace=2.0)
    assert counted(report).newly_gone == 2
    assert not urgent_lines(report)


def test_a_leaver_whom_a_dated_export_has_enrolled_is_no_news_of_another_manifest(
    archive: Archive,
) -> None:
    def tonight(day: int, **changed: Any) -> Any:
        dated = archive.folder / f"staff-{day}.csv"
        dated.write_bytes(archive.manifest().read_bytes())
        return archive.sync(manifest=dated, write_results=False, **changed)

    archive.people(4)
    tonight(2)
    archive.people(5)
    tonight(3)
    del archive.rows[3]  # u4, who joined with the export of day 2, leaves
    report = tonight(4, grace=2.0)
    assert report.exit_code is ExitCode.DONE
    assert not [line for line in urgent_lines(report) if "another" in line or "none" in line], (
        urgent_lines(report)
    )


def test_people_whose_photos_came_a_night_later_are_joiners_that_a_guard_judges(
    archive: Archive,
) -> None:
    archive.rows += [(f"u{n}", f"name {n}", f"late-{n}.jpg") for n in range(10, 30)]
    archive.sync()  # no photo of theirs is there yet: nobody joins
    for n in range(10, 30):
        archive.photo(f"late-{n}.jpg", n)
    with pytest.raises(GuardError):
        archive.sync(max_changes=Bound(10))
    assert len(archive.there()) == 30


def test_a_difference_counts_what_an_earlier_sync_accepted_and_did_not_get_done(
    archive: Archive,
) -> None:
    archive.people(*range(8))
    done = archive.sync(max_calls=5)  # two to find and list the library
    assert (counted(done).joiners, counted(done).accepted) == (8, 0)
    (found,) = preview(archive.sync_settings())
    assert (found.counted.joiners, found.counted.accepted) == (0, 5)
    assert found.counted.added == 0  # no guard judges them again
    lines = [" ".join(line.split()) for line in difference_lines(found.counted)]
    assert "5 rows still to be added, as accepted by an earlier sync" in lines
    assert counted(archive.sync()).accepted == 5
    assert counted(archive.sync()).accepted == 0


def test_photos_of_changed_rows_are_said_to_be_among_those_missing() -> None:
    *_, last = difference_lines(DiffCounts(missing=3, held_back=1))
    assert last.split(maxsplit=1) == ["3", "missing photos, those of changed rows included"]
    *_, last = difference_lines(DiffCounts(missing=3))
    assert last.split(maxsplit=1) == ["3", "missing photos"]


def test_leavers_absent_for_the_first_time_are_said_to_be_among_the_others() -> None:
    lines = list(difference_lines(DiffCounts(waiting=2, newly_gone=2)))
    where = [line.split(maxsplit=1)[1] for line in lines].index("leavers within the grace period")
    assert lines[where + 1].split(maxsplit=1) == [
        "2",
        "of these leavers are absent for the first time",
    ]


def test_a_good_photo_in_the_place_of_one_that_could_not_be_enrolled_is_told_of(
    archive: Archive, tmp_path: Path
) -> None:
    archive.people(70)
    bad = archive.folder / "70.jpg"
    good, broken = bad.read_bytes(), b"no photo"
    bad.write_bytes(broken)
    assert archive.sync().exit_code is ExitCode.SOME_ROWS_FAILED
    differences = tmp_path / "differences.csv"
    settings = archive.sync_settings(differences=differences)
    (found,) = preview(settings)
    assert (found.counted.added, read_csv(differences)) == (0, [])
    bad.write_bytes(good)
    differences.unlink()
    (found,) = preview(settings)
    assert found.counted.joiners == 1
    assert [line["image"] for line in read_csv(differences)] == ["70.jpg"]
    assert archive.sync().exit_code is ExitCode.DONE
