"""`enroll demo`: write an archive, start the stand-in, enroll, and say what to look at."""

from __future__ import annotations

import csv
import shutil
import sys
from dataclasses import dataclass, replace
from importlib.resources import files
from io import StringIO
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click

from enroll.cli.command import SettingsCommand
from enroll.cli.parameters import FILE
from enroll.cli.sandbox import needs_extra, with_remedy
from enroll.errors import ExitCode, LocalError
from enroll.model import Credentials
from enroll.ownership import make_folder
from enroll.settings import RunSettings
from enroll.text.files import new_file
from enroll.text.wording import say

if TYPE_CHECKING:
    from enroll.commands.run_closing import Report
    from enroll.sandbox import Sandbox

PEOPLE = 60
"""People whose portraits are in the package; `benchmarks/portraits` drew them."""

_MANIFEST = "staff.csv"
_PHOTOS = "photos"
_FIRST_ID = 100_000
_SEED = 1
"""Seed for the people's names and the positions of the rows that fail."""

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
    """One row of the archive, and its photo; without `content` no photo is written."""

    user_id: str
    user_data: str
    image: str
    content: bytes | None


def portrait(number: int) -> bytes:
    """The JPEG of one of PEOPLE drawn people: 240 x 300 pixels, at most 8 kB."""
    return _picture(f"{number:02}.jpg")


def write_archive(folder: Path) -> Path:
    """Write PEOPLE portraits and some rows that fail into `folder`; returns its manifest.

    The manifest is `staff.csv` (user_id, user_data, image) and the photos are in `photos/`. Files
    that exist are not changed, so a second call changes nothing. Raises `LocalError` when the
    folder cannot be written.
    """
    _make_folder(folder / _PHOTOS)
    entries = _entries()
    for entry in entries:
        path = folder / entry.image
        if entry.content is not None and not path.exists():
            _write(path, entry.content)
    manifest = folder / _MANIFEST
    _write(manifest, _manifest(entries))
    return manifest


def _entries() -> list[_Entry]:
    """The people in order, with the rows that fail among them."""
    rng = Random(_SEED)  # noqa: S311  # names, not a secret
    entries = [_person(number, rng) for number in range(PEOPLE)]
    for entry in _failing():
        entries.insert(rng.randint(1, len(entries)), entry)
    return entries


def _person(number: int, rng: Random) -> _Entry:
    user_id = f"E{_FIRST_ID + number:06d}"
    return _Entry(
        user_id=user_id,
        user_data=f"{rng.choice(_GIVEN)} {rng.choice(_FAMILY)}",
        image=f"{_PHOTOS}/{user_id}.jpg",
        content=portrait(number),
    )


def _failing() -> list[_Entry]:
    """Rows that end as rejected, invalid or failed, one for each reason."""

    def entry(name: str, content: bytes | None, user_id: str = "", user_data: str = "") -> _Entry:
        return _Entry(
            user_id=user_id or name.partition(".")[0],
            user_data=user_data or "Demonstration of a row that fails",
            image=f"{_PHOTOS}/{name}",
            content=content,
        )

    return [
        entry("no-face.jpg", _picture("landscape.jpg")),
        entry("truncated.jpg", portrait(7)[:4000]),
        entry("text.jpg", b"Photo on request from the front desk.\n"),
        entry("empty.jpg", b""),
        entry("missing.jpg", None),
        entry("blank-in-id.jpg", portrait(8), user_id="E 200 001"),
        entry("scan.jp2", _picture("scan.jp2")),
        entry("long-data.jpg", portrait(10), user_data="Night shift, " * 15),
    ]


def _picture(name: str) -> bytes:
    return (files(__package__) / "portraits" / name).read_bytes()


def _manifest(entries: list[_Entry]) -> bytes:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("user_id", "user_data", "image"))
    writer.writerows((entry.user_id, entry.user_data, entry.image) for entry in entries)
    return text.getvalue().encode()


def _make_folder(path: Path) -> None:
    try:
        make_folder(path)
    except OSError as exc:
        raise LocalError(f"{path} cannot be made: {exc.strerror}; give another folder.") from exc


def _write(path: Path, content: bytes) -> None:
    with new_file(path) as new:
        new.file.write(content)


GROUP_ID = "demo"


@click.command(cls=SettingsCommand)
@click.argument("folder", type=FILE, default=Path("enroll-demo"), metavar="[DIR]")
def demo(folder: Path) -> int:
    """Write an archive of portraits, start the stand-in, enroll into it.

    Everything stays in DIR (enroll-demo). Run it twice: the second run adds nothing.
    """
    try:
        from enroll.sandbox import Sandbox, StoreError
    except ImportError as error:
        raise needs_extra(error) from error
    from enroll.report.summary import summary_lines

    say(f"Writing an archive of portraits into {folder}; some of its rows fail on purpose.", "")
    manifest = write_archive(folder)
    try:
        with Sandbox(store=folder / "service.sqlite") as box:
            report = _enroll(manifest, box)
            faces = len(box.faces(GROUP_ID))
    except StoreError as error:
        raise with_remedy(error, "Name another folder for this demo.") from error
    say("", *summary_lines(report))
    say(*_afterwards(folder, report, faces), wrap=False)
    # Some of the demo's rows fail on purpose.
    code = report.exit_code
    return ExitCode.DONE if code is ExitCode.SOME_ROWS_FAILED else code


def _enroll(manifest: Path, box: Sandbox) -> Report:
    from enroll.commands.run import enroll_manifest
    from enroll.report.console import Console
    from enroll.text.logs import LastingStream, set_up

    box.create_library(GROUP_ID)
    settings = RunSettings(
        manifest=manifest,
        group_id=GROUP_ID,
        endpoint=box.endpoint,
        ledger=manifest.with_name("ledger.sqlite"),
        origins={"endpoint": "the stand-in", "group_id": "the demo", "ledger": "the demo"},
    )
    settings = replace(settings, max_in_flight=_most_in_flight(settings.readers))
    stream = LastingStream(sys.stderr)
    set_up(stream=stream, as_json=False, file=None, quiet=False)
    credentials = Credentials(box.api_key, box.api_secret)
    return enroll_manifest(settings, lambda: credentials, screen=Console(settings, stream))


def _most_in_flight(readers: int) -> int | None:
    """None for as many as the stand-in takes; fewer if this process, which holds both ends of every
    connection, may not open that many files."""
    from enroll.limiter.adaptive import MOST_IN_FLIGHT
    from enroll.resources import share_out

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
    """How the reader can call enroll: by name if the path finds it, else by its file."""
    called = Path(sys.argv[0])
    found = shutil.which("enroll")
    if found is not None and called.exists() and Path(found).samefile(called):
        return "enroll"
    return str(called) if called.name == "enroll" else f"{sys.executable} -m enroll"
