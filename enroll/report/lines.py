"""The rows that a report is about: those of a manifest with what became of them, or a ledger's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enroll.addresses import named_path, resolved
from enroll.commands.run_closing import results_lookup
from enroll.commands.run_input import options_of_key
from enroll.errors import UsageError
from enroll.ledger import LedgerReader, shown_path
from enroll.manifest.header import columns_named, list_names
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.model import Entry, Status
from enroll.photos import PhotoStore, open_store
from enroll.session.tally import BAD
from enroll.text.logs import mask
from enroll.text.remedies import sentence
from enroll.visible import path_text, visible

IN_DOUBT, UNKNOWN = "IN_DOUBT", "UNKNOWN"
"""Reasons of rows in doubt, whatever their code, and of those without one."""

NEEDS_A_PERSON = frozenset({*BAD, Status.IN_DOUBT})


LEAST_IN_GROUP = 4
"""Characters of a user id that is masked where it is part of a value of --by: `1` is part of too
many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row of the manifest, or an entry of the ledger, as the report shows it.

    `number` is the row's line, 0 without a manifest. Texts are safe to show, and masked where that
    is asked for; `photo` is the path as recorded, which is not. `group` is the value of --by.
    """

    number: int
    user_id: str
    user_data: str
    image: str
    status: Status
    code: str
    message: str
    prepared: str
    run: int
    enrolled_at: str
    group: str
    photo: str = field(repr=False)

    @property
    def reason(self) -> str:
        """What a row is grouped by that needs a person; empty for any other."""
        if self.status not in NEEDS_A_PERSON:
            return ""
        return IN_DOUBT if self.status is Status.IN_DOUBT else self.code or UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where lines come from. Without a `manifest`, opened with `options`, they are the ledger's
    entries.

    `recorded` is where a run has read the photos, at `root`; `photos` is the same, or another place
    if they have been moved. None if no run has read any.
    """

    reader: LedgerReader
    manifest: Manifest | None
    options: Mapping[str, Any]
    root: str
    recorded: PhotoStore | None
    photos: PhotoStore | None
    by: str | None = None
    masked: bool = False

    def lines(self) -> Iterator[tuple[Entry, str, Line]]:
        """Every line, with the entry that it shows and its value of --by, both unmasked."""
        if self.manifest is None or self.recorded is None:
            for entry in self.reader.entries():
                yield entry, "", self._line(0, entry, "")
            return
        store = self.recorded
        lookup = results_lookup(self.reader, store, self.reader.block_list)
        for chunk in self.manifest.chunks():
            rows = self.manifest.rows_of(chunk)
            groups = [""] * len(rows) if self.by is None else chunk[self.by].tolist()
            for row, found, group in zip(rows, lookup(rows), groups, strict=True):
                entry = found or Entry(
                    user_id=row.user_id,
                    user_data=row.user_data,
                    image=shown_path(store.locate(row.image), self.root),
                    status=Status.PENDING,
                )
                value = shown_value(group)
                yield entry, value, self._line(row.line, entry, value)

    def values(self) -> list[str]:
        """The values of the column --by, in the order of their first rows."""
        found: dict[str, None] = {}
        if self.manifest is not None and self.by is not None:
            for chunk in self.manifest.chunks():
                found |= dict.fromkeys(map(shown_value, chunk[self.by].unique()))
        return list(found)

    def _line(self, number: int, entry: Entry, group: str) -> Line:
        message = sentence(entry.error, entry.status, entry.message) if entry.error else ""
        if self.masked:
            message = ""  # it may name another person's photo
            if len(entry.user_id) >= LEAST_IN_GROUP:
                group = group.replace(entry.user_id, mask(entry.user_id))
        user_id, user_data, image = shown_texts(
            entry.user_id, entry.user_data, entry.image, masked=self.masked
        )
        return Line(
            number=number,
            user_id=user_id,
            user_data=user_data,
            image=image,
            status=entry.status,
            code=entry.error,
            message=visible(message),
            prepared=entry.prepared,
            run=entry.run,
            enrolled_at=entry.enrolled_at,
            group=group,
            photo=entry.image,
        )


def shown_texts(user_id: str, user_data: str, image: str, *, masked: bool) -> tuple[str, str, str]:
    """These texts, safe to show; masked, without the user id, and without the names in the path,
    which may be named after anybody's id."""
    if masked:
        hidden = mask(user_id)
        user_data = user_data.replace(user_id, hidden) if user_id else user_data
        user_id, image = hidden, "/".join(map(_masked_part, image.split("/")))
    return visible(user_id), visible(user_data), visible(image)


def shown_value(cell: str) -> str:
    """The value of a cell of the column --by as it is shown."""
    return visible(" ".join(cell.split()))


def _masked_part(part: str) -> str:
    stem, dot, suffix = part.rpartition(".")
    return f"{mask(stem)}{dot}{suffix}" if dot and stem else mask(part) if part else ""


def origin_of(
    reader: LedgerReader,
    manifest: Manifest | None,
    options: Mapping[str, Any],
    *,
    images: Path | None,
    by: str | None = None,
    masked: bool = False,
) -> Origin:
    """Raises UsageError for a folder or column that is not there, LocalError where photos have to
    be found and cannot be reached."""
    root = reader.photo_root
    store = None if manifest is None else manifest.store
    if store is not None:
        root = store.root
    elif manifest is not None:
        known = reader.photo_root_of(path_text(manifest.path.absolute()))
        root = known[0] if known else root or str(resolved(manifest.path.parent))
    recorded = store or (open_store(root) if root else None)
    if manifest is not None and recorded is not None:
        manifest = manifest.located(recorded)
        recorded = recorded if manifest.found is None else manifest.found.explained(recorded)
    photos = recorded
    if images is not None:
        photos = open_store(resolved(images))
        if photos.is_gone():
            raise UsageError(f"{images} is neither a folder nor a ZIP archive. Correct --images.")
    return Origin(
        reader=reader,
        manifest=manifest,
        options=options,
        root=root,
        recorded=recorded,
        photos=photos,
        by=None if by is None or manifest is None else _column(manifest, by),
        masked=masked,
    )


def find_manifest(
    reader: LedgerReader, named: Path | None, options: Mapping[str, Any]
) -> tuple[Manifest | None, Mapping[str, Any]]:
    """The manifest that is named, else that of the ledger's last run that had one; and the options
    with which it was opened.

    `options` are those that `open_manifest` takes; without any they are those of the last scan.
    Raises ManifestError.
    """
    last = next((run.start.manifest for run in reader.runs(1_000) if run.start.manifest), "")
    path = named or (named_path(last) if last else None)
    if path is None:
        return None, {}
    scanned = reader.last_scan()
    if scanned is not None and not any(options.values()) and path_text(path.absolute()) == last:
        key, _ = json.loads(scanned.manifest)
        options = options_of_key(key) or options
    return open_manifest(path, **options), options


def _column(manifest: Manifest, wanted: str) -> str:
    names = manifest.own_columns
    found = columns_named(names, wanted)
    if len(found) != 1:
        raise UsageError(
            f"{manifest.path} has no column {wanted!r}, which --by names; it has: "
            f"{list_names(names)}."
        )
    return found[0]
