"""Records what happens to rows in the ledger, counts it, and notifies the observer."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from enroll import clock
from enroll.expiry import ALIVE_SECONDS, ClockOffsets
from enroll.ledger import Changes, Finding, Ledger, ScanCache, Searched
from enroll.model import (
    OPEN,
    Answer,
    Candidate,
    Event,
    EventKind,
    FaceRecord,
    Fault,
    FileContent,
    PhotoRecord,
    RawAnswer,
    RowRecord,
    SeenPhoto,
    Status,
    Surplus,
    Unusable,
)
from enroll.runner import transitions
from enroll.session.resemblance import SWAPPED, why_held
from enroll.session.tally import BAD, SHARED_SHOWN, Observer, Tally

COMMIT_SECONDS = 0.03
"""How long an outcome may wait for others to be committed with. With the time for which answers
are gathered (`enroll.runner.loop.BATCH_SECONDS`) that makes 50 ms: what a kill leaves in doubt."""

IN_LIBRARY_BEFORE = frozenset({Status.ENROLLED, Status.SUPERSEDED, Status.REMOVED})
"""Former statuses of a face that has or had its own token: any face found is a copy of it."""

Findings = Sequence[Finding]
"""What a search with a photo has found wrong."""

_EVENTS = {Status.ENROLLED: EventKind.ENROLLED, Status.IN_DOUBT: EventKind.IN_DOUBT}


@dataclass(slots=True)
class Journal:
    """What the driver says to the ledger about one run; it alone knows what is not committed."""

    ledger: Ledger
    run: int
    tally: Tally
    observer: Observer
    scan_cache: ScanCache
    offsets: Callable[[], ClockOffsets]
    """How the service's clock was judged so far: with the highest, calls may have been signed."""
    outcomes: int = 0
    """Outcomes that are recorded and not committed yet."""
    since: float | None = None
    """When the oldest of them was recorded (monotonic seconds)."""
    committed_at: float = float("-inf")
    """The time of the last sign of life (monotonic seconds)."""
    in_doubt: set[int] = field(default_factory=set)
    """Faces in doubt to which rows of the manifest point."""
    took: float = 0.0
    """How many seconds the last commit took."""

    def commit(self) -> None:
        """Put all that was recorded on the disk. Raises LocalError."""
        began = clock.monotonic()
        # The sign of life is stamped before the disk has it; ahead by what the last one took,
        # else a slow disk would leave no time to send anything.
        self.ledger.commit(ahead=self.took, offsets=self.offsets())
        self.outcomes, self.since = 0, None
        self.committed_at = began + self.took
        self.took = clock.monotonic() - began

    def alive(self, now: float) -> bool:
        """Whether the last sign of life is young enough for calls to leave."""
        return now - self.committed_at < ALIVE_SECONDS

    def late(self, now: float, *, most: int) -> bool:
        """Whether outcomes have waited long enough, or are more than `most`."""
        return self.since is not None and (
            now - self.since >= COMMIT_SECONDS or self.outcomes >= most
        )

    def noted(self) -> None:
        """Something was recorded that must be committed soon."""
        self.outcomes += 1
        if self.since is None:
            self.since = clock.monotonic()

    def row_ends(self, due: Candidate, status: Status, code: str, message: str) -> None:
        """An outcome that came before there was a face to hang it on."""
        if due.face_id is not None and due.status is Status.ENROLLED:
            # The row keeps the face that it has; the photo is looked at again next time, and why
            # it will not do is no news then.
            self.tally.kept += due.lines
            if code != due.code:
                kept = self._row(due, face_id=due.face_id, code=code, message=message)
                self.ledger.record(Changes(rows=[kept]))
                self.noted()
        elif due.face_id is not None and due.status in OPEN and status is not Status.PENDING:
            # The row still leads to the photo with which the doubt can be settled.
            self.in_doubt.add(due.face_id)
        elif (status, code) != (due.status, due.code):
            row = self._row(due, status=status, code=code, message=message)
            self.ledger.record(Changes(rows=[row]))
            self.noted()
        self._row_ended(due, status, code, message)

    def photo_is_not_there(
        self, due: Candidate, unusable: Unusable, held: FaceRecord | None
    ) -> None:
        """The photo could not be read; `held` is the face that the row points to as yet.

        It goes on pointing to a face that is not settled: the photo may come back, and the search
        needs it.
        """
        fault = unusable.fault
        if held is not None and held.open:
            self.ends(due, held)
        elif held is not None and held.status in (Status.PENDING, Status.FAILED):
            face = replace(
                held,
                status=unusable.status,
                code=fault.code,
                message=fault.message,
                run=self.run,
            )
            self.ledger.record(Changes(faces=[face]))
            self.noted()
            self.ends(due, face)
        elif held is not None and held.status is Status.ENROLLED is not due.status:
            # Found in the library a moment ago: as any enrolled row whose photo is gone.
            self.ends(due, held, recognised=True)
        else:
            self.row_ends(due, unusable.status, fault.code, fault.message)

    def photo_is_unusable(
        self,
        due: Candidate,
        unusable: Unusable,
        content: FileContent,
        known: FaceRecord | None,
        *,
        under: str | None,
    ) -> None:
        """The photo could be read and will never do; `known` is its face, if recorded before.
        `under` are the settings without which it might do."""
        face = known or FaceRecord(
            face_id=self.ledger.new_face_id(),
            user_id=due.row.user_id,
            sha256=content.sha256,
            status=unusable.status,
            user_data=due.row.user_data,
        )
        if not (face.open or face.status in (Status.ENROLLED, Status.SUPERSEDED, Status.HELD)):
            fault = unusable.fault
            face = replace(
                face,
                status=unusable.status,
                code=fault.code,
                message=fault.message,
                run=self.run,
                refused_under=under,
            )
        photo = PhotoRecord(path=due.row.path, times=content.times, sha256=content.sha256)
        row = self._row(due, face_id=face.face_id, sha256=photo.sha256)
        self.ledger.record(Changes(faces=[face], rows=[row], photos=[photo]))
        self.noted()
        self.ends(due, face)

    def warning(self, due: Candidate, fault: Fault) -> None:
        """Count and report a photo that is sent although `fault` was found."""
        self.tally.warnings[fault.code] += due.lines
        self.observer.warned(due, fault)

    def held(
        self, due: Candidate, photo: SeenPhoto, face: FaceRecord, found: Findings
    ) -> FaceRecord:
        """Record that a face is not added, because of what a search with its photo has `found`.
        Returns the face."""
        fault = why_held(found)
        face = self._not_added(face, Status.HELD, fault)
        events = [
            self._event(EventKind.HELD, face, None, detail=one.other_user_id) for one in found
        ]
        searched = Searched(
            face_id=face.face_id, face_token=None, at=clock.now_ms(), run=self.run, findings=found
        )
        self._point(due, photo, face, faces=[face], events=events, searched=[searched])
        self.noted()
        self.tally.held_now[fault.code] += due.lines
        return face

    def not_compared(
        self, due: Candidate, photo: SeenPhoto, face: FaceRecord, fault: Fault
    ) -> FaceRecord:
        """Record that a face is not added, because the search with its photo has failed. Returns
        the face."""
        face = self._not_added(face, Status.FAILED, fault)
        self._point(due, photo, face, faces=[face])
        self.noted()
        return face

    def _not_added(self, face: FaceRecord, status: Status, fault: Fault) -> FaceRecord:
        return replace(face, status=status, code=fault.code, message=fault.message, run=self.run)

    def compared(self, face: FaceRecord, found: Findings) -> None:
        """Record what a search with the photo of a face has `found`, if it is enrolled now."""
        if found and face.status is Status.ENROLLED:
            searched = Searched(
                face_id=face.face_id,
                face_token=face.face_token,
                at=clock.now_ms(),
                run=self.run,
                findings=found,
                audited=False,
            )
            self.ledger.record(Changes(searched=[searched]))
            self.noted()

    def known_face(
        self, due: Candidate, photo: SeenPhoto, *, before: FaceRecord, now: FaceRecord
    ) -> None:
        """The photo belongs to a face that needs no call: the row points to it."""
        restored = before.status is Status.SUPERSEDED
        face = replace(now, run=self.run) if restored else now
        events = [self._event(EventKind.RESTORED, face, face.face_token)] if restored else []
        self._point(due, photo, face, faces=[face] if restored else [], events=events)
        self.noted()
        self.ends(due, face, recognised=True)

    def intent(
        self, due: Candidate, photo: SeenPhoto, face: FaceRecord, *, expires: float
    ) -> FaceRecord:
        """Record that `face` will be sent by a call whose signature expires no later than
        `expires`; it must not leave before the next commit."""
        face = transitions.mark_sending(
            face, at=clock.now_ms(), run=self.run, expires=expires, user_data=due.row.user_data
        )
        self._point(due, photo, face, faces=[face])
        return face

    def renew_intent(self, face: FaceRecord, *, expires: float) -> FaceRecord:
        """Record a later expiry for an intent whose call has not left; it must not before the
        next commit."""
        face = replace(face, expires=expires)
        self.ledger.record(Changes(faces=[face]))
        return face

    def cancelled(self, face: FaceRecord) -> None:
        """Record the former state of a face whose call never left."""
        self.ledger.record(Changes(faces=[face]))

    def raw_answer(self, answer: Answer, *, number: int) -> None:
        """Record an answer as it came, the `number`-th of its code."""
        raw = RawAnswer(
            code=answer.code,
            number=number,
            http_status=answer.http_status,
            raw=answer.raw,
            at=clock.now_ms(),
            run=self.run,
        )
        self.ledger.record(Changes(raw=[raw]))

    def doubt(self, due: Candidate, photo: SeenPhoto, face: FaceRecord) -> FaceRecord:
        """Record that the library may hold `face`, for which no call was made."""
        face = transitions.mark_suspect(face, run=self.run, user_data=due.row.user_data)
        self._point(due, photo, face, faces=[face])
        self.noted()
        return face

    def _point(
        self,
        due: Candidate,
        photo: SeenPhoto,
        face: FaceRecord,
        *,
        faces: Sequence[FaceRecord],
        events: Sequence[Event] = (),
        searched: Sequence[Searched] = (),
    ) -> None:
        """Record that a row points to `face`, along with these changes."""
        row = self._row(due, face_id=face.face_id, sha256=photo.sha256)
        seen = PhotoRecord(path=due.row.path, times=photo.times, sha256=photo.sha256)
        self.ledger.record(
            Changes(faces=faces, rows=[row], photos=[seen], events=events, searched=searched)
        )

    def face(self, face: FaceRecord, *, ended: bool = True) -> None:
        """Record the present state of a face, along with its event if the state has one and the
        face's call has `ended`."""
        kind = _EVENTS.get(face.status)
        stands = face.status is Status.ENROLLED and bool(face.code)  # not added again after all
        events = []
        if ended and kind is not None and not stands:
            events.append(self._event(kind, face, face.face_token))
        self.ledger.record(Changes(faces=[face], events=events))
        self.noted()

    # What a look at the library has shown of a face in doubt

    def adopt(self, face: FaceRecord, tokens: Sequence[str], *, recheck: bool) -> FaceRecord:
        """Record that the library holds a face under these tokens, the oldest first; with `recheck`
        there may be further copies. Returns the face."""
        copies, events = list(tokens), []
        if face.status not in IN_LIBRARY_BEFORE:
            face = replace(
                face,
                status=Status.ENROLLED,
                face_token=copies.pop(0),
                code="",
                message="",
                enrolled_at=clock.now_ms(),
                run=self.run,
            )
            events.append(self._event(EventKind.ADOPTED, face, face.face_token))
            self.tally.adopted += 1
        face = replace(face, recheck=recheck)
        events += [self._event(EventKind.SURPLUS, face, token) for token in copies]
        surplus = [
            Surplus(face_token=token, face_id=face.face_id, found_at=clock.now_ms(), run=self.run)
            for token in copies
        ]
        self.ledger.record(Changes(faces=[face], events=events, surplus=surplus))
        self.noted()
        self.tally.surplus += len(copies)
        return face

    def absent(self, face: FaceRecord) -> FaceRecord:
        """Record that the library holds no face, or no further copy of it. Returns the face."""
        # One that was not added until now, after all, is looked for when it has been sent again.
        events, face = [], replace(face, recheck=face.status is Status.FAILED)
        if face.open:
            pending = replace(face, status=Status.PENDING, recheck=True, run=self.run)
            face = pending.reverted()
            if face.face_token:  # back to its former state: nothing is wrong
                face = replace(face, code="", message="")
            events.append(self._event(EventKind.NOT_APPLIED, face, None))
            self.tally.not_applied += 1
        self.ledger.record(Changes(faces=[face], events=events))
        self.noted()
        return face

    def undecided(self, face: FaceRecord, because: str, *, recheck: bool) -> FaceRecord:
        """Record that nothing settles a doubt; a face to be rechecked stays marked as such in the
        ledger. Returns the face."""
        if face.open:
            said = f"The service may or may not have the face: {because}."
            face = replace(face, status=Status.IN_DOUBT, message=said, run=self.run)
            self.ledger.record(Changes(faces=[face]))
        self.noted()
        self.tally.unchecked += recheck
        return face

    # What has ended

    def ends(self, due: Candidate, face: FaceRecord, *, recognised: bool = False) -> None:
        """Count and report a due row's outcome: its face's. `recognised`: the face was already
        known."""
        if face.open:
            self.in_doubt.add(face.face_id)
        self._row_ended(due, face.status, face.code, face.message, recognised=recognised)

    def left_out_after_all(self, due: Candidate, face: FaceRecord) -> None:
        """Count a row that a trial has left out by its face, about which more is known now."""
        tally = self.tally
        tally.left_out -= due.lines
        tally.statuses[Status.PENDING] -= due.lines
        tally.count(face.status, face.code, face.message, lines=due.lines)
        if face.open:
            self.in_doubt.add(face.face_id)
        else:
            tally.recognised += due.lines

    def _row_ended(
        self, due: Candidate, status: Status, code: str, message: str, *, recognised: bool = False
    ) -> None:
        tally = self.tally
        tally.count(status, code, message, lines=due.lines)
        tally.done += due.lines
        tally.drawn[status] += due.lines
        # A known face may have a different text from the manifest's, so it is compared once more.
        told = Status.PENDING if recognised else status
        self.scan_cache.ended(due.row.line, told, code, message, lines=due.lines)
        if status is Status.ENROLLED and recognised:
            tally.recognised += due.lines
        elif status is Status.ENROLLED and code:  # it could not be added again
            tally.kept += due.lines
            tally.not_renewed += due.lines
            tally.new_bad += due.lines if code != due.code else 0
        elif status is Status.ENROLLED and due.renews:
            tally.renewed += due.lines
        elif status is Status.ENROLLED:
            tally.enrolled_now += due.lines
        elif status in BAD and (status, code) != (_told(due, status), due.code):
            tally.new_bad += due.lines
        self.observer.finished(due, status, code, message)

    def close_accounts(self, left_in_doubt: Set[int]) -> None:
        """Record what is known only after every row of the manifest has been seen;
        `left_in_doubt` are faces that remain in doubt and that no row has waited for."""
        tally, ledger = self.tally, self.ledger
        tally.others_in_doubt = len(left_in_doubt - self.in_doubt)
        # Asked of the ledger, even when nothing was due: an earlier run may have been cut off in
        # the middle of a pass, or right after the last row's outcome.
        if tally.held_now:
            self._note_swapped()
        tally.superseded = ledger.supersede(at=clock.now_ms(), run=self.run)
        if tally.enrolled_now:
            tally.shared = ledger.shared_photos(self.run)
        if tally.shared:
            tally.shared_examples = ledger.examples_of_shared(self.run, most=SHARED_SHOWN)

    def _note_swapped(self) -> None:
        """Say of people who were held for each other's faces that their photos were swapped."""
        for face, other in self.ledger.findings.swapped():
            message = f"{face.message.removesuffix(SWAPPED)}{SWAPPED}"
            if message != face.message:
                self.ledger.record(Changes(faces=[replace(face, message=message)]))
            pair = min(face.user_id, other), max(face.user_id, other)
            if face.run == self.run and pair not in self.tally.swapped:
                self.tally.swapped.append(pair)

    def _row(self, due: Candidate, **state: Any) -> RowRecord:
        row = due.row
        return RowRecord(
            user_id=row.user_id, path=row.path, user_data=row.user_data, run=self.run, **state
        )

    def _event(
        self, kind: EventKind, face: FaceRecord, face_token: str | None, *, detail: str = ""
    ) -> Event:
        return Event(
            at=clock.now_ms(),
            kind=kind,
            run=self.run,
            face_id=face.face_id,
            face_token=face_token,
            detail=detail or face.code,
        )


def _told(due: Candidate, status: Status) -> Status:
    """The status last reported for a row: that of its photo, where it kept its face."""
    return status if due.status is Status.ENROLLED else due.status
