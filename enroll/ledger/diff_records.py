"""How a manifest differs from a ledger, and what a sync did about it: values without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class RowDiffKind(StrEnum):
    """How a row or a face differs between manifest and ledger."""

    JOINER = "joiner"
    """A row of a person without a face in the library."""
    PHOTO = "photo"
    """A row with a new photo, of a person with a face."""
    USER_DATA = "user_data"
    """A row whose text differs from that of its face."""
    OLD = "old"
    """A face that no row leads to any more, of a person in the manifest."""
    LEAVER = "leaver"
    """A face of a person who is absent from the manifest."""
    MISSING = "missing"
    """A row whose photo is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDiff:
    """One row or face that differs between manifest and ledger.

    `line` is the line in the manifest, 0 for a face. `face_token` is empty without a face in the
    library; `since` is when the person was first found absent (UNIX ms).
    """

    kind: RowDiffKind
    user_id: str
    user_data: str
    image: str
    face_token: str = ""
    since: int | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffCounts:
    """The difference between a manifest and a ledger, in numbers.

    `first` means that no sync has completed a manifest yet. `rows` counts the lines of the
    manifest, `missing` those whose photo does not exist. `listed` counts the people in the
    manifest, `people` those with a face in the library according to the ledger.

    To be added: `joiners` counts the rows of new people and `joining` those people; `photos` counts
    rows with a new photo, and `user_data` rows whose face is added again with a changed text.
    `accepted` rows are to be added, too, as an earlier sync accepted and did not get done.
    `emptied` are the `user_data` rows whose text becomes empty. `held_back` are further rows with
    a changed text that cannot be added because their photo is missing.

    To be removed, of people in the manifest: `dropped` are faces that no other face replaces,
    `superseded` those that a command other than a sync has replaced.

    People who are not in the manifest: `newly_gone` are absent for the first time, `waiting` have
    not been absent long enough to be removed, or are `awaited`: they have, but a held photo looks
    like theirs. `leaving` are to be removed now; `together` is the largest number of `leaving`
    people that a single sync found absent. `returned` were absent and are back.
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
    accepted: int = 0
    emptied: int = 0
    held_back: int = 0
    dropped: int = 0
    superseded: int = 0
    newly_gone: int = 0
    waiting: int = 0
    awaited: int = 0
    leaving: int = 0
    together: int = 0
    returned: int = 0

    def figures(self) -> dict[str, int]:
        """The numbers to report, by name."""
        counts = asdict(self)
        del counts["first"], counts["together"]
        return counts

    @property
    def added(self) -> int:
        """Faces to add."""
        return self.joiners + self.photos + self.user_data

    @property
    def compared(self) -> int:
        """Photos of which the library does not hold a face, `accepted` ones included."""
        return self.joiners + self.photos + self.accepted

    @property
    def removed(self) -> int:
        """People that one sync found absent, and further faces, that are to be removed now.

        Leavers of several nights that ended early were each judged on their own night.
        """
        return self.together + self.dropped + self.superseded


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """The difference in numbers, and what was deleted.

    `people` were removed, with `faces` of theirs; `replaced` are deleted faces of people in the
    manifest. `kept` people still have a face to be deleted, because another of their rows is not
    enrolled or the sync has not reached it. `other_manifest` is that of `Diagnosis`; `notes` are
    remarks about the manifest that no run makes.
    """

    counted: DiffCounts
    people: int = 0
    faces: int = 0
    replaced: int = 0
    kept: int = 0
    other_manifest: str = ""
    notes: Sequence[str] = ()

    @property
    def deleted(self) -> int:
        """Deleted faces."""
        return self.faces + self.replaced

    def figures(self) -> Mapping[str, int]:
        """Every number, by name."""
        return {
            **self.counted.figures(),
            "removed_people": self.people,
            "removed_faces": self.faces,
            "replaced_faces": self.replaced,
            "kept_people": self.kept,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Likely reasons for a difference that is too large.

    Of the newly absent people, `zeros_lost` are in the manifest with more or fewer leading zeros;
    `behind` says that nearly all of them were enrolled after the listed people, so the file may be
    cut off. `swapped` is the percentage of rows whose user id is a text of the ledger or a photo's
    name. `other_manifest` is another manifest that the absent people and hardly anybody else are
    in; else empty.
    """

    zeros_lost: int = 0
    swapped: int = 0
    behind: bool = False
    other_manifest: str = ""


@dataclass(frozen=True, slots=True)
class UnreadFile:
    """A row's photo that has to be read to see whether it has changed."""

    user_id: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile:
    """A row's photo after it was read: its content (SHA-256), and the person's face with that
    content, if any; `unusable` if it cannot be sent."""

    user_id: str
    path: str
    sha256: bytes | None = None
    face_id: int | None = None
    unusable: bool = False
