"""What a ledger has on record, how it differs from a library or a manifest: values without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
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


class DifferenceKind(StrEnum):
    """How ledger and library can differ about one face."""

    STRANGER = "stranger"
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
class Difference:
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
class Suspect:
    """A stranger that a doubtful attempt at `face` may have left behind.

    The attempt was made between `earliest` and `latest` (UNIX ms, by our clock); `add_time` is
    the stranger's, by the service's.
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


class ChangeKind(StrEnum):
    """How a manifest can differ from the ledger, or what is to be known of it."""

    JOINER = "joiner"
    """A row of somebody who has no face in the library."""
    PHOTO = "photo"
    """A row of somebody who has one, with a photo that is new."""
    USER_DATA = "user_data"
    """A row with another text than its face has in the library."""
    OLD = "old"
    """A face of somebody in the manifest to which no row leads any more."""
    LEAVER = "leaver"
    """A face of somebody who does not stand in the manifest."""
    MISSING = "missing"
    """A row whose photo is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One row or face by which manifest and ledger differ; `line` is the manifest's, 0 for a face.

    `face_token` is the one in the library, if there is one; `since` is when somebody was first
    found gone (UNIX ms).
    """

    kind: ChangeKind
    user_id: str
    user_data: str
    image: str
    face_token: str = ""
    since: int | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The difference between a manifest and a ledger.

    `first`: no sync has gone through a manifest yet. `rows` are the manifest's lines, `missing`
    those whose photo is not there; `listed` are its people, `people` those of whom the ledger knows
    a face in the library. `joiners`, `photos` and `user_data` are rows to be added (anew),
    `joining` people; `emptied` are those of `user_data` whose text becomes empty, `held_back`
    further rows with another text, which cannot be added as their photo is not there. `dropped` are
    faces of people in the manifest that go without another in their place, `superseded` those in
    whose place another command than a sync has put others. Of people who do not stand in it,
    `newly_gone` are so for the first time, `waiting` not for long enough to be removed, `leaving`
    are to be removed now, `together` the most of these whom one sync has found gone; `returned` had
    gone and are there again.
    """

    first: bool = False
    rows: int = 0
    missing: int = 0
    listed: int = 0
    people: int = 0
    joiners: int = 0
    joining: int = 0
    photos: int = 0
    user_data: int = 0
    emptied: int = 0
    held_back: int = 0
    dropped: int = 0
    superseded: int = 0
    newly_gone: int = 0
    waiting: int = 0
    leaving: int = 0
    together: int = 0
    returned: int = 0

    def figures(self) -> dict[str, int]:
        """The numbers by their names, but for those that are only judged by."""
        told = asdict(self)
        del told["first"], told["together"]
        return told

    @property
    def added(self) -> int:
        """Faces that are to be added."""
        return self.joiners + self.photos + self.user_data

    @property
    def removed(self) -> int:
        """People whom one sync has found gone, and further faces, that are to be removed now.

        Where nights end early leavers of several come together, each of which was judged.
        """
        return self.together + self.dropped + self.superseded


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The difference in numbers, and what was deleted.

    `people` were removed, with `faces` of theirs; `replaced` are faces of people in the manifest
    that were deleted. `kept` people have a face yet that is to go, because another of their rows is
    not enrolled, or as the sync has not come to it. `other_manifest` is as of
    `Signs`; `notes` are what is to be said of the manifest where no run says it.
    """

    counted: Counted
    people: int = 0
    faces: int = 0
    replaced: int = 0
    kept: int = 0
    other_manifest: str = ""
    notes: Sequence[str] = ()

    @property
    def deleted(self) -> int:
        """Faces that were deleted."""
        return self.faces + self.replaced

    def figures(self) -> Mapping[str, int]:
        """Every number by its name."""
        return {
            **self.counted.figures(),
            "removed_people": self.people,
            "removed_faces": self.faces,
            "replaced_faces": self.replaced,
            "kept_people": self.kept,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What may be the reason of a difference that is too large.

    Of those who are newly gone `zeros_lost` stand in the manifest with more or fewer zeros in
    front; `behind` says that nearly all of them were enrolled behind those who are listed: the file
    may have ended too early. `swapped` is in how many of a hundred rows the user id is a text of
    the ledger, or a photo's name. `other_manifest` is the one that those who are gone stand in, if
    it is another and hardly anybody else does; else empty.
    """

    zeros_lost: int = 0
    swapped: int = 0
    behind: bool = False
    other_manifest: str = ""


@dataclass(frozen=True, slots=True)
class UnreadFile:
    """A row's photo that has to be read to know whether it is another than before."""

    user_id: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile:
    """The same when it was read: its content (SHA-256), and the person's face with it, if any;
    `unusable` is what is no photo that can be sent."""

    user_id: str
    path: str
    sha256: bytes | None = None
    face_id: int | None = None
    unusable: bool = False
