"""Makes faces due again that the library has lost: after an audit, or with a restored ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from enroll.errors import ServiceError
from enroll.ledger import Changes, Ledger, LedgerAudit, LedgerHold, MissingFace, ledger_at
from enroll.model import EventKind, FaceRecord, LibraryFace, Status
from enroll.session.caller import Caller
from enroll.session.library_faces import look_up, read_library
from enroll.session.session import CommandRecord, command_record, run_start
from enroll.settings import RunSettings
from enroll.text.wording import amount


@dataclass(slots=True)
class Requeued:
    """Counts of faces: due again; with the token of a copy from now on, or with the one from before
    they were added again; without a row that points to them; and kept as they are, because the
    service did not say that they or their copies are gone."""

    due: int = 0
    adopted: int = 0
    gone: int = 0
    kept: int = 0


def requeue_missing(
    audit: LedgerAudit, *, caller: Caller, ledger: Ledger, work: CommandRecord
) -> Requeued:
    """Make every missing face due again, once `face_info` has said of it that it is not there.

    One that has a copy on record, which the library holds, gets the copy's token instead: to add
    it would be to add it twice. A face to which no row points is recorded as removed. The old
    token stays in the history.
    """
    counted, after = Requeued(), 0
    while batch := audit.missing(after=after):
        after = batch[-1].face_id
        gone = _confirmed(audit, batch, caller=caller)
        people = ledger.faces_of({one.user_id for one in gone})
        faces = {face.face_id: face for known in people.values() for face in known}
        known = [faces[one.face_id] for one in gone]
        heirs, unsure = _heirs(audit, known, caller=caller)
        sure = [face for face in known if face.face_id not in unsure]
        counted.kept += len(batch) - len(sure)
        _record(sure, heirs, ledger=ledger, work=work, counted=counted)
    return counted


def _confirmed(
    audit: LedgerAudit, batch: Sequence[MissingFace], *, caller: Caller
) -> list[MissingFace]:
    """Those of a batch that are not in the library. `list` may have left a face out: its pages
    shift when a face before is deleted meanwhile."""
    absent = {one.face_token for one in batch if one.asked}
    to_ask = [one.face_token for one in batch if not one.asked]
    there = []
    for token, found in look_up(caller, to_ask):
        if found is None:
            absent.add(token)
        elif isinstance(found, LibraryFace):
            there.append(found)
    audit.present(there)
    return [one for one in batch if one.face_token in absent]


def _heirs(
    audit: LedgerAudit, gone: Sequence[FaceRecord], *, caller: Caller
) -> tuple[dict[int, LibraryFace], Set[int]]:
    """For faces that are gone, by their numbers: the oldest copy that the library holds, or what
    it holds from before the face was added again; and the faces of whose copies the service does
    not say whether they are there."""
    people = {face.face_id: face.user_id for face in gone}
    formers = {face.former_token: face.face_id for face in gone if face.former_token is not None}
    owners = {**audit.copies_of(list(people)), **formers}
    oldest: dict[int, LibraryFace] = {}
    unanswered = Counter(owners.values())  # no further call may be made for some
    for token, found in look_up(caller, owners):
        owner = owners[token]
        if isinstance(found, ServiceError):
            continue
        unanswered[owner] -= 1
        if found is not None and found.user_id == people[owner]:
            # A copy has the text that the face had, what was there before it has another.
            oldest[owner] = min(
                oldest.get(owner, found),
                found,
                key=lambda one: (one.face_token in formers, one.add_time, one.face_token),
            )
    audit.present(list(oldest.values()))
    return oldest, (+unanswered).keys()


def _record(
    gone: Sequence[FaceRecord],
    heirs: Mapping[int, LibraryFace],
    *,
    ledger: Ledger,
    work: CommandRecord,
    counted: Requeued,
) -> None:
    paths = ledger.paths_of([face.face_id for face in gone])
    for face in gone:
        pointed_to, heir = bool(paths[face.face_id]), heirs.get(face.face_id)
        if heir is not None and heir.face_token == face.former_token:
            changes = _stands_as_before(face, work=work)
        elif heir is not None and pointed_to:
            changes = _inherits(face, heir, work=work)
        else:
            changes, heir = _without_token(face, due=pointed_to, work=work), None
        ledger.record(changes)
        counted.adopted += heir is not None
        counted.due += heir is None and pointed_to
        counted.gone += heir is None and not pointed_to
    ledger.commit()


def _stands_as_before(face: FaceRecord, *, work: CommandRecord) -> Changes:
    """The face is again what the library holds from before it was added again."""
    before = replace(face.reverted(), status=face.status, run=work.run)
    return Changes(
        faces=[before],
        events=[
            work.event(
                EventKind.GONE, face.face_id, face.face_token, "the earlier face counts again"
            ),
            work.event(EventKind.RESTORED, face.face_id, before.face_token),
        ],
    )


def _inherits(face: FaceRecord, heir: LibraryFace, *, work: CommandRecord) -> Changes:
    """The copy is the face from now on."""
    token, old = heir.face_token, face.face_token
    return Changes(
        faces=[replace(face, face_token=token, enrolled_at=heir.add_time, run=work.run)],
        events=[
            work.event(EventKind.GONE, face.face_id, old, "a copy takes its place"),
            work.event(EventKind.ADOPTED, face.face_id, token, "a copy on record"),
        ],
        surplus_gone=[token],
    )


def _without_token(face: FaceRecord, *, due: bool, work: CommandRecord) -> Changes:
    """The library holds nothing of the face: it is due again, or on record as removed."""
    without = replace(
        face,
        status=Status.PENDING if due else Status.REMOVED,
        face_token=None,
        former_token=None,  # not there either
        former_user_data=None,
        enrolled_at=None,
        code="",
        message="",
        run=work.run,
    )
    kind = EventKind.REQUEUED if due else EventKind.GONE
    return Changes(faces=[without], events=[work.event(kind, face.face_id, face.face_token)])


_PUT_BACK = "The ledger was restored to an earlier state"
_REMEDY = (
    "`enroll verify --deep --requeue-missing` finds it; `enroll adopt` adopts what was added since."
)


def requeue_deleted(
    path: Path,
    ledger: Ledger,
    lock: LedgerHold,
    caller: Caller,
    *,
    settings: RunSettings,
) -> list[str]:
    """List the library, and make due again what was deleted since the ledger's copy was taken;
    notes about it.

    The lock remembers it once all is known, so that it is done once for each time that a ledger is
    put back. Where the library does not show all, the ledger goes on as it is. `settings`
    are those of the run for which it is done.
    """
    if lock.caught_up:
        return []
    with closing(ledger_at(path).audit()) as audit:
        try:
            listed = read_library(caller, audit.listing)
        except ServiceError as error:
            return [_unseen(str(error))]
        if not listed.whole:
            return [_unseen(listed.because)]
        audit.refresh()
        audit.all_was_listed(before=listed.began)
        try:
            start = run_start(settings, command="verify")
            with command_record(ledger, start, connection=caller.connection) as work:
                requeued = requeue_missing(audit, caller=caller, ledger=ledger, work=work)
        except ServiceError as error:
            return [_unseen(str(error))]
    again = amount(requeued.due, "face")
    said = [
        f"{_PUT_BACK}. The library was listed: {again} that it counted as enrolled "
        f"{'is' if requeued.due == 1 else 'are'} no longer there, and due again."
    ]
    if requeued.kept:
        kept = amount(requeued.kept, "face")
        said.append(f"{kept} could not be checked yet: the next run checks again.")
    else:
        lock.mark_caught_up()
    return said


def _unseen(because: str) -> str:
    return (
        f"{_PUT_BACK}, and what was deleted since still counts as enrolled, because the library "
        f"cannot be listed completely: {because} {_REMEDY}"
    )
