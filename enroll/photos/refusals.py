"""Why a store does not open a photo, or cannot read it, in the same words for every store."""

from __future__ import annotations

import errno

from enroll.addresses import is_url
from enroll.model import Fault, Status, Unusable
from enroll.photos.decision import PhotoCode

_SHARE_GONE = frozenset(
    {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN}
    | {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT, errno.ECONNRESET}
)
"""Errors of a file system whose server or device is gone, rather than of a single file."""

OUTSIDE = Fault(
    code=PhotoCode.OUTSIDE,
    message="The path leads outside the images folder. Correct it, or name the folder with "
    "--images.",
)

SYMLINK = Fault(
    code=PhotoCode.SYMLINK,
    message="The photo is a symbolic link, which is not followed. Replace the link with the file "
    "itself.",
)


def is_share_gone(error: OSError) -> bool:
    """Whether a file system says that its server or device is gone, not a file."""
    return error.errno in _SHARE_GONE


def reconnect(root: str) -> str:
    """What to do first where a store that was there is gone, as the beginning of a sentence."""
    return "Check the bucket and the credentials" if is_url(root) else "Mount the share again"


def cannot_read(error: OSError) -> Unusable:
    return failed(
        PhotoCode.UNREADABLE,
        f"The photo cannot be read: {error.strerror}.",
        share_gone=is_share_gone(error),
    )


def invalid(fault: Fault) -> Unusable:
    return Unusable(status=Status.INVALID, fault=fault)


def failed(code: PhotoCode, message: str, *, share_gone: bool = False) -> Unusable:
    return Unusable(
        status=Status.FAILED, fault=Fault(code=code, message=message), share_gone=share_gone
    )
