"""Rows whose face is in doubt: the reconciler looks for it, then they end or are sent again."""

from __future__ import annotations

from collections.abc import Set

from enroll.errors import EnrollError
from enroll.model import FaceRecord, Status
from enroll.run import transitions
from enroll.run.job import Job
from enroll.run.parts import Parts
from enroll.run.reconcile_rules import Doubt
from enroll.run.transitions import Outcome, Policy, Send


class RowsInDoubt:
    """Keeps jobs while the reconciler looks for their faces. Runs on the loop's thread."""

    def __init__(self, parts: Parts, policy: Policy) -> None:
        self._parts = parts
        self._reconciler = parts.reconciler
        self._journal = parts.journal
        self._policy = policy
        self._jobs: dict[int, Job] = {}  # by face
        self._unclaimed: set[int] = set()
        self.rechecked = False
        """Whether faces that were sent again are looked for once more, or were."""
        self.stop: EnrollError | None = None
        """Why what became of a face could not be recorded."""

    @property
    def unclaimed(self) -> Set[int]:
        """Faces that stay in doubt and that no row has waited for."""
        return self._unclaimed

    def take_earlier(self) -> None:
        """Have the faces looked for that earlier runs left in doubt, whatever manifest they came
        from. Their people's rows wait for that."""
        for face in self._journal.ledger.open_faces():
            if face.open:
                self._parts.people.occupy(face.user_id)
                self._reconciler.take(Doubt(face=face))

    def take(self, job: Job) -> None:
        """Have a job's face looked for. Its photo is dropped, as many may wait, and read again if
        it is needed."""
        job.drop_photo(self._parts.tasks)
        self._jobs[job.face.face_id] = job
        self._reconciler.take(Doubt(face=job.face))

    def recheck(self) -> None:
        """Look once more for copies that were added after their face had been sent again."""
        self.rechecked = True
        for face in self._journal.ledger.open_faces():
            if face.recheck and not face.open and face.status is not Status.PENDING:
                self._reconciler.take(Doubt(face=face, recheck=True))

    def go_on(self) -> None:
        """Send the rows again, or end them, with whose faces the reconciler is done."""
        for face in self._reconciler.take_settled():
            try:
                self._go_on(face)
            except EnrollError as error:
                self.stop = self.stop or error
            self._parts.free_person(face.user_id)

    def _go_on(self, face: FaceRecord) -> None:
        job = self._jobs.pop(face.face_id, None)
        if job is None:  # an earlier run's: its row comes up by itself
            if face.status is Status.PENDING:
                self._parts.planner.was_looked_for(face)
            elif face.open:
                self._unclaimed.add(face.face_id)
            return
        step = transitions.after_look(
            face, job.due, told=job.face, policy=self._policy, tries=job.tries
        )
        if isinstance(step, Send):
            self._parts.planner.was_looked_for(face)
            self._parts.feed.read_later(job)
            return
        if isinstance(step, Outcome):
            self._journal.face(step.face)
        face = step.face
        self._journal.ends(job.due, face.status, face.code, face.message)

    def leave(self) -> None:
        """Count the rows of faces that will not be settled in this run."""
        left = {face.face_id: face for face in self._reconciler.left() if face.open}
        parked = (job.due for job in self._parts.people.parked())
        waiting = [*parked, *self._parts.feed.undecided(left)]
        rows = [(left[due.face_id], due) for due in waiting if due.face_id in left]
        for face_id in left.keys() & self._jobs.keys():
            rows.append((left[face_id], self._jobs.pop(face_id).due))
        for face, due in rows:
            self._journal.ends(due, face.status, face.code, face.message)
