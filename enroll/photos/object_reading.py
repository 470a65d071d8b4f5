"""Reads objects: photos, each of one version, and lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from enroll.addresses import parse_url
from enroll.errors import LocalError, ManifestError
from enroll.model import FileTimes
from enroll.photos.decision import PhotoCode
from enroll.photos.object_account import connect
from enroll.photos.object_errors import (
    CutError,
    is_bucket_gone,
    is_misplaced,
    is_missing,
    is_of_store,
    is_refused,
    raise_shortage,
    reason,
    remedy,
)
from enroll.photos.object_listing import numbers_of
from enroll.photos.refusals import failed
from enroll.photos.store import UnusableError
from enroll.threads import interruptibly

if TYPE_CHECKING:
    from obstore import BytesStream, GetOptions, GetResult
    from obstore.store import ObjectStore

_PIECE = 256 * 1024
"""Bytes of a photo that are taken from the connection at a time."""

_FAR = 1024 * 1024
"""Bytes between what was taken and what is asked for, from which on another request is worth it."""


def pieces_of(url: str) -> Iterator[bytes]:
    """The bytes of an object that is not a photo, at its address. Raises ManifestError where there
    is none or it may not be read, LocalError where the store does not answer to its end, and
    UsageError as `connect` does."""
    scheme, bucket, key = parse_url(url)
    client = connect(f"{scheme}://{bucket}")
    try:
        yield from _whole(interruptibly(lambda: client.get(key)))
    except Exception as error:
        if not is_of_store(error):
            raise
        raise_shortage(error)
        if is_bucket_gone(error):
            raise ManifestError(f"There is no bucket {scheme}://{bucket}.") from error
        if is_missing(error):
            raise ManifestError(f"There is no manifest at {url}. Check the address.") from error
        kind = ManifestError if is_refused(error) or is_misplaced(error) else LocalError
        message = f"{url} cannot be read: {reason(error)}. {remedy(error, scheme)}"
        raise kind(message) from error


def _whole(answer: GetResult) -> Iterator[bytes]:
    left, pieces = answer.meta["size"], answer.stream(min_chunk_size=_PIECE)
    while piece := interruptibly(lambda: next(pieces, None)):
        left -= len(piece)
        yield bytes(piece)
    if left:
        raise CutError


class OpenObject:
    """An object that is open; see `OpenPhoto`. It is of one version, so it never changes."""

    def __init__(self, client: ObjectStore, key: str) -> None:
        self._client = client
        self._key = key
        self._begin()
        self.times = FileTimes(*self._numbers)

    def _begin(self) -> None:
        self._answer = self._ask()
        self._numbers = numbers_of(self._answer.meta)
        self._pieces: BytesStream | None = None
        self._read = bytearray()
        self._far_at, self._far = 0, b""

    def _ask(self, options: GetOptions | None = None) -> GetResult:
        return interruptibly(lambda: self._client.get(self._key, options=options))

    def part(self, at: int, length: int) -> bytes:
        end = min(at + length, self.times.size)
        if at >= end:
            return b""
        if at > len(self._read) + _FAR:
            return self._far_part(at, end - at)
        self._take(end)
        return bytes(self._read[at:end])

    def _far_part(self, at: int, length: int) -> bytes:
        """Bytes that are there, without those before them."""
        start = at - self._far_at
        if not 0 <= start <= len(self._far) - length:
            answer = self._ask({"range": (at, at + max(length, _PIECE))})
            if FileTimes(*numbers_of(answer.meta)) != self.times:
                raise _replaced()
            self._far_at, self._far, start = at, interruptibly(lambda: bytes(answer.bytes())), 0
        return self._far[start : start + length]

    def content(self) -> bytes:
        """All bytes. Where they end too early, obstore asks for the rest of the same version; if
        that fails, the photo is read once more."""
        try:
            return self._all()
        except Exception as error:
            if not is_of_store(error):
                raise
        self._begin()
        if FileTimes(*self._numbers) != self.times:
            raise _replaced()
        return self._all()

    def _all(self) -> bytes:
        if self._pieces is not None or self._read:
            self._take(self.times.size + 1)
            content, self._read = bytes(self._read), bytearray()  # which is not asked for again
            return content
        content = interruptibly(lambda: bytes(self._answer.bytes()))  # at half the cost of pieces
        if len(content) != self.times.size:
            raise CutError
        return content

    def _take(self, wanted: int) -> None:
        """Take so many bytes from the connection, or all."""
        pieces = self._pieces = self._pieces or self._answer.stream(min_chunk_size=_PIECE)
        while len(self._read) < wanted:
            piece = interruptibly(lambda: next(pieces, None))
            if piece is None:
                break
            self._read += piece
        if len(self._read) < min(wanted, self.times.size):
            raise CutError


def _replaced() -> UnusableError:
    message = "The photo was replaced while it was being read."
    return UnusableError(failed(PhotoCode.CHANGED, message))
