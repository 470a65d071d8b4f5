"""A photo's file: where it lies, what `lstat` says of it, read once, or why it cannot be read.

A file is opened once and never through a symbolic link; what is hashed is what is prepared.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from enroll.model import Fault, FileContent, FileTimes, Photo, Status, Unusable
from enroll.photo import facecheck, reasons
from enroll.photo.memory import CONTENT_BYTES, reading
from enroll.photo.namesake import find_namesake
from enroll.photo.prepare import prepare
from enroll.photo.reasons import LARGEST_FILE, PhotoCode
from enroll.preparation import AS_USUAL, Preparation

_SHARE_GONE = frozenset(
    {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN}
    | {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT, errno.ECONNRESET}
)
"""What a file system says when its server or device is gone, not the file."""

_NO_FILE = (-1, -1, -1)
"""What `look` says where there is no file."""

_SMALL = 1024 * 1024
"""Bytes of a file of which as many as there are readers may lie in memory."""

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


def look(paths: Sequence[str]) -> array[int]:
    """What `lstat` says of each: size, mtime and ctime in ns, each -1 where there is nothing.

    Raises OSError where not a file but its file system is gone.
    """
    times = array("q")
    lstat = os.lstat
    for path in paths:
        try:
            found = lstat(path) if path else None
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
    """A photo's descriptor and what `fstat` says of it. Raises CannotOpenError."""
    outside = _outside(path, images)
    if outside is not None:
        raise CannotOpenError(outside)
    try:
        _check_kind(os.lstat(path))  # before it is opened: that alone sets some devices going
        descriptor = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        raise CannotOpenError(_cannot_open(error, path)) from error
    except ValueError as error:  # a NUL in the path
        raise CannotOpenError(_failed(PhotoCode.MISSING, "There is no such path.")) from error
    try:
        found = os.fstat(descriptor)
        _check_kind(found)  # once more: what is open may be something else
        if found.st_size > LARGEST_FILE:
            raise CannotOpenError(_invalid(reasons.too_large(found.st_size)))
        yield descriptor, found
    except OSError as error:
        raise CannotOpenError(_cannot_read(error)) from error
    finally:
        os.close(descriptor)


def _check_kind(found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise CannotOpenError(_invalid(_SYMLINK))
    if not stat.S_ISREG(found.st_mode):
        raise CannotOpenError(_invalid(reasons.NOT_A_FILE))


def read_photo(path: str, images: str, preparation: Preparation = AS_USUAL) -> Photo | Unusable:
    """Read and hash the photo at `path`, which must lie under `images`, and prepare what is sent.

    Never raises, whatever the file is.
    """
    try:
        with opened(path, images) as (descriptor, before):
            if before.st_size <= _SMALL:
                return _read(descriptor, before, preparation)
            # Only what is sent stays in memory; of what is read, no more than a few files.
            with reading().room(before.st_size, limit=CONTENT_BYTES):
                return _read(descriptor, before, preparation)
    except CannotOpenError as error:
        return error.unusable


def read_photos(
    paths: Sequence[str], images: str, preparation: Preparation = AS_USUAL
) -> tuple[list[Photo | Unusable], bool]:
    """`read_photo` of the first of these, at least of one, until that has taken TOGETHER_SECONDS or
    TOGETHER_BYTES; and whether it took less for all of them."""
    until = time.monotonic() + TOGETHER_SECONDS
    photos: list[Photo | Unusable] = []
    left = TOGETHER_BYTES
    for path in paths:
        photos.append(photo := read_photo(path, images, preparation))
        left -= len(photo.content) if isinstance(photo, Photo) else 0
        if left <= 0 or time.monotonic() >= until:
            return photos, False
    return photos, True


def _read(descriptor: int, before: os.stat_result, preparation: Preparation) -> Photo | Unusable:
    contents = [_content(descriptor, before.st_size)]
    after = os.fstat(descriptor)
    times = _times(after)
    if _times(before) != times or len(contents[0]) != after.st_size:
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
    folder, _, name = path.rpartition("/")
    if name and path.startswith(images.rstrip("/") + "/"):
        resolved = _resolved(folder)
        if resolved == images or resolved.startswith(images.rstrip("/") + "/"):
            return None
    return _invalid(_OUTSIDE)


@lru_cache(maxsize=4096)
def _resolved(folder: str) -> str:
    return str(Path(folder).resolve())


def _cannot_open(error: OSError, path: str) -> Unusable:
    if error.errno == errno.ELOOP:
        return _invalid(_SYMLINK)
    if error.errno == errno.ENXIO and Path(path).is_socket():
        return _invalid(reasons.NOT_A_FILE)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return _failed(PhotoCode.MISSING, f"There is no photo at this path{_instead(path)}")
    return _failed(
        PhotoCode.UNREADABLE,
        f"The photo cannot be opened: {error.strerror}.",
        share_gone=_is_gone(error),
    )


def _instead(path: str) -> str:
    if there := find_namesake(path):
        return f"; there is {there}. Correct the path, or rename the file."
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
