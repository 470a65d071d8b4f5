"""What is recorded of a doubt when it has been settled, or left."""

from __future__ import annotations

from dataclasses import dataclass, replace

from enroll.clock import now_ms
from enroll.ledger import Changes
from enroll.model import Event, EventKind, FaceRecord, Status, Surplus
from enroll.run import transitions
from enroll.run.journal import Journal
from enroll.run.reconcile_rules import Adopt, Doubt

IN_LIBRARY_BEFORE = frozenset({Status.ENROLLED, Status.SUPERSEDED, Status.REMOVED})
"""Where a face has stood that has, or had, a token of its own: what is found are copies of it."""


@dataclass(frozen=True, slots=True)
class ReconcileRecord:
    """Writes to the ledger and counts; each method returns the face as it stands then."""

    journal: Journal

    def adopt(self, doubt: Doubt, found: Adopt) -> FaceRecord:
        """The library holds the face, or copies of it."""
        face, tokens = doubt.face, [found.face_token, *found.surplus]
        events = []
        if face.status not in IN_LIBRARY_BEFORE:
            face = replace(
                face,
                status=Status.ENROLLED,
                face_token=tokens.pop(0),
                code="",
                message="",
                enrolled_at=now_ms(),
                run=self.journal.run,
            )
            events.append(self._event(EventKind.ADOPTED, face, face.face_token))
            self.journal.tally.adopted += 1
        face = replace(face, recheck=found.then is not None)
        events += [self._event(EventKind.SURPLUS, face, token) for token in tokens]
        surplus = [
            Surplus(face_token=token, face_id=face.face_id, found_at=now_ms(), run=self.journal.run)
            for token in tokens
        ]
        self.journal.ledger.record(Changes(faces=[face], events=events, surplus=surplus))
        self.journal.tally.surplus += len(tokens)
        return face

    def absent(self, doubt: Doubt) -> FaceRecord:
        """The library does not hold the face, or no copy of it."""
        # One that was not added until now, after all, is looked for when it has been sent again.
        face = replace(doubt.face, recheck=doubt.face.status is Status.FAILED)
        events = []
        if face.open:
            pending = replace(face, status=Status.PENDING, recheck=True, run=self.journal.run)
            face = transitions.revert(pending)
            if face.face_token:  # as it stood before: nothing is amiss
                face = replace(face, code="", message="")
            events.append(self._event(EventKind.NOT_APPLIED, face, None))
            self.journal.tally.not_applied += 1
        self.journal.ledger.record(Changes(faces=[face], events=events))
        return face

    def undecided(self, doubt: Doubt, because: str) -> FaceRecord:
        """Nothing tells; what is to be looked for again stays so on record."""
        face = doubt.face
        if face.open:
            said = f"The service may or may not have the face: {because}."
            face = replace(face, status=Status.IN_DOUBT, message=said, run=self.journal.run)
            self.journal.ledger.record(Changes(faces=[face]))
        self.journal.tally.unchecked += doubt.recheck
        return face

    def _event(self, kind: EventKind, face: FaceRecord, token: str | None) -> Event:
        return Event(
            at=now_ms(),
            kind=kind,
            run=self.journal.run,
            face_id=face.face_id,
            face_token=token,
            detail=face.code,
        )
