"""Columns by name: the roles of a manifest's columns, and the columns of results and exports."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from enroll.errors import ManifestError
from enroll.manifest.template import Template, parse_template
from enroll.model import Role
from enroll.text.files import RESULT_COLUMNS
from enroll.visible import as_seen, character_name, is_invisible

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

MATCH_COLUMNS = (
    "match_sure",
    "match_image",
    "match_score",
    "match_runner_up",
    "match_runner_up_score",
    "match_reason",
)
"""The columns that `enroll match` adds to the list's own, and to that of the photo."""

FREE_TEXT = frozenset({"user_data", "face_token", "error", "message", "request_id", "prepared"})
"""Those of these columns whose text comes from outside, and so may hold a formula."""

_MAX_NAMES = 20
_MAX_NAME_CHARACTERS = 40
_MOST_IN_TITLE = 2


def is_results_header(header: Sequence[str]) -> bool:
    """Whether a file is a results file or an export: its header has every result column."""
    return {name.strip() for name in header}.issuperset(RESULT_COLUMNS)


def is_match_header(header: Sequence[str]) -> bool:
    """Whether a file holds the proposals of `enroll match`."""
    return {name.strip() for name in header}.issuperset(MATCH_COLUMNS)


@dataclass(frozen=True, slots=True)
class Orphans:
    """Lines that are no rows: the columns that are empty in them, and the one that is not.

    In an export it is a face without a row, such as a superseded one, which has a SHA-256 but no
    photo. Among proposals it is a photo without a row, of which only `match_` columns are filled.
    """

    empty: tuple[int, ...]
    filled: int

    def has(self, cells: Sequence[str]) -> bool:
        """Whether a line is one of them."""
        if len(cells) <= self.filled or not cells[self.filled].strip():
            return False
        return not any(cells[at].strip() for at in self.empty if at < len(cells))


def orphans_of(header: Sequence[str], image: str) -> Orphans | None:
    """How lines that are no rows are seen in an export, or among proposals; None for any other
    file. `image` is the name of the photo's column."""
    names = [name.strip() for name in header]
    # An export of an older version has no `time_used`.
    if {*names, "time_used"}.issuperset(EXPORT_COLUMNS):
        return Orphans((header.index(image),), names.index("sha256"))
    if is_match_header(header):
        own = (at for at, name in enumerate(names) if name not in MATCH_COLUMNS)
        return Orphans(tuple(own), names.index("match_image"))
    return None


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


def parse_columns(given: Mapping[str, str]) -> dict[str, Template]:
    """`--columns`, parsed: for each role a template over columns, or the name of a column as a
    template that refers to none. Raises ManifestError."""
    for role in given:
        if role not in list(Role):
            raise ManifestError(
                f"--columns does not know {short_name(role)!r}: it takes {', '.join(Role)}."
            )
    found = {role: parse_template(text, option=f"--columns {role}") for role, text in given.items()}
    if Role.PHOTO_BASE64 in found and (Role.IMAGE in found or found[Role.PHOTO_BASE64].names):
        raise ManifestError(
            "--columns photo_base64 takes one column, which has the photos themselves; leave out "
            "image, which is for their paths."
        )
    if Role.USER_ID in found and "" in found[Role.USER_ID].texts[1:-1]:
        raise ManifestError(
            f"--columns user_id={given[Role.USER_ID]!r} has nothing between two columns: A with 11 "
            "and A1 with 1 would be one person. Write something between them, such as -."
        )
    return found


def roles_to_find(
    header: Sequence[str], given: Mapping[str, Template], *, photo: bool
) -> Sequence[Role]:
    """The roles of a list's columns: where photos are is said by `--photo`, by the column `image`,
    or by `photo_base64`, which has the photos themselves."""
    if photo:
        return (Role.USER_ID, Role.USER_DATA)
    inside = Role.PHOTO_BASE64 in given or not (
        Role.IMAGE in given
        or columns_named(header, Role.IMAGE)
        or not columns_named(header, "photo_base64")
    )
    return (Role.USER_ID, Role.USER_DATA, Role.PHOTO_BASE64 if inside else Role.IMAGE)


def count_roles(header: Sequence[str], given: Mapping[str, Template]) -> int:
    """How many roles find their columns in this header; most do with the right delimiter."""
    return sum(
        all(columns_named(header, name) for name in _wanted(role, given.get(role))) for role in Role
    )


def _wanted(role: Role, given: Template | None) -> Sequence[str]:
    """The names of a role's columns, as they were given."""
    return (role.value,) if given is None else given.names or (given.text,)


def find_roles(
    header: Sequence[str],
    given: Mapping[str, Template],
    *,
    where: str,
    roles: Collection[Role] = tuple(Role),
    needed: Collection[Role] = (Role.USER_ID, Role.IMAGE),
) -> dict[str, str]:
    """The header name of each of these `roles`; those that are not `needed` may be missing unless
    `given` has them. Roles that `given` has as templates are left out: see `find_templates`.

    `given` is `--columns`. An exact match goes first, then one that ignores case, surrounding
    blanks and invisible characters. ManifestError says what is missing, duplicate or unknown;
    `where` begins its sentence.
    """
    _refuse_duplicates(header, where)
    roles = [role for role in roles if not (role in given and given[role].names)]
    names = {role: _find(header, role, given, where) for role in roles}
    missing = [role.value for role in needed if role in names and names[role] is None]
    if missing:
        example = ",".join(f"{role}=NAME" for role in missing)
        raise ManifestError(
            f"{where} has no column {' and no column '.join(map(repr, missing))}; it has: "
            f"{list_names(header)}. Name the right one with --columns {example}{_title(header)}."
        )
    found = {role.value: name for role, name in names.items() if name is not None}
    _refuse_shared(found, where)
    for role, name in found.items():
        _refuse_results(header, name, role, where)
    return found


def find_templates(
    header: Sequence[str], given: Mapping[str, Template], *, where: str
) -> dict[str, Template]:
    """The templates among `given`, with the names of their columns as the header has them. Raises
    ManifestError as `find_roles` does."""
    return {
        role: bound(header, template, option=f"--columns {role}", where=where)
        for role, template in given.items()
        if template.names
    }


def bound(
    header: Sequence[str],
    template: Template,
    *,
    option: str,
    where: str,
    roles: Collection[str] = (),
) -> Template:
    """A template with the names of its columns as the header has them, and of `roles` as they are.
    `option` is where it comes from. Raises ManifestError for a column that is not there, or of
    which there are several."""
    names = []
    for wanted in template.names:
        if as_seen(wanted).casefold() in roles:
            names.append(as_seen(wanted).casefold())
            continue
        matches = columns_named(header, wanted)
        if len(matches) > 1:
            raise ManifestError(
                f"{where} has more than one column that can be {{{short_name(wanted)}}} in "
                f"{option}: {list_names(matches)}; write the name exactly as it is there."
            )
        if not matches:
            raise ManifestError(
                f"{where} has no column {short_name(wanted)!r}, which {option} refers to; "
                f"{_nearest(header, wanted)}it has: {list_names(header)}. Correct {option}"
                f"{_title(header)}."
            )
        _refuse_results(header, matches[0], f"part of {option}", where)
        names.append(matches[0])
    return replace(template, names=tuple(names))


def _nearest(header: Sequence[str], wanted: str) -> str:
    seen = {as_seen(name).casefold(): name for name in header}
    near = difflib.get_close_matches(as_seen(wanted).casefold(), seen, n=1)
    return f"{short_name(seen[near[0]])!r} is the nearest; " if near else ""


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


def columns_named(header: Sequence[str], wanted: str) -> list[str]:
    """The column of this name; where there is none, those that differ from it only in case and in
    blanks and characters that are not seen."""
    if wanted in header:
        return [wanted]
    key = as_seen(wanted).casefold()
    return [name for name in header if key and as_seen(name).casefold() == key]


def _find(
    header: Sequence[str], role: Role, given: Mapping[str, Template], where: str
) -> str | None:
    (wanted,) = _wanted(role, given.get(role))
    matches = columns_named(header, wanted)
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
            f"{role.value}; {_nearest(header, wanted)}it has: {list_names(header)}. Correct "
            f"--columns{_title(header)}."
        )
    return None


def _title(header: Sequence[str]) -> str:
    """The remedy for a title above the header, which has a cell or two."""
    if sum(bool(name.strip()) for name in header) > _MOST_IN_TITLE:
        return ""
    return ", or give the line of the header with --header-row N if this line is a title"


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


def _refuse_results(header: Sequence[str], name: str, what: str, where: str) -> None:
    if is_results_header(header) and name.strip() in RESULT_COLUMNS:
        raise ManifestError(
            f"{where} is a results file, so its column {name.strip()!r} holds enroll's "
            f"results and cannot be {what}; the manifest's own column is called "
            f"{'manifest_' + name.strip()!r} there."
        )
