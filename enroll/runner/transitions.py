"""What comes next for a row: (what the ledger knows, answer, now) -> step.

Pure: no I/O, no clock of its own. The driver carries the steps out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from enroll.model import Answer, Candidate, FaceRecord, SeenPhoto, Status, Verdict, same_face
from enroll.settings import CodeRule

MULTI_ORIENTED_CODES = frozenset({"NO_FACE_FOUND"})
"""Codes that another value of `multi_oriented_detection` may turn into a success."""


STRANGER = "UNKNOWN_FACE"
"""The code of a face that the library may hold although the ledger knows no call for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings that decide what comes next; docs/reference.md describes the options."""

    attempts: int
    multi_oriented_detection: bool = False
    retry_codes: frozenset[str] = frozenset()
    on_code: Mapping[str, CodeRule] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    """For each code that settings of the photos' preparation may turn into a success a text of
    those settings; where it is another than in the record of a refusal, it is worth a try."""
    holds_precheck_faults: bool = False
    """Whether a photo is held back, not sent, if the precheck found something wrong with it."""


@dataclass(frozen=True, slots=True)
class Send:
    """Record the intent, then call `add`. `face` is the record to continue, if there is one."""

    face: FaceRecord | None


@dataclass(frozen=True, slots=True)
class ReadAgain:
    """The library does not hold `face`: read its photo again, and send it."""

    face: FaceRecord


@dataclass(frozen=True, slots=True)
class NoCall:
    """No call is needed: the row points to `face`, open or not, as it stands."""

    face: FaceRecord


@dataclass(frozen=True, slots=True)
class Outcome:
    """It is known whether the face was added: record `face`, and that its row is done."""

    face: FaceRecord


@dataclass(frozen=True, slots=True)
class Hold:
    """Another face of this person is open: the row stays pending until that one is settled."""

    behind: FaceRecord


@dataclass(frozen=True, slots=True)
class InDoubt:
    """The call may or may not have been applied: the face has to be settled before the row goes
    on."""

    face: FaceRecord


@dataclass(frozen=True, slots=True)
class Again:
    """Not applied: call again, after a back-off or as soon as there is a slot (`refused`: by the
    service, or by this machine)."""

    face: FaceRecord
    refused: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """Not applied, and no other call will be: stop the run; the row stays due."""

    face: FaceRecord
    answer: Answer


Step = Outcome | InDoubt | Again | Stop
"""What follows from the answer to a call."""


def first_step(
    faces: Sequence[FaceRecord],
    photo: SeenPhoto,
    *,
    policy: Policy,
    run: int,
    user_data: str | None = None,
    renews: bool = False,
) -> Send | NoCall | Hold:
    """The first step of a row whose photo has been read, in run number `run`.

    `faces` are all faces that the ledger has for this `user_id`; `user_data` is the row's, given
    where it may differ from what was sent. With `renews`, an enrolled face is sent again.
    """
    same = same_face(faces, photo)
    opened = next((face for face in faces if face.open), None)
    if same is not None and same.status in (Status.ENROLLED, Status.SUPERSEDED):
        if not (renews and _may_be_renewed(same, user_data)):
            return NoCall(replace(same, status=Status.ENROLLED))
        return Send(same) if opened is None else Hold(opened)
    if same is not None and same.open:
        return NoCall(same)
    if opened is not None:
        return Hold(opened)
    text_changed = same is not None and user_data not in (None, same.user_data)
    if same is not None and not _may_try_again(
        same, policy=policy, run=run, text_changed=text_changed
    ):
        return NoCall(same)
    return Send(same)


def _may_be_renewed(face: FaceRecord, user_data: str | None) -> bool:
    """Whether the library has a different text for an enrolled face. A former copy of the face has
    to be deleted first."""
    return user_data not in (None, face.user_data) and face.former_token is None


def _may_try_again(face: FaceRecord, *, policy: Policy, run: int, text_changed: bool) -> bool:
    """Whether a face that is neither enrolled nor open may be sent (again) in this run.

    `text_changed` means that the row's text differs from what was sent.
    """
    if face.status is Status.HELD:
        return False
    if face.status is Status.REJECTED and text_changed:
        return True
    if face.run == run and face.status in (Status.REJECTED, Status.FAILED):
        return False  # another row with the same photo has just been answered
    if face.status is Status.REJECTED:
        return (
            face.code in policy.retry_codes
            or _turning_may_help(face.code, face.multi_oriented_detection, policy)
            or _preparing_may_help(face.code, face.refused_under, policy)
        )
    return True


def _turning_may_help(code: str, turned_last_time: bool, policy: Policy) -> bool:
    return code in MULTI_ORIENTED_CODES and policy.multi_oriented_detection and not turned_last_time


def _preparing_may_help(code: str, refused_under: str | None, policy: Policy) -> bool:
    return code in policy.marks and policy.marks[code] != refused_under


def is_due(candidate: Candidate, policy: Policy) -> bool:
    """Whether this run has to read a candidate's photo, and perhaps to send it."""
    if candidate.status is Status.HELD:  # else a person has to release it
        return candidate.changed
    if candidate.changed or candidate.code in policy.retry_codes:
        return True
    if candidate.status not in (Status.REJECTED, Status.INVALID):
        return True
    turned = candidate.multi_oriented_detection
    # The service may have rejected the row for its text. Enrolled faces' text stays as it is.
    rejected = candidate.status is Status.REJECTED and (
        candidate.user_data_changed or _turning_may_help(candidate.code, turned, policy)
    )
    return rejected or _preparing_may_help(candidate.code, candidate.refused_under, policy)


def mark_sending(
    face: FaceRecord, *, at: int, run: int, expires: float, user_data: str | None = None
) -> FaceRecord:
    """The record that must be on disk before the call leaves; `at` is UNIX ms, `expires` the
    latest that its signature may expire.

    An enrolled face is added again with this `user_data`, and keeps its token beside.
    """
    if face.status in (Status.ENROLLED, Status.SUPERSEDED):
        face = replace(face, former_token=face.face_token, former_user_data=face.user_data)
    return replace(
        face,
        status=Status.SENDING,
        attempts=face.attempts + 1,
        first_attempt_at=face.first_attempt_at or at,
        expires=expires,
        face_token=None,
        user_data=face.user_data if user_data is None else user_data,
        enrolled_at=face.enrolled_at if face.former_token else None,
        code="",
        message="",
        run=run,
        refused_under=None,
    )


def mark_suspect(face: FaceRecord, *, run: int, user_data: str | None = None) -> FaceRecord:
    """The record of a face to look for before it is sent, because the library holds a face of the
    same person that the ledger does not know. No call is in flight, so there is no expiry to await.

    `user_data` is as for `mark_sending`.
    """
    if face.status in (Status.ENROLLED, Status.SUPERSEDED):
        face = replace(face, former_token=face.face_token, former_user_data=face.user_data)
    return replace(
        face,
        face_token=None,
        user_data=face.user_data if user_data is None else user_data,
        status=Status.IN_DOUBT,
        code=STRANGER,
        message="The library holds a face of this person that the ledger does not know.",
        expires=None,
        run=run,
    )


def cancel(face: FaceRecord, *, previous_expires: float | None) -> FaceRecord:
    """The record of a face whose intent is on disk but whose call never left; `previous_expires` is
    as for `after`."""
    return replace(
        face,
        status=Status.PENDING,
        attempts=face.attempts - 1,
        first_attempt_at=face.first_attempt_at if face.attempts > 1 else None,
        expires=previous_expires,
    ).reverted()


def after(
    face: FaceRecord,
    answer: Answer,
    *,
    at: int,
    policy: Policy,
    tries: int,
    previous_expires: float | None = None,
) -> Step:
    """The step after the answer to an `add` call; `tries` counts this run's calls for the row.

    `previous_expires` is the expiry of the last earlier attempt that ended in doubt, None if there
    is none: once this attempt's outcome is known, only that expiry stays on record.
    """
    verdict = answer.verdict
    if verdict is Verdict.APPLIED:
        if answer.face_token == face.former_token:  # the service has given the same one again
            face = replace(face, former_token=None, former_user_data=None)
        return Outcome(
            replace(
                face,
                status=Status.ENROLLED,
                face_token=answer.face_token,
                enrolled_at=at,
                expires=previous_expires,
                code=answer.code,
                message=answer.message,
                request_id=answer.request_id,
                time_used=answer.time_used,
            )
        )
    told = replace(
        face,
        expires=previous_expires,
        code=answer.code,
        message=answer.message,
        request_id=answer.request_id,
        time_used=answer.time_used,
    )
    if verdict is Verdict.UNKNOWN:
        return InDoubt(replace(told, status=Status.IN_DOUBT, expires=answer.expires))
    if verdict in (Verdict.REFUSED, Verdict.BLOCKED, Verdict.NOT_SENT):
        return Again(
            cancel(face, previous_expires=previous_expires), refused=verdict is not Verdict.NOT_SENT
        )
    if verdict is Verdict.FATAL:
        return Stop(cancel(told, previous_expires=previous_expires), answer)
    return _not_applied(told, answer, policy=policy, tries=tries)


def after_look(
    face: FaceRecord, due: Candidate, *, told: FaceRecord, policy: Policy, tries: int
) -> ReadAgain | NoCall | Outcome:
    """The step of a row whose face was in doubt, once that has been looked into.

    `face` is the face as the look at the library left it, `told` as the last answer left it;
    `tries` counts this run's calls for the row.
    """
    absent = face.status is Status.PENDING
    if not (absent or _stands_as_before(face, due)):
        return NoCall(face)
    if tries < policy.attempts:
        return ReadAgain(face)
    status = Status.FAILED if absent else face.status
    return Outcome(replace(face, status=status, code=told.code, message=told.message))


def _stands_as_before(face: FaceRecord, due: Candidate) -> bool:
    """Whether a face that should have been added again was not."""
    return due.renews and face.face_token is not None and face.user_data != due.row.user_data


def _not_applied(
    face: FaceRecord, answer: Answer, *, policy: Policy, tries: int
) -> Outcome | Again | Stop:
    """The service answered that it did not add the face; `--on-code` may overrule the verdict."""
    rule = policy.on_code.get(answer.code)
    if rule is CodeRule.STOP:
        return Stop(cancel(face, previous_expires=face.expires), answer)
    if rule is CodeRule.RETRY:
        if tries < policy.attempts:
            return Again(replace(face, status=Status.PENDING).reverted(), refused=False)
        return Outcome(replace(face, status=Status.FAILED).reverted())
    if answer.verdict is not Verdict.REJECTED and rule is not CodeRule.REJECT:
        return Outcome(replace(face, status=Status.FAILED).reverted())
    under = policy.marks.get(answer.code)
    return Outcome(replace(face, status=Status.REJECTED, refused_under=under).reverted())
