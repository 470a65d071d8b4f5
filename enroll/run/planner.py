"""The first step of a row whose photo has been read: sent, known, held, or not to be sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain

from enroll.errors import LocalError
from enroll.model import Candidate, FaceRecord, Fault, FileContent, Photo, Status, Unusable
from enroll.photos import PhotoCode
from enroll.run import transitions
from enroll.run.feed import PreparedRow
from enroll.run.health import Share
from enroll.run.journal import Journal
from enroll.run.sender import Job
from enroll.run.transitions import Hold, Policy, Send
from enroll.run.unknown_faces import UnknownFaces


class People:
    """Persons with a face that is on its way or in doubt.

    A row that waits is kept without its photo, so that many of them hold no memory.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Candidate]] = {}

    def __bool__(self) -> bool:
        """Whether anybody is busy."""
        return bool(self._waiting)

    def occupy(self, user_id: str) -> None:
        """A face of this person is under way from now on."""
        self._waiting.setdefault(user_id, deque())

    def park(self, due: Candidate) -> bool:
        """Keep a row back if its person is busy; whether so."""
        waiting = self._waiting.get(due.row.user_id)
        if waiting is None:
            return False
        waiting.append(due)
        return True

    def parked(self) -> Iterator[Candidate]:
        """Every row that waits."""
        return chain.from_iterable(self._waiting.values())

    def free(self, user_id: str) -> deque[Candidate]:
        """The person's face has its outcome; the rows that have waited for that."""
        return self._waiting.pop(user_id, deque())


WAITS_FOR_DOUBT = "WAITS_FOR_DOUBT"
"""The code of a row that is pending because another face of its person is in doubt."""


class Planner:
    """Takes first steps, one a person at a time."""

    def __init__(
        self,
        journal: Journal,
        people: People,
        share: Share,
        *,
        unknown_faces: UnknownFaces,
        policy: Policy,
        send: Callable[[Job], None],
        look_first: Callable[[Job], None],
    ) -> None:
        """`send` takes the faces that are to be sent, `look_first` those that the library may
        hold although the ledger does not know them."""
        self._journal = journal
        self._people = people
        self._share = share
        self._unknown_faces = unknown_faces
        self._policy = policy
        self._send = send
        self._look_first = look_first
        self._tries: dict[int, int] = {}
        self.stop: LocalError | None = None
        """Why no further photo can be read."""

    def goes_on(self, face: FaceRecord, *, tries: int) -> None:
        """A face that comes up again has been looked for, and had so many answers in this run."""
        self._tries[face.face_id] = tries

    def may_decide(self, read: Iterable[PreparedRow]) -> bool:
        """Whether a step can be taken for any of these rows."""
        return not all(map(self._waits, read))

    def _waits(self, row: PreparedRow) -> bool:
        """Whether it cannot be told yet if a photo or the whole share is missing."""
        return _is_missing(row) and not self._share.certain

    def decide(self, read: deque[PreparedRow]) -> None:
        """Take the first step of every row; a person's second row is left for the next time, and so
        is a row whose photo is missing until it is clear that the share is not."""
        batch: dict[str, PreparedRow] = {}
        for _ in range(len(read)):
            row = read.popleft()
            user_id = row.due.row.user_id
            if not self._waits(row) and self._people.park(row.due):
                continue
            if self._waits(row) or user_id in batch:
                read.append(row)
            else:
                batch[user_id] = row
        if not batch:
            return
        faces = self._journal.ledger.faces_of(batch)
        for user_id, row in batch.items():
            if isinstance(row.photo, Photo):
                self._begin(row, row.photo, faces[user_id])
            else:
                self._cannot_send(row, row.photo, faces[user_id])

    def _begin(self, row: PreparedRow, photo: Photo, known: list[FaceRecord]) -> None:
        self._share.read()
        step = transitions.first_step(
            known,
            photo,
            policy=self._policy,
            run=self._journal.run,
            user_data=row.due.row.user_data,
            renews=row.due.renews,
        )
        if isinstance(step, Hold):
            message = "Another photo of this person is in doubt; this one waits for that."
            self._journal.row_ends(row.due, Status.PENDING, WAITS_FOR_DOUBT, message)
            return
        user_id = row.due.row.user_id
        if isinstance(step, Send):
            # What was sent before is on its way or added anew, whatever the photo shows.
            on_its_way = step.face is not None and (
                step.face.face_id in self._tries or step.face.face_token is not None
            )
            if photo.doubt is not None and not on_its_way:
                if self._policy.holds_doubtful:
                    self._hold_back(row, photo, photo.doubt, step.face)
                    return
                self._journal.doubtful(row.due, photo.doubt)
            self._people.occupy(user_id)
            face = self._face_to_send(row, photo, step.face)
            tries = self._tries.pop(face.face_id, None)
            job = Job(row.due, photo, face, tries=tries or 0)
            if tries is None and self._unknown_faces.has(user_id):
                job.face = self._journal.doubt(row.due, photo, face)
                self._look_first(job)
            else:
                self._send(job)
        else:
            before = next(face for face in known if face.face_id == step.face.face_id)
            self._journal.known_face(row.due, photo, before=before, now=step.face)

    def _hold_back(
        self, row: PreparedRow, photo: Photo, doubt: Fault, known: FaceRecord | None
    ) -> None:
        content = FileContent(photo.times, photo.sha256)
        unusable = Unusable(status=Status.INVALID, fault=doubt, content=content)
        same = known if known is not None and known.sha256 == photo.sha256 else None
        under = self._policy.marks.get(doubt.code)
        self._journal.photo_is_unusable(row.due, unusable, content, same, under=under)

    def _face_to_send(self, row: PreparedRow, photo: Photo, known: FaceRecord | None) -> FaceRecord:
        face = known or FaceRecord(
            face_id=self._journal.ledger.new_face_id(),
            user_id=row.due.row.user_id,
            sha256=photo.sha256,
            status=Status.PENDING,
        )
        return replace(
            face,
            # One that is added anew keeps its text until that is on its way.
            user_data=face.user_data if face.face_token else row.due.row.user_data,
            sent_sha256=photo.sent_sha256,
            prepared=photo.prepared,
            multi_oriented_detection=self._policy.multi_oriented_detection,
        )

    def _cannot_send(self, row: PreparedRow, unusable: Unusable, known: list[FaceRecord]) -> None:
        fault, content = unusable.fault, unusable.content
        path = row.due.row.path
        if _is_missing(row):
            self.stop = self.stop or self._share.missing(path, was_there=row.due.was_there)
        elif unusable.share_gone:
            self.stop = self.stop or self._share.unreachable(path, fault.message)
        if content is None:
            held = next((face for face in known if face.face_id == row.due.face_id), None)
            self._journal.photo_is_not_there(row.due, unusable, held)
            return
        same = next((face for face in known if face.sha256 == content.sha256), None)
        under = self._policy.marks.get(fault.code)
        self._journal.photo_is_unusable(row.due, unusable, content, same, under=under)


def _is_missing(row: PreparedRow) -> bool:
    return isinstance(row.photo, Unusable) and row.photo.fault.code == PhotoCode.MISSING
