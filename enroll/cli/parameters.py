"""The types of options: what each accepts, from the command line or a settings file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import click

from enroll import allowed
from enroll.addresses import LedgerAddress, is_address, is_url, ledger_named, path_of
from enroll.allowed import (
    LEAST_MEMORY,
    RANGES,
    Range,
    wrong_code,
    wrong_delimiter,
    wrong_duration,
    wrong_path,
)
from enroll.errors import UsageError
from enroll.settings import INVALID_BOUND, Bound
from enroll.timetable import Timetable

E = TypeVar("E", bound=StrEnum)

AUTO = "auto"


class File(click.Path):
    """A file's name, no longer than file names may be."""

    def __init__(
        self, *, stdio: bool = False, objects: bool = False, databases: bool = False
    ) -> None:
        """With `stdio`, `-` means standard input or output. With `objects` it may be an address in
        a bucket, with `databases` that of a ledger in a database."""
        super().__init__(path_type=Path)
        self._stdio = stdio
        self._objects = objects
        self._databases = databases

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-" and not self._stdio:
            self.fail("- is not a file here: name one (./- is a file of that name).", param, ctx)
        if not str(value):  # which would be this folder, and a folder can be a manifest
            self.fail("the name is empty, as of a variable that is not set.", param, ctx)
        if self._objects and is_address(str(value)):
            return path_of(value)
        if is_url(str(value)):
            self.fail(f"{value} is in a bucket, and this has to be a file here.", param, ctx)
        if self._databases and is_address(str(value)):
            if isinstance(address := ledger_named(value), LedgerAddress):
                return address
            self.fail(  # without the value, which may hold a password
                "the address is no ledger's: write postgresql://HOST/DATABASE?schema=NAME.",
                param,
                ctx,
            )
        path = Path(str(super().convert(value, param, ctx)))
        if wrong := wrong_path(path):
            self.fail(wrong, param, ctx)
        return path


FILE = File()

FILE_OR_OBJECT = File(objects=True)

LEDGER = File(databases=True)


class Member(click.Choice[E]):
    """A choice among an enum's values; click itself would expect its members' names."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        return super().normalize_choice(str(choice), ctx)


class Number(click.ParamType[float]):
    """A finite number within a range, which is shown in the help."""

    def __init__(self, within: Range) -> None:
        self.within = within
        self.name = "integer" if within.whole else "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if wrong := self.within.wrong(value):
            self.fail(wrong, param, ctx)
        return int(str(value)) if self.within.whole else float(value)


SECONDS = Number(allowed.SECONDS)

_LENGTH = re.compile(
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?"
)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


class Duration(click.ParamType[float]):
    """A length of time in seconds: `21600`, `6h`, `90m`, `1h30m`; more than zero."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        parts = _LENGTH.fullmatch("".join(str(value).lower().split()))
        if parts is None:
            self.fail(f"{value!r} is not a length of time, such as 21600, 6h or 1h30m.", param, ctx)
        found = {unit: float(number) for unit, number in parts.groupdict().items() if number}
        seconds = sum(number * _UNITS[unit] for unit, number in found.items())
        if wrong := wrong_duration(value, seconds):
            self.fail(wrong, param, ctx)
        return seconds


class Time(click.ParamType[datetime]):
    """A date, or a date and a time, in UTC."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        text = str(value).removesuffix("Z").replace("T", " ")
        try:
            form = "%Y-%m-%d %H:%M:%S" if " " in text else "%Y-%m-%d"
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            self.fail(
                f"{value!r} is not a date or time in UTC. Write it like 2026-11-23 or "
                "2026-11-23T08:30:00.",
                param,
                ctx,
            )


class OrAuto(click.ParamType[int | None]):
    """A whole number within a setting's range, or `auto`: as much as there is (None)."""

    _also = f"{AUTO} is"
    """What is allowed beside a number."""

    def __init__(self, setting: str) -> None:
        self.name = setting
        self._number = Number(RANGES[setting])

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if str(value).strip().lower() == AUTO:
            return None
        try:
            return int(self._number.convert(value, param, ctx))
        except click.BadParameter as error:
            self.fail(f"{error.message.rstrip('.')}; {self._also} also allowed.", param, ctx)


_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<prefix>[kmgt]i?)b?", re.IGNORECASE)
_PREFIXES: dict[str, int] = {
    f"{letter}{binary}": base**power
    for power, letter in enumerate("kmgt", 1)
    for binary, base in (("", 1000), ("i", 1024))
}


class Memory(OrAuto):
    """Bytes, such as `400MB`, `1.5 GB` or `2GiB`, or `auto`."""

    _also = f"sizes like 2GB and {AUTO} are"

    def __init__(self) -> None:
        super().__init__("memory")

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        match = _SIZE.fullmatch(str(value).strip().lower())
        if match is None:
            return super().convert(value, param, ctx)
        size = round(float(match["number"]) * _PREFIXES[match["prefix"]])
        if size < LEAST_MEMORY:
            least = f"{LEAST_MEMORY // 1_000_000}MB"
            self.fail(f"{value} is too little. Give at least {least}, or {AUTO}.", param, ctx)
        return size


class RateOrTimetable(click.ParamType[float | Timetable]):
    """Calls a second: a number, or a timetable such as `08:00-18:00=5,else=50`."""

    name = "rate"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | Timetable:
        if "=" not in str(value):
            return Number(RANGES["rate"]).convert(value, param, ctx)
        try:
            return Timetable.of(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


class Delimiter(click.ParamType[str]):
    """A character; `tab` and `\\t` are a tab, which is hard to type in a shell."""

    name = "delimiter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = "\t" if str(value).lower() in ("tab", "\\t") else str(value)
        if wrong := wrong_delimiter(text):
            self.fail(wrong, param, ctx)
        return text


_BOUND = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<percent>%)?")


class BoundType(click.ParamType[Bound]):
    """A number, or a percentage: `25`, `1%`, `0.5%`."""

    name = "bound"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Bound:
        if isinstance(value, Bound):
            return value
        found = _BOUND.fullmatch(str(value).strip())
        if found is None or ("." in found["number"] and not found["percent"]):
            self.fail(INVALID_BOUND.format(value), param, ctx)
        return Bound(float(found["number"]), percent=bool(found["percent"]))


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
"""A pair and the comma after it; a comma that no other pair follows belongs to the value."""


def pairs(ctx: click.Context, parameter: click.Parameter, value: Sequence[str]) -> dict[str, str]:
    """`A=B,C=D`, which may be given several times, as a mapping.

    A comma that no other pair follows belongs to the value. As in a CSV, values or pairs with other
    commas are put in quotes, and a quote within them is doubled.
    """
    found: dict[str, str] = {}
    rest = ",".join(value).lstrip(", ")
    while rest:
        pair = _PAIR.match(rest)
        name, equals, text = _halves(pair) if pair else ("", "", "")
        if pair is None or not (name and equals and text):
            form = parameter.metavar or "NAME=VALUE"
            raise click.BadParameter(f"{rest!r} is not of the form {form}")
        if name in found:
            raise click.BadParameter(f"{name} is given twice; give it once")
        found[name] = text
        rest = rest[pair.end() :].lstrip(", ")
    return found


def _halves(pair: re.Match[str]) -> tuple[str, str, str]:
    """A pair's name, equals sign and value."""
    if pair["both"] is not None:
        name, equals, text = pair["both"].replace('""', '"').partition("=")
        return name.strip(), equals, text.strip()
    quoted = pair["quoted"]
    text = pair["plain"].strip() if quoted is None else quoted.replace('""', '"')
    return pair["name"].strip(), "=", text


def error_code(text: str) -> str:
    """An error code as typed. Raises BadParameter if it cannot be one."""
    code = text.strip()
    if wrong := wrong_code(code):
        raise click.BadParameter(wrong)
    return code
