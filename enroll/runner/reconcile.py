"""Settling faces in doubt: when to look, and with what.

`reconcile_rules` decides, `lookups` makes the calls, the journal records.
A library small enough to be listed whole is listed, once for all doubts that wait; else each face
is looked for by `search` with its own photo, beside a calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from enroll import clock
from enroll.facesearch import LIST_PAGE
from enroll.model import (
    Answer,
    FaceRecord,
    LibraryFace,
    Status,
    Verdict,
)
from enroll.runner import reconcile_rules
from enroll.runner.calibration import Calibrator
from enroll.runner.journal import Journal
from enroll.runner.lookups import Lookup, Lookups
from enroll.runner.reconcile_rules import (
    Absent,
    Adopt,
    Calibration,
    Doubt,
    LookAgain,
    Undecided,
)
from enroll.runner.tasks import Later
from enroll.runner.transitions import STRANGER
from enroll.session.library_faces import (
    NO_FACE_FOUND,
    Findings,
    SeenFace,
    cut_at,
    found_faces,
    listed_whole,
)
from enroll.session.retry import NO_ANSWER

TOKEN_SHOWN = frozenset({Status.ENROLLED, Status.SUPERSEDED})
"""Statuses of a face whose token the library holds."""


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


class Reconciler:
    """Every face in doubt, until it is settled or left to a person."""

    def __init__(
        self,
        lookups: Lookups,
        journal: Journal,
        *,
        settle_after: float,
    ) -> None:
        """`settle_after` is seconds."""
        self._lookups = lookups
        self._journal = journal
        self._settle_after = settle_after
        self._settled: list[FaceRecord] = []
        self._calibrator = Calibrator(
            lookups, journal, found=self._calibrated, given_up=self._not_calibrated
        )
        self._list_calibrator = Calibrator(
            lookups,
            journal,
            by_list=True,
            found=self._list_calibrated,
            given_up=self._list_not_calibrated,
        )
        self._waiting: Later[Doubt] = Later()
        self._open: dict[int, Doubt] = {}
        self._for_list_calibration: list[_Due] = []
        self._for_listing: list[_Due] = []
        self._listing: _Listing | None = None
        self._listing_asked = False
        self._small: bool | None = None
        self._for_calibration: list[_Due] = []

    def __len__(self) -> int:
        """How many faces are not settled."""
        return len(self._open)

    def take(self, doubt: Doubt) -> None:
        """Settle this face, from the moment on at which a look can prove anything."""
        self._open[doubt.face.face_id] = doubt
        # At once: the younger the face that is looked for, the better is the lag known.
        (self._list_calibrator if self._listable() else self._calibrator).renew()
        self._later(doubt, max(self._opens(doubt) - self._lookups.service_time(), 0.0))

    def enrolled(self, face: FaceRecord) -> None:
        """A face was enrolled; it can serve as calibration."""
        self._calibrator.enrolled(face)
        self._list_calibrator.enrolled(face)

    def due_at(self) -> float | None:
        """When something is to be done even if no task ends (monotonic seconds)."""
        moments = [self._waiting.due_at()]
        moments += [self._calibrator.due_at, self._list_calibrator.due_at]
        moments.append(self._lookups.due_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def work(self, *, idle: bool) -> None:
        """Do what is due. `idle` says that nothing else of the run is under way, so that no
        further success will come to serve as calibration."""
        now = clock.monotonic()
        for at, doubt in self._waiting.due(now):
            early = self._opens(doubt) - self._lookups.service_time()
            if early > 0:  # a clock was set since this was computed
                self._later(doubt, early)
            else:
                self._look(_Due(doubt, at))
        self._calibrator.work(idle=idle)
        self._list_calibrator.work(idle=idle)
        self._lookups.work()

    def take_settled(self) -> list[FaceRecord]:
        """The faces that need no more work, in their present state; each is returned once."""
        settled, self._settled = self._settled, []
        return settled

    def left(self) -> list[FaceRecord]:
        """The faces that are not settled, when the run has to end."""
        return [doubt.face for doubt in self._open.values()]

    # Lookups

    def _opens(self, doubt: Doubt) -> float:
        """When a look proves something, on the service's clock."""
        calibration = (self._list_calibrator if self._listable() else self._calibrator).calibration
        return reconcile_rules.first_look_at(
            doubt, calibration=calibration, settle_after=self._settle_after
        )

    def _later(self, doubt: Doubt, after: float) -> None:
        self._waiting.put(clock.monotonic() + after, doubt)

    def _look(self, due: _Due) -> None:
        """Look for a face: in a listing that is new enough, else by search."""
        if self._small:  # it may have grown since
            self._small = None
        if not self._listable():
            self._search(due)
        elif not self._list_calibrator.ready:
            self._for_list_calibration.append(due)
            self._list_calibrator.want()
        elif self._listing is not None and self._listing.at >= due.at:
            self._look_in(self._listing, due)
        else:
            self._for_listing.append(due)
            if not self._listing_asked:
                self._listing_asked = True
                self._lookups.list_page(1, self._library_listed)

    def _listable(self) -> bool:
        """Whether the library is taken for small enough to be listed whole."""
        if self._small is None:
            self._small = self._journal.ledger.enrolled_count() < LIST_PAGE
        return self._small

    def _list_calibrated(self) -> None:
        waiting, self._for_list_calibration = self._for_list_calibration, []
        for due in waiting:
            self._look(due)

    def _list_not_calibrated(self, because: str) -> None:
        self._small = False  # search instead
        self._list_calibrated()

    def _library_listed(self, lookup: Lookup, answer: Answer) -> None:
        self._listing_asked = False
        waiting, self._for_listing = self._for_listing, []
        listed = listed_whole(answer)
        if listed is None:
            self._small = False  # too large, or not ours to list: search instead
        else:
            people: dict[str, list[LibraryFace]] = {}
            for face in listed:
                people.setdefault(face.user_id, []).append(face)
            self._listing = _Listing(lookup.sent_at, people)
        for due in waiting:
            self._look(due)

    def _look_in(self, listing: _Listing, due: _Due) -> None:
        face = due.doubt.face
        there = listing.people.get(face.user_id, [])
        unknown_faces = self._unknown_faces([(one.face_token, one.add_time, None) for one in there])
        if unknown_faces:
            self._search(due)  # only a search can show whether it is this photo
        else:
            at = self._lookups.service_time() - (clock.monotonic() - listing.at)
            findings = Findings((), at=at, own=_shows(face, {one.face_token for one in there}))
            self._conclude(due.doubt, findings, self._list_calibrator.calibration)

    def _search(self, due: _Due) -> None:
        if self._calibrator.cannot_search is not None:
            self._undecided(due.doubt, self._calibrator.cannot_search)
        elif not self._calibrator.ready:
            self._for_calibration.append(due)
            self._calibrator.want()
        elif (
            not self._small and (early := self._opens(due.doubt) - self._lookups.service_time()) > 0
        ):
            self._later(due.doubt, early)  # the lag became known while it waited
        else:
            doubt, because = due.doubt, "there is no photo left to search with"
            self._lookups.search(
                doubt.face,
                on_answer=partial(self._searched, doubt),
                on_no_photo=partial(self._without_search, doubt, because),
            )

    def _calibrated(self) -> None:
        waiting, self._for_calibration = self._for_calibration, []
        for due in waiting:
            self._search(due)

    def _not_calibrated(self, because: str) -> None:
        waiting, self._for_calibration = self._for_calibration, []
        for due in waiting:
            self._without_search(due.doubt, because)

    def _without_search(self, doubt: Doubt, because: str) -> None:
        unknown = self._only_unknown_face(doubt)
        if unknown is None:
            self._undecided(doubt, because)
        else:
            self._conclude(doubt, Findings((unknown,)), None)

    def _only_unknown_face(self, doubt: Doubt) -> SeenFace | None:
        """Where a search cannot decide: the one listed face that cannot be any other face that was
        sent, in a library that nobody else has added to."""
        ledger, face = self._journal.ledger, doubt.face
        if self._listing is None or doubt.recheck or not ledger.began_empty:
            return None
        if face.code == STRANGER:
            return None  # what was sent says nothing about a face that the ledger does not know
        there = self._listing.people.get(face.user_id, [])
        unknown_faces = self._unknown_faces([(one.face_token, one.add_time, None) for one in there])
        known = ledger.faces_of([face.user_id])[face.user_id]
        return unknown_faces[0] if reconcile_rules.only_face(unknown_faces, known, face) else None

    def _searched(self, doubt: Doubt, lookup: Lookup, answer: Answer) -> None:
        if answer.verdict is Verdict.FATAL:
            self._undecided(doubt, self._calibrator.refuse_search(answer.code))
            return
        findings = self._findings(doubt.face, lookup.service_time, answer)
        if findings is not None:
            self._conclude(doubt, findings, self._calibrator.calibration)
            return
        because = f"the check failed: {(answer.message or answer.code).rstrip('.')}"
        if answer.verdict in NO_ANSWER:
            self._undecided(doubt, because)
        else:
            self._follow(doubt, reconcile_rules.look_refused(doubt, because))

    def _findings(self, face: FaceRecord, at: float, answer: Answer) -> Findings | None:
        """What a search has shown of a person; None when it has shown nothing reliable."""
        found = found_faces(answer)
        if found is None:
            return None
        if answer.code == NO_FACE_FOUND:
            return Findings((), at=at)
        unknown_faces = self._unknown_faces(
            [
                (one.face_token, one.add_time, one.score)
                for one in found
                if one.user_id == face.user_id
            ]
        )
        return Findings(
            tuple(unknown_faces),
            at=at,
            cut_at=cut_at(found),
            own=_shows(face, {one.face_token for one in found}),
        )

    def _unknown_faces(
        self, seen: Sequence[tuple[str, int | None, float | None]]
    ) -> list[SeenFace]:
        """Those of the faces whose tokens the ledger does not hold."""
        held = self._journal.ledger.holders_of([token for token, _, _ in seen])
        return [SeenFace(token, at, score) for token, at, score in seen if token not in held]

    # What is concluded

    def _conclude(self, doubt: Doubt, findings: Findings, calibration: Calibration | None) -> None:
        settlement = reconcile_rules.judge(
            doubt, findings, calibration=calibration, settle_after=self._settle_after
        )
        self._follow(doubt, settlement)

    def _follow(self, doubt: Doubt, settlement: reconcile_rules.Settlement) -> None:
        face, then = doubt.face, settlement
        if isinstance(settlement, Absent):
            self._close(self._journal.absent(face))
            return
        if isinstance(settlement, Adopt):
            tokens = [settlement.face_token, *settlement.surplus]
            face = self._journal.adopt(face, tokens, recheck=settlement.then is not None)
            if settlement.then is None:
                self._close(face)
                return
            then = settlement.then
        if isinstance(then, LookAgain):
            self._open[face.face_id] = then.doubt
            self._later(then.doubt, then.after)
        elif isinstance(then, Undecided):
            self._undecided(doubt, then.because)

    def _undecided(self, doubt: Doubt, because: str) -> None:
        self._close(self._journal.undecided(doubt.face, because, recheck=doubt.recheck))

    def _close(self, face: FaceRecord) -> None:
        del self._open[face.face_id]
        self._settled.append(face)


def _shows(face: FaceRecord, tokens: set[str]) -> bool | None:
    """Whether a look that shows these tokens shows the face's own; None where it has none there."""
    return face.face_token in tokens if face.status in TOKEN_SHOWN else None
