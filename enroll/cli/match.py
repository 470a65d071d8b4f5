"""`enroll match`: propose a photo for each row of a list that names none."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enroll.cli import options
from enroll.cli.command import SettingsCommand, in_use, named_option, option
from enroll.cli.parameters import FILE, FILE_OR_OBJECT
from enroll.cli.printing import printing
from enroll.cli.terminal import Terminal
from enroll.errors import UsageError
from enroll.text.wording import amount, counted, facts, option_pair, say

if TYPE_CHECKING:
    from enroll.commands.match import Matched, MatchSettings

_MANIFESTS = (".csv", ".xlsx")
"""Suffixes of outputs that can be a manifest."""

_MEANINGS = {
    "sure": "the photo is in the column {image}",
    "unsure": "the proposal is in match_image, what speaks against it in match_reason",
    "none": "no photo fits",
    "given": "the list itself names the photo",
}


@click.command(cls=SettingsCommand)
@click.argument("list_file", metavar="LIST", type=FILE_OR_OBJECT)
@click.argument("folder", type=FILE_OR_OBJECT)
@named_option(
    "--output",
    type=FILE,
    required=True,
    help="Write the list with the proposals to this file (.csv, .xlsx, .jsonl or .parquet), which "
    "must not exist yet.",
)
@option(
    "--compare",
    multiple=True,
    metavar="COLUMN",
    help="Compare this column, which holds names or numbers, with the photos' names; repeatable.  "
    "[default: user_id, user_data, and the columns whose names say so]",
)
@options.list_options
@options.config
def match(list_file: Path, folder: Path, output: Path, **given: Any) -> int:
    """Propose a photo in FOLDER for each row of LIST.

    Names and numbers in the list are compared with those in the photos' names. Only sure photos go
    into the column image; review the other proposals and copy those that are right. Then OUTPUT is
    a manifest. Nothing is sent, and no account is needed. Needs the match extra.
    """
    if not find_spec("rapidfuzz"):
        raise UsageError(
            "enroll match needs the package rapidfuzz: run `pip install 'enroll[match]'`."
        )
    from enroll import threads
    from enroll.commands.match import MatchSettings, match_photos

    terminal = Terminal()
    settings = MatchSettings(
        list_file=list_file,
        folder=folder,
        output=output,
        workers=threads.count(),
        in_use=in_use(),
        **given,
    )
    found = match_photos(settings, progress=lambda done: terminal.progress(done, "photos compared"))
    with printing():
        say(*_lines(settings, found))
        if settings.output.suffix.lower() in _MANIFESTS:
            words = ["enroll", "plan", str(output), "--images", str(folder)]
            say(f"  {shlex.join([*words, *_columns(settings.columns)])}", wrap=False)
    return 0


def _lines(settings: MatchSettings, found: Matched) -> Iterator[str]:
    yield from (f"Note: {note}" for note in found.notes)
    others = f", and {amount(found.others, 'other file')}" if found.others else ""
    yield from facts(
        [
            ("List", f"{settings.list_file}: {amount(found.rows, 'row')}"),
            ("Compared", ", ".join(found.compared)),
            ("Photos", f"{settings.folder}: {amount(found.photos, 'photo')}{others}"),
        ]
    )
    yield ""
    counts = {"sure": found.sure, "unsure": found.unsure, "none": found.none, "given": found.given}
    counts = {name: count for name, count in counts.items() if count or name != "given"}
    meanings = {name: text.format(image=found.image) for name, text in _MEANINGS.items()}
    yield from counted(counts, meanings)
    yield ""
    if found.left:
        yield (
            f"{amount(found.left, 'photo')} without a row: at the end of the file, where "
            f"{'it does' if found.left == 1 else 'they do'} not count as rows."
        )
    yield f"Written to {settings.output}. Nothing was sent."
    yield _next(settings, found)


def _next(settings: MatchSettings, found: Matched) -> str:
    if settings.output.suffix.lower() not in _MANIFESTS:
        return "To use the proposals as a manifest, write a .csv or .xlsx."
    if not found.unsure:
        return "Next:"
    return (
        f"Next: look at the rows whose match_sure is no, and copy match_image to {found.image} "
        "where it is right. Then:"
    )


def _columns(columns: Mapping[str, str]) -> Iterator[str]:
    """The options with which the output's columns are found."""
    for role, name in columns.items():
        yield from ("--columns", option_pair(role, name))
