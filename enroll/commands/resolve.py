"""`enroll resolve`: decide about a face in doubt by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from enroll import clock
from enroll.errors import EnrollError, ExitCode, ServiceError, UsageError
from enroll.expiry import settled_from
from enroll.ledger import Changes, Ledger, shown_path
from enroll.model import Credentials, EventKind, FaceRecord, LibraryFace, Status
from enroll.session.account import Announce, Connection, connect, unheard
from enroll.session.caller import Caller
from enroll.session.library_faces import list_small, look_up
from enroll.session.session import (
    CommandRecord,
    SessionSettings,
    command_record,
    command_start,
    hold_ledger,
    known_library,
    prove_library,
    run_defaults,
)
from enroll.text.wording import amount, columns

SHOWN_SHA256 = 12
"""How many digits of a photo's SHA-256 to show: enough to tell a person's faces apart."""

_TOKEN = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveSettings(SessionSettings):
    """What `enroll resolve` is to do; docs/reference.md describes the options.

    `token` is None if the face was not added. `sha256` is the beginning of the photo's hash, empty
    if the person has one face in doubt. With `dry_run`, nothing is recorded.
    """

    command: ClassVar[str] = "resolve"

    user_id: str
    token: str | None
    sha256: str = ""
    dry_run: bool = False
    max_in_flight: int | None = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What was recorded, or would be with `dry_run`. `asked`: the service was asked about the
    token, or the library was searched for the face. `added`: the call in doubt was applied. `run`
    is the command's number in the ledger, None if it is not on record."""

    exit_code: ClassVar[ExitCode] = ExitCode.DONE
    stop: ClassVar[EnrollError | None] = None

    run: int | None
    face: FaceRecord
    asked: bool
    added: bool

    def figures(self) -> dict[str, Any]:
        """What was decided."""
        return {"run": self.run, "asked": self.asked, "added": self.added}

    @property
    def sentence(self) -> str:
        """The sentence to print about it."""
        recorded = "Would be recorded" if self.run is None else "Recorded"
        if self.face.status is Status.PENDING:
            look = "the library shows none" if self.asked else "not searched for in the library"
            return f"{recorded} as not added ({look}): the next run sends it."
        if not self.added:
            look = "the service was asked" if self.asked else "the service was not asked"
            return (
                f"{recorded} as not added again ({look}): the face stays as it was, with the token "
                f"{self.face.face_token}."
            )
        by = "as the service has it" if self.asked else "not checked with the service"
        return f"{recorded} as enrolled, with the token {self.face.face_token} ({by})."


def resolve(
    settings: ResolveSettings,
    read_credentials: Callable[[], Credentials] | None,
    *,
    announce: Announce = unheard,
) -> Resolved:
    """Record what a person has found out about a face in doubt.

    Without `read_credentials`, the service is not asked whether it holds the token, or a face of
    this person that the ledger does not know. `announce` receives the endpoint and credentials
    before the first call. Raises EnrollError, and then records nothing.
    """
    if settings.token is not None and not _TOKEN.fullmatch(settings.token):
        raise UsageError("A face token has 32 hexadecimal digits. Correct --token.")
    library = known_library(settings.ledger, group_id=settings.group_id)
    with hold_ledger(settings.ledger, library) as held:
        ledger = held.ledger
        face = _face_in_doubt(settings, ledger)
        if settings.token is not None:
            _refuse_held(ledger, face, settings.token)
        defaults = run_defaults(ledger, endpoint=settings.endpoint)
        connection = None
        if read_credentials is None:
            # By the least: a clock that was taken for ahead must not make a call expire early.
            seen = _Seen(at=clock.time() + defaults.least_clock_offset)
        else:
            with connect(
                settings, read_credentials, endpoint=defaults.endpoint, announce=announce
            ) as connection:
                seen = _look(connection, settings, ledger, face)
        if settings.dry_run:
            return _judged(settings, face, seen, defaults.settle_after, run=None)
        start = command_start(settings, defaults, group_id=library.group_id)
        start = replace(start, settle_after=defaults.settle_after)
        with command_record(ledger, start, connection=connection) as work:
            return _decide(settings, ledger, work, face, seen, defaults.settle_after)


def _decide(
    settings: ResolveSettings,
    ledger: Ledger,
    work: CommandRecord,
    face: FaceRecord,
    seen: _Seen,
    settle_after: float,
) -> Resolved:
    """Record the decision. The command is on record by now: only since then is it known when the
    call of a killed run expires."""
    known = ledger.faces_of([face.user_id])[face.user_id]
    face = next(one for one in known if one.face_id == face.face_id)
    resolved = _judged(settings, face, seen, settle_after, run=work.run)
    token = settings.token if resolved.added else None
    detail = "not added" if token is None else "by token"
    event = work.event(EventKind.RESOLVED, face.face_id, token, detail)
    gone = [] if token is None else [token]
    ledger.record(Changes(faces=[resolved.face], events=[event], surplus_gone=gone))
    ledger.commit()
    return resolved


def _judged(
    settings: ResolveSettings,
    face: FaceRecord,
    seen: _Seen,
    settle_after: float,
    *,
    run: int | None,
) -> Resolved:
    """What the decision makes of the face. Raises UsageError if it is too early to know."""
    # What was there before the call in doubt, is not what the call has added.
    token = None if settings.token == face.former_token else settings.token
    if token is None:
        _refuse_too_early(face, at=seen.at, settle_after=settle_after)
    decided = _decided(face, token, seen.found, run=run or 0)
    return Resolved(run=run, face=decided, asked=seen.asked, added=token is not None)


def _face_in_doubt(settings: ResolveSettings, ledger: Ledger) -> FaceRecord:
    """The face that is meant. What a killed run left `sending` is in doubt, because this command
    holds the ledger."""
    known = ledger.faces_of([settings.user_id])[settings.user_id]
    doubts = [face for face in known if face.open]
    wanted = settings.sha256.lower()
    meant = [face for face in doubts if face.sha256.hex().startswith(wanted)]
    if len(meant) == 1:
        return meant[0]
    if not known:
        raise UsageError("The ledger knows nobody with this user_id. Correct --user-id.")
    if not doubts:
        there = ", ".join(sorted({face.status.value for face in known}))
        raise UsageError(
            f"No face of this person is in doubt ({amount(len(known), 'face')}: {there}). "
            "There is nothing to decide."
        )
    begins = f" whose SHA-256 begins with {wanted}" if wanted else ""
    count = amount(len(meant), "face") if meant else "no face"
    raise UsageError(
        f"This person has {count} in doubt{begins}. Choose one with --sha256:",
        *_listed(ledger, doubts),
    )


def _listed(ledger: Ledger, doubts: Sequence[FaceRecord]) -> list[str]:
    """The faces in doubt as lines: the beginning of their SHA-256, the reason, and their photos."""
    paths = ledger.paths_of([face.face_id for face in doubts])
    rows = []
    for face in doubts:
        shown = ", ".join(
            shown_path(path, ledger.photo_root) for path in sorted(paths[face.face_id])
        )
        begins = face.sha256.hex()[:SHOWN_SHA256]
        rows.append((f"  {begins}", face.code or face.status.value, shown or "no row"))
    return columns(rows)


def _refuse_too_early(face: FaceRecord, *, at: float, settle_after: float) -> None:
    """Refuse a decision that cannot be known yet `at` this moment (UNIX seconds, service's
    clock)."""
    left = settled_from(face.expires, settle_after=settle_after) - at
    if left > 0:
        raise UsageError(
            "The last call for this face may still be applied, so it is too early to say that it "
            f"was not added. Run the same command again in {math.ceil(left):,} seconds."
        )


def _refuse_held(ledger: Ledger, face: FaceRecord, token: str) -> None:
    holder = ledger.holders_of([token]).get(token, face.face_id)
    if holder != face.face_id:
        raise UsageError(
            "The ledger holds this token for another face, so it cannot be this one's. "
            "Correct --token; `enroll export` shows whose it is."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the service said: the token's face, whether it could be asked, and the earliest that its
    clock can have been, in UNIX seconds."""

    found: LibraryFace | None = None
    asked: bool = False
    at: float


def _look(
    connection: Connection, settings: ResolveSettings, ledger: Ledger, face: FaceRecord
) -> _Seen:
    """Prove the library, and ask it about the decision. Raises UsageError if it disagrees."""
    identity = ledger.identity()
    try:
        prove_library(connection, ledger=settings.ledger, known=identity)
    except ServiceError as error:
        raise type(error)(f"{error} Or decide without checking, with --offline.") from error
    with Caller(connection, identity.group_id, concurrency=settings.max_in_flight) as caller:
        at = clock.time() + connection.service.clock.least
        if settings.token is None:
            asked, found = _refuse_there(caller, ledger, face), None
        else:
            asked, found = True, _face_of(settings.token, caller, settings)
        return _Seen(found=found, asked=asked, at=at)


def _refuse_there(caller: Caller, ledger: Ledger, face: FaceRecord) -> bool:
    """Refuse `--not-added` for a face that the library shows; returns whether it shows all it
    has."""
    there = list_small(caller)
    if there is None:
        return False
    known = face.former_token  # there before the call in doubt
    tokens = [
        one.face_token for one in there if one.user_id == face.user_id and one.face_token != known
    ]
    holders = ledger.holders_of(tokens)
    unknown = [token for token in tokens if holders.get(token, face.face_id) == face.face_id]
    if unknown:
        raise UsageError(
            f"The library holds {amount(len(unknown), 'face')} of this person that the ledger "
            f"does not know: {', '.join(unknown)}. If one of them is of this photo, give it with "
            "--token; if none is, decide without checking, with --offline."
        )
    return True


def _face_of(token: str, caller: Caller, settings: ResolveSettings) -> LibraryFace:
    """The token's face, as the library has it."""
    ((_, found),) = look_up(caller, [token])
    if isinstance(found, ServiceError):
        raise type(found)(
            f"The token could not be checked: {found} Or record it unchecked with --offline."
        )
    if found is None:
        raise UsageError("The library holds no face with this token. Correct --token.")
    if found.user_id != settings.user_id:
        raise UsageError(
            "The library holds the face with this token under another user_id. Correct --token."
        )
    return found


def _decided(
    face: FaceRecord, token: str | None, found: LibraryFace | None, *, run: int
) -> FaceRecord:
    """The face's record from now on."""
    face = replace(face, code="", message="", run=run)
    if token is None:
        # Looked up once more by the next run: what has landed by then is reported.
        return replace(face, status=Status.PENDING, recheck=True).reverted()
    return replace(
        face,
        status=Status.ENROLLED,
        face_token=token,
        recheck=False,
        enrolled_at=clock.now_ms() if found is None else found.add_time,
    )
