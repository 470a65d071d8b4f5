"""The object-store adapter of the photo store: objects below `s3://bucket/prefix`, `gs://`, `az://`.

A photo is known by its size, its time of modification, and its ETag. A few photos are each asked
for; where many are asked for, the objects below the root are listed instead, a thousand at a time.
A photo is read with one request, and what is known of it is what that answer says of itself, so a
photo is always of one version.

Credentials, endpoint and region come from where the cloud's own tools have them (`object_account`),
and are in no path, message or pickle.
"""

from __future__ import annotations

import hashlib
import posixpath
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from enroll.addresses import is_url, normal_key, normal_url, parse_url
from enroll.errors import LocalError, ManifestError
from enroll.model import FileTimes
from enroll.photos.decision import PhotoCode
from enroll.photos.object_account import connect
from enroll.photos.object_listing import Listing, Numbers
from enroll.photos.refusals import OUTSIDE, failed, invalid
from enroll.photos.similar_name import (
    Listings,
    describe_difference,
    describe_unseen,
    folded,
)
from enroll.photos.store import NO_PHOTO, UnusableError

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta

_PIECE = 256 * 1024
"""Bytes of a photo that are taken from the connection at a time."""

_TRIES = 3
"""How often a photo is read whose bytes end too early; the client tries refused requests again by
itself."""

_GONE = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")


class ObjectStore:
    """The objects below an address; see `PhotoStore`."""

    def __init__(self, root: str) -> None:
        """`root` is an address; there may be no such bucket. Raises UsageError without the extra
        `objects`, or where credentials or endpoint cannot be used."""
        scheme, bucket, prefix = parse_url(root)
        self._bucket = f"{scheme}://{bucket}"
        self._prefix = prefix
        self.root = f"{self._bucket}/{prefix}" if prefix else self._bucket
        self._client = connect(self._bucket)
        self._lock = Lock()
        self._listing = Listing(self._pages)
        self._names = Listings(self._names_in)

    def __reduce__(self) -> tuple[type[ObjectStore], tuple[str]]:
        """Another process connects by itself, with its own credentials."""
        return type(self), (self.root,)

    def locate(self, image: str) -> str:
        if not image:
            return ""
        if is_url(image):
            return normal_url(image)
        key = normal_key(image) if image[0] == "/" else normal_key(f"{self._prefix}/{image}")
        return f"{self._bucket}/{key}"

    def stat(self, paths: Sequence[str]) -> array[int]:
        names = [self._name(path) for path in paths]
        with self._lock:
            found = self._find([name for name in names if name])
        numbers = array("q")
        for name in names:
            known = found[name] if name else NO_PHOTO
            numbers.extend(self._ask(name) if known is None else known)
        return numbers

    def _find(self, names: Sequence[str]) -> dict[str, Numbers | None]:
        try:
            return self._listing.find(names)
        except Exception as error:
            if not (_is_refused(error) or _is_invalid_name(error)):
                raise self._unreachable(error) from error
            self._listing.give_up()
            return dict.fromkeys(names)

    def _ask(self, name: str) -> Numbers:
        """What is known of one photo; NO_PHOTO also for one that may not be asked for, so that it
        is read, which says why not. Raises LocalError where the store does not answer."""
        try:
            return _numbers(self._client.head(self._key(name)))
        except Exception as error:
            if _is_missing(error) or _is_refused(error):
                return NO_PHOTO
            raise self._unreachable(error) from error

    def files(self) -> Iterator[str]:
        last = ""
        for page in self._listed():
            for name, _ in page:
                if name < last:
                    raise self._unordered()
                last = name
                yield name

    def _listed(self) -> Iterator[list[tuple[str, Numbers]]]:
        """All pages. Raises ManifestError and LocalError."""
        try:
            yield from self._pages()
        except Exception as error:
            if _is_refused(error):
                raise ManifestError(self._refusal(error)) from error
            if _is_invalid_name(error):
                raise ManifestError(
                    f"The photos below {self.root} cannot be listed, because a name has an empty "
                    f"part or a part of dots: {_first_line(error)} Copy that object to another "
                    "name and delete it, or name a prefix without it."
                ) from error
            raise self._unreachable(error) from error

    def _unordered(self) -> ManifestError:
        return ManifestError(
            f"The store lists the photos below {self.root} in no fixed order, as directory buckets "
            "do. Give a list of the photos as the manifest."
        )

    def _pages(self, after: str = "") -> Iterator[list[tuple[str, Numbers]]]:
        """The objects below the root, by their names below it, from the one after `after` on."""
        start = len(self._prefix) + 1 if self._prefix else 0
        offset = self._key(after) if after else None
        pages = self._client.list(prefix=self._prefix or None, offset=offset, chunk_size=1000)
        for page in pages:
            yield [(one["path"][start:], _numbers(one)) for one in page]

    @contextmanager
    def open(self, path: str) -> Iterator[OpenObject]:
        name = self._name(path)
        if not name:
            raise UnusableError(invalid(OUTSIDE))
        try:
            yield OpenObject(self, self._key(name))
        except UnusableError:
            raise
        except Exception as error:
            if not _is_of_store(error):
                raise
            raise self._cannot_read(error, name) from error

    def get(self, key: str) -> GetResult:
        """Ask for an object's bytes. Raises what obstore raises."""
        return self._client.get(key)

    def _cannot_read(self, error: Exception, name: str) -> UnusableError:
        if _is_refused(error):
            return UnusableError(failed(PhotoCode.UNREADABLE, self._refusal(error)))
        if not _is_missing(error):
            message = f"The photo cannot be read: {_first_line(error)}"
            return UnusableError(failed(PhotoCode.UNREADABLE, message, share_gone=True))
        if self.is_gone():
            message = f"The bucket {self._bucket} does not exist, or no longer."
            return UnusableError(failed(PhotoCode.UNREADABLE, message, share_gone=True))
        message = f"There is no photo at this path{self._instead(name)}"
        return UnusableError(failed(PhotoCode.MISSING, message))

    def _instead(self, name: str) -> str:
        folder, _, last = name.rpartition("/")
        there = self._names.names(folder).get(folded(last), "")
        if there and there != last:
            difference = describe_difference(there, last)
            return f"; there is {difference}. Correct the path, or rename the object."
        if unseen := describe_unseen(name, ""):
            return f": its part {unseen}. Remove that from the path."
        return ". Check the path; upper and lower case differ."

    def _names_in(self, folder: str, most: int) -> list[str]:
        """The first names in a folder."""
        whole = self._key(folder) if folder else self._prefix
        start = len(whole) + 1 if whole else 0
        found = self._client.list_with_delimiter(whole or None)["objects"]
        return [one["path"][start:] for one in found[:most]]

    def check(self) -> None:
        try:
            self._first("")
        except Exception as error:
            if _is_refused(error):
                raise ManifestError(self._refusal(error)) from error
            if not _is_invalid_name(error):
                raise self._unreachable(error) from error

    def is_gone(self) -> bool:
        try:
            self._first("")
        except Exception as error:  # noqa: BLE001  # sorted by what it says
            return _says(error, *_GONE) or isinstance(error, FileNotFoundError)
        return False

    def is_empty(self) -> bool:
        return not self._has_below("")

    def is_reachable(self, path: str) -> bool:
        try:
            self._first(self._name(path).rpartition("/")[0])
        except Exception as error:  # noqa: BLE001  # sorted by what it says
            return _is_refused(error) or _is_invalid_name(error)
        return True

    def empty_above(self, path: str) -> str:
        uppermost, folder = "", self._name(path)
        while folder:
            folder = folder.rpartition("/")[0]
            if self._has_below(folder):
                break
            uppermost = f"{self.root}/{folder}" if folder else self.root
        return uppermost

    def _has_below(self, folder: str) -> bool:
        try:
            return self._first(folder)
        except Exception as error:  # noqa: BLE001  # sorted by what it says
            return _is_invalid_name(error) or _is_refused(error)

    def _first(self, folder: str) -> bool:
        """Whether there is an object below a folder. Raises what obstore raises."""
        prefix = posixpath.join(self._prefix, folder) if folder else self._prefix
        pages = self._client.list(prefix=prefix or None, chunk_size=1)
        return any(page for page in pages)

    def _name(self, path: str) -> str:
        """The name below the root; empty for a path that leads out of it."""
        start = f"{self.root}/"
        return path[len(start) :] if path.startswith(start) else ""

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _refusal(self, error: Exception) -> str:
        return (
            f"Access to {self.root} is denied ({_first_line(error)}). Check the credentials in the "
            "environment, and that they may list the bucket and read its objects."
        )

    def _unreachable(self, error: Exception) -> LocalError:
        return LocalError(
            f"The photos below {self.root} can no longer be reached: {_first_line(error)} Run the "
            "same command when the store answers again; every row stays due."
        )


def pieces_of(url: str) -> Iterator[bytes]:
    """The bytes of an object that is not a photo, at its address. Raises ManifestError where there
    is none or it may not be read, LocalError where the store does not answer to its end, and
    UsageError as `connect` does."""
    scheme, bucket, key = parse_url(url)
    client = connect(f"{scheme}://{bucket}")
    try:
        yield from _whole(client.get(key))
    except Exception as error:
        if not _is_of_store(error):
            raise
        if _is_missing(error):
            raise ManifestError(f"There is no manifest at {url}. Check the address.") from error
        if _is_refused(error):
            raise ManifestError(
                f"Access to {url} is denied ({_first_line(error)}). Check the credentials in the "
                "environment."
            ) from error
        raise LocalError(
            f"{url} cannot be read: {_first_line(error)} Run the same command when the store "
            "answers again."
        ) from error


def _whole(answer: GetResult) -> Iterator[bytes]:
    left = answer.meta["size"]
    for piece in answer.stream(min_chunk_size=_PIECE):
        left -= len(piece)
        yield bytes(piece)
    if left:
        raise _CutError


class OpenObject:
    """An object that is open; see `OpenPhoto`. It is of one version, so it never changes."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store = store
        self._key = key
        self._begin()
        self.times = FileTimes(*self._numbers)

    def _begin(self) -> None:
        answer = self._store.get(self._key)
        self._numbers = _numbers(answer.meta)
        self._pieces = iter(answer.stream(min_chunk_size=_PIECE))
        self._read = bytearray()

    def part(self, at: int, length: int) -> bytes:
        self._take(at + length)
        return bytes(self._read[at : at + length])

    def content(self) -> bytes:
        for tries_left in reversed(range(_TRIES)):
            try:
                self._take(self.times.size + 1)
                break
            except Exception as error:
                if not (tries_left and _is_of_store(error)):
                    raise
            self._begin()
            if FileTimes(*self._numbers) != self.times:
                message = "The photo was replaced while it was being read."
                raise UnusableError(failed(PhotoCode.CHANGED, message))
        return bytes(self._read)

    def _take(self, wanted: int) -> None:
        """Take so many bytes from the connection, or all."""
        while len(self._read) < wanted:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._read += piece
        if len(self._read) < min(wanted, self.times.size):
            raise _CutError


class _CutError(OSError):
    """An answer that ended too early."""

    def __str__(self) -> str:
        return "the answer ended too early."


def _numbers(meta: ObjectMeta) -> Numbers:
    """Size, time of modification in nanoseconds, and 63 bits of the ETag. A listing has no version,
    its times are more precise than those of other answers, and some stores quote ETags only there.
    """
    tag = (meta["e_tag"] or meta["version"] or "").removeprefix("W/").strip('"')
    digest = hashlib.blake2b(tag.encode(), digest_size=8).digest()
    seconds = int(meta["last_modified"].timestamp())
    return meta["size"], seconds * 10**9, int.from_bytes(digest) >> 1


def _is_of_store(error: Exception) -> bool:
    """Whether obstore raised it, or the connection did."""
    from obstore.exceptions import BaseError  # noqa: PLC0415 - an extra

    return isinstance(error, BaseError | OSError) or _is_invalid_name(error)


def _says(error: Exception, *words: str) -> bool:
    """Whether a store's answer is one of these; obstore hands it on as text only."""
    return any(word in str(error) for word in words)


def _is_missing(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or _is_invalid_name(error) or _says(error, *_GONE)


def _is_refused(error: Exception) -> bool:
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError  # noqa: PLC0415

    known = PermissionDeniedError, UnauthenticatedError, PermissionError
    return isinstance(error, known) or _says(error, "401 Unauthorized", "403 Forbidden")


def _is_invalid_name(error: Exception) -> bool:
    """Whether obstore does not take a name: one with an empty part, a dot for a part, or control
    characters."""
    return _says(error, "Could not parse path", "Encountered object with invalid path")


def _first_line(error: Exception) -> str:
    """The first line of obstore's message; what follows is for its developers. Ends with a stop."""
    return str(error).partition("\n")[0].rstrip(". :") + "."
