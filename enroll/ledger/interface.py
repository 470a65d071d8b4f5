"""What can be asked of a ledger, and what the driver needs of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from enroll.blocklist import BlockList
from enroll.ledger.keeping import Following, Forgetting, Removals
from enroll.ledger.records import (
    Changes,
    Comparison,
    LedgerStatus,
    LibraryIdentity,
    RunEnd,
    RunPace,
    RunStart,
)
from enroll.ledger.survey import SurveyKeeper
from enroll.model import (
    Candidate,
    Entry,
    Event,
    FaceRecord,
    LibraryFace,
    ScannedRow,
    SharedPhoto,
    Status,
)


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
        """Record that a run begins, durably; its number. What a dead run left is in doubt, and no
        expiry on record is later than `enroll.expiry.latest_expiry` from then on.

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

    def commit(self, *, ahead: float = 0.0, clock_offset: float | None = None) -> None:
        """Write what was recorded, in one transaction, and wait until it is on the disk.

        With it goes the run's sign of life, by which a later run reckons when this one's calls
        have expired: the time at which the commit begins, and `ahead` seconds; and the
        `clock_offset`, the highest that they were signed with, where it may be another than before.
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

    def some_photos_below(self, folder: str, *, most: int) -> list[str]:
        """The paths of some photos that were read below this folder, drawn by chance."""

    def shared_photos(self, run: int) -> int:
        """How many photos that this run enrolled stand under more than one `user_id`."""

    def examples_of_shared(self, run: int, *, most: int) -> list[SharedPhoto]:
        """The first of these photos."""
