"""Settling faces in doubt: when to look, with what, and what is recorded of it.

`enroll.settling` decides; here are the exchanges. A library small enough to be listed whole is
listed, once for all doubts that wait; else each face is looked for by `search` with its own
photo, beside a control.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from enroll import settling
from enroll.errors import ServiceError
from enroll.facesearch import candidates, faces, next_start
from enroll.intake import Submit
from enroll.journey import CREDENTIAL_CODES
from enroll.ledger import Changes
from enroll.model import (
    Answer,
    CallKind,
    Event,
    EventKind,
    FaceRecord,
    LibraryFace,
    Photo,
    SendAs,
    Status,
    Surplus,
    Verdict,
)
from enroll.photo import read_photo
from enroll.recorder import Recorder, now_ms
from enroll.settling import Absent, Adopt, Control, Doubt, LookAgain, Seen, Sight, Undecided
from enroll.throttle import Throttle

LIST_PAGE = 1000
"""Faces in one page of `list`, the most that it gives: a library up to so many is listed whole."""

CONTROL_TRIES = 8
"""How often a control is looked for before the run goes without: about two minutes in all."""

CONTROL_FACES = 5
"""Faces of earlier runs that may serve as control, the newest first."""


class Library(Protocol):
    """The calls that settling makes; `enroll.facesearch.FaceSearch` offers them."""

    @property
    def clock_offset(self) -> float:
        """The service's clock minus ours, in seconds."""

    def search(
        self,
        *,
        group_id: str,
        photo: Photo,
        send_as: SendAs,
        limit: int = 1,
        threshold: float | None = None,
        multi_oriented_detection: bool = False,
    ) -> Answer:
        """Find the faces most like a photo's."""

    def list(self, *, group_id: str, start: int = 1, limit: int = 100) -> Answer:
        """One page of the library's faces."""


def read_again(paths: Sequence[str], images: str, sha256: bytes) -> Photo | None:
    """The photo with this content from the first of the paths that still has it."""
    for path in paths:
        photo = read_photo(path, images)
        if isinstance(photo, Photo) and photo.sha256 == sha256:
            return photo
    return None


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
        service: Library,
        recorder: Recorder,
        throttle: Throttle,
        *,
        group_id: str,
        send_as: SendAs,
        images: str,
        settle_after: float,
        settled: Callable[[FaceRecord], None],
    ) -> None:
        """`images` is the resolved images root, `settle_after` seconds; `settled` hears of each
        face as it stands when nothing more will be done about it."""
        self._service = service
        self._recorder = recorder
        self._throttle = throttle
        self._group_id = group_id
        self._send_as = send_as
        self._images = images
        self._settle_after = settle_after
        self._settled = settled
        self._waiting: list[tuple[float, int, Doubt]] = []
        self._order = itertools.count()
        self._open: dict[int, Doubt] = {}
        self._asking: deque[Callable[[Submit, Executor], None]] = deque()
        self._reading: deque[tuple[FaceRecord, Callable[[Photo | None], None]]] = deque()
        self._for_listing: list[_Due] = []
        self._listing: _Listing | None = None
        self._listing_asked = False
        self._small: bool | None = None
        self._for_control: list[_Due] = []
        self._control: Control | None = None
        self._control_asked = False
        self._control_at: float | None = None
        self._control_tries = 0
        self._newest: FaceRecord | None = None
        self._cannot_search: str | None = None

    def __len__(self) -> int:
        """How many faces are not settled."""
        return len(self._open)

    def take(self, doubt: Doubt) -> None:
        """Settle this face, from the moment on at which a look can prove anything."""
        self._open[doubt.face.face_id] = doubt
        at = settling.first_look_at(doubt.face, settle_after=self._settle_after)
        now = time.time() + self._service.clock_offset
        self._later(doubt, max(at - now, 0.0))

    def enrolled(self, face: FaceRecord) -> None:
        """A face was enrolled: the newest one makes the best control."""
        self._newest = face
        if self._for_control and self._control_at is None and not self._control_asked:
            self._control_at = time.monotonic()

    def next_due(self) -> float | None:
        """When something is to be done even if no task ends (monotonic seconds)."""
        moments = [self._waiting[0][0]] if self._waiting else []
        if self._control_at is not None:
            moments.append(self._control_at)
        return min(moments, default=None)

    def work(self, submit: Submit, calls: Executor, readers: Executor, *, idle: bool) -> None:
        """Do what is due. `idle` says that nothing else of the run is under way, so that no
        further success will come to serve as control."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            at, _, doubt = heapq.heappop(self._waiting)
            self._look(_Due(doubt, at))
        if self._control_at is not None and self._control_at <= now:
            self._control_at = None
            self._seek_control()
        if idle and self._for_control and not self._control_asked and self._control_at is None:
            self._give_up_control("no face is known to compare it with")
        while self._reading:
            face, heard = self._reading.popleft()
            paths = self._recorder.ledger.paths_of([face.face_id])[face.face_id]
            submit(readers, heard, read_again, paths, self._images, face.sha256)
        while self._asking and self._throttle.free(now) > 0:
            self._throttle.sent(now)
            self._asking.popleft()(submit, calls)

    def left(self) -> list[FaceRecord]:
        """The faces that are not settled, when the run has to end."""
        return [doubt.face for doubt in self._open.values()]

    # Looks

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
                self._ask_list()

    def _ask_list(self) -> None:
        def send(submit: Submit, calls: Executor) -> None:
            call = partial(self._service.list, group_id=self._group_id, limit=LIST_PAGE)
            submit(calls, partial(self._hear_list, time.monotonic()), call)

        self._asking.append(send)

    def _hear_list(self, sent_at: float, answer: Answer) -> None:
        if self._refused(answer, CallKind.LIST):
            self._ask_list()
            return
        self._listing_asked = False
        waiting, self._for_listing = self._for_listing, []
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
            self._listing = _Listing(sent_at, people)
        for due in waiting:
            self._look(due)

    def _look_in(self, listing: _Listing, due: _Due) -> None:
        face = due.doubt.face
        there = listing.people.get(face.user_id, [])
        strangers = self._strangers([(one.face_token, one.add_time, None) for one in there])
        if not strangers:
            self._conclude(due.doubt, Sight(()))
            return
        known = self._recorder.ledger.faces_of([face.user_id])[face.user_id]
        if settling.only_face(strangers, known, face):
            self._conclude(due.doubt, Sight(tuple(strangers)))
        else:
            self._search(due)  # which of the person's photos is it? Only its likeness tells

    def _search(self, due: _Due) -> None:
        if self._cannot_search is not None:
            self._undecided(due.doubt, self._cannot_search)
        elif self._control is None:
            self._for_control.append(due)
            if not self._control_asked and self._control_at is None:
                self._seek_control()
        else:
            self._reading.append((due.doubt.face, partial(self._hear_photo, due.doubt)))

    def _hear_photo(self, doubt: Doubt, photo: Photo | None) -> None:
        if photo is None:
            self._undecided(doubt, "its photo is no longer there to search with")
            return
        self._ask_search(doubt.face, photo, partial(self._hear_search, doubt, photo))

    def _ask_search(self, face: FaceRecord, photo: Photo, heard: Callable[[Answer], None]) -> None:
        def send(submit: Submit, calls: Executor) -> None:
            call = partial(
                self._service.search,
                group_id=self._group_id,
                photo=photo,
                send_as=self._send_as,
                limit=settling.LOOK_LIMIT,
                threshold=settling.LOOK_THRESHOLD,
                multi_oriented_detection=face.multi_oriented_detection,
            )
            submit(calls, heard, call)

        self._asking.append(send)

    def _hear_search(self, doubt: Doubt, photo: Photo, answer: Answer) -> None:
        if self._refused(answer, CallKind.SEARCH):
            self._ask_search(doubt.face, photo, partial(self._hear_search, doubt, photo))
            return
        if answer.code in CREDENTIAL_CODES:
            self._cannot_search = f"the service lets us not search ({answer.code})"
            self._undecided(doubt, self._cannot_search)
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

    def _refused(self, answer: Answer, kind: CallKind) -> bool:
        """Count a call of ours and give its place back; whether it has to be made again."""
        refused = answer.verdict is Verdict.REFUSED
        self._throttle.answered(time.monotonic(), refused=refused, retry_after=answer.retry_after)
        if answer.verdict is not Verdict.NOT_SENT:
            self._recorder.tally.calls[kind] += 1
            self._recorder.tally.refused += refused
        return refused

    # The control

    def _seek_control(self) -> None:
        face = self._newest
        if face is None:
            known = self._recorder.ledger.newest_enrolled(CONTROL_FACES)
            face = known[min(self._control_tries, len(known) - 1)] if known else None
        if face is None:
            return  # the run's first success will do
        self._control_asked = True
        self._reading.append((face, partial(self._hear_control_photo, face)))

    def _hear_control_photo(self, face: FaceRecord, photo: Photo | None) -> None:
        if photo is None:
            self._control_failed("no photo of a known face is there to compare it with")
            return
        self._ask_search(face, photo, partial(self._hear_control, face, photo))

    def _hear_control(self, face: FaceRecord, photo: Photo, answer: Answer) -> None:
        if self._refused(answer, CallKind.SEARCH):
            self._ask_search(face, photo, partial(self._hear_control, face, photo))
            return
        if answer.code in CREDENTIAL_CODES:
            self._cannot_search = f"the service lets us not search ({answer.code})"
            self._give_up_control(self._cannot_search)
            return
        try:
            found = candidates(answer) if answer.verdict is Verdict.APPLIED else []
        except ServiceError:
            found = []
        own = next((one for one in found if one.face_token == face.face_token), None)
        if own is None:
            said = answer.code or "a face that we know was not found"
            self._control_failed(f"looking failed: {said}")
            return
        age = max(now_ms() - (face.enrolled_at or 0), 0) / 1000
        self._control = Control(own.score, lag=age if self._control_tries else 0.0)
        self._control_asked = False
        waiting, self._for_control = self._for_control, []
        for due in waiting:
            # A look counts from when new faces are known to be visible.
            if self._control.lag:
                self._later(due.doubt, self._control.lag)
            else:
                self._search(due)

    def _control_failed(self, because: str) -> None:
        self._control_asked = False
        self._control_tries += 1
        if self._control_tries >= CONTROL_TRIES:
            self._give_up_control(because)
        else:
            self._control_at = time.monotonic() + min(2.0**self._control_tries / 2, 60.0)

    def _give_up_control(self, because: str) -> None:
        self._control_asked = False
        waiting, self._for_control = self._for_control, []
        for due in waiting:
            self._undecided(due.doubt, because)

    # What is concluded

    def _conclude(self, doubt: Doubt, sight: Sight) -> None:
        self._follow(
            doubt,
            settling.judge(doubt, sight, control=self._control, settle_after=self._settle_after),
        )

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
        if face.status is not Status.ENROLLED:
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
        face = replace(doubt.face, recheck=False)
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
