"""Formats a spreadsheet's value as its cell shows it. Pure.

The language of number formats is that of ECMA-376, part 1, 18.8.31: up to four sections, each of
literals and placeholders. Formats that depend on the user's locale (the system's short date) are
written as ISO 8601, and names of months and days in English.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache

GENERAL = "General"

EXACT_DIGITS = 15
"""Digits of a number that a spreadsheet keeps. A longer number has lost some, so it is written as
1.10101E+17, which cannot be mistaken for a user id."""

_PLACES = 9
"""Digits after the point that fit into a cell without a format, with one digit before it."""

_EXACTLY = Context(prec=1_000)
"""Enough digits for any number in the longest format, whose 255 characters may each add one digit
or, for a percent, two."""

_ISO = {"mm-dd-yy": "yyyy-mm-dd", "m/d/yy h:mm": "yyyy-mm-dd hh:mm"}
"""The built-in formats 14 and 22, by openpyxl's names: the system's short date, without and with
the time."""

_ISO_BEGINS = {"[$-F800]": "yyyy-mm-dd", "[$-F400]": "hh:mm:ss"}
"""The beginnings of formats that mean the system's long date and its time."""

_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|\[\$(?P<currency>[^\]-]*)(?:-[^\]]*)?\]'
    r"|\[(?P<elapsed>h+|m+|s+)\]|\[(?P<condition>[<>=]+)(?P<bound>-?(?:\d+\.?\d*|\.\d+))\]|\[[^\]]*\]"
    r"|_.|\*.|(?P<half>AM/PM|A/P)|(?P<moment>y+|e+|m+|d+|h+|s+|\.0+)|(?P<mark>[0#?.,%@]|E[+-])"
    r"|(?P<other>.)",
    re.IGNORECASE | re.DOTALL,
)
_TESTS = {
    "<": Decimal.__lt__,
    "<=": Decimal.__le__,
    ">": Decimal.__gt__,
    ">=": Decimal.__ge__,
    "=": Decimal.__eq__,
    "<>": Decimal.__ne__,
}


def cell_text(value: object, number_format: str | None) -> str:
    """The text of a cell: `7` with the format `00000` is `00007`, 3.0 is `3`, nothing is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return _number(value, number_format or GENERAL)
    if isinstance(value, datetime | date | time | timedelta):
        return _moment(value, number_format or "yyyy-mm-dd")
    return str(value)


def _number(value: float, number_format: str) -> str:
    exact = Decimal(value) if isinstance(value, int) else Decimal(f"{value:.{EXACT_DIGITS}g}")
    if abs(exact) >= 10**EXACT_DIGITS:
        return f"{exact:.5E}"
    chosen, signed = _section(exact, _sections(number_format))
    text = _literals(chosen)
    if text is not None:
        return text
    if not _is_plain(chosen):
        return _general(exact)
    filled = _filled(abs(exact), chosen)
    minus = exact < 0 and not signed and any(char in "123456789" for char in filled)
    return f"-{filled}" if minus else filled


def _general(exact: Decimal) -> str:
    """A number without a format: in at most eleven characters, including the point, or with an
    exponent. Whole numbers are always in full, because ids are, in wide cells."""
    if exact == exact.to_integral_value():
        return f"{exact:.0f}"
    power = exact.adjusted()
    if power < len("12345678901"):
        places = max(_PLACES - max(power, 0), 0)
        short = exact.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
        if power >= -4 or short == exact:
            return f"{short.normalize():f}"
    mantissa, _, exponent = f"{float(exact):.5E}".partition("E")
    return f"{mantissa.rstrip('0').rstrip('.')}E{exponent}"


Token = tuple[str, str]
"""A token's kind, which is the name of its group in _TOKEN, and its text."""


@lru_cache(maxsize=256)
def _sections(number_format: str) -> tuple[tuple[Token, ...], ...]:
    sections: list[list[Token]] = [[]]
    for match in _TOKEN.finditer(number_format):
        if match["other"] == ";":
            sections.append([])
        elif match.lastgroup == "bound":
            sections[-1].append(("condition", f"{match['condition']} {match['bound']}"))
        elif match.lastgroup is not None:
            sections[-1].append((match.lastgroup, match[match.lastgroup]))
        elif match[0].startswith("_"):
            sections[-1].append(("quoted", " "))
    return tuple(tuple(section) for section in sections)


def _section(
    exact: Decimal, sections: tuple[tuple[Token, ...], ...]
) -> tuple[tuple[Token, ...], bool]:
    """The section for a number, and whether the section itself shows the sign."""
    conditions = [_condition(section) for section in sections]
    if any(conditions):
        for section, condition in zip(sections, conditions, strict=True):
            if condition is None or _TESTS[condition[0]](exact, Decimal(condition[1])):
                return section, False
        return sections[-1], False
    if exact < 0 and len(sections) > 1:
        return sections[1], True
    if exact == 0 and len(sections) > 2:
        return sections[2], True
    return sections[0], False


def _condition(section: tuple[Token, ...]) -> tuple[str, str] | None:
    for kind, text in section:
        if kind == "condition":
            test, _, bound = text.partition(" ")
            return (test, bound) if test in _TESTS else None
    return None


def _literals(section: tuple[Token, ...]) -> str | None:
    """The text of a section without placeholders for the number; None for any other."""
    if any(kind in ("mark", "moment", "elapsed", "half") for kind, _ in section):
        return None
    text = "".join(text for kind, text in section if kind != "condition")
    return None if text.casefold() == GENERAL.casefold() else text


def _is_plain(section: tuple[Token, ...]) -> bool:
    """Whether a section has only digits, a point, groups, percents and literals: no exponent,
    fraction, text or date."""
    for kind, text in section:
        if kind in ("elapsed", "half") or (kind == "moment" and not text.startswith(".")):
            return False
        if kind == "other" and text == "/":
            return False
        if kind == "mark" and (text == "@" or text[0] in "eE"):
            return False
    return any(kind == "mark" and text in "0#?" for kind, text in section)


def _filled(exact: Decimal, section: tuple[Token, ...]) -> str:
    """A number that is not negative, with its digits in the section's placeholders."""
    marks = [*_marks(section)]
    digits = [i for i, (is_mark, char) in enumerate(marks) if is_mark and char in "0#?"]
    point = next((i for i, mark in enumerate(marks) if mark == (True, ".")), len(marks))
    whole = [i for i in digits if i < point]
    last = whole[-1] if whole else -1
    commas = [i for i, mark in enumerate(marks) if mark == (True, ",") and i < point]
    grouped = any(whole and whole[0] < i < last for i in commas)
    exact *= Decimal(100) ** sum(mark == (True, "%") for mark in marks)
    exact /= Decimal(1000) ** sum(i > last for i in commas)
    after = [i for i in digits if i > point]
    rounded = exact.quantize(Decimal(1).scaleb(-len(after)), ROUND_HALF_UP, context=_EXACTLY)
    left, _, right = f"{rounded:f}".partition(".")
    places = {
        **_left_of_point(left.lstrip("0"), whole, marks, grouped=grouped),
        **_right_of_point(right, after, marks),
    }
    hidden = {*commas}
    return "".join(places.get(i, "" if i in hidden else char) for i, (_, char) in enumerate(marks))


def _marks(section: tuple[Token, ...]) -> Iterator[tuple[bool, str]]:
    """Each character, and whether it is a placeholder: `.00` is one token of three of them."""
    for kind, text in section:
        if kind == "condition":
            continue
        for char in text:
            yield kind in ("mark", "moment"), char


def _left_of_point(
    digits: str, places: list[int], marks: list[tuple[bool, str]], *, grouped: bool
) -> dict[int, str]:
    """The digits by place, from the right; surplus digits go to the first place."""
    found: dict[int, str] = {}
    count = 0
    for number, place in enumerate(reversed(places), start=1):
        rest = digits if number == len(places) else digits[-1:]
        digits = "" if number == len(places) else digits[:-1]
        if not rest:
            rest = {"0": "0", "?": " "}.get(marks[place][1], "")
        text = ""
        for digit in reversed(rest):
            if grouped and count and count % 3 == 0:
                text = f",{text}"
            text, count = f"{digit}{text}", count + 1
        found[place] = text
    return found


def _right_of_point(
    digits: str, places: list[int], marks: list[tuple[bool, str]]
) -> dict[int, str]:
    found = {}
    for number, place in enumerate(places):
        optional = not digits[number:].strip("0") and marks[place][1] != "0"
        found[place] = ("" if marks[place][1] == "#" else " ") if optional else digits[number]
    return found


_MONTHS = "January February March April May June July August September October November December"
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"


def _moment(value: date | time | timedelta, number_format: str) -> str:
    number_format = _ISO.get(number_format, number_format)
    for begins, iso in _ISO_BEGINS.items():
        if number_format.startswith(begins):
            number_format = iso
    section = _sections(number_format)[0]
    if not any(kind in ("moment", "elapsed") for kind, _ in section):
        section = _sections("yyyy-mm-dd")[0]
    if isinstance(value, timedelta):
        at, elapsed = datetime(1899, 12, 31) + value, value.total_seconds()
    elif isinstance(value, time):
        at, elapsed = datetime.combine(date(1899, 12, 31), value), None
    else:
        at = value if isinstance(value, datetime) else datetime.combine(value, time())
        elapsed = None
    if elapsed is None:
        elapsed = (at - datetime(1899, 12, 30)).total_seconds()
    if not any(kind == "moment" and text.startswith(".") for kind, text in section):
        at = (at + timedelta(milliseconds=500)).replace(microsecond=0)
    return "".join(_parts(section, at, round(elapsed)))


def _parts(section: tuple[Token, ...], at: datetime, elapsed: int) -> Iterator[str]:
    halves = any(kind == "half" for kind, _ in section)
    units = [(i, text[0].lower()) for i, (kind, text) in enumerate(section) if kind in _CLOCK]
    for i, (kind, text) in enumerate(section):
        if kind == "elapsed":
            seconds = {"h": 3600, "m": 60, "s": 1}[text[0].lower()]
            yield f"{elapsed // seconds:0{len(text)}}"
        elif kind == "half":
            yield ("AM" if at.hour < 12 else "PM")[: 2 if len(text) > 3 else 1]
        elif kind == "moment":
            before = [unit for place, unit in units if place < i and unit != "."]
            behind = [unit for place, unit in units if place > i and unit != "."]
            minute = before[-1:] == ["h"] or behind[:1] == ["s"]
            yield _unit(text.lower(), at, minute=minute, halves=halves)
        elif kind != "condition":
            yield text


_CLOCK = ("moment", "elapsed")


def _unit(text: str, at: datetime, *, minute: bool, halves: bool) -> str:
    letter, wide = text[0], len(text)
    if letter in "ye":
        return f"{at.year % 100:02}" if letter == "y" and wide < 3 else f"{at.year:04}"
    if letter == "m" and not minute:
        name = _MONTHS.split()[at.month - 1]
        return _named(at.month, name, wide)
    if letter == "d":
        return _named(at.day, _DAYS.split()[at.weekday()], wide)
    if letter == ".":
        return f".{at.microsecond:06}"[:wide]
    number = {"h": at.hour, "m": at.minute, "s": at.second}[letter]
    if letter == "h" and halves:
        number = number % 12 or 12
    return f"{number:0{min(wide, 2)}}"


def _named(number: int, name: str, wide: int) -> str:
    """A month or day, by the width of its format: one or two letters give its number, three its
    short name, four its long name, five its initial."""
    if wide < 3:
        return f"{number:0{wide}}"
    return {3: name[:3], 5: name[:1]}.get(wide, name)
