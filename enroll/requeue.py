"""Makes faces due again whose token the library does not hold any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from enroll.asking import Asking
from enroll.ledger import Changes, Ledger, MissingFace
from enroll.ledger.auditing import SqliteAudit
from enroll.model import EventKind, FaceRecord, LibraryFace, Status
from enroll.sighting import look_up
from enroll.upkeep import Upkeep


@dataclass(slots=True)
class Requeued:
    """How many faces are due again, how many no row points to any more, and how many stay as
    they are because the service did not say that they are gone."""

    due: int = 0
    gone: int = 0
    kept: int = 0


def requeue_missing(
    audit: SqliteAudit, *, asking: Asking, ledger: Ledger, work: Upkeep, group_id: str
) -> Requeued:
    """Make every missing face due again, once `face_info` has said of it that it is not there.

    A face to which no row points is recorded as removed instead. The old token stays in the
    event.
    """
    counted, after = Requeued(), 0
    while batch := audit.missing(after=after):
        after = batch[-1].face_id
        gone = _confirmed(audit, batch, asking=asking, group_id=group_id)
        counted.kept += len(batch) - len(gone)
        _record(gone, ledger=ledger, work=work, counted=counted)
    return counted


def _confirmed(
    audit: SqliteAudit, batch: Sequence[MissingFace], *, asking: Asking, group_id: str
) -> list[MissingFace]:
    """Those of a batch that are not in the library. `list` may have left a face out: its pages
    shift when a face before is deleted meanwhile."""
    absent = {one.face_token for one in batch if one.asked}
    to_ask = [one.face_token for one in batch if not one.asked]
    there = []
    for token, found in look_up(asking, group_id, to_ask):
        if found is None:
            absent.add(token)
        elif isinstance(found, LibraryFace):
            there.append(found)
    audit.present(there)
    return [one for one in batch if one.face_token in absent]


def _record(
    gone: Sequence[MissingFace], *, ledger: Ledger, work: Upkeep, counted: Requeued
) -> None:
    people = ledger.faces_of({one.user_id for one in gone})
    faces = {face.face_id: face for known in people.values() for face in known}
    paths = ledger.paths_of([one.face_id for one in gone])
    for one in gone:
        face = faces[one.face_id]
        pointed_to = bool(paths[face.face_id])
        kind = EventKind.REQUEUED if pointed_to else EventKind.GONE
        ledger.record(
            Changes(
                faces=[_without_token(face, due=pointed_to, run=work.run)],
                events=[work.event(kind, face.face_id, one.face_token)],
            )
        )
        counted.due += pointed_to
        counted.gone += not pointed_to
    ledger.commit()


def _without_token(face: FaceRecord, *, due: bool, run: int) -> FaceRecord:
    return replace(
        face,
        status=Status.PENDING if due else Status.REMOVED,
        face_token=None,
        enrolled_at=None,
        code="",
        message="",
        run=run,
    )
