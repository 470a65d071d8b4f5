"""A photo's file: where it lies, what `lstat` says of it, read once, or why it cannot be read.

A file is opened once and never through a symbolic link; what is hashed is what is prepared. Where
it lies is asked of the open file or folder itself, so that no link that takes the place of a folder
meanwhile leads out of the images root. (`openat2` with RESOLVE_BENEATH would not do: it refuses
absolute links that stay below the root.)
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from enroll import clock
from enroll.errors import ShortageError
from enroll.model import Fault, FileContent, FileTimes, Photo, Status, Unusable
from enroll.photos import decision
from enroll.photos import precheck as facecheck
from enroll.photos.bounds import CONTENT_BYTES, reading
from enroll.photos.decision import LARGEST_FILE, PhotoCode
from enroll.photos.prepare import prepare
from enroll.photos.similar_name import find_namesake, name_unseen
from enroll.resources import patiently, shortage_in
from enroll.settings import AS_USUAL, Preparation

_SHARE_GONE = frozenset(
    {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN}
    | {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT, errno.ECONNRESET}
)
"""What a file system says when its server or device is gone, not the file."""

_DESCRIPTORS = "/proc/self/fd"
"""Where Linux says what a process has open, by its real path: proc_pid_fd(5)."""

_NO_FILE = (-1, -1, -1)
"""What `look` says where there is no file."""

_SMALL = 1024 * 1024
"""Bytes of a file of which as many as there are readers may lie in memory."""

FRESH_NS = 3_000_000_000
"""So long after a file was written it is read twice, in nanoseconds. File systems' clocks tick
every 4 ms or less, those of FAT every two seconds; a server's clock may be a little off."""

TOGETHER_SECONDS = 0.005
"""From this long on readers side by side are quicker than one that goes on."""

TOGETHER_BYTES = 1024 * 1024
"""Of photos that wait with the last of those that are read one after another."""

_OUTSIDE = Fault(
    code=PhotoCode.OUTSIDE,
    message="The path leads out of the images folder. Correct it, or name the folder with "
    "--images.",
)

_SYMLINK = Fault(
    code=PhotoCode.SYMLINK,
    message="The photo is a symbolic link, which is not followed. Put the file itself there.",
)

_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""O_PATH, where there is one: a folder whose names may not be listed can still be looked into."""

_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK: a FIFO that took a photo's place must not hold us; files ignore it."""


def locate(images: str, image: str) -> str:
    """The absolute path of a manifest's photo; `images` is the resolved images root.

    Text only, nothing is looked up; `..` is folded, so the result may lie outside of the root.
    """
    if not image:
        return ""
    if image[0] != "/" != image[-1] and "." not in image.partition("/")[0] and "//" not in image:
        joined = f"{images}/{image}"
        if "/." not in joined:
            return joined  # the usual case, at a quarter of normpath's cost
    return os.path.normpath(os.path.join(images, image))  # noqa: PTH118  # a Path costs 10x


def look(paths: Sequence[str], images: str) -> array[int]:
    """What `lstat` says of each: size, mtime and ctime in ns, each -1 where there is nothing below
    `images`.

    Raises OSError where not a file but its file system is gone.
    """
    times = array("q")
    lstat = os.lstat
    entered: str | None = None
    with ExitStack() as stack:
        for path in paths:
            folder = path.rpartition("/")[0] or "/"
            try:
                if folder != entered:
                    stack.close()
                    entered, place = folder, None
                    place = _enter(folder, images, stack)
                if place is None:
                    found = None
                elif place.descriptor is None:
                    found = lstat(path)
                else:
                    found = lstat(path.rpartition("/")[2], dir_fd=place.descriptor)
            except OSError as error:
                if _is_gone(error):
                    raise
                found = None
            except ValueError:  # a NUL in the path
                found = None
            times.extend(
                _NO_FILE if found is None else (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            )
    return times


@dataclass(frozen=True, slots=True)
class _Entered:
    """A folder below the images root; its descriptor, unless none was left."""

    descriptor: int | None


def _enter(folder: str, images: str, stack: ExitStack) -> _Entered | None:
    """A folder, held open until the `stack` is closed; None where it does not lie below `images`.
    Raises OSError where it cannot be opened, ValueError for a path with a NUL."""
    try:
        descriptor = os.open(folder, _FOLDER_FLAGS)
    except OSError as error:
        if error.errno not in _TOO_MANY_FILES:
            raise
        return _Entered(None) if _begins_with(os.path.realpath(folder), images) else None
    stack.callback(os.close, descriptor)
    return _Entered(descriptor) if _is_below(descriptor, folder, images) else None


def _is_gone(error: OSError) -> bool:
    """Whether a file system says that its server or device is gone, not a file."""
    return error.errno in _SHARE_GONE


def _times(found: os.stat_result) -> FileTimes:
    return FileTimes(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class CannotOpenError(Exception):
    """A file that is not to be opened, or cannot be."""

    def __init__(self, unusable: Unusable) -> None:
        super().__init__(unusable.fault.message)
        self.unusable = unusable


@contextmanager
def opened(path: str, images: str) -> Iterator[tuple[int, os.stat_result]]:
    """A photo's descriptor and what `fstat` says of it. Raises CannotOpenError, and ShortageError
    where this machine lets us open no further file."""
    outside = _outside(path, images)
    if outside is not None:
        raise CannotOpenError(outside)
    try:
        _check_kind(os.lstat(path))  # before it is opened: that alone sets some devices going
        descriptor = patiently(lambda: os.open(path, _OPEN_FLAGS))
    except OSError as error:
        raise CannotOpenError(_cannot_open(error, path, images)) from error
    except ValueError as error:  # a NUL in the path
        raise CannotOpenError(_failed(PhotoCode.MISSING, "There is no such path.")) from error
    try:
        if not _is_below(descriptor, path, images):  # a folder was exchanged for a link just now
            raise CannotOpenError(_invalid(_OUTSIDE))
        found = os.fstat(descriptor)
        _check_kind(found)  # once more: what is open may be something else
        if found.st_size > LARGEST_FILE:
            raise CannotOpenError(_invalid(decision.too_large(found.st_size)))
        yield descriptor, found
    except OSError as error:
        if (short := shortage_in(error)) is not None:
            raise short from error
        raise CannotOpenError(_cannot_read(error)) from error
    finally:
        os.close(descriptor)


def _check_kind(found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise CannotOpenError(_invalid(_SYMLINK))
    if not stat.S_ISREG(found.st_mode):
        raise CannotOpenError(_invalid(decision.NOT_A_FILE))


def read_photo(path: str, images: str, preparation: Preparation = AS_USUAL) -> Photo | Unusable:
    """Read and hash the photo at `path`, which must lie under `images`, and prepare what is sent.

    Never raises, whatever the file is, but ShortageError where no file can be opened now.
    """
    try:
        with opened(path, images) as (descriptor, before):
            if before.st_size <= _SMALL:
                return _read(descriptor, before, preparation, path)
            # Only what is sent stays in memory; of what is read, no more than a few files.
            with reading().room(before.st_size, limit=CONTENT_BYTES):
                return _read(descriptor, before, preparation, path)
    except CannotOpenError as error:
        return error.unusable


def read_photos(
    paths: Sequence[str], images: str, preparation: Preparation = AS_USUAL
) -> tuple[list[Photo | Unusable], bool]:
    """`read_photo` of the first of these, at least of one, until that has taken TOGETHER_SECONDS or
    TOGETHER_BYTES; and whether it took less for all of them. Raises ShortageError as that does."""
    until = clock.monotonic() + TOGETHER_SECONDS
    photos: list[Photo | Unusable] = []
    left = TOGETHER_BYTES
    for path in paths:
        try:
            photo = read_photo(path, images, preparation)
        except ShortageError:
            if not photos:
                raise
            return photos, False
        photos.append(photo)
        left -= len(photo.content) if isinstance(photo, Photo) else 0
        if left <= 0 or clock.monotonic() >= until:
            return photos, False
    return photos, True


def _read(
    descriptor: int, before: os.stat_result, preparation: Preparation, path: str
) -> Photo | Unusable:
    contents = [_content(descriptor, before.st_size)]
    times = _times(before)
    if _has_changed(descriptor, before, contents[0], path):
        return _failed(PhotoCode.CHANGED, "The file changed while it was being read.")
    sha256 = hashlib.sha256(contents[0]).digest()
    prepared = prepare(contents.pop(), preparation)  # who alone has the bytes can let them go
    if isinstance(prepared, Fault):
        return Unusable(status=Status.INVALID, fault=prepared, content=FileContent(times, sha256))
    sent = prepared.content
    return Photo(
        times=times,
        sha256=sha256,
        sent_sha256=hashlib.sha256(sent).digest() if prepared.done else None,
        content=sent,
        media_type=prepared.media_type,
        prepared=prepared.words,
        doubt=facecheck.doubt_about(sent, prepared.media_type, preparation),
    )


def _has_changed(descriptor: int, before: os.stat_result, content: bytes, path: str) -> bool:
    """Whether the file is another one than when it was opened, or another has taken its place."""
    after = os.fstat(descriptor)
    if len(content) != after.st_size or _times(after) != _times(before):
        return True
    if abs(clock.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns)) < FRESH_NS:
        # Written within one tick of the file system's clock its times are the same: look again.
        os.lseek(descriptor, 0, os.SEEK_SET)
        if _content(descriptor, before.st_size) != content:
            return True
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return True  # taken away while it was read, perhaps to be written anew
    return not os.path.samestat(named, before) or _times(named) != _times(before)


def _content(descriptor: int, size: int) -> bytes:
    """All that the file holds, up to one byte more than its size: that is a file that has grown."""
    content = os.read(descriptor, size + 1)
    while 0 < len(content) < size:
        more = os.read(descriptor, size + 1 - len(content))
        if not more:
            break
        content += more
    return content


def _outside(path: str, images: str) -> Unusable | None:
    """What is said of a photo that does not lie below `images`: before anything is opened, so that
    what a link leads to is not touched."""
    folder, _, name = path.rpartition("/")
    if name and _begins_with(path, images):
        if _begins_with(_resolved(folder), images):
            return None
        _resolved.cache_clear()  # it may have been a link then
        if _begins_with(_resolved(folder), images):
            return None
    return _invalid(_OUTSIDE)


def _begins_with(path: str, images: str) -> bool:
    """Whether a path is that of the images root or of something below it, as text."""
    return path == images or path.startswith(images.rstrip("/") + "/")


@lru_cache(maxsize=4096)
def _resolved(folder: str) -> str:
    return os.path.realpath(folder)  # Path.resolve raises for links that go round in circles


def _is_below(descriptor: int, path: str, images: str) -> bool:
    """Whether what was opened as `path` lies below `images`, or is that, whatever links there are
    now."""
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
    # Where case does not tell names apart, the system may have the root under another name.
    root = real[: len(images)]
    return root.casefold() == images.casefold() and Path(root).samefile(images)


def _cannot_open(error: OSError, path: str, images: str) -> Unusable:
    if error.errno == errno.ELOOP:
        return _invalid(_SYMLINK)
    if error.errno == errno.ENXIO and Path(path).is_socket():
        return _invalid(decision.NOT_A_FILE)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return _failed(PhotoCode.MISSING, f"There is no photo at this path{_instead(path, images)}")
    return _failed(
        PhotoCode.UNREADABLE,
        f"The photo cannot be opened: {error.strerror}.",
        share_gone=_is_gone(error),
    )


def _instead(path: str, images: str) -> str:
    if there := find_namesake(path):
        return f"; there is {there}. Correct the path, or rename the file."
    if unseen := name_unseen(path, images):
        return f": its part {unseen}. Take that out of the path."
    return ". Use / between folders, not \\." if "\\" in path else ". Check the path."


def _cannot_read(error: OSError) -> Unusable:
    return _failed(
        PhotoCode.UNREADABLE,
        f"The photo cannot be read: {error.strerror}.",
        share_gone=_is_gone(error),
    )


def _invalid(fault: Fault) -> Unusable:
    return Unusable(status=Status.INVALID, fault=fault)


def _failed(code: PhotoCode, message: str, *, share_gone: bool = False) -> Unusable:
    return Unusable(
        status=Status.FAILED, fault=Fault(code=code, message=message), share_gone=share_gone
    )
