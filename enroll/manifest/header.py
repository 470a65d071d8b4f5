"""Columns by name: the roles of a manifest's columns, and the columns of results and exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enroll.errors import ManifestError
from enroll.model import Role
from enroll.visible import as_seen, character_name, is_invisible

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
"""The columns that a results file adds to the manifest's own."""

EXPORT_COLUMNS = (
    "user_id",
    "user_data",
    "image",
    "status",
    "face_token",
    "error",
    "message",
    "attempts",
    "request_id",
    "sha256",
    "prepared",
    "enrolled_at",
    "run",
    "time_used",
)
"""The columns of an export. Every result column is among them, so both are read alike."""

FREE_TEXT = frozenset({"user_data", "face_token", "error", "message", "request_id", "prepared"})
"""Those of these columns whose text comes from outside, and so may hold a formula."""

_MAX_NAMES = 20
_MAX_NAME_CHARACTERS = 40
_MOST_IN_TITLE = 2


def is_results_header(header: Sequence[str]) -> bool:
    """Whether a file is a results file or an export: its header has every result column."""
    return {name.strip() for name in header}.issuperset(RESULT_COLUMNS)


def orphan_places(header: Sequence[str], image: str) -> tuple[int, int] | None:
    """The columns of photo and SHA-256 in an export, for `is_orphan`; None for any other file.
    `image` is the name of the photo's column."""
    names = [name.strip() for name in header]
    # An export of an older version has no `time_used`.
    if not {*names, "time_used"}.issuperset(EXPORT_COLUMNS):
        return None
    return header.index(image), names.index("sha256")


def is_orphan(cells: Sequence[str], places: tuple[int, int]) -> bool:
    """Whether an export's line is a face without a row, such as a superseded one: it has a SHA-256
    but no photo."""
    image, sha256 = places
    return len(cells) > sha256 and not cells[image].strip() and bool(cells[sha256].strip())


def own_names(header: Sequence[str]) -> tuple[str, ...]:
    """The manifest's own columns: all but the eight of a results file."""
    if not is_results_header(header):
        return tuple(header)
    return tuple(name for name in header if name.strip() not in RESULT_COLUMNS)


def result_names(own: Sequence[str]) -> dict[str, str]:
    """New names for the own columns whose names are those of result columns, by old name."""
    reserved = {name.casefold() for name in RESULT_COLUMNS}
    taken = {name.strip().casefold() for name in own} | reserved
    renamed = {}
    for name in own:
        if name.strip().casefold() in reserved:
            new = f"manifest_{name.strip()}"
            while new.casefold() in taken:
                new = f"manifest_{new}"
            taken.add(new.casefold())
            renamed[name] = new
    return renamed


def count_roles(header: Sequence[str], given: Mapping[str, str]) -> int:
    """How many roles find a column in this header; most do with the right delimiter."""
    return sum(bool(_matches(header, given.get(role, role.value))) for role in Role)


def find_roles(header: Sequence[str], given: Mapping[str, str], *, where: str) -> dict[str, str]:
    """The header name of each role; `user_data` may be missing unless `given` has it.

    `given` is `--columns`: role to header name. An exact match goes first, then one that
    ignores case, surrounding blanks and invisible characters. ManifestError says what is missing,
    duplicate or unknown; `where` begins its sentence.
    """
    for role in given:
        if role not in list(Role):
            raise ManifestError(
                f"--columns does not know {short_name(role)!r}: "
                "it takes user_id, user_data and image."
            )
    _refuse_duplicates(header, where)
    names = {role: _find(header, role, given, where) for role in Role}
    missing = [role.value for role in (Role.USER_ID, Role.IMAGE) if names[role] is None]
    if missing:
        example = ",".join(f"{role}=NAME" for role in missing)
        raise ManifestError(
            f"{where} has no column {' and no column '.join(map(repr, missing))}; it has: "
            f"{list_names(header)}. Name the right one with --columns {example}{_title(header)}."
        )
    found = {role.value: name for role, name in names.items() if name is not None}
    _refuse_shared(found, where)
    _refuse_results(header, found, where)
    return found


def short_name(name: str) -> str:
    """A column's name for an error: on one line, shortened, with invisible characters named."""
    blanks = " ".join(name.split())
    shown = "".join(f"<{character_name(one)}>" if is_invisible(one) else one for one in blanks)
    return shown if len(shown) <= _MAX_NAME_CHARACTERS else shown[: _MAX_NAME_CHARACTERS - 1] + "…"


def list_names(header: Sequence[str]) -> str:
    """The names of a header, for an error."""
    names = [short_name(name) or "(no name)" for name in header]
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _matches(header: Sequence[str], wanted: str) -> list[str]:
    if wanted in header:
        return [wanted]
    key = as_seen(wanted).casefold()
    return [name for name in header if key and as_seen(name).casefold() == key]


def _find(header: Sequence[str], role: Role, given: Mapping[str, str], where: str) -> str | None:
    wanted = given.get(role, role.value)
    matches = _matches(header, wanted)
    if len(matches) > 1:
        raise ManifestError(
            f"{where} has more than one column that can be {role.value}: {list_names(matches)}; "
            f"choose one with --columns {role.value}=NAME."
        )
    if matches:
        return matches[0]
    if role in given:
        raise ManifestError(
            f"{where} has no column {short_name(wanted)!r}, which --columns names for "
            f"{role.value}; it has: {list_names(header)}. Correct --columns{_title(header)}."
        )
    return None


def _title(header: Sequence[str]) -> str:
    """The remedy for a title above the header, which has a cell or two."""
    if sum(bool(name.strip()) for name in header) > _MOST_IN_TITLE:
        return ""
    return ", or delete this line if it is a title: the header must come first"


def _refuse_duplicates(header: Sequence[str], where: str) -> None:
    # Columns without a name are what a spreadsheet leaves to the right of a table: harmless.
    names = [name.strip() for name in header]
    for name in names:
        if name and names.count(name) > 1:
            raise ManifestError(
                f"{where} has the column {short_name(name)!r} twice; rename or remove one."
            )


def _refuse_shared(found: Mapping[str, str], where: str) -> None:
    for role, name in found.items():
        others = [other for other in found if other != role and found[other] == name]
        if others:
            raise ManifestError(
                f"{where} has the column {short_name(name)!r}, which cannot be both {role} and "
                f"{others[0]}; give each a column of its own with --columns."
            )


def _refuse_results(header: Sequence[str], found: Mapping[str, str], where: str) -> None:
    if not is_results_header(header):
        return
    for role, name in found.items():
        if name.strip() in RESULT_COLUMNS:
            raise ManifestError(
                f"{where} is a results file, so its column {name.strip()!r} holds enroll's "
                f"results and cannot be {role}; the manifest's own column is called "
                f"{'manifest_' + name.strip()!r} there."
            )
