"""Ownership of files: files that are trusted belong to this user or root, and nobody else may write
them; folders that are made are private. What to do about a file that cannot be written."""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from enroll.errors import UsageError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def why_untrusted(found: os.stat_result, *, group_may_write: bool = False) -> str:
    """Why a file or folder cannot be trusted, as the rest of a sentence; "" when it can.

    It is trusted when it belongs to this user or root, and only its owner may write it. `found` is
    the `fstat` of the open file, so that it cannot be replaced after the check. A sticky bit makes
    no difference: it keeps others from deleting a file, not from adding one. `group_may_write`
    allows the group to write it: the `fsGroup` of a Kubernetes pod may write all files of its
    volumes.
    """
    us = os.geteuid()
    if found.st_uid not in (us, 0):
        ours = f"{_user(us)} or root" if us else "root"
        return f"belongs to {_user(found.st_uid)}, not to {ours}"
    mode = stat.S_IMODE(found.st_mode)
    writable = mode & (stat.S_IWOTH if group_may_write else _WRITABLE_BY_OTHERS)
    return f"can be written by others (mode {mode:04o})" if writable else ""


def check_trusted(
    found: os.stat_result,
    path: Path,
    *,
    what: str,
    otherwise: str = "",
    group_may_write: bool = False,
) -> None:
    """Raise UsageError unless a file can be trusted by its `fstat`; see `why_untrusted`.

    `path` is its name; `what` begins the sentence: "The settings file". `otherwise` is a further
    remedy, as the end of a sentence: "name it with --config".
    """
    why = why_untrusted(found, group_may_write=group_may_write)
    if not why:
        return
    us = os.geteuid()
    verb = "chmod go-w" if found.st_uid in (us, 0) else f"chown {us}"
    remedy = f", or {otherwise}" if otherwise else ""
    raise UsageError(
        f"{what} {path} {why}. Check what it holds and run `{pasteable(verb, path)}`{remedy}."
    )


def pasteable(command: str, path: Path) -> str:
    """A command on a file, such as `chmod 600`, or an option, with the path quoted for a shell."""
    return f"{command} {shlex.quote(str(path))}"


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def how_to_write(error: OSError, otherwise: str) -> str:
    """What lets a file be written that could not be, as the beginning of a sentence; `otherwise`
    unless the disk is full or mounted for reading only."""
    if error.errno == errno.EROFS:
        return "Mount the file system for writing"
    return "Make room" if error.errno in _NO_ROOM else otherwise


def others_can_read(path: Path) -> bool:
    """Whether others can read a file of this user; False for a missing file."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and bool(found.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def sync_folder(folder: Path) -> None:
    """Have the new names in a folder survive a power cut. Not every system opens folders or syncs
    them; the content of the files is safe by then."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each private to its owner; an existing one is left as
    it is. Raises OSError.

    `mkdir(parents=True)` applies its mode to the last folder only.
    """
    missing = [above for above in folder.parents if not above.exists()]
    for one in (*reversed(missing), folder):
        one.mkdir(mode=0o700, exist_ok=True)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a container's bare number
        return f"user {number}"
