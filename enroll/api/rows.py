"""Rows and people in memory as files, for as long as a command runs, such as a manifest."""

from __future__ import annotations

import base64
import csv
import fcntl
import math
import numbers
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from enroll.addresses import is_url, path_of
from enroll.errors import LedgerBusyError, LocalError, UsageError
from enroll.manifest.scan import ANYWHERE
from enroll.model import is_utf8
from enroll.ownership import make_folder
from enroll.photos import LARGEST_FILE
from enroll.settings import beside
from enroll.visible import path_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Row:
    """A person to enroll: `user_id`, `user_data`, and the photo as a path or as its bytes.

    A relative path starts at the current folder, or at `images` if that is given; then no photo may
    be outside of it. Without a photo the row ends as `invalid`. The texts follow the rules of a
    manifest: `user_id` has 1 to 48 letters, digits and `-%@#&_`, and `user_data` at most 128
    characters.
    """

    user_id: str
    user_data: str = ""
    photo: str | os.PathLike[str] | bytes | None = field(default=None, repr=False)


Rows: TypeAlias = "str | os.PathLike[str] | Iterable[Row] | pd.DataFrame"
"""What can be enrolled: a manifest's path; rows, which may come from a generator; or a DataFrame
with the columns `user_id`, `image` (paths or bytes) and perhaps `user_data`."""

UserIds: TypeAlias = "str | os.PathLike[str] | Iterable[str]"
"""People: their user ids, or the path of a file with an id a line, or of a CSV with the column
`user_id`. One `str` is a path."""

BYTES = (bytes, bytearray, memoryview)


def is_path(rows: Rows) -> bool:
    """Whether it is the path of a manifest."""
    return isinstance(rows, str | os.PathLike)


@contextmanager
def manifest_of(
    rows: Rows, *, ledger: Path | None, images: Path | None
) -> Iterator[tuple[Path, Path | None]]:
    """The path of a manifest with these rows, which exists within the context, and the folder of
    its photos, None for the default.

    It is always the same one beside the `ledger`, so that tomorrow's rows are compared as quickly
    as tomorrow's export would be; without a ledger it is anywhere. Photos given as bytes are in it,
    so they are known by their content. Raises UsageError for rows that are none, LedgerBusyError if
    another run has the file, and LocalError.
    """
    if isinstance(rows, str | os.PathLike):
        yield path_of(rows), images
        return
    wanted = _rows_of(rows)
    if ledger is None:
        with tempfile.TemporaryDirectory(prefix="enroll-") as folder:
            path = Path(folder) / "rows.csv"
            with _held(path, wanted, images) as folder_of_photos:
                yield path, folder_of_photos
        return
    path = beside(ledger, ".rows.csv")
    with _held(path, wanted, images) as folder_of_photos:
        yield path, folder_of_photos


def _rows_of(rows: Any) -> Iterator[Row]:
    if hasattr(rows, "itertuples") and hasattr(rows, "columns"):
        return _of_frame(rows)
    try:
        return map(_checked, rows)
    except TypeError:
        raise UsageError(
            f"A {type(rows).__name__} is neither the path of a manifest, nor rows, nor a DataFrame."
        ) from None


def _checked(row: Any) -> Row:
    if isinstance(row, Row):
        return row
    raise UsageError(
        f"Rows have to be of the class enroll.Row, and one is of the class {type(row).__name__}."
    )


def _of_frame(frame: pd.DataFrame) -> Iterator[Row]:
    names = [str(name) for name in frame.columns]
    missing = [name for name in ("user_id", "image") if name not in names]
    if missing:
        raise UsageError(
            f"The DataFrame has no column {' and none '.join(missing)}; it has "
            f"{', '.join(names) or 'none'}. Rename its columns to user_id, user_data and image."
        )
    places = [names.index(name) for name in ("user_id", "image")]
    text = names.index("user_data") if "user_data" in names else None
    for cells in frame.itertuples(index=False, name=None):
        user_id, photo = (cells[place] for place in places)
        yield Row(user_id, "" if text is None else cells[text], photo)


def _write(file: IO[str], rows: Iterator[Row], path: Path, images: Path | None) -> bool:
    """Write the rows; returns whether their photos are inside. Raises LocalError, and UsageError
    where some photos are paths and others bytes."""
    first: list[Row] = []
    for row in rows:
        first.append(row)
        if not _is_missing(row.photo):
            break
    inside = bool(first) and isinstance(first[-1].photo, BYTES)
    folder = Path.cwd() if images is None else None
    cells = (
        (
            _photo_text(row.photo, number, inside=inside, folder=folder),
            _text(row.user_id, number),
            _text(row.user_data, number),
        )
        for number, row in enumerate(chain(first, rows), 1)
    )
    header = ("photo_base64" if inside else "image", "user_id", "user_data")
    writer = csv.writer(file)
    for line in chain([header], cells):
        try:
            if inside:  # Base64 needs no quotes, which to find out would take longest of all
                file.write(f"{line[0]},")
            writer.writerow(line[1:] if inside else line)
        except OSError as error:
            raise _not_written(path, error) from error
    try:
        file.flush()
    except OSError as error:
        raise _not_written(path, error) from error
    return inside


def _is_missing(value: Any) -> bool:
    """Whether a cell is empty, as a DataFrame has it: None, NaN or NA."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or _is_na(value)


def _is_na(value: Any) -> bool:
    return type(value).__name__ in ("NAType", "NaTType")


def _photo_text(photo: Any, number: int, *, inside: bool, folder: Path | None) -> str:
    """A photo's cell: its bytes as Base64 text, or its path, below `folder` if that is given."""
    if _is_missing(photo):
        return ""
    given = "bytes" if isinstance(photo, BYTES) else "a path"
    if given == "a path" and not isinstance(photo, str | os.PathLike):
        raise UsageError(
            f"The photo of row {number:,} is a {type(photo).__name__}. Give a path or bytes."
        )
    if inside is not (given == "bytes"):
        before = "bytes" if inside else "paths"
        raise UsageError(
            f"The photo of row {number:,} is {given}, and the ones before it are {before}. Give "
            "all of them in the same way: read the files first, with pathlib.Path.read_bytes."
        )
    if not inside:
        path = _plain(os.fspath(photo), number)
        if is_url(path) and folder is not None:
            raise UsageError(
                f"The photo of row {number:,} is in a bucket. Name the bucket with images, such as "
                "images='s3://BUCKET'."
            )
        return str(folder / path) if path and folder is not None else path
    if len(photo) > LARGEST_FILE:
        raise UsageError(
            f"The photo of row {number:,} has {len(photo):,} bytes; more than {LARGEST_FILE:,} are "
            "not read. Shrink it."
        )
    return base64.b64encode(photo).decode()


def _text(value: Any, number: int) -> str:
    if isinstance(value, str):
        return _plain(value, number)
    if _is_missing(value):
        return ""
    if isinstance(value, numbers.Integral) and type(value).__name__ not in ("bool", "bool_"):
        return str(value)
    raise UsageError(
        f"Row {number:,} has {value!r}, a {type(value).__name__}, where text belongs. Convert it "
        "first: a number has probably lost zeros, or gained a fraction."
    )


def _plain(text: Any, number: int) -> str:
    """The text, if a manifest can hold it."""
    if isinstance(text, str) and "\0" not in text and is_utf8(text):
        return text
    raise UsageError(f"A text of row {number:,} is not UTF-8, or has a NUL character. Correct it.")


def _private(path: Path) -> IO[str]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    return os.fdopen(descriptor, "w", encoding="utf-8", newline="")


@contextmanager
def _held(path: Path, rows: Iterator[Row], images: Path | None) -> Iterator[Path | None]:
    """Write the rows to a file that no other process has; it is removed in the end. What a killed
    process left is written over."""
    try:
        make_folder(path.parent)
        file = _locked(path)
    except BlockingIOError as error:
        raise LedgerBusyError(
            f"Another run enrolls rows from {path_text(path)}. Wait until it ends."
        ) from error
    except OSError as error:
        raise _not_written(path, error) from error
    with file:  # as long as it is open, it is locked
        try:
            inside = _write(file, rows, path, images)
            yield None if inside else images or ANYWHERE
        finally:
            with suppress(OSError):
                path.unlink()


def _not_written(path: Path, error: OSError) -> LocalError:
    return LocalError(
        f"The rows cannot be written to {path_text(path)}: {error.strerror}. Make room, or choose "
        "another place for the ledger."
    )


def _locked(path: Path) -> IO[str]:
    while True:
        file = _private(path)
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    file.truncate(0)
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # its owner removed it in between


# People


def listed(user_ids: Iterable[str]) -> list[str]:
    """Ids as a list; one alone, which is a text, would be taken for its letters."""
    return [user_ids] if isinstance(user_ids, str) else list(user_ids)


@contextmanager
def people_file(user_ids: UserIds | None) -> Iterator[Path | None]:
    """The file of user ids, which is there within the context if they were given themselves. Raises
    UsageError for one that is none, or no id at all."""
    if user_ids is None or isinstance(user_ids, str | os.PathLike):
        yield None if user_ids is None else Path(user_ids)
        return
    with tempfile.NamedTemporaryFile(
        "w", prefix="enroll-", suffix=".csv", newline="", encoding="utf-8"
    ) as file:
        writer = csv.writer(file)
        writer.writerow(["user_id"])
        last = None
        for last in user_ids:
            writer.writerow([_user_id(last)])
        if last is None:
            raise UsageError("user_ids is empty. Name the people.")
        file.flush()
        yield Path(file.name)


def _user_id(value: Any) -> str:
    """An id: text, or a whole number."""
    if isinstance(value, numbers.Integral) and type(value).__name__ not in ("bool", "bool_"):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value
    raise UsageError(
        f"user_ids has {value!r}, a {type(value).__name__}, where a user id belongs. Nothing was "
        "done. Correct it."
    )
