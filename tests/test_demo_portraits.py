"""The drawn portraits and the drawn archive."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import dlib
import numpy as np
import pytest
from PIL import Image
from sandbox_caller import jpeg

from enroll.cli.demo import draw_archive, draw_portrait
from enroll.errors import LocalError
from enroll.sandbox.faces import FaceFinder, LikenessIndex, grey_picture
from enroll.sandbox.replies import RefusalError

PEOPLE = 24


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    return [jpeg(draw_portrait(seed), quality=88) for seed in range(PEOPLE)]


def found(photo: bytes) -> object:
    return FaceFinder(detect=True).find(photo, field="file", turn=False)


def test_every_portrait_shows_exactly_one_face(photos: list[bytes]) -> None:
    detector = dlib.get_frontal_face_detector()
    counts = []
    for photo in photos:
        grey = grey_picture(photo, field="file", around=640).resize((256, 320))
        counts.append(len(detector(np.asarray(grey), 0)))
    assert counts == [1] * PEOPLE


def test_different_people_look_different_to_the_sandbox(photos: list[bytes]) -> None:
    finder, index = FaceFinder(detect=True), LikenessIndex()
    likenesses = [finder.find(photo, field="file", turn=False)[1] for photo in photos]
    for seed, likeness in enumerate(likenesses):
        index.add(str(seed), likeness)
    for seed, likeness in enumerate(likenesses):
        first, second = index.search(likeness, now=0.0, limit=2, threshold=0.0)
        assert first == (str(seed), 100.0)
        assert second[1] < 97.0


def test_a_seed_is_a_person_and_a_photo_is_small(photos: list[bytes]) -> None:
    assert jpeg(draw_portrait(3), quality=88) == photos[3]
    assert len(set(photos)) == PEOPLE
    assert max(map(len, photos)) < 25_000
    assert Image.open(io.BytesIO(photos[0])).size == (240, 300)


@pytest.mark.parametrize("size", [(120, 150), (480, 600), (300, 300)])
def test_portraits_of_other_sizes_are_found_too(size: tuple[int, int]) -> None:
    portrait = draw_portrait(1, size=size)
    assert portrait.size == size
    assert found(jpeg(portrait))


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Each file's content, inode and time."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes(),
            path.stat().st_ino,
            path.stat().st_mtime_ns,
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_drawing_an_archive_again_touches_and_draws_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = draw_archive(tmp_path, people=3)
    before = snapshot(tmp_path)
    assert manifest == tmp_path / "staff.csv"
    monkeypatch.setattr("enroll.cli.demo.draw_portrait", None)
    assert draw_archive(tmp_path, people=3) == manifest
    assert snapshot(tmp_path) == before


def test_an_archive_follows_from_its_seed(tmp_path: Path) -> None:
    def contents(folder: str, seed: int) -> dict[str, bytes]:
        draw_archive(tmp_path / folder, people=2, seed=seed)
        return {name: content for name, (content, *_) in snapshot(tmp_path / folder).items()}

    one = contents("a", 1)
    assert one == contents("b", 1)
    assert one["staff.csv"] != contents("c", 2)["staff.csv"]


def test_two_seeds_can_share_a_folder(tmp_path: Path) -> None:
    first = {row["image"] for row in rows_of(draw_archive(tmp_path, people=2, seed=1))}
    second = {row["image"] for row in rows_of(draw_archive(tmp_path, people=2, seed=2))}
    assert {name for name in first & second if name.startswith("photos/E")} == set()


def test_a_larger_archive_keeps_the_photos_of_a_smaller_one(tmp_path: Path) -> None:
    draw_archive(tmp_path, people=2)
    before = snapshot(tmp_path)
    rows = rows_of(draw_archive(tmp_path, people=4))
    after = snapshot(tmp_path)
    assert all(after[name] == before[name] for name in before if name != "staff.csv")
    assert len([row for row in rows if row["user_id"].startswith("E1")]) == 4


def test_the_archive_holds_every_kind_of_row_that_fails(tmp_path: Path) -> None:
    rows = {row["image"]: row for row in rows_of(draw_archive(tmp_path, people=1))}
    assert len(rows) == 9

    def code(name: str) -> str:
        with pytest.raises(RefusalError) as caught:
            found((tmp_path / "photos" / name).read_bytes())
        return caught.value.code

    assert code("no-face.jpg") == "NO_FACE_FOUND"
    for name in ("truncated.jpg", "text.jpg", "empty.jpg", "scan.jp2"):
        assert code(name) == "IMAGE_ERROR_UNSUPPORTED_FORMAT"
    assert not (tmp_path / "photos/missing.jpg").exists()
    assert " " in rows["photos/blank-in-id.jpg"]["user_id"]
    assert len(rows["photos/long-data.jpg"]["user_data"]) > 128
    good = [row for row in rows.values() if row["user_id"] == "E100000"]
    assert found((tmp_path / good[0]["image"]).read_bytes())


def test_files_of_the_archive_are_for_their_owner_alone(tmp_path: Path) -> None:
    draw_archive(tmp_path, people=1)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {
        0o600
    }


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LocalError, match="give another folder"):
        draw_archive(tmp_path / "file" / "demo")
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - names are what matters
