"""From a file to a photo that the service takes, or to the reason why it is none.

A file is opened once and never through a symbolic link; hash and upload are of the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from enroll.model import Fault, FileContent, FileTimes, Photo, Status, Unusable
from enroll.namesake import find_namesake

MEDIA_TYPES = {"JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "BMP": "image/bmp"}
"""Pillow's name of each format that the service takes (FaceSearch `add`: PNG, JPG, JPEG, BMP,
JFIF). MPO is a JPEG with further pictures behind the first, as phones and 3D cameras write it."""

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes that are read into memory for one photo. Ours: thirty times what the service takes."""

_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")
"""How the files of these formats begin, whatever is wrong further on."""

_SHARE_GONE = frozenset(
    {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN}
    | {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT, errno.ECONNRESET}
)
"""What a file system says when its server or device is gone, not the file."""

_NO_FILE = (-1, -1, -1)
"""What `look` says where there is no file."""

_GLANCE_BYTES = 4096
"""What `glance` reads at either end of a file: a block of most file systems."""

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK: a FIFO that took a photo's place must not hold us; files ignore it."""


class PhotoCode(StrEnum):
    """Why a photo was not sent."""

    MISSING = "PHOTO_MISSING"
    UNREADABLE = "PHOTO_UNREADABLE"
    CHANGED = "PHOTO_CHANGED"
    """It changed while it was being read."""
    OUTSIDE = "PHOTO_OUTSIDE"
    """Its path leads out of the images root."""
    SYMLINK = "PHOTO_SYMLINK"
    NOT_A_FILE = "PHOTO_NOT_A_FILE"
    EMPTY = "PHOTO_EMPTY"
    TOO_LARGE = "PHOTO_TOO_LARGE"
    NOT_AN_IMAGE = "PHOTO_NOT_AN_IMAGE"
    TRUNCATED = "PHOTO_TRUNCATED"
    FORMAT = "PHOTO_FORMAT"
    """An image, of a format that the service does not take."""


def locate(images: str, image: str) -> str:
    """The absolute path of a manifest's photo; `images` is the resolved images root.

    Text only, nothing is looked up; `..` is folded, so the result may lie outside of the root.
    """
    if not image:
        return ""
    if image[0] != "/" and "." not in image.partition("/")[0] and "//" not in image:
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


def read_photo(path: str, images: str) -> Photo | Unusable:
    """Read, hash and check the photo at `path`, which must lie under `images`."""
    if (fault := _outside(path, images)) is not None:
        return fault
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        return _cannot_open(error, path)
    try:
        return _read(descriptor)
    except OSError as error:
        return _failed(
            PhotoCode.UNREADABLE,
            f"The photo cannot be read: {error.strerror}.",
            share_gone=_is_gone(error),
        )
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Photo | Unusable:
    before = os.fstat(descriptor)
    if (unfit := _unfit(before)) is not None:
        return unfit
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        # One byte more than there should be: a buffer of the largest size costs more than the rest.
        content = file.read(before.st_size + 1)
    after = os.fstat(descriptor)
    if _times(before) != _times(after) or len(content) != after.st_size:
        return _failed(PhotoCode.CHANGED, "The file changed while it was being read.")
    times, sha256 = _times(after), hashlib.sha256(content).digest()
    media_type = check_content(content)
    if isinstance(media_type, Fault):
        content_read = FileContent(times, sha256)
        return Unusable(status=Status.INVALID, fault=media_type, content=content_read)
    return Photo(times=times, sha256=sha256, content=content, media_type=media_type)


def _unfit(found: os.stat_result) -> Unusable | None:
    if not stat.S_ISREG(found.st_mode):
        return _invalid(PhotoCode.NOT_A_FILE, "The path names a folder or device, not a photo.")
    if found.st_size > LARGEST_FILE:
        return _invalid(
            PhotoCode.TOO_LARGE,
            f"The file has {found.st_size:,} bytes; more than {LARGEST_FILE:,} are not read. "
            "Export the photo in a smaller size.",
        )
    return None


@dataclass(frozen=True, slots=True)
class Glance:
    """What a photo's head and tail tell without reading it: bytes, and a likeness.

    Files of the same content have the same `likeness` (64 bits), others hardly ever.
    """

    size: int
    likeness: int


def glance(path: str, images: str) -> Glance | Fault:
    """What `plan` says of a photo: its size, or why it would not be sent. Reads some 8 kB."""
    if (outside := _outside(path, images)) is not None:
        return outside.fault
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        return _cannot_open(error, path).fault
    found = os.fstat(descriptor)
    if (unfit := _unfit(found)) is not None:
        os.close(descriptor)
        return unfit.fault
    with os.fdopen(descriptor, "rb") as file:
        return _glanced(file, found.st_size)


def _glanced(file: BinaryIO, size: int) -> Glance | Fault:
    head = b""
    try:
        head = file.read(_GLANCE_BYTES)
        file.seek(max(size - _GLANCE_BYTES, 0))
        tail = file.read(_GLANCE_BYTES)
        with Image.open(file) as image:
            form = image.format or ""
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        if not head:
            return _EMPTY
        return _cut_off() if head.startswith(_HEADS) else _NO_IMAGE
    if form not in MEDIA_TYPES:
        return _foreign(form)
    told = head + tail + size.to_bytes(8, "big")
    likeness = hashlib.blake2b(told, digest_size=8).digest()
    return Glance(size, int.from_bytes(likeness, "big", signed=True))


def check_content(content: bytes) -> str | Fault:
    """The media type of a photo that the service takes, told by its content, or what is wrong."""
    if not content:
        return _EMPTY
    try:
        with Image.open(BytesIO(content)) as image:
            form = image.format or ""
            whole = form not in MEDIA_TYPES or _is_whole(image, content)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError):
        if content.startswith(_HEADS):
            return _cut_off()
        return _NO_IMAGE
    except SyntaxError:  # Pillow's word for a broken chunk
        return _cut_off()
    if form not in MEDIA_TYPES:
        return _foreign(form)
    return MEDIA_TYPES[form] if whole else _cut_off()


def _is_whole(image: Image.Image, content: bytes) -> bool:
    """Whether the end of the file is there, told without decoding the picture.

    Raises SyntaxError or OSError for a PNG with a broken chunk.
    """
    if image.format == "PNG":
        image.verify()  # every chunk's length and CRC
        return b"IEND" in content[-64:]
    if image.format == "BMP":
        return len(content) >= _bmp_length(image)
    # Every JPEG ends with an EOI marker, and some programs pad it. A thumbnail in the head has
    # one, too, so it must come after the picture's first scan, where Pillow has stopped reading.
    scan = image.fp.tell() if isinstance(image, ImageFile.ImageFile) and image.fp else 0
    return content.rfind(b"\xff\xd9") >= scan


def _bmp_length(image: Image.Image) -> int:
    """Bytes up to the end of the last line of pixels of an uncompressed BMP; 0 when unknown."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    if not tiles or tiles[0].codec_name != "raw" or not isinstance(tiles[0].args, tuple):
        return 0
    stride = tiles[0].args[1]
    return tiles[0].offset + abs(stride) * image.height if isinstance(stride, int) else 0


_EMPTY = Fault(code=PhotoCode.EMPTY, message="The file is empty. Export the photo again.")

_NO_IMAGE = Fault(
    code=PhotoCode.NOT_AN_IMAGE,
    message="The file is not an image, whatever its name says. Export the photo again.",
)


def _foreign(form: str) -> Fault:
    return Fault(
        code=PhotoCode.FORMAT,
        message=f"The photo is a {form}; the service takes PNG, JPEG and BMP. Convert it.",
    )


def _cut_off() -> Fault:
    return Fault(
        code=PhotoCode.TRUNCATED,
        message="The end of the picture is missing: a broken copy or download. Copy it again.",
    )


def _outside(path: str, images: str) -> Unusable | None:
    folder, _, name = path.rpartition("/")
    if name and path.startswith(images.rstrip("/") + "/"):
        resolved = _resolved(folder)
        if resolved == images or resolved.startswith(images.rstrip("/") + "/"):
            return None
    return _invalid(
        PhotoCode.OUTSIDE,
        "The path leads out of the images folder. Correct it, or name the folder with --images.",
    )


@lru_cache(maxsize=4096)
def _resolved(folder: str) -> str:
    return str(Path(folder).resolve())


def _cannot_open(error: OSError, path: str) -> Unusable:
    if error.errno == errno.ELOOP:
        return _invalid(
            PhotoCode.SYMLINK,
            "The photo is a symbolic link, which is not followed. Put the file itself there.",
        )
    if error.errno == errno.ENXIO and Path(path).is_socket():
        return _invalid(PhotoCode.NOT_A_FILE, "The path names a socket, not a photo.")
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


def _invalid(code: PhotoCode, message: str) -> Unusable:
    return Unusable(status=Status.INVALID, fault=Fault(code=code, message=message))


def _failed(code: PhotoCode, message: str, *, share_gone: bool = False) -> Unusable:
    return Unusable(
        status=Status.FAILED, fault=Fault(code=code, message=message), share_gone=share_gone
    )
