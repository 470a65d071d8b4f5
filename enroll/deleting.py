"""Faces deleted from a library: called until it is known, with each intent on disk before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile

from enroll.asking import Asking
from enroll.errors import ServiceError
from enroll.facesearch import Deleted, deleted
from enroll.ledger import Changes, Ledger, Target
from enroll.model import Answer, CallKind, Event, EventKind, LibraryFace, Verdict
from enroll.recorder import now_ms
from enroll.sighting import look_up

DELETE_PAGE = 1000
"""Tokens in one call of `delete`: the most that it takes."""

ROUNDS = 3
"""How often faces are deleted that are still there after an answer that left it open."""

NOT_THERE = "FACE_NOT_IN_GROUP"
"""The reason for which `delete` does not take out a face that the library does not hold."""


LANDED_MS = 3_600_000
"""When no call of `delete` can take a face out any more that was recorded so long ago: rounds,
refusals and signatures are over by then."""


def chosen_pages(ledger: Ledger, *, run: int) -> Iterator[list[Target]]:
    """The faces that the ledger has chosen, at most `DELETE_PAGE` at a time."""
    after = ""
    while targets := ledger.removals.chosen(after=after, most=DELETE_PAGE, run=run):
        yield targets
        after = targets[-1].face_token


def delete_chosen(
    ledger: Ledger,
    asking: Asking,
    group_id: str,
    *,
    run: int,
    told: Callable[[int], None] = lambda gone: None,
    go_on: Callable[[], bool] = lambda: True,
    seen: bool = False,
) -> int:
    """Delete the faces that the ledger has chosen; of how many it is not known whether they are
    gone, which the next command that changes the library finds out.

    `run` is the command's number; `told` hears after each call how many are gone so far, once any
    are; `go_on` is asked before each, also before those that ask what became of a face. `seen` is
    as for `Removals.settle`. Raises ServiceError where the service will not delete.
    """
    gone, unknown = 0, 0
    for targets in chosen_pages(ledger, run=run):
        if not go_on():
            break
        left = delete_targets(ledger, asking, group_id, targets, go_on=go_on, seen=seen)
        gone, unknown = gone + len(targets) - left, unknown + left
        if gone:
            told(gone)
    return unknown


def delete_targets(
    ledger: Ledger,
    asking: Asking,
    group_id: str,
    targets: Sequence[Target],
    *,
    go_on: Callable[[], bool] = lambda: True,
    seen: bool = False,
) -> int:
    """The same for at most `DELETE_PAGE` faces that are named."""
    ledger.removals.intend(targets)
    _note(ledger, EventKind.REMOVING, targets)
    ledger.commit()
    return _carry_out(ledger, asking, group_id, targets, go_on=go_on, seen=seen)


def finish_deleting(ledger: Ledger, asking: Asking, group_id: str) -> int:
    """Delete what an earlier command was about to delete when it ended; of how many faces it is
    still not known whether they are gone. To delete a face that is gone does no harm."""
    return _finish(ledger, asking, group_id, ledger.removals.intended())


def settle_deleting(ledger: Ledger, asking: Asking, group_id: str) -> None:
    """Finish only what somebody has agreed to. Of what a sync was about to delete, find out what
    is gone: the rest may be wanted again, and is for a sync to choose anew.

    A face that is there is taken for one that stays only when no call can delete it any more.
    """
    judged = ledger.removals.intended_by_syncs()
    targets = ledger.removals.intended()
    _finish(ledger, asking, group_id, [one for one in targets if one.face_token not in judged])
    doubtful = {one.face_token: one for one in targets if one.face_token in judged}
    gone, stays = list[Target](), list[str]()
    for token, found in look_up(asking, group_id, doubtful):
        if found is None:
            gone.append(doubtful[token])
        elif isinstance(found, LibraryFace) and judged[token] < now_ms() - LANDED_MS:
            stays.append(token)
    _settle(ledger, gone, {})
    ledger.removals.withdraw(stays)
    ledger.commit()


def _finish(ledger: Ledger, asking: Asking, group_id: str, targets: Sequence[Target]) -> int:
    return sum(
        _carry_out(ledger, asking, group_id, targets[start : start + DELETE_PAGE])
        for start in range(0, len(targets), DELETE_PAGE)
    )


def _carry_out(
    ledger: Ledger,
    asking: Asking,
    group_id: str,
    targets: Sequence[Target],
    *,
    go_on: Callable[[], bool] = lambda: True,
    seen: bool = False,
) -> int:
    """Make the calls for at most `DELETE_PAGE` faces and record what came of it; how many are
    left of which nothing is known."""
    tokens = [target.face_token for target in targets]
    try:
        gone = delete_faces(asking, group_id, tokens, go_on=go_on)
    except ServiceError:
        ledger.removals.withdraw(tokens)
        ledger.commit()
        raise
    settled = [target for target in targets if target.face_token in gone]
    _settle(ledger, settled, gone, seen=seen)
    ledger.commit()
    return len(targets) - len(settled)


def _settle(
    ledger: Ledger, targets: Sequence[Target], reasons: Mapping[str, str], *, seen: bool = False
) -> None:
    for run in {target.run for target in targets}:
        tokens = [target.face_token for target in targets if target.run == run]
        ledger.removals.settle(tokens, run=run, seen=seen)
    _note(ledger, EventKind.REMOVED, targets, reasons=reasons)


def _note(
    ledger: Ledger,
    kind: EventKind,
    targets: Sequence[Target],
    reasons: Mapping[str, str] | None = None,
) -> None:
    at = now_ms()
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


def delete_faces(
    asking: Asking,
    group_id: str,
    face_tokens: Sequence[str],
    *,
    go_on: Callable[[], bool] = lambda: True,
) -> dict[str, str]:
    """Delete at most `DELETE_PAGE` faces. Those that are gone, with the service's reason for
    those that were gone before; of the others it is not known. `go_on` is asked before each call,
    and none is made that `asking` may not make. Raises ServiceError where the
    service has deleted none of them and will not."""
    gone: dict[str, str] = {}
    for _ in range(ROUNDS):
        left = [token for token in face_tokens if token not in gone]
        if not (left and asking.may_call() and go_on()):
            break
        answer = _ask_to_delete(asking, group_id, left)
        told = _told(answer)
        if told is not None and told.removed == len(left) - len(told.failures):
            failed = told.failures
            gone |= {token: failed.get(token, "") for token in left if _is_gone(failed.get(token))}
            break
        if told is None and answer.verdict is not Verdict.UNKNOWN:
            said = (answer.message or answer.code).rstrip(".")
            raise ServiceError(f"The service does not delete faces: {said}. Try again later.")
        # The answer leaves it open: ask about each. Deleting a token again does no harm.
        asked = takewhile(lambda _: go_on(), left)
        gone |= {token: "" for token, found in look_up(asking, group_id, asked) if found is None}
    return gone


def _ask_to_delete(asking: Asking, group_id: str, face_tokens: Sequence[str]) -> Answer:
    return asking.ask(
        CallKind.DELETE,
        lambda service: service.delete(group_id=group_id, face_tokens=face_tokens),
        tries=1,
    )


def _told(answer: Answer) -> Deleted | None:
    try:
        return deleted(answer) if answer.verdict is Verdict.APPLIED else None
    except ServiceError:
        return None


def _is_gone(reason: str | None) -> bool:
    return reason is None or reason == NOT_THERE
