"""What a comparison of a ledger with its library finds, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from enroll.model import (
    FaceRecord,
)


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
