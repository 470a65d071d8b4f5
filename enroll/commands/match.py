"""`enroll match`: proposes a photo for each row of a list, by names and numbers, without a call."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from enroll.addresses import ObjectPath, resolved
from enroll.commands.match_columns import (
    USER_DATA,
    USER_ID,
    Compared,
    choose_columns,
    people_of,
    photo_of,
)
from enroll.commands.match_judge import Doubt, Outcome, propose
from enroll.errors import ManifestError, UsageError
from enroll.manifest.header import MATCH_COLUMNS
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.manifest.records import DELIMITERS
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.manifest.source import Source
from enroll.model import Role
from enroll.photos import PhotoStore, is_photo, is_zip, open_store
from enroll.text.files import InUse, Output, check_new_file
from enroll.text.tables import Cell, CsvForm, Rule, free_text, new_table
from enroll.visible import path_text


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchSettings:
    """What `enroll match` is given. `compare` are the columns to be compared, if they are not to be
    chosen; `in_use` are files that must not be overwritten, by what they are."""

    list_file: Path
    folder: Path
    output: Path
    compare: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    sheet: str | None = None
    header_row: int | None = None
    delimiter: str | None = None
    workers: int = 1
    in_use: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """What came of it, in rows: `given` are those whose photo the list itself names. `left` counts
    the photos that no row is proposed, `others` files that are no photos. `image` is the name of
    the photo's column."""

    notes: Sequence[str]
    compared: Sequence[str]
    rows: int
    photos: int
    others: int
    sure: int
    unsure: int
    none: int
    given: int
    left: int
    image: str


@dataclass(frozen=True, slots=True)
class _Row:
    """A row's cells by column, with `user_id` and `user_data` by their roles, and the place of the
    photo that it names itself: -1 if that is not there, None if it names none."""

    cells: Mapping[str, str]
    photo: int | None


def match_photos(
    settings: MatchSettings, *, progress: Callable[[int], None] = lambda _: None
) -> Matched:
    """Propose a photo below `folder` for each row of the list, and write the proposals to `output`.

    `progress` gets the number of photos compared so far. Raises UsageError for a list or a folder
    that cannot be used, and for an output that is there already, which a person may have edited;
    LocalError if it cannot be written.
    """
    _check(settings)
    manifest = _open_list(settings)
    store = open_store(resolved(settings.folder))
    store.check()
    paths, unusable, others = _photos(store)
    if not paths and not unusable:
        raise UsageError(f"There is no photo in {path_text(settings.folder)}. Check the folder.")
    own = [name for name in manifest.own_columns if name.strip() not in MATCH_COLUMNS]
    roles = {str(role): name for role, name in manifest.columns.items() if role != Role.IMAGE}
    header = [name for name in own if name != manifest.columns.get(Role.IMAGE)]
    has_user_data = Role.USER_DATA in {**manifest.columns, **manifest.templates}
    compared = choose_columns(header, roles, settings.compare, has_user_data=has_user_data)
    places = {normalize("NFC", path): place for place, path in enumerate(paths)}
    rows = list(_rows(manifest, compared, places))
    given = [row.photo for row in rows]
    outcome = propose(
        people_of([row.cells for row in rows], given, compared),
        [photo_of(path) for path in paths],
        columns=compared.ids,
        workers=settings.workers,
        progress=progress,
    )
    sheet = _Sheet(manifest, own, paths, rows, outcome)
    sheet.write(settings.output, unusable)
    return Matched(
        notes=manifest.notes,
        compared=[roles.get(name, name) for name in compared.shown],
        rows=len(rows),
        photos=len(paths) + len(unusable),
        others=others,
        given=sum(one is not None for one in given),
        left=len(outcome.left) + len(unusable),
        image=sheet.image,
        **sheet.counts,
    )


def _check(settings: MatchSettings) -> None:
    output = Output(path=settings.output, option="--output")
    in_use = InUse(ledger=None, manifests=[settings.list_file], files=settings.in_use)
    check_new_file(output, in_use)
    if os.path.lexists(settings.output):
        raise UsageError(
            f"--output {settings.output} is there already, and somebody may have reviewed it. Give "
            "another name, or delete it."
        )
    folder = settings.folder
    if not (isinstance(folder, ObjectPath) or folder.is_dir() or is_zip(folder)):
        raise UsageError(
            f"{path_text(settings.folder)} is no folder and no ZIP archive. Give the one with the "
            "photos."
        )


def _open_list(settings: MatchSettings) -> Manifest:
    manifest = open_manifest(
        settings.list_file,
        columns=settings.columns,
        encoding=settings.encoding,
        header_row=settings.header_row,
        delimiter=settings.delimiter,
        source=Source.of(settings.list_file, settings.sheet, id_from=None),
        needs_image=False,
    )
    if Role.IMAGE in manifest.templates:
        raise ManifestError(
            "--columns image= has a template, so the list says itself where the photos are, and "
            "`enroll plan` finds them. Leave it out here."
        )
    return manifest


def _photos(store: PhotoStore) -> tuple[list[str], dict[str, str], int]:
    """The paths of the photos, why others of them cannot be named in a list, and how many files
    are no photos."""
    paths: list[str] = []
    unusable: dict[str, str] = {}
    others = 0
    for path in store.files():
        if not is_photo(path):
            others += 1
        elif (fault := image_fault(path)) is not None:
            unusable[path_text(path)] = fault.message
        else:
            paths.append(path)
    return paths, unusable, others


def _rows(manifest: Manifest, compared: Compared, places: Mapping[str, int]) -> Iterator[_Row]:
    """The rows; `places` are those of the photos by their paths."""
    wanted = {*compared.others, *compared.shown} - {USER_ID, USER_DATA}
    for chunk in manifest.chunks():
        columns = {name: chunk[name].tolist() for name in wanted}
        for at, row in enumerate(manifest.rows_of(chunk)):
            cells = {name: column[at] for name, column in columns.items()}
            cells |= {USER_ID: row.user_id, USER_DATA: row.user_data}
            named = row.image.strip()
            yield _Row(cells, places.get(normalize("NFC", row.image), -1) if named else None)


class _Sheet:
    """Writes the list with its proposals; then the photos that no row is proposed."""

    def __init__(
        self,
        manifest: Manifest,
        own: Sequence[str],
        paths: Sequence[str],
        rows: Sequence[_Row],
        outcome: Outcome,
    ) -> None:
        self._manifest = manifest
        self._own = own
        self._paths = paths
        self._rows = rows
        self._outcome = outcome
        self.image = manifest.columns.get(Role.IMAGE, str(Role.IMAGE))
        self._names = [*own, *([] if self.image in own else [self.image]), *MATCH_COLUMNS]
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """How many rows have a sure proposal, one that is not, and none; known once written."""
        return {name: self._counts[name] for name in ("sure", "unsure", "none")}

    def write(self, output: Path, unusable: Mapping[str, str]) -> None:
        """Write the table."""
        manifest = self._manifest
        rules: dict[str, Rule] = dict.fromkeys(self._names, free_text)
        if Role.USER_ID in manifest.columns:
            rules[manifest.columns[Role.USER_ID]] = user_id_fault
        bom = manifest.bom or manifest.encoding not in {"utf-8", "ascii"}
        usual = manifest.delimiter in DELIMITERS  # another one would not be detected
        delimiter = manifest.delimiter if usual else ","
        form = CsvForm(delimiter=delimiter, newline=manifest.newline, bom=bom)
        with new_table(output, self._names, rules=rules, form=form) as table:
            first = 0
            for chunk in manifest.chunks():
                cells = {name: chunk[name].tolist() for name in self._own}
                some = range(first, first + len(chunk))
                first += len(chunk)
                added = [self._cells(row) for row in some]
                if self.image not in cells:
                    cells[self.image] = [""] * len(chunk)
                images = zip(cells[self.image], added, strict=True)
                cells[self.image] = [image if image.strip() else new for image, (new, *_) in images]
                columns = [cells[name] for name in self._names if name in cells]
                matches = zip(*(one for _, *one in added), strict=True)
                table.write_columns([*columns, *matches])
            table.write(self._left(unusable))

    def _cells(self, row: int) -> tuple[str, ...]:
        """The photo of a row if it is sure, and the cells of MATCH_COLUMNS."""
        photo = self._rows[row].photo
        if photo is not None:
            there = "" if photo >= 0 else ", which is not there"
            return ("", "", "", "", "", "", f"The list itself names this photo{there}.")
        proposal = self._outcome.proposals[row]
        other = proposal.runner_up
        runner_up = ("", "") if other is None else (self._paths[other.photo], f"{other.score:.0f}")
        if proposal.pair is None:
            self._counts["none"] += 1
            why = "No photo fits." if other is None else "Every photo that fits is another row's."
            return ("", "", "", "", *runner_up, why)
        path, score = self._paths[proposal.pair.photo], f"{proposal.pair.score:.0f}"
        if proposal.doubt is None:
            self._counts["sure"] += 1
            return (path, "yes", path, score, *runner_up, proposal.pair.why)
        self._counts["unsure"] += 1
        return ("", "no", path, score, *runner_up, self._text(proposal.doubt))

    def _text(self, doubt: Doubt) -> str:
        """Why a proposal is not sure."""
        if doubt.person is not None:
            return doubt.text.format(self._rows[doubt.person].cells[USER_ID])
        return doubt.text if doubt.photo is None else doubt.text.format(self._paths[doubt.photo])

    def _left(self, unusable: Mapping[str, str]) -> Iterator[Sequence[Cell]]:
        """A line for each photo without a row; only these have neither user_id nor photo."""
        blank = [""] * (len(self._names) - len(MATCH_COLUMNS))
        for photo, pair in self._outcome.left.items():
            why, score = "No row is like this photo.", ""
            if pair is not None:
                who = self._rows[pair.person].cells[USER_ID]
                why = f"It is most like the row of {who}, which has another photo."
                score = f"{pair.score:.0f}"
            yield [*blank, "", self._paths[photo], score, "", "", why]
        for path, why in unusable.items():
            yield [*blank, "", path, "", "", "", why]
