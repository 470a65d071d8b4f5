"""What the names in a header mean: the manifest's roles, and the columns that we write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enroll.errors import ManifestError
from enroll.model import Role
from enroll.visible import as_seen, character_name, is_unseen

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
"""What a results file has after the manifest's own columns."""

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
"""What an export has. It holds every result column, so an export is read like a results file."""

FREE_TEXT = frozenset({"user_data", "face_token", "error", "message", "request_id", "prepared"})
"""Which of these columns hold text that is not ours, and so may hold what a spreadsheet runs."""

_MOST_NAMES = 20
_LONGEST_NAME = 40


def is_results_header(header: Sequence[str]) -> bool:
    """Whether we wrote this file: its header has every result column."""
    return {name.strip() for name in header}.issuperset(RESULT_COLUMNS)


def orphan_places(header: Sequence[str], image: str) -> tuple[int, int] | None:
    """Where an export's lines have photo and SHA-256, by which `is_orphan` goes; `image` is the
    name of the photo's column. None for any other file."""
    names = [name.strip() for name in header]
    # An export of an older version has no `time_used`.
    if not {*names, "time_used"}.issuperset(EXPORT_COLUMNS):
        return None
    return header.index(image), names.index("sha256")


def is_orphan(cells: Sequence[str], places: tuple[int, int]) -> bool:
    """Whether an export's line is of a face that no row points to any more, such as a superseded
    one. It has no photo to name; a row without a photo has no SHA-256."""
    image, sha256 = places
    return len(cells) > sha256 and not cells[image].strip() and bool(cells[sha256].strip())


def own_names(header: Sequence[str]) -> tuple[str, ...]:
    """The columns that are the manifest's own: all, but for a results file's eight."""
    if not is_results_header(header):
        return tuple(header)
    return tuple(name for name in header if name.strip() not in RESULT_COLUMNS)


def result_names(own: Sequence[str]) -> dict[str, str]:
    """Old name to new one for the own columns that are called like one of a results file's."""
    ours = {name.casefold() for name in RESULT_COLUMNS}
    taken = {name.strip().casefold() for name in own} | ours
    renamed = {}
    for name in own:
        if name.strip().casefold() in ours:
            new = f"manifest_{name.strip()}"
            while new.casefold() in taken:
                new = f"manifest_{new}"
            taken.add(new.casefold())
            renamed[name] = new
    return renamed


def count_roles(header: Sequence[str], asked: Mapping[str, str]) -> int:
    """How many roles this header can fill; tells the right delimiter from the wrong ones."""
    return sum(bool(_matches(header, asked.get(role, role.value))) for role in Role)


def find_roles(header: Sequence[str], asked: Mapping[str, str], *, where: str) -> dict[str, str]:
    """The header name of each role; `user_data` may be missing unless it was asked for.

    `asked` is `--columns`: role to header name. A name is looked for as it is, then without
    regard to case, surrounding blanks and what has no width. ManifestError says what is missing,
    double or unknown; `where` begins its sentence.
    """
    for role in asked:
        if role not in list(Role):
            raise ManifestError(
                f"--columns does not know {short_name(role)!r}: "
                "it takes user_id, user_data and image."
            )
    _refuse_doubles(header, where)
    names = {role: _find(header, role, asked, where) for role in Role}
    missing = [role.value for role in (Role.USER_ID, Role.IMAGE) if names[role] is None]
    if missing:
        example = ",".join(f"{role}=NAME" for role in missing)
        raise ManifestError(
            f"{where} has no column {' and no column '.join(map(repr, missing))}; it has: "
            f"{list_names(header)}; name the right one with --columns {example}."
        )
    found = {role.value: name for role, name in names.items() if name is not None}
    _refuse_shared(found, where)
    _refuse_results(header, found, where)
    return found


def short_name(name: str) -> str:
    """A column's name as an error may show it: one line, not endless, nothing unseen."""
    blanks = " ".join(name.split())
    shown = "".join(f"<{character_name(one)}>" if is_unseen(one) else one for one in blanks)
    return shown if len(shown) <= _LONGEST_NAME else shown[: _LONGEST_NAME - 1] + "…"


def list_names(header: Sequence[str]) -> str:
    """The names found, for an error's sentence."""
    names = [short_name(name) or "(no name)" for name in header]
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _matches(header: Sequence[str], wanted: str) -> list[str]:
    if wanted in header:
        return [wanted]
    key = as_seen(wanted).casefold()
    return [name for name in header if key and as_seen(name).casefold() == key]


def _find(header: Sequence[str], role: Role, asked: Mapping[str, str], where: str) -> str | None:
    wanted = asked.get(role, role.value)
    matches = _matches(header, wanted)
    if len(matches) > 1:
        raise ManifestError(
            f"{where} has more than one column that can be {role.value}: {list_names(matches)}; "
            f"choose one with --columns {role.value}=NAME."
        )
    if matches:
        return matches[0]
    if role in asked:
        raise ManifestError(
            f"{where} has no column {short_name(wanted)!r}, which --columns names for "
            f"{role.value}; it has: {list_names(header)}."
        )
    return None


def _refuse_doubles(header: Sequence[str], where: str) -> None:
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
