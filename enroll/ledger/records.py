"""What a ledger has on record, and how it differs from its library: values without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from enroll.errors import LedgerMismatchError
from enroll.expiry import DEFAULT_TIMEOUT, ClockOffsets
from enroll.model import (
    Candidate,
    Event,
    FaceRecord,
    PhotoRecord,
    RawAnswer,
    RowRecord,
    SendAs,
    Status,
    Surplus,
)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts at which a stand-in listens, and no service."""

RUN = "run"
"""The command of a run's record where nothing else is said."""

COPY = "ledger copy"
"""The command of the last record of a ledger that was copied to another place, and is written no
more. It is not copied itself."""

COPIED_TO = "the new ledger"
"""What that record calls the other place, among the files of the command."""

RESTORED = -1
"""What a hold remembers as the last run of a ledger that was restored from an old copy, or may have
been: no ledger has a run that began then."""

INTERRUPTED = "INTERRUPTED"
"""The code of a face whose call had not ended when its run did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryIdentity:
    """What identifies a library: the endpoint's host, the library's name, its creation time.

    The account is not stored: `add_time` distinguishes libraries of the same name in two accounts,
    and an account's key may be replaced while the library stays.
    """

    host: str
    group_id: str
    add_time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """What is known of a run, or of another command that writes, when it begins; `at` is UNIX ms.

    `options` are a record for people, without secrets: the code relies on none of them. What it
    does rely on has a field of its own. `timeout` and `settle_after` are seconds, `settle_after`
    None where the command has none. `scan_mark` is the fingerprint of the manifest and of the
    settings that decide about its rows, empty where no manifest was scanned. `photo_root` is
    the absolute path of the manifest's photos, empty without a manifest, and `photo_root_named`
    says that --images named it. `files` are those that the command wrote or was given, by what
    they are in words.
    """

    at: int
    host: str
    user: str
    pid: int
    version: str
    options: Mapping[str, Any]
    manifest: str = ""
    manifest_sha256: str = ""
    command: str = RUN
    endpoint: str = ""
    timeout: float = DEFAULT_TIMEOUT
    send_as: SendAs = SendAs.FILE
    settle_after: float | None = None
    scan_mark: str = ""
    photo_root: str = ""
    photo_root_named: bool = False
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended; `calls` by kind, `rows` by status; `limit` is the places in flight."""

    at: int
    exit_code: int
    reason: str
    calls: Mapping[str, int]
    rows: Mapping[str, int]
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPace:
    """How a run goes: places in flight (`limit`), those taken, and the account's limit as far as
    found; `spacing` is calls a second where they are spaced out. `calls` have been made, `refused`
    of them were. `waits_for` says in words what the run waits for, empty where nothing is known.
    """

    limit: int
    in_flight: int
    ceiling: int | None = None
    spacing: float | None = None
    calls: int = 0
    refused: int = 0
    waits_for: str = ""


Point = tuple[float, float, int, int]
"""A point of a run's course: seconds since it began to send, calls in flight on average since the
point before, and how many calls had been made and refused by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as the ledger remembers it; `end` is None while it goes on or when it was killed.

    `pace`, `course` and `offsets`, how the service's clock was judged, are as of its last commit.
    """

    run: int
    start: RunStart
    end: RunEnd | None
    pace: RunPace | None = None
    course: Sequence[Point] = ()
    offsets: ClockOffsets = field(default_factory=ClockOffsets)


class FindingKind(StrEnum):
    """What a search with a face's photo can find wrong."""

    LOOKALIKE = "lookalike"
    """A face of another person looks like it."""
    UNLIKE = "unlike"
    """Another face of the same person does not look like it."""
    NOT_ITSELF = "not_itself"
    """The library does not return the photo's own face first."""
    UNLIKE_BEFORE = "unlike_before"
    """A new photo looks like another person, and not like the person's present face."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong that a search with a face's photo has found.

    `other_token` and `other_user_id` are the other face's, as the library names it; both are empty
    where NOT_ITSELF found no face at all. `score` is 0 to 100, None where the search did not show
    the other face.
    """

    kind: FindingKind
    other_token: str
    other_user_id: str
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A search with a face's photo, and all that it has found wrong. It replaces what an earlier
    search has found.

    `face_token` is the face's own, None for a photo that is held; `at` is UNIX ms. `audited` is
    False for a search that was made before the face was added: others may have come since.
    """

    face_id: int
    face_token: str | None
    at: int
    run: int
    findings: Sequence[Finding] = ()
    audited: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A finding with both of its faces, as far as the ledger knows them.

    `status` is of the face with whose photo the library was searched: ENROLLED, SUPERSEDED or HELD;
    `other_status` is the other's, None where the ledger does not know that face.
    `image` and `other_image` are photos' paths as the manifest has them; they, `user_data` and
    `other_user_data` are empty where nothing is known, as of another program's face.
    """

    finding: Finding
    user_id: str
    user_data: str
    image: str
    status: Status
    face_token: str
    other_user_data: str
    other_image: str
    at: int
    run: int
    other_status: Status | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCounts:
    """What audits have come to: with how many of the enrolled faces the library was searched, and
    the current findings by kind, as `LedgerReader.pairs` has them."""

    audited: int = 0
    findings: Mapping[FindingKind, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be written in one go; a later change of the same thing wins.

    `surplus_gone` are tokens that are on record as surplus and no longer in the library.
    """

    faces: Sequence[FaceRecord] = ()
    rows: Sequence[RowRecord] = ()
    photos: Sequence[PhotoRecord] = ()
    events: Sequence[Event] = ()
    surplus: Sequence[Surplus] = ()
    surplus_gone: Sequence[str] = ()
    raw: Sequence[RawAnswer] = ()
    searched: Sequence[Searched] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the ledger says of a chunk of the manifest; counts are lines.

    `unchanged` are enrolled and their photos are as they were; of these, `user_data_changed`
    have another text in the manifest than the library. `gone` are enrolled and their photo is
    no longer there; `gone_from` counts them by folder. `early` are those that `add_early` has
    queued. Everything else is a candidate.
    """

    unchanged: int
    user_data_changed: int
    gone: int
    candidates: Sequence[Candidate]
    early: int = 0
    gone_from: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCount:
    """How many entries of a status bear a code, with one message for example."""

    status: Status
    code: str
    count: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatus:
    """What `enroll status` shows. `forgotten` people are withheld; of `unfinished` ones among them
    not everything is gone yet."""

    identity: LibraryIdentity
    photo_root: str
    counts: Mapping[Status, int]
    ceiling: int | None = None
    errors: Sequence[ErrorCount] = ()
    runs: Sequence[RunRecord] = ()
    raw: Sequence[RawAnswer] = ()
    forgotten: int = 0
    unfinished: int = 0
    audits: AuditCounts = field(default_factory=AuditCounts)

    @property
    def not_audited(self) -> int:
        """Enrolled faces with which no audit has searched the library."""
        return self.counts.get(Status.ENROLLED, 0) - self.audits.audited


class DifferenceKind(StrEnum):
    """How ledger and library can differ about one face."""

    UNKNOWN_FACE = "stranger"
    """The library holds a face that the ledger does not know."""
    UNSETTLED = "unsettled"
    """The same, of a person who has a face in doubt: a run settles it."""
    SURPLUS = "surplus"
    """The library still holds a copy that is on record as surplus."""
    MISSING = "missing"
    """The library does not hold a face that the ledger says is enrolled."""
    OTHER_USER_ID = "other_user_id"
    """The library holds the face under another `user_id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryDifference:
    """One face about which ledger and library differ.

    `user_id` is the ledger's, `library_user_id` the library's, each empty where it has no such
    face; `add_time` is the library's (UNIX ms); `image` is the photo's path, if a row has one.
    """

    kind: DifferenceKind
    face_token: str
    user_id: str = ""
    library_user_id: str = ""
    add_time: int | None = None
    image: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFace:
    """An enrolled face whose token the library does not hold; `asked` says that `face_info` has
    said so for this very token, and not only `list` by leaving it out."""

    face_id: int
    user_id: str
    face_token: str
    asked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownFace:
    """A face that the ledger does not know and that an attempt at `face`, once in doubt, may have
    added.

    The attempt was made between `earliest` and `latest` (UNIX ms, by our clock); `add_time` is
    the unknown face's, by the service's.
    """

    face: FaceRecord
    face_token: str
    add_time: int
    earliest: int
    latest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A face of the library that is to be deleted: one of the ledger's, or a copy on record.

    `run` is the number under which it is.
    """

    face_token: str
    face_id: int
    user_id: str
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What a choice of faces comes to: `faces` to delete, of `people`; `open` are further faces of
    these people that are in doubt."""

    faces: int
    people: int
    open: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCopy:
    """A copy on record as surplus, and the face that it is a copy of.

    `own` is that face's own token, if it has one; `own_there` says whether the library holds
    that, and is None where nothing is known of it. `wanted` says that the face is to be in the
    library.
    """

    face_token: str
    face_id: int
    own: str | None
    own_there: bool | None
    wanted: bool

    @property
    def spare(self) -> bool:
        """Whether the library is known to be no poorer without this copy."""
        return self.own_there is True or not self.wanted


def check_library(path: Path, found: LibraryIdentity, wanted: LibraryIdentity) -> None:
    """Raise LedgerMismatchError unless the ledger at `path` is of the library that is wanted, whose
    creation time is not compared where it is not known yet (empty)."""
    if found != replace(wanted, add_time=wanted.add_time or found.add_time):
        raise LedgerMismatchError(_other_library(path, found, wanted))


def _other_library(path: Path, found: LibraryIdentity, wanted: LibraryIdentity) -> str:
    rehearsal = ""
    if (found.host, found.group_id) == (wanted.host, wanted.group_id):
        difference = (
            f"the library {found.group_id} as it was created at {found.add_time}, and the one "
            f"there now was created at {wanted.add_time}"
        )
        if wanted.host in LOOPBACK:
            rehearsal = (
                " A stand-in without --store forgets its libraries when it stops: start it with "
                "--store, or take a new ledger for each."
            )
    else:
        difference = (
            f"the library {found.group_id} at {found.host}, not to {wanted.group_id} at "
            f"{wanted.host}"
        )
    return (
        f"The ledger {path} belongs to {difference}. Nothing was sent. Give this library its own "
        f"ledger with --ledger, or correct --group-id and --endpoint.{rehearsal}"
    )


def copied_to(last: RunRecord | None) -> str | None:
    """Where the ledger that ends with this record was copied to, or was being; None if it was
    not."""
    if last is None or last.start.command != COPY:
        return None
    return last.start.files[COPIED_TO]


def check_not_copied(path: Path, last: Sequence[RunRecord]) -> None:
    """Raise LedgerMismatchError for a ledger that was copied to another place, where it goes on.
    `last` is its last record, if it has any."""
    for run in last:
        if (place := copied_to(run)) is None:
            continue
        if run.end is None:
            raise LedgerMismatchError(
                f"The ledger {path} was being copied to {place} when the command was cut off. Run "
                f"`enroll ledger copy` with the same two again."
            )
        raise LedgerMismatchError(
            f"The ledger {path} was copied to {place} at {iso_time(run.end.at)}, and only that one "
            "may go on: two ledgers of one library would add people twice. Name it with --ledger."
        )


def iso_time(at: int | None) -> str:
    """UNIX ms as ISO 8601 in UTC, to the second; empty for None."""
    return "" if at is None else _second(at // 1000)


@lru_cache(maxsize=64)  # many faces are enrolled in the same second
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown_path(path: str, photo_root: str) -> str:
    """A photo's path as a manifest would say it: relative to the photos' folder, if below it.
    Everything is below `/`."""
    below = photo_root.rstrip("/") + "/"
    return path[len(below) :] if below != "/" and path.startswith(below) else path
