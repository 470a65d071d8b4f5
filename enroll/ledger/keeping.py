"""What a ledger can do for a library that is kept like a manifest, and to forget people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from enroll.blocklist import BlockList
from enroll.ledger.followed import (
    Change,
    ChangeKind,
    Chosen,
    Counted,
    ReadFile,
    Signs,
    Target,
    UnreadFile,
)
from enroll.model import (
    ScannedRow,
)


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
        """Take what has been read."""

    def keep(self, files: Iterable[ReadFile]) -> None:
        """Remember, for later nights, which of these are the faces of their rows all the same."""

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

    def returned(self) -> int:
        """How many people had gone and are there again."""

    def unmark(self) -> None:
        """Forget of those who are there again that they had gone."""

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
