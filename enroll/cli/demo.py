"""`enroll demo`: an archive to try things on, the stand-in, a run, and what to look at after it."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO, StringIO
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFilter

from enroll.commands.run import enroll_manifest
from enroll.commands.run_closing import Report
from enroll.errors import ExitCode, LocalError
from enroll.limiter.adaptive import MOST_IN_FLIGHT
from enroll.model import Credentials
from enroll.ownership import make_folder
from enroll.portrait import SIZE, draw_portrait
from enroll.report.console import Console
from enroll.report.summary import summary_lines
from enroll.resources import share_out
from enroll.sandbox import Sandbox
from enroll.settings import RunSettings
from enroll.text.files import new_file
from enroll.text.logs import LastingStream, set_up
from enroll.text.wording import say

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


GROUP_ID = "demo"


def run_demo(folder: Path) -> int:
    """Enroll a drawn archive into the stand-in; everything that it makes lies in `folder`.

    Returns the run's exit code, but 0 for rows that fail: some of the demo's are there for it.
    """
    say(f"Drawing an archive of portraits into {folder}; some rows are there to fail.", "")
    manifest = draw_archive(folder)
    with Sandbox(store=folder / "service.sqlite") as box:
        box.create_library(GROUP_ID)
        credentials = Credentials(box.api_key, box.api_secret)
        settings = RunSettings(
            manifest=manifest,
            group_id=GROUP_ID,
            endpoint=box.endpoint,
            ledger=folder / "ledger.sqlite",
            origins={"endpoint": "the stand-in", "group_id": "the demo", "ledger": "the demo"},
        )
        settings = replace(settings, max_in_flight=_most_in_flight(settings.readers))
        stream = LastingStream(sys.stderr)
        set_up(stream=stream, as_json=False, file=None, quiet=False)
        console = Console(settings, stream)
        report = enroll_manifest(settings, lambda: credentials, screen=console)
        faces = len(box.faces(GROUP_ID))
    say("", *summary_lines(report), *_afterwards(folder, report, faces))
    code = report.exit_code
    return ExitCode.DONE if code is ExitCode.SOME_ROWS_FAILED else code


def _most_in_flight(readers: int) -> int | None:
    """None for as many as the stand-in takes; fewer where this process, which has both ends of
    every connection, may not have so many files open."""
    calls = share_out(calls=2 * MOST_IN_FLIGHT, readers=readers).calls // 2
    return None if calls == MOST_IN_FLIGHT else max(calls, 1)


def _afterwards(folder: Path, report: Report, faces: int) -> list[str]:
    ledger, enroll = report.place.ledger, _our_name()
    return [
        "",
        f"The stand-in's library now holds {faces} faces. Run the demo again: it adds none.",
        "Look around:",
        "",
        f"  {enroll} status --ledger {ledger}",
        f"  {enroll} export - --ledger {ledger} --status enrolled",
        f"  less {report.results or folder}",
        "",
    ]


def _our_name() -> str:
    """How the reader can call us: by name where that finds us, else by the path that was used."""
    called = Path(sys.argv[0])
    found = shutil.which("enroll")
    if found is not None and called.exists() and Path(found).samefile(called):
        return "enroll"
    return str(called) if called.name == "enroll" else f"{sys.executable} -m enroll"
