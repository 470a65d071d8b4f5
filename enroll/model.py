"""The values that pass between modules: rows, photos, calls, answers, statuses. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Any

from enroll.errors import UsageError


class Status(StrEnum):
    """The status of an entry of the ledger. Every row ends in exactly one of these."""

    PENDING = "pending"
    """Known, not sent yet."""
    SENDING = "sending"
    """The intent is on disk; a call may be in flight."""
    ENROLLED = "enrolled"
    """The face token is on disk."""
    REJECTED = "rejected"
    """The service says that it will never accept this photo or row."""
    INVALID = "invalid"
    """A local check says that the service will never accept this photo or row; no call was made."""
    FAILED = "failed"
    """Tried without success; due again in the next run."""
    IN_DOUBT = "in_doubt"
    """The service may or may not have added the face, and it could not be found out which."""
    SUPERSEDED = "superseded"
    """Enrolled, but no row points to it any more."""
    REMOVED = "removed"
    """Deleted from the library."""
    HELD = "held"
    """Not sent, because its photo looks like another person; a person decides."""
    WITHHELD = "withheld"
    """Not enrolled, because the person was forgotten. Said of rows only; no ledger holds it."""


RESULTS = "the results"
"""What a run's results are called among the files that a ledger keeps of the run."""

OPEN = (Status.SENDING, Status.IN_DOUBT)
"""Statuses of a face that the service may hold under a token that is not on record."""


class CallKind(StrEnum):
    """The calls of the FaceSearch API, by the last part of their path."""

    ADD = "add"
    CREATE = "create"
    GROUP_LIST = "group_list"
    GROUP_INFO = "group_info"
    LIST = "list"
    FACE_INFO = "face_info"
    SEARCH = "search"
    DELETE = "delete"
    FREE = "free"


class SendAs(StrEnum):
    """How `add` and `search` carry the photo: as a file part, or as Base64 text."""

    FILE = "file"
    IMAGE = "image"


class Role(StrEnum):
    """What a column of the manifest is for; the value is the name it has by default."""

    USER_ID = "user_id"
    USER_DATA = "user_data"
    IMAGE = "image"
    PHOTO_BASE64 = "photo_base64"
    """The photo itself, instead of its path in `image`."""


class Verdict(Enum):
    """What the answer to a call proves."""

    APPLIED = "applied"
    """The service did what was asked and said so in full."""
    UNKNOWN = "unknown"
    """The call may or may not have been applied."""
    REJECTED = "rejected"
    """Not applied, and the same call never will be."""
    FATAL = "fatal"
    """Not applied, nor will any other call of this run: stop."""
    REFUSED = "refused"
    """Not applied, because too many calls were in flight: try again, no attempt spent."""
    FAILED = "failed"
    """Not applied, for a reason that may be temporary."""
    NOT_SENT = "not_sent"
    """No byte of the request can have reached the service."""
    BLOCKED = "blocked"
    """Not sent, because this machine had no file or thread left for the call: try again with fewer
    at once, no attempt spent. It says nothing about the service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a manifest, with its cells unchanged.

    `line` is the 1-based number of the physical line on which the row starts;
    `image` is the photo's path as written.
    """

    line: int
    user_id: str
    user_data: str
    image: str


@dataclass(frozen=True, slots=True)
class FileTimes:
    """Size in bytes and times in nanoseconds since the epoch; they show that a file is unchanged
    without reading it. A store without times has other numbers in their place: see `PhotoStore`."""

    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPhoto:
    """What is known of a photo that has been read once and can be sent, without its bytes.

    `sha256` (32 bytes) is of the file as it was read, `sent_sha256` of what is sent, None where
    that is the file's own bytes; `prepared` says in a few words what was done to it, empty when
    it is sent unchanged. `media_type` is of what is sent. `precheck_fault` is what the
    precheck objected to, if anything.
    """

    times: FileTimes
    sha256: bytes
    sent_sha256: bytes | None = None
    media_type: str
    prepared: str = ""
    precheck_fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceMeasures:
    """What the precheck measured of the largest face in a photo, as it would be sent.

    `width` is in pixels, from temple to temple. `sharpness` has no unit; it does not depend on how
    large or bright the face is. `shadows` and `highlights` are levels from 0, black, to 255: a
    quarter of the face is darker than the one, and a quarter brighter than the other. `margin` is
    the distance of the face from the nearest edge of the photo in widths of the face, below 0 if
    part of it is cut off. `tilt` is in degrees, clockwise.
    """

    width: int
    sharpness: float
    shadows: int
    highlights: int
    margin: float
    tilt: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo(SeenPhoto):
    """A photo with the bytes to send, its `content`; `face` is what the precheck measured."""

    content: bytes = field(repr=False)
    face: FaceMeasures | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a row or photo was not sent: a stable code and one sentence for its owner."""

    code: str
    message: str


TIMEOUT = "TIMEOUT"
"""The code when no answer came within the call's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to one call, or what prevented one.

    `code` is the service's error code without its detail, or ours when the service gave none
    (`TIMEOUT`, `HTTP_502`, …; `facesearch/answers.py` lists them); empty when applied.
    `expires` and `server_time` are UNIX seconds on the service's clock; `elapsed` is seconds for
    the whole call, `time_used` the service's own ms for it, None where it says none.
    `raw` is the beginning of the body as text, kept for unknown answers.
    """

    verdict: Verdict
    code: str = ""
    message: str = ""
    http_status: int = 0
    request_id: str = ""
    face_token: str = ""
    retry_after: float | None = None
    server_time: float | None = None
    expires: float = 0.0
    elapsed: float = 0.0
    time_used: int | None = None
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)
    raw: str = field(default="", repr=False)

    @property
    def may_have_arrived(self) -> bool:
        """Whether the call may have reached the service."""
        return self.verdict not in (Verdict.NOT_SENT, Verdict.BLOCKED)

    @property
    def served(self) -> bool:
        """Whether the call certainly did not exceed the service's limit of calls in flight."""
        return self.may_have_arrived and self.verdict not in (Verdict.UNKNOWN, Verdict.REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One face library of an account, as `group_list` shows it (the service says group).

    `add_time` is the service's own text (ISO 8601); with `group_id` and the endpoint it
    distinguishes a library from a later one of the same name.
    """

    group_id: str
    group_name: str = ""
    group_data: str = ""
    model_version: str = ""
    add_time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFace:
    """One face of a library, as `list` and `face_info` show it; `add_time` is UNIX ms."""

    face_token: str
    user_id: str
    user_data: str
    add_time: int


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded: the environment and command lines may hold any bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Key and secret of an account. Never shown: both stay out of `repr`.

    `origin` says where they were read: a path, or the names of variables.
    """

    api_key: str = field(repr=False)
    api_secret: str = field(repr=False)
    origin: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        """Raise UsageError for a text that cannot be used to sign."""
        for name, text in (("api_key", self.api_key), ("api_secret", self.api_secret)):
            if not is_utf8(text):
                where = f" ({self.origin})" if self.origin else ""
                raise UsageError(f"The {name}{where} is not text in UTF-8. Set it again.")

    @property
    def described(self) -> str:
        """The credentials as they may be shown: `key 3f2a… (ENROLL_API_KEY)`."""
        shown = self.api_key[:4] if len(self.api_key) >= _SHOWN_IN_PART else ""
        return f"key {shown}…{f' ({self.origin})' if self.origin else ''}"


_SHOWN_IN_PART = 16
"""The length of a key from which on its first four characters may be shown: the rest cannot be
guessed."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file that was read to its end: its times then, and its SHA-256 (32 bytes)."""

    times: FileTimes
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """Why a row has no photo to send: `status` is INVALID (it never will) or FAILED (due again).

    `content` is there when the file could be read to its end, so that the same content is known
    next time. `share_gone` says that not the photo but the folder or file system that should
    hold it is missing, so that the run has to stop.
    """

    status: Status
    fault: Fault
    content: FileContent | None = None
    share_gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRecord:
    """The ledger's record of one face: a `user_id` and the content of a photo.

    `attempts` counts the calls that may have reached the service; times are UNIX ms;
    `sent_sha256` is None where the file's own bytes were sent; `recheck` asks for one more search,
    because an earlier attempt was settled as not applied;
    `user_data` and `multi_oriented_detection` are as last sent; `expires` is when a call
    for the face can no longer be applied, in UNIX seconds on the service's clock: the latest that
    its intent allows while the face is `sending`, the signature's while it is in doubt, and else
    that of the last attempt in doubt before, if there was one; `run` is the run that
    last wrote the record; `refused_under` are the settings on which a refusal depended, as
    `Policy.marks` has them, None where it depended on none. `former_token` is the token under which
    the library holds the face with another text, `former_user_data`, while it is added again, and
    until the former one is deleted. `time_used` is how many ms the service took for the last
    answer.
    """

    face_id: int
    user_id: str
    sha256: bytes
    status: Status
    face_token: str | None = None
    attempts: int = 0
    first_attempt_at: int | None = None
    code: str = ""
    message: str = ""
    request_id: str = ""
    sent_sha256: bytes | None = None
    prepared: str = ""
    user_data: str = ""
    multi_oriented_detection: bool = False
    expires: float | None = None
    recheck: bool = False
    enrolled_at: int | None = None
    run: int = 0
    refused_under: str | None = None
    former_token: str | None = None
    former_user_data: str | None = None
    time_used: int | None = None

    @property
    def open(self) -> bool:
        """Whether the service may hold this face under a token that is not on record."""
        return self.status in OPEN

    def reverted(self) -> FaceRecord:
        """The record after an attempt that did not add the face: with a former token, it is
        enrolled under that again."""
        if self.former_token is None:
            return self
        return replace(
            self,
            status=Status.ENROLLED,
            face_token=self.former_token,
            user_data=self.former_user_data or "",
            former_token=None,
            former_user_data=None,
            expires=None,
            refused_under=None,
        )


def same_face(faces: Sequence[FaceRecord], photo: SeenPhoto) -> FaceRecord | None:
    """The face with this photo's content, else one for which the same bytes were sent; a removed
    one only when there is no other."""
    exact = next((face for face in faces if face.sha256 == photo.sha256), None)
    if exact is not None and exact.status is not Status.REMOVED:
        return exact
    sent = photo.sent_sha256 or photo.sha256
    for face in faces:
        if (face.sent_sha256 or face.sha256) == sent and face.status is not Status.REMOVED:
            return face
    return exact


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRecord:
    """The ledger's record of one row: `user_id`, `path` (absolute) and outcome.

    Either `face_id`, or an outcome that came before the photo's content was known. `sha256`
    (32 bytes) is the content for which that holds; `user_data` is the manifest's.
    """

    user_id: str
    path: str
    user_data: str
    face_id: int | None = None
    sha256: bytes | None = None
    status: Status | None = None
    code: str = ""
    message: str = ""
    run: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoRecord:
    """The ledger's record of one file: absolute path, times, SHA-256 of its bytes (32 bytes)."""

    path: str
    times: FileTimes
    sha256: bytes


class EventKind(StrEnum):
    """The kinds of events in the ledger: changes in the library, and decisions of a person."""

    ENROLLED = "enrolled"
    IN_DOUBT = "in_doubt"
    SUPERSEDED = "superseded"
    RESTORED = "restored"
    """A row points to a superseded face again."""
    ADOPTED = "adopted"
    """A doubt was settled: the library held the face, and this is its token."""
    NOT_APPLIED = "not_applied"
    """A doubt was settled: the library does not hold the face."""
    SURPLUS = "surplus"
    """The library holds a second copy of a face; this is its token."""
    RESOLVED = "resolved"
    """A person decided a doubt."""
    REMOVING = "removing"
    """A copy of a face is about to be deleted from the library; this is the copy's token."""
    REMOVED = "removed"
    """That copy is no longer in the library."""
    REQUEUED = "requeued"
    """The library no longer holds the face under this token: it is due again."""
    GONE = "gone"
    """The same for a face to which no row points any more, so it is not due."""
    FORGOTTEN = "forgotten"
    """A person was forgotten: only a keyed hash and the number of deleted faces are kept."""
    READMITTED = "readmitted"
    """Somebody who was forgotten may be enrolled again."""
    HELD = "held"
    """A photo was not sent, because it looks like another person."""
    ACCEPTED = "accepted"
    """A person decided that two people may look alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the ledger's history; `at` is UNIX ms. `face_id` is 0 where there is no face any
    more."""

    at: int
    kind: EventKind
    run: int
    face_id: int
    face_token: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """An undocumented answer, kept unchanged: the `number`-th of its code."""

    code: str
    number: int
    http_status: int
    raw: str
    at: int
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Surplus:
    """A copy of a face that the library holds besides the one on record; `found_at` is UNIX ms."""

    face_token: str
    face_id: int
    found_at: int
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPhoto:
    """A photo that is enrolled for several people: its path, two of them, how many they are."""

    path: str
    user_ids: tuple[str, ...]
    people: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedRow(Row):
    """A row of the manifest with its photo's absolute path and what `lstat` reported.

    `path` is empty where the row names no photo; `times` is None where there is no such file.
    """

    path: str
    times: FileTimes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A scanned row that is not known to be enrolled and unchanged, with what the ledger knows.

    `lines` counts the manifest's lines that say the same; `status` and `code` are the row's or
    its face's (PENDING for a row seen for the first time); `changed` says that the photo's times
    are not those on record, `user_data_changed` that its text is not; `multi_oriented_detection`
    is as last sent for its face, and `refused_under` as in its record; `renews` says that an
    enrolled face must be added again with the row's text, `was_there` that the scan saw the photo.
    """

    row: ScannedRow
    lines: int = 1
    status: Status = Status.PENDING
    code: str = ""
    message: str = ""
    face_id: int | None = None
    changed: bool = True
    user_data_changed: bool = False
    multi_oriented_detection: bool = False
    refused_under: str | None = None
    renews: bool = False
    was_there: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of an export or of the results: a face, or a row without one.

    `image` is the photo's path; `error` the code; `sha256` hexadecimal; `enrolled_at` ISO 8601
    in UTC; `time_used` ms, None where the service did not say. Texts are empty where there is
    none.
    """

    user_id: str
    user_data: str
    image: str
    status: Status
    face_token: str = ""
    error: str = ""
    message: str = ""
    attempts: int = 0
    request_id: str = ""
    sha256: str = ""
    prepared: str = ""
    enrolled_at: str = ""
    run: int = 0
    time_used: int | None = None
