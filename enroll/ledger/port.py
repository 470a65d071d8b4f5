"""The ledger port: where a ledger is (`LedgerStore`), and what can be asked of it once it is open.

An adapter offers these protocols; `enroll.ledger.ledger_at` chooses it, and nothing else knows
which. tests/test_ledger_port.py is what every adapter has to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from enroll.expiry import ClockOffsets
from enroll.ledger.blocklist import BlockList
from enroll.ledger.diff_records import (
    Diagnosis,
    DiffCounts,
    ReadFile,
    RowDiff,
    RowDiffKind,
    UnreadFile,
)
from enroll.ledger.records import (
    AuditCounts,
    Changes,
    Chosen,
    Comparison,
    LedgerStatus,
    LibraryDifference,
    LibraryIdentity,
    MissingFace,
    Pair,
    Point,
    RecordedCopy,
    RunEnd,
    RunPace,
    RunRecord,
    RunStart,
    Target,
    UnknownFace,
)
from enroll.ledger.scan_cache import CachedScan, ScanCacheStore
from enroll.model import (
    Candidate,
    Entry,
    Event,
    FaceRecord,
    LibraryFace,
    Row,
    ScannedRow,
    SharedPhoto,
    Status,
)


class LedgerHold(AbstractContextManager["LedgerHold"], Protocol):
    """A ledger that this process alone may write, until it is closed."""

    @property
    def last_run(self) -> int:
        """When the last run that added faces began (UNIX ms), as remembered outside the ledger;
        else 0. A ledger that lacks this run has been restored from a copy."""

    def remember_run(self, at: int) -> None:
        """Remember that a run that may add faces began at `at` (UNIX ms)."""

    @property
    def caught_up(self) -> bool:
        """Whether the deletions that a restored ledger lacks are known by now."""

    def mark_caught_up(self) -> None:
        """Remember that they are known."""

    def close(self) -> None:
        """Release the ledger."""


class LedgerStore(Protocol):
    """The place of one ledger, which may not exist yet.

    The caller closes what it opens. Opening raises LedgerMismatchError for a file that is no ledger
    which this version knows or belongs to another library, and LocalError if it cannot be used. One
    that was copied to another place can be read, and neither written nor compared with. A
    ledger of an older schema is upgraded when it is opened for writing or to be audited; readers
    see it upgraded.
    """

    def exists(self) -> bool:
        """Whether the ledger exists. Raises LedgerMismatchError if none can exist there."""

    def check(self) -> None:
        """Raise unless this version can read the ledger there. Leaves no file behind."""

    def hold(self) -> LedgerHold:
        """Hold it; it need not exist. Raises LedgerBusyError, which names the holder; LocalError if
        others cannot be kept out; UsageError if the lock was tampered with."""

    def holder(self) -> str | None:
        """The holder, as text that may be empty; None if nobody holds it. Neither waits nor keeps
        others from holding it."""

    def open(self, identity: LibraryIdentity, *, began_empty: bool = False) -> Ledger:
        """Open the ledger of this library for writing, and create it if needed; the caller holds
        it. `began_empty` says that a new ledger's library holds no face. An empty creation time
        is not compared."""

    def read(self) -> LedgerReader:
        """Open it for reading, also while another process writes it."""

    def audit(self) -> LedgerAudit:
        """Open it for reading, to compare it with its library. Raises LedgerBusyError if it has to
        be upgraded and somebody else holds it."""

    def original(self) -> LedgerOriginal:
        """Open it to be copied; the caller holds it. One that was copied before can be opened so,
        too."""

    def new(self) -> NewLedger:
        """Begin a ledger that is filled with the rows of another; the caller holds it, and there is
        none yet."""

    def scratch(self, identity: LibraryIdentity) -> Ledger:
        """A ledger to compare with and never to commit to: the existing one, which stays as it is,
        else an empty one."""


class ManifestDiff(Protocol):
    """The difference between a whole manifest and the ledger.

    The manifest's rows are gone with the process; the next commit writes what `accept` records.
    """

    @property
    def has_completed(self) -> bool:
        """Whether an earlier sync has reached the end of its manifest."""

    def people_to_compare(self, *, most: int) -> set[str] | None:
        """Who may differ from the manifest of the cached scan, as long as all photos are as they
        were; None if everybody may, or more than `most`."""

    def clear(self) -> None:
        """Forget the rows that were added."""

    def add_rows(self, rows: Sequence[ScannedRow]) -> None:
        """Add rows of the manifest."""

    def match_photos(self, *, reread: bool) -> None:
        """Once all rows are added, give those whose photo is unchanged its known content; none of
        them with `reread`."""

    def unread(self, *, after: tuple[str, str], most: int) -> list[UnreadFile]:
        """The next rows after `after`, by user_id and path, whose photo has to be read; only of
        people who have a face."""

    def store_read(self, files: Iterable[ReadFile]) -> None:
        """Store what was read of these photos."""

    def store_same_faces(self, files: Iterable[ReadFile]) -> None:
        """Record, for later syncs too, which of these photos still show the face of their row."""

    def compare(
        self, *, now: int, cutoff: int, withheld: BlockList, people: Set[str] | None = None
    ) -> None:
        """Find the difference: of `people`, all of whose rows were added, or of everybody.

        People absent since before `cutoff` (UNIX ms) are due for removal. People who are `withheld`
        do not count as absent: `enroll forget` deletes their faces.
        """

    def counts(self) -> DiffCounts:
        """The difference in numbers, without `returned`; `rows` counts those that were added."""

    def changed_people(self) -> set[str]:
        """The people with a row that is to be added."""

    def row_diffs(
        self, kinds: Sequence[RowDiffKind] = ..., *, photo_root: str
    ) -> Iterator[RowDiff]:
        """The single rows and faces, with photos' paths relative to `photo_root`."""

    def accept(self, run: int) -> None:
        """Record who is absent, what is to be added and deleted, and who has to be compared by
        the next sync of this manifest."""

    def count_returned(self) -> int:
        """How many people were absent and are back."""

    def forget_returned(self) -> None:
        """Forget the absence of people who are back."""

    def forget_done(self) -> None:
        """Forget what `accept` recorded and has been done since."""

    def count_outdated(self) -> int:
        """How many people in the manifest still have a face that is to be deleted."""

    def count_held_back(self) -> int:
        """How many people have an enrolled face whose new text could not be sent yet, because its
        present text was only just found."""

    def diagnose(self, *, manifest: str) -> Diagnosis:
        """Likely reasons for a large difference from this manifest (an absolute path)."""

    def suspected_manifest(self, manifest: str) -> str:
        """What may be `other_manifest`; that needs everybody's rows, and this does not."""

    def other_manifest(self, manifest: str) -> str:
        """`Diagnosis.other_manifest` alone."""


class DueRows(Protocol):
    """The rows of a manifest that are due: found by comparing it with the ledger, then queued.

    The queue lies outside of memory and is gone with the process.
    """

    def compare(
        self, rows: Sequence[ScannedRow], *, run: int | None, reread: bool = False
    ) -> Comparison:
        """What the ledger knows of these rows, changes that are not committed included.

        Records rows that are new as pending, unless `run` is None. With `reread` no row whose
        photo is there counts as unchanged.
        """

    def add(self, due: Iterable[Candidate]) -> None:
        """Add rows to the end of the queue."""

    def add_early(self, mark: str, *, is_good: Callable[[Row], bool]) -> int:
        """Queue rows that runs with this `scan_mark` left due, some thousands at most, and leave
        them out of later comparisons. Returns their number.

        `is_good` says whether a row breaks no rule; its image is the path, and its line 0.
        """

    def early_repeats(self) -> list[tuple[Status, str, str, int]]:
        """Status, code, message and number of the further lines of rows that `add_early` queued."""

    def take(self, count: int) -> list[Candidate]:
        """Take the next rows from the queue, in the order in which they were added."""

    def of_faces(self, face_ids: Collection[int]) -> list[Candidate]:
        """The queued rows that point to these faces; they stay queued."""


class Deletions(Protocol):
    """Faces that are deleted from the library. The next commit writes the changes."""

    def choose_run(self, run: int) -> Chosen:
        """Choose the faces that a run added and that still exist, with their copies."""

    def choose_superseded(self) -> Chosen:
        """Choose the faces that no row points to any more, with their copies."""

    def choose_people(self, user_ids: Sequence[str]) -> Chosen:
        """Choose every face of these people, with copies."""

    def choose_replaced(self) -> Chosen:
        """Choose the faces that a sync marked for deletion, of people whose rows are all enrolled,
        and the former token of every face that was added again."""

    def choose_leavers(self, *, cutoff: int) -> Chosen:
        """Choose every face of people who have been absent from the manifest since before `cutoff`
        (UNIX ms), and copies of removed faces of people who are absent from it."""

    def chosen(self, *, after: str, most: int, run: int) -> list[Target]:
        """The next `most` chosen faces after token `after`, by token, for the command `run`."""

    def intend(self, targets: Iterable[Target]) -> None:
        """Record the intent to delete these faces."""

    def intended(self) -> list[Target]:
        """The faces with an intent on record and no outcome."""

    def intended_by_syncs(self) -> dict[str, int]:
        """The tokens that only a sync intended to delete, each with the time of its last intent
        (UNIX ms; 0 if unknown)."""

    def withdraw(self, face_tokens: Sequence[str]) -> None:
        """Record that these were not deleted after all."""

    def confirm(self, face_tokens: Sequence[str], *, run: int, seen: bool = False) -> None:
        """Record that the library no longer holds these, as the command `run` found.

        `seen` says that no row of the current manifest leads to one of them.
        """


class Findings(Protocol):
    """What searches with photos have found wrong, and what a person has accepted of it. The next
    commit writes the changes; what searches find is in `Changes.searched`."""

    def accepted(self, user_ids: Iterable[str]) -> frozenset[tuple[str, str]]:
        """The accepted pairs in which one of these people is, each in the order of the ids."""

    def swapped(self) -> list[tuple[FaceRecord, str]]:
        """The held faces of people whose new photo looks like another's present face while that
        one's new photo looks like theirs, with that person's id."""

    def accept(self, user_id: str, other_user_id: str, *, at: int, run: int) -> int:
        """Record that two people may look alike; or, for one person twice, that their own photos
        may differ. Photos that were held for that alone are due again; their number."""

    def to_audit(
        self, *, again: bool, run: int | None = None, people: Sequence[str] | None = None
    ) -> Iterator[int]:
        """The numbers of the enrolled faces with which no audit has searched the library, in order;
        with `again` of all. Only of those that `run` enrolled, or of `people`."""

    def audit_again(self, face_ids: Sequence[int]) -> None:
        """Have these faces count as not audited. What was found with them stays until the next
        search."""

    def faces(self, face_ids: Sequence[int]) -> list[FaceRecord]:
        """The records of these faces, in order."""


class Forgetting(Protocol):
    """People whose data is to be deleted. The next commit writes the changes."""

    def unfinished(self) -> int:
        """How many withheld people are not completely deleted yet."""

    def unknown_people(self, user_ids: Sequence[str]) -> dict[str, list[str]]:
        """Those without a face or row in the ledger, each with known people whose ids differ only
        in leading zeros, case or blanks."""

    def as_known(self, user_ids: Sequence[str]) -> list[str]:
        """These people, each once; an id that is not known as given loses its outer blanks."""

    def block(self, user_ids: Sequence[str], *, at: int, run: int) -> None:
        """Withhold these people from `at` (UNIX ms) on, by the command `run`."""

    def readmit(self, user_id: str, *, at: int, run: int) -> bool:
        """Stop withholding this person; returns whether they were withheld."""

    def deleted(self, user_id: str, count: int) -> None:
        """Count faces of a person that were deleted without an event."""

    def count_deleted(self, user_ids: Sequence[str]) -> dict[str, int]:
        """How many faces of each were deleted since they were withheld: until `wipe` those without
        an event, then all."""

    def wipe(self, user_ids: Sequence[str]) -> None:
        """Delete everything about these people, whose faces are known to be deleted. Commits."""

    def scrub(self, user_ids: Sequence[str], *, at: int) -> None:
        """Rewrite the file and empty its log, so that no deleted byte is left; then record that
        these people are forgotten. Commits. Raises LocalError if it cannot."""


class Listing(Protocol):
    """The faces that a library was seen to hold; on disk, and gone with the process."""

    def add_faces(self, faces: Sequence[LibraryFace]) -> int:
        """Add faces that the library holds; returns how many are new."""

    def count_faces(self) -> int:
        """How many faces were seen."""

    def faces_of(self, user_id: str) -> list[LibraryFace]:
        """A person's faces, oldest first."""

    def tokens(self) -> Iterator[list[str]]:
        """The tokens of all faces, in batches."""

    def add_rows(self, rows: Iterable[ScannedRow]) -> None:
        """Add rows that may have a face in the library; a row counts once."""

    def count_rows(self, *, listed_only: bool) -> int:
        """How many rows were added; with `listed_only` those whose person has a listed face."""

    def rows_by_person(self, *, listed_only: bool) -> Iterator[list[ScannedRow]]:
        """These rows, a list for each person, by line."""

    def close(self) -> None:
        """Delete it."""


class LedgerReader(Protocol):
    """What can be asked of a ledger, also while another process writes it."""

    def identity(self) -> LibraryIdentity:
        """The library whose ledger it is."""

    @property
    def photo_root(self) -> str:
        """The photos' folder of the last run that had one, an absolute path; empty before it."""

    @property
    def named_photo_root(self) -> str:
        """The same if --images named it, else empty."""

    @property
    def photo_roots(self) -> list[str]:
        """The photos' folders of all runs that had one, each once, that of the last run first."""

    @property
    def block_list(self) -> BlockList:
        """Who was forgotten and is not to be enrolled again."""

    @property
    def ceiling(self) -> int | None:
        """How many calls at a time the account was last found to allow; None before."""

    def photo_root_of(self, manifest: str) -> tuple[str, bool] | None:
        """The photos' folder of the last run of this manifest (an absolute path), and whether
        --images named it; None if the manifest has had no run."""

    def status(self, *, runs: int = 10) -> LedgerStatus:
        """Counts, errors by code, and the last `runs` runs, newest first."""

    def runs(self, count: int = 10) -> list[RunRecord]:
        """The last `count` runs, newest first. Unlike `status` it reads nothing else."""

    def entries(self, statuses: Iterable[Status] = ()) -> Iterator[Entry]:
        """Every face, and every row without one; only those of `statuses` if any are given."""

    def entries_of(self, rows: Sequence[tuple[str, str]]) -> list[Entry | None]:
        """For each (user_id, path) its entry, or None where the row is not known."""

    def pairs(self) -> Iterator[Pair]:
        """What searches have found wrong and nobody has accepted, highest score first: of held
        photos, and of faces that are in the library as they were then. What was found for both
        faces of a pair comes once."""

    def audits(self) -> AuditCounts:
        """What audits have come to."""

    def repeated_photos(self, *, most: int) -> list[str]:
        """The SHA-256 (hex) of the first photos that are enrolled for several people."""

    def photos_failed_with(self, code: str) -> list[str]:
        """The paths of photos whose rows have failed with this code."""

    def significant_digits(self) -> Iterator[Sequence[str]]:
        """The user_ids that are numbers, without the zeros before them, of people with a face in
        the library; in parts."""

    def history(
        self, *, user_id: str | None = None, since: int | None = None, run: int | None = None
    ) -> Iterator[tuple[Event, str]]:
        """The events with their `user_id`, oldest first; `since` is UNIX ms."""

    def manifests(self) -> list[Path]:
        """The manifests of all runs, absolute paths."""

    def results(self) -> list[Path]:
        """The files that --results of all runs named, absolute paths."""

    def last_scan(self) -> CachedScan | None:
        """What is remembered of the last whole scan of a manifest, if there is one."""

    def faces_with(self, face_tokens: Sequence[str]) -> dict[str, FaceRecord]:
        """Those of these face tokens that are on record, each with its face; of a copy on record,
        and of a face's former token, the face has another one."""

    def paths_of(self, face_ids: Sequence[int]) -> dict[int, list[str]]:
        """For each of these faces the paths of the rows that point to it."""

    def close(self) -> None:
        """Close the database."""


class LedgerAudit(LedgerReader, Protocol):
    """A ledger that is read, and compared with a listing of its library."""

    @property
    def listing(self) -> Listing:
        """What the library was seen to hold."""

    def refresh(self) -> None:
        """See what other processes have written meanwhile."""

    def copies(self) -> list[RecordedCopy]:
        """Every copy on record as surplus, and nothing else, by the faces' numbers."""

    def copies_of(self, face_ids: Sequence[int]) -> dict[str, int]:
        """The copies on record of some faces, and whose copy each is."""

    def formers_of_missing(self) -> int:
        """For how many missing faces the library may hold the former face, from before they were
        added again with another text."""

    def unseen(self, *, before: int, after: str) -> list[str]:
        """Some tokens of the ledger that are not yet accounted for, in order, after `after`.

        Faces that were enrolled at `before` (UNIX ms) or later are left out: the library was
        already being read.
        """

    def unseen_count(self, *, before: int) -> int:
        """How many there are in all."""

    def present(self, faces: Sequence[LibraryFace]) -> None:
        """Remember faces that the library holds after all, according to the service."""

    def deleted(self, face_tokens: Sequence[str]) -> None:
        """Remember that the library no longer holds these faces."""

    def absent(self, face_tokens: Sequence[str]) -> None:
        """Remember tokens that the library does not hold, according to the service."""

    def all_was_listed(self, *, before: int) -> None:
        """The listing is the whole library: what it did not show is absent."""

    def differences(self, *, under_way: bool) -> Iterator[LibraryDifference]:
        """Every face about which ledger and library differ, kind by kind.

        With `under_way` a run goes on, and what it is sending right now is no difference.
        """

    def missing(self, *, after: int) -> list[MissingFace]:
        """Some faces that the library does not hold, in order, starting after face `after`."""

    def unknown_faces(self) -> list[UnknownFace]:
        """The unknown faces of people who have an enrolled face that was once in doubt, each with
        the time of that attempt."""


class LedgerTables(Protocol):
    """The tables of a ledger, as values that are the same in every database."""

    def parts(self, table: str) -> Iterator[Sequence[tuple[Any, ...]]]:
        """The rows of a table by its key, some thousand at a time; of runs, those that made no
        copy."""


class LedgerOriginal(LedgerTables, LedgerReader, Protocol):
    """A ledger that is held, to be copied to another place and written no more."""

    def has_run(self, began: int) -> bool:
        """Whether a run that began at this moment (UNIX ms) is on record."""

    def count_rows(self) -> int:
        """How many rows there are to copy."""

    def copy_to(self, new: NewLedger, copied: Callable[[int], None]) -> int:
        """Fill another ledger with all rows; their number. `copied` receives it as it grows."""

    def differing(self, other: LedgerTables, compared: Callable[[int], None]) -> list[str]:
        """The tables whose rows are others in another ledger. `compared` receives the number of
        rows that were compared."""

    def leave(self, start: RunStart) -> None:
        """Record, durably, that it is being copied: from then on it is not opened for writing."""

    def end_leaving(self, end: RunEnd) -> None:
        """Record that it was copied."""


class NewLedger(LedgerTables, Protocol):
    """A ledger that is being made of another's rows. It is not there before it is published."""

    def fill(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows to a table; what they refer to has been added."""

    def seal(self) -> None:
        """All rows are there: do what remains, and may fail."""

    def publish(self) -> None:
        """Have all of it, on disk, where it is to be. A kill leaves all or nothing there."""

    def close(self) -> None:
        """Leave nothing behind, unless it was published."""


class Ledger(LedgerReader, Protocol):
    """A ledger open for writing. Only the driver's thread of the process that holds it calls it.

    Every method raises LocalError if the disk or the file fails.
    """

    @property
    def scan_cache(self) -> ScanCacheStore:
        """The cached result of the last whole scan. A run with another `scan_mark` drops it."""

    @property
    def deletions(self) -> Deletions:
        """The faces to delete from the library."""

    @property
    def diff(self) -> ManifestDiff:
        """The difference between a whole manifest and the ledger."""

    @property
    def due_rows(self) -> DueRows:
        """What is due of a manifest."""

    @property
    def findings(self) -> Findings:
        """What searches with photos have found wrong."""

    @property
    def forgetting(self) -> Forgetting:
        """The people to forget."""

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

    def start_run(self, start: RunStart, *, offsets: ClockOffsets | None = None) -> int:
        """Record that a run begins, durably; its number. What a dead run left is in doubt, and no
        expiry on record is later than `enroll.expiry.latest_expiry` from then on.

        `offsets` is how the service's clock is judged, None by a command that has not asked the
        service: then it is as in the run before.
        """

    def end_run(self, run: int, end: RunEnd) -> None:
        """Record how a run ended, durably."""

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

    def commit(self, *, ahead: float = 0.0, offsets: ClockOffsets | None = None) -> None:
        """Write what was recorded, in one transaction, and wait until it is on disk.

        The same transaction writes the run's sign of life, from which a later run works out when
        this run's calls have expired: the time at which the commit begins plus `ahead` seconds,
        and the lowest and highest of all `offsets` that this run has passed.
        """

    def rest(self) -> None:
        """Leave no transaction open, as a wait may follow: one that has written anything is
        committed, with what else was recorded."""

    def remember_ceiling(self, ceiling: int) -> None:
        """How many calls at a time the account allows: written with the next commit."""

    @property
    def lag(self) -> float:
        """For how many seconds at most the library was last seen not to show a new face; 0.0 where
        no run has seen it."""

    def remember_lag(self, lag: float) -> None:
        """The same: written with the next commit."""

    def note_pace(self, pace: RunPace, course: Sequence[Point] = ()) -> None:
        """How the run goes, and how it went until now: written with the sign of life of each
        commit from now on."""

    def supersede(self, *, at: int, run: int) -> int:
        """Mark superseded the enrolled faces to which no row points, of people with several
        enrolled faces; their number."""

    def knows_photos_below(self, folder: str) -> bool:
        """Whether a photo below this folder (an absolute path) has ever been read."""

    def some_photos_below(self, folder: str, *, most: int) -> list[str]:
        """The paths of some photos that were read below this folder, drawn at random."""

    def shared_photos(self, run: int) -> int:
        """How many photos that this run enrolled have more than one `user_id`."""

    def examples_of_shared(self, run: int, *, most: int) -> list[SharedPhoto]:
        """The first of these photos."""
