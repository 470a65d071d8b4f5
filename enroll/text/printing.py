"""The one door to the terminal: whatever a command prints goes through here, and nothing in it can
steer the terminal or pass for another line."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from enroll.visible import json_text, visible


def as_shown(lines: Iterable[str]) -> str:
    """Lines as they are printed, each ended; a line end within one of them is escaped."""
    return "".join(f"{visible(line)}\n" for line in lines)


def say(*lines: str) -> None:
    """Print lines on standard output."""
    click.echo(as_shown(lines), nl=False)


def say_aside(*lines: str) -> None:
    """Print lines on standard error."""
    click.echo(as_shown(lines), nl=False, err=True)


def say_json(value: Any) -> None:
    """Print a value as JSON, on a line of its own."""
    click.echo(json_text(value))


def confirm(question: str) -> bool:
    """Ask whoever sits at the terminal. Raises click.Abort on Ctrl-C or where the input ends."""
    return click.confirm(visible(question), err=True)


def write_data(data: bytes) -> None:
    """Write a CSV to standard output: exactly, but to a terminal as it can be shown."""
    if sys.stdout.isatty():
        sys.stdout.write("\n".join(map(visible, data.decode("utf-8").split("\n"))))
    else:
        sys.stdout.buffer.write(data)
