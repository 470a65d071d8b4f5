"""Deletes faces from a library: each intent is on disk before its call, each outcome after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import takewhile

from enroll import clock
from enroll.errors import ServiceError, UnreachedError
from enroll.expiry import DELETING_SECONDS
from enroll.facesearch import Call, Deleted, deleted
from enroll.ledger import Changes, Ledger, Target
from enroll.model import Answer, Event, EventKind, LibraryFace, Verdict
from enroll.session.caller import Caller
from enroll.session.library_faces import look_up
from enroll.session.retry import COMMAND_ONCE
from enroll.session.session import CommandRecord

DELETE_PAGE = 1000
"""Tokens in one call of `delete`: the most that it takes."""

ROUNDS = 3
"""How often faces are deleted that are still there after an answer that left it open."""

NOT_THERE = "FACE_NOT_IN_GROUP"
"""The reason for which `delete` does not take out a face that the library does not hold."""


def chosen_pages(ledger: Ledger, *, run: int) -> Iterator[list[Target]]:
    """The faces that the ledger has chosen, at most `DELETE_PAGE` at a time."""
    after = ""
    while targets := ledger.deletions.chosen(after=after, most=DELETE_PAGE, run=run):
        yield targets
        after = targets[-1].face_token


def delete_chosen(
    ledger: Ledger,
    caller: Caller,
    *,
    run: int,
    on_progress: Callable[[int], None] = lambda gone: None,
    go_on: Callable[[], bool] = lambda: True,
    seen: bool = False,
) -> int:
    """Delete the faces that the ledger has chosen. Returns the number of faces whose deletion is
    uncertain; the next command that changes the library settles it.

    `run` is the command's number. `on_progress` is called after each call with the number of faces
    deleted so far, once there are any; `go_on` is asked before each call, including those that
    find out what became of a face. `seen` is as for `Deletions.settle`. Raises ServiceError if the
    service refuses to delete.
    """
    gone, unknown = 0, 0
    for targets in chosen_pages(ledger, run=run):
        if not go_on():
            break
        left = delete_targets(ledger, caller, targets, go_on=go_on, seen=seen)
        gone, unknown = gone + len(targets) - left, unknown + left
        if gone:
            on_progress(gone)
    return unknown


def delete_targets(
    ledger: Ledger,
    caller: Caller,
    targets: Sequence[Target],
    *,
    go_on: Callable[[], bool] = lambda: True,
    seen: bool = False,
) -> int:
    """The same for faces that are named."""
    # What was recorded before may have been called for, or agreed to.
    older = {one.face_token for one in ledger.deletions.intended()}
    unknown = 0
    for page in _pages(targets):
        ledger.deletions.intend(page)
        _note(ledger, EventKind.REMOVING, page)
        ledger.commit()
        unknown += _carry_out(ledger, caller, page, older=older, go_on=go_on, seen=seen)
    return unknown


def settle_deleting(ledger: Ledger, caller: Caller) -> str:
    """Finish the deletions that earlier commands have begun; why the service refused, else "".

    Only what somebody has agreed to is deleted. Of what a sync was about to delete this finds out
    what is gone: the rest may be wanted again, and the next sync chooses again. A face that is
    there counts as one that stays only when no call can delete it any more.
    """
    judged = ledger.deletions.intended_by_syncs()
    refused = ""
    agreed = [one for one in ledger.deletions.intended() if one.face_token not in judged]
    try:
        for page in _pages(agreed):  # what was recorded may have been carried out
            _carry_out(ledger, caller, page, older={one.face_token for one in page})
    except ServiceError as error:  # an account may not delete any more, and may add
        refused = str(error)
    now = clock.now_ms()
    doubtful = {one.face_token: one for one in ledger.deletions.intended()}
    gone, stays = list[Target](), list[str]()
    try:
        for token, found in look_up(caller, doubtful):
            if found is None:
                gone.append(doubtful[token])
            elif (
                isinstance(found, LibraryFace)
                and judged.get(token, now) < now - DELETING_SECONDS * 1000
            ):
                stays.append(token)
    except ServiceError as error:
        refused = refused or str(error)
    _settle(ledger, gone, {})
    ledger.deletions.withdraw(stays)
    # A clock that was ahead has recorded these; from now on it is known how long ago.
    _note(
        ledger,
        EventKind.REMOVING,
        [one for one in ledger.deletions.intended() if judged.get(one.face_token, now) > now],
    )
    ledger.commit()
    return refused


def _pages(targets: Sequence[Target]) -> Iterator[Sequence[Target]]:
    for start in range(0, len(targets), DELETE_PAGE):
        yield targets[start : start + DELETE_PAGE]


def _carry_out(
    ledger: Ledger,
    caller: Caller,
    targets: Sequence[Target],
    *,
    older: Set[str],
    go_on: Callable[[], bool] = lambda: True,
    seen: bool = False,
) -> int:
    """Make the calls for at most `DELETE_PAGE` faces and record their outcomes. Returns of how
    many nothing is known. For the `older` ones an earlier command may have made a call."""
    deletion = Deletion(caller, go_on=go_on)
    tokens = [target.face_token for target in targets]
    try:
        deletion.carry_out(tokens)
    except ServiceError:
        if not deletion.attempted:  # nothing was deleted, and nothing will be
            ledger.deletions.withdraw([token for token in tokens if token not in older])
        raise
    finally:
        gone = deletion.gone
        settled = [target for target in targets if target.face_token in gone]
        _settle(ledger, settled, gone, seen=seen)
        ledger.commit()
    return len(targets) - len(settled)


def _settle(
    ledger: Ledger, targets: Sequence[Target], reasons: Mapping[str, str], *, seen: bool = False
) -> None:
    for run in {target.run for target in targets}:
        tokens = [target.face_token for target in targets if target.run == run]
        ledger.deletions.confirm(tokens, run=run, seen=seen)
    _note(ledger, EventKind.REMOVED, targets, reasons=reasons)


def _note(
    ledger: Ledger,
    kind: EventKind,
    targets: Sequence[Target],
    reasons: Mapping[str, str] | None = None,
) -> None:
    at = clock.now_ms()
    events = [
        Event(
            at=at,
            kind=kind,
            run=target.run,
            face_id=target.face_id,
            face_token=target.face_token,
            detail=(reasons or {}).get(target.face_token, ""),
        )
        for target in targets
    ]
    ledger.record(Changes(events=events))


def delete_copies(
    copies: Sequence[tuple[str, int]],
    *,
    caller: Caller,
    ledger: Ledger,
    work: CommandRecord,
) -> Iterator[list[str]]:
    """Delete copies, given as a token and the number of its face, from the library. Yields the
    tokens of those that are gone, call by call.

    Each is in the ledger's history before the call and after it. What a kill leaves is not deleted
    by the next command, as faces are that somebody chose: a copy goes only while it is known that
    the library holds its face as well. Raises ServiceError where the service will not delete.
    """
    for start in range(0, len(copies), DELETE_PAGE):
        page = copies[start : start + DELETE_PAGE]
        intents = [work.event(EventKind.REMOVING, face_id, token) for token, face_id in page]
        ledger.record(Changes(events=intents))
        ledger.commit()
        deletion = Deletion(caller)
        deletion.carry_out([token for token, _ in page])
        gone = deletion.gone
        outcomes = [
            work.event(EventKind.REMOVED, face_id, token, gone[token])
            for token, face_id in page
            if token in gone
        ]
        ledger.record(Changes(events=outcomes, surplus_gone=list(gone)))
        ledger.commit()
        yield list(gone)


class Deletion:
    """Faces that are being deleted. `gone` are those that are known to be, with the service's
    reason for those that were before; the others may be gone or not once a call was `attempted`.
    """

    def __init__(self, caller: Caller, *, go_on: Callable[[], bool] = lambda: True) -> None:
        """`go_on` is asked before each call."""
        self.gone: dict[str, str] = {}
        self.attempted = False
        self._caller = caller
        self._go_on = go_on

    def carry_out(self, face_tokens: Sequence[str]) -> None:
        """Delete at most `DELETE_PAGE` faces, and look up those for which the answer leaves it
        open, as long as another call may be made. Raises ServiceError where the service
        refuses."""
        for _ in range(ROUNDS):
            left = [token for token in face_tokens if token not in self.gone]
            if not (left and self._caller.may_call() and self._go_on()):
                return
            answer = _ask_to_delete(self._caller, left)
            report = _report_of(answer)
            if report is not None and report.removed == len(left) - len(report.failures):
                failed = report.failures
                self.gone |= {
                    token: failed.get(token, "")
                    for token in left
                    if failed.get(token, NOT_THERE) == NOT_THERE
                }
                return
            if report is None and answer.verdict is not Verdict.UNKNOWN:
                error = self._caller.connection.failed(answer)
                if isinstance(error, UnreachedError):
                    raise error
                said = (answer.message or answer.code).rstrip(".")
                raise ServiceError(f"The service does not delete faces: {said}. Try again later.")
            # The answer leaves it open: ask about each. Deleting a token again does no harm.
            self.attempted = True
            asked = takewhile(lambda _: self._go_on(), left)
            for token, found in look_up(self._caller, asked):
                if found is None:
                    self.gone[token] = ""


def _ask_to_delete(caller: Caller, face_tokens: Sequence[str]) -> Answer:
    return caller.ask(
        Call.delete(group_id=caller.group_id, face_tokens=face_tokens),
        policy=COMMAND_ONCE,
    )


def _report_of(answer: Answer) -> Deleted | None:
    try:
        return deleted(answer) if answer.verdict is Verdict.APPLIED else None
    except ServiceError:
        return None
