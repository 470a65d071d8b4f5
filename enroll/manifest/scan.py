"""Scans the manifest: its rows with their photos' paths and times, one part at a time."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from zlib import crc32

from enroll import clock
from enroll.addresses import is_url, path_of, resolved
from enroll.errors import EnrollError, LocalError, ShortageError, UsageError
from enroll.ledger import (
    BlockList,
    LedgerReader,
    Packed,
    Part,
    PartCounts,
    digest_of,
    pack,
    unpack,
)
from enroll.manifest.embedded import EMBEDDED_ROOT
from enroll.manifest.manifest import Manifest
from enroll.manifest.suspects import NONE, Suspects, SuspectSearch
from enroll.model import FileTimes, Row, ScannedRow
from enroll.ownership import pasteable
from enroll.photos import LEAST_TOGETHER, PhotoStore, open_store, reconnect
from enroll.threads import Threads
from enroll.visible import path_text

ROWS_TRIED = 20
"""How many rows' photos are looked for in the manifest's own folder, to see whether it has any."""


class FolderGoneError(LocalError):
    """The photos' folder existed in an earlier run, and is missing."""


class NoFolderError(UsageError):
    """The photos' folder is missing, and no earlier run used it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenStore:
    """Where a manifest's photos are. `named` says that --images named it, now or in an earlier run;
    `inherited` that an earlier run chose it, `inside` that the manifest holds them. `manifest` has
    found its photos there. `notes` are for the user."""

    manifest: Manifest
    store: PhotoStore
    named: bool
    inherited: bool
    inside: bool = False
    notes: Sequence[str] = ()


ANYWHERE = Path("/")
"""Below it are all photos, so it says nothing of where relative paths start, and is not recorded as
what --images named last."""


def choose_photo_store(given: Path | None, manifest: Manifest, ledger: LedgerReader) -> ChosenStore:
    """The folder of this manifest's photos; `given` is --images, without effect where the manifest
    is made of the photos themselves.

    Without it, the manifest itself if that holds the photos, else what the last run of the same
    manifest used; for a manifest that is new to the ledger, as a dated export is, the folder that
    --images named last, else the manifest's own.
    Raises UsageError when the manifest's own folder has such photos too, as other people's might be
    enrolled, and for a folder that no run has used; LocalError for one that an earlier run used.
    """
    found = _choose(given, manifest, ledger)
    manifest = manifest.located(found.store)
    if (photos := manifest.found) is None:
        return found
    notes = [*found.notes, *photos.notes]
    return replace(found, manifest=manifest, store=photos.explained(found.store), notes=notes)


def photo_root(given: Path | None, manifest: Manifest, ledger: LedgerReader) -> str:
    """Where that folder is. Raises the same."""
    return _choose(given, manifest, ledger).store.root


def _choose(given: Path | None, manifest: Manifest, ledger: LedgerReader) -> ChosenStore:
    chosen = partial(ChosenStore, manifest=manifest)
    before = ledger.photo_root_of(path_text(manifest.path.absolute()))
    itself = given is None or manifest.is_photos or manifest.listing is not None
    if itself and (store := manifest.store) is not None:
        notes = [] if given is None else ["--images has no effect: the manifest holds its photos."]
        found = chosen(store=store, named=False, inherited=False, inside=True, notes=notes)
        return _checked(found, known=(before[0] if before else "",))
    own = resolved(manifest.path.parent)
    if before is not None and before[0] == EMBEDDED_ROOT:
        before = None  # it held the photos itself
    last_named = ledger.named_photo_root
    if given is not None:
        named = given != ANYWHERE
        found = chosen(store=open_store(resolved(given)), named=named, inherited=False)
    elif before is not None:
        path, named = path_of(before[0]), before[1]
        notes = [] if path == own else [f"Photos are read from {path}, as in the last run."]
        found = chosen(store=open_store(path), named=named, inherited=bool(notes), notes=notes)
    elif last_named and path_of(last_named) != own:
        _refuse_two(manifest, own, path_of(last_named))
        note = f"Photos are read from {last_named}, as named in an earlier run."
        store = open_store(last_named)
        found = chosen(store=store, named=True, inherited=True, notes=[note])
    else:
        found = chosen(store=open_store(own), named=bool(last_named), inherited=False)
    return _checked(found, known=(last_named, ledger.photo_root, before[0] if before else ""))


def _refuse_two(manifest: Manifest, own: Path, named: Path) -> None:
    store = open_store(own)
    with suppress(EnrollError):  # a folder of other things, which cannot all be listed
        manifest = manifest.located(store)
    rows = next(manifest.rows(ROWS_TRIED), [])
    relative = [row.image for row in rows if row.image and not row.image.startswith("/")]
    if _has_photo(store.stat([store.locate(image) for image in relative])):
        raise UsageError(
            f"The photos of {manifest.path} may be those below {own}, the manifest's own folder, "
            f"or those below {named}, which --images named in an earlier run of another manifest. "
            f"Choose one: {pasteable('--images', own)} or {pasteable('--images', named)}."
        )


def _checked(found: ChosenStore, *, known: tuple[str, ...]) -> ChosenStore:
    root = found.store.root
    if path_text(root) != root:
        raise UsageError(
            f"The name of the photos' folder {path_text(root)} is not in UTF-8, as the manifest's "
            "paths are. Rename the folder, or name another with --images."
        )
    if not found.store.is_gone():
        found.store.check()
        if is_url(root) and root not in known and found.store.is_empty():
            given = "the address" if found.inside else "--images"
            raise NoFolderError(f"There is nothing below {root}. Correct {given}.")
        return found
    if root in known:
        raise FolderGoneError(
            f"The photos' folder {root} is gone; it was there in an earlier run. "
            f"{reconnect(root)}, then run the same command; every row stays due."
        )
    if Path(root).exists():
        raise NoFolderError(
            f"The photos' folder {root} is not a folder. Correct --images: it names the folder "
            "that relative photo paths start from."
        )
    kind = "bucket" if is_url(root) else "folder"
    raise NoFolderError(f"The photos' {kind} {root} does not exist. Correct --images.")


CHUNK_ROWS = 2_000
"""Rows scanned at a time: some 20 ms of work, so that calls that end meanwhile do not wait long."""

LEAST_ROWS, MOST_ROWS, MEAN_ROWS = 500, 4_000, 1_500
"""Of a part; from the least on, a part ends after so many more on average."""


def in_parts(chunks: Iterator[Sequence[Row]]) -> Iterator[list[Row]]:
    """The rows in parts whose ends depend on the rows near them: a row that comes or goes changes
    the part that it is in, and seldom another."""
    part: list[Row] = []
    for rows in chunks:
        for row in rows:
            part.append(row)
            if len(part) >= LEAST_ROWS and (len(part) == MOST_ROWS or _ends_a_part(row)):
                yield part
                part = []
    if part:
        yield part


def _ends_a_part(row: Row) -> bool:
    return crc32(f"{row.user_id} {row.image}".encode(errors="replace")) % MEAN_ROWS == 0


SLOW_SECONDS = 100e-6
"""If a photo takes longer than this, the store waits for a network, and threads are used. An
`lstat` on a disk whose folders are cached takes 3 us, with or without threads."""

TRIED = 32
"""How many photos of each part are used to measure the store's speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A scanned part of the manifest: `rows`, or only its counts where nothing has changed.

    `lines` counts its rows, including `withheld` ones, which are not in `rows`; `packed` is the
    part for the scan cache, None where the cache has it; `any_photo` says whether any row has a
    photo.
    """

    lines: int
    first_line: int
    digest: bytes
    any_photo: bool
    withheld: int = 0
    rows: Sequence[ScannedRow] = ()
    quiet: PartCounts | None = None
    packed: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPart:
    """A part of the scan cache whose photos were looked at again; `same` if none of them has
    changed since, `quiet` are its counts if it was settled, too."""

    known: Packed
    first_line: int
    paths: Sequence[str]
    times: array[int]
    digest: bytes
    same: bool
    quiet: PartCounts | None

    def rows(self, people: Set[str] | None = None) -> list[ScannedRow]:
        """Its rows, or those of some people."""
        if people is None:
            return _rows(_packed_rows(self.known), self.paths, self.times)
        places = _places(self.known, people)
        times = array("q", (x for n in places for x in self.times[3 * n : 3 * n + 3]))
        return _rows(_packed_rows(self.known, places), [self.paths[n] for n in places], times)

    def scanned(self) -> Scanned:
        """The part as scanned: with its rows, unless it is quiet."""
        return Scanned(
            lines=len(self.known.lines) + self.known.withheld,
            first_line=self.first_line,
            digest=self.digest,
            any_photo=_has_photo(self.times),
            withheld=self.known.withheld,
            rows=() if self.quiet is not None else self.rows(),
            quiet=self.quiet,
        )


class Scan:
    """Reads the manifest in parts. Each `next_part` may run on another thread."""

    def __init__(
        self,
        chunks: Iterator[Sequence[Row]],
        store: PhotoStore,
        *,
        concurrency: int = 16,
        forgotten: BlockList | None = None,
        renews: bool = False,
        quiet: Mapping[int, Scanned] | None = None,
        suspects: Suspects | None = None,
    ) -> None:
        """`concurrency` is how many photos are looked up at a time when their store is slow; rows
        of `forgotten` people are only counted. With `renews` no part is quiet in which a row has
        another text than its face, or ended badly. If the command has looked at the parts of the
        scan cache already, `quiet` are those of which no row is due; all others are compared.
        `suspects` are known already if the scan was carried over from another manifest."""
        self._chunks = chunks
        self._forgotten = forgotten or BlockList()
        self._store = store
        self._renews = renews
        self._quiet = quiet
        self._concurrency = concurrency
        self._pool: Threads | None = None
        self._suspects = SuspectSearch()
        self.suspects = suspects or NONE
        """Whole after the last chunk or part."""
        self.carried_over = suspects is not None

    def close(self) -> None:
        """Shut down the threads, if there are any."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def next_chunk(self) -> list[ScannedRow] | None:
        """The next rows, or None after the last one. Raises LocalError when the store is gone."""
        rows = next(self._chunks, None)
        if rows is None:
            self.suspects = self._suspects.found()
            return None
        paths, times = self._photos(rows)
        self._suspects.add(rows, paths)
        return _rows(rows, paths, times)

    def next_part(self) -> Scanned | None:
        """The next rows as a part for the scan cache, or None after the last one."""
        found = next(self._chunks, None)
        if found is None:
            self.suspects = self._suspects.found()
            return None
        rows, withheld = self._forgotten.part(found)
        first_line = found[0].line if found else 0
        paths, times = self._photos(rows)
        self._suspects.add(rows, paths)
        return Scanned(
            lines=len(found),
            first_line=first_line,
            digest=digest_of(times),
            any_photo=_has_photo(times),
            withheld=len(withheld),
            rows=_rows(rows, paths, times),
            packed=pack(rows, first_line=first_line, withheld=len(withheld)),
        )

    def _photos(self, rows: Sequence[Row]) -> tuple[list[str], array[int]]:
        """The photos' paths and their times."""
        paths = [self._store.locate(row.image) for row in rows]
        return paths, self._times(paths)

    def look_again(self, part: Part) -> SeenPart:
        """Look at the photos of a part of the scan cache of the same manifest."""
        known = unpack(part.rows, first_line=part.first_line)
        paths = [self._store.locate(image) for image in known.images]
        times = self._times(paths)
        digest = digest_of(times)
        same = digest == part.digest
        return SeenPart(
            known=known,
            first_line=part.first_line,
            paths=paths,
            times=times,
            digest=digest,
            same=same,
            quiet=part.counts if same else None,
        )

    def rows_of(self, part: Part, people: Set[str]) -> list[ScannedRow]:
        """The rows of some people in a part of the scan cache."""
        known = unpack(part.rows, first_line=part.first_line)
        rows = _packed_rows(known, _places(known, people))
        return _rows(rows, *self._photos(rows))

    def times(self, images: Sequence[str]) -> array[int]:
        """Size and times of each photo."""
        return self._times([self._store.locate(image) for image in images])

    def quiet_part(self, number: int) -> Scanned | None:
        """A part of the scan cache that the command has just seen to be quiet."""
        return None if self._quiet is None else self._quiet.get(number)

    def same_part(self, part: Part) -> Scanned:
        """A part of the scan cache of the same manifest, scanned again."""
        seen = self.look_again(part)
        differs = self._renews and seen.quiet and (seen.quiet.user_data_changed or seen.quiet.bad)
        if differs or self._quiet is not None:
            seen = replace(seen, quiet=None)
        return seen.scanned()

    def _times(self, paths: Sequence[str]) -> array[int]:
        """Size and times of each photo; looked up in threads when the store is slow."""
        began = clock.monotonic()
        times = self._store.stat(paths[:TRIED])
        rest = paths[TRIED:]
        if clock.monotonic() - began <= SLOW_SECONDS * TRIED or not rest:
            times += self._store.stat(rest)
            return times
        for some in self._stat_in_threads(rest):
            times += some
        return times

    def _stat_in_threads(self, paths: Sequence[str]) -> Iterator[array[int]]:
        try:
            self._pool = self._pool or Threads(self._concurrency)
        except ShortageError:  # no thread is available, so they are looked up here
            return iter([self._store.stat(paths)])
        whole, count = len(paths), max(min(self._concurrency, len(paths) // LEAST_TOGETHER), 1)
        ends = [whole * number // count for number in range(count + 1)]
        parts = [paths[at:end] for at, end in pairwise(ends)]
        return self._pool.map(self._store.stat, parts)


def _has_photo(times: array[int]) -> bool:
    return max(times[::3], default=-1) >= 0  # sizes


def _places(known: Packed, people: Set[str]) -> list[int]:
    return [place for place, one in enumerate(known.user_ids) if one in people]


def _packed_rows(known: Packed, places: Iterable[int] | None = None) -> list[Row]:
    lines, ids, texts, images = known.lines, known.user_ids, known.user_data, known.images
    return [
        Row(line=lines[n], user_id=ids[n], user_data=texts[n], image=images[n])
        for n in (range(len(lines)) if places is None else places)
    ]


def _rows(rows: Sequence[Row], paths: Sequence[str], times: array[int]) -> list[ScannedRow]:
    scanned = []
    for number, (row, path) in enumerate(zip(rows, paths, strict=True)):
        size, mtime_ns, ctime_ns = times[3 * number : 3 * number + 3]
        scanned.append(
            ScannedRow(
                line=row.line,
                user_id=row.user_id,
                user_data=row.user_data,
                image=row.image,
                path=path,
                times=None if size < 0 else FileTimes(size, mtime_ns, ctime_ns),
            )
        )
    return scanned
