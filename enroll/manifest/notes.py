"""What to tell the user about a list that was read: its encoding, what a spreadsheet hides of it,
lines that do not count, and columns that results rename."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from enroll.manifest.encoding import Encoding
from enroll.manifest.header import is_match_header, own_names, result_names, short_name
from enroll.manifest.records import Header, Structure, find_non_ascii
from enroll.manifest.source import Source
from enroll.model import Role
from enroll.text.wording import amount


def list_notes(
    source: Source,
    encoding: Encoding,
    head: Header,
    structure: Structure,
    *,
    names: tuple[str, ...],
    used: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """Sentences about a list; `names` are those of its columns, `used` the names of the columns of
    each role."""
    yield from _encoding_notes(source, encoding, head, used)
    yield from _hidden_notes(source, head, used)
    yield from _column_notes(source.path, names, structure)


def _encoding_notes(
    source: Source, found: Encoding, head: Header, used: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """The note on a guessed encoding, with a cell that shows whether it is wrong."""
    if not found.note:
        return
    roles = (Role.USER_DATA, Role.IMAGE, Role.USER_ID)
    order = [name for role in roles for name in used.get(role, ())]
    seen = find_non_ascii(source, found.codec, head, order)
    if seen is None:
        yield found.note
        return
    line, name, text = seen
    cell = f"{short_name(name)} {short_name(text)!r}" if name != text else f"column {name!r}"
    yield f"{found.note} For example {cell} in line {line}."


def _hidden_notes(source: Source, head: Header, used: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Notes on what is read although the spreadsheet hides it."""
    hidden = source.hidden
    if hidden is None:
        return
    where = f"{source.path}, sheet {hidden.title!r}"
    if rows := sum(record > head.record for record in hidden.rows):
        are, they = ("is", "it counts") if rows == 1 else ("are", "they count")
        yield (
            f"{where}: {amount(rows, 'row')} {are} hidden, by hand or by a filter; {they} like "
            "the others. Delete those that should not count."
        )
    for role, names in used.items():
        for name in names:
            if hidden.hides(head.names.index(name)):
                part = "is" if len(names) == 1 else "is part of"
                yield f"{where}: the column {name!r}, which {part} the {role}, is hidden."
    if hidden.sheet:
        yield f"{where} is hidden itself."


def _column_notes(path: Path, names: tuple[str, ...], structure: Structure) -> Iterator[str]:
    if structure.orphans and is_match_header(names):
        lines = amount(len(structure.orphans), "line")
        yield f"{path} has {lines} of photos without a row, which do not count as rows."
    elif structure.orphans:
        lines = amount(len(structure.orphans), "line")
        yield (
            f"{path} is an export: {lines} without a photo, of faces that no row points to any "
            "longer, do not count as rows."
        )
    for old, new in result_names(own_names(names)).items():
        yield f"{path} has a column {old.strip()!r} of its own: the results file calls it {new!r}."
