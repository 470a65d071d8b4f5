"""A photo archive to try things on: drawn people, and a few rows that cannot succeed."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFilter

from enroll.errors import LocalError
from enroll.ownership import make_folder
from enroll.portrait import SIZE, draw_portrait
from enroll.text.newfile import new_file

__all__ = ["draw_archive", "draw_portrait"]

_MANIFEST = "staff.csv"
_PHOTOS = "photos"
_QUALITY = 88
# Each seed has its own range of people, so archives of several seeds can share a folder.
_PEOPLE_PER_SEED = 100_000
_STRANGER = 7  # who is on the photos of the rows that fail

_GIVEN = (
    "Adel", "Alex", "Amal", "Andrea", "Ari", "Charlie", "Dana", "Eden", "Ezra", "Farah", "Isa",
    "Jo", "Jordan", "Kim", "Kit", "Lee", "Mika", "Nikita", "Noor", "Quinn", "Robin", "Sam",
    "Sasha", "Toni", "Yuki", "Zeno",
)  # fmt: skip
_FAMILY = (
    "Abara", "Bergström", "Castillo", "Chowdhury", "Dlamini", "Eriksen", "Ferrari", "Goh",
    "Haddad", "Ivanova", "Jansen", "Kaya", "Lindqvist", "Müller", "Nakamura", "Okafor", "Pereira",
    "Quispe", "Rahman", "Silva", "Tran", "Ueda", "Varga", "Wang", "Yilmaz", "Zhou",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One row of the archive, and how to make its photo; no photo is made without `content`."""

    user_id: str
    user_data: str
    image: str
    content: Callable[[], bytes] | None


def draw_archive(folder: Path, *, people: int = 60, seed: int = 1) -> Path:
    """Draw `people` portraits and some rows that fail into `folder`; returns its manifest.

    The manifest is `staff.csv` (user_id, user_data, image) and the photos are in `photos/`.
    Everything follows from `people` and `seed`. Files that are there already are left as they
    are, so a second call changes nothing. Raises `LocalError` when the folder cannot be written.
    """
    _make_folder(folder / _PHOTOS)
    entries = _entries(people=people, seed=seed)
    for entry in entries:
        path = folder / entry.image
        # Photos are moved into place whole, so one that is there needs no drawing.
        if entry.content is not None and not path.exists():
            _write(path, entry.content())
    manifest = folder / _MANIFEST
    _write(manifest, _manifest(entries))
    return manifest


def _entries(*, people: int, seed: int) -> list[_Entry]:
    """The people in order, with the rows that fail strewn among them."""
    rng = Random(seed)  # noqa: S311 - a drawing, not a secret
    entries = [_person(seed * _PEOPLE_PER_SEED + number, rng) for number in range(people)]
    for entry in _hopeless():
        entries.insert(rng.randint(min(1, len(entries)), len(entries)), entry)
    return entries


def _person(number: int, rng: Random) -> _Entry:
    user_id = f"E{number:06d}"
    return _Entry(
        user_id=user_id,
        user_data=f"{rng.choice(_GIVEN)} {rng.choice(_FAMILY)}",
        image=f"{_PHOTOS}/{user_id}.jpg",
        content=lambda: _portrait(number),
    )


def _hopeless() -> list[_Entry]:
    """Rows that end as rejected, invalid or failed, one for each reason."""

    def entry(
        name: str, content: Callable[[], bytes] | None, user_id: str = "", user_data: str = ""
    ) -> _Entry:
        return _Entry(
            user_id=user_id or name.partition(".")[0],
            user_data=user_data or "Demonstration of a row that fails",
            image=f"{_PHOTOS}/{name}",
            content=content,
        )

    return [
        entry("no-face.jpg", _landscape),
        entry("truncated.jpg", lambda: _portrait(_STRANGER)[:4000]),
        entry("text.jpg", lambda: b"Photo on request from the front desk.\n"),
        entry("empty.jpg", lambda: b""),
        entry("missing.jpg", None),
        entry("blank-in-id.jpg", lambda: _portrait(_STRANGER + 1), user_id="E 200 001"),
        entry("scan.jp2", lambda: _portrait(_STRANGER + 2, kind="JPEG2000")),
        entry("long-data.jpg", lambda: _portrait(_STRANGER + 3), user_data="Night shift, " * 15),
    ]


def _manifest(entries: list[_Entry]) -> bytes:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("user_id", "user_data", "image"))
    writer.writerows((entry.user_id, entry.user_data, entry.image) for entry in entries)
    return text.getvalue().encode()


def _portrait(seed: int, *, kind: str = "JPEG") -> bytes:
    return _encoded(draw_portrait(seed), kind)


def _landscape() -> bytes:
    """Hills under a sun, where no detector finds anybody."""
    width, height = SIZE
    picture = Image.new("RGB", SIZE, (176, 214, 240))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((150, 30, 200, 80), fill=(255, 226, 140))
    for x, y, colour in (
        (-60, 170, (142, 172, 196)),
        (70, 190, (110, 158, 120)),
        (-30, 225, (84, 136, 84)),
    ):
        draw.ellipse((x, y, x + width, y + height), fill=colour)
    return _encoded(picture.filter(ImageFilter.GaussianBlur(1)), "JPEG")


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = BytesIO()
    if kind == "JPEG":
        picture.save(buffer, "JPEG", quality=_QUALITY)
    else:
        picture.save(buffer, kind)
    return buffer.getvalue()


def _make_folder(path: Path) -> None:
    try:
        make_folder(path)
    except OSError as exc:
        raise LocalError(f"{path} cannot be made: {exc.strerror}; give another folder.") from exc


def _write(path: Path, content: bytes) -> None:
    with new_file(path) as new:
        new.file.write(content)
