"""The ZIP adapter of the photo store: members of an archive, read where they are.

Nothing is unpacked to a disk, and never more than a photo may have. All photos are of the version
of the archive that was opened first: if the file is replaced or written to, they count as changed.

A photo's path is the archive's and the name in it. A date in the archive's name is a star in all
paths, `export-*.zip/1.jpg`, so that tomorrow's export holds the same photos as today's; a store
that is opened by such a path takes the newest archive.
"""

from __future__ import annotations

import os
import re
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from enroll.errors import LocalError, ManifestError, ShortageError
from enroll.model import Fault, FileTimes, Unusable
from enroll.photos.archive import STORED, Archive
from enroll.photos.decision import LARGEST_FILE, PhotoCode
from enroll.photos.refusals import OUTSIDE, SYMLINK, cannot_read, failed, invalid
from enroll.photos.similar_name import describe_difference, describe_unseen
from enroll.photos.store import (
    NO_PHOTO,
    UnusableError,
    empty_above,
    locate_below,
    name_below,
)
from enroll.photos.zip_records import DamagedError, Member
from enroll.resources import shortage_in
from enroll.visible import path_text

_DATE = re.compile(
    r"""
    (?<!\d)(?:
        \d{4}([-_. ]?)\d{2}\1\d{2} (?:[-_. T]*\d{2}[-_.:h]?\d{2}(?:[-_.:m]?\d{2})?)?
        | \d{2}([-_.])\d{2}\2\d{4}
        | \d{8,}
    )(?!\d)
    """,
    re.VERBOSE,
)
"""A date in a name, perhaps with a time after it, or a long number such as UNIX seconds."""

_OUTSIDE_ARCHIVE = Fault(
    code=PhotoCode.OUTSIDE,
    message="The name in the archive leads out of it or is that of a Windows path. Pack the "
    "archive again, with relative names and / between folders.",
)

_WINDOWS_PATH = re.compile(r"\\|^[A-Za-z]:")


def undated(path: str) -> str:
    """An archive's path with a star in place of a date in its name."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + _DATE.sub("*", name)


def newest(path: str) -> str:
    """The archive that a path of `undated` means: that itself, else the newest of those with
    another date; unchanged where there is none."""
    folder, _, name = path.rpartition("/")
    if "*" not in name or os.path.lexists(path):
        return path
    try:
        with os.scandir(folder or "/") as entries:
            found = [
                (entry.stat().st_mtime_ns, entry.path)
                for entry in entries
                if _DATE.sub("*", entry.name) == name and entry.is_file()
            ]
    except OSError:
        return path
    return max(found)[1] if found else path


def is_zip(path: Path | str) -> bool:
    """Whether a path is that of a ZIP archive: by its suffix, unless it is a folder."""
    return str(path).lower().endswith(".zip") and not os.path.isdir(path)  # noqa: PTH112


class ZipStore:
    """The members of an archive; see `PhotoStore`."""

    def __init__(self, path: Path | str) -> None:
        """`path` is absolute and resolved; there may be no archive."""
        self._path = newest(str(path))
        self.root = undated(self._path)
        self._lock = Lock()
        self._opened: Archive | None = None
        self._state: tuple[int, int, int, int] | None = None
        self._latest: Archive | None = None

    def __getstate__(self) -> dict[str, Any]:
        """An archive is opened again in another process; it has to be the same version."""
        return {"root": self.root, "_path": self._path, "_state": self._state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock(), _opened=None, _latest=None)

    @property
    def archive(self) -> Archive:
        """The archive, in the version that was opened first. Raises ManifestError, LocalError, and
        ShortageError."""
        with self._lock:
            if self._opened is None:
                self._opened = self._latest = Archive(self._path)
                self._state = self._state or self._opened.state
            return self._opened

    def locate(self, image: str) -> str:
        return locate_below(self.root, image)

    def stat(self, paths: Sequence[str]) -> array[int]:
        archive, times = self._now(), array("q")
        try:
            for path in paths:
                found = archive.find(self._name(path))
                times.extend(_numbers(found) if found else NO_PHOTO)
        except (ManifestError, OSError) as error:
            raise self._unreachable(error) from error
        return times

    def files(self) -> Iterator[str]:
        return self.archive.names()

    @contextmanager
    def open(self, path: str) -> Iterator[OpenMember]:
        archive, member = self._find(path)
        try:
            yield OpenMember(archive, member)
        except OSError as error:
            if (short := shortage_in(error)) is not None:
                raise short from error
            raise UnusableError(cannot_read(error)) from error

    def _find(self, path: str) -> tuple[Archive, Member]:
        """The archive and its member at a path. Raises UnusableError and ShortageError."""
        name = self._name(path)
        if not name:
            raise UnusableError(invalid(OUTSIDE))
        try:
            archive = self.archive
            members = archive.find(name)
        except ShortageError:
            raise
        except (ManifestError, LocalError) as error:
            gone = failed(PhotoCode.UNREADABLE, str(error), share_gone=True)
            raise UnusableError(gone) from error
        except OSError as error:
            raise UnusableError(cannot_read(error)) from error
        if not archive.is_current or archive.state != self._state:
            raise UnusableError(_CHANGED)
        if not members:
            message = f"There is no photo at this path in the archive{self._instead(name)}"
            raise UnusableError(failed(PhotoCode.MISSING, message))
        return archive, _only(members, name)

    def check(self) -> None:
        self.archive.has_below("")

    def is_gone(self) -> bool:
        return not os.path.isfile(self._path)  # noqa: PTH113  # as elsewhere here

    def is_empty(self) -> bool:
        return not self._has_below("")

    def is_reachable(self, path: str) -> bool:
        try:
            return self._now() is not None
        except LocalError:
            return False

    def empty_above(self, path: str) -> str:
        return empty_above(self.root, self._name(path), self._has_below)

    def _name(self, path: str) -> str:
        """The name in the archive; empty for a path that leads out of it."""
        return name_below(self.root, path)

    def _now(self) -> Archive:
        """The archive as it is now, to see what is in it: photos are read from the one that was
        opened. Raises LocalError and ShortageError."""
        try:
            opened = self.archive
            with self._lock:
                latest = self._latest or opened
                if latest.is_current:
                    return latest
                self._latest = Archive(self._path)
                return self._latest
        except ManifestError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> LocalError:
        return LocalError(
            f"The photos in {path_text(self._path)} can no longer be reached. {error}"
        )

    def _has_below(self, folder: str) -> bool:
        try:
            return self._now().has_below(folder)
        except LocalError:
            return False

    def _instead(self, name: str) -> str:
        folder, _, last = name.rpartition("/")
        there = self.archive.similar_name(name)
        if there and there.rpartition("/")[0] == folder:
            difference = describe_difference(there.rpartition("/")[2], last)
            return f"; there is {difference}. Correct the path, or rename the file."
        if there:
            return f"; there is {there!r}. Correct the path."
        if unseen := describe_unseen(name, ""):
            return f": its part {unseen}. Remove that from the path."
        return ". Use / between folders, not \\." if "\\" in name else ". Check the path."


class OpenMember:
    """A member that is open; see `OpenPhoto`."""

    def __init__(self, archive: Archive, member: Member) -> None:
        self.times = FileTimes(*_numbers([member]))
        self._archive = archive
        self._member = member
        self._pieces = archive.unpack(member)
        self._unpacked = bytearray()

    def part(self, at: int, length: int) -> bytes:
        try:
            if self._member.method == STORED:
                length = max(min(length, self._member.size - at), 0)
                return self._archive.read(self._archive.data_place(self._member) + at, length)
            self._unpack(at + length)
        except DamagedError as error:
            raise UnusableError(_damaged(error)) from error
        return bytes(self._unpacked[at : at + length])

    def content(self) -> bytes:
        member, why = self._member, None
        try:
            self._unpack(member.size + 1)
        except DamagedError as error:
            why = error
        if not self._archive.is_current:
            raise UnusableError(_CHANGED)
        content = bytes(self._unpacked)
        if why is None and (len(content), zlib.crc32(content)) != (member.size, member.crc):
            why = DamagedError("its checksum does not match")
        if why is not None:
            raise UnusableError(_damaged(why))
        return content

    def _unpack(self, wanted: int) -> None:
        """Unpack so many bytes, or all, but little more than the size that is given, or than a
        photo may have."""
        wanted = min(wanted, self._member.size + 1, LARGEST_FILE + 1)
        while len(self._unpacked) < wanted:
            piece = next(self._pieces, None)
            if piece is None:
                return
            self._unpacked += piece


def _numbers(members: Sequence[Member]) -> tuple[int, int, int]:
    """Size and CRC, and how many others have the same name."""
    return members[0].size, members[0].crc, len(members) - 1


def _only(members: Sequence[Member], name: str) -> Member:
    """The member of a name. Raises UnusableError for one that is no photo, or not the only one."""
    member, *others = members
    if _WINDOWS_PATH.search(name):
        raise UnusableError(invalid(_OUTSIDE_ARCHIVE))
    if any((one.size, one.crc) != (member.size, member.crc) for one in others):
        raise UnusableError(invalid(_AMBIGUOUS))
    if member.is_link:
        raise UnusableError(invalid(SYMLINK))
    return member


def _damaged(why: DamagedError) -> Unusable:
    message = f"The photo in the archive cannot be read: {why}. Copy or pack the archive again."
    return failed(PhotoCode.UNREADABLE, message)


_CHANGED = failed(
    PhotoCode.CHANGED,
    "The archive was changed or replaced while it was being read. Run again when it is complete.",
)

_AMBIGUOUS = Fault(
    code=PhotoCode.AMBIGUOUS,
    message="The archive holds several different photos of this name. Pack it again with one.",
)
