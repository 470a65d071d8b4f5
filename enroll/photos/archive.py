"""A ZIP archive whose members are found by name and unpacked piece by piece.

The directory is read once, in pieces, and of each member only a hash of its name and the place of
its record are kept: 16 bytes, so that an archive of a million photos takes little memory.
Everything is read with `pread` from one descriptor, on any thread.
"""

from __future__ import annotations

import os
import stat
import struct
import weakref
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from enroll.errors import LocalError, ManifestError
from enroll.photos.listing import sorted_names
from enroll.photos.similar_name import folded
from enroll.photos.zip_records import (
    RECORD_BYTES,
    DamagedError,
    Member,
    choose_encoding,
    data_place,
    find_directory,
    is_encrypted,
    is_folder,
    member_of,
    name_of,
    record_length,
)
from enroll.resources import retry_on_shortage, shortage_in
from enroll.visible import path_text

MAX_MEMBERS = 10_000_000
"""Members of an archive; each takes 16 bytes of memory."""

STORED, DEFLATED = 0, 8
"""The methods of packing that are read, by their numbers."""

_METHODS = dict(
    zip(
        (1, 6, 9, 12, 14, 93, 95, 98, 99),
        ["Shrink", "Implode", "Deflate64", "BZIP2", "LZMA", "Zstandard", "XZ", "PPMd", "AES"],
        strict=True,
    )
)
"""Names of other methods."""

_SLACK = 1 << 16
"""Bytes by which a packed member may be larger than what it holds: Deflate adds 5 in 16,383."""

_PIECE = 1 << 16
"""Bytes that are unpacked at a time."""

_BLOCK = 1 << 20
"""Bytes of the directory that are read at a time; no record has more."""

_USUAL_RECORD = 512
"""Bytes in which a record usually ends."""


class Archive:
    """A ZIP archive that is open: always the same version, whatever replaces it meanwhile."""

    def __init__(self, path: str) -> None:
        """Open the archive and read its directory. Raises ManifestError where it is not a whole
        ZIP archive, LocalError where it can no longer be reached, and ShortageError."""
        self.path = path
        self.guessed = ""
        """The encoding that was guessed for names, if any is neither marked nor UTF-8."""
        self._folded: tuple[array[int], array[int]] | None = None
        try:
            self._descriptor = retry_on_shortage(
                lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            )
            weakref.finalize(self, os.close, self._descriptor)
            self.state = state_of(os.fstat(self._descriptor))
            self._read_directory()
        except FileNotFoundError as error:
            raise ManifestError(f"There is no archive at {self.shown}. Check the path.") from error
        except PermissionError as error:
            raise ManifestError(
                f"The archive {self.shown} cannot be read by this user; check its permissions."
            ) from error
        except OSError as error:
            if (short := shortage_in(error)) is not None:
                raise short from error
            raise LocalError(
                f"The archive {self.shown} cannot be read: {error.strerror}. Mount the share "
                "again, then run the same command."
            ) from error

    @property
    def shown(self) -> str:
        """The archive's path, as it may be shown."""
        return path_text(self.path)

    @property
    def is_current(self) -> bool:
        """Whether the file is still the one that was opened, unchanged."""
        try:
            named = os.stat(self.path)  # noqa: PTH116  # for every photo
        except OSError:
            return False
        return state_of(named) == self.state == state_of(os.fstat(self._descriptor))

    def read(self, at: int, length: int) -> bytes:
        """Bytes of the file; fewer at its end. Raises OSError."""
        found = os.pread(self._descriptor, length, at)
        while 0 < len(found) < length:
            more = os.pread(self._descriptor, length - len(found), at + len(found))
            if not more:
                break
            found += more
        return found

    def unpack(self, member: Member) -> Iterator[bytes]:
        """What a member holds, in pieces of at most 64 KB. Raises DamagedError, for any other
        method than STORED and DEFLATED too, and OSError. A hostile member may hold more than its
        size says: whoever reads it has to count."""
        at = self.data_place(member)
        if member.method == STORED:
            for start in range(0, member.packed_size, _PIECE):
                piece = self.read(at + start, min(_PIECE, member.packed_size - start))
                if not piece:
                    raise DamagedError("its end is missing")
                yield piece
            return
        inflate, start, packed = zlib.decompressobj(-zlib.MAX_WBITS), 0, b""
        while not inflate.eof:
            if not packed:
                packed = self.read(at + start, min(_PIECE, member.packed_size - start))
                start += len(packed)
            try:
                piece = inflate.decompress(packed, _PIECE)
            except zlib.error as error:
                raise DamagedError("it cannot be unpacked") from error
            if not (packed or piece):
                raise DamagedError("its end is missing")
            packed = inflate.unconsumed_tail
            yield piece

    def find(self, name: str) -> list[Member]:
        """The members of this name: normally one, or none."""
        wanted = hash(name)
        place = bisect_left(self._hashes, wanted)
        found = []
        while place < len(self._hashes) and self._hashes[place] == wanted:
            member = self._member_at(self._places[place])
            if member.name == name:
                found.append(member)
            place += 1
        return found

    def has_below(self, folder: str) -> bool:
        """Whether there is a member below a folder; the empty one is the archive itself."""
        return hash(folder) in self._folders if folder else bool(self._hashes)

    def at_top(self) -> Iterator[str]:
        """The names of the members that are in no folder."""
        return (name for _, name in self._names() if "/" not in name)

    def names(self) -> Iterator[str]:
        """The names of all members, sorted; those of several members as often."""
        encoded = (name.encode("utf-8", "surrogateescape") for _, name in self._names())
        for found in sorted_names(encoded):
            yield found.decode("utf-8", "surrogateescape")

    def similar_name(self, name: str) -> str:
        """The name of a member that looks the same but for case; empty if there is none."""
        if self._folded is None:
            hashes, places = array("q"), array("q")
            for place, there in self._names():
                hashes.append(hash(folded(there)))
                places.append(place)
            self._folded = _sorted_together(hashes, places)
        hashes, places = self._folded
        wanted = folded(name)
        at = bisect_left(hashes, hash(wanted))
        if at < len(hashes) and hashes[at] == hash(wanted):
            there = self._member_at(places[at]).name
            return there if folded(there) == wanted else ""
        return ""

    def data_place(self, member: Member) -> int:
        """Where a member's packed bytes begin. Raises DamagedError for one that cannot be unpacked,
        and OSError."""
        if member.is_encrypted:
            raise DamagedError("it is encrypted with a password")
        if member.method not in (STORED, DEFLATED):
            method = _METHODS.get(member.method, f"method {member.method}")
            raise DamagedError(f"it is packed with {method} instead of Deflate")
        if member.packed_size > member.size + member.size // 1000 + _SLACK:
            raise DamagedError("it is larger than what it holds")
        return data_place(self.read, member)

    def _read_directory(self) -> None:
        info = os.fstat(self._descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise ManifestError(f"{self.shown} is not a file. Give the archive itself.")
        with self._translated():
            self._directory = find_directory(self.read, info.st_size)
        self._encoding, is_guess = choose_encoding(record for _, record in self._records())
        if is_guess:
            self.guessed = self._encoding
        self._folders = set[int]()
        hashes, places, last = array("q"), array("q"), ""
        for place, name in self._names():
            hashes.append(hash(name))
            places.append(place)
            if len(places) > MAX_MEMBERS:
                raise self._unreadable(f"it has more than {MAX_MEMBERS:,} members")
            folder = name.rpartition("/")[0]
            if folder != last:
                last = folder
                self._add_folder(folder)
        self._hashes, self._places = _sorted_together(hashes, places)
        files = (record for _, record in self._records() if not is_folder(record))
        if places and all(map(is_encrypted, files)):
            raise ManifestError(
                f"{self.shown} is encrypted with a password. Pack it without one, where only you "
                "can read it."
            )

    def _add_folder(self, folder: str) -> None:
        while folder and hash(folder) not in self._folders:
            self._folders.add(hash(folder))
            folder = folder.rpartition("/")[0]

    def _names(self) -> Iterator[tuple[int, str]]:
        """The names of all members but folders, and where their records are."""
        with self._translated():
            for place, record in self._records():
                if not is_folder(record):
                    yield place, name_of(record, self._encoding)

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """All records, and where they are."""
        at, block, block_at = self._directory.start, b"", 0
        with self._translated():
            while at < self._directory.end:
                start = at - block_at
                whole = record_length(block, start) if len(block) - start >= RECORD_BYTES else 0
                if not 0 < whole <= len(block) - start:
                    if block and not start:
                        raise DamagedError("its directory is cut off")
                    block, block_at = self.read(at, _BLOCK), at
                    continue
                yield at, block[start : start + whole]
                at += whole

    def _member_at(self, place: int) -> Member:
        with self._translated():
            record = self.read(place, _USUAL_RECORD)
            if record_length(record, 0) > len(record):
                record = self.read(place, record_length(record, 0))
            return member_of(record, self._encoding, shift=self._directory.shift)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns errors in the directory into ManifestError."""
        try:
            yield
        except DamagedError as error:
            raise self._unreadable(str(error)) from error
        except (struct.error, IndexError) as error:
            raise self._unreadable("its directory is damaged") from error

    def _unreadable(self, why: str) -> ManifestError:
        return ManifestError(
            f"{self.shown} is not a ZIP archive that can be read: {why}. Copy or pack it again."
        )


def state_of(info: os.stat_result) -> tuple[int, int, int, int]:
    """What differs if a file was replaced or written to: device, number, size, and time in
    nanoseconds."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _sorted_together(keys: array[int], values: array[int]) -> tuple[array[int], array[int]]:
    order = np.argsort(np.frombuffer(keys, np.int64), kind="stable")
    in_order = array("q"), array("q")
    for one, unsorted in zip(in_order, (keys, values), strict=True):
        one.frombytes(np.frombuffer(unsorted, np.int64)[order].tobytes())
    return in_order
