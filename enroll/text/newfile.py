"""A file that takes the old one's place only when it is whole, and only when it says otherwise."""

from __future__ import annotations

import csv
import io
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from enroll.errors import LocalError, UsageError

_BLOCK = 1 << 20


@dataclass(slots=True)
class NewFile:
    """What is being written; `replaced` is known when the `with` has ended."""

    file: IO[bytes]
    replaced: bool = False


@contextmanager
def new_file(path: Path, *, mode: int = 0o600) -> Iterator[NewFile]:
    """A temporary file beside `path`, moved there when the body is done; for its owner alone
    unless `mode` says otherwise.

    It is on disk before it is moved; when its bytes are those of the old file and that is ours, the
    old one stays, times and all. On any error the old file is untouched and the temporary one is
    gone. OSErrors of the body count as faults in writing: LocalError. UsageError when `path` is no
    plain file.
    """
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "a device or pipe"
            raise UsageError(f"{path} is {kind}, not a file to write to; give another name.")
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp"
        )
        temporary = Path(name)
        with os.fdopen(descriptor, "wb", buffering=_BLOCK) as file:
            new = NewFile(file)
            yield new
            file.flush()
            os.fchmod(file.fileno(), mode)
            if not (_is_ours(path) and _same_bytes(temporary, path)):
                os.fsync(file.fileno())
                new.replaced = True
        if new.replaced:
            temporary.replace(path)
            temporary = None
            _sync_folder(path.parent)
    except OSError as exc:
        raise LocalError(
            f"{path} cannot be written: {exc.strerror or exc}; what was there before is unchanged. "
            "Make room or mend the permissions, or give another place for it."
        ) from exc
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def new_csv(path: Path | None, columns: Sequence[str]) -> Iterator[Any]:
    """A csv.writer into such a file, its first line written; None where there is no path."""
    if path is None:
        yield None
        return
    with new_file(path) as new:
        text = io.TextIOWrapper(new.file, encoding="utf-8", errors="backslashreplace", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        yield writer
        text.detach()


def _is_ours(path: Path) -> bool:
    """Whether there is a file of ours, and not a link to one: nothing else stays in place."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _same_bytes(new: Path, old: Path) -> bool:
    try:
        if new.stat().st_size != old.stat().st_size:
            return False
        with new.open("rb") as left, old.open("rb") as right:
            while block := left.read(_BLOCK):
                if block != right.read(_BLOCK):
                    return False
    except (FileNotFoundError, PermissionError):
        return False  # no old file, or one that we may replace but not read
    return True


def _sync_folder(folder: Path) -> None:
    # So that the new name survives a power cut. Not every system opens folders or syncs them;
    # the content itself is safe by then.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
