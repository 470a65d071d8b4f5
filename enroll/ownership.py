"""Whose a file is: one that decides for us is ours or root's, and nobody else may write it."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from enroll.errors import UsageError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def check_trusted(found: os.stat_result, path: Path, *, what: str, otherwise: str = "") -> None:
    """Raise UsageError unless a file or folder is ours or root's, and only its owner may write it.

    `found` is the `fstat` of what is open, so that it cannot be exchanged after the check. `path`
    is its name; `what` begins the sentence: "The settings file". `otherwise` is a further remedy,
    as the end of a sentence: "name it with --config". A sticky bit makes no difference: it keeps
    others from deleting a file, not from adding one.
    """
    remedy = f", or {otherwise}" if otherwise else ""
    us = os.geteuid()
    if found.st_uid not in (us, 0):
        raise UsageError(
            f"{what} {path} belongs to {_user(found.st_uid)}, not to {_user(us)} or root. Check "
            f"what it holds and make it yours (`chown {us} {path}`){remedy}."
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & _WRITABLE_BY_OTHERS:
        raise UsageError(
            f"{what} {path} can be written by others (mode {mode:04o}). Check what it holds and "
            f"run `chmod go-w {path}`{remedy}."
        )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a container's bare number
        return f"user {number}"
