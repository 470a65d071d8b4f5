"""The same command again, after something has changed."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from archive import Archive, nobody, portrait, read_csv
from real_command import Command

from enroll.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("moved_clock")

RUN = ("run", "staff.csv", "--group-id", "staff")


def people(box: Sandbox) -> Counter[str]:
    return Counter(face.user_id for face in box.faces("staff"))


def test_rows_that_are_added_to_the_manifest_are_the_only_ones_called(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    rows = archive.portraits(1, 2)
    archive.manifest(rows)
    assert command(*RUN).code == 0
    archive.manifest([*archive.portraits(3), *reversed(rows)], name="later.csv")
    done = command("run", "later.csv", "--group-id", "staff")
    assert (done.code, "1 row enrolled, 2 rows enrolled before" in done.out) == (0, True), done
    calls = [call.user_id for call in box.calls if call.kind == "add"]
    assert sorted(calls) == ["person-0001", "person-0002", "person-0003"]
    assert len(archive.results("later.results.csv")) == 3


def test_other_columns_order_and_manifest_names_change_nothing(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    rows = archive.portraits(1, 2)
    archive.manifest(rows)
    assert command(*RUN).code == 0
    first = archive.results()
    changed = [(image, f"floor {line}", user_id) for line, (user_id, _, image) in enumerate(rows)]
    archive.manifest(reversed(changed), name="hr.csv", head="PHOTO,FLOOR,NO")
    columns = ("--columns", "user_id=NO,image=PHOTO", "--columns", "user_data=FLOOR")
    done = command("run", "hr.csv", "--group-id", "staff", *columns)
    assert (done.code, "nothing to do" in done.out) == (0, True), done
    assert "2 enrolled rows whose user_data differs" in done.out
    assert box.count("add") == 2
    second = archive.results("hr.results.csv")
    assert [line["face_token"] for line in second] == [line["face_token"] for line in first][::-1]
    assert [line["FLOOR"] for line in second] == ["floor 1", "floor 0"]


def test_the_results_are_a_manifest_of_the_same_rows(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("nobody.jpg", nobody())
    archive.manifest([*archive.portraits(1), ("a2", "=1+1", "nobody.jpg")])
    assert command(*RUN).code == 1
    results = archive.folder / "staff.results.csv"
    before = results.read_bytes()
    done = command("run", results, "--group-id", "staff", "--results", "again.csv")
    assert done.code == 1
    assert box.count("add") == 2
    assert (archive.folder / "again.csv").read_bytes() == before


@pytest.mark.parametrize("change", ["touched", "renamed", "moved"])
def test_a_photo_that_was_only_touched_renamed_or_moved_is_read_and_not_sent(
    box: Sandbox, archive: Archive, command: Command, change: str
) -> None:
    ((user_id, name, image),) = archive.portraits(1)
    archive.manifest([(user_id, name, image)])
    assert command(*RUN).code == 0
    token = archive.results()[0]["face_token"]
    photo = archive.folder / image
    if change == "touched":
        os.utime(photo, ns=(0, 0))
    else:
        image = {"renamed": "photos/other.jpg", "moved": "elsewhere/1.jpg"}[change]
        (archive.folder / image).parent.mkdir(exist_ok=True)
        photo.rename(archive.folder / image)
    archive.manifest([(user_id, name, image)])
    done = command(*RUN)
    assert done.code == 0, done
    assert [(line["status"], line["face_token"]) for line in archive.results()] == [
        ("enrolled", token)
    ]
    assert box.count("add") == 1
    assert "nothing to do" in command(*RUN).out


def test_rows_whose_photos_were_only_touched_are_not_said_to_be_new(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2))
    assert command(*RUN).code == 0
    os.utime(archive.folder / "photos/1.jpg", ns=(0, 0))
    assert "0 rows enrolled, 2 rows enrolled before" in command(*RUN).out


def test_another_photo_in_the_same_place_is_added_and_the_older_face_is_superseded(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    old = archive.results()[0]["face_token"]
    archive.photo("photos/1.jpg", portrait(2))
    done = command(*RUN)
    assert (done.code, "1 older face superseded by new photos" in done.out) == (0, True), done
    new = archive.results()[0]["face_token"]
    assert {face.face_token for face in box.faces("staff")} == {old, new}
    assert command("export", "all.csv").code == 0
    assert {
        line["face_token"]: line["status"] for line in read_csv(archive.folder / "all.csv")
    } == {
        old: "superseded",
        new: "enrolled",
    }
    archive.photo("photos/1.jpg", portrait(1))  # and back again
    assert command(*RUN).code == 0
    assert archive.results()[0]["face_token"] == old
    assert box.count("add") == 2


def test_a_photo_twice_for_one_person_is_one_call_and_one_token(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("a.jpg", portrait(1))
    archive.photo("b.jpg", portrait(1))
    rows = [("a1", "", "a.jpg"), ("a1", "", "b.jpg"), ("a1", "", "a.jpg")]
    archive.manifest(rows)
    assert command(*RUN).code == 0
    assert box.count("add") == 1
    assert len({line["face_token"] for line in archive.results()}) == 1
    assert {line["status"] for line in archive.results()} == {"enrolled"}
    assert "nothing to do" in command(*RUN).out


def test_a_photo_of_two_people_is_added_for_both_and_said(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("a.jpg", portrait(1))
    archive.manifest([("a1", "", "a.jpg"), ("a2", "", "a.jpg")])
    done = command(*RUN)
    assert (done.code, people(box)) == (0, {"a1": 1, "a2": 1})
    assert "1 photo enrolled under more than one user_id: check them (" in done.out
    assert len({line["face_token"] for line in archive.results()}) == 2


def test_another_user_data_is_counted_and_not_sent(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    rows = archive.portraits(1, 2)
    archive.manifest(rows)
    assert command(*RUN).code == 0
    archive.manifest([rows[0], (rows[1][0], "Married name", rows[1][2])])
    for name in ("plan", "run"):
        done = command(name, "staff.csv", "--group-id", "staff")
        assert "1 enrolled row whose user_data differs from the library's" in done.out
        assert done.code == 0
    assert box.count("add") == 2
    assert [line["user_data"] for line in archive.results()] == ["Name 1", "Married name"]


def test_an_enrolled_row_whose_photo_is_gone_stays_enrolled(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2))
    assert command(*RUN).code == 0
    (archive.folder / "photos/1.jpg").unlink()
    done = command(*RUN)
    assert (done.code, "1 enrolled row whose photo is no longer there" in done.out) == (0, True)
    assert {line["status"] for line in archive.results()} == {"enrolled"}


def test_rejected_and_invalid_rows_are_called_again_only_when_asked(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("nobody.jpg", nobody())
    archive.photo("text.jpg", b"no photo")
    archive.manifest([("a1", "", "nobody.jpg"), ("a2", "", "text.jpg"), ("a 3", "", "x.jpg")])
    for _ in range(2):
        assert command(*RUN).code == 1
        assert box.count("add") == 1
        assert [line["attempts"] for line in archive.results()] == ["1", "0", "0"]
    assert command(*RUN, "--retry", "NO_FACE_FOUND,PHOTO_NOT_AN_IMAGE").code == 1
    assert box.count("add") == 2
    assert [line["attempts"] for line in archive.results()] == ["2", "0", "0"]
    assert [line["error"] for line in archive.results()] == [
        "NO_FACE_FOUND",
        "PHOTO_NOT_AN_IMAGE",
        "USER_ID_CHARACTER",
    ]


def test_a_code_that_no_row_ended_with_is_said_with_those_there_are(
    archive: Archive, command: Command
) -> None:
    archive.photo("text.jpg", b"no photo")
    archive.manifest([("a1", "", "text.jpg")])
    note = "Note: No entry of the ledger ended with NOPE, which --retry names; it has "
    assert f"{note}none." in command(*RUN, "--retry", "NOPE").err
    for done in (
        command(*RUN, "--retry", "NOPE,PHOTO_NOT_AN_IMAGE"),
        command(*RUN, "--retry", "NOPE", "--dry-run"),
    ):
        assert f"{note}PHOTO_NOT_AN_IMAGE." in done.err + done.out


def test_a_rejected_row_is_called_again_when_a_setting_that_matters_changes(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("nobody.jpg", nobody())
    archive.manifest([("a1", "", "nobody.jpg")])
    for _ in range(2):
        assert command(*RUN, "--multi-oriented-detection").code == 1
    assert box.count("add") == 1
    archive.photo("nobody.jpg", portrait(1))
    assert command(*RUN).code == 0
    assert box.count("add") == 2


def test_turning_photos_is_tried_on_those_without_a_face(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("nobody.jpg", nobody())
    archive.manifest([("a1", "", "nobody.jpg")])
    for calls in (1, 2, 2):
        turned = [] if calls == 1 else ["--multi-oriented-detection"]
        assert command(*RUN, *turned).code == 1
        assert box.count("add") == calls


def test_failed_rows_are_tried_again(box: Sandbox, archive: Archive, command: Command) -> None:
    rows = archive.portraits(1, 2)
    photo = archive.folder / rows[1][2]
    photo.rename(archive.folder / "away.jpg")
    archive.manifest(rows)
    assert command(*RUN).code == 1
    assert [line["error"] for line in archive.results()] == ["", "PHOTO_MISSING"]
    (archive.folder / "away.jpg").rename(photo)
    assert command(*RUN).code == 0
    assert people(box) == {"person-0001": 1, "person-0002": 1}


def test_checksum_reads_unchanged_photos_and_sends_none(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2))
    assert command(*RUN).code == 0
    done = command(*RUN, "--checksum")
    assert (done.code, "nothing to do" in done.out) == (0, False), done
    assert box.count("add") == 2


def test_the_photos_folder_of_the_last_run_is_kept_for_a_manifest_elsewhere(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    rows = archive.portraits(1, 2)
    archive.manifest(rows[:1])
    assert command(*RUN, "--images", archive.folder).code == 0
    exports = archive.folder / "exports"
    exports.mkdir()
    archive.manifest(rows, name="exports/2025-02.csv")
    done = command("run", exports / "2025-02.csv", "--group-id", "staff")
    assert (done.code, "as in the last run" in done.err) == (0, True), done
    assert f"Photos    {archive.folder} (as in the last run)" in done.err
    assert people(box) == {"person-0001": 1, "person-0002": 1}
    assert (exports / "2025-02.results.csv").exists()


def test_each_manifest_keeps_its_own_photos_folder_whatever_another_was_run_with(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    for site, person in (("a", 1), ("b", 2)):
        archive.photo(f"{site}/1.jpg", portrait(person))
        archive.manifest([(f"{site}1", "", "1.jpg")], name=f"{site}/staff.csv")
    group = ("--group-id", "staff")
    assert command("run", "a/staff.csv", *group).code == 0
    assert command("run", "b/staff.csv", *group, "--images", "b").code == 0
    again = command("run", "a/staff.csv", *group)
    assert (again.code, "nothing to do" in again.out) == (0, True), again
    assert people(box) == {"a1": 1, "b1": 1}


def test_a_new_manifest_beside_photos_of_its_own_is_not_given_those_of_another(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    for site, person in (("a", 1), ("b", 2)):
        archive.photo(f"{site}/1.jpg", portrait(person))
        archive.manifest([(f"{site}1", "", "1.jpg")], name=f"{site}/staff.csv")
    archive.manifest([("b1", "", "1.jpg")], name="monday.csv")
    group = ("--group-id", "staff")
    assert command("run", "b/staff.csv", *group, "--images", "b").code == 0
    refused = command("run", "a/staff.csv", *group)
    assert (refused.code, "Choose one: --images" in refused.err) == (2, True), refused
    assert command("plan", "a/staff.csv", *group).code == 2
    dated = command("run", "monday.csv", *group)
    assert (dated.code, "nothing to do" in dated.out) == (0, True), dated
    assert people(box) == {"b1": 1}


def test_a_plan_says_that_moved_photos_of_known_people_may_cost_no_call(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    rows = archive.portraits(1, 2)
    archive.manifest(rows)
    assert command(*RUN).code == 0
    (archive.folder / "photos").rename(archive.folder / "new")
    moved = [(user_id, name, image.replace("photos", "new")) for user_id, name, image in rows]
    archive.manifest([*moved, *archive.portraits(3)])
    told = command("plan", "staff.csv", "--group-id", "staff").out
    assert "2 due rows of people who already have a face" in told
    assert "1 row enrolled, 2 rows enrolled before" in command(*RUN).out
    assert box.count("add") == 3


def test_a_run_that_is_not_there_and_a_library_without_a_name_are_wrong_usage(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    none = command("history", "--group-id", "staff", "--run", "99")
    assert (none.code, "There is no run 99; the ledger's last is 1." in none.err) == (2, True)
    unnamed = command("run", "staff.csv", "--group-id", "")
    assert (unnamed.code, "--group-id is needed" in unnamed.err) == (2, True)


def test_a_run_with_nothing_to_do_does_not_load_pandas(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    # Of its memory, a run with nothing to do would need two fifths for what reads a list.
    archive.manifest(archive.portraits(1))
    command.environ["PYTHONPROFILEIMPORTTIME"] = "1"
    loaded = [
        {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
        for done in (command.run(*RUN), command.run(*RUN))
        if done.code == 0
    ]
    assert ["pandas" in modules for modules in loaded] == [True, False]
    assert all("enroll.commands.run" in modules for modules in loaded)


def test_a_run_with_nothing_to_do_still_reads_the_paths_that_windows_wrote(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    [(user_id, user_data, image)] = archive.portraits(1)
    archive.manifest([(user_id, user_data, rf"C:\Export\{image}")])
    said = [command(*RUN), command(*RUN)]
    assert [done.code for done in said] == [0, 0], said
    assert all(r"Paths that begin with C:/Export/ are read" in done.err for done in said), said
    assert "nothing to do" in said[1].out
    assert box.count("add") == 1
