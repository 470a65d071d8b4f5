"""What a ledger has on record of runs, rows and faces, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from enroll.model import (
    Candidate,
    Event,
    FaceRecord,
    PhotoRecord,
    RawAnswer,
    RowRecord,
    Status,
    Surplus,
)

SURVEY = "survey"
"""Among the options of a run on record: the mark of its manifest's survey."""


INTERRUPTED = "INTERRUPTED"
"""The code of a face whose call had not ended when its run did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryIdentity:
    """What tells a library from all others: host of the endpoint, name, creation time.

    The account is not kept: `add_time` tells two accounts' libraries of one name apart, and a
    key may be exchanged while the library stays.
    """

    host: str
    group_id: str
    add_time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """What is known of a run when it begins; `options` without secrets; `at` is UNIX ms."""

    at: int
    host: str
    user: str
    pid: int
    version: str
    manifest: str
    manifest_sha256: str
    options: Mapping[str, Any]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as the ledger remembers it; `end` is None while it goes on or when it was killed.

    `pace` is as of its last commit; `clock_offset` is the highest that the service's clock minus
    ours, in seconds, was found to be by then.
    """

    run: int
    start: RunStart
    end: RunEnd | None
    pace: RunPace | None = None
    clock_offset: float = 0.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the ledger says of a chunk of the manifest; counts are lines.

    `unchanged` are enrolled and their photos are as they were; of these, `user_data_changed`
    have another text in the manifest than the library. `gone` are enrolled and their photo is
    no longer there; `gone_from` counts them by folder. `early` are those that `queue_early` has
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
    images: str
    counts: Mapping[Status, int]
    ceiling: int | None = None
    errors: Sequence[ErrorCount] = ()
    runs: Sequence[RunRecord] = ()
    raw: Sequence[RawAnswer] = ()
    forgotten: int = 0
    unfinished: int = 0
