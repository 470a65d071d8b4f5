"""A share that is gone stops a run; photos that are missing do not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest
from archive import GROUP, Archive, picture

from enroll.commands.plan import make_plan
from enroll.commands.plan_report import Plan
from enroll.commands.run import Screen, enroll_manifest
from enroll.commands.run_opening import Destination as Goal
from enroll.commands.sync import sync_manifest
from enroll.errors import ExitCode, GuardError, LocalError, UsageError
from enroll.ledger import Ledger
from enroll.model import Candidate, Credentials, Status
from enroll.photos import open_store
from enroll.runner.health import MISSING_RUNNING, PhotoRootCheck
from enroll.sandbox import Sandbox
from enroll.settings import Bound


class Known:
    """What a ledger knows, as a list."""

    def __init__(self, *paths: Path) -> None:
        self._paths = [str(path) for path in paths]

    def knows_photos_below(self, folder: str) -> bool:
        return bool(self.some_photos_below(folder, most=1))

    def some_photos_below(self, folder: str, *, most: int) -> list[str]:
        return [path for path in self._paths if path.startswith(folder + "/")][:most]


def known_in_ledger(*paths: Path) -> Ledger:
    return cast(Ledger, Known(*paths))


@pytest.fixture
def place(faceless_box: Sandbox, tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive", faceless_box)


def person(place: Archive, number: int, *, folder: str = "photos", there: bool = True) -> None:
    """A row, and its photo if that is there."""
    path = place.folder / folder / f"{number}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    if there:
        path.write_bytes(picture(number))
    place.rows.append((f"u{number}", "", f"{folder}/{number}.jpg"))


def people(place: Archive, *numbers: int, folder: str = "photos", there: bool = True) -> None:
    for number in numbers:
        person(place, number, folder=folder, there=there)


def plan(place: Archive, **changed: Any) -> Plan:
    return make_plan(place.settings(**changed), rate=None)


def errors(place: Archive) -> list[str]:
    """The codes of the rows without a face."""
    lines = (place.folder / "staff.results.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split(",")[5] for line in lines if line.split(",")[5]]


@pytest.mark.parametrize("first", [True, False])
def test_missing_photos_stop_no_run_while_others_are_there(place: Archive, first: bool) -> None:
    missing, there = range(100, 140), range(60)
    if first:
        people(place, *missing, there=False)
    people(place, *there)
    if not first:
        people(place, *missing, there=False)
    for _ in range(3):  # the first finds them all new, the others only those due that are missing
        report = place.run()
        assert report.exit_code is ExitCode.SOME_ROWS_FAILED
        assert errors(place) == ["PHOTO_MISSING"] * 40
    assert place.box.count("add") == 60
    assert plan(place).faults


def test_missing_photos_in_a_list_of_their_own_stop_no_run_of_a_ledger_that_knows_others(
    place: Archive,
) -> None:
    people(place, *range(30))
    assert place.run().exit_code is ExitCode.DONE
    place.rows.clear()
    people(place, *range(100, 125), there=False)  # joiners whose photos are still to come
    assert place.run().exit_code is ExitCode.SOME_ROWS_FAILED
    assert len(errors(place)) == 25


def test_a_night_goes_on_with_missing_photos_and_removes_who_has_left(place: Archive) -> None:
    people(place, *range(250))
    guards = {"max_missing": Bound(10, percent=True)}
    assert place.sync(**guards).exit_code is ExitCode.DONE
    place.rows = place.rows[5:]
    people(place, *range(900, 922), there=False)
    for code in (ExitCode.SOME_ROWS_FAILED, ExitCode.DONE):  # a sync fails on what is new
        assert place.sync(**guards).exit_code is code
        assert len(place.box.faces(GROUP)) == 245
    people(place, 400)
    assert place.sync(**guards).exit_code is ExitCode.DONE
    assert len(place.box.faces(GROUP)) == 246


def test_the_folder_of_one_person_that_is_gone_stops_no_run(place: Archive) -> None:
    for number in range(10):
        person(place, number, folder=f"photos/{number}")
    assert place.run().exit_code is ExitCode.DONE
    (place.folder / "photos/3/3.jpg").unlink()
    (place.folder / "photos/3").rmdir()
    place.rows.append(("u3", "", "photos/3/newer.jpg"))
    assert place.run().exit_code is ExitCode.SOME_ROWS_FAILED
    assert errors(place) == ["PHOTO_MISSING"]


def unmount(place: Archive, folder: str, *, leave: str) -> None:
    """Take the photos away, as a share does that goes."""
    path = place.folder / folder
    path.rename(place.folder / f"{path.name}.away")
    if leave != "nothing":
        path.mkdir()
    if leave == "a file":
        (path / "README").touch()


@pytest.mark.parametrize("leave", ["nothing", "an empty mount point", "a file"])
def test_a_share_that_is_gone_stops_the_run_and_the_plan(place: Archive, leave: str) -> None:
    people(place, *range(30))
    assert place.run().exit_code is ExitCode.DONE
    people(place, 40)
    unmount(place, "photos", leave=leave)
    for report in (place.run(), place.sync()):
        assert report.exit_code is ExitCode.LOCAL
        assert "is gone; it was there before" in str(report.ended.stop)
    with pytest.raises(LocalError, match="is gone; it was there before"):
        plan(place)
    assert len(place.box.faces(GROUP)) == 30


@pytest.mark.parametrize("leave", ["nothing", "an empty mount point", "a file"])
@pytest.mark.parametrize("count", [3, 30])
def test_a_share_that_is_gone_is_reported_although_no_row_is_due(
    place: Archive, leave: str, count: int
) -> None:
    people(place, *range(count))
    assert place.run().exit_code is ExitCode.DONE
    unmount(place, "photos", leave=leave)
    # So few that something else is there instead of: they may just have been deleted.
    code = ExitCode.DONE if count == 3 and leave == "a file" else ExitCode.LOCAL
    report = place.run()
    assert report.exit_code is code
    assert set(place.statuses()) == {"enrolled"}
    if code is ExitCode.LOCAL:
        assert "is gone; it was there before" in str(report.ended.stop)
        with pytest.raises(LocalError, match="is gone; it was there before"):
            plan(place)


def test_one_share_of_several_that_is_gone_stops_nobody_else_from_being_enrolled(
    place: Archive,
) -> None:
    people(place, *range(MISSING_RUNNING), folder="photos/north")
    people(place, *range(100, 140), folder="photos/south")
    assert place.run().exit_code is ExitCode.DONE
    unmount(place, "photos/north", leave="an empty mount point")
    people(place, *range(140, 150), folder="photos/south")
    report = place.run()
    assert report.exit_code is ExitCode.LOCAL
    assert f"photos' folder {place.folder}/photos/north is gone" in str(report.ended.stop)
    assert report.ended.tally.enrolled_now == 10
    assert place.sync().exit_code is ExitCode.DONE  # it has judged how many are missing


@pytest.mark.parametrize("leave", ["nothing", "an empty mount point"])
def test_a_share_that_is_one_of_several_stops_the_run_when_it_is_gone(
    place: Archive, leave: str
) -> None:
    for number in range(MISSING_RUNNING):
        person(place, number, folder=f"photos/north/{number % 7}")
    people(place, *range(100, 140), folder="photos/south")
    assert place.run().exit_code is ExitCode.DONE
    person(place, 50, folder="photos/north/9")
    unmount(place, "photos/north", leave=leave)
    report = place.run()
    assert report.exit_code is ExitCode.LOCAL
    assert f"photos' folder {place.folder}/photos/north is gone" in str(report.ended.stop)
    assert errors(place).count("PHOTO_MISSING") <= 1


class UnmountAt(Screen):
    """Takes the photos away when so many rows are done."""

    def __init__(self, rows: int, unmount: Callable[[], None]) -> None:
        self._left = rows
        self._unmount = unmount

    def opened(self, place: Goal, interrupt: Callable[[int], None]) -> None:
        pass

    def finished(self, row: Candidate, status: Status, code: str, message: str) -> None:
        self._left -= 1
        if self._left == 0:
            self._unmount()


@pytest.mark.parametrize("leave", ["nothing", "an empty mount point", "a file"])
def test_a_share_that_goes_during_the_first_run_stops_it(place: Archive, leave: str) -> None:
    people(place, *range(300))
    screen = UnmountAt(10, lambda: unmount(place, "photos", leave=leave))
    report = enroll_manifest(
        place.settings(max_in_flight=2, readers=2), lambda: place.credentials, screen=screen
    )
    assert report.exit_code is ExitCode.LOCAL
    assert "photos is gone" in str(report.ended.stop)
    assert report.ended.tally.done < 100


def test_a_folder_that_is_exchanged_for_a_link_during_a_run_lets_no_photo_out(
    place: Archive,
) -> None:
    people(place, *range(120))
    ours = {picture(number) for number in range(120)}
    private = place.folder.parent / "private"
    private.mkdir()
    for number in range(120):
        (private / f"{number}.jpg").write_bytes(picture(1000 + number))

    def exchange() -> None:
        (place.folder / "photos").rename(place.folder / "away")
        (place.folder / "photos").symlink_to(private)

    report = enroll_manifest(
        place.settings(max_in_flight=2, readers=2),
        lambda: place.credentials,
        screen=UnmountAt(10, exchange),
    )
    there = {face.sha256 for face in place.box.faces(GROUP)}
    assert 10 <= len(there) < 120
    assert there <= {sha256(content).hexdigest() for content in ours}
    assert "PHOTO_OUTSIDE" in errors(place)
    assert report.exit_code is ExitCode.SOME_ROWS_FAILED


@pytest.fixture
def exchangeable(place: Archive) -> tuple[Path, Callable[[], None]]:
    """An images folder that is a link, and what has it lead to other photos."""
    archive = place.folder.parent
    for name in ("old", "new"):
        (archive / name).mkdir(parents=True)
    for number in range(60):
        place.rows.append((f"u{number}", "", f"{number}.jpg"))
        (archive / "old" / f"{number}.jpg").write_bytes(picture(number))
        (archive / "new" / f"{number}.jpg").write_bytes(picture(1000 + number))
    place.folder.mkdir()
    images = archive / "current"
    images.symlink_to("old")

    def exchange() -> None:
        images.unlink()
        images.symlink_to("new")

    return images, exchange


def test_an_images_folder_that_is_a_link_is_resolved_once_a_run(
    place: Archive, exchangeable: tuple[Path, Callable[[], None]]
) -> None:
    images, exchange = exchangeable
    report = enroll_manifest(
        place.settings(max_in_flight=2, readers=2, images=images),
        lambda: place.credentials,
        screen=UnmountAt(5, exchange),
    )
    assert report.exit_code is ExitCode.DONE
    there = {face.sha256 for face in place.box.faces(GROUP)}
    assert there == {sha256(picture(number)).hexdigest() for number in range(60)}


def test_a_sync_sends_from_the_folder_that_it_has_judged(
    place: Archive, exchangeable: tuple[Path, Callable[[], None]]
) -> None:
    images, exchange = exchangeable
    asked: list[bool] = []

    def read() -> Credentials:
        if not asked:
            exchange()  # when the list was judged, before the first call
        asked.append(True)
        return place.credentials

    report = sync_manifest(place.sync_settings(images=images), read)
    assert report.exit_code is ExitCode.DONE
    there = {face.sha256 for face in place.box.faces(GROUP)}
    assert there == {sha256(picture(number)).hexdigest() for number in range(60)}


@pytest.mark.parametrize("command", [Archive.run, Archive.sync, plan])
def test_an_images_folder_of_links_in_a_circle_is_one_sentence(
    place: Archive, command: Callable[..., object]
) -> None:
    place.folder.mkdir()
    images = place.folder / "images"
    images.symlink_to(images)
    place.rows.append(("u1", "", "1.jpg"))
    with pytest.raises((UsageError, GuardError), match="images does not exist"):
        command(place, images=images)


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, mounted."""
    point = tmp_path / "archive" / "photos"
    point.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(point)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not let us mount a tmpfs")
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)


def test_a_share_that_is_really_unmounted_stops_the_run(share: Path, place: Archive) -> None:
    people(place, 1, 2)
    assert place.run(images=share.parent).exit_code is ExitCode.DONE
    person(place, 3)
    subprocess.run(["umount", str(share)], check=True)
    report = place.run(images=share.parent)
    assert report.exit_code is ExitCode.LOCAL
    assert f"photos' folder {share} is gone" in str(report.ended.stop)


def test_a_folder_that_is_on_another_device_than_before_is_gone(
    share: Path, place: Archive
) -> None:
    judge = PhotoRootCheck(open_store(share), known_in_ledger())
    subprocess.run(["umount", str(share)], check=True)
    judge.on_seen()
    stop = judge.missing(str(share / "1.jpg"), was_there=False)
    assert "is gone" in str(stop)


def test_one_file_that_a_disk_cannot_read_is_not_the_share(tmp_path: Path) -> None:
    judge = PhotoRootCheck(open_store(tmp_path), known_in_ledger())
    bad = str(tmp_path / "1.jpg")
    for _ in range(2):
        for _ in range(MISSING_RUNNING - 1):
            assert judge.unreachable(bad, "It cannot be read.") is None
        judge.on_read()
    stops = [judge.unreachable(bad, "It cannot be read.") for _ in range(MISSING_RUNNING)]
    assert stops[-1] is not None
    nowhere = str(tmp_path / "gone" / "1.jpg")
    assert "Mount the share again" in str(
        PhotoRootCheck(open_store(tmp_path), known_in_ledger()).unreachable(nowhere, "")
    )


def test_missing_photos_are_judged_when_one_was_seen_or_all_were_looked_for(tmp_path: Path) -> None:
    assert not PhotoRootCheck(open_store(tmp_path), known_in_ledger()).certain
    for know in (PhotoRootCheck.on_seen, PhotoRootCheck.on_scanned):
        judge = PhotoRootCheck(open_store(tmp_path), known_in_ledger())
        know(judge)
        assert judge.certain


def test_many_missing_photos_matter_only_where_none_was_seen(
    tmp_path: Path,
) -> None:
    judge = PhotoRootCheck(open_store(tmp_path), known_in_ledger())
    judge.on_seen()
    for number in range(100):
        assert judge.missing(str(tmp_path / f"{number}.jpg"), was_there=False) is None
    judge = PhotoRootCheck(open_store(tmp_path), known_in_ledger())
    judge.on_scanned()
    stops = [judge.missing(str(tmp_path / f"{n}.jpg"), was_there=False) for n in range(20)]
    assert stops[:19] == [None] * 19
    assert "The first 20 photos are all missing" in str(stops[19])


def test_a_share_without_the_photos_on_record_is_gone_though_it_holds_something(
    tmp_path: Path,
) -> None:
    (tmp_path / "lost+found").mkdir()
    known = [tmp_path / f"{number}.jpg" for number in range(MISSING_RUNNING)]
    judge = PhotoRootCheck(open_store(tmp_path), known_in_ledger(*known))
    judge.on_scanned()
    assert "is gone" in str(judge.missing(str(tmp_path / "new.jpg"), was_there=False))
    known[7].touch()
    judge = PhotoRootCheck(open_store(tmp_path), known_in_ledger(*known))
    judge.on_scanned()
    assert judge.missing(str(tmp_path / "new.jpg"), was_there=False) is None
