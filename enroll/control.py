"""The control beside which faces are looked for: a search for a face whose token is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from enroll.errors import ServiceError
from enroll.facesearch import candidates
from enroll.looks import Looks
from enroll.model import Answer, FaceRecord, Photo, Verdict
from enroll.recorder import Recorder, now_ms
from enroll.settling import Control

CONTROL_TRIES = 8
"""How often a control is looked for before the run goes without: about two minutes in all."""

FAILED_PAUSE_SECONDS = 10.0
"""Before a control is looked for again after a call that did not come through."""

CONTROL_FACES = 5
"""Faces of earlier runs that may serve as control, the newest first."""


class ControlSeeker:
    """Finds a run's control, once it is wanted.

    `found` hears when there is one, `given_up` why there will be none.
    """

    def __init__(
        self,
        looks: Looks,
        recorder: Recorder,
        *,
        found: Callable[[], None],
        given_up: Callable[[str], None],
    ) -> None:
        self._looks = looks
        self._recorder = recorder
        self._found = found
        self._given_up = given_up
        self._newest: FaceRecord | None = None
        self._wanted = False
        self._under_way = False
        self._tries = 0
        self.next_due: float | None = None
        """When it is looked for again (monotonic seconds)."""
        self.control: Control | None = None
        self.cannot_search: str | None = None
        """Why the service lets us not search, once that is known."""

    def enrolled(self, face: FaceRecord) -> None:
        """A face was enrolled: the newest one makes the best control."""
        self._newest = face
        if self._wanted and not self._under_way and self.next_due is None:
            self.next_due = time.monotonic()

    def want(self) -> None:
        """Look for a control, unless that is under way."""
        if not self._wanted:
            self._wanted = True
            self._seek()

    def work(self, *, idle: bool) -> None:
        """Do what is due; with `idle` no further success of the run can serve as control."""
        if self.next_due is not None and self.next_due <= time.monotonic():
            self.next_due = None
            self._seek()
        elif idle and self._wanted and not self._under_way and self.next_due is None:
            self._give_up("no face is known to compare it with")

    def refuse_search(self, code: str) -> str:
        """The service lets us not search: nothing can be settled by it in this run."""
        self.cannot_search = f"the service lets us not search ({code})"
        return self.cannot_search

    def _seek(self) -> None:
        face = self._newest
        if face is None:
            known = self._recorder.ledger.newest_enrolled(CONTROL_FACES)
            face = known[min(self._tries, len(known) - 1)] if known else None
        if face is None:
            return  # the run's first success will do
        self._under_way = True
        self._looks.read_photo_of(face, partial(self._hear_photo, face))

    def _hear_photo(self, face: FaceRecord, photo: Photo | None) -> None:
        if photo is None:
            self._failed("no photo of a known face is there to compare it with")
            return
        self._looks.search(
            photo,
            multi_oriented_detection=face.multi_oriented_detection,
            heard=partial(self._hear_search, face),
        )

    def _hear_search(self, face: FaceRecord, answer: Answer) -> None:
        if answer.verdict is Verdict.FATAL:
            self._give_up(self.refuse_search(answer.code))
            return
        try:
            found = candidates(answer) if answer.verdict is Verdict.APPLIED else []
        except ServiceError:
            found = []
        if answer.verdict in (Verdict.NOT_SENT, Verdict.UNKNOWN):  # a look that fails is no look
            self._under_way = False
            self.next_due = time.monotonic() + FAILED_PAUSE_SECONDS
            return
        own = next((one for one in found if one.face_token == face.face_token), None)
        if own is None:
            said = answer.code or "a face that we know was not found"
            self._failed(f"looking failed: {said}")
            return
        age = max(now_ms() - (face.enrolled_at or 0), 0) / 1000
        self.control = Control(own.score, lag=age if self._tries else 0.0)
        self._wanted = self._under_way = False
        self._found()

    def _failed(self, because: str) -> None:
        self._under_way = False
        self._tries += 1
        if self._tries >= CONTROL_TRIES:
            self._give_up(because)
        else:
            self.next_due = time.monotonic() + min(2.0**self._tries / 2, 60.0)

    def _give_up(self, because: str) -> None:
        self._wanted = self._under_way = False
        self._given_up(because)
