"""The folder adapter of the photo store: files below the images root.

A file is opened once and never through a symbolic link; what is hashed is what is prepared. Where
it is is asked of the open file or folder itself, so that a link that replaces a folder meanwhile
cannot lead out of the images root. (`openat2` with RESOLVE_BENEATH would not do: it refuses
absolute links that stay below the root.)
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from enroll import clock
from enroll.errors import LocalError
from enroll.model import FileTimes, Unusable
from enroll.photos import decision
from enroll.photos.decision import PhotoCode
from enroll.photos.listing import files_below
from enroll.photos.refusals import OUTSIDE, SYMLINK, cannot_read, failed, invalid, is_share_gone
from enroll.photos.similar_name import describe_similar, describe_unseen
from enroll.photos.store import NO_PHOTO, UnusableError, locate_below
from enroll.resources import retry_on_shortage, shortage_in

_DESCRIPTORS = "/proc/self/fd"
"""Where Linux shows what a process has open, by its real path: proc_pid_fd(5)."""

FRESH_NS = 3_000_000_000
"""A file written less than this long ago is read twice, in nanoseconds. File systems' clocks tick
every 4 ms or less, those of FAT every two seconds; a server's clock may be a little off."""

_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""With O_PATH, where there is one, a folder that may not be listed can still be looked into."""

_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK: a FIFO that took a photo's place must not block us; files ignore it."""


class FolderStore:
    """The files below a folder; see `PhotoStore`."""

    def __init__(self, root: Path | str) -> None:
        """`root` is absolute and resolved; it may be missing."""
        self.root = str(root)
        self._device = _device_of(self.root)

    def locate(self, image: str) -> str:
        return locate_below(self.root, image)

    def stat(self, paths: Sequence[str]) -> array[int]:
        try:
            return self._lstat(paths)
        except OSError as error:
            raise LocalError(
                f"The photos below {self.root} can no longer be reached: {error.strerror}. "
                "Mount the share again, then run the same command."
            ) from error

    def _lstat(self, paths: Sequence[str]) -> array[int]:
        times = array("q")
        lstat = os.lstat
        entered: str | None = None
        with ExitStack() as stack:
            for path in paths:
                parent = path.rpartition("/")[0] or "/"
                try:
                    if parent != entered:
                        stack.close()
                        entered, folder = parent, None
                        folder = _enter(parent, self.root, stack)
                    if folder is None:
                        found = None
                    elif folder.descriptor is None:
                        found = lstat(path)
                    else:
                        found = lstat(path.rpartition("/")[2], dir_fd=folder.descriptor)
                except OSError as error:
                    if is_share_gone(error):
                        raise
                    found = None
                except ValueError:  # a NUL in the path
                    found = None
                times.extend(
                    NO_PHOTO
                    if found is None
                    else (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                )
        return times

    def files(self) -> Iterator[str]:
        return files_below(self.root)

    @contextmanager
    def open(self, path: str) -> Iterator[OpenFile]:
        if _is_outside(path, self.root):
            raise UnusableError(invalid(OUTSIDE))
        try:
            _check_kind(os.lstat(path))  # before it is opened: that alone starts some devices
            descriptor = retry_on_shortage(lambda: os.open(path, _OPEN_FLAGS))
        except OSError as error:
            raise UnusableError(_cannot_open(error, path, self.root)) from error
        except ValueError as error:  # a NUL in the path
            raise UnusableError(failed(PhotoCode.MISSING, "There is no such path.")) from error
        try:
            if not _is_below(descriptor, path, self.root):  # a link has just replaced a folder
                raise UnusableError(invalid(OUTSIDE))
            found = os.fstat(descriptor)
            _check_kind(found)  # once more: what is open may be something else
            yield OpenFile(path, descriptor, found)
        except OSError as error:
            if (short := shortage_in(error)) is not None:
                raise short from error
            raise UnusableError(cannot_read(error)) from error
        finally:
            os.close(descriptor)

    def check(self) -> None:
        pass  # what cannot be read of a folder is said of its photos

    def is_gone(self) -> bool:
        device = _device_of(self.root)
        return device is None or device != self._device

    def is_empty(self) -> bool:
        try:
            return not _holds_something(self.root)
        except OSError as error:
            if (short := shortage_in(error)) is not None:
                raise short from error
            return True

    def is_reachable(self, path: str) -> bool:
        try:
            _holds_something(str(Path(path).parent))
        except OSError as error:
            return shortage_in(error) is not None  # then it has not been asked
        return True

    def empty_above(self, path: str) -> str:
        uppermost = ""
        for folder in Path(path).parents:
            if not folder.is_relative_to(self.root):
                break
            try:
                if _holds_something(str(folder)):
                    break
            except OSError as error:
                if shortage_in(error) is not None:
                    break  # not known, so nothing is gone
            uppermost = str(folder)
        return uppermost


class OpenFile:
    """A file that is open; see `OpenPhoto`."""

    def __init__(self, path: str, descriptor: int, found: os.stat_result) -> None:
        self.times = _times(found)
        self._path = path
        self._descriptor = descriptor
        self._found = found

    def part(self, at: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, at)

    def content(self) -> bytes:
        content = self._all()
        if self._has_changed(content):
            message = "The file changed while it was being read."
            raise UnusableError(failed(PhotoCode.CHANGED, message))
        return content

    def _all(self) -> bytes:
        """What the file holds, up to one byte more than its size: then it has grown."""
        size = self.times.size
        content = os.read(self._descriptor, size + 1)
        while 0 < len(content) < size:
            more = os.read(self._descriptor, size + 1 - len(content))
            if not more:
                break
            content += more
        return content

    def _has_changed(self, content: bytes) -> bool:
        """Whether the file is not as it was when it was opened, or another has replaced it."""
        after = os.fstat(self._descriptor)
        if len(content) != after.st_size or _times(after) != self.times:
            return True
        if abs(clock.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns)) < FRESH_NS:
            # Written within one tick of the file system's clock its times are the same: read again.
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            if self._all() != content:
                return True
        try:
            named = os.lstat(self._path)
        except FileNotFoundError:
            return True  # deleted while it was read, perhaps to be written again
        return not os.path.samestat(named, self._found) or _times(named) != self.times


def _device_of(folder: str) -> int | None:
    """The number of the device that a folder is on; None where there is no such folder."""
    try:
        found = os.stat(folder)  # noqa: PTH116  # as elsewhere here
    except (OSError, ValueError):
        return None
    return found.st_dev if stat.S_ISDIR(found.st_mode) else None


def _holds_something(folder: str) -> bool:
    with os.scandir(folder) as found:
        return next(found, None) is not None


@dataclass(frozen=True, slots=True)
class _Entered:
    """A folder below the images root, and its descriptor, unless none was left."""

    descriptor: int | None


def _enter(folder: str, images: str, stack: ExitStack) -> _Entered | None:
    """A folder, held open until the `stack` is closed; None where it is not below `images`.
    Raises OSError where it cannot be opened, ValueError for a path with a NUL."""
    try:
        descriptor = os.open(folder, _FOLDER_FLAGS)
    except OSError as error:
        if error.errno not in _TOO_MANY_FILES:
            raise
        return _Entered(None) if _begins_with(os.path.realpath(folder), images) else None
    stack.callback(os.close, descriptor)
    return _Entered(descriptor) if _is_below(descriptor, folder, images) else None


def _times(found: os.stat_result) -> FileTimes:
    return FileTimes(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _check_kind(found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise UnusableError(invalid(SYMLINK))
    if not stat.S_ISREG(found.st_mode):
        raise UnusableError(invalid(decision.NOT_A_FILE))


def _is_outside(path: str, images: str) -> bool:
    """Whether a photo is not below `images`; checked before anything is opened, so that what a link
    leads to is not touched."""
    folder, _, name = path.rpartition("/")
    if not (name and _begins_with(path, images)):
        return True
    if _begins_with(_resolved(folder), images):
        return False
    _resolved.cache_clear()  # it may have been a link then
    return not _begins_with(_resolved(folder), images)


def _begins_with(path: str, images: str) -> bool:
    """Whether a path is that of the images root or of something below it, as text."""
    return path == images or path.startswith(images.rstrip("/") + "/")


@lru_cache(maxsize=4096)
def _resolved(folder: str) -> str:
    return os.path.realpath(folder)  # Path.resolve raises for links that go round in circles


def _is_below(descriptor: int, path: str, images: str) -> bool:
    """Whether what was opened as `path` is below `images`, or is that, whatever links exist now."""
    try:
        real = os.readlink(f"{_DESCRIPTORS}/{descriptor}")  # noqa: PTH115  # for every photo
    except OSError:  # a system without /proc: the same file has to be there by its resolved name
        real = os.path.realpath(path)
        try:
            if not os.path.samestat(os.lstat(real), os.fstat(descriptor)):
                return False
        except OSError:
            return False
    if _begins_with(real, images):
        return True
    # Where case does not distinguish names, the system may have the root under another name.
    root = real[: len(images)]
    return root.casefold() == images.casefold() and Path(root).samefile(images)


def _cannot_open(error: OSError, path: str, images: str) -> Unusable:
    if error.errno == errno.ELOOP:
        return invalid(SYMLINK)
    if error.errno == errno.ENXIO and Path(path).is_socket():
        return invalid(decision.NOT_A_FILE)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return failed(PhotoCode.MISSING, f"There is no photo at this path{_instead(path, images)}")
    return failed(
        PhotoCode.UNREADABLE,
        f"The photo cannot be opened: {error.strerror}.",
        share_gone=is_share_gone(error),
    )


def _instead(path: str, images: str) -> str:
    if there := describe_similar(path):
        return f"; there is {there}. Correct the path, or rename the file."
    if unseen := describe_unseen(path, images):
        return f": its part {unseen}. Remove that from the path."
    return ". Use / between folders, not \\." if "\\" in path else ". Check the path."
