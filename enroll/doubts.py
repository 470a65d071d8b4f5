"""Settling faces in doubt: when to look, with what, and what is recorded of it.

`enroll.settling` decides, `enroll.looks` makes the calls. A library small enough to be listed
whole is listed, once for all doubts that wait; else each face is looked for by `search` with its
own photo, beside a control.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

from enroll import settling
from enroll.control import ControlSeeker
from enroll.errors import ServiceError
from enroll.facesearch import candidates, faces, next_start
from enroll.intake import Submit
from enroll.journey import STRANGER
from enroll.ledger import Changes
from enroll.looks import LIST_PAGE, Looks
from enroll.model import (
    Answer,
    Event,
    EventKind,
    FaceRecord,
    LibraryFace,
    Photo,
    Status,
    Surplus,
    Verdict,
)
from enroll.recorder import Recorder, now_ms
from enroll.settling import Absent, Adopt, Doubt, LookAgain, Seen, Sight, Undecided

IN_LIBRARY_BEFORE = frozenset({Status.ENROLLED, Status.SUPERSEDED, Status.REMOVED})
"""Where a face has stood that has, or had, a token of its own: what is found are copies of it."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """A library listed whole: its faces by `user_id`, as they were at `at` (monotonic)."""

    at: float
    people: Mapping[str, Sequence[LibraryFace]]


@dataclass(frozen=True, slots=True)
class _Due:
    """A doubt and the moment (monotonic) from which a look at it counts."""

    doubt: Doubt
    at: float


class Doubts:
    """Every face in doubt, until it is settled or left to a person."""

    def __init__(
        self,
        looks: Looks,
        recorder: Recorder,
        *,
        settle_after: float,
        settled: Callable[[FaceRecord], None],
    ) -> None:
        """`settle_after` is seconds; `settled` hears of each face as it stands when nothing more
        will be done about it."""
        self._looks = looks
        self._recorder = recorder
        self._settle_after = settle_after
        self._settled = settled
        self._seeker = ControlSeeker(
            looks, recorder, found=self._control_found, given_up=self._control_given_up
        )
        self._waiting: list[tuple[float, int, Doubt]] = []
        self._order = itertools.count()
        self._open: dict[int, Doubt] = {}
        self._for_listing: list[_Due] = []
        self._listing: _Listing | None = None
        self._listing_asked = False
        self._small: bool | None = None
        self._for_control: list[_Due] = []

    def __len__(self) -> int:
        """How many faces are not settled."""
        return len(self._open)

    def take(self, doubt: Doubt) -> None:
        """Settle this face, from the moment on at which a look can prove anything."""
        self._open[doubt.face.face_id] = doubt
        self._later(doubt, max(self._opens(doubt) - self._looks.service_time(), 0.0))

    def enrolled(self, face: FaceRecord) -> None:
        """A face was enrolled; it can serve as control."""
        self._seeker.enrolled(face)

    def next_due(self) -> float | None:
        """When something is to be done even if no task ends (monotonic seconds)."""
        moments = [self._waiting[0][0] if self._waiting else None, self._seeker.next_due]
        return min((moment for moment in moments if moment is not None), default=None)

    def work(self, submit: Submit, calls: Executor, readers: Executor, *, idle: bool) -> None:
        """Do what is due. `idle` says that nothing else of the run is under way, so that no
        further success will come to serve as control."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            at, _, doubt = heapq.heappop(self._waiting)
            early = self._opens(doubt) - self._looks.service_time()
            if early > 0:  # a clock was set since this was reckoned
                self._later(doubt, early)
            else:
                self._look(_Due(doubt, at))
        self._seeker.work(idle=idle)
        self._looks.work(submit, calls, readers)

    def left(self) -> list[FaceRecord]:
        """The faces that are not settled, when the run has to end."""
        return [doubt.face for doubt in self._open.values()]

    # Looks

    def _opens(self, doubt: Doubt) -> float:
        """When a look proves something, on the service's clock."""
        return settling.first_look_at(doubt.face, settle_after=self._settle_after)

    def _later(self, doubt: Doubt, after: float) -> None:
        heapq.heappush(self._waiting, (time.monotonic() + after, next(self._order), doubt))

    def _look(self, due: _Due) -> None:
        """Look for a face: in a listing that is new enough, else by search."""
        if self._small is None:
            self._small = self._recorder.ledger.enrolled_count() < LIST_PAGE
        if not self._small:
            self._search(due)
        elif self._listing is not None and self._listing.at >= due.at:
            self._look_in(self._listing, due)
        else:
            self._for_listing.append(due)
            if not self._listing_asked:
                self._listing_asked = True
                self._looks.list_page(1, self._hear_list)

    def _hear_list(self, asked_at: float, answer: Answer) -> None:
        self._listing_asked = False
        waiting, self._for_listing = self._for_listing, []
        if answer.verdict in (Verdict.NOT_SENT, Verdict.UNKNOWN):  # a look that fails is no look
            for due in waiting:
                failed = settling.look_failed(due.doubt, f"looking failed: {answer.code}")
                self._follow(due.doubt, failed)
            return
        try:
            whole = answer.verdict is Verdict.APPLIED and next_start(answer) is None
            listed = faces(answer) if whole else []
        except ServiceError:
            whole = False
        if not whole:
            self._small = False  # too large, or not ours to list: search instead
        else:
            people: dict[str, list[LibraryFace]] = {}
            for face in listed:
                people.setdefault(face.user_id, []).append(face)
            self._listing = _Listing(asked_at, people)
        for due in waiting:
            self._look(due)

    def _look_in(self, listing: _Listing, due: _Due) -> None:
        face = due.doubt.face
        there = listing.people.get(face.user_id, [])
        strangers = self._strangers([(one.face_token, one.add_time, None) for one in there])
        if strangers:
            self._search(due)  # is it this photo? Only its likeness tells
        else:
            self._conclude(due.doubt, Sight(()))

    def _search(self, due: _Due) -> None:
        if self._seeker.cannot_search is not None:
            self._undecided(due.doubt, self._seeker.cannot_search)
        elif self._seeker.control is None:
            self._for_control.append(due)
            self._seeker.want()
        else:
            self._looks.read_photo_of(due.doubt.face, partial(self._hear_photo, due.doubt))

    def _control_found(self) -> None:
        waiting, self._for_control = self._for_control, []
        lag = 0.0 if self._seeker.control is None else self._seeker.control.lag
        for due in waiting:
            # A look counts from when new faces are known to be visible.
            if lag:
                self._later(due.doubt, lag)
            else:
                self._search(due)

    def _control_given_up(self, because: str) -> None:
        waiting, self._for_control = self._for_control, []
        for due in waiting:
            self._without_search(due.doubt, because)

    def _without_search(self, doubt: Doubt, because: str) -> None:
        stranger = self._only_stranger(doubt)
        if stranger is None:
            self._undecided(doubt, because)
        else:
            self._conclude(doubt, Sight((stranger,)))

    def _only_stranger(self, doubt: Doubt) -> Seen | None:
        """Where likeness cannot tell: the one listed face that can be no other that we have sent,
        in a library that nobody but us has filled."""
        ledger, face = self._recorder.ledger, doubt.face
        if self._listing is None or doubt.recheck or not ledger.began_empty:
            return None
        if face.code == STRANGER:
            return None  # what the ledger has sent says nothing of a face that it does not know
        there = self._listing.people.get(face.user_id, [])
        strangers = self._strangers([(one.face_token, one.add_time, None) for one in there])
        known = ledger.faces_of([face.user_id])[face.user_id]
        return strangers[0] if settling.only_face(strangers, known, face) else None

    def _hear_photo(self, doubt: Doubt, photo: Photo | None) -> None:
        if photo is None:
            self._without_search(doubt, "its photo is no longer there to search with")
            return
        self._looks.search(
            photo,
            multi_oriented_detection=doubt.face.multi_oriented_detection,
            heard=partial(self._hear_search, doubt),
        )

    def _hear_search(self, doubt: Doubt, answer: Answer) -> None:
        if answer.verdict is Verdict.FATAL:
            self._undecided(doubt, self._seeker.refuse_search(answer.code))
            return
        sight = self._sight(doubt.face.user_id, answer)
        if sight is None:
            self._follow(doubt, settling.look_failed(doubt, f"looking failed: {answer.code}"))
        else:
            self._conclude(doubt, sight)

    def _sight(self, user_id: str, answer: Answer) -> Sight | None:
        """What a search has shown of a person; None when it has shown nothing reliable."""
        if answer.code == "NO_FACE_FOUND":
            return Sight(())  # the service finds none in these bytes, and so cannot have added one
        if answer.verdict is not Verdict.APPLIED:
            return None
        try:
            found = candidates(answer)
        except ServiceError:
            return None
        strangers = self._strangers(
            [(one.face_token, one.add_time, one.score) for one in found if one.user_id == user_id]
        )
        full = len(found) >= settling.LOOK_LIMIT
        return Sight(tuple(strangers), min(one.score for one in found) if full else None)

    def _strangers(self, seen: Sequence[tuple[str, int | None, float | None]]) -> list[Seen]:
        """Those of the faces whose tokens the ledger does not hold."""
        held = self._recorder.ledger.holders_of([token for token, _, _ in seen])
        return [Seen(token, at, score) for token, at, score in seen if token not in held]

    # What is concluded

    def _conclude(self, doubt: Doubt, sight: Sight) -> None:
        control = self._seeker.control
        settlement = settling.judge(doubt, sight, control=control, settle_after=self._settle_after)
        self._follow(doubt, settlement)

    def _follow(self, doubt: Doubt, settlement: settling.Settlement) -> None:
        if isinstance(settlement, LookAgain):
            self._open[doubt.face.face_id] = settlement.doubt
            self._later(settlement.doubt, settlement.after)
        elif isinstance(settlement, Undecided):
            self._undecided(doubt, settlement.because)
        elif isinstance(settlement, Adopt):
            self._adopt(doubt, settlement)
        elif isinstance(settlement, Absent):
            self._absent(doubt)

    def _adopt(self, doubt: Doubt, found: Adopt) -> None:
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
                run=self._recorder.run,
            )
            events.append(self._event(EventKind.ADOPTED, face, face.face_token))
        face = replace(face, recheck=False)
        events += [self._event(EventKind.SURPLUS, face, token) for token in tokens]
        surplus = [
            Surplus(
                face_token=token, face_id=face.face_id, found_at=now_ms(), run=self._recorder.run
            )
            for token in tokens
        ]
        self._recorder.ledger.record(Changes(faces=[face], events=events, surplus=surplus))
        self._recorder.tally.adopted += bool(events) and events[0].kind is EventKind.ADOPTED
        self._recorder.tally.surplus += len(tokens)
        self._close(face)

    def _absent(self, doubt: Doubt) -> None:
        # One that was not added until now, after all, is looked for when it has been sent again.
        face = replace(doubt.face, recheck=doubt.face.status is Status.FAILED)
        events = []
        if face.open:
            face = replace(face, status=Status.PENDING, recheck=True, run=self._recorder.run)
            events.append(self._event(EventKind.NOT_APPLIED, face, None))
            self._recorder.tally.not_applied += 1
        self._recorder.ledger.record(Changes(faces=[face], events=events))
        self._close(face)

    def _undecided(self, doubt: Doubt, because: str) -> None:
        face = doubt.face
        if face.open:
            said = f"The service may or may not have the face: {because}."
            face = replace(face, status=Status.IN_DOUBT, message=said, run=self._recorder.run)
            self._recorder.ledger.record(Changes(faces=[face]))
        self._close(face)

    def _close(self, face: FaceRecord) -> None:
        self._recorder.noted()
        del self._open[face.face_id]
        self._settled(face)

    def _event(self, kind: EventKind, face: FaceRecord, token: str | None) -> Event:
        return Event(
            at=now_ms(),
            kind=kind,
            run=self._recorder.run,
            face_id=face.face_id,
            face_token=token,
            detail=face.code,
        )
