"""Options that several commands share, each written once with its heading in the help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import click

from enroll.allowed import RANGES, wrong_choice
from enroll.cli.command import (
    F,
    command_line_option,
    in_use,
    load_preset,
    named_option,
    option,
    together,
)
from enroll.cli.parameters import (
    AUTO,
    FILE,
    FILE_OR_OBJECT,
    LEDGER,
    Delimiter,
    Member,
    Memory,
    Number,
    OrAuto,
    RateOrTimetable,
    error_code,
    pairs,
)
from enroll.model import Role
from enroll.presets import CONFIG_NAME
from enroll.settings import (
    DEFAULT_BUCKET_READERS,
    DEFAULT_ENDPOINT,
    DEFAULT_READERS,
    CallSettings,
    RunSettings,
    find_ledger,
)

LIBRARY = "Library and ledger"
MANIFEST = "Manifest"
PHOTOS = "Photos"
CALLS = "Calls"
WORKERS = "Who does the work"
ROWS = "Which rows, and when to end"
OUTPUT = "Output"


def setting(
    name: str,
    text: str,
    *,
    metavar: str | None = None,
    of: type[CallSettings] = RunSettings,
    otherwise: str = "",
) -> Callable[[F], F]:
    """The option of a setting `of` a command: a number, a choice or a flag. Its range, its choices
    and its default are the setting's; `otherwise` describes a default that depends on others."""
    field = name.lstrip("-").replace("-", "_")
    default = of.__dataclass_fields__[field].default
    more: dict[str, Any] = {"default": default, "metavar": metavar}
    more["show_default"] = otherwise or True
    if isinstance(default, bool):
        more["is_flag"] = True
    elif isinstance(default, StrEnum):
        more |= {"type": Member(type(default)), "default": default.value}
    else:
        more["type"] = Number(RANGES[field])
    return option(name, help=text, **more)


def _codes(ctx: click.Context, parameter: click.Parameter, value: Sequence[str]) -> frozenset[str]:
    return frozenset(error_code(code) for text in value for code in text.split(","))


def _columns(
    ctx: click.Context, parameter: click.Parameter, value: Sequence[str]
) -> dict[str, str]:
    found = pairs(ctx, parameter, value)
    for role in found:
        if wrong := wrong_choice(role, Role):
            raise click.BadParameter(wrong)
    return found


# The library and its ledger

config = command_line_option(
    "--config",
    type=FILE,
    is_eager=True,
    expose_value=False,
    callback=load_preset,
    help=f"Settings file.  [default: {CONFIG_NAME} in this folder, if there is one]",
)

group_id = option("--group-id", metavar="ID", help="The library: its group_id.")

endpoint = named_option(
    "--endpoint", metavar="URL", default=DEFAULT_ENDPOINT, show_default=True, help="Base URL."
)

ledger = option(
    "--ledger",
    type=LEDGER,
    help="The ledger's file, or postgresql://HOST/DATABASE?schema=NAME.  [default: "
    "enroll/HOST/GROUP_ID.sqlite in the user's state folder]",
)

connection = together(
    named_option(
        "--credentials",
        type=FILE,
        help="File with api_key and api_secret, or folder of two such files, when ENROLL_API_KEY "
        "and ENROLL_API_SECRET are not set.  [default: enroll in systemd's $CREDENTIALS_DIRECTORY, "
        "else enroll/credentials in the user's configuration folder]",
    ),
    named_option(
        "--ca-bundle", type=FILE, help="CA certificates to trust instead of the default ones."
    ),
    named_option("--allow-http", is_flag=True, help="Allow plain HTTP beyond this machine."),
    setting("--timeout", "Time limit of a whole call.", metavar="SECONDS"),
    heading=CALLS,
)

library = together(config, group_id, endpoint, ledger, heading=LIBRARY)


def _known_library(help_of_endpoint: str) -> Callable[[F], F]:
    return together(
        config,
        option(
            "--ledger",
            type=LEDGER,
            help="An existing ledger's file or address.  [default: the library's; without "
            "--group-id the only one in the user's state folder]",
        ),
        group_id,
        named_option("--endpoint", metavar="URL", help=help_of_endpoint),
    )


any_ledger = _known_library("The library's endpoint, if several are known.")
"""For commands that only read a ledger."""

known_ledger = together(
    _known_library("Base URL.  [default: as in the ledger's last run]"), connection
)
"""For commands that work on an existing ledger and make calls; `session_settings` reads them."""


def session_settings(given: Mapping[str, Any], credentials: Path | None) -> dict[str, Any]:
    """What a command was given, as its `SessionSettings` take it: with the ledger that is meant,
    and the files that it reads. Raises UsageError where no ledger can be meant."""
    ledger = find_ledger(
        ledger=given["ledger"], endpoint=given["endpoint"], group_id=given["group_id"]
    )
    files = in_use(credentials, ca_bundle=given["ca_bundle"], user_ids=given.get("user_ids"))
    return {**given, "ledger": ledger, "in_use": files}


# The manifest and its photos

manifest = click.argument("manifest", type=FILE_OR_OBJECT)

list_options = together(
    option(
        "--columns",
        multiple=True,
        callback=_columns,
        metavar="ROLE=NAME",
        help="The name of a manifest's column, such as user_id=EMP_NO, or a template over columns, "
        "such as 'user_data={Last}, {First}'; repeatable. Separate several by commas: "
        "user_id=EMP_NO,image=PHOTO.",
    ),
    option("--encoding", help="The manifest's encoding.  [default: detected and reported]"),
    option(
        "--sheet", metavar="NAME", help="The sheet of a workbook (.xlsx).  [default: the only one]"
    ),
    setting(
        "--header-row",
        "The line or row of the header, where a title is above it; the first is 1.  [default: the "
        "first that is not empty]",
        metavar="N",
    ),
    option(
        "--delimiter",
        type=Delimiter(),
        metavar="CHAR",
        help="The character between the manifest's cells; tab is a tab.  [default: detected: "
        ", ; tab or |]",
    ),
    heading=MANIFEST,
)
"""How a list is read, and which of its columns are what."""

manifest_options = together(
    option(
        "--images",
        type=FILE_OR_OBJECT,
        help="Base folder of relative photo paths, a ZIP archive, or a prefix in a bucket, such as "
        "s3://bucket/prefix.  [default: as in this "
        "manifest's last run; for a new manifest as last given for this ledger, else its own "
        "folder]",
    ),
    list_options,
    option(
        "--photo",
        metavar="TEMPLATE",
        help="How a row's columns make up the path of its photo, such as "
        "'{Department}/{user_id}*', instead of a column with the path. Letter case, Unicode form "
        "and suffix do not count.",
    ),
    option(
        "--id-from",
        multiple=True,
        metavar="TEMPLATE",
        help="If MANIFEST is a folder or ZIP archive of photos: how a photo's path, without its "
        "suffix, yields user_id and perhaps user_data, such as '{user_data}/{user_id}_*'; "
        "repeatable, the first that matches counts.  [default: {user_id}, the file's name]",
    ),
    heading=MANIFEST,
)

multi_oriented_detection = setting(
    "--multi-oriented-detection",
    "Let the service try other orientations of a photo in which it finds no face.",
)

send_as = setting("--send-as", "Send photos as a file part or as Base64 text.")

memory = option(
    "--memory",
    type=Memory(),
    default=AUTO,
    show_default=True,
    metavar="auto|SIZE",
    help="Memory for preparing photos, the command's own included, such as 2GB. As many photos "
    "are prepared at a time as fit in, and as there are cores. auto is a quarter of the memory "
    "of the machine or its container, at least 400 MB.",
)

max_side = setting("--max-side", "Shrink photos with a longer side.", metavar="PIXELS")

photos = together(
    max_side,
    setting(
        "--max-bytes",
        "Re-encode larger photos, with as little loss as possible.",
        metavar="BYTES",
    ),
    setting(
        "--max-pixels",
        "Refuse photos with more pixels in total, without decoding them.",
        metavar="PIXELS",
    ),
    option(
        "--convert/--no-convert",
        default=True,
        show_default=True,
        help="Convert other formats and colours to JPEG, or refuse them.",
    ),
    setting("--accept-truncated", "Send what is left of a truncated photo."),
    send_as,
    multi_oriented_detection,
    setting(
        "--precheck",
        "Look for a face before each call. Photos with no face, several of similar size, or one "
        "that is too small, cut off, tilted, dark, bright or blurred are sent with a warning, or "
        "held back. Needs the precheck extra.",
    ),
    setting(
        "--min-face",
        "With --precheck: the minimum width of a face in the photo that is sent; 0 for 30.",
        metavar="PIXELS",
    ),
    setting(
        "--lookalikes",
        "Search the library before each new face is added. One that looks like another person is "
        "added with a warning, or held until `enroll audit --accept` allows it. One more call a "
        "new face.",
    ),
    setting("--checksum", "Read every photo, even unchanged ones."),
    setting(
        "--readers",
        "Photos read in parallel; more hide the latency of a slow share.",
        otherwise=f"{DEFAULT_READERS}; {DEFAULT_BUCKET_READERS} from a bucket",
        metavar="N",
    ),
    memory,
    heading=PHOTOS,
)

# Calls, rows, and what is shown

max_in_flight = option(
    "--max-in-flight",
    type=OrAuto("max_in_flight"),
    default=AUTO,
    show_default=True,
    metavar="auto|N",
    help="Calls in flight: N, or as many as the account takes.",
)


def rate(further: str = "") -> Callable[[F], F]:
    """The option that limits calls a second; `further` ends its help."""
    text = (
        "Send at most this many calls a second; by local time with a timetable such as "
        "08:00-18:00=5,else=50."
    )
    return option(
        "--rate",
        type=RateOrTimetable(),
        metavar="CALLS_PER_SECOND|TIMETABLE",
        help=f"{text} {further}".rstrip(),
    )


max_calls = setting("--max-calls", "Make at most N calls of any kind, then end.", metavar="N")

retry = command_line_option(
    "--retry",
    multiple=True,
    callback=_codes,
    metavar="CODE,…",
    help="Retry rows that ended with one of these error codes; repeatable.",
)

seed = setting("--seed", "Random seed of --sample: the same seed draws the same rows.", metavar="S")

show_user_ids = option(
    "--show-user-ids",
    is_flag=True,
    help="Show user ids, photo paths and the service's messages in log and output.",
)

as_json = option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object instead of lines, however the command ends.",
)

summary = named_option(
    "--summary", type=FILE, help="Write the command's figures to this file, as JSON."
)

yes = command_line_option("--yes", is_flag=True, help="Do not ask for confirmation.")
