"""What comes next for a row: after its photo was read, and after its face was looked for."""

from __future__ import annotations

from dataclasses import replace

from enroll.engine import HeldPhoto
from enroll.errors import EnrollError, LocalError
from enroll.model import Candidate, FaceRecord, Fault, FileContent, Status, Unusable
from enroll.photos import PhotoCode
from enroll.runner import transitions
from enroll.runner.feed import Feed
from enroll.runner.health import PhotoRootCheck
from enroll.runner.job import Job, People, Work
from enroll.runner.journal import Journal
from enroll.runner.reconcile import Reconciler
from enroll.runner.reconcile_rules import Doubt
from enroll.runner.tasks import Tasks
from enroll.runner.transitions import Hold, NoCall, Outcome, ReadAgain
from enroll.runner.unknown_faces import UnknownFaces

WAITS_FOR_DOUBT = "WAITS_FOR_DOUBT"
"""The code of a row that is pending because another face of its person is in doubt."""


class Planner:
    """Decides what comes next for a row: after its photo was read (`plan`), and after its face was
    looked for in the library (`go_on`). Meanwhile it keeps the jobs whose faces are in doubt."""

    def __init__(
        self,
        work: Work,
        journal: Journal,
        feed: Feed,
        *,
        people: People,
        photo_root: PhotoRootCheck,
        tasks: Tasks,
        unknown_faces: UnknownFaces,
        reconciler: Reconciler,
    ) -> None:
        self._policy = work.policy
        self._journal = journal
        self._feed = feed
        self._people = people
        self._photo_root = photo_root
        self._tasks = tasks
        self._unknown_faces = unknown_faces
        self._reconciler = reconciler
        self._looked_for: set[int] = set()  # faces that are not in the library, and come up again
        self._in_doubt: dict[int, Job] = {}  # by face
        self._looked_into: dict[int, FaceRecord] = {}  # earlier runs' faces, by id
        self.rechecked = False
        """Whether faces that were sent again are looked for once more, or were."""
        self.stop: LocalError | None = None
        """Why no further photo can be read."""
        self.unrecorded: EnrollError | None = None
        """Why what became of a face could not be recorded."""

    @property
    def unclaimed(self) -> set[int]:
        """Faces that stay in doubt and that no row has waited for."""
        return {face_id for face_id, face in self._looked_into.items() if face.open}

    @property
    def may_plan(self) -> bool:
        """Whether any row whose photo was read can take a step."""
        return self._unknown_faces.complete and not all(map(self._waits, self._feed.read))

    def _waits(self, job: Job) -> bool:
        """Whether it is still unclear if only this photo or the whole share is missing."""
        return _is_missing(job) and not self._photo_root.certain

    def plan(self) -> list[Job]:
        """Take the first steps of the rows whose photos were read; return those to be sent.

        A person's second row stays for the next call, and so does a row whose photo is missing,
        until it is clear that the photos' folder is not gone.
        """
        read, batch = self._feed.read, dict[str, Job]()
        for _ in range(len(read)):
            job = read.popleft()
            user_id = job.due.row.user_id
            waits = self._waits(job)
            if not waits and self._people.busy(user_id):
                job.drop_photo(self._tasks)
                self._people.park(job)
            elif waits or user_id in batch:
                read.append(job)
            else:
                batch[user_id] = job
        if not batch:
            return []
        faces = self._journal.ledger.faces_of(batch)
        to_send = []
        for user_id, job in batch.items():
            if not self._take_first_step(job, faces[user_id]):
                job.drop_photo(self._tasks)
            elif job.face.open:
                self.look_for(job)  # the library may hold it
            else:
                to_send.append(job)
        return to_send

    def _take_first_step(self, job: Job, known: list[FaceRecord]) -> bool:
        """Record the first step of a job; True unless it was also the last."""
        due = job.due
        if isinstance(job.seen, Unusable):
            self._cannot_send(due, job.seen, known)
            return False
        photo = job.photo
        self._photo_root.on_read()
        step = transitions.first_step(
            known,
            photo,
            policy=self._policy,
            run=self._journal.run,
            user_data=due.row.user_data,
            renews=due.renews,
        )
        if isinstance(step, Hold):
            message = "Another photo of this person is in doubt; this one waits for that."
            self._journal.row_ends(due, Status.PENDING, WAITS_FOR_DOUBT, message)
            return False
        if isinstance(step, NoCall):
            before = next(face for face in known if face.face_id == step.face.face_id)
            self._journal.known_face(due, photo, before=before, now=step.face)
            return False
        return self._prepare_to_send(job, step.face)

    def _prepare_to_send(self, job: Job, known: FaceRecord | None) -> bool:
        """Give a job its face (`known`, if on record); False if the precheck holds it back."""
        due, photo = job.due, job.photo
        # What was sent before is on its way or added again, whatever the photo shows.
        looked_for = known is not None and known.face_id in self._looked_for
        on_its_way = looked_for or (known is not None and known.face_token is not None)
        if photo.precheck_fault is not None and not on_its_way:
            if self._policy.holds_precheck_faults:
                self._hold_back(due, photo, photo.precheck_fault, known)
                return False
            self._journal.warning(due, photo.precheck_fault)
        self._people.occupy(due.row.user_id)
        job.face = self._face_to_send(due, photo, known)
        self._looked_for.discard(job.face.face_id)
        if not looked_for and self._unknown_faces.has(due.row.user_id):
            job.face = self._journal.doubt(due, photo, job.face)
        return True

    def _hold_back(
        self, due: Candidate, photo: HeldPhoto, fault: Fault, known: FaceRecord | None
    ) -> None:
        content = FileContent(photo.times, photo.sha256)
        unusable = Unusable(status=Status.INVALID, fault=fault, content=content)
        same = known if known is not None and known.sha256 == photo.sha256 else None
        under = self._policy.marks.get(fault.code)
        self._journal.photo_is_unusable(due, unusable, content, same, under=under)

    def _face_to_send(
        self, due: Candidate, photo: HeldPhoto, known: FaceRecord | None
    ) -> FaceRecord:
        face = known or FaceRecord(
            face_id=self._journal.ledger.new_face_id(),
            user_id=due.row.user_id,
            sha256=photo.sha256,
            status=Status.PENDING,
        )
        return replace(
            face,
            # A face that is added again keeps its text until the new one is on its way.
            user_data=face.user_data if face.face_token else due.row.user_data,
            sent_sha256=photo.sent_sha256,
            prepared=photo.prepared,
            multi_oriented_detection=self._policy.multi_oriented_detection,
        )

    def _cannot_send(self, due: Candidate, unusable: Unusable, known: list[FaceRecord]) -> None:
        fault, content = unusable.fault, unusable.content
        path = due.row.path
        if fault.code == PhotoCode.MISSING:
            self.stop = self.stop or self._photo_root.missing(path, was_there=due.was_there)
        elif unusable.share_gone:
            self.stop = self.stop or self._photo_root.unreachable(path, fault.message)
        if content is None:
            held = next((face for face in known if face.face_id == due.face_id), None)
            self._journal.photo_is_not_there(due, unusable, held)
            return
        same = next((face for face in known if face.sha256 == content.sha256), None)
        under = self._policy.marks.get(fault.code)
        self._journal.photo_is_unusable(due, unusable, content, same, under=under)

    # Rows whose faces are in doubt

    def take_earlier(self) -> None:
        """Have the faces looked for that earlier runs left in doubt, whatever manifest they came
        from. Their people's rows wait for that."""
        for face in self._journal.ledger.open_faces():
            if face.open:
                self._people.occupy(face.user_id)
                self._reconciler.take(Doubt(face=face))

    def look_for(self, job: Job) -> None:
        """Have a job's face looked for. Its photo is dropped, as many may wait, and read again if
        it is needed."""
        job.drop_photo(self._tasks)
        self._in_doubt[job.face.face_id] = job
        self._reconciler.take(Doubt(face=job.face))

    def recheck(self) -> None:
        """Look once more for copies that were added after their face had been sent again."""
        self.rechecked = True
        for face in self._journal.ledger.open_faces():
            if face.recheck and not face.open and face.status is not Status.PENDING:
                self._reconciler.take(Doubt(face=face, recheck=True))

    def go_on(self) -> None:
        """End the rows with whose faces the reconciler is done, or have them read and sent
        again."""
        for face in self._reconciler.take_settled():
            try:
                self._go_on(face)
            except EnrollError as error:
                self.unrecorded = self.unrecorded or error
            self._feed.free_person(face.user_id)

    def _go_on(self, face: FaceRecord) -> None:
        job = self._in_doubt.pop(face.face_id, None)
        if job is None:  # an earlier run's: its row comes up by itself
            self._looked_into[face.face_id] = face
            if face.status is Status.PENDING:
                self._looked_for.add(face.face_id)
            return
        step = transitions.after_look(
            face, job.due, told=job.face, policy=self._policy, tries=job.tries
        )
        if isinstance(step, ReadAgain):
            self._looked_for.add(face.face_id)
            self._feed.read_later(job)
            return
        if isinstance(step, Outcome):
            self._journal.face(step.face)
        self._journal.compared(step.face, job.findings)
        self._journal.ends(job.due, step.face)

    def leave(self) -> None:
        """Count the rows that no step follows for, but whose face is known: in doubt still, or
        found in the library after an earlier run had left it in doubt."""
        known = (*self._looked_into.values(), *self._reconciler.left())
        faces = {
            face.face_id: face for face in known if face.open or face.status is Status.ENROLLED
        }
        parked = (job.due for job in self._people.parked())
        waiting = [*parked, *self._feed.undecided(faces)]
        rows = [(faces[due.face_id], due) for due in waiting if due.face_id in faces]
        for face_id in faces.keys() & self._in_doubt.keys():
            rows.append((faces[face_id], self._in_doubt.pop(face_id).due))
        for face, due in rows:
            if not _is_due_still(due, face):
                self._journal.ends(due, face, recognised=not face.open)
        for due in self._feed.not_drawn(faces):
            if due.face_id is not None and not _is_due_still(due, faces[due.face_id]):
                self._journal.left_out_after_all(due, faces[due.face_id])


def _is_due_still(due: Candidate, face: FaceRecord) -> bool:
    """Whether a row has more to do once its face was found in the library."""
    return face.status is Status.ENROLLED and (due.changed or due.renews)


def _is_missing(job: Job) -> bool:
    return isinstance(job.seen, Unusable) and job.seen.fault.code == PhotoCode.MISSING
