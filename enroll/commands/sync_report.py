"""What is said and written of the difference between a manifest and its ledger."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from enroll.commands.sync_guards import about_another
from enroll.ledger import DiffCounts, RowDiff, SyncResult, iso_time
from enroll.manifest.results import csv_bytes, escape
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.text.files import new_file
from enroll.text.wording import amount


def difference_lines(counted: DiffCounts) -> Iterator[str]:
    """A difference, a line each."""
    yield f"  {counted.joiners:>9,}  joiners: rows of people who have no face in the library"
    yield f"  {counted.photos:>9,}  new photos of people who have one"
    yield f"  {counted.user_data:>9,}  rows with another user_data"
    if counted.held_back:
        yield (
            f"  {counted.held_back:>9,}  further ones, which cannot be added because their photo "
            "is missing"
        )
    yield f"  {counted.dropped:>9,}  faces of people in the manifest whose row is gone"
    if counted.superseded:
        yield f"  {counted.superseded:>9,}  faces that another command has superseded"
    yield f"  {counted.leaving:>9,}  leavers to be removed now"
    yield f"  {counted.waiting:>9,}  leavers whose grace is not over"
    if counted.newly_gone:
        yield f"  {counted.newly_gone:>9,}  of all leavers gone for the first time"
    if counted.returned:
        yield f"  {counted.returned:>9,}  leavers who are back"
    if counted.missing:
        yield f"  {counted.missing:>9,}  photos that are not there"


def strange_lines(found: SyncResult) -> Iterator[str]:
    """What somebody has to see of a sync although all was done."""
    if found.other_manifest:
        gone = found.counted.waiting + found.counted.leaving
        count = amount(gone, "leaver has", "leavers have")
        yield f"{count} probably not left. {about_another(found.other_manifest)}"


def sync_lines(found: SyncResult) -> Iterator[str]:
    """What a summary says of a sync."""
    yield "How the manifest differed from the ledger"
    yield from difference_lines(found.counted)
    if found.replaced:
        yield f"{amount(found.replaced, 'face')} deleted after being replaced."
    if found.people:
        faces = amount(found.faces, "face")
        yield f"{amount(found.people, 'leaver')} removed, with {faces}."
    if (left := found.counted.leaving - found.people) > 0:
        yield f"{amount(left, 'leaver')} not removed yet: the next sync continues."
    if found.kept:
        yield (
            f"{amount(found.kept, 'person', 'people')} with a face to be removed: kept until all "
            "their rows are enrolled, or the next sync gets to it."
        )


DIFF_COLUMNS = ("change", "user_id", "user_data", "image", "face_token", "since")
"""The columns of the --differences file."""


def write_row_diffs(diffs: Iterator[RowDiff], path: Path) -> None:
    """Write the differences as CSV, readable by its owner alone. Raises LocalError."""
    with new_file(path) as new:
        new.file.write(csv_bytes([DIFF_COLUMNS]))
        while some := list(islice(diffs, 1000)):
            new.file.write(
                csv_bytes(
                    (
                        one.kind.value,
                        escape(one.user_id, user_id_fault),
                        escape(one.user_data),
                        escape(one.image, image_fault),
                        one.face_token,
                        iso_time(one.since),
                    )
                    for one in some
                )
            )
