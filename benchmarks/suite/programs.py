"""The programs of this machine that the suite calls, and how to get those that are missing."""

from __future__ import annotations

import os
import shutil
import sys

import click

HOW_TO_GET = {
    "nginx": "on Debian and Ubuntu `apt-get install nginx-light`",
    "curl": "on Debian and Ubuntu `apt-get install curl`",
    "parallel": "on Debian and Ubuntu `apt-get install parallel`",
    "vipsthumbnail": "on Debian and Ubuntu `apt-get install libvips-tools`",
    "rsync": "on Debian and Ubuntu `apt-get install rsync`",
}

_ALSO_IN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Where servers are, which a user's PATH often leaves out."""


class MissingError(click.ClickException):
    """Something that the suite cannot do without is not there; exit code 2."""

    exit_code = 2


def find(name: str) -> str | None:
    """The path of a program, if it is there."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *_ALSO_IN]))


def need(name: str) -> str:
    """The path of a program. Raises MissingError with how to get it."""
    path = find(name)
    if path is None:
        raise MissingError(f"There is no `{name}` on this machine; {HOW_TO_GET[name]}.")
    return path


def need_linux() -> None:
    """Raise MissingError elsewhere: memory and processes are read from Linux's proc file system."""
    if not sys.platform.startswith("linux"):
        raise MissingError(f"The benchmarks run on Linux; this is {sys.platform}.")
