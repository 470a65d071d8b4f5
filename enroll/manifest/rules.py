"""The service's rules for the fields of a row, checked before a call is spent on it; and lists of
user ids.

Only what is documented, or can never be sent, is refused here; the service decides on the rest.
Messages name the character and its position, and never repeat a `user_id`, which is personal data.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import chain
from pathlib import Path

from enroll.errors import UsageError
from enroll.manifest.encoding import find_encoding
from enroll.manifest.records import EXCEL_HINT, Text, open_text
from enroll.manifest.source import Source
from enroll.model import Fault, Row
from enroll.text.wording import amount
from enroll.visible import as_seen, character_name

MAX_USER_ID_BYTES = 48
MAX_USER_DATA_CHARACTERS = 128
MAX_IMAGE_CHARACTERS = 4096
"""Linux's PATH_MAX. The two limits above are from the service's page on `add`."""

MAX_NAME_BYTES = 255
"""Linux's NAME_MAX; file systems of other systems have the same limit."""


class RowCode(StrEnum):
    """Why a row can never be sent. The values are stable: scripts pass them to `--retry`."""

    USER_ID_EMPTY = "USER_ID_EMPTY"
    """The row has no user_id."""
    USER_ID_TOO_LONG = "USER_ID_TOO_LONG"
    """The user_id has more than 48 bytes."""
    USER_ID_CHARACTER = "USER_ID_CHARACTER"
    """The user_id has a character that is neither letter nor digit of ASCII nor of -%@#&_."""
    USER_ID_ROUNDED = "USER_ID_ROUNDED"
    """The user_id is a number that a spreadsheet has rounded: its last digits are lost."""
    USER_DATA_TOO_LONG = "USER_DATA_TOO_LONG"
    """The user_data has more than 128 characters."""
    USER_DATA_CHARACTER = "USER_DATA_CHARACTER"
    """The user_data has a control character, or half a character that no encoding can carry."""
    PATH_NOT_MATCHED = "PATH_NOT_MATCHED"
    """The photo's path in a folder yields no user_id, or several."""
    IMAGE_EMPTY = "IMAGE_EMPTY"
    """The row names no photo."""
    IMAGE_TOO_LONG = "IMAGE_TOO_LONG"
    """The photo's path has more than 4,096 characters, so no file can have it."""
    IMAGE_CHARACTER = "IMAGE_CHARACTER"
    """The photo's path has a control character, or half a character."""


_GOOD_USER_ID = re.compile(r"[A-Za-z0-9\-%@#&_]{1,48}")
_BAD_IN_USER_ID = re.compile(r"[^A-Za-z0-9\-%@#&_]")
_ROUNDED = re.compile(r"[+-]?\d(?:[.,]\d+)?E\+\d+", re.IGNORECASE)
"""How spreadsheets show, and write into a CSV, a number that is too long for them."""
# Tabs and line breaks occur in multi-line cells, and are text; a path must not have them.
_BAD_IN_USER_DATA = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_BAD_IN_IMAGE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def check_row(row: Row) -> Fault | None:
    """The first rule that the row breaks, or None; under a microsecond for a good row."""
    return user_id_fault(row.user_id) or _user_data_fault(row.user_data) or image_fault(row.image)


def user_id_fault(user_id: str) -> Fault | None:
    """The first rule that the user_id breaks, or None."""
    if _GOOD_USER_ID.fullmatch(user_id):
        return None
    if not user_id or user_id.isspace():
        return _fault(
            RowCode.USER_ID_EMPTY,
            "The row has no user_id, or a part of it is empty; fill the cell.",
        )
    if _ROUNDED.fullmatch(user_id):
        return _fault(
            RowCode.USER_ID_ROUNDED,
            "user_id is a number that a spreadsheet has rounded to 15 digits: the last digits "
            "are lost. Enter or import the ids as text, and export the list again.",
        )
    bad = _BAD_IN_USER_ID.search(user_id)
    if bad is None:
        return _fault(
            RowCode.USER_ID_TOO_LONG,
            f"user_id has {len(user_id)} bytes, but the service takes {MAX_USER_ID_BYTES}; "
            "use a shorter id.",
        )
    if _BAD_IN_USER_ID.search(user_id.strip()) is None:
        side = "begins" if user_id[0].isspace() else "ends"
        return _fault(
            RowCode.USER_ID_CHARACTER,
            f"user_id {side} with a blank, {_place(bad)}; remove it from the manifest.",
        )
    return _fault(
        RowCode.USER_ID_CHARACTER,
        f"user_id has {_place(bad)}, but the service takes only ASCII letters, ASCII digits and "
        "-%@#&_; replace it.",
    )


def _user_data_fault(user_data: str) -> Fault | None:
    if len(user_data) > MAX_USER_DATA_CHARACTERS:
        return _fault(
            RowCode.USER_DATA_TOO_LONG,
            f"user_data has {len(user_data)} characters, but the service takes "
            f"{MAX_USER_DATA_CHARACTERS}; shorten it.",
        )
    if bad := _BAD_IN_USER_DATA.search(user_data):
        return _fault(
            RowCode.USER_DATA_CHARACTER,
            f"user_data has {_place(bad)}, which is not text; remove it.",
        )
    return None


def image_fault(image: str) -> Fault | None:
    """The first rule that a photo's path breaks, or None."""
    if not image or image.isspace():
        return _fault(
            RowCode.IMAGE_EMPTY,
            "The row names no photo: the cell for it, or one that its path is made of, is empty. "
            "Fill it.",
        )
    if len(image) > MAX_IMAGE_CHARACTERS:
        return _fault(
            RowCode.IMAGE_TOO_LONG,
            f"The photo's path has {len(image)} characters, more than a file can have; "
            "the image column takes a path, not the photo itself.",
        )
    if _may_have_long_names(image):
        longest = max(map(len, image.encode("utf-8", "surrogatepass").split(b"/")))
        if longest > MAX_NAME_BYTES:
            return _fault(
                RowCode.IMAGE_TOO_LONG,
                f"A name in the photo's path has {longest} bytes, and a file's name has at most "
                f"{MAX_NAME_BYTES}; correct the path.",
            )
    if bad := _BAD_IN_IMAGE.search(image):
        return _fault(
            RowCode.IMAGE_CHARACTER,
            f"The photo's path has {_place(bad)}; correct the path, or rename the file.",
        )
    return None


def _may_have_long_names(image: str) -> bool:
    """A cheap check first: measuring names costs as much as all other rules."""
    return len(image) > (MAX_NAME_BYTES if image.isascii() else MAX_NAME_BYTES // 4)


def _place(bad: re.Match[str]) -> str:
    return f"{character_name(bad.group())} at position {bad.start() + 1}"


def _fault(code: RowCode, message: str) -> Fault:
    return Fault(code=code.value, message=message)


_DELIMITERS = ";\t,|"
_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"\s*')


def read_user_ids(path: Path) -> list[str]:
    """The distinct ids in a file, unchanged: one per line, or the column `user_id` of a CSV or of a
    workbook's only sheet. Raises UsageError, also where rows of the sheet are hidden: people on
    this list are deleted, and nobody has seen the hidden ones."""
    if not path.exists():
        raise UsageError(
            f"There is no file {path}. Give a file with one id on a line, or a CSV "
            "with a column user_id."
        )
    source = Source.of(path, id_from=None)
    if source.hidden is not None and source.hidden.rows:
        raise UsageError(
            f"{path} has {amount(len(source.hidden.rows), 'row')} that the spreadsheet hides, by "
            "hand or by a filter. Delete them or show them, and save the file again."
        )
    with open_text(source, find_encoding(source).codec) as (_, text):
        found = list(dict.fromkeys(one for one in _ids(path, text) if one.strip()))
    if not found:
        raise UsageError(f"There is no user_id in {path}.")
    return found


def _ids(path: Path, text: Text) -> Iterator[str]:
    lines = iter(text)
    first = next(lines, "")
    if hint := EXCEL_HINT.match(first):
        return _of_table(path, lines, hint[2])
    delimiter = next((mark for mark in _DELIMITERS if mark in first), None)
    lines = chain([first], lines)
    return _of_lines(lines) if delimiter is None else _of_table(path, lines, delimiter)


def _of_lines(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        user_id = _unquoted(line.rstrip("\r\n"))
        if number or user_id.strip() != "user_id":
            yield user_id


def _unquoted(line: str) -> str:
    whole = _QUOTED.fullmatch(line)
    return line if whole is None else whole[1].replace('""', '"')


def _of_table(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[str]:
    try:
        table = csv.reader(lines, delimiter=delimiter, strict=True)
        names = [as_seen(name) for name in next(table, [])]
        if "user_id" not in names:
            raise UsageError(
                f"{path} has no column user_id. Give a file with one id on a line, or a CSV with "
                "such a column."
            )
        place = names.index("user_id")
        yield from (cells[place] for cells in table if len(cells) > place)
    except csv.Error as error:
        raise UsageError(
            f"{path} is not a valid CSV: {error}. Fix it, or write one id on a line."
        ) from error
