"""Everything that a store holds, in a fixed order, and which of it are photos by their names."""

from __future__ import annotations

import heapq
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import IO

from enroll.errors import LocalError, ManifestError
from enroll.photos.refusals import is_share_gone
from enroll.resources import shortage_in
from enroll.visible import path_text

PHOTO_SUFFIXES = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "bmp", "dib", "gif", "tif", "tiff", "webp"}
    | {"avif", "heic", "heif", "hif"}
)
"""Suffixes of the kinds of photos that are read; a file with another one is not listed as a
photo."""

_OTHERS_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "@tmp", "@sharebin"}
    | {"$recycle.bin", "system volume information", "lost+found"}
)
"""Folders in which macOS, Windows, and the disk stations of Synology and QNAP keep small copies and
deleted files. Names with a leading dot are treated alike."""

SORTED_AT_ONCE = 100_000
"""Names of one folder that are sorted in memory; more go through temporary files."""

_BLOCK = 1 << 16


def suffix_of(path: str) -> str:
    """A file's suffix in lower case, without the dot; empty where it has none."""
    stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return suffix.lower() if dot and stem else ""


def is_photo(path: str) -> bool:
    """Whether a file below a store's root is a photo by its name: its suffix is that of a photo,
    and no program keeps it for itself, as macOS does `._1.jpg`."""
    return suffix_of(path) in PHOTO_SUFFIXES and not is_kept_by_a_program(path)


_MAY_BE_KEPT = re.compile(r"(?:^|/)(?:\.|[@#$_ls])", re.IGNORECASE)


def is_kept_by_a_program(path: str) -> bool:
    """Whether a file below a store's root, or a folder that it is in, is hidden or is one in which
    a system keeps its own files."""
    if not _MAY_BE_KEPT.search(path):
        return False  # the usual case
    *folders, _ = parts = path.split("/")
    return any(part[:1] == "." and part[:2] != ".." for part in parts) or any(
        folder.lower() in _OTHERS_FOLDERS for folder in folders
    )


def sorted_names(names: Iterable[bytes]) -> Iterator[bytes]:
    """Names without NUL, sorted by their bytes, with no more than SORTED_AT_ONCE in memory."""
    waiting = iter(names)
    batch = sorted(islice(waiting, SORTED_AT_ONCE))
    if len(batch) < SORTED_AT_ONCE:
        yield from batch
        return
    with ExitStack() as stack:
        runs: list[IO[bytes]] = []
        while batch:
            runs.append(stack.enter_context(_run_of(batch)))
            batch = sorted(islice(waiting, SORTED_AT_ONCE))
        yield from heapq.merge(*map(_names_in, runs))


def _run_of(names: list[bytes]) -> IO[bytes]:
    try:
        run = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
        run.write(b"".join(name + b"\0" for name in names))
        run.seek(0)
    except OSError as error:
        raise LocalError(
            f"There is no room to sort a folder's names in {tempfile.gettempdir()}: "
            f"{error.strerror}. Make room, or name another folder with TMPDIR."
        ) from error
    return run


def _names_in(run: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while block := run.read(_BLOCK):
        *whole, rest = (rest + block).split(b"\0")
        yield from whole


def files_below(root: str) -> Iterator[str]:
    """The paths below a folder, relative to it, of all that is not a folder, in a fixed order.

    A link to a folder below the root is given as a file, as what it leads to is listed itself.
    Raises ManifestError for a link that leads elsewhere and for a folder that may not be listed,
    whose photos would otherwise seem to have been removed, LocalError where the store can no longer
    be reached, and ShortageError.
    """
    waiting = [("", sorted_names(_entries(root, "")))]
    while waiting:  # folders may be nested more deeply than functions
        folder, entries = waiting[-1]
        entry = next(entries, None)
        if entry is None:
            waiting.pop()
            continue
        name, _, kind = entry.rpartition(b"/")
        path = folder + os.fsdecode(name)
        if kind == _FOLDER:
            waiting.append((f"{path}/", sorted_names(_entries(root, f"{path}/"))))
            continue
        if kind == _LINK:
            _refuse_link_elsewhere(root, path)
        yield path


_FOLDER, _LINK, _FILE = b"d", b"l", b"f"


def _entries(root: str, folder: str) -> Iterator[bytes]:
    """The entries of a folder: name, slash, kind."""
    try:
        with os.scandir(os.path.join(root, folder)) as found:  # noqa: PTH118  # as elsewhere
            for entry in found:
                kind = _FILE
                if entry.is_symlink():
                    kind = _LINK
                elif entry.is_dir(follow_symlinks=False):
                    kind = _FOLDER
                yield os.fsencode(entry.name) + b"/" + kind
    except OSError as error:
        if not is_kept_by_a_program(f"{folder}photo"):
            where = os.path.join(root, folder)  # noqa: PTH118
            raise _cannot_list(error, where) from error


def _cannot_list(error: OSError, folder: str) -> Exception:
    if (short := shortage_in(error)) is not None:
        return short
    shown = path_text(folder.rstrip("/") or "/")
    if is_share_gone(error):
        return LocalError(
            f"The folder {shown} can no longer be listed: {error.strerror}. Mount the share again, "
            "then run the same command."
        )
    return ManifestError(
        f"The folder {shown} cannot be listed, and the people in it would seem to have been "
        f"removed: {error.strerror}. Correct its permissions, or take it out of the folder of "
        "photos."
    )


def _refuse_link_elsewhere(root: str, path: str) -> None:
    whole = os.path.join(root, path)  # noqa: PTH118
    if not os.path.isdir(whole):  # noqa: PTH112  # as elsewhere here
        return
    target = os.path.realpath(whole)
    if target != root and not target.startswith(root.rstrip("/") + "/"):
        raise ManifestError(
            f"{path_text(whole)} is a link to a folder outside of the folder of photos, and is not "
            "followed. Give what it leads to as a manifest of its own, or remove the link."
        )
