"""A ZIP archive's directory: which members there are, found by name without unpacking anything.

APPNOTE.TXT of PKWARE describes the format. The directory is read once, in pieces, and of each
member only a hash of its name and the place of its record are kept: 16 bytes, so that an archive of
a million photos takes little memory. Everything is read with `pread` from one descriptor, on any
thread.
"""

from __future__ import annotations

import os
import stat
import struct
import weakref
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct, unpack_from

import numpy as np

from enroll.errors import LocalError, ManifestError
from enroll.photos.listing import sorted_names
from enroll.photos.similar_name import folded
from enroll.resources import retry_on_shortage, shortage_in
from enroll.visible import path_text

MAX_MEMBERS = 10_000_000
"""Members of an archive; each takes 16 bytes of memory."""

STORED, DEFLATED = 0, 8
"""The methods of packing that are read, by their numbers."""

_SLACK = 1 << 16
"""Bytes by which a packed member may be larger than what it holds: Deflate adds 5 in 16,383."""

_PIECE = 1 << 16
"""Bytes that are unpacked at a time."""

_METHODS = dict(
    zip(
        (1, 6, 9, 12, 14, 93, 95, 98, 99),
        ["Shrink", "Implode", "Deflate64", "BZIP2", "LZMA", "Zstandard", "XZ", "PPMd", "AES"],
        strict=True,
    )
)
"""Names of other methods."""

_END = Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_LONGEST_END = _END.size + 0xFFFF
"""Bytes within which the record at the end begins: a comment may follow it, or what was appended
to the archive."""

_END64_PLACE = Struct("<4sLQL")
_END64 = Struct("<4sQ2H2L4Q")
_RECORD = Struct("<4s4B4HL2L5H2L")
_RECORD_SIGNATURE = b"PK\x01\x02"
_LOCAL = Struct("<4s2B4HL2L2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"

_ENCRYPTED, _UTF8 = 0x1, 0x800
_EXTRA_64, _EXTRA_NAME = 0x0001, 0x7075
_IS_LARGE = 0xFFFFFFFF
_UNIX, _MACOS = 3, 19

_BLOCK = 1 << 20

_CP437_LETTERS = frozenset([*range(0x80, 0x9B), *range(0xA0, 0xA6), 0xE1])
"""What stands for a letter of a Western language in DOS, where other bytes are Greek letters and
parts of frames."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member, as its record in the directory describes it.

    `name` is relative to the archive, without `.` and doubled slashes; `raw` is as written. `size`
    and `packed_size` are bytes, `at` is where its local header is in the file.
    """

    name: str
    raw: bytes
    size: int
    packed_size: int
    crc: int
    method: int
    at: int
    is_encrypted: bool
    is_link: bool


class DamagedError(Exception):
    """A member that cannot be unpacked; its text says why, to follow "the photo is damaged"."""


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
        except (struct.error, IndexError) as error:
            raise self._damaged("its directory is damaged") from error

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
                yield self.read(at + start, min(_PIECE, member.packed_size - start))
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
        head = self.read(member.at, _LOCAL.size + len(member.raw))
        if len(head) < _LOCAL.size or head[:4] != _LOCAL_SIGNATURE:
            raise DamagedError("its header is missing")
        *_, name_length, extra_length = _LOCAL.unpack_from(head)
        if head[_LOCAL.size :] != member.raw or name_length != len(member.raw):
            raise DamagedError("its header has another name than the directory")
        return member.at + _LOCAL.size + int(name_length) + int(extra_length)

    def _read_directory(self) -> None:
        info = os.fstat(self._descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise ManifestError(f"{self.shown} is not a file. Give the archive itself.")
        start, length = self._find_directory(info.st_size)
        self._start, self._end = start, start + length
        self._decode = self._choose_encoding()
        hashes, places = array("q"), array("q")
        self._folders = set[int]()
        last, self._readable = "", False
        for place, name in self._names():
            hashes.append(hash(name))
            places.append(place)
            if len(places) > MAX_MEMBERS:
                raise self._damaged(f"it has more than {MAX_MEMBERS:,} members")
            folder = name.rpartition("/")[0]
            if folder != last:
                last = folder
                while folder:
                    self._folders.add(hash(folder))
                    folder = folder.rpartition("/")[0]
        self._hashes, self._places = _sorted_together(hashes, places)
        if places and not self._readable:
            raise ManifestError(
                f"{self.shown} is encrypted with a password. Pack it without one, where only you "
                "can read it."
            )

    def _find_directory(self, size: int) -> tuple[int, int]:
        """Where the directory begins in the file, and its length."""
        tail_at = max(size - _LONGEST_END, 0)
        tail = self.read(tail_at, _LONGEST_END)
        at = tail.rfind(_END_SIGNATURE)
        while at >= 0:
            found = self._directory_before(tail_at + at, tail[at : at + _END.size])
            if found is not None:
                return found
            at = tail.rfind(_END_SIGNATURE, 0, at)
        raise self._damaged(
            "its end is missing, as when a copy was interrupted, or it is another kind of file"
        )

    def _directory_before(self, end: int, record: bytes) -> tuple[int, int] | None:
        """The directory that a record at the end describes; None if there is none."""
        if len(record) < _END.size:
            return None
        _, disk, first_disk, _, count, length, offset, _ = _END.unpack(record)
        place = self.read(max(end - _END64_PLACE.size, 0), _END64_PLACE.size)
        if place[:4] == b"PK\x06\x07":
            _, _, at64, _ = _END64_PLACE.unpack(place)
            for at in (end - _END64_PLACE.size - _END64.size, at64):
                record = self.read(max(at, 0), _END64.size)
                if record[:4] == b"PK\x06\x06" and len(record) == _END64.size:
                    *_, disk, first_disk, _, count, length, offset = _END64.unpack(record)
                    end = at
                    break
        if disk or first_disk:
            raise self._damaged("it is one part of several")
        start = end - length
        if start < 0 or start < offset:
            return None
        self._shift = start - offset  # bytes that were put before the archive
        if count and self.read(start, 4) != _RECORD_SIGNATURE:
            return None
        return start, length

    def _choose_encoding(self) -> Callable[[bytes], str]:
        """How names without a mark are decoded. The format says DOS's cp437, but programs write
        what their system uses."""
        candidates, is_guessed = dict(_ENCODINGS), False
        for _, record in self._records():
            name, is_marked = _name_in(record), record[9] << 8 & _UTF8
            if not (is_marked or name.isascii()):
                is_guessed = is_guessed or not _is_utf8(name)
                candidates = {one: fits for one, fits in candidates.items() if fits(name)}
        encoding = next(iter(candidates), "cp437")
        if is_guessed:
            self.guessed = encoding
        return lambda raw: raw.decode(encoding, "replace")

    def _names(self) -> Iterator[tuple[int, str]]:
        """The names of all members but folders, and where their records are."""
        for place, record in self._records():
            if not _name_in(record).endswith(b"/"):
                self._readable = self._readable or not record[8] & _ENCRYPTED
                yield place, self._name(record)

    def _records(self) -> Iterator[tuple[int, bytes]]:
        at, block, block_at = self._start, b"", self._start
        while at < self._end:
            length = _RECORD.size
            while True:
                start = at - block_at
                if len(block) - start >= length:
                    whole = _record_length(block, start)
                    if whole is None:
                        raise self._damaged("its directory is damaged")
                    if len(block) - start >= whole:
                        break
                    length = whole
                block = self.read(at, max(_BLOCK, length))
                if len(block) < length:
                    raise self._damaged("its directory is cut off")
                block_at = at
            yield at, block[start : start + whole]
            at += whole

    def _member_at(self, place: int) -> Member:
        record = self.read(place, 512)
        whole = _record_length(record, 0)
        if whole is None:
            raise self._damaged("it was changed while it was being read")
        return self._member(record if len(record) >= whole else self.read(place, whole))

    def _member(self, record: bytes) -> Member:
        fields = _RECORD.unpack_from(record)
        system, flags, method, crc = fields[2], fields[5], fields[6], fields[9]
        packed_size, size = fields[10:12]
        attributes, at = fields[17:19]
        if _IS_LARGE in (size, packed_size, at):
            extra = _extras(record).get(_EXTRA_64, b"")
            large = iter(unpack_from(f"<{len(extra) // 8}Q", extra))
            size, packed_size, at = (
                next(large, one) if one == _IS_LARGE else one for one in (size, packed_size, at)
            )
        mode = attributes >> 16 if system in (_UNIX, _MACOS) else 0
        return Member(
            name=self._name(record),
            raw=_name_in(record),
            size=size,
            packed_size=packed_size,
            crc=crc,
            method=method,
            at=at + self._shift,
            is_encrypted=bool(flags & _ENCRYPTED),
            is_link=stat.S_ISLNK(mode),
        )

    def _name(self, record: bytes) -> str:
        raw = _name_in(record)
        if b"\0" in raw:
            raise self._damaged("a name in it has a NUL")
        if raw.isascii():
            return _plain(raw.decode("ascii"))
        if record[9] << 8 & _UTF8:
            return _plain(raw.decode("utf-8", "surrogateescape"))
        better = _extras(record).get(_EXTRA_NAME, b"")  # version, CRC of the name, name in UTF-8
        if better[:5] == b"\1" + zlib.crc32(raw).to_bytes(4, "little"):
            return _plain(better[5:].decode("utf-8", "surrogateescape"))
        return _plain(self._decode(raw))

    def _damaged(self, why: str) -> ManifestError:
        return ManifestError(
            f"{self.shown} is not a ZIP archive that can be read: {why}. Copy or pack it again."
        )


def state_of(info: os.stat_result) -> tuple[int, int, int, int]:
    """What differs if a file was replaced or written to: device, number, size, and time in
    nanoseconds."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _record_length(block: bytes, at: int) -> int | None:
    """The length of the record that begins there; None if none does."""
    if block[at : at + 4] != _RECORD_SIGNATURE or len(block) - at < _RECORD.size:
        return None
    name, extra, comment = unpack_from("<3H", block, at + 28)
    return _RECORD.size + int(name) + int(extra) + int(comment)


def _name_in(record: bytes) -> bytes:
    return record[_RECORD.size : _RECORD.size + (record[28] | record[29] << 8)]


def _extras(record: bytes) -> dict[int, bytes]:
    """The extra fields of a record by their kinds."""
    name_length, extra_length = unpack_from("<2H", record, 28)
    at = _RECORD.size + name_length
    end = at + extra_length
    found = {}
    while at + 4 <= end:
        kind, length = unpack_from("<2H", record, at)
        found[kind] = record[at + 4 : min(at + 4 + length, end)]
        at += 4 + length
    return found


def _plain(name: str) -> str:
    """A name without `.` and doubled slashes; what leads out of the archive stays as it is."""
    if not ("//" in name or "/." in name or name[:2] == "./") or name[:1] == "/":
        return name
    parts = name.split("/")
    return name if ".." in parts else "/".join(part for part in parts if part not in ("", "."))


def _sorted_together(keys: array[int], values: array[int]) -> tuple[array[int], array[int]]:
    order = np.argsort(np.frombuffer(keys, np.int64), kind="stable")
    in_order = array("q"), array("q")
    for one, unsorted in zip(in_order, (keys, values), strict=True):
        one.frombytes(np.frombuffer(unsorted, np.int64)[order].tobytes())
    return in_order


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_cp437(name: bytes) -> bool:
    return all(one < 0x80 or one in _CP437_LETTERS for one in name)


def _is_gb2312(name: bytes) -> bool:
    try:
        name.decode("gb2312")
    except UnicodeDecodeError:
        return False
    return True


def _is_latin(name: bytes) -> bool:
    return all(one < 0x80 or one >= 0xC0 for one in name)


_ENCODINGS: dict[str, Callable[[bytes], bool]] = {
    "utf-8": _is_utf8,
    "cp437": _is_cp437,
    "gb18030": _is_gb2312,
    "cp1252": _is_latin,
}
"""Encodings of names, and whether a name is plausible in it; the first that suits all is used."""
