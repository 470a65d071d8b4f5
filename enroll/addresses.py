"""Addresses that may be given where files are: of objects in a bucket, in place of photos or a
manifest, and of a database, in place of a ledger's file; and which hosts are this machine."""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
from pathlib import Path, PosixPath

from enroll.errors import UsageError
from enroll.visible import ESCAPED_BYTE, path_text

SCHEMES = ("s3", "gs", "az")

_ANY_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

DATABASES = ("postgresql", "postgres")

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
    Raises UsageError for an address of something else than a bucket, or with more than bucket and
    key."""
    given = os.fspath(text)
    if not is_address(given):
        return Path(given)
    scheme, bucket, key = parse_url(given)
    return ObjectPath(f"{scheme}:/{bucket}/{key}")


def named_path(text: str) -> Path:
    r"""The path for a text of `path_text`. A file whose name has a literal `\xfc` is preferred to
    one with that byte."""
    path = path_of(text)
    if is_url(text) or not ESCAPED_BYTE.search(text) or os.path.lexists(path):
        return path
    return Path(ESCAPED_BYTE.sub(lambda found: chr(0xDC00 + int(found[1], 16)), text))


def resolved(path: Path) -> Path:
    """A path without links; unchanged where links form a circle, and for an address."""
    return path if isinstance(path, ObjectPath) else Path(os.path.realpath(path))


def is_address(text: str) -> bool:
    """Whether this begins with a scheme, as no path does."""
    return _ANY_SCHEME.match(text) is not None


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


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class LedgerAddress(PosixPath):
    """The address of a ledger in a database, as a path: as text it is the address. There is no such
    file, whatever is asked of it."""

    def __str__(self) -> str:
        _, _, rest = super().__str__().partition(":/")
        return f"postgresql://{rest.removeprefix('@')}"

    def __fspath__(self) -> str:
        return str(self)

    def absolute(self) -> LedgerAddress:
        return self


def ledger_named(text: str | os.PathLike[str]) -> Path:
    """What a user gave as a ledger: the address of one, or the path of its file."""
    given = os.fspath(text)
    scheme, mark, rest = given.partition("://")
    if not (mark and scheme in DATABASES):
        return Path(given)
    # A path has no doubled slash: an address without a host gets an empty one.
    return LedgerAddress(f"postgresql:/{'@' if rest.startswith('/') else ''}{rest}")
