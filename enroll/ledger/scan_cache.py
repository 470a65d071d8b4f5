"""What a whole scan of a manifest has found, kept so that the next one need not compare it again.

A scan is kept in parts, each some rows of the manifest in their order: the rows themselves, and,
once every one of them is enrolled or bad for good, a digest of their photos' times and what the
rows came to. When manifest and settings are the same and a part's digest is, too, its rows are as
they were: one `lstat` a photo, and neither CSV nor ledger is looked at.

That holds because whatever takes a face away from a row drops the cache first: a run with other
settings, and every other command that writes to the ledger. A manifest of other content, such as
the next export, keeps the parts that it also has (`enroll.manifest.carry_over`). `run` and `sync`
share the cache; a sync also compares the parts in which a row has another text than its face.
"""

from __future__ import annotations

import json
import zlib
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Protocol

from enroll.model import Row, Status

DIGEST_BYTES = 16
"""Of a part's times: 128 bits, which no two states of some thousand files share by chance."""

_FOR_GOOD = (Status.REJECTED, Status.INVALID, Status.HELD)
"""Besides enrolled rows, those that are not due again while photo and settings stay the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCounts:
    """What the lines of a settled part came to.

    `unchanged` are enrolled, `user_data_changed` of these with another text than the library's;
    `bad` are (status, code, message, lines).
    """

    unchanged: int = 0
    user_data_changed: int = 0
    bad: Sequence[tuple[Status, str, str, int]] = ()

    def text(self) -> str:
        """As JSON."""
        bad = [
            [status.value, str(code), message, lines] for status, code, message, lines in self.bad
        ]
        return json.dumps([self.unchanged, self.user_data_changed, bad])

    @classmethod
    def of(cls, text: str) -> PartCounts:
        """From what `text` gave."""
        unchanged, user_data_changed, bad = json.loads(text)
        return cls(
            unchanged=unchanged,
            user_data_changed=user_data_changed,
            bad=[(Status(status), code, message, n) for status, code, message, n in bad],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some rows of a manifest, packed, of which the first starts on `first_line`.

    `counts` is None until all are settled. `digest` is that of the photos' times then. A part
    without counts that has one was not scanned yet, and only a row of people noted by `note_people`
    may be due while the times are these.
    """

    number: int
    first_line: int
    rows: bytes = field(repr=False)
    digest: bytes | None = None
    counts: PartCounts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPart:
    """A part that another version of the manifest has too, with the same rows: its number was
    `was`."""

    number: int
    first_line: int
    was: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedScan:
    """A whole scan: of which manifest and settings (`fingerprint`), in how many parts.

    `manifest` is what is known of the file, as `rows.manifest` wrote it. `results` are the path,
    size and modification time (ns) of the results that say the same, if any were written.
    """

    fingerprint: str
    manifest: str
    parts: int
    results: tuple[str, int, int] | None = None


class ScanCacheStore(Protocol):
    """Where a ledger keeps its last scan."""

    def load_part(self, number: int) -> Part | None:
        """A part of it, counted from 0."""

    def save_part(self, part: Part) -> None:
        """Record a part, that is not settled, with the next commit, in the place of the one of its
        number."""

    def reopen_part(self, number: int) -> None:
        """Record that rows of a part may be due again."""

    def contents(self) -> Iterator[tuple[int, bytes]]:
        """The number of each part, and a digest of its rows."""

    def replace_parts(self, parts: Iterable[Part | KeptPart]) -> None:
        """Have these parts in the place of all of them; those that are kept stay settled."""

    def note_people(self, changed: Set[str] | None, *, people: int) -> None:
        """Note whose rows are others than those that the last sync has compared, None if they are
        too many, and how many people are in the manifest now."""

    def complete_part(self, number: int, digest: bytes, counts: PartCounts) -> None:
        """Record that every row of a part is settled."""

    def save(self, record: CachedScan) -> None:
        """Record that the scan is whole."""

    def drop(self) -> None:
        """Forget the scan and its parts."""


def fingerprint(*settings: object) -> str:
    """One text for a manifest, the photos' folder and all settings that decide about rows."""
    return blake2b(json.dumps(settings, default=str).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The rows of a part, a list for each column, and how many of its lines are withheld and so not
    among these rows."""

    lines: Sequence[int]
    user_ids: Sequence[str]
    user_data: Sequence[str]
    images: Sequence[str]
    withheld: int


def pack(rows: Sequence[Row], *, first_line: int, withheld: int) -> bytes:
    """Rows as bytes, a seventh of their length in a usual manifest; see `Packed`.

    The same rows are the same bytes wherever in a manifest they are.
    """
    columns = (
        [row.line - first_line for row in rows],
        [row.user_id for row in rows],
        [row.user_data for row in rows],
        [row.image for row in rows],
        withheld,
    )
    # A path that is not UTF-8 can contain surrogates; JSON escapes them.
    return zlib.compress(json.dumps(columns).encode("ascii"), 1)


def unpack(packed: bytes, *, first_line: int) -> Packed:
    """What `pack` was given."""
    lines, user_ids, user_data, images, withheld = json.loads(zlib.decompress(packed))
    return Packed(
        lines=[first_line + line for line in lines],
        user_ids=user_ids,
        user_data=user_data,
        images=images,
        withheld=withheld,
    )


def content_of(packed: bytes) -> bytes:
    """The digest of a part's packed rows."""
    return blake2b(packed, digest_size=DIGEST_BYTES).digest()


def digest_of(times: array[int]) -> bytes:
    """The digest of sizes and times in the order of the rows."""
    return blake2b(times.tobytes(), digest_size=DIGEST_BYTES).digest()


@dataclass(slots=True)
class _Open:
    """A part that is compared in this run; `due` lines have no outcome yet, once `compared`."""

    number: int
    digest: bytes
    compared: bool = False
    due: int = 0
    unchanged: int = 0
    user_data_changed: int = 0
    bad: Counter[tuple[Status, str, str]] = field(default_factory=Counter)


class ScanCache:
    """A run's use of it: hands out the parts of the last one, and settles those compared.

    Used on the driver's thread only.
    """

    def __init__(
        self, keeper: ScanCacheStore, *, recalled: CachedScan | None, record: CachedScan
    ) -> None:
        """`recalled` is the last scan if it is of the same manifest and settings; `record` is what
        this one is recorded as."""
        self._keeper = keeper
        self._record = recalled or record
        self._handed_out = 0
        self._scanned = 0
        self._open: dict[int, _Open] = {}
        self._first_lines: list[int] = []
        self._whole = False
        self.mark = record.fingerprint
        self.recalled = recalled is not None
        """Whether the parts are those of the last scan, and the manifest need not be read."""
        self.all_quiet = self.recalled
        """Whether every part was found as it was."""

    def next_number(self) -> int | None:
        """The number of the part of the last scan to look at next; None if there is none left."""
        if not self.recalled or self._handed_out >= self._record.parts:
            return None
        self._handed_out += 1
        return self._handed_out - 1

    def load(self, number: int) -> Part | None:
        """A part of the last scan; None if it is not there."""
        return self._keeper.load_part(number)

    def quiet(self) -> None:
        """The next part was found as it was."""
        self._scanned += 1

    def begins(self, *, first_line: int, packed: bytes | None, digest: bytes) -> None:
        """The next part is being compared. `packed` are its rows where the last scan had none."""
        if packed is not None:
            self._keeper.save_part(Part(number=self._scanned, first_line=first_line, rows=packed))
        else:  # a run that is killed may leave rows of it due, with the same photos
            self._keeper.reopen_part(self._scanned)
        self._first_lines.append(first_line)
        self._open[len(self._first_lines) - 1] = _Open(self._scanned, digest)
        self._scanned += 1
        self.all_quiet = False

    def compared(
        self,
        *,
        unchanged: int,
        user_data_changed: int,
        bad: Mapping[tuple[Status, str, str], int],
        due: int,
        settles: bool,
    ) -> None:
        """The part that was begun last was compared: what its lines came to, and how many are due.

        With `settles` false some of its rows are to be looked at in the next run, whatever happens.
        """
        place = len(self._first_lines) - 1
        part = self._open[place]
        if not settles:
            del self._open[place]
            return
        part.compared = True
        part.due += due
        part.unchanged += unchanged
        part.user_data_changed = user_data_changed
        part.bad.update(bad)
        self._settle(place)

    def ended(self, line: int, status: Status, code: str, message: str, *, lines: int) -> None:
        """A due row that starts on `line` has its outcome; 0 where its line is not known."""
        place = bisect_right(self._first_lines, line) - 1
        part = self._open.get(place)
        if part is None:
            return
        part.due -= lines
        if status is Status.ENROLLED and not code:
            part.unchanged += lines
        elif status in _FOR_GOOD:
            part.bad[status, str(code), message] += lines
        else:
            del self._open[place]  # due again in the next run
            return
        self._settle(place)

    def _settle(self, place: int) -> None:
        part = self._open[place]
        if part.due or not part.compared:
            return
        counts = PartCounts(
            unchanged=part.unchanged,
            user_data_changed=part.user_data_changed,
            bad=[(status, code, said, n) for (status, code, said), n in part.bad.items()],
        )
        self._keeper.complete_part(part.number, part.digest, counts)
        del self._open[place]

    def whole(self) -> None:
        """The manifest has been scanned to its end."""
        self._whole = True
        if not self.recalled:
            self._record = replace(self._record, parts=self._scanned)
            self._keeper.save(self._record)

    def says(self, results: tuple[str, int, int] | None) -> bool:
        """Whether results of this path, size and time (ns) say what this run has found."""
        return self.all_quiet and results is not None and self._record.results == results

    def results_are(self, results: tuple[str, int, int] | None) -> None:
        """Remember the results that were written at the end."""
        if self._whole and self._record.results != results:
            self._record = replace(self._record, results=results)
            self._keeper.save(self._record)
