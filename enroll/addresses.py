"""Addresses of objects in a bucket, which may be given where photos or a manifest are files."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path, PosixPath

from enroll.errors import UsageError
from enroll.visible import path_text

SCHEMES = ("s3", "gs", "az")

_URL = re.compile(rf"({'|'.join(SCHEMES)})://([^/]+)(?:/(.*))?", re.DOTALL)


class ObjectPath(PosixPath):
    """An address as a path: its parents, names and suffixes are those of a path, and as text it is
    the address. There is no such file, whatever is asked of it."""

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest.lstrip('/')}"

    def __fspath__(self) -> str:
        return str(self)

    def absolute(self) -> ObjectPath:
        return self


def path_of(text: str | os.PathLike[str]) -> Path:
    """What a user gave, or the ledger has, as a path: an address, or that of a file or folder.
    Raises UsageError for an address with more than bucket and key."""
    given = os.fspath(text)
    if not is_url(given):
        return Path(given)
    scheme, bucket, key = parse_url(given)
    return ObjectPath(f"{scheme}:/{bucket}/{key}")


def is_url(text: str) -> bool:
    """Whether this is the address of a bucket or of something in one, not a path of files."""
    return _URL.fullmatch(text) is not None


def normal_url(url: str) -> str:
    """An address, its key as `normal_key` has it; unchanged where it is none."""
    if (found := _URL.fullmatch(url)) is None:
        return url
    scheme, bucket, key = found.groups()
    return f"{scheme}://{bucket}/{normal_key(key or '')}"


def parse_url(url: str) -> tuple[str, str, str]:
    """Scheme, bucket (for `az`, the container) and key of an address, without a slash at its end.
    Raises UsageError for one with more than that, such as a password."""
    found = _URL.fullmatch(url)
    if found is None:
        raise UsageError(
            f"{path_text(url)} is not the address of a bucket. Write s3://BUCKET/PREFIX, "
            "gs://BUCKET/PREFIX or az://CONTAINER/PREFIX."
        )
    scheme, bucket, key = found.groups()
    if "@" in bucket or "?" in bucket or ":" in bucket:
        raise UsageError(
            f"The address {scheme}://… must hold a bucket and a prefix only. Credentials and "
            "endpoint come from the environment, as for the cloud's own tools."
        )
    return scheme, bucket, normal_key(key or "")


def normal_key(key: str) -> str:
    """A key without `.`, `..` and doubled slashes, which a key that is read cannot have."""
    return posixpath.normpath(f"/{key}").lstrip("/") if key else ""
