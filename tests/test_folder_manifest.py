"""A folder of photos as the manifest."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path

import pytest
from archive import Archive, picture, read_csv
from real_command import Command

from enroll.errors import LocalError, ManifestError, UsageError
from enroll.manifest.id_from import UncertainError, parse_path_template
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.photos import listing, open_store
from enroll.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("moved_clock")


@pytest.fixture
def box(faceless_box: Sandbox) -> Sandbox:
    """The photos here are `picture`s, without a face."""
    return faceless_box


def fill(folder: Path, *names: str) -> Path:
    """Write different pictures of these names."""
    for number, name in enumerate(names, start=len(list(folder.rglob("*")))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return folder


def rows(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [(row.user_id, row.user_data, row.image) for some in manifest.rows() for row in some]


def faces(box: Sandbox) -> set[tuple[str, str, str]]:
    return {(face.user_id, face.user_data, face.sha256) for face in box.faces("staff")}


@pytest.mark.parametrize(
    ("template", "path", "found"),
    [
        ("{user_id}", "10001", ("10001", "")),
        ("{user_id}", "2026/berlin/10001", ("10001", "")),
        ("{user_id}_*", "10001_2", ("10001", "")),
        ("{user_id}_*", "10001", None),
        ("{user_id}_*", "10001_2_1", UncertainError),
        ("{user_id}_?", "A_10001_2", ("A_10001", "")),
        ("*_{user_id}", "2026_11_10001", UncertainError),
        ("{user_id}-{user_data}", "10001-Anna-Maria Schmidt", ("10001", "Anna-Maria Schmidt")),
        ("{user_data}-{user_id}", "Anna-Maria-10001", ("10001", "Anna-Maria")),
        ("{user_id}-{user_data}", "10001-", None),
        ("{user_data}/{user_id}", "Anna Schmidt/10001", ("10001", "Anna Schmidt")),
        ("{user_data}/{user_id}", "2026/Anna Schmidt/10001", None),
        ("*/{user_id}/*", "2026/10001/front_left", ("10001", "")),
        ("*/{user_id}/*", "10001/front", None),
        ("{user_id} ({user_data})", "7 (Jörg [x].+)", ("7", "Jörg [x].+")),
        ("{user_id}-{user_data}", "7-Jo\u0308rg", ("7", "Jörg")),
    ],
)
def test_a_template_yields_ids_or_says_that_they_are_uncertain(
    template: str, path: str, found: object
) -> None:
    if found is UncertainError:
        with pytest.raises(UncertainError):
            parse_path_template(template).match(path)
        return
    ids = parse_path_template(template).match(path)
    assert (None if ids is None else (ids.user_id, ids.user_data)) == found


NEVER_RIGHT = (
    *("", "*", "{user_data}", "{user_id}{user_data}", "*{user_id}", "{user_id}/{user_id}"),
    *("{name}", "{user_id", "/{user_id}", "a//{user_id}", "{user_id}/", "{user_id}.jpg"),
)


@pytest.mark.parametrize("template", NEVER_RIGHT)
def test_a_template_that_can_never_be_right_is_refused(template: str) -> None:
    with pytest.raises(UsageError, match="--id-from"):
        parse_path_template(template)


def test_the_photos_of_a_folder_are_listed_in_order_and_other_files_are_counted(
    tmp_path: Path,
) -> None:
    fill(tmp_path, "b.jpg", "a.PNG", "2026/c.jpeg", "2026/11/d.tif", "Z.webp", 'ü,"x"\n.heic')
    fill(tmp_path, "._b.jpg", ".hidden/e.jpg", "__MACOSX/b.jpg", "@eaDir/b.jpg/SYNOPHOTO_M.jpg")
    fill(tmp_path, "Thumbs.db", ".DS_Store", "read me.txt", "2026/list.csv", "no suffix", ".jpg")
    manifest = open_manifest(tmp_path)
    images = [image for _, _, image in rows(manifest)]
    assert images == ["2026/11/d.tif", "2026/c.jpeg", "Z.webp", "a.PNG", "b.jpg", 'ü,"x"\n.heic']
    assert manifest.header == ("user_id", "image")
    note, _ = manifest.notes
    assert f"10 files in {tmp_path} are not photos: 4 .jpg" in note
    assert manifest.listing is not None
    others = list(manifest.listing.other_files())
    assert others == sorted(others) != []
    assert {"._b.jpg", "@eaDir/b.jpg/SYNOPHOTO_M.jpg", "Thumbs.db", ".jpg"} < set(others)
    assert manifest.rows_at_most == 6


def test_a_long_folder_is_sorted_outside_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number % 7}-{number}.jpg" for number in range(40)]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(listing, "SORTED_AT_ONCE", 7)
    assert list(open_store(tmp_path).files()) == sorted(names)


def test_folders_may_be_nested_more_deeply_than_functions(tmp_path: Path) -> None:
    deep = "/".join("a" * 1500)
    for depth in range(100, 1501, 100):  # no path may be longer than 4,096 bytes
        (tmp_path / deep[: 2 * depth - 1]).mkdir(parents=True)
    (tmp_path / deep / "1.jpg").touch()
    (tmp_path / "b").touch()
    assert list(open_store(tmp_path).files()) == [f"{deep}/1.jpg", "b"]
    (tmp_path / deep / "1.jpg").unlink()
    os.removedirs(tmp_path / deep)  # what removes the test's folder is such a function


def test_a_list_in_a_folder_is_pointed_out(tmp_path: Path) -> None:
    junk = ("__MACOSX/export/._staff.csv", ".~lock.staff.csv", "a/~$staff.xlsx")
    fill(tmp_path, "1.jpg", "export/staff.csv", *junk)
    notes = open_manifest(tmp_path).notes
    assert any("holds a list, export/staff.csv, which is not used" in note for note in notes)


def test_photos_of_one_name_in_several_folders_are_not_silently_one_persons(
    tmp_path: Path,
) -> None:
    fill(tmp_path, "anna/1.jpg", "anna/2.jpg", "ben/1.jpg", "1.jpg.txt")
    with pytest.raises(ManifestError, match=r"anna/1.jpg and ben/1.jpg would both be photos of"):
        open_manifest(tmp_path)
    of_folders = rows(open_manifest(tmp_path, id_from=["{user_id}/*"]))
    assert [user_id for user_id, *_ in of_folders] == ["anna", "anna", "ben"]
    said = rows(open_manifest(tmp_path, id_from=["*/{user_id}"]))
    assert [user_id for user_id, *_ in said] == ["1", "2", "1"]


def test_a_name_that_is_not_utf8_is_a_row_that_says_so(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"J\xfcrg.jpg")).touch()
    manifest = open_manifest(tmp_path)
    (row,) = next(manifest.rows())
    assert (row.user_id, row.image) == ("", "J\\xfcrg.jpg")
    fault = manifest.fault_of(row)
    assert fault is not None
    assert (fault.code, "not in UTF-8" in fault.message) == ("PATH_NOT_MATCHED", True)


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", "2026/1.jpg")
    (folder / "latest").symlink_to("2026")
    (folder / "2026" / "loop").symlink_to("..")
    (folder / "2.jpg").symlink_to("2026/1.jpg")
    manifest = open_manifest(folder)
    assert [image for _, _, image in rows(manifest)] == ["2.jpg", "2026/1.jpg"]
    assert "2 files" in manifest.notes[0]
    (folder / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(ManifestError, match="elsewhere is a link to a folder outside"):
        open_manifest(folder)


def test_a_folder_that_cannot_be_listed_stops_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "1.jpg", "private/2.jpg", "lost+found/3.jpg")
    real = os.scandir
    error: OSError = PermissionError(13, "Permission denied")

    def refuse(path: str) -> object:
        if path.rstrip("/").endswith(("private", "lost+found")):
            raise error
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ManifestError, match="private cannot be listed, and"):
        open_manifest(tmp_path)
    error = OSError(116, "Stale file handle")
    with pytest.raises(LocalError, match="Mount the share again"):
        open_manifest(tmp_path)


def test_a_folder_is_enrolled_once_and_again_when_it_changes(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    folder = fill(archive.folder / "photos", "10001-Anna.jpg", "10002-Ben.jpg", "team.jpg", "x.txt")
    run = ("run", "photos", "--group-id", "staff", "--id-from", "{user_id}-{user_data}")
    done = command(*run, "--summary", "summary.json")
    assert (done.code, "2 rows enrolled" in done.out) == (1, True), done
    assert json.loads((archive.folder / "summary.json").read_text())["not_photos"] == 1
    assert "1 file in photos is not a photo: 1 .txt" in done.err
    results = read_csv(archive.folder / "photos.results.csv")
    assert [(one["user_id"], one["image"], one["status"], one["error"]) for one in results] == [
        ("10001", "10001-Anna.jpg", "enrolled", ""),
        ("10002", "10002-Ben.jpg", "enrolled", ""),
        ("", "team.jpg", "invalid", "PATH_NOT_MATCHED"),
    ]
    assert {(user_id, text) for user_id, text, _ in faces(box)} == {
        ("10001", "Anna"),
        ("10002", "Ben"),
    }
    (folder / "team.jpg").unlink()
    calls = box.count("add")
    assert command(*run).code == 0
    assert box.count("add") == calls
    fill(folder, "10003-Cem.jpg")
    again = command(*run)
    assert (again.code, box.count("add")) == (0, calls + 1), again
    other = command("run", "photos", "--group-id", "staff", "--id-from", "{user_id}-*")
    assert (other.code, box.count("add")) == (0, calls + 1), other  # the same people and photos


def test_plan_lists_what_is_no_photo_and_why_a_photo_is_not_sent(
    archive: Archive, command: Command
) -> None:
    fill(archive.folder / "photos", "7_1.jpg", "7_1_2.jpg", "8.jpg", "notes.txt", "Thumbs.db")
    report = archive.folder / "report.csv"
    done = command("plan", "photos", "--id-from", "{user_id}_*", "--report", report)
    assert done.code == 0, done
    assert "2 files in photos are not photos" in done.out
    assert "Planned from photos, 3 rows." in done.out
    told = {line["image"]: line for line in read_csv(report)}
    assert told["7_1.jpg"]["user_id"] == "7"
    assert told["7_1_2.jpg"]["error"] == told["8.jpg"]["error"] == "PATH_NOT_MATCHED"
    assert "several ways" in told["7_1_2.jpg"]["message"]
    assert "does not match" in told["8.jpg"]["message"]
    assert told["notes.txt"]["plan"] == told["Thumbs.db"]["plan"] == "not a photo"


def test_a_sync_of_a_folder_adds_replaces_and_removes(box: Sandbox, archive: Archive) -> None:
    folder = fill(archive.folder / "photos", "1.jpg", "2.jpg", "3.jpg")
    assert archive.sync(manifest=folder).exit_code == 0
    (folder / "1.jpg").write_bytes(picture(77))
    (folder / "2.jpg").unlink()
    fill(folder, "4.jpg")
    assert archive.sync(manifest=folder).exit_code == 0
    assert {user_id for user_id, *_ in faces(box)} == {"1", "3", "4"}
    assert len(faces(box)) == 3
    calls = box.count("add"), box.count("delete")
    assert archive.sync(manifest=folder).exit_code == 0
    assert (box.count("add"), box.count("delete")) == calls


def test_a_sync_of_an_empty_or_missing_folder_removes_nobody(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    folder = fill(archive.folder / "photos", *(f"{number}.jpg" for number in range(30)))
    sync = ("sync", "photos", "--group-id", "staff", "--grace", "0")
    assert command(*sync).code == 0
    kept = faces(box)
    folder.rename(archive.folder / "elsewhere")
    assert command(*sync).code == 2
    folder.mkdir()  # the mount point
    empty = command(*sync)
    assert (empty.code, "no rows" in empty.err) == (8, True), empty
    fill(folder, "1.jpg", "lost+found/x.jpg", "note.txt")
    most = command(*sync)
    assert (most.code, "--max-removals" in most.err) == (8, True), most
    assert faces(box) == kept


def test_a_run_of_a_folder_that_has_become_empty_says_that_it_is_gone(
    archive: Archive, command: Command
) -> None:
    folder = fill(archive.folder / "photos", "1.jpg")
    run = ("run", "photos", "--group-id", "staff")
    assert command(*run).code == 0
    (folder / "1.jpg").unlink()
    done = command(*run)
    assert (done.code, "is gone; it was there" in " ".join(done.out.split())) == (7, True), done
    assert command("plan", *run[1:]).code == 7


def test_options_of_a_list_are_refused_for_a_folder_and_the_reverse(
    archive: Archive, command: Command
) -> None:
    fill(archive.folder / "photos", "1.jpg")
    archive.manifest([])
    command("run", "photos", "--group-id", "staff")  # makes the ledger, which is missed first
    for arguments in (
        ("plan", "photos", "--columns", "user_id=NO"),
        ("plan", "photos", "--sheet", "Staff"),
        ("plan", "photos", "--photo", "{user_id}"),
        ("plan", "staff.csv", "--id-from", "{user_id}"),
        ("plan", "photos", "--id-from", "{user_id}.jpg"),
        ("remove", "--user-ids", "photos", "--group-id", "staff"),
    ):
        done = command(*arguments)
        assert (done.code, "eave" in done.err or "folder" in done.err) == (2, True), done


def test_the_photos_of_a_folder_are_its_own_whatever_images_says(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    photos = fill(archive.folder / "photos", "1.jpg")
    fill(archive.folder / "others", "0.jpg", "1.jpg")  # somebody else's photo of the same name
    done = command("run", "photos", "--images", "others", "--group-id", "staff")
    assert (done.code, "photos (the manifest itself)" in done.err) == (0, True), done
    assert "--images has no effect: the manifest holds its photos." in done.err
    ((_, _, sha256),) = faces(box)
    assert sha256 == hashlib.sha256((photos / "1.jpg").read_bytes()).hexdigest()


def test_an_empty_name_is_not_the_current_folder(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    fill(archive.folder, "1.jpg")
    for name in ("run", "sync"):
        done = command(name, "", "--group-id", "staff")
        assert (done.code, "name is empty" in done.err) == (2, True), done
    assert faces(box) == set()


def test_the_results_of_a_folder_are_a_manifest_again(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    fill(archive.folder / "photos", "1.jpg", "2.jpg")
    assert command("run", "photos", "--group-id", "staff").code == 0
    results = ("run", "photos.results.csv", "--images", "photos", "--group-id", "staff")
    assert (command(*results).code, box.count("add")) == (0, 2)
    with (archive.folder / "photos.results.csv").open(newline="") as file:
        assert next(csv.reader(file))[:3] == ["user_id", "image", "status"]


def test_plan_lists_the_photos_that_no_row_uses(archive: Archive, command: Command) -> None:
    folder = archive.folder / "photos"
    fill(folder, "b/2.jpg", "b/3.JPG", "1.jpg", "a 4.png", "=5.jpg", "6.txt", "@eaDir/7.jpg")
    (folder / "link").symlink_to("b")
    archive.manifest([("u1", "", "./1.jpg"), ("u2", "", "link/2.jpg"), ("u3", "", "b/none.jpg")])
    orphans = archive.folder / "orphans.csv"
    done = command("plan", "staff.csv", "--images", "photos", "--orphans", orphans)
    assert (done.code, "3 photos that no row uses" in done.out) == (0, True), done
    assert [(line["image"], int(line["bytes"])) for line in read_csv(orphans)] == [
        (name, (folder / name).stat().st_size) for name in ("=5.jpg", "a 4.png", "b/3.JPG")
    ]
    wrong = command("plan", "staff.csv", "--orphans", "x.pdf")
    assert (wrong.code, "--orphans" in wrong.err) == (2, True), wrong
