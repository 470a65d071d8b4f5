"""Options about a manifest, its photos, and how they are sent; several commands share them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import click

from enroll.allowed import wrong_code, wrong_role
from enroll.cli import options
from enroll.model import SendAs
from enroll.settings import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS, DEFAULT_MAX_SIDE, Precheck

AUTO = "auto"


_PAIR = re.compile(
    r"""
    \s*(?:
        "(?P<both>(?:[^"]|"")*)"
        | (?P<name>[^,="]+)=\s*(?:"(?P<quoted>(?:[^"]|"")+)" | (?P<plain>[^"].*?))
    )
    (?:\s*,[\s,]*(?="|\w+\s*=) | [\s,]*$)
    """,
    re.VERBOSE | re.DOTALL,
)
"""A pair, and the comma behind it: where no other pair begins, it belongs to the value."""


def pairs(ctx: click.Context, parameter: click.Parameter, value: Sequence[str]) -> dict[str, str]:
    """`A=B,C=D`, also given several times, as a mapping.

    A comma that another pair does not follow belongs to the value; as in a CSV, quotes are around
    values or pairs that hold any other, and a quote within them is written twice.
    """
    found: dict[str, str] = {}
    rest = ",".join(value).lstrip(", ")
    while rest:
        pair = _PAIR.match(rest)
        name, equals, text = _halves(pair) if pair else ("", "", "")
        if pair is None or not (name and equals and text):
            raise click.BadParameter(f"{rest!r} is not of the form NAME=VALUE")
        if name in found:
            raise click.BadParameter(f"{name} is given twice; say it once")
        found[name] = text
        rest = rest[pair.end() :].lstrip(", ")
    return found


def _halves(pair: re.Match[str]) -> tuple[str, str, str]:
    """Name, equals sign and value."""
    if pair["both"] is not None:
        name, equals, text = pair["both"].replace('""', '"').partition("=")
        return name.strip(), equals, text.strip()
    quoted = pair["quoted"]
    text = pair["plain"].strip() if quoted is None else quoted.replace('""', '"')
    return pair["name"].strip(), "=", text


def error_code(text: str) -> str:
    """An error code as it was typed. Raises BadParameter for what no code looks like."""
    code = text.strip()
    if wrong := wrong_code(code):
        raise click.BadParameter(wrong)
    return code


def _columns(
    ctx: click.Context, parameter: click.Parameter, value: Sequence[str]
) -> dict[str, str]:
    found = pairs(ctx, parameter, value)
    for role in found:
        if wrong := wrong_role(role):
            raise click.BadParameter(wrong)
    return found


manifest = click.argument("manifest", type=options.FILE)

manifest_options = options.together(
    click.option(
        "--images",
        type=options.FILE,
        help="Folder that relative photo paths begin at.  [default: as in this manifest's "
        "last run; for a new manifest as last given for this ledger, else its own folder]",
    ),
    click.option(
        "--columns",
        multiple=True,
        callback=_columns,
        metavar="ROLE=NAME",
        help="The name of a manifest's column, such as user_id=EMP_NO; repeatable. Several are set "
        "apart by commas: user_id=EMP_NO,image=PHOTO.",
    ),
    click.option("--encoding", help="The manifest's encoding.  [default: guessed, and said]"),
    click.option(
        "--sheet", metavar="NAME", help="The sheet of a workbook (.xlsx).  [default: the only one]"
    ),
)


class InFlight(click.ParamType[int | None]):
    """A number of calls, or `auto`: as many as the account takes (None)."""

    name = "calls"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if str(value).strip().lower() == AUTO:
            return None
        try:
            return int(options.number_of("max_in_flight").convert(value, param, ctx))
        except click.BadParameter as error:
            self.fail(f"{error.message.rstrip('.')}, nor {AUTO}.", param, ctx)


max_in_flight = click.option(
    "--max-in-flight",
    type=InFlight(),
    default=AUTO,
    show_default=True,
    metavar="auto|N",
    help="Calls made at the same time: N, or as many as the account turns out to take.",
)

readers = click.option(
    "--readers",
    type=options.number_of("readers"),
    default=16,
    show_default=True,
    metavar="N",
    help="Photos read at the same time; more hide the round trips of a slow share.",
)

multi_oriented_detection = click.option(
    "--multi-oriented-detection",
    is_flag=True,
    help="Have the service turn a photo in which it finds no face upright.",
)

preparing = options.together(
    click.option(
        "--max-side",
        type=options.number_of("max_side"),
        default=DEFAULT_MAX_SIDE,
        show_default=True,
        metavar="PIXELS",
        help="Photos with a longer side are shrunk.",
    ),
    click.option(
        "--max-bytes",
        type=options.number_of("max_bytes"),
        default=DEFAULT_MAX_BYTES,
        show_default=True,
        metavar="BYTES",
        help="Photos of more bytes are encoded anew, with as little loss as possible.",
    ),
    click.option(
        "--max-pixels",
        type=options.number_of("max_pixels"),
        default=DEFAULT_MAX_PIXELS,
        show_default=True,
        metavar="PIXELS",
        help="Photos of more pixels in all are not decoded, and refused.",
    ),
    click.option(
        "--convert/--no-convert",
        default=True,
        show_default=True,
        help="Convert other formats and colours to JPEG, or refuse them.",
    ),
    click.option(
        "--accept-truncated",
        is_flag=True,
        help="Send what there is of a photo whose end is missing.",
    ),
)

prechecking = options.together(
    click.option(
        "--precheck",
        type=options.Member(Precheck),
        default=Precheck.OFF.value,
        show_default=True,
        help="Look for the face before a call: of photos with none, several of similar size or "
        "too small a one, warn, or hold them back. Needs the sandbox extra.",
    ),
    click.option(
        "--min-face",
        type=options.number_of("min_face"),
        default=0,
        show_default=True,
        metavar="PIXELS",
        help="With --precheck: the least width of a face in what is sent.",
    ),
)

send_as = click.option(
    "--send-as",
    type=options.Member(SendAs),
    default=SendAs.FILE.value,
    show_default=True,
    help="Send photos as a file part or as Base64 text.",
)


def tame_pillow() -> None:
    """Have Pillow and its decoders say nothing of odd or broken photos, of which the rows say what
    is wrong; and the memory of one picture not be kept for the next."""
    from enroll.photos.bounds import give_back_memory
    from enroll.photos.decode import hush_libtiff

    warnings.filterwarnings("ignore", module="PIL")
    hush_libtiff()
    give_back_memory()
