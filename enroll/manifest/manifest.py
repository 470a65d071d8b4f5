"""The manifest: a CSV in any common dialect, a workbook's sheet or a folder of photos, checked as
a whole when opened.

`open_manifest` reads the file through (hash, encoding, structure) and keeps none of it;
`Manifest.chunks` reads it again with pandas, some thousand rows at a time. Cells are the text in
the file, blanks included: an id or path is never changed silently, `rules` says what is wrong with
it. A line whose cells are all empty or blank is not a row.
"""

from __future__ import annotations

import json
import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enroll.addresses import is_url, parse_url
from enroll.errors import ManifestError
from enroll.manifest.bounds import MAX_PHOTO_LINE_LENGTH
from enroll.manifest.embedded import EmbeddedPhotos, PhotoColumn, image_name
from enroll.manifest.encoding import find_encoding
from enroll.manifest.header import (
    bound,
    find_roles,
    find_templates,
    is_match_header,
    is_results_header,
    orphans_of,
    own_names,
    parse_columns,
    roles_to_find,
)
from enroll.manifest.listing import PhotoListing
from enroll.manifest.notes import list_notes
from enroll.manifest.photos import (
    PhotoFinder,
    RowPhotos,
    WindowsPaths,
    parse_photo_template,
    photo_patterns,
)
from enroll.manifest.records import (
    LineNumbers,
    check_structure,
    find_header,
    open_text,
)
from enroll.manifest.rules import RowCode, check_row, image_fault, user_id_fault
from enroll.manifest.source import Source
from enroll.manifest.template import Template
from enroll.model import Fault, Role, Row
from enroll.photos import PhotoStore
from enroll.photos.zipped import ZipStore
from enroll.text.tables import Rule, free_text, unescape, unescape_column
from enroll.visible import as_seen, path_text

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.parsers import TextFileReader

CHUNK_ROWS = 10_000
"""Rows read at a time; larger chunks were no faster, and take more memory."""


READER_VERSION = 7
"""Increased when files are read in another way, which makes results of `to_json` invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    r"""A file that has been read to its end and is valid.

    `sha256` (hex) is of the file itself, compressed or not, or of a folder's listing. `header` has
    the names as they are in the file, in order; `columns` maps `user_id`, `image` and, when there
    is one, `user_data` to such names, unless `templates` has a template over them. `rows_at_most`
    counts blank lines too. `newline` is how the header's line ends, `\n` or `\r\n`; `bom` says that
    the file begins with a byte-order mark. In a results file or export (`is_results`) the result
    columns are not input, and the escape of `enroll.text.tables` is undone in all but ids and
    paths. With `photo`, the template of `--photo`, no column has the photos' paths: once `located`,
    the manifest has found them.
    """

    path: Path
    sha256: str
    encoding: str
    encoding_was_guessed: bool
    bom: bool
    delimiter: str
    newline: str
    header: tuple[str, ...]
    columns: Mapping[str, str]
    templates: Mapping[str, Template]
    photo: Template | None
    is_results: bool
    rows_at_most: int
    _source: Source = field(repr=False)
    _notes: tuple[str, ...] = field(repr=False)
    _codec: str = field(repr=False)
    _header_record: int = field(repr=False)
    _lines: LineNumbers = field(repr=False, compare=False)
    _orphans: array[int] = field(repr=False, compare=False)
    _heavy: array[int] = field(repr=False, compare=False)
    _telling: tuple[str, ...] | None = field(default=None, repr=False, compare=False)
    """Paths of the first rows that say where photos are: addresses, and those that Windows writes;
    None before they were read."""
    found: RowPhotos | None = field(default=None, repr=False, compare=False)
    """Which photos the rows have, once they are `located`."""

    def to_json(self) -> str:
        """Everything known of the file, as JSON for `manifest_from_json`."""
        known: dict[str, Any] = {name: getattr(self, name) for name in _JSON_FIELDS}
        lines = [self._lines.records.tolist(), self._lines.added.tolist(), self._lines.above]
        arrays = {"_orphans": self._orphans.tolist(), "_heavy": self._heavy.tolist()}
        templates = {role: [one.texts, one.names] for role, one in self.templates.items()}
        photo = None if self.photo is None else [self.photo.texts, self.photo.names]
        made = {"templates": templates, "photo": photo}
        return json.dumps({**known, **made, "_lines": lines, **arrays})

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user."""
        source, listing = self._source, self.listing
        found = [] if listing is None else listing.notes
        if source.member:
            found = [f"The list is {path_text(source.member)} in {path_text(self.path)}."]
        if isinstance(source.store, ZipStore) and (encoding := source.store.archive.guessed):
            found.append(
                f"{path_text(self.path)} does not say how names in it are encoded; they were read "
                f"as {encoding}."
            )
        return (*found, *self._notes)

    def located(self, store: PhotoStore) -> Manifest:
        """This manifest, with the photos of its rows found in a store. Raises what
        `PhotoStore.files` raises."""
        if self.listing is not None:
            return self
        if isinstance(store, EmbeddedPhotos):
            return replace(self, found=store)
        if self.photo is None:
            images = self._telling
            if images is None:
                tried = [row.image for row in next(self.rows(ROWS_TRIED), [])]
                images = tuple(one for one in tried if is_url(one) or "\\" in one)
            if (url := next(filter(is_url, images), "")) and not is_url(store.root):
                scheme, bucket, _ = parse_url(url)
                raise ManifestError(
                    f"{self.path} names photos in a bucket, such as {path_text(url)}, and photos "
                    f"are read from {store.root}. Name the bucket: --images {scheme}://{bucket}"
                )
            return replace(self, found=WindowsPaths(store, images), _telling=images)
        if isinstance(self.found, PhotoFinder) and self.found.root == store.root:
            return self
        finder = PhotoFinder(self.photo, store)
        finder.learn_shared(
            (self._cells(chunk, Role.USER_ID), chunk[self.image_column].tolist())
            for chunk in self.chunks()
        )
        return replace(self, found=finder)

    @property
    def found_by(self) -> str:
        """All that decides which rows have which photos, besides the file and its options."""
        return "" if self.found is None else self.found.found_by

    @property
    def listing(self) -> PhotoListing | None:
        """The listing of a folder of photos; None for a list."""
        return self._source.listing

    @property
    def store(self) -> PhotoStore | None:
        """The photos, where the manifest itself is what holds them. Reads a list that has photos
        inside, the first time."""
        if self.is_photos:
            known = self.found if isinstance(self.found, EmbeddedPhotos) else None
            return known or EmbeddedPhotos(self._photo_column())
        return self._source.store

    @property
    def is_photos(self) -> bool:
        """Whether the manifest itself holds the photos, so that no folder can be named for them."""
        return Role.PHOTO_BASE64 in self.columns

    def _photo_column(self) -> PhotoColumn:
        template = self.templates.get(Role.USER_ID)
        names = (self.columns[Role.USER_ID],) if template is None else template.names
        places = [self.header.index(name) for name in names]

        def user_id(cells: Sequence[str]) -> str:
            of_id = [cells[place] if place < len(cells) else "" for place in places]
            if template is None:
                return of_id[0]
            return template.filled([[one] for one in of_id], wants_all=True)[0]

        return PhotoColumn(
            source=self._source,
            codec=self._codec,
            delimiter=self.delimiter,
            above=self._lines.above,
            header_record=self._header_record,
            records=self.rows_at_most,
            place=self.header.index(self.columns[Role.PHOTO_BASE64]),
            user_id=user_id,
        )

    def fault_of(self, row: Row) -> Fault | None:
        """The first rule that a row breaks, or None."""
        if self.listing is not None and not row.user_id:
            why = self.listing.why_unmatched(row.image)
            return Fault(code=RowCode.PATH_NOT_MATCHED.value, message=why)
        return check_row(row)

    @property
    def own_columns(self) -> tuple[str, ...]:
        """The header without the eight columns of a results file, and without photos; with
        `image_column`."""
        own = self._read_columns
        return own if self.photo is None or self.image_column in own else (*own, self.image_column)

    @property
    def _read_columns(self) -> tuple[str, ...]:
        photos = self.columns.get(Role.PHOTO_BASE64)
        return tuple(name for name in own_names(self.header) if name != photos)

    @property
    def image_column(self) -> str:
        """The column of the photos' paths. With `photo` they go into a column of this name, unless
        the template or a role uses the one that the file has."""
        if self.photo is None:
            return self.columns.get(Role.IMAGE, "")
        templates = (*self.templates.values(), self.photo)
        used = {*self.columns.values(), *(name for one in templates for name in one.names)}
        for wanted in _IMAGE_COLUMNS:
            there = [name for name in self.header if as_seen(name).casefold() == wanted]
            if not used.intersection(there):
                return there[0] if there else wanted
        raise ManifestError(
            f"{self.path} has no free column for the paths of photos that --photo finds. Leave out "
            f"{' or '.join(_IMAGE_COLUMNS)}."
        )

    @property
    def is_escaped(self) -> bool:
        """Whether cells that look like formulas are escaped, so that this is undone."""
        return self.is_results or is_match_header(self.header)

    @property
    def rules(self) -> dict[str, Rule]:
        """Rules of the columns in which only cells that break them are escaped."""
        rules: dict[str, Rule] = {Role.USER_ID: user_id_fault, Role.IMAGE: image_fault}
        names = {**self.columns, Role.IMAGE.value: self.image_column}
        return {names[role]: rule for role, rule in rules.items() if names.get(role)}

    def chunks(self, size: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
        """The rows, up to `size` at a time, fewer where they are long; with `own_columns` in their
        order.

        The index, `line`, is the 1-based number of the line on which a row starts. Cells are
        `str`, in columns of dtype object (the fastest, and the same with and without pyarrow);
        cells that a short row lacks are "". ManifestError when the file has changed since it was
        opened.
        """
        import pandas as pd  # noqa: PLC0415 - 70 MB, and where nothing has changed it is not needed

        own = set(self._read_columns)
        places = [i for i, name in enumerate(self.header) if name in own]
        names = pd.Index([self.header[i] for i in places], dtype=object)
        first = 0
        with open_text(self._source, self._codec, above=self._lines.above) as (file, text):
            plain: Any = text  # its type asks for more than pandas uses
            frames = pd.read_csv(
                plain,
                sep=self.delimiter,
                header=None,
                names=range(len(self.header)),
                usecols=places,
                index_col=False,
                dtype=object,
                na_filter=False,
                skip_blank_lines=False,  # so that record numbers lead to line numbers
                iterator=True,
            )
            for frame in self._frames(frames, size):
                self._source.check_unchanged(file)
                frame.index = pd.Index(self._lines.of(first, len(frame)), name="line")
                frame.columns = names
                rows = self._only_rows(self._without_orphans(frame, first))
                first += len(frame)
                if len(rows):
                    yield self._with_photos(self._unescaped(rows) if self.is_escaped else rows)

    def _with_photos(self, frame: pd.DataFrame) -> pd.DataFrame:
        """With `photo`, a frame with the paths of the rows' photos, found or as patterns."""
        if self.photo is None:
            return frame
        images = photo_patterns(self.photo, [self._named(frame, one) for one in self.photo.names])
        if isinstance(self.found, PhotoFinder):
            images = self.found.find(images)
        import pandas as pd  # noqa: PLC0415

        return frame.assign(
            **{self.image_column: pd.Series(images, index=frame.index, dtype=object)}
        )

    def _named(self, chunk: pd.DataFrame, name: str) -> list[str]:
        """The cells of a role, or else of a column."""
        in_roles = name in self.columns or name in self.templates
        cells: list[str] = self._cells(chunk, Role(name)) if in_roles else chunk[name].tolist()
        return cells

    def _frames(self, frames: TextFileReader, size: int) -> Iterator[pd.DataFrame]:
        """Frames of up to `size` records, each with at most MAX_CHUNK_BYTES of text and one
        record."""
        heavy, first = self._heavy, 0
        while True:
            at = bisect_left(heavy, first)
            end = min(first + size, heavy[at] + 1) if at < len(heavy) else first + size
            end = max(end, self._header_record + 1)  # pandas takes its width from the first frame
            try:
                frame = frames.get_chunk(end - first)
            except StopIteration:
                return
            yield frame
            first = end

    def rows(self, size: int = CHUNK_ROWS) -> Iterator[list[Row]]:
        """The rows as values, in lists of up to `size`."""
        for chunk in self.chunks(size):
            yield self.rows_of(chunk)

    def rows_of(self, chunk: pd.DataFrame) -> list[Row]:
        """The rows of a frame from `chunks`."""
        users, data, images = (self._cells(chunk, role) for role in _ROLES)
        if self.found is not None and self.photo is None:
            images = self.found.images(chunk.index.tolist(), users, images)
        elif self.is_photos:
            images = [image_name(user_id) for user_id in users]
        return [
            Row(line=line, user_id=user_id, user_data=user_data, image=image)
            for line, user_id, user_data, image in zip(
                chunk.index.tolist(), users, data, images, strict=True
            )
        ]

    def _cells(self, chunk: pd.DataFrame, role: Role) -> list[str]:
        """What a role has in each row: a column's cells, or a template filled with several."""
        template = self.templates.get(role)
        if template is not None:
            cells = [chunk[name].tolist() for name in template.names]
            return template.filled(cells, wants_all=role is not Role.USER_DATA)
        name = self.image_column if role is Role.IMAGE else self.columns.get(role)
        return chunk[name].tolist() if name else [""] * len(chunk)

    def _without_orphans(self, frame: pd.DataFrame, first: int) -> pd.DataFrame:
        """The records after the header, except an export's faces without a row; `first` is the
        number of the frame's first record."""
        start = max(self._header_record + 1 - first, 0)
        if not self._orphans:
            return frame.iloc[start:]
        orphans = np.asarray(self._orphans)
        here = slice(*np.searchsorted(orphans, (first, first + len(frame))))
        keep = np.arange(len(frame)) >= start
        keep[orphans[here] - first] = False
        return frame.loc[keep]

    def _only_rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        template = self.templates.get(Role.USER_ID)
        name = self.columns[Role.USER_ID] if template is None else template.names[0]
        users = frame[name].tolist()
        without_user = [i for i, user_id in enumerate(users) if not user_id.strip()]
        if not without_user:
            return frame
        keep = [True] * len(frame)
        suspects = frame.iloc[without_user].itertuples(index=False, name=None)
        for i, cells in zip(without_user, suspects, strict=True):
            keep[i] = any(cell.strip() for cell in cells)
        if isinstance(self.found, EmbeddedPhotos):
            photos = self.found.images(frame.index.tolist(), users, [])
            keep = [kept or bool(photo) for kept, photo in zip(keep, photos, strict=True)]
        return frame.loc[keep]

    def _unescaped(self, frame: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd  # noqa: PLC0415

        rules = self.rules
        if not self.is_results:  # `enroll match` does not know the names of files that it finds
            rules.pop(self.columns.get(Role.IMAGE, ""), None)
        cells = {
            place: unescape_column(column, rules.get(name, free_text))
            for place, name in enumerate(frame.columns)
            for column in [frame.iloc[:, place].tolist()]
        }
        plain = pd.DataFrame(cells, index=frame.index, dtype=object)
        plain.columns = frame.columns
        return plain


ROWS_TRIED = 200
"""Rows by whose paths it is seen where paths as Windows writes them begin."""

_IMAGE_COLUMNS = ("image", "photo", "photo_found")
"""What the column of photos that were found may be called; the first that is not used."""

_ROLES = (Role.USER_ID, Role.USER_DATA, Role.IMAGE)

_NO_LONG_RECORDS = LineNumbers(array("q"), array("q"))
"""A sheet's row and a photo count as one line, however many lines their cells hold."""

_JSON_FIELDS = (
    *("sha256", "encoding", "encoding_was_guessed", "bom", "delimiter", "newline", "header"),
    *("columns", "is_results", "_notes", "rows_at_most", "_codec", "_header_record", "_telling"),
)
"""The fields of a Manifest that go into JSON unchanged."""


def manifest_from_json(source: Source, text: str) -> Manifest:
    """The manifest in `source`, from `to_json` of a manifest with the same content."""
    known = json.loads(text)
    records, added, above = known.pop("_lines")
    templates = {
        role: Template(tuple(texts), tuple(names))
        for role, (texts, names) in known["templates"].items()
    }
    photo = known["photo"]
    return Manifest(
        **{
            **known,
            "header": tuple(known["header"]),
            "_notes": tuple(known["_notes"]),
            "_telling": None if known["_telling"] is None else tuple(known["_telling"]),
            "templates": templates,
            "photo": None if photo is None else Template(tuple(photo[0]), tuple(photo[1])),
            "path": source.path,
            "_source": replace(source, until=math.inf),
            "_lines": LineNumbers(array("q", records), array("q", added), above),
            "_orphans": array("q", known["_orphans"]),
            "_heavy": array("q", known["_heavy"]),
        }
    )


def open_manifest(  # noqa: PLR0913  # a keyword for each option
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    header_row: int | None = None,
    delimiter: str | None = None,
    photo: str | None = None,
    id_from: Sequence[str] = (),
    source: Source | None = None,
    until: float = math.inf,
    needs_image: bool = True,
) -> Manifest:
    """Read and check the whole file; ManifestError names the line of any fault.

    `columns` is `--columns` (role to header name or template), and the others are options of their
    names; a workbook needs no encoding and no delimiter. `source` is the file if it has been hashed
    already; without it `until` (monotonic) bounds the time. Without `needs_image` a list need not
    have that column. Takes about a second for a million rows of CSV, and no more memory for them
    than for a hundred.
    """
    given = parse_columns(columns or {})
    template = None if photo is None else parse_photo_template(photo)
    if both := template and {Role.IMAGE.value, Role.PHOTO_BASE64.value} & given.keys():
        raise ManifestError(f"Give only one of --photo and --columns {both.pop()}.")
    source = source or Source.of(path, sheet, id_from=id_from, until=until)
    if Role.PHOTO_BASE64 in given:
        source = replace(source, longest_line=MAX_PHOTO_LINE_LENGTH)
    if source.listing is not None:
        _refuse_list_options(
            path, columns=given, header_row=header_row, delimiter=delimiter, photo=photo
        )
    found = find_encoding(source, None if source.is_converted else encoding)
    head = find_header(
        source,
        found.codec,
        given,
        header_row=header_row,
        delimiter=None if source.is_converted else delimiter,
    )
    is_results = is_results_header(head.names)
    is_escaped = is_results or is_match_header(head.names)
    names = tuple(unescape(name) for name in head.names) if is_escaped else head.names
    where = f"{path}, line {head.line},"
    wanted = roles_to_find(names, given, photo=template is not None)
    optional = {Role.USER_DATA} if needs_image else {Role.USER_DATA, Role.IMAGE}
    needed = [role for role in wanted if role not in optional]
    roles = find_roles(names, given, where=where, roles=wanted, needed=needed)
    templates = find_templates(names, given, where=where)
    if template is not None:
        known = {*roles, *templates}
        template = bound(names, template, option="--photo", where=where, roles=known)
    lines_of = orphans_of(names, roles.get(Role.IMAGE, Role.IMAGE.value))
    structure = check_structure(source, found.codec, head, lines_of)
    used = {role: [name] for role, name in roles.items()}
    used |= {role: list(one.names) for role, one in templates.items()}
    notes = list_notes(source, found, head, structure, names=names, used=used)
    return Manifest(
        path=path,
        sha256=source.sha256,
        encoding=found.name,
        encoding_was_guessed=found.guessed,
        bom=found.bom,
        delimiter=head.delimiter,
        newline=head.newline,
        header=names,
        columns=roles,
        templates=templates,
        photo=template,
        is_results=is_results,
        rows_at_most=structure.records - head.record - 1,
        _notes=tuple(notes),
        _source=replace(source, until=math.inf),  # rows sent by then still get results
        _codec=found.codec,
        _header_record=head.record,
        _lines=_NO_LONG_RECORDS if source.is_converted else structure.lines,
        _orphans=structure.orphans,
        _heavy=structure.heavy,
    )


def _refuse_list_options(path: Path, **given: object) -> None:
    for name, value in given.items():
        if value:
            option = f"--{name.replace('_', '-')}"
            raise ManifestError(
                f"{path} holds photos and no list, so it has no columns. Leave {option} out; "
                "--id-from says how a photo's path yields its user_id."
            )
