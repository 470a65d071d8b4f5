"""Whose a file is: one that decides for us is ours or root's, and nobody else may write it; what
we make is ours alone."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from enroll.errors import UsageError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def check_trusted(
    found: os.stat_result,
    path: Path,
    *,
    what: str,
    otherwise: str = "",
    group_may_write: bool = False,
) -> None:
    """Raise UsageError unless a file or folder is ours or root's, and only its owner may write it.

    `found` is the `fstat` of what is open, so that it cannot be exchanged after the check. `path`
    is its name; `what` begins the sentence: "The settings file". `otherwise` is a further remedy,
    as the end of a sentence: "name it with --config". A sticky bit makes no difference: it keeps
    others from deleting a file, not from adding one. With `group_may_write` so may its group:
    Kubernetes lets the `fsGroup` of a pod write every file of its volumes.
    """
    remedy = f", or {otherwise}" if otherwise else ""
    us = os.geteuid()
    if found.st_uid not in (us, 0):
        raise UsageError(
            f"{what} {path} belongs to {_user(found.st_uid)}, not to {_user(us)} or root. Check "
            f"what it holds and make it yours (`chown {us} {path}`){remedy}."
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & (stat.S_IWOTH if group_may_write else _WRITABLE_BY_OTHERS):
        raise UsageError(
            f"{what} {path} can be written by others (mode {mode:04o}). Check what it holds and "
            f"run `chmod go-w {path}`{remedy}."
        )


def others_can_read(path: Path) -> bool:
    """Whether a file is ours and can be read by others; one that is not there cannot."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and bool(found.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, each for its owner alone; one that is
    there stays as it is. Raises OSError.

    `mkdir(parents=True)` gives its mode to the last of them only.
    """
    missing = [above for above in folder.parents if not above.exists()]
    for one in (*reversed(missing), folder):
        one.mkdir(mode=0o700, exist_ok=True)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a container's bare number
        return f"user {number}"
