"""The values that travel between the parts: rows, photos, calls, answers, statuses. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any


class Status(StrEnum):
    """Where an entry of the ledger stands. Every row ends in exactly one of these."""

    PENDING = "pending"
    """Known, not sent yet."""
    SENDING = "sending"
    """The intent is on disk; a call may be under way."""
    ENROLLED = "enrolled"
    """The face token is on disk."""
    REJECTED = "rejected"
    """The service says that this photo or row will never do."""
    INVALID = "invalid"
    """A local check says that this photo or row will never do; no call was made."""
    FAILED = "failed"
    """Tried without success; due again in the next run."""
    IN_DOUBT = "in_doubt"
    """The service may or may not have added the face, and it could not be settled."""
    SUPERSEDED = "superseded"
    """Enrolled, but no row points to it any more."""
    REMOVED = "removed"
    """Deleted from the library."""


class CallKind(StrEnum):
    """The calls of the FaceSearch API, by the last part of their path."""

    ADD = "add"
    CREATE = "create"
    GROUP_LIST = "group_list"
    LIST = "list"
    FACE_INFO = "face_info"
    SEARCH = "search"
    DELETE = "delete"
    FREE = "free"


class SendAs(StrEnum):
    """How `add` and `search` carry the photo: as a file part, or as Base64 text."""

    FILE = "file"
    IMAGE = "image"


class Verdict(Enum):
    """What an answer proves about its call."""

    APPLIED = "applied"
    """The service did what was asked and said so in full."""
    UNKNOWN = "unknown"
    """The call may or may not have been applied."""
    REJECTED = "rejected"
    """Not applied, and the same call will never be."""
    FATAL = "fatal"
    """Not applied, and no other call of this run will be: stop."""
    REFUSED = "refused"
    """Not applied, because too many calls were in flight: try again, no attempt spent."""
    FAILED = "failed"
    """Not applied, for a reason that we do not know to be final."""
    NOT_SENT = "not_sent"
    """No byte of the request can have reached the service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a manifest, its cells as they stand there.

    `line` is the 1-based number of the physical line on which the row starts;
    `image` is the photo's path as written.
    """

    line: int
    user_id: str
    user_data: str
    image: str


@dataclass(frozen=True, slots=True)
class FileTimes:
    """What tells an unchanged file without reading it: bytes, and nanoseconds since the epoch."""

    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A photo that has been read once and can be sent.

    `content` is what is sent; `sha256` (32 bytes) is of the file as it was read, `sent_sha256`
    of `content`; `prepared` says in a word or two what was done to it, empty when it is sent
    as it is. `media_type` is of `content`.
    """

    times: FileTimes
    sha256: bytes
    sent_sha256: bytes
    content: bytes = field(repr=False)
    media_type: str
    prepared: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a row or photo was not sent: a stable code and one sentence for its owner."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for one call, or what stood in the way of its coming back.

    `code` is the service's error code without its detail, or ours when the service gave none
    (`TIMEOUT`, `HTTP_502`, …; `facesearch/answers.py` lists them); empty when applied.
    `expires` and `server_time` are UNIX seconds on the service's clock; `elapsed` is seconds.
    `raw` is the beginning of the body as text, kept for answers that we do not know.
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
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)
    raw: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One face library of an account, as `group_list` shows it (the service says group).

    `add_time` is the service's own text (ISO 8601); with `group_id` and the endpoint it tells
    one library from another that bears the same name later.
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


@dataclass(frozen=True, slots=True)
class Credentials:
    """Key and secret of an account. Never shown: both stay out of `repr`."""

    api_key: str = field(repr=False)
    api_secret: str = field(repr=False)
