"""How a manifest differs from a ledger, and what a sync made of that: values without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class RowDiffKind(StrEnum):
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
class RowDiff:
    """One row or face by which manifest and ledger differ; `line` is the manifest's, 0 for a face.

    `face_token` is the one in the library, if there is one; `since` is when somebody was first
    found gone (UNIX ms).
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
class SyncResult:
    """The difference in numbers, and what was deleted.

    `people` were removed, with `faces` of theirs; `replaced` are faces of people in the manifest
    that were deleted. `kept` people have a face yet that is to go, because another of their rows is
    not enrolled, or as the sync has not come to it. `other_manifest` is as of
    `Diagnosis`; `notes` are what is to be said of the manifest where no run says it.
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
class Diagnosis:
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
