"""Whose a file is: one that decides for us is ours or root's, and nobody else may write it."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from enroll.errors import UsageError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def distrust(found: os.stat_result) -> str:
    """Why a file or folder is not to be trusted, as the rest of a sentence; empty if it is.

    It is trusted when it is ours or root's, and only its owner may write it. `found` is the `fstat`
    of what is open, so that it cannot be exchanged after the check. A sticky bit makes no
    difference: it keeps others from deleting a file, not from adding one.
    """
    us = os.geteuid()
    if found.st_uid not in (us, 0):
        ours = f"{_user(us)} or root" if us else "root"
        return f"belongs to {_user(found.st_uid)}, not to {ours}"
    mode = stat.S_IMODE(found.st_mode)
    return f"can be written by others (mode {mode:04o})" if mode & _WRITABLE_BY_OTHERS else ""


def check_trusted(found: os.stat_result, path: Path, *, what: str, otherwise: str = "") -> None:
    """Raise UsageError unless a file is to be trusted, by its `fstat`.

    `path` is its name; `what` begins the sentence: "The settings file". `otherwise` is a further
    remedy, as the end of a sentence: "name it with --config".
    """
    why = distrust(found)
    if not why:
        return
    us = os.geteuid()
    change = f"chmod go-w {path}" if found.st_uid in (us, 0) else f"chown {us} {path}"
    remedy = f", or {otherwise}" if otherwise else ""
    raise UsageError(f"{what} {path} {why}. Check what it holds and run `{change}`{remedy}.")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a container's bare number
        return f"user {number}"
