"""The records of a ZIP archive's directory, as APPNOTE.TXT of PKWARE describes them: where they
are, which names they have in which encoding, and what they say of a member."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from struct import Struct, unpack_from

Read = Callable[[int, int], bytes]
"""Reads bytes of the archive: from which place on, and how many; fewer at its end."""

RECORD_BYTES = 46
"""Bytes of a record without its name and what follows that."""

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

_MOST = 1 << 62
"""No size and no place is larger; a hostile record may have 64 bits."""


class DamagedError(Exception):
    """An archive or a member that cannot be read; its text says why, to follow a colon."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Where the records are in the file, `start` to before `end`, and how many bytes were put
    before the archive, which its places do not count."""

    start: int
    end: int
    shift: int


def find_directory(read: Read, size: int) -> Directory:
    """The directory of an archive of so many bytes. Raises DamagedError."""
    tail_at = max(size - _LONGEST_END, 0)
    tail = read(tail_at, _LONGEST_END)
    at = tail.rfind(_END_SIGNATURE)
    while at >= 0:
        found = _directory_before(read, tail_at + at, tail[at : at + _END.size])
        if found is not None:
            return found
        at = tail.rfind(_END_SIGNATURE, 0, at)
    raise DamagedError(
        "its end is missing, as when a copy was interrupted, or it is another kind of file"
    )


def _directory_before(read: Read, end: int, record: bytes) -> Directory | None:
    """The directory that a record at the end describes; None if there is none."""
    if len(record) < _END.size:
        return None
    _, disk, first_disk, _, count, length, offset, _ = _END.unpack(record)
    place = read(max(end - _END64_PLACE.size, 0), _END64_PLACE.size)
    if place[:4] == b"PK\x06\x07":
        _, _, at64, _ = _END64_PLACE.unpack(place)
        for at in (end - _END64_PLACE.size - _END64.size, min(at64, _MOST)):
            record = read(max(at, 0), _END64.size)
            if record[:4] == b"PK\x06\x06" and len(record) == _END64.size:
                *_, disk, first_disk, _, count, length, offset = _END64.unpack(record)
                end = at
                break
    if disk or first_disk:
        raise DamagedError("it is one part of several")
    start = end - length
    if start < 0 or start < offset or (count and read(start, 4) != _RECORD_SIGNATURE):
        return None
    return Directory(start=start, end=end, shift=start - offset)


def record_length(block: bytes, at: int) -> int:
    """The length of the record that begins there in a block. Raises DamagedError if none does."""
    if block[at : at + 4] != _RECORD_SIGNATURE or len(block) - at < RECORD_BYTES:
        raise DamagedError("its directory is damaged")
    name, extra, comment = unpack_from("<3H", block, at + 28)
    return RECORD_BYTES + int(name) + int(extra) + int(comment)


def raw_name(record: bytes) -> bytes:
    """A member's name as written."""
    return record[RECORD_BYTES : RECORD_BYTES + (record[28] | record[29] << 8)]


def is_folder(record: bytes) -> bool:
    """Whether a member is a folder: its name ends with a slash."""
    return raw_name(record).endswith(b"/")


def is_encrypted(record: bytes) -> bool:
    """Whether a member is encrypted."""
    return bool(record[8] & _ENCRYPTED)


def name_of(record: bytes, encoding: str) -> str:
    """A member's name, without `.` and doubled slashes; what leads out of the archive stays as it
    is. `encoding` is that of names that do not say theirs. Raises DamagedError."""
    raw = raw_name(record)
    if b"\0" in raw:
        raise DamagedError("a name in it has a NUL")
    if raw.isascii():
        return _plain(raw.decode("ascii"))
    if _is_marked(record):
        return _plain(raw.decode("utf-8", "surrogateescape"))
    better = _extras(record).get(_EXTRA_NAME, b"")  # version, CRC of the name, name in UTF-8
    if better[:5] == b"\1" + zlib.crc32(raw).to_bytes(4, "little"):
        return _plain(better[5:].decode("utf-8", "surrogateescape"))
    return _plain(raw.decode(encoding, "replace"))


def member_of(record: bytes, encoding: str, *, shift: int) -> Member:
    """What a record says. Raises DamagedError."""
    fields = _RECORD.unpack_from(record)
    system, method, crc, packed_size, size = fields[2], fields[6], *fields[9:12]
    attributes, at = fields[17:19]
    if _IS_LARGE in (size, packed_size, at):
        extra = _extras(record).get(_EXTRA_64, b"")
        large = iter(unpack_from(f"<{len(extra) // 8}Q", extra))
        size, packed_size, at = (
            min(next(large, one), _MOST) if one == _IS_LARGE else one
            for one in (size, packed_size, at)
        )
    mode = attributes >> 16 if system in (_UNIX, _MACOS) else 0
    return Member(
        name=name_of(record, encoding),
        raw=raw_name(record),
        size=size,
        packed_size=packed_size,
        crc=crc,
        method=method,
        at=at + shift,
        is_encrypted=is_encrypted(record),
        is_link=stat.S_ISLNK(mode),
    )


def data_place(read: Read, member: Member) -> int:
    """Where a member's packed bytes begin, behind its local header. Raises DamagedError."""
    head = read(member.at, _LOCAL.size + len(member.raw))
    if len(head) < _LOCAL.size or head[:4] != _LOCAL_SIGNATURE:
        raise DamagedError("its header is missing")
    *_, name_length, extra_length = _LOCAL.unpack_from(head)
    if head[_LOCAL.size :] != member.raw or name_length != len(member.raw):
        raise DamagedError("its header has another name than the directory")
    return member.at + _LOCAL.size + int(name_length) + int(extra_length)


def _extras(record: bytes) -> dict[int, bytes]:
    """The extra fields of a record by their kinds."""
    name_length, extra_length = unpack_from("<2H", record, 28)
    at = RECORD_BYTES + name_length
    end = at + extra_length
    found = {}
    while at + 4 <= end:
        kind, length = unpack_from("<2H", record, at)
        found[kind] = record[at + 4 : min(at + 4 + length, end)]
        at += 4 + length
    return found


def _plain(name: str) -> str:
    if not ("//" in name or "/." in name or name[:2] == "./") or name[:1] == "/":
        return name
    parts = name.split("/")
    return name if ".." in parts else "/".join(part for part in parts if part not in ("", "."))


# The encoding of names

_CP437_LETTERS = frozenset([*range(0x80, 0x9B), *range(0xA0, 0xA6), 0xE1])
"""What stands for a letter of a Western language in DOS, where other bytes are Greek letters and
parts of frames."""


def _is_marked(record: bytes) -> bool:
    """Whether a name is marked as UTF-8."""
    return bool(record[9] << 8 & _UTF8)


def choose_encoding(records: Iterable[bytes]) -> tuple[str, bool]:
    """The encoding of names that are not marked as UTF-8, and whether it is a guess. The format
    says DOS's cp437, but programs write what their system uses."""
    candidates, is_guess = dict(_ENCODINGS), False
    for record in records:
        name = raw_name(record)
        if not (name.isascii() or _is_marked(record)):
            is_guess = is_guess or not _is_utf8(name)
            candidates = {one: fits for one, fits in candidates.items() if fits(name)}
    return next(iter(candidates), "cp437"), is_guess


def _is_in(name: bytes, encoding: str) -> bool:
    try:
        name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _is_utf8(name: bytes) -> bool:
    return _is_in(name, "utf-8")


def _is_cp437(name: bytes) -> bool:
    return all(one < 0x80 or one in _CP437_LETTERS for one in name)


def _is_gb2312(name: bytes) -> bool:
    return _is_in(name, "gb2312")


def _is_latin(name: bytes) -> bool:
    return all(one < 0x80 or one >= 0xC0 for one in name)


_ENCODINGS: dict[str, Callable[[bytes], bool]] = {
    "utf-8": _is_utf8,
    "cp437": _is_cp437,
    "gb18030": _is_gb2312,
    "cp1252": _is_latin,
}
"""Encodings of names, and whether a name is plausible in it; the first that suits all is used."""
