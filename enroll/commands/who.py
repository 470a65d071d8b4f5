"""`enroll who`: the people that a library returns for a photo, by one call of `search`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from enroll.addresses import resolved
from enroll.errors import EnrollError, ExitCode, UsageError
from enroll.facesearch import Call, FoundFace, candidates
from enroll.facesearch.answers import PHOTO_CODES
from enroll.ledger import (
    LedgerReader,
    LibraryIdentity,
    check_library,
    iso_time,
    read_ledger,
    shown_path,
)
from enroll.model import Credentials, FaceRecord, LibraryFace, Photo, SendAs, Unusable, Verdict
from enroll.photos import open_store, read_photo
from enroll.session.account import Announce, Connection, connect
from enroll.session.caller import Caller
from enroll.session.library_faces import (
    SEARCH_LIMIT,
    SEARCH_THRESHOLD,
    look_up,
)
from enroll.session.resemblance import STRANGERS
from enroll.session.session import run_defaults
from enroll.settings import (
    DEFAULT_ENDPOINT,
    DEFAULT_MAX_SIDE,
    SEARCH_PREPARATION,
    CallSettings,
    host_of,
)
from enroll.text.remedies import call_remedy, sentence
from enroll.text.wording import columns
from enroll.visible import visible

UNKNOWN = "not known"

NO_LIBRARY = "--group-id is needed: the library to search. Or name its ledger with --ledger."


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoSettings(CallSettings):
    """Whose face is looked for, where, and how many faces are shown.

    `ledger` is that of the library, None where there is none; `endpoint` and `group_id` None are
    those of the ledger. At most `limit` faces are shown.
    """

    photo: Path
    ledger: Path | None = None
    endpoint: str | None = None
    group_id: str | None = None
    limit: int = 5
    max_side: int = DEFAULT_MAX_SIDE
    multi_oriented_detection: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resembling:
    """A face that the library has returned.

    `add_time` is UNIX ms, None where nobody knows. `face` is the ledger's record of the face, or of
    the one that it is a copy of, None where it knows none; `image` is that face's photo.
    """

    found: FoundFace
    add_time: int | None
    face: FaceRecord | None = None
    image: str = ""

    @property
    def in_ledger(self) -> str:
        """What the ledger says of the face, in a few words."""
        if self.face is None:
            return UNKNOWN
        copy = self.face.face_token != self.found.face_token
        whose = f" as {self.face.user_id}" if self.face.user_id != self.found.user_id else ""
        words = f"{'copy' if copy else self.face.status.value}{whose}"
        return f"{words}, {self.image}" if self.image else words


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """What the library returned, best first."""

    stop: ClassVar[EnrollError | None] = None

    settings: WhoSettings
    endpoint: str
    group_id: str
    faces: Sequence[Resembling]

    @property
    def recognized(self) -> bool:
        """Whether the best face reaches the lowest score that tells people apart."""
        return bool(self.faces) and self.faces[0].found.score >= min(STRANGERS)

    @property
    def exit_code(self) -> ExitCode:
        """1 if it is nobody that the library knows, as `grep` has it."""
        return ExitCode.DONE if self.recognized else ExitCode.SOME_ROWS_FAILED

    def figures(self) -> dict[str, Any]:
        """The faces as plain values; `ledger` is null for a face that the ledger does not know, and
        where there is none."""
        return {
            "photo": str(self.settings.photo),
            "endpoint": self.endpoint,
            "group_id": self.group_id,
            "faces": [
                {
                    "user_id": one.found.user_id,
                    "user_data": one.found.user_data,
                    "score": one.found.score,
                    "added": iso_time(one.add_time) or None,
                    "face_token": one.found.face_token,
                    "ledger": None if one.face is None else _json(one.face, one.image),
                }
                for one in self.faces
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Library:
    """Where to search, and what its ledger knows, if there is one."""

    endpoint: str
    group_id: str
    send_as: SendAs = SendAs.FILE
    ledger: LedgerReader | None = None


def who(
    settings: WhoSettings, read_credentials: Callable[[], Credentials], announce: Announce
) -> Who:
    """Search a library for the face in a photo. Raises UsageError for a photo that cannot be used,
    and EnrollError."""
    photo = _read(settings)
    with ExitStack() as stack:
        library = _library(settings, stack)
        connection = stack.enter_context(
            connect(settings, read_credentials, endpoint=library.endpoint, announce=announce)
        )
        found = _search(settings, connection, library, photo)
        return Who(
            settings=settings,
            endpoint=library.endpoint,
            group_id=library.group_id,
            faces=_described(found, connection, library),
        )


def _read(settings: WhoSettings) -> Photo:
    # Whoever names a photo may name a link to it, which a manifest may not.
    path = resolved(settings.photo)
    preparation = replace(SEARCH_PREPARATION, max_side=settings.max_side)
    photo = read_photo(str(path), open_store(path.parent), preparation)
    if isinstance(photo, Unusable):
        raise UsageError(f"{settings.photo}: {photo.fault.message}")
    return photo


def _library(settings: WhoSettings, stack: ExitStack) -> _Library:
    if settings.ledger is None:
        if settings.group_id is None:
            raise UsageError(NO_LIBRARY)
        endpoint = settings.endpoint or DEFAULT_ENDPOINT
        return _Library(endpoint=endpoint, group_id=settings.group_id)
    ledger = stack.enter_context(closing(read_ledger(settings.ledger)))
    known, defaults = ledger.identity(), run_defaults(ledger, endpoint=settings.endpoint)
    wanted = LibraryIdentity(
        host=host_of(defaults.endpoint), group_id=settings.group_id or known.group_id, add_time=""
    )
    check_library(settings.ledger, known, wanted)
    return _Library(
        endpoint=defaults.endpoint,
        group_id=wanted.group_id,
        send_as=defaults.send_as,
        ledger=ledger,
    )


def _search(
    settings: WhoSettings, connection: Connection, library: _Library, photo: Photo
) -> list[FoundFace]:
    call = Call.search(
        group_id=library.group_id,
        send_as=library.send_as,
        limit=min(settings.limit, SEARCH_LIMIT),
        threshold=SEARCH_THRESHOLD,
        multi_oriented_detection=settings.multi_oriented_detection,
    )
    answer = connection.make_call(call, photo=photo)
    if answer.code in PHOTO_CODES:
        why = sentence(answer.code, "", answer.message)
        raise UsageError(f"{settings.photo}: {why} {call_remedy(answer.code)}")
    if answer.verdict is not Verdict.APPLIED:
        raise connection.failed(answer)
    return candidates(answer)[: settings.limit]


def _described(
    found: Sequence[FoundFace], connection: Connection, library: _Library
) -> list[Resembling]:
    """The faces with what the ledger knows of them, and when they were added."""
    faces: Mapping[str, FaceRecord] = {}
    paths: Mapping[int, Sequence[str]] = {}
    photo_root = ""
    if (ledger := library.ledger) is not None:
        faces = ledger.faces_with([one.face_token for one in found])
        paths = ledger.paths_of([face.face_id for face in faces.values()])
        photo_root = ledger.photo_root
    resembling = []
    for one in found:
        face = faces.get(one.face_token)
        own = face is not None and face.face_token == one.face_token
        photos = paths[face.face_id] if face is not None else ()
        resembling.append(
            Resembling(
                found=one,
                add_time=one.add_time or (face.enrolled_at if face is not None and own else None),
                face=face,
                image=shown_path(max(photos), photo_root) if photos else "",
            )
        )
    return _with_times(resembling, connection, library)


def _with_times(
    faces: list[Resembling], connection: Connection, library: _Library
) -> list[Resembling]:
    """With the time that `face_info` says of those of which nothing else has said it."""
    asked = [one.found.face_token for one in faces if one.add_time is None]
    if not asked:
        return faces
    known = None if library.ledger is None else library.ledger.ceiling
    with Caller(connection, library.group_id, concurrency=None, known=known) as caller:
        times = {
            token: answer.add_time
            for token, answer in look_up(caller, asked)
            if isinstance(answer, LibraryFace)
        }
    return [
        replace(one, add_time=times.get(one.found.face_token)) if one.add_time is None else one
        for one in faces
    ]


# What is shown


def who_lines(found: Who) -> Iterator[str]:
    """The faces as lines, and what their scores mean."""
    if not found.faces:
        yield (
            f"Nobody in the library {found.group_id} resembles {visible(str(found.settings.photo))}"
            f" with a score of {SEARCH_THRESHOLD:g} or more."
        )
        return
    heads = ["user_id", "user_data", "score", "added", "in the ledger"]
    wide = len(heads) if found.settings.ledger is not None else len(heads) - 1
    rows = [
        [
            one.found.user_id,
            one.found.user_data,
            f"{one.found.score:.1f}",
            iso_time(one.add_time),
            one.in_ledger,
        ]
        for one in found.faces
    ]
    yield from columns([row[:wide] for row in [heads, *rows]])
    yield ""
    if not found.recognized:
        yield f"No face scores {min(STRANGERS)} or more: it is probably none of these people."
    reached = ", ".join(f"{score} by one in {count:,}" for score, count in STRANGERS.items())
    yield f"How often strangers reach a score, among up to 100,000 faces: {reached}."


def _json(face: FaceRecord, image: str) -> dict[str, Any]:
    return {
        "user_id": face.user_id,
        "status": face.status.value,
        "face_token": face.face_token,
        "image": image or None,
    }
