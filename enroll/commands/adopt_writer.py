"""Writes into the ledger what an adoption has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from enroll import clock
from enroll.commands.matching import Decision
from enroll.ledger import Changes, Ledger
from enroll.model import (
    Answer,
    EventKind,
    FaceRecord,
    Fault,
    LibraryFace,
    Photo,
    PhotoRecord,
    RowRecord,
    ScannedRow,
    Status,
    Surplus,
)
from enroll.session.session import CommandRecord

BY_ADOPTION = "by enroll adopt"
"""What the events say that an adoption writes."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A row, its photo without the content, and the answer to a search with it."""

    row: ScannedRow
    photo: Photo
    answer: Answer

    @property
    def content(self) -> bytes:
        """What tells photos apart: the SHA-256 of what is sent."""
        return self.photo.sent_sha256 or self.photo.sha256


@dataclass(frozen=True, slots=True)
class Unsearched:
    """A row that has no photo to search with, and why."""

    row: ScannedRow
    fault: Fault


Looked = Searched | Unsearched


class Books:
    """Records faces and the rows that point to them; committed by who uses it."""

    def __init__(self, ledger: Ledger, work: CommandRecord, *, turned: bool) -> None:
        """`turned` is the `multi_oriented_detection` of the searches."""
        self._ledger = ledger
        self._work = work
        self._turned = turned

    def adopt(
        self,
        rows: Sequence[Searched],
        decision: Decision,
        base: FaceRecord | None,
        there: LibraryFace | None,
    ) -> FaceRecord:
        """Take over a token for rows of one content, and note further copies; the face.

        `base` is the face's record, if there is one; `there` is the library's, if it was listed.
        """
        photo, run = rows[0].photo, self._work.run
        face = base or FaceRecord(
            face_id=self._ledger.new_face_id(),
            user_id=rows[0].row.user_id,
            sha256=photo.sha256,
            status=Status.PENDING,
        )
        face = replace(
            face,
            status=Status.ENROLLED,
            face_token=decision.face_token,
            code="",
            message="",
            sent_sha256=photo.sent_sha256,
            prepared=photo.prepared,
            user_data=rows[0].row.user_data if there is None else there.user_data,
            multi_oriented_detection=self._turned,
            enrolled_at=clock.now_ms() if there is None else there.add_time,
            run=run,
        )
        events = [self._work.event(EventKind.ADOPTED, face.face_id, face.face_token, BY_ADOPTION)]
        events += [
            self._work.event(EventKind.SURPLUS, face.face_id, token, BY_ADOPTION)
            for token in decision.surplus
        ]
        surplus = [
            Surplus(face_token=token, face_id=face.face_id, found_at=clock.now_ms(), run=run)
            for token in decision.surplus
        ]
        self._ledger.record(Changes(faces=[face], events=events, surplus=surplus))
        return face

    def restore(self, face: FaceRecord) -> None:
        """A row points again to a face to which none pointed; `face` is as it stands now."""
        event = self._work.event(EventKind.RESTORED, face.face_id, face.face_token)
        self._ledger.record(Changes(faces=[replace(face, run=self._work.run)], events=[event]))

    def point(self, searched: Searched, face: FaceRecord) -> None:
        """Record that a row's photo is this face."""
        photo, row = searched.photo, searched.row
        record = RowRecord(
            user_id=row.user_id,
            path=row.path,
            user_data=row.user_data,
            face_id=face.face_id,
            sha256=photo.sha256,
            run=self._work.run,
        )
        seen = PhotoRecord(path=row.path, times=photo.times, sha256=photo.sha256)
        self._ledger.record(Changes(rows=[record], photos=[seen]))
