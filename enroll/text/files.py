"""Files that are complete or not there, and which files a command may write."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from enroll.errors import LocalError, UsageError
from enroll.ownership import how_to_write, sync_folder

_BLOCK = 1 << 20


@dataclass(slots=True)
class NewFile:
    """A file being written; `replaced` is known once the `with` has ended."""

    file: IO[bytes]
    replaced: bool = False


@contextmanager
def new_file(path: Path, *, mode: int = 0o600) -> Iterator[NewFile]:
    """A temporary file beside `path`, moved there when the body is done; readable only by its owner
    unless `mode` says otherwise.

    It is synced to disk before it is moved. If its bytes are those of the old file and that belongs
    to this user, the old one stays, with its times. On any error the old file is untouched and the
    temporary one is deleted. OSErrors of the body count as errors in writing: LocalError. Raises
    UsageError if `path` is not a regular file.
    """
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} {_not_a_file(path)}; give another name.")
        descriptor, temporary = _make_temporary(path)
        with os.fdopen(descriptor, "wb", buffering=_BLOCK) as file:
            new = NewFile(file)
            yield new
            file.flush()
            os.fchmod(file.fileno(), mode)
            if not (_is_ours(path) and _same_bytes(temporary, path)):
                os.fsync(file.fileno())
                new.replaced = True
        if new.replaced:
            temporary.replace(path)
            temporary = None
            sync_folder(path.parent)
    except OSError as exc:
        raise LocalError(
            f"{path} cannot be written: {exc.strerror or exc}; what was there before is "
            f"unchanged. {how_to_write(exc, 'Make its folder or fix the permissions')}, or give "
            "another place for it."
        ) from exc
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def _make_temporary(path: Path) -> tuple[int, Path]:
    """The descriptor and path of a new file beside `path`."""
    descriptor, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp"
    )
    return descriptor, Path(name)


def _not_a_file(path: Path) -> str:
    kind = "a folder" if path.is_dir() else "a device or pipe"
    return f"is {kind}, not a file to write to"


def _is_ours(path: Path) -> bool:
    """Whether it is a regular file that belongs to this user: anything else is replaced."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _same_bytes(new: Path, old: Path) -> bool:
    try:
        if new.stat().st_size != old.stat().st_size:
            return False
        with new.open("rb") as left, old.open("rb") as right:
            while block := left.read(_BLOCK):
                if block != right.read(_BLOCK):
                    return False
    except (FileNotFoundError, PermissionError):
        return False  # no old file, or one that we may replace but not read
    return True


COMPANIONS = ("-wal", "-shm", "-journal", ".lock", ".new", ".saved", ".before-upgrade")
"""Suffixes of the files beside a ledger: SQLite's and enroll's."""

_DATABASES = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""https://www.sqlite.org/fileformat.html: a database, and its write-ahead log in both orders."""

_PICTURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  ",
)

_HEAD_BYTES = 16
"""Enough to recognise a database or a picture."""

TABLES = {".csv": "", ".xlsx": "xlsxwriter", ".jsonl": "", ".parquet": "pyarrow"}
"""The suffixes of tables, and the package that writes each, if it is of an extra."""

_EXTRAS = {".xlsx": "excel", ".parquet": "parquet"}

RESULT_COLUMNS = (
    "status",
    "face_token",
    "error",
    "message",
    "attempts",
    "request_id",
    "sha256",
    "enrolled_at",
)
"""The columns that a results file adds to the manifest's own, at the end."""

_RESULTS = re.compile((r"(\W)" + r"\1".join(RESULT_COLUMNS) + r"\r?\n").encode())
"""What the header of results ends with, in a CSV with any delimiter."""

_HEADER_BYTES = 1 << 16

_OTHER_KINDS = frozenset(
    {".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers", ".pdf", ".docx", ".gz", ".zip"}
)
"""Suffixes that the name of a file other than a table must not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file to be written, and the option or argument that named it: `--results`, `OUTPUT`.

    A log is written as it comes, also into a pipe or to a terminal; every other file replaces the
    old one once it is complete. `content` says what is written, whatever the file is called; empty
    for a table, whose format follows from its name.
    """

    path: Path
    option: str
    content: str = ""
    is_log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InUse:
    """What a command reads and keeps: its ledger, if any, manifests, the results of earlier runs,
    and other files by what they are."""

    ledger: Path | None
    manifests: Sequence[Path] = ()
    results: Sequence[Path] = ()
    files: Mapping[str, Path] = field(default_factory=dict)


def check_output(output: Output, in_use: InUse) -> None:
    """Raise UsageError for a file that must not be written; nothing is written or created.

    Files in use are recognised by name and by `stat`, and never opened: closing a descriptor of a
    ledger would drop the locks that SQLite holds on it.
    """
    if output.content:
        _refuse_suffix(output)
    found = _look(output)
    if in_use.ledger is not None:
        _refuse_ledger(output, in_use.ledger)
    manifests = [("the manifest", path) for path in in_use.manifests]
    for what, path in [*manifests, *in_use.files.items()]:
        if same_file(output.path, path):
            raise UsageError(f"{_named(output)} would overwrite {what} {path}; {_remedy(output)}")
    if found is not None and stat.S_ISREG(found.st_mode):
        _refuse_content(output)
        _refuse_results(output, in_use.results)
    elif found is not None and (not output.is_log or stat.S_ISDIR(found.st_mode)):
        raise UsageError(f"{_named(output)} {_not_a_file(output.path)}; {_remedy(output)}")
    if not output.content:
        table_suffix(output.path, option=output.option)


def check_new_file(output: Output, in_use: InUse) -> None:
    """The same, and raise UsageError unless a new file can be created where `output` is to be. A
    log needs none: it is appended to."""
    check_output(output, in_use)
    if not output.is_log:
        _try_folder(output)


def same_file(one: Path, other: Path) -> bool:
    """Whether two names mean one file, also through links, and even if it does not exist yet."""
    try:
        return one.samefile(other)  # also on a case-insensitive file system
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _try_folder(output: Output) -> None:
    try:
        descriptor, temporary = _make_temporary(output.path)
        os.close(descriptor)
        temporary.unlink()
    except OSError as error:
        remedy = how_to_write(error, f"Make the folder {output.path.parent} or fix its permissions")
        raise UsageError(
            f"{_named(output)} cannot be written: {error.strerror or error}. {remedy}, or "
            f"{_remedy(output)}"
        ) from error


def table_suffix(path: Path, *, option: str = "") -> str:
    """The suffix of a table's name, in lower case. Raises UsageError for any other name, and if the
    package is missing that writes it."""
    suffix, named = path.suffix.lower(), f"{option} {path}".lstrip()
    if suffix not in TABLES:
        raise UsageError(
            f"{named} must end in .csv, .xlsx, .jsonl or .parquet: the format follows from the "
            "name."
        )
    if TABLES[suffix] and not find_spec(TABLES[suffix]):
        raise UsageError(
            f"{named} needs the package {TABLES[suffix]}: run `pip install "
            f"'enroll[{_EXTRAS[suffix]}]'`, or give a name that ends in .csv or .jsonl."
        )
    return suffix


def _refuse_suffix(output: Output) -> None:
    suffix = output.path.suffix.lower()
    if suffix in _OTHER_KINDS and suffix not in output.content:
        raise UsageError(
            f"{_named(output)} ends in {suffix}, but its content is {output.content}. Choose a "
            "name that fits."
        )


def _look(output: Output) -> os.stat_result | None:
    try:
        return output.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None  # what there is to say of the folder is said when it is tried
    except OSError as error:
        raise UsageError(
            f"{_named(output)} cannot be written: {error.strerror or error}; {_remedy(output)}"
        ) from error


def _refuse_ledger(output: Output, ledger: Path) -> None:
    if same_file(output.path, ledger):
        raise UsageError(f"{_named(output)} would overwrite the ledger; {_remedy(output)}")
    for place in {ledger, Path(os.path.realpath(ledger))}:
        for companion in COMPANIONS:
            if same_file(output.path, place.with_name(place.name + companion)):
                raise UsageError(
                    f"{_named(output)} belongs to the ledger {ledger} and must not be "
                    f"overwritten; {_remedy(output)}"
                )


def _refuse_content(output: Output) -> None:
    head = _head(output.path)
    if head.startswith(_DATABASES) or _is_beside_a_database(output.path):
        raise UsageError(
            f"{_named(output)} would overwrite a database, perhaps another ledger; "
            f"{_remedy(output)}"
        )
    if _is_picture(head):
        raise UsageError(f"{_named(output)} would overwrite a picture; {_remedy(output)}")


def _refuse_results(output: Output, known: Sequence[Path]) -> None:
    """Raise UsageError for the results of any run, unless a run is to write its own there."""
    if output.option == "--results":
        return
    is_known = any(same_file(output.path, path) for path in known)
    if is_known or _RESULTS.search(_head(output.path, _HEADER_BYTES)):
        raise UsageError(
            f"{_named(output)} would overwrite the results of a run; {_remedy(output)}"
        )


def _is_beside_a_database(path: Path) -> bool:
    return any(
        path.name.endswith(companion)
        and path.name != companion
        and _head(path.with_name(path.name.removesuffix(companion))).startswith(_DATABASES)
        for companion in COMPANIONS
    )


def _is_picture(head: bytes) -> bool:
    bitmap = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"  # a text may begin with BM, too
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    heif = head[:3] == b"\0\0\0" and head[4:8] == b"ftyp"
    return head.startswith(_PICTURES) or bitmap or webp or heif


def _head(path: Path, size: int = _HEAD_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""  # not there, or not to be read: then nobody knows what it holds


def _named(output: Output) -> str:
    return f"{output.option} {output.path}"


def _remedy(output: Output) -> str:
    none = ", or `--results none`" if output.option == "--results" else ""
    return f"give another name{none}."
