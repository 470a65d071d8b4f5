"""The drawn portraits and the archive of the demo."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import dlib
import numpy as np
import pytest
from PIL import Image, ImageChops, ImageStat
from portraits import SIZE, draw_portrait
from portraits.__main__ import as_jpeg

from enroll.cli.rehearsal import PEOPLE, portrait, write_archive
from enroll.errors import LocalError
from enroll.sandbox.faces import FaceFinder, LikenessIndex, grey_picture
from enroll.sandbox.messages import RefusalError


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    return [portrait(number) for number in range(PEOPLE)]


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


def test_a_photo_is_small(photos: list[bytes]) -> None:
    assert len(set(photos)) == PEOPLE == 60
    assert max(map(len, photos)) <= 8_000
    assert Image.open(io.BytesIO(photos[0])).size == SIZE


@pytest.mark.parametrize("number", [0, 23, 59])
def test_the_script_still_draws_the_people_of_the_package(number: int) -> None:
    drawn = Image.open(io.BytesIO(as_jpeg(draw_portrait(number))))
    packaged = Image.open(io.BytesIO(portrait(number)))
    # Another version of a JPEG encoder may round differently.
    assert max(ImageStat.Stat(ImageChops.difference(drawn, packaged)).mean) < 1.0


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


def test_writing_an_archive_again_touches_no_photo(tmp_path: Path) -> None:
    manifest = write_archive(tmp_path)
    before = snapshot(tmp_path)
    assert manifest == tmp_path / "staff.csv"
    assert write_archive(tmp_path) == manifest
    assert snapshot(tmp_path) == before


def test_the_archive_holds_every_kind_of_row_that_fails(tmp_path: Path) -> None:
    rows = {row["image"]: row for row in rows_of(write_archive(tmp_path))}
    assert len(rows) == PEOPLE + 8

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
    write_archive(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {
        0o600
    }


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LocalError, match="give another folder"):
        write_archive(tmp_path / "file" / "demo")
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - names are what matters
