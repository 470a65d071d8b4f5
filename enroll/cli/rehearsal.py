"""`enroll sandbox` and `enroll demo`: rehearse with a stand-in for the service."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from io import StringIO
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import click

from enroll.allowed import COUNT, Range
from enroll.cli import options
from enroll.cli.command import SettingsCommand, named_option, option
from enroll.cli.parameters import FILE, SECONDS, Number
from enroll.cli.signals import begin_line
from enroll.errors import ExitCode, LocalError, UsageError
from enroll.model import Credentials
from enroll.ownership import make_folder, pasteable
from enroll.settings import RunSettings
from enroll.text.files import new_file
from enroll.text.wording import say

if TYPE_CHECKING:
    from enroll.commands.run_closing import Report
    from enroll.sandbox import Sandbox

DEFAULT_PORT = 8765
DAY_SECONDS = 86_400


def _needs_extra(error: ImportError, extra: str = "sandbox") -> UsageError:
    return UsageError(
        f"The stand-in needs the package {error.name}, which the {extra} extra installs: "
        f"pip install 'enroll[{extra}]'."
    )


@click.command(cls=SettingsCommand)
@options.config
@option(
    "--port",
    type=Number(Range(least=0, most=65_535, whole=True)),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port on 127.0.0.1; 0 takes a free one.",
)
@named_option("--store", type=FILE, help="Keep the libraries in this file.  [default: in memory]")
@option(
    "--library", "libraries", multiple=True, metavar="ID", help="Create this library; repeatable."
)
@option(
    "--parallel",
    type=Number(COUNT),
    metavar="N",
    help="Refuse calls beyond N at a time.  [default: no limit]",
)
@option(
    "--latency",
    type=SECONDS,
    metavar="SECONDS",
    help="Minimum duration of every call.  [default: no longer than it needs]",
)
@option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND=PROBABILITY",
    help="Answer calls with this fault; repeatable. A wrong KIND lists all kinds.",
)
@option(
    "--seed",
    type=Number(Range(least=0, whole=True)),
    default=0,
    show_default=True,
    help="Seed of the faults, and of the scores of --matcher model.",
)
@option(
    "--search-lag",
    type=SECONDS,
    metavar="SECONDS",
    help="How long `search` and `list` do not show a new face.  [default: not at all]",
)
@option(
    "--late-after",
    type=SECONDS,
    metavar="SECONDS",
    help="When a `late` call is carried out.  [default: when the caller has disconnected]",
)
@option(
    "--clock-skew",
    type=Number(Range(least=-DAY_SECONDS, most=DAY_SECONDS)),
    metavar="SECONDS",
    help="How far the stand-in's clock is ahead.  [default: not at all]",
)
@option(
    "--matcher",
    type=click.Choice(["crop", "dlib", "model"]),
    default="crop",
    show_default=True,
    help="How search tells people apart: by the crop of the face, which knows the same photo "
    "again; by dlib's network (extra matcher), which knows the person in another photo; or by a "
    "model of the vendor's rates, for made-up photos alone.",
)
@named_option(
    "--profile",
    type=FILE,
    help="Behave like the account that `enroll probe --profile` has tested: score field, error "
    "codes, sizes, and, where the options above do not say otherwise, parallel calls, latency, lag "
    "and clock.",
)
def sandbox(
    libraries: Sequence[str],
    faults: Sequence[str],
    store: Path | None,
    port: int,
    profile: Path | None,
    **behaviour: Any,
) -> int:
    """Run a local stand-in of the service, for rehearsals.

    Nothing leaves this machine. It takes the key and secret from ENROLL_API_KEY and
    ENROLL_API_SECRET, or makes some up and prints them.
    """
    try:
        from enroll.sandbox import (
            Sandbox,
            StoreError,
            parse_fault_option,
            read_profile,
            serve,
        )
    except ImportError as error:
        raise _needs_extra(error) from error
    try:
        observed = None if profile is None else read_profile(profile)
    except ValueError as error:
        raise _with_remedy(error, "Write one with `enroll probe --profile`.") from error
    except OSError as error:
        raise UsageError(
            f"--profile {profile} cannot be read: {error.strerror}. Correct --profile."
        ) from error
    try:
        box = Sandbox(
            port=port,
            profile=observed,
            store=store,
            faults=dict(map(parse_fault_option, faults)),
            api_key=os.environ.get("ENROLL_API_KEY"),
            api_secret=os.environ.get("ENROLL_API_SECRET"),
            **behaviour,
        )
        serve(box, libraries=libraries, on_ready=_tell_ready)
    except ImportError as error:
        raise _needs_extra(error, "matcher") from error
    except ValueError as error:
        raise _with_remedy(error) from error
    except StoreError as error:
        raise _with_remedy(error, "Name another with --store.") from error
    except OSError as error:
        raise UsageError(
            f"The stand-in cannot listen on port {port}: {error.strerror}. Choose another --port."
        ) from error
    begin_line()
    say(_stopped(box))
    return 0


def _stopped(box: Sandbox) -> str:
    """That it has stopped, and what it was asked for."""
    counts = box.counts
    if not counts:
        return "The stand-in has stopped."
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    return f"The stand-in has stopped. Calls: {kinds}."


def _with_remedy(error: Exception, remedy: str = "") -> UsageError:
    said = str(error)
    return UsageError(f"{said[:1].upper()}{said[1:]}. {remedy}".rstrip())


def _tell_ready(box: Sandbox) -> None:
    say(
        f"The stand-in listens on {box.endpoint} until Ctrl-C. In another shell:",
        "",
        f"  export ENROLL_ENDPOINT={box.endpoint}",
        f"  export ENROLL_API_KEY={box.api_key}",
        f"  export ENROLL_API_SECRET={box.api_secret}",
        "  enroll library list",
        "",
        wrap=False,
    )


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


_Entry = tuple[str, str, str, bytes | None]
"""A row's user_id and user_data, and its photo's name and content; None for no photo."""


def portrait(number: int) -> bytes:
    """The JPEG of one of PEOPLE drawn people: 240 x 300 pixels, at most 8 kB."""
    return _picture(f"{number:02}.jpg")


def nobody() -> bytes:
    """A JPEG without a face."""
    return _picture("landscape.jpg")


def write_archive(folder: Path) -> Path:
    """Write PEOPLE portraits and some rows that fail into `folder`; returns its manifest.

    The manifest is `staff.csv` (user_id, user_data, image) and the photos are in `photos/`. Files
    that exist are not changed, so a second call changes nothing. Raises `LocalError` when the
    folder cannot be written.
    """
    photos = folder / _PHOTOS
    try:
        make_folder(photos)
    except OSError as exc:
        raise LocalError(f"{photos} cannot be made: {exc.strerror}; give another folder.") from exc
    text = StringIO()
    manifest = csv.writer(text, lineterminator="\n")
    manifest.writerow(("user_id", "user_data", "image"))
    for user_id, user_data, photo, content in _entries():
        manifest.writerow((user_id, user_data, f"{_PHOTOS}/{photo}"))
        if content is not None and not (photos / photo).exists():
            _write(photos / photo, content)
    _write(folder / _MANIFEST, text.getvalue().encode())
    return folder / _MANIFEST


def _entries() -> list[_Entry]:
    """The people in order, with the rows that fail among them."""
    rng = Random(_SEED)  # noqa: S311  # names, not a secret
    entries: list[_Entry] = []
    for number in range(PEOPLE):
        user_id = f"E{_FIRST_ID + number:06d}"
        name = f"{rng.choice(_GIVEN)} {rng.choice(_FAMILY)}"
        entries.append((user_id, name, f"{user_id}.jpg", portrait(number)))
    for entry in _failing():
        entries.insert(rng.randint(1, len(entries)), entry)
    return entries


def _failing() -> Iterator[_Entry]:
    """Rows that end as rejected, invalid or failed, one for each reason."""
    what = "Demonstration of a row that fails"
    yield "no-face", what, "no-face.jpg", nobody()
    yield "truncated", what, "truncated.jpg", portrait(7)[:4000]
    yield "text", what, "text.jpg", b"Photo on request from the front desk.\n"
    yield "empty", what, "empty.jpg", b""
    yield "missing", what, "missing.jpg", None
    yield "E 200 001", what, "blank-in-id.jpg", portrait(8)
    yield "scan", what, "scan.jp2", _picture("scan.jp2")
    yield "long-data", "Night shift, " * 15, "long-data.jpg", portrait(10)


def _picture(name: str) -> bytes:
    return (files(__package__) / "portraits" / name).read_bytes()


def _write(path: Path, content: bytes) -> None:
    with new_file(path) as new:
        new.file.write(content)


GROUP_ID = "demo"


@click.command(cls=SettingsCommand)
@click.argument("folder", type=FILE, default=Path("enroll-demo"), metavar="[DIR]")
def demo(folder: Path) -> int:
    """Enroll a small archive of portraits into a stand-in.

    Creates both first, and keeps everything in DIR (enroll-demo). Run it twice: the second run
    adds nothing.
    """
    try:
        from enroll.sandbox import Sandbox, StoreError
    except ImportError as error:
        raise _needs_extra(error) from error
    from enroll.report.summary import summary_lines

    say(f"Writing an archive of portraits into {folder}; some of its rows fail on purpose.", "")
    manifest = write_archive(folder)
    try:
        with Sandbox(store=folder / "service.sqlite") as box:
            report = _enroll(manifest, box)
            faces = len(box.faces(GROUP_ID))
    except StoreError as error:
        raise _with_remedy(error, "Name another folder for this demo.") from error
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
    settings = replace(settings, max_in_flight=_most_in_flight(settings.reading))
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
        f"  {pasteable(f'{enroll} status --ledger', ledger)}",
        f"  {pasteable(f'{enroll} export - --status enrolled --ledger', ledger)}",
        f"  {pasteable('less', report.results or folder)}",
        "",
    ]


def _our_name() -> str:
    """How the reader can call enroll: by name if the path finds it, else by its file."""
    called = Path(sys.argv[0])
    found = shutil.which("enroll")
    if found is not None and called.exists() and Path(found).samefile(called):
        return "enroll"
    if called.name == "enroll":
        return shlex.quote(str(called))
    return f"{shlex.quote(sys.executable)} -m enroll"
