"""Words runs, plans and ledgers as text. Pure: values in, lines out."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol, TypeVar

import click

from enroll.ledger import RunPace
from enroll.text.remedies import what_to_do
from enroll.visible import json_text, visible

Name = TypeVar("Name", bound=str)


class Stream(Protocol):
    """A stream that may be a terminal."""

    def isatty(self) -> bool: ...

    def fileno(self) -> int: ...


def as_shown(lines: Iterable[str], terminal: Stream | None = None) -> str:
    """Lines as they are printed, each with a line end; a line end within one is escaped.

    If `terminal` is one, they are wrapped at words to its width; else programs read them, and they
    stay as they are.
    """
    shown: Iterable[str] = map(visible, lines)
    width = None if terminal is None else _width(terminal)
    if width is not None:
        shown = chain.from_iterable(_wrapped(line, width) for line in shown)
    return "".join(f"{line}\n" for line in shown)


def _width(stream: Stream) -> int | None:
    """The columns of a terminal; None for any other stream, or if it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None if stream.isatty() else None
    except (OSError, ValueError):
        return None


def _wrapped(line: str, width: int) -> list[str]:
    """A line in pieces; those after the first start below the line's last column."""
    *_, last = re.finditer(r"^\s*|\s{2,}(?=\S)", line)
    if len(line) <= width or " " not in line[last.end() :]:
        return [line]
    indent = last.end() if last.end() <= width // 2 else len(line) - len(line.lstrip()) + 2
    wrapper = textwrap.TextWrapper(
        width=width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return wrapper.wrap(line)


def say(*lines: str, wrap: bool = True) -> None:
    """Print lines on standard output; without `wrap` unchanged, for commands to be copied."""
    click.echo(as_shown(lines, sys.stdout if wrap else None), nl=False)


def say_aside(*lines: str) -> None:
    """Print lines on standard error."""
    click.echo(as_shown(lines, sys.stderr), nl=False, err=True)


def say_json(value: Any) -> None:
    """Print a value as JSON, on a line of its own."""
    click.echo(json_text(value))


def write_data(data: bytes) -> None:
    """Write a CSV to standard output: exactly, except to a terminal, where it is made safe to
    show."""
    if sys.stdout.isatty():
        sys.stdout.write("\n".join(map(visible, data.decode("utf-8").split("\n"))))
    else:
        sys.stdout.buffer.write(data)


SAID_SHOWN = 200
"""Characters shown of the service's text; `enroll status --json` has all of it."""


def duration(seconds: float) -> str:
    """A length of time for people: `0.01 s`, `0.8 s`, `45 s`, `12 min 5 s`, `3 h 20 min`, `6 h`,
    `2 d 4 h`."""
    if 0 < seconds < 0.1:
        return f"{seconds:.1g} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        parts = {"min": whole // 60, "s": whole % 60}
    elif whole < 86_400:
        parts = {"h": whole // 3600, "min": whole % 3600 // 60}
    else:
        parts = {"d": whole // 86_400, "h": whole % 86_400 // 3600}
    return " ".join(f"{count} {unit}" for unit, count in parts.items() if count)


def amount(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: `1 row`, `1,000 rows`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def size(count: float) -> str:
    """Bytes for people, in powers of 1,000: `12 kB`, `3.4 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def facts(pairs: Iterable[tuple[str, str]], *, least: int = 0) -> list[str]:
    """Names and values in two columns, the first at least `least` characters wide."""
    pairs = list(pairs)
    wide = max((len(name) for name, _ in pairs), default=0)
    wide = max(wide, least)
    return [f"{name:<{wide}}  {value}" for name, value in pairs]


def account_lines(endpoint: str, origin: str, credentials: str) -> list[str]:
    """Where calls go, which setting says so, and with which credentials; shown before the first
    call."""
    return facts([("Endpoint", f"{endpoint} ({origin})"), ("Account", credentials)])


def counted(counts: Mapping[Name, int], meanings: Mapping[Name, str] | None = None) -> list[str]:
    """Names with their numbers, right-aligned, and what they mean if `meanings` is given."""
    shown = [(name, f"{count:,}") for name, count in counts.items()]
    wide = max((len(name) for name, _ in shown), default=0)
    deep = max((len(number) for _, number in shown), default=0)
    lines = [f"  {name:<{wide}}  {number:>{deep}}" for name, number in shown]
    if meanings is None:
        return lines
    return [f"{line}  {meanings[name]}" for line, name in zip(lines, counts, strict=True)]


def error_table(errors: Sequence[tuple[str, str, int, str]]) -> list[str]:
    """One line for each status and code: the number and what to do. `errors` has the message
    last."""
    if not errors:
        return []
    codes = max(len(code) for _, code, _, _ in errors)
    states = max(len(status) for status, _, _, _ in errors)
    numbers = max(len(f"{count:,}") for _, _, count, _ in errors)
    return [
        f"  {status:<{states}}  {code:<{codes}}  {count:>{numbers},}  "
        f"{what_to_do(code, status, one_line(message))}"
        for status, code, count, message in errors
    ]


def doubtful_lines(doubtful: Mapping[str, int], what: str) -> Iterable[str]:
    """How many photos look doubtful, why, and what happens to them."""
    if doubtful:
        each = ", ".join(f"{code} {count:,}" for code, count in sorted(doubtful.items()))
        photos = sum(doubtful.values())
        look = "looks" if photos == 1 else "look"
        yield f"{amount(photos, 'photo')} {look} doubtful: {each}; {what}."


def one_line(text: str) -> str:
    """The beginning of the service's text, with everything escaped that could control a
    terminal."""
    plain = visible(" ".join(text.split()))
    return plain if len(plain) <= SAID_SHOWN else f"{plain[: SAID_SHOWN - 1]}…"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells, left-aligned under each other."""
    rows = [[*map(visible, row)] for row in rows]  # before it is known how wide they are
    wide = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, wide, strict=True)).rstrip()
        for row in rows
    ]


def option_pair(name: str, value: str) -> str:
    """`NAME=VALUE`, as an option takes it that splits its pairs at commas."""
    pair = f"{name}={value}"
    return '"' + pair.replace('"', '""') + '"' if {",", '"'} & set(pair) else pair


def percent(part: int, whole: int) -> str:
    """A share: `0 %`, `0.4 %`, `12 %`; never `0 %` of something."""
    share = 100 * part / whole if whole else 0.0
    if share >= 9.95 or not part:
        return f"{share:.0f} %"
    return f"{max(share, 0.1):.1f} %"


def pace_words(pace: RunPace, *, brief: bool = False) -> str:
    """The progress of a run: `limit 16, 0.4 % refused, waits for the account`; `brief` for a
    bar."""
    parts = [f"limit {pace.ceiling}" if pace.ceiling is not None else f"{pace.limit} at once"]
    if pace.spacing is not None:
        parts = [f"limit {pace.spacing:.1f} calls/s"]
    parts.append(f"{percent(pace.refused, pace.calls)} refused")
    if pace.waits_for and brief:
        parts.append(f"waits: {pace.waits_for.removeprefix('the ')}")
    elif pace.waits_for:
        parts.append(f"waits for {pace.waits_for}")
    return ", ".join(parts)
