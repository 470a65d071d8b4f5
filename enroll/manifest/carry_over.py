"""Carries the cached scan of a manifest over to its next version, such as the next night's export.

Most of its parts are in the new version, too: they stay settled, wherever they are now. Of the
others, what a sync has to compare are the people with a row that only one version has.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

from enroll.ledger import (
    BlockList,
    CachedScan,
    KeptPart,
    Ledger,
    Packed,
    Part,
    ScanCacheStore,
    content_of,
    digest_of,
    pack,
    unpack,
)
from enroll.manifest.manifest import Manifest
from enroll.manifest.scan import CHUNK_ROWS, Scan, in_parts
from enroll.manifest.suspects import Suspects, SuspectSearch
from enroll.photos import PhotoStore

MOST_ROWS_COMPARED = 200_000
"""Rows of parts that only one version has: of more than these nobody is noted, and the next sync
compares everybody. They take some 26 MB."""


def carry_over(
    ledger: Ledger, manifest: Manifest, store: PhotoStore, *, record: CachedScan
) -> Suspects | None:
    """Make the ledger's scan, if it is of another version of the manifest, one of this version;
    returns this version's suspicious rows then, else None.

    `record` is the scan of this version. Two fingerprints with the same settings begin alike, up to
    a dot. Nothing is committed. Raises ManifestError if the manifest has changed meanwhile.
    """
    last = ledger.last_scan()
    if last is None or last.fingerprint == record.fingerprint:
        return None
    if last.fingerprint.partition(".")[0] != record.fingerprint.partition(".")[0]:
        return None  # the next run drops it
    carrying = _Carrying(ledger.scan_cache, ledger.block_list, store)
    ledger.scan_cache.replace_parts(carrying.parts(manifest))
    ledger.scan_cache.note_people(carrying.changed, people=carrying.suspects.people())
    ledger.scan_cache.save(replace(record, parts=carrying.count))
    return carrying.suspects.found()


class _Carrying:
    """Goes through a manifest whose former version is in the scan cache."""

    def __init__(self, cache: ScanCacheStore, forgotten: BlockList, store: PhotoStore) -> None:
        self._cache = cache
        self._forgotten = forgotten
        self._store = store
        self.suspects = SuspectSearch()
        self.count = 0
        """Parts so far."""
        self.changed: set[str] | None = None
        """People whose rows the next sync has to compare; None if they are too many."""

    def parts(self, manifest: Manifest) -> Iterator[Part | KeptPart]:
        """The parts of the new version."""
        before: dict[bytes, list[int]] = defaultdict(list)
        for number, content in self._cache.contents():
            before[content].append(number)
        new: list[Part] = []
        new_rows = 0
        for lines in in_parts(manifest.rows(CHUNK_ROWS)):
            rows, withheld = self._forgotten.part(lines)
            self.suspects.add(rows, [self._store.locate(row.image) for row in rows])
            first_line = lines[0].line
            packed = pack(rows, first_line=first_line, withheld=len(withheld))
            if same := before.get(content_of(packed)):
                yield KeptPart(number=self.count, first_line=first_line, was=same.pop(0))
            elif new_rows <= MOST_ROWS_COMPARED:
                new.append(Part(number=self.count, first_line=first_line, rows=packed))
                new_rows += len(rows)
            else:
                yield Part(number=self.count, first_line=first_line, rows=packed)
            self.count += 1
        gone = [number for numbers in before.values() for number in numbers]
        if new_rows <= MOST_ROWS_COMPARED:
            new = self._compared(new, gone)
        yield from new

    def _compared(self, new: Sequence[Part], gone: Sequence[int]) -> list[Part]:
        """New parts with the digests of their photos' times, after finding who has changed: whose
        row is only in them or only in parts that are gone, and who was not settled there."""
        with closing(Scan(iter(()), self._store)) as scan:
            before, changed = _FormerRows(), set[str]()
            for part in self._load(gone):
                seen = scan.look_again(part)
                if not seen.same or (seen.quiet and seen.quiet.user_data_changed):
                    changed.update(seen.known.user_ids)
                before.add(seen.known, seen.times)
                if len(before) > MOST_ROWS_COMPARED:
                    return list(new)
            found = []
            for part in new:
                known = unpack(part.rows, first_line=part.first_line)
                changed.update(before.take(known))
                found.append(replace(part, digest=digest_of(before.times(known, scan))))
        for part in self._load(gone):
            changed.update(before.left(unpack(part.rows, first_line=part.first_line)))
        self.changed = changed
        return found

    def _load(self, numbers: Sequence[int]) -> Iterator[Part]:
        return filter(None, map(self._cache.load_part, numbers))


class _FormerRows:
    """The rows of parts that only the former version has: 130 bytes are kept of each."""

    def __init__(self) -> None:
        self._left = Counter[int]()
        self._places: dict[int, int] = {}
        self._times = array("q")

    def __len__(self) -> int:
        return len(self._times) // 3

    def add(self, known: Packed, times: array[int]) -> None:
        """Take rows into account, whose photos have these times."""
        keys = _keys(known)
        self._left.update(keys)
        self._places.update(zip(keys, range(len(self), len(self) + len(keys)), strict=True))
        self._times.extend(times)

    def take(self, known: Packed) -> Iterator[str]:
        """Take the new version's rows from them; yields the people of those that are not there."""
        for user_id, key in zip(known.user_ids, _keys(known), strict=True):
            if self._left[key] > 0:
                self._left[key] -= 1
            else:
                yield user_id

    def times(self, known: Packed, scan: Scan) -> array[int]:
        """The times of the new version's rows. A row that was there keeps the times of then, so
        that no change is missed in between."""
        places = [self._places.get(key) for key in _keys(known)]
        new = zip(known.images, places, strict=True)
        times, found = array("q"), iter(scan.times([image for image, at in new if at is None]))
        for place in places:
            if place is None:
                times.extend(islice(found, 3))
            else:
                times.extend(self._times[3 * place : 3 * place + 3])
        return times

    def left(self, known: Packed) -> Iterator[str]:
        """The people of rows that were not taken."""
        for user_id, key in zip(known.user_ids, _keys(known), strict=True):
            if self._left[key] > 0:
                yield user_id


def _keys(known: Packed) -> list[int]:
    """What makes each row."""
    return list(map(hash, zip(known.user_ids, known.user_data, known.images, strict=True)))
