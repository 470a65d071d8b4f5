"""Which values settings may have: the command line and Python refuse others in one sentence."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from enroll.errors import UsageError
from enroll.model import Role, is_utf8


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The numbers from `least` to `most`, both included; None is no bound."""

    least: float | None = None
    most: float | None = None
    whole: bool = False

    def wrong(self, value: object) -> str:
        """What is wrong with a value, as a sentence; empty where nothing is.

        `nan` lies within every range, and a wait of `inf` seconds never ends.
        """
        if not _is_number(value, whole=self.whole):
            return f"{value!r} is not a {'whole number' if self.whole else _NUMBER}."
        number = int(str(value)) if self.whole else float(str(value))
        if self.least is not None and number < self.least:
            return self._outside(number)
        if self.most is not None and number > self.most:
            return self._outside(number)
        return ""

    def _outside(self, number: float) -> str:
        if self.most is None:
            return f"{number} is not in the range x>={self.least}."
        return f"{number} is not in the range {self.least}<=x<={self.most}."


_NUMBER = "number, such as 30 or 0.5"


def _is_number(value: object, *, whole: bool) -> bool:
    try:
        return isinstance(int(str(value)), int) if whole else math.isfinite(float(str(value)))
    except (ValueError, OverflowError):
        return False


LONGEST_CALL_SECONDS = 86_400
"""The most that --timeout takes: a day. A socket's clock ends after 24 days."""

LONGEST_WAIT_SECONDS = 31_536_000
"""The most that other waits take: a year. A clock that a program can wait on has an end."""

MOST_PLACES = 1000
"""The most calls at the same time that may be asked for: each has a thread and a socket."""

MOST_PIXELS = 1_000_000_000
"""The most that --max-pixels takes: decoding so many takes 2 GB of memory."""

SECONDS = Range(least=0, most=LONGEST_WAIT_SECONDS)
COUNT = Range(least=1, whole=True)

RANGES: Mapping[str, Range] = {
    "timeout": Range(least=0.1, most=LONGEST_CALL_SECONDS),
    "attempts": COUNT,
    "give_up_after": SECONDS,
    "drain": SECONDS,
    "settle_after": SECONDS,
    "max_in_flight": Range(least=1, most=MOST_PLACES, whole=True),
    "rate": Range(least=0.001),
    "max_side": Range(least=48, most=65_535, whole=True),
    "max_bytes": Range(least=10_000, most=100_000_000, whole=True),
    "max_pixels": Range(least=48 * 48, most=MOST_PIXELS, whole=True),
    "min_face": Range(least=0, most=65_535, whole=True),
    "limit": COUNT,
    "sample": COUNT,
    "seed": Range(least=0, most=2**63 - 1, whole=True),
    "readers": Range(least=1, most=256, whole=True),
    "max_calls": COUNT,
    "grace": Range(least=0, most=3650),
    "score": Range(least=50, most=100),
    "of_run": COUNT,
}
"""By the setting's name; None stands beside each that may be left open."""


def wrong_duration(value: object, seconds: float) -> str:
    """What is wrong with a length of time that was written as `value`; empty where nothing is."""
    if 0 < seconds <= LONGEST_WAIT_SECONDS:
        return ""
    return f"{value!r} is not more than 0 s and at most a year."


_CODE = re.compile(r"[A-Z][A-Z0-9_]*")


def wrong_code(code: str) -> str:
    """Why this is no error code; empty where it may be one."""
    if _CODE.fullmatch(code):
        return ""
    return (
        f"{code!r} is not an error code: those have capitals, digits and underscores, such as "
        "NO_FACE_FOUND"
    )


def wrong_choice(value: str, choices: Iterable[str]) -> str:
    """What is wrong with a value that is to be one of `choices`; empty where nothing is."""
    known = list(choices)
    return "" if value in known else f"{value!r} is not one of {', '.join(known)}"


def wrong_member(value: object, kind: type[StrEnum]) -> str:
    """What is wrong with a value that is to be a member of `kind`, or its text; empty where nothing
    is."""
    known = ", ".join(repr(str(member)) for member in kind)
    return "" if value in list(kind) else f"{value!r} is not one of {known}."


def wrong_role(role: str) -> str:
    """What is wrong with a role of `--columns`; empty where nothing is."""
    return wrong_choice(role, sorted(Role))


def wrong_text(value: object) -> str:
    """What is wrong with a text, or with one of several; empty where nothing is."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, Mapping):
        texts = [*texts, *texts.values()]
    for text in texts if isinstance(texts, Iterable) else ():
        if isinstance(text, str) and not is_utf8(text):
            return f"{text!r} is not text in UTF-8."
    return ""


def wrong_path(path: Path) -> str:
    """Why no file can be called so; empty where one can. How long a name may be is the file
    system's to say."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"{path} is longer than a file's name may be."
    except ValueError:
        return f"{str(path)!r} has a character that no file's name may have."
    return ""


MIN_FACE_ALONE = "--min-face needs --precheck warn or hold."
GROUP_ID_NEEDED = "--group-id is needed: the library to enroll into."


def refuse(settings: Any) -> None:
    """Raise UsageError for the first field of a dataclass that has a value it may not have: the
    sentence is the one that the command says of the option."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        for sentence in _wrong_kind(field.name, str(field.type), value) or _wrong(
            field.name, value
        ):
            option = _OPTIONS.get(field.name) or f"--{field.name.replace('_', '-')}"
            raise UsageError(f"Invalid value for '{option}': {sentence}")


_OPTIONS = {"of_run": "--run", "manifest": "MANIFEST"}
"""What fields are called on the command line whose names differ."""


def _wrong_kind(name: str, kind: str, value: Any) -> list[str]:
    """What is wrong with text where another kind of value belongs, as no command gives it."""
    if not isinstance(value, str):
        return []
    if name in RANGES or name == "max_duration":
        return [f"{value!r} is text, not a number."]
    if kind.startswith("Path"):
        return [f"{value!r} is text; give a pathlib.Path."]
    if name == "retry":
        return [f"{value!r} is text; give a set of codes, such as {{'NO_FACE_FOUND'}}."]
    return []


def _wrong(name: str, value: Any) -> Iterable[str]:
    if value is None:
        return
    found: list[str] = []
    if name in RANGES:
        found = [RANGES[name].wrong(value)]
    elif isinstance(value, Path):
        found = [wrong_path(value)]
    elif name == "max_duration":
        number = isinstance(value, int | float)
        found = [wrong_duration(value, value) if number else SECONDS.wrong(value)]
    elif name in ("retry", "on_code"):
        found = [wrong_code(code) for code in value]
    elif name == "columns":
        found = [wrong_role(role) for role in value]
    elif isinstance(value, str | list | tuple):
        found = [wrong_text(value)]
    yield from filter(None, found)
