"""Options that several commands share, each written once with its heading in the help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from enroll.allowed import wrong_choice
from enroll.cli.command import (
    F,
    command_line_option,
    in_use,
    load_preset,
    named_option,
    option,
    together,
)
from enroll.cli.parameters import AUTO, FILE, InFlight, Member, error_code, number_of, pairs
from enroll.expiry import DEFAULT_TIMEOUT
from enroll.model import Role, SendAs
from enroll.presets import CONFIG_NAME
from enroll.settings import (
    DEFAULT_ENDPOINT,
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_PIXELS,
    DEFAULT_MAX_SIDE,
    Precheck,
    find_ledger,
)

LIBRARY = "Library and ledger"
MANIFEST = "Manifest"
PHOTOS = "Photos"
CALLS = "Calls"
ROWS = "Which rows, and when to end"
OUTPUT = "Output"


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
    type=FILE,
    help="The ledger's file.  [default: enroll/HOST/GROUP_ID.sqlite in the user's state folder]",
)

credentials = named_option(
    "--credentials",
    type=FILE,
    help="File with api_key and api_secret, or folder of two such files, when ENROLL_API_KEY and "
    "ENROLL_API_SECRET are not set.  [default: enroll in systemd's $CREDENTIALS_DIRECTORY, else "
    "enroll/credentials in the user's configuration folder]",
)

connection = together(
    credentials,
    named_option("--ca-bundle", type=FILE, help="Certificates to trust instead of the system's."),
    named_option("--allow-http", is_flag=True, help="Allow plain HTTP beyond this machine."),
    option(
        "--timeout",
        type=number_of("timeout"),
        default=DEFAULT_TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="Time limit of a whole call.",
    ),
    heading=CALLS,
)

library = together(config, group_id, endpoint, ledger, heading=LIBRARY)


def _known_library(help_of_endpoint: str) -> Callable[[F], F]:
    return together(
        config, ledger, group_id, named_option("--endpoint", metavar="URL", help=help_of_endpoint)
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

manifest = click.argument("manifest", type=FILE)

manifest_options = together(
    option(
        "--images",
        type=FILE,
        help="Base folder of relative photo paths.  [default: as in this manifest's last run; "
        "for a new manifest as last given for this ledger, else its own folder]",
    ),
    option(
        "--columns",
        multiple=True,
        callback=_columns,
        metavar="ROLE=NAME",
        help="The name of a manifest's column, such as user_id=EMP_NO; repeatable. Separate "
        "several by commas: user_id=EMP_NO,image=PHOTO.",
    ),
    option("--encoding", help="The manifest's encoding.  [default: detected and reported]"),
    option(
        "--sheet", metavar="NAME", help="The sheet of a workbook (.xlsx).  [default: the only one]"
    ),
    heading=MANIFEST,
)

multi_oriented_detection = option(
    "--multi-oriented-detection",
    is_flag=True,
    help="Let the service try other orientations of a photo in which it finds no face.",
)

send_as = option(
    "--send-as",
    type=Member(SendAs),
    default=SendAs.FILE.value,
    show_default=True,
    help="Send photos as a file part or as Base64 text.",
)

photos = together(
    option(
        "--max-side",
        type=number_of("max_side"),
        default=DEFAULT_MAX_SIDE,
        show_default=True,
        metavar="PIXELS",
        help="Shrink photos with a longer side.",
    ),
    option(
        "--max-bytes",
        type=number_of("max_bytes"),
        default=DEFAULT_MAX_BYTES,
        show_default=True,
        metavar="BYTES",
        help="Re-encode larger photos, with as little loss as possible.",
    ),
    option(
        "--max-pixels",
        type=number_of("max_pixels"),
        default=DEFAULT_MAX_PIXELS,
        show_default=True,
        metavar="PIXELS",
        help="Refuse photos with more pixels in total, without decoding them.",
    ),
    option(
        "--convert/--no-convert",
        default=True,
        show_default=True,
        help="Convert other formats and colours to JPEG, or refuse them.",
    ),
    option(
        "--accept-truncated",
        is_flag=True,
        help="Send what is left of a truncated photo.",
    ),
    send_as,
    multi_oriented_detection,
    option(
        "--precheck",
        type=Member(Precheck),
        default=Precheck.OFF.value,
        show_default=True,
        help="Look for a face before each call, and warn of photos with none, several of similar "
        "size or too small a one, or hold them back. Needs the sandbox extra.",
    ),
    option(
        "--min-face",
        type=number_of("min_face"),
        default=0,
        show_default=True,
        metavar="PIXELS",
        help="With --precheck: the minimum width of a face in the photo that is sent.",
    ),
    option("--checksum", is_flag=True, help="Read every photo, even unchanged ones."),
    option(
        "--readers",
        type=number_of("readers"),
        default=16,
        show_default=True,
        metavar="N",
        help="Photos read in parallel; more hide the latency of a slow share.",
    ),
    heading=PHOTOS,
)

# Calls, rows, and what is shown

max_in_flight = option(
    "--max-in-flight",
    type=InFlight(),
    default=AUTO,
    show_default=True,
    metavar="auto|N",
    help="Calls in flight: N, or as many as the account takes.",
)

retry = command_line_option(
    "--retry",
    multiple=True,
    callback=_codes,
    metavar="CODE,…",
    help="Retry rows that ended with one of these error codes; repeatable.",
)

seed = option(
    "--seed",
    type=number_of("seed"),
    default=0,
    show_default=True,
    metavar="S",
    help="Random seed of --sample: the same seed draws the same rows.",
)

show_user_ids = option(
    "--show-user-ids",
    is_flag=True,
    help="Show user ids, photo paths and the service's messages in log and output.",
)

yes = command_line_option("--yes", is_flag=True, help="Do not ask.")
