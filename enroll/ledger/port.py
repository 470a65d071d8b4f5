"""The ledger port: where a ledger is (`LedgerStore`), and what can be asked of it once it is open.

An adapter offers these protocols; `enroll.ledger.ledger_at` chooses it, and nothing else knows
which. tests/test_ledger_port.py is what every adapter has to pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

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
    Changes,
    Chosen,
    Comparison,
    LedgerStatus,
    LibraryDifference,
    LibraryIdentity,
    MissingFace,
    RecordedCopy,
    RunEnd,
    RunPace,
    RunStart,
    Suspect,
    Target,
)
from enroll.ledger.scan_cache import CachedScan, ScanCacheStore
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


class LedgerHold(Protocol):
    """A ledger that this process alone may write, until it is closed; a context manager."""

    @property
    def last_run(self) -> int:
        """When the last run began that added faces by this ledger (UNIX ms), as far as is
        remembered outside of it, else 0: a ledger without that run was put back since."""

    def remember_run(self, at: int) -> None:
        """Remember that a run that may add faces began at `at` (UNIX ms)."""

    @property
    def caught_up(self) -> bool:
        """Whether it is known what was deleted by the last run that a ledger lacks that was put
        back, and by those before it."""

    def mark_caught_up(self) -> None:
        """Remember that."""

    def close(self) -> None:
        """Let the ledger go."""

    def __enter__(self) -> LedgerHold: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class LedgerStore(Protocol):
    """The place of one ledger, which may not have been made yet.

    What is opened is closed by the caller. Opening raises LedgerMismatchError for what is not a
    ledger of this version or is another library's, and LocalError where it cannot be used.
    """

    def exists(self) -> bool:
        """Whether anything is there. Raises LedgerMismatchError where no ledger can ever be."""

    def check(self) -> None:
        """Raise unless a ledger is there that this version reads. Leaves nothing behind."""

    def hold(self) -> LedgerHold:
        """Hold it, also before it is made. Raises LedgerBusyError, saying who holds it; LocalError
        where others could not be kept out; UsageError where somebody has tampered with it."""

    def holder(self) -> str | None:
        """Who holds it, in words that may be empty; None where nobody does. Does not wait, and
        does not keep others from holding it."""

    def open(self, identity: LibraryIdentity, *, began_empty: bool = False) -> Ledger:
        """Open the ledger of this library for writing, made first if nothing is there; it is held
        by the caller. `began_empty` says of a new one that its library holds no face. A creation
        time that is empty is not compared."""

    def read(self) -> LedgerReader:
        """Open it for reading, also while another process writes it."""

    def audit(self) -> LedgerAudit:
        """The same, to compare it with its library."""

    def scratch(self, identity: LibraryIdentity) -> Ledger:
        """A ledger to compare with and never to commit to: the one that is there, which is not
        written to, else one that knows nothing."""


class ManifestDiff(Protocol):
    """The diff of a whole manifest and the ledger, and what is remembered of it.

    What it was given is gone with the process; what `accept` remembers goes with the next commit.
    """

    @property
    def has_completed(self) -> bool:
        """Whether a sync has come to the end of its manifest before."""

    def add_rows(self, rows: Sequence[ScannedRow]) -> None:
        """Remember rows of the manifest."""

    def match_photos(self, *, reread: bool) -> None:
        """All rows are there: find the content of photos that are as they were, with `reread` of
        none."""

    def unread(self, *, after: tuple[str, str], most: int) -> list[UnreadFile]:
        """Some of the others, of people who have a face, in order of user_id and path, from behind
        `after` on."""

    def store_read(self, files: Iterable[ReadFile]) -> None:
        """Take what has been read."""

    def store_same_faces(self, files: Iterable[ReadFile]) -> None:
        """Remember, for later nights, which of these are the faces of their rows all the same."""

    def compare(self, *, now: int, cutoff: int, withheld: BlockList) -> None:
        """Find the difference; who is gone since before `cutoff` is to be removed (UNIX ms).
        People who are `withheld` are not gone: to delete their faces is for `enroll forget`."""

    def counts(self) -> DiffCounts:
        """The difference in numbers, but for those who are there again."""

    def row_diffs(
        self, kinds: Sequence[RowDiffKind] = ..., *, photos_folder: str
    ) -> Iterator[RowDiff]:
        """The difference itself, with photos' paths relative to `photos_folder`."""

    def accept(self, run: int) -> None:
        """Remember who has gone, and what is to be added and deleted."""

    def count_returned(self) -> int:
        """How many people had gone and are there again."""

    def forget_returned(self) -> None:
        """Forget of those who are there again that they had gone."""

    def forget_done(self) -> None:
        """Forget of this what has been done."""

    def count_outdated(self) -> int:
        """How many people in the manifest have a face that is to go and is there yet."""

    def count_held_back(self) -> int:
        """How many people have an enrolled face whose new text could not be sent yet, because the
        face had just been found to bear another."""

    def diagnose(self, *, manifest: str) -> Diagnosis:
        """What may be the reason of a difference from this manifest (an absolute path)."""

    def other_manifest(self, manifest: str) -> str:
        """As in the diagnosis: the manifest that the unlisted people are in."""


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
        """Queue rows behind those that are queued."""

    def add_early(self, mark: str) -> int:
        """Queue rows that earlier runs with this `scan_mark` left due, some thousands at most, and
        leave them out of later comparisons. Returns their number."""

    def early_repeats(self) -> list[tuple[Status, str, str, int]]:
        """Status, code, message and number of the further lines of rows that `add_early` queued."""

    def take(self, count: int) -> list[Candidate]:
        """Take the next rows from the queue, in the order in which they were added."""

    def of_faces(self, face_ids: Collection[int]) -> list[Candidate]:
        """The queued rows that point to these faces; they stay queued."""


class Deletions(Protocol):
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

    def confirm(self, face_tokens: Sequence[str], *, run: int, seen: bool = False) -> None:
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

    def as_known(self, user_ids: Sequence[str]) -> list[str]:
        """These people, each once, without the blanks around ids that it does not know so."""

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

    def add_faces(self, faces: Sequence[LibraryFace]) -> int:
        """Remember faces that the library holds; how many of them are new."""

    def count_faces(self) -> int:
        """How many faces were seen."""

    def faces_of(self, user_id: str) -> list[LibraryFace]:
        """A person's faces, oldest first."""

    def tokens(self) -> Iterator[list[str]]:
        """The tokens of all faces that were seen, some at a time."""

    def add_rows(self, rows: Iterable[ScannedRow]) -> None:
        """Remember rows that may have a face in the library; a row counts once."""

    def count_rows(self, *, listed_only: bool) -> int:
        """How many rows are claimed; with `listed_only` those whose person was seen."""

    def rows_by_person(self, *, listed_only: bool) -> Iterator[list[ScannedRow]]:
        """The claimed rows, a list for each person, in the order of their lines."""

    def close(self) -> None:
        """Forget it."""


class LedgerReader(Protocol):
    """What can be asked of a ledger, also while another process writes it."""

    def identity(self) -> LibraryIdentity:
        """The library whose ledger it is."""

    @property
    def photos_folder(self) -> str:
        """The photos' folder of the last run that had one, an absolute path; empty before it."""

    @property
    def named_photos_folder(self) -> str:
        """The same if --images named it, else empty."""

    @property
    def block_list(self) -> BlockList:
        """Who was forgotten and is not to be enrolled again."""

    @property
    def ceiling(self) -> int | None:
        """How many calls at a time the account was last found to allow; None before."""

    def photos_folder_of(self, manifest: str) -> tuple[str, bool] | None:
        """The photos' folder of the last run of this manifest (an absolute path), and whether
        --images named it; None if the manifest has had no run."""

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

    def last_scan(self) -> CachedScan | None:
        """What is remembered of the last whole scan of a manifest, if there is one."""

    def paths_of(self, face_ids: Sequence[int]) -> dict[int, list[str]]:
        """For each of these faces the paths of the rows that point to it."""

    def close(self) -> None:
        """Let go of the database."""


class LedgerAudit(LedgerReader, Protocol):
    """A ledger that is read, and compared with a listing of its library."""

    @property
    def listing(self) -> Listing:
        """What the library was seen to hold."""

    def refresh(self) -> None:
        """From now on see what other processes have written meanwhile."""

    def copies(self) -> list[RecordedCopy]:
        """Every copy on record as surplus, and nothing else, by the faces' numbers."""

    def copies_of(self, face_ids: Sequence[int]) -> dict[str, int]:
        """The copies on record of some faces, and whose copy each is."""

    def formers_of_missing(self) -> int:
        """Of how many missing faces the library may hold what was there before they were added
        again with another text."""

    def unseen(self, *, before: int, after: str) -> list[str]:
        """Some tokens of the ledger of which nothing is known, in order, from behind `after` on.

        Those of faces that were enrolled at `before` (UNIX ms) or later are left out: the library
        was being read by then.
        """

    def unseen_count(self, *, before: int) -> int:
        """How many there are in all."""

    def present(self, faces: Sequence[LibraryFace]) -> None:
        """Remember faces of which the service said that the library holds them after all."""

    def deleted(self, face_tokens: Sequence[str]) -> None:
        """Remember that the library holds these faces no more."""

    def absent(self, face_tokens: Sequence[str]) -> None:
        """Remember tokens of which the service said that the library does not hold them."""

    def all_was_listed(self, *, before: int) -> None:
        """The listing is the whole library: what it did not show is absent."""

    def differences(self, *, under_way: bool) -> Iterator[LibraryDifference]:
        """Every face about which ledger and library differ, kind by kind.

        With `under_way` a run goes on, and what it is sending right now is no difference.
        """

    def missing(self, *, after: int) -> list[MissingFace]:
        """Some faces that the library does not hold, in order, from behind face `after` on."""

    def suspects(self) -> list[Suspect]:
        """The strangers of people who have an enrolled face that was in doubt once, with the
        time of each such attempt."""


class Ledger(LedgerReader, Protocol):
    """What the driver needs. One process holds a ledger; its driver alone calls these.

    Every method raises LocalError when the disk or the file will not do.
    """

    @property
    def scan_cache(self) -> ScanCacheStore:
        """What the last whole scan has found. A run with another `scan_mark` drops it."""

    @property
    def deletions(self) -> Deletions:
        """What is deleted from the library."""

    @property
    def diff(self) -> ManifestDiff:
        """The manifest as a whole, and how the ledger differs from it."""

    @property
    def due_rows(self) -> DueRows:
        """What is due of a manifest."""

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
        """Write what was recorded, in one transaction, and wait until it is on the disk.

        With it goes the run's sign of life, by which a later run reckons when this one's calls
        have expired: the time at which the commit begins, and `ahead` seconds; and the
        lowest and the highest of all `offsets` that this run has given.
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

    def people_with_superseded(self) -> list[str]:
        """Everybody with more than one enrolled face, one of them without a row."""

    def knows_photos_below(self, folder: str) -> bool:
        """Whether a photo below this folder (an absolute path) has ever been read."""

    def some_photos_below(self, folder: str, *, most: int) -> list[str]:
        """The paths of some photos that were read below this folder, drawn by chance."""

    def shared_photos(self, run: int) -> int:
        """How many photos that this run enrolled stand under more than one `user_id`."""

    def examples_of_shared(self, run: int, *, most: int) -> list[SharedPhoto]:
        """The first of these photos."""
