"""Checks of settings' values, with the same message on the command line and in Python.

A `wrong_…` function returns what is wrong with a value as a sentence, "" when it is valid.
"""

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
from enroll.timetable import LEAST_RATE, Timetable


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The numbers from `least` to `most`, inclusive; None means unbounded."""

    least: float
    most: float | None = None
    whole: bool = False

    def wrong(self, value: object) -> str:
        """What is wrong with a value, as a sentence; "" when it is valid.

        `nan` and `inf` are not numbers here: no comparison excludes `nan`, and a wait of `inf`
        seconds never ends.
        """
        if not _is_number(value, whole=self.whole):
            return f"{value!r} is not a {'whole number' if self.whole else _NUMBER}."
        number = int(str(value)) if self.whole else float(str(value))
        if number < self.least or (self.most is not None and number > self.most):
            return f"{value} is out of range: it must be {self.words}."
        return ""

    @property
    def words(self) -> str:
        """The range as in `at least 1` and `between 1 and 256`."""
        if self.most is None:
            return f"at least {self.least}"
        return f"between {self.least} and {self.most}"


_NUMBER = "number, such as 30 or 0.5"


def _is_number(value: object, *, whole: bool) -> bool:
    try:
        return isinstance(int(str(value)), int) if whole else math.isfinite(float(str(value)))
    except (ValueError, OverflowError):
        return False


MAX_TIMEOUT_SECONDS = 86_400
"""The longest --timeout: a day. A socket cannot wait for more than 24 days."""

MAX_WAIT_SECONDS = 31_536_000
"""The longest of other waits: a year. What a program can wait on has an upper limit."""

LEAST_MEMORY = 400_000_000
"""Bytes that preparing photos needs in any case, with Python and all that enroll imports: one photo
of as many pixels as are allowed by default, and the photos that wait to be sent."""

SECONDS = Range(least=0, most=MAX_WAIT_SECONDS)
COUNT = Range(least=1, whole=True)

RANGES: Mapping[str, Range] = {
    "timeout": Range(least=0.1, most=MAX_TIMEOUT_SECONDS),
    "attempts": COUNT,
    "give_up_after": SECONDS,
    "credentials_grace": SECONDS,
    "drain": SECONDS,
    "settle_after": SECONDS,
    # Each call in flight has a thread and a socket.
    "max_in_flight": Range(least=1, most=1000, whole=True),
    "rate": Range(least=LEAST_RATE),
    "max_side": Range(least=48, most=65_535, whole=True),
    "max_bytes": Range(least=10_000, most=100_000_000, whole=True),
    # Decoding so many pixels takes 2 GB of memory.
    "max_pixels": Range(least=48 * 48, most=1_000_000_000, whole=True),
    "min_face": Range(least=0, most=65_535, whole=True),
    "memory": Range(least=LEAST_MEMORY, whole=True),
    "limit": COUNT,
    "sample": COUNT,
    "seed": Range(least=0, most=2**63 - 1, whole=True),
    "readers": Range(least=1, most=256, whole=True),
    "max_calls": COUNT,
    "grace": Range(least=0, most=3650),
    "score": Range(least=50, most=100),
    "unlike": Range(least=0, most=100),
    "of_run": COUNT,
    "header_row": COUNT,
}
"""By the setting's name. A setting that may be left open can also be None."""


def wrong_duration(value: object, seconds: float) -> str:
    """Check a duration, which was written as `value`."""
    if 0 < seconds <= MAX_WAIT_SECONDS:
        return ""
    return f"{value} is out of range: it must be more than 0 and at most a year."


_CODE = re.compile(r"[A-Z][A-Z0-9_]*")


def wrong_code(code: str) -> str:
    """Check that a text can be an error code of an answer."""
    if _CODE.fullmatch(code):
        return ""
    return (
        f"{code!r} is not an error code: those have capitals, digits and underscores, such as "
        "NO_FACE_FOUND"
    )


HELD_CODES = frozenset({"LOOKALIKE", "UNLIKE_BEFORE"})
"""Codes of photos that only a person can release, in `enroll.session.resemblance`."""


def wrong_retry(code: str) -> str:
    """Check that rows with this code can be retried."""
    if code in HELD_CODES:
        return (
            f"photos that are held with {code} are not retried. Correct the photo, or release it "
            "with `enroll audit --accept ID1,ID2`."
        )
    return wrong_code(code)


def wrong_choice(value: object, choices: type[StrEnum]) -> str:
    """Check that a value is a member of `choices`, or the text of one."""
    known = ", ".join(repr(str(member)) for member in choices)
    return "" if value in list(choices) else f"{value!r} is not one of {known}."


def wrong_text(value: object) -> str:
    """Check that a text, or each of several, can be encoded as UTF-8."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, Mapping):
        texts = [*texts, *texts.values()]
    for text in texts if isinstance(texts, Iterable) else ():
        if isinstance(text, str) and not is_utf8(text):
            return f"{text!r} is not text in UTF-8."
    return ""


def wrong_path(path: Path) -> str:
    """Check that a file can have this path. The file system decides how long a name may be."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"{path} is longer than a file's name may be."
    except ValueError:
        return f"{str(path)!r} has a character that no file's name may have."
    return ""


def wrong_delimiter(value: str) -> str:
    """Check that a character can be between the cells of a list."""
    if len(value) == 1 and value.isascii() and not value.isalnum() and value not in '"\r\n\0':
        return ""
    return (
        f"{value!r} cannot be a delimiter: that is one ASCII character, such as ; or a tab, but no "
        "letter, digit, quote or line end."
    )


SCHEDULER_ALONE = "--scheduler needs --engine dask."
MIN_FACE_ALONE = "--min-face needs --precheck warn or hold."
GROUP_ID_NEEDED = "--group-id is needed: the library to enroll into."


def check_settings(settings: Any) -> None:
    """Raise UsageError for the first field of a dataclass with an invalid value, with the message
    that the command has for the option."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        for sentence in _wrong_kind(field.name, str(field.type), value) or _wrong(
            field.name, value
        ):
            option = _OPTIONS.get(field.name) or f"--{field.name.replace('_', '-')}"
            raise UsageError(f"Invalid value for '{option}': {sentence}")


_OPTIONS = {"of_run": "--run", "manifest": "MANIFEST"}
"""Names on the command line of fields that are called differently there."""


def _wrong_kind(name: str, kind: str, value: Any) -> list[str]:
    """Check for text where another type belongs, which only Python callers can pass."""
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
    if isinstance(value, Timetable):
        return
    if name in RANGES:
        found = [RANGES[name].wrong(value)]
    elif isinstance(value, Path):
        found = [wrong_path(value)]
    elif name == "max_duration":
        number = isinstance(value, int | float)
        found = [wrong_duration(value, value) if number else SECONDS.wrong(value)]
    elif name in ("retry", "on_code"):
        found = [(wrong_retry if name == "retry" else wrong_code)(code) for code in value]
    elif name == "delimiter":
        found = [wrong_delimiter(value)]
    elif name == "columns":
        found = [wrong_choice(role, Role) for role in value]
    elif isinstance(value, str | list | tuple):
        found = [wrong_text(value)]
    yield from filter(None, found)
