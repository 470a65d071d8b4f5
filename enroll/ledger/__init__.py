"""The durable record of one library, whatever manifests fed it.

`Ledger` is what the driver needs of a database; a module beside `sqlite` that offers the same
makes another database usable. Nothing here imports SQLAlchemy, so that `enroll --help` is quick.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from enroll.blocklist import BlockList
from enroll.model import (
    Candidate,
    Entry,
    Event,
    FaceRecord,
    LibraryFace,
    PhotoRecord,
    RawAnswer,
    RowRecord,
    ScannedRow,
    SharedPhoto,
    Status,
    Surplus,
)
from enroll.survey import SurveyKeeper

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

    `pace` is as of its last commit; `clock_offset` is the service's clock minus ours as it was
    found when it began, in seconds.
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
    no longer there. `early` are those that `queue_early` has queued. Everything else is a
    candidate.
    """

    unchanged: int
    user_data_changed: int
    gone: int
    candidates: Sequence[Candidate]
    early: int = 0


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
    `joining` people; `emptied` are those of `user_data` whose text becomes empty. `dropped` are
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
    dropped: int = 0
    superseded: int = 0
    newly_gone: int = 0
    waiting: int = 0
    leaving: int = 0
    together: int = 0
    returned: int = 0

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


class Following(Protocol):
    """A manifest that is held against the ledger as a whole, and what is remembered of it.

    What it was given is gone with the process; what `accept` remembers goes with the next commit.
    """

    @property
    def went_through(self) -> bool:
        """Whether a sync has come to the end of its manifest before."""

    def take(self, rows: Sequence[ScannedRow]) -> None:
        """Remember rows of the manifest."""

    def know_photos(self, *, reread: bool) -> None:
        """All rows are there: find the content of photos that are as they were, with `reread` of
        none."""

    def unread(self, *, after: tuple[str, str], most: int) -> list[UnreadFile]:
        """Some of the others, of people who have a face, in order of user_id and path, from behind
        `after` on."""

    def read(self, files: Iterable[ReadFile]) -> None:
        """Remember what has been read."""

    def compare(self, *, now: int, cutoff: int, withheld: BlockList) -> None:
        """Find the difference; who is gone since before `cutoff` is to be removed (UNIX ms).
        People who are `withheld` are not gone: to delete their faces is for `enroll forget`."""

    def counted(self) -> Counted:
        """The difference in numbers, but for those who are there again."""

    def changes(self, kinds: Sequence[ChangeKind] = ..., *, images: str) -> Iterator[Change]:
        """The difference itself, photos as a manifest says them whose relative paths begin at the
        folder `images`."""

    def accept(self, run: int) -> None:
        """Remember who has gone, and what is to be added and deleted."""

    def unmark(self) -> int:
        """Forget of those who are there again that they had gone; how many these are."""

    def tidy(self) -> None:
        """Forget of this what has been done."""

    def kept(self) -> int:
        """How many people in the manifest have a face that is to go and is there yet."""

    def behind(self) -> int:
        """How many people have an enrolled face whose new text could not be sent yet, because the
        face had just been found to bear another."""

    def signs(self, *, manifest: str) -> Signs:
        """What may be the reason of a difference from this manifest (an absolute path)."""

    def other_manifest(self, manifest: str) -> str:
        """The same as of the signs."""


class Removals(Protocol):
    """Faces that are deleted from the library. What changes goes with the next commit."""

    def choose_run(self, run: int) -> Chosen:
        """Choose the faces that a run has added and that are still there, with their copies."""

    def choose_superseded(self) -> Chosen:
        """Choose the faces to which no row points any more, with their copies."""

    def choose_people(self, user_ids: Sequence[str]) -> Chosen:
        """Choose every face of these people, copies too."""

    def choose_replaced(self) -> Chosen:
        """Choose what a sync found to go of people whose rows are all enrolled, and every token
        under which a face was before it was added anew."""

    def choose_leavers(self, *, cutoff: int) -> Chosen:
        """Choose every face of people who do not stand in the manifest and have not since before
        `cutoff` (UNIX ms), and copies of faces that were removed of people who do not stand in it
        either."""

    def chosen(self, *, after: str, most: int, run: int) -> list[Target]:
        """Some of them in the order of their tokens, from behind `after` on, to be deleted by the
        command of this number."""

    def intend(self, targets: Iterable[Target]) -> None:
        """Record that these are about to be deleted."""

    def intended(self) -> list[Target]:
        """Those of which that is on record and nothing further."""

    def intended_by_syncs(self) -> dict[str, int]:
        """The tokens of those that nobody but a sync wanted to be deleted, each with when it was
        last recorded (UNIX ms; 0 where that is not known)."""

    def withdraw(self, face_tokens: Sequence[str]) -> None:
        """Record that these have not been deleted after all."""

    def settle(self, face_tokens: Sequence[str], *, run: int, seen: bool = False) -> None:
        """Record that the library holds these no more, as the command of this number found.

        `seen` says that no row of the manifest on which the run goes leads to one of them.
        """


class Forgetting(Protocol):
    """People of whom nothing is to be kept. What changes goes with the next commit."""

    def unfinished(self) -> int:
        """Of how many people who are withheld not everything is gone yet."""

    def strangers(self, user_ids: Sequence[str]) -> dict[str, list[str]]:
        """Those of whom the ledger has neither a face nor a row, each with people whom it knows and
        whose ids differ from theirs only in zeros in front, capitals or blanks."""

    def block(self, user_ids: Sequence[str], *, at: int, run: int) -> None:
        """Withhold these people from now on (UNIX ms), as the command of this number does."""

    def readmit(self, user_id: str, *, at: int, run: int) -> bool:
        """Withhold this person no more; whether they were withheld."""

    def deleted(self, user_id: str, count: int) -> None:
        """Add to the faces that were deleted for a person, as far as no event tells of them."""

    def count_deleted(self, user_ids: Sequence[str]) -> dict[str, int]:
        """How many faces of each were deleted since they are withheld, as far as is known: those
        that no event told of, and once they are wiped all."""

    def wipe(self, user_ids: Sequence[str]) -> None:
        """Delete all that the ledger holds of these people; their faces are known to be gone.
        Commits."""

    def scrub(self, user_ids: Sequence[str], *, at: int) -> None:
        """Rewrite the file and empty its log, so that no byte is left of what was deleted; then
        record that these people are forgotten. Commits. Raises LocalError where it cannot."""


class Listing(Protocol):
    """What a library was seen to hold, outside of memory, and gone with the process."""

    def take(self, faces: Sequence[LibraryFace]) -> int:
        """Remember faces that the library holds; how many of them are new."""

    def count(self) -> int:
        """How many faces were seen."""

    def faces_of(self, user_id: str) -> list[LibraryFace]:
        """A person's faces, oldest first."""


class LedgerReader(Protocol):
    """What can be asked of a ledger, also while another process writes it."""

    def identity(self) -> LibraryIdentity:
        """The library whose ledger it is."""

    @property
    def images(self) -> str:
        """The images root of the last run, an absolute path; empty before the first."""

    @property
    def images_given(self) -> str:
        """The images root that was last given with --images, an absolute path; else empty."""

    @property
    def block_list(self) -> BlockList:
        """Who was forgotten and is not to be enrolled again."""

    @property
    def ceiling(self) -> int | None:
        """How many calls at a time the account was last found to allow; None before."""

    def folder_of(self, manifest: str) -> tuple[str, bool] | None:
        """The images root of the last run of this manifest (an absolute path), and whether it was
        named; None where it has had no run."""

    def status(self, *, runs: int = 10) -> LedgerStatus:
        """Counts, errors by code, and the last `runs` runs, newest first."""

    def entries(self, statuses: Iterable[Status] = ()) -> Iterator[Entry]:
        """Every face, and every row without one; only those of `statuses` if any are given."""

    def entries_of(self, rows: Sequence[tuple[str, str]]) -> list[Entry | None]:
        """For each (user_id, path) its entry, or None where the row is not known."""

    def history(
        self, *, user_id: str | None = None, since: int | None = None, run: int | None = None
    ) -> Iterator[tuple[Event, str]]:
        """The events with their `user_id`, oldest first; `since` is UNIX ms."""

    def manifests(self) -> list[Path]:
        """The manifests of all runs, absolute paths."""

    def paths_of(self, face_ids: Sequence[int]) -> dict[int, list[str]]:
        """For each of these faces the paths of the rows that point to it."""

    def close(self) -> None:
        """Let go of the database."""


class Ledger(LedgerReader, Protocol):
    """What the driver needs. One process holds a ledger; its driver alone calls these.

    Every method raises LocalError when the disk or the file will not do.
    """

    @property
    def surveys(self) -> SurveyKeeper:
        """What the last whole scan has found. A run that does not bear its mark drops it."""

    @property
    def removals(self) -> Removals:
        """What is deleted from the library."""

    @property
    def following(self) -> Following:
        """The manifest as a whole."""

    @property
    def forgetting(self) -> Forgetting:
        """Who is forgotten."""

    def has_run(self, began: int) -> bool:
        """Whether a run that began at this moment (UNIX ms) is on record."""

    def unfinished(self, command: str) -> bool:
        """Whether the last run of this command (the option `command` of its record) was stopped
        or interrupted, so that something is left to do."""

    @property
    def began_empty(self) -> bool:
        """Whether the library held no face when the ledger was made."""

    def begins(self, *, empty: bool) -> None:
        """Correct `began_empty`: the ledger knows no face and neither does the library; or it was
        put back, so that others may have added to what it knows."""

    @property
    def holds_back(self) -> bool:
        """Whether anything was recorded that is not on the disk: a commit is due, or failed."""

    def start_run(
        self, start: RunStart, *, images: str, given: bool, clock_offset: float = 0.0
    ) -> int:
        """Record that a run begins, durably; its number. What a dead run left is in doubt.

        `images` is the run's images root, an absolute path; `given` says that it was named.
        `clock_offset` is the service's clock minus ours, in seconds.
        """

    def end_run(self, run: int, end: RunEnd) -> None:
        """Record how a run ended, durably."""

    def compare(
        self, rows: Sequence[ScannedRow], *, run: int | None, reread: bool = False
    ) -> Comparison:
        """What is known of these rows. Those seen for the first time are recorded as pending,
        unless `run` is None. With `reread` no row whose photo is there counts as unchanged."""

    def queue_early(self, mark: str) -> int:
        """Queue rows that are due of the manifest whose runs bear this mark (`survey` among their
        options), some thousands at most, and leave them out of what is compared later; their
        number."""

    def early_repeats(self) -> list[tuple[Status, str, str, int]]:
        """Status, code, message and number of the lines that said again what was queued early."""

    def queue(self, due: Iterable[Candidate]) -> None:
        """Remember what this run has to do, outside of memory; not durable."""

    def next_due(self, count: int) -> list[Candidate]:
        """Take the next rows from the queue, in the order in which they came."""

    def queued_of(self, face_ids: Collection[int]) -> list[Candidate]:
        """Rows that point to these faces and are still in the queue, where they stay."""

    def new_face_id(self) -> int:
        """A number for a face that is not recorded yet."""

    def faces_of(self, user_ids: Iterable[str]) -> dict[str, list[FaceRecord]]:
        """Every face of these people; what was recorded and not committed is seen."""

    def holders_of(self, face_tokens: Sequence[str]) -> dict[str, int]:
        """Which of these face tokens are on record, also as surplus, and whose face each is."""

    def open_faces(self) -> list[FaceRecord]:
        """Every face in doubt, and every enrolled one to be looked up once more."""

    def newest_enrolled(self, count: int) -> list[FaceRecord]:
        """The faces that were recorded last of those that are enrolled."""

    def knows_a_face(self) -> bool:
        """Whether any face is enrolled, or may be in the library: sent, or in doubt."""

    def token_count(self) -> int:
        """How many tokens are known: those of faces, and further copies on record."""

    def enrolled_count(self) -> int:
        """How many faces the ledger believes to be in the library."""

    def record(self, changes: Changes) -> None:
        """Take changes to be written with the next commit."""

    def commit(self, *, ahead: float = 0.0) -> None:
        """Write what was recorded, in one transaction, and wait until it is on the disk.

        With it goes the run's sign of life, by which a later run reckons when this one's calls
        have expired: the time at which the commit begins, and `ahead` seconds.
        """

    def remember_ceiling(self, ceiling: int) -> None:
        """How many calls at a time the account allows: written with the next commit."""

    @property
    def lag(self) -> float:
        """For how many seconds at most the library was last seen not to show a new face; 0.0 where
        no run has seen it."""

    def remember_lag(self, lag: float) -> None:
        """The same: written with the next commit."""

    def note_pace(self, pace: RunPace) -> None:
        """How the run goes: written with the sign of life of each commit from now on."""

    def supersede(self, user_ids: Iterable[str], *, at: int, run: int) -> int:
        """Mark those enrolled faces of these people superseded to which no row points any more;
        their number."""

    def people_with_several(self) -> list[str]:
        """Everybody with more than one enrolled face."""

    def knows_photos_below(self, folder: str) -> bool:
        """Whether a photo below this folder (an absolute path) has ever been read."""

    def shared_photos(self, run: int) -> int:
        """How many photos that this run enrolled stand under more than one `user_id`."""

    def examples_of_shared(self, run: int, *, most: int) -> list[SharedPhoto]:
        """The first of these photos."""
