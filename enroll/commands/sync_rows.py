"""Takes the rows of a manifest that a sync has to compare with its ledger: all, or few.

Few are enough if the ledger has the scan of the same manifest and knows what a sync has found of
it: the rows of everybody who may differ since, in whatever parts of the scan they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from enroll.ledger import CachedScan, Ledger, Part
from enroll.manifest.manifest import Manifest
from enroll.manifest.scan import CHUNK_ROWS, Scan, Scanned
from enroll.manifest.suspects import NONE, Suspects
from enroll.model import ScannedRow
from enroll.photos import PhotoStore

MOST_PEOPLE = 50_000
"""If more people may differ, everybody is compared: their ids would take more than 10 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenRows:
    """The rows that were added to the ledger's `diff`: all of `people`, None for everybody's.

    `lines` counts the lines of the manifest, and `suspects` are probably mistakes,
    known if all were taken. `quiet` are the parts of the cached scan whose photos are
    as they were, by number, and `parts` are the numbers of those in which each of `people` is.
    """

    lines: int
    suspects: Suspects = NONE
    people: Set[str] | None = None
    quiet: Mapping[int, Scanned] = field(default_factory=dict)
    parts: Mapping[str, Set[int]] = field(default_factory=dict)

    def quiet_without(self, people: Set[str]) -> dict[int, Scanned]:
        """The quiet parts that some people are not in."""
        theirs = {number for one in people for number in self.parts.get(one, ())}
        return {number: part for number, part in self.quiet.items() if number not in theirs}


def take_all(manifest: Manifest, ledger: Ledger, store: PhotoStore, *, readers: int) -> TakenRows:
    """Take every row; a forgotten person is no joiner, and only counted."""
    scan = Scan(manifest.rows(CHUNK_ROWS), store, concurrency=readers)
    blocked, lines = ledger.block_list, 0
    ledger.diff.clear()
    try:
        while (rows := scan.next_chunk()) is not None:
            ledger.diff.add_rows(blocked.part(rows)[0])
            ledger.rest()
            lines += len(rows)
    finally:
        scan.close()
    return TakenRows(lines=lines, suspects=scan.suspects)


def take_few(
    ledger: Ledger, cached: CachedScan, store: PhotoStore, *, readers: int
) -> TakenRows | None:
    """Take the rows of those who may differ; None if everybody may. `cached` is of this manifest
    and these settings."""
    people = ledger.diff.people_to_compare(most=MOST_PEOPLE)
    if people is None:
        return None
    scan = Scan(iter(()), store, concurrency=readers)
    try:
        return _Taking(ledger, scan, people).take(cached)
    finally:
        scan.close()


class _Taking:
    """Goes through the parts of the cached scan."""

    def __init__(self, ledger: Ledger, scan: Scan, people: set[str]) -> None:
        self._ledger = ledger
        self._scan = scan
        self._people = people
        self._quiet: dict[int, Scanned] = {}
        self._parts: dict[str, set[int]] = defaultdict(set)

    def take(self, cached: CachedScan) -> TakenRows | None:
        lines, known = 0, len(self._people)
        people = set(self._people)
        for number in range(cached.parts):
            part = self._ledger.scan_cache.load_part(number)
            if part is None:
                return None
            lines += self._look(part, people)
            if len(people) > MOST_PEOPLE:
                return None
        if len(people) > known:  # some are in parts that were taken before without them
            self._people = people
            self._take_again(cached)
        return TakenRows(lines=lines, people=people, quiet=self._quiet, parts=self._parts)

    def _look(self, part: Part, people: set[str]) -> int:
        """Take the rows that may differ, and add whose they are to `people`; how many lines the
        part has."""
        seen = self._scan.look_again(part)
        scanned = seen.scanned()
        if seen.quiet is not None:
            self._quiet[part.number] = scanned
        if seen.same and not (seen.quiet and seen.quiet.user_data_changed):
            rows = seen.rows(self._people)
        else:
            rows = list(scanned.rows) or seen.rows()
            people.update(seen.known.user_ids)
        self._add(part.number, rows)
        return scanned.lines

    def _take_again(self, cached: CachedScan) -> None:
        self._ledger.diff.clear()
        for number in range(cached.parts):
            if (part := self._ledger.scan_cache.load_part(number)) is not None:
                self._add(number, self._scan.rows_of(part, self._people))

    def _add(self, number: int, rows: list[ScannedRow]) -> None:
        self._ledger.diff.add_rows(rows)
        for row in rows:
            self._parts[row.user_id].add(number)
