"""What a report for people says: counted and kept in one pass over its lines. No output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enroll.errors import LocalError, ManifestError, UsageError
from enroll.ledger import LedgerReader, LibraryIdentity, RunRecord, read_ledger
from enroll.manifest.manifest import Manifest
from enroll.model import Status
from enroll.photos import PhotoStore
from enroll.report.lines import Line, Origin, find_manifest, origin_of
from enroll.report.pairs import FacePair, PairGroup, PairsOfFaces
from enroll.visible import path_text, visible

KEPT_LINES = 50_000
"""The most lines that need attention in a report, and the most other lines: a browser searches and
sorts them within a tenth of a second. `enroll export` writes all."""

SAME_KEPT, PEOPLE_KEPT = 2_000, 20
"""Groups of identical photos that are named, and people of each."""

MOST_VALUES = 1_000
"""Values of the column --by: a table of more helps nobody, and --split writes a file for each."""

RUNS_SHOWN = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a report is to be about; docs/reference.md describes each option."""

    ledger: Path
    manifest: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the manifest, as `open_manifest` takes them."""
    images: Path | None = None
    by: str | None = None
    split: bool = False
    statuses: frozenset[Status] = frozenset()
    mask: bool = False


@dataclass(frozen=True, slots=True)
class SamePhoto:
    """A photo that is enrolled for several people: the first of its lines, and how many there
    are."""

    lines: Sequence[Line]
    count: int


@dataclass(slots=True)
class Scope:
    """All that one file says: of every line, or of those with one `value` of --by.

    The counts are complete. `attention`, by reason, and `others` hold only some of the lines.
    `more_same` says that there may be further photos like those in `same`, and `more_pairs` that
    there are further pairs of faces.
    """

    value: str | None = None
    statuses: Counter[Status] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    edits: Counter[str] = field(default_factory=Counter)
    groups: dict[str, Counter[Status]] = field(default_factory=dict)
    attention: dict[str, list[Line]] = field(default_factory=dict)
    others: list[Line] = field(default_factory=list)
    same: list[SamePhoto] = field(default_factory=list)
    more_same: bool = False
    pairs: dict[PairGroup, list[FacePair]] = field(default_factory=dict)
    pair_counts: Counter[PairGroup] = field(default_factory=Counter)
    more_pairs: bool = False

    @property
    def total(self) -> int:
        """Lines in all."""
        return self.statuses.total()

    @property
    def in_need(self) -> int:
        """Lines that need a person."""
        return self.reasons.total()

    def by_reason(self) -> list[tuple[str, list[Line]]]:
        """The lines that need a person and are kept, by their reasons, the most frequent first."""
        return [(reason, self.attention[reason]) for reason, _ in self.reasons.most_common()]

    def add_pair(self, pair: FacePair) -> None:
        """Count and keep a pair of faces."""
        self.pair_counts[pair.group] += 1
        self.pairs.setdefault(pair.group, []).append(pair)

    def all_pairs(self) -> list[FacePair]:
        """The pairs that are kept, group by group."""
        return [pair for pairs in self.pairs.values() for pair in pairs]

    def halve_pairs(self) -> None:
        """Keep the first half of the pairs in each group."""
        for group, pairs in self.pairs.items():
            self.pairs[group] = pairs[: len(pairs) // 2]

    def halve_same(self) -> None:
        """Keep the first half of the groups of identical photos."""
        self.same, self.more_same = self.same[: len(self.same) // 2], True

    def add(self, line: Line, *, most: int) -> None:
        """Count a line, and keep it if it is among the first `most` of its kind."""
        self.statuses[line.status] += 1
        self.groups.setdefault(line.group, Counter())[line.status] += 1
        if line.status is Status.ENROLLED:
            self.edits[line.prepared] += 1
        if reason := line.reason:
            self.reasons[reason] += 1
            kept = self.attention.setdefault(reason, [])
            if self.in_need <= most:
                kept.append(line)
        elif len(self.others) < most and line.status is not Status.WITHHELD:
            self.others.append(line)  # who was forgotten is counted, and not named


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found, for one file or for several.

    `manifest` is its path, empty if the lines are the ledger's; `missing` says why, if there should
    be one. `options` are those that it was opened with. `by` is the name of the column. `stray` is
    how many pairs of faces are in no scope, as neither person has a row.
    """

    identity: LibraryIdentity
    runs: Sequence[RunRecord]
    manifest: str
    missing: str
    options: Mapping[str, Any]
    photos: PhotoStore | None
    by: str
    scopes: Sequence[Scope]
    stray: int


@dataclass(slots=True)
class _Alike:
    """The lines of one photo, as they come."""

    people: set[str] = field(default_factory=set)
    lines: list[Line] = field(default_factory=list)
    scopes: dict[int, Scope] = field(default_factory=dict)
    count: int = 0

    def add(self, user_id: str, line: Line, scope: Scope) -> None:
        self.count += 1
        self.scopes[id(scope)] = scope
        if len(self.lines) < PEOPLE_KEPT:
            self.people.add(user_id)
            self.lines.append(line)


def gather(asked: Asked) -> Findings:
    """Read ledger and manifest. Raises UsageError for what cannot be reported on."""
    with closing(read_ledger(asked.ledger)) as reader:
        return _gathered(reader, asked)


def _gathered(reader: LedgerReader, asked: Asked) -> Findings:
    origin, missing = _origin(reader, asked)
    values = origin.values()
    if len(values) > MOST_VALUES:
        raise UsageError(
            f"The column {asked.by!r} has {len(values):,} values, and --by takes one with at most "
            f"{MOST_VALUES:,}. Name another column."
        )
    if asked.mask and origin.manifest is not None and origin.by == origin.manifest.image_column:
        raise UsageError(
            f"The column {asked.by!r} has photos' paths, which may have user ids in them, and "
            "--mask hides those: name another column."
        )
    scopes = [Scope(value) for value in values if asked.split] or [Scope()]
    repeated = reader.repeated_photos(most=SAME_KEPT)
    alike = {sha256: _Alike() for sha256 in repeated}
    pairs = _pairs(origin, asked)
    hidden = frozenset(values) if asked.mask else frozenset()
    _count(origin, asked, scopes, alike=alike, pairs=pairs, hidden=hidden)
    for one in alike.values():
        if len(one.people) > 1:
            for scope in one.scopes.values():
                scope.same.append(SamePhoto(one.lines, one.count))
                scope.more_same = len(repeated) == SAME_KEPT
    manifest = origin.manifest
    return Findings(
        identity=reader.identity(),
        runs=reader.runs(RUNS_SHOWN),
        manifest="" if manifest is None else path_text(manifest.path.absolute()),
        missing=missing,
        options=origin.options,
        photos=origin.photos,
        by="" if origin.by is None else visible(origin.by.strip()),
        scopes=scopes,
        stray=_add_pairs(pairs, scopes, asked),
    )


def _pairs(origin: Origin, asked: Asked) -> PairsOfFaces:
    """The ledger's pairs, whose paths are relative to where its last run had its photos."""
    reader = origin.reader
    root = "" if reader.photo_root == origin.root else reader.photo_root
    return PairsOfFaces(reader.pairs(), asked.statuses, root=root, masked=asked.mask)


def _add_pairs(pairs: PairsOfFaces, scopes: Sequence[Scope], asked: Asked) -> int:
    """Put every pair into the scopes of both people; returns how many are in none."""
    of_value = {scope.value: scope for scope in scopes}
    stray = 0
    for pair in pairs.shown():
        if not asked.split:
            scopes[0].add_pair(pair)
            continue
        stray += not pair.values
        for value in pair.values:
            of_value[value].add_pair(pair.of_file(value, masked=asked.mask))
    for scope in scopes:
        scope.more_pairs = pairs.more
    return stray


def _count(
    origin: Origin,
    asked: Asked,
    scopes: Sequence[Scope],
    *,
    alike: Mapping[str, _Alike],
    pairs: PairsOfFaces,
    hidden: frozenset[str],
) -> None:
    """Put every line into its scope, with those of the same photo, and with its person's pairs.
    Raises UsageError for a user id that is a value of --by, where these are to be `hidden`, or
    would be in a file's name."""
    of_value = {scope.value: scope for scope in scopes}
    most = max(KEPT_LINES // len(scopes), 200)
    for entry, value, line in origin.lines():
        asked_for = not asked.statuses or line.status in asked.statuses
        paired = entry.user_id in pairs.people
        if not (asked_for or paired):
            continue
        named = asked.split and line.group != value  # masked, as it has the user id in it
        if hidden and (named or (entry.user_id and entry.user_id in hidden)):
            raise UsageError(
                f"The column {asked.by!r} has user ids, and --mask hides them: leave out one."
            )
        if paired:
            pairs.add(entry.user_id, value, line)
        if not asked_for:
            continue
        scope = of_value.get(value, scopes[0])
        scope.add(line, most=most)
        if entry.sha256 in alike and line.status is Status.ENROLLED:
            alike[entry.sha256].add(entry.user_id, line, scope)


def _origin(reader: LedgerReader, asked: Asked) -> tuple[Origin, str]:
    """Where the lines are, and why there is no manifest although a run had one."""
    missing = ""
    try:
        manifest, options = find_manifest(reader, asked.manifest, asked.options)
        if manifest is not None:
            return _of(reader, manifest, options, asked), ""
    except (ManifestError, LocalError) as error:
        if asked.manifest is not None or asked.by is not None:
            raise
        missing = str(error)
    if asked.by is not None:
        raise UsageError("No run of this ledger had a manifest. Name one with --manifest FILE.")
    return _of(reader, None, {}, asked), missing


def _of(
    reader: LedgerReader, manifest: Manifest | None, options: Mapping[str, Any], asked: Asked
) -> Origin:
    return origin_of(reader, manifest, options, images=asked.images, by=asked.by, masked=asked.mask)
