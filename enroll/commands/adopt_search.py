"""Searches with the photos of rows, decides for each person which faces are theirs, and records
it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from enroll import clock
from enroll.commands.adopt_report import Adoption, Remarks
from enroll.commands.matching import Decision, Outcome, SearchedPhoto, decide, learn_own_score
from enroll.errors import UsageError
from enroll.facesearch import FaceSearch, FoundFace
from enroll.facesearch.answers import OwnCode
from enroll.ledger import Changes, Ledger, Listing
from enroll.model import (
    Answer,
    CallKind,
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
    Unusable,
)
from enroll.photos import read_photo
from enroll.run.transitions import Hold, NoCall, Policy, first_step
from enroll.session.caller import Caller
from enroll.session.library_faces import Findings, PhotoSearch, SeenFace, cut_at, found_faces
from enroll.session.session import CommandRecord
from enroll.settings import SEARCH_PREPARATION

MOST_UNDECIDED = 1000
"""People kept in memory after their searches while the score of own faces is not known."""

PEOPLE_A_COMMIT = 50
"""People per commit; what a kill loses is searched for again."""


ADDS_NOTHING = Policy(attempts=0)
"""An adoption makes no `add` call; only how the ledger's faces stand decides."""

BY_ADOPTION = "by enroll adopt"
"""What the events of an adoption say."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A row, its photo without the content, and the answer to a search with it."""

    row: ScannedRow
    photo: Photo
    answer: Answer

    @property
    def content(self) -> bytes:
        """What distinguishes photos: the SHA-256 of what is sent."""
        return self.photo.sent_sha256 or self.photo.sha256


@dataclass(frozen=True, slots=True)
class Unsearched:
    """A row without a photo to search with, and why."""

    row: ScannedRow
    fault: Fault


RowSearch = Searched | Unsearched


class AdoptSearch:
    """Carries out one adoption; the outcome is in `adoption` and the ledger."""

    def __init__(
        self,
        *,
        caller: Caller,
        ledger: Ledger,
        listing: Listing,
        work: CommandRecord,
        photo_search: PhotoSearch,
        multi_oriented_detection: bool,
        adoption: Adoption,
        remarks: Remarks,
        progress: Callable[[int, str], None],
    ) -> None:
        """`adoption.own` is the score of own faces where it is known already."""
        self._caller = caller
        self._ledger = ledger
        self._listing = listing
        self._work = work
        self._writer = AdoptWriter(ledger, work, turned=multi_oriented_detection)
        self._photo_search = photo_search
        self._turn = multi_oriented_detection
        self._adoption = adoption
        self._remarks = remarks
        self._progress = progress
        self._sizes: dict[str, int] = {}
        self._incomplete: dict[str, list[RowSearch]] = {}
        self._undecided: list[list[RowSearch]] = []
        self._tops: list[tuple[str, float]] = []
        self._uncommitted = 0

    def adopt(self, people: Iterable[list[ScannedRow]]) -> None:
        """Search for each row of each person, and record what is found.

        Raises UsageError where the score of own faces cannot be learned, ServiceError.
        """
        asked = self._caller.each(
            CallKind.SEARCH,
            self._rows(people),
            self._search_row,
            answer_of=lambda result: result.answer if isinstance(result, Searched) else None,
        )
        for done, (row, result) in enumerate(asked, start=1):
            self._progress(done, f"of {self._adoption.to_search:,} rows searched for")
            person = self._incomplete.setdefault(row.user_id, [])
            person.append(result)
            if len(person) == self._sizes[row.user_id]:
                del self._incomplete[row.user_id], self._sizes[row.user_id]
                self._complete(sorted(person, key=lambda one: one.row.line))
        self._learn(all_asked=True)
        for person in self._undecided:
            self._decide(person)
        self._ledger.commit()

    def _rows(self, people: Iterable[list[ScannedRow]]) -> Iterator[ScannedRow]:
        for person in people:
            self._sizes[person[0].user_id] = len(person)
            yield from person

    def _search_row(self, service: FaceSearch, row: ScannedRow) -> RowSearch:
        """Read a photo and search with it. Runs on another thread."""
        photo_search = self._photo_search
        photo = read_photo(row.path, photo_search.store, SEARCH_PREPARATION)
        if isinstance(photo, Unusable):
            return Unsearched(row, photo.fault)
        answer = photo_search.search(service, photo, multi_oriented_detection=self._turn)
        return Searched(row, replace(photo, content=b""), answer)

    # The score of own faces

    def _complete(self, person: list[RowSearch]) -> None:
        """Every row of a person has been searched for."""
        tops = [max((one.score for one in _found(result)), default=0.0) for result in person]
        self._refuse_refuted(max(tops))
        if self._adoption.own is not None:
            self._decide(person)
            return
        self._undecided.append(person)
        self._tops += [(person[0].row.user_id, top) for top in tops]
        self._learn(all_asked=False)
        if len(self._undecided) >= MOST_UNDECIDED:
            best = max((score for _, score in self._tops), default=0.0)
            raise UsageError(
                f"After {len(self._tops):,} searches it is still unknown which score a photo gets "
                f"for its own face; the highest was {best:g}. Nothing was adopted. Give the "
                "minimum score with --score."
            )

    def _learn(self, *, all_asked: bool) -> None:
        if self._adoption.own is None:
            self._adoption.own = learn_own_score(self._tops, all_asked=all_asked)
        if self._adoption.own is not None:
            undecided, self._undecided = self._undecided, []
            for person in undecided:
                self._decide(person)

    def _refuse_refuted(self, score: float) -> None:
        own = self._adoption.own
        if own is not None and own.refuted_by(score):
            raise UsageError(
                f"A photo found a face with the score {score:g}, above the {own.score:g} that "
                "counted as the score of own faces: what was adopted so far may be other photos "
                "of the same people. Nothing more is adopted. Give the minimum score with "
                "--score, and a new ledger with --ledger."
            )

    # What is decided and recorded

    def _decide(self, person: Sequence[RowSearch]) -> None:
        user_id = person[0].row.user_id
        known = self._ledger.faces_of([user_id])[user_id]
        there = {face.face_token: face for face in self._listing.faces_of(user_id)}
        searched_photos: dict[bytes, list[Searched]] = {}
        bases: dict[bytes, FaceRecord | None] = {}
        for result in person:
            if isinstance(result, Unsearched):
                self._ends(result.row, Outcome.UNUSABLE, result.fault.message)
                continue
            step = first_step(known, result.photo, policy=ADDS_NOTHING, run=self._work.run)
            if isinstance(step, NoCall) and step.face.status is Status.ENROLLED:
                self._known(result, step.face, known)
            elif isinstance(step, Hold) or (isinstance(step, NoCall) and step.face.open):
                self._ends(result.row, Outcome.IN_DOUBT, "")
            elif (trouble := _trouble(result)) is not None:
                self._ends(result.row, Outcome.FAILED, trouble)
            else:
                searched_photos.setdefault(result.content, []).append(result)
                bases[result.content] = step.face
        if searched_photos:
            self._settle(searched_photos, bases, there)
        self._uncommitted += 1
        if self._uncommitted >= PEOPLE_A_COMMIT:
            self._ledger.commit()
            self._uncommitted = 0

    def _settle(
        self,
        searched_photos: dict[bytes, list[Searched]],
        bases: dict[bytes, FaceRecord | None],
        there: dict[str, LibraryFace],
    ) -> None:
        """Assign faces to a person's photos."""
        own = self._adoption.own
        photos = [
            SearchedPhoto(
                content=content, line=rows[0].row.line, findings=self._findings(rows[0], there)
            )
            for content, rows in searched_photos.items()
        ]
        decisions = {} if own is None else decide(photos, own)
        for content, rows in searched_photos.items():
            decision = decisions.get(content, Decision(outcome=Outcome.NO_SCORE))
            if decision.outcome is Outcome.ADOPTED:
                face = self._writer.adopt(
                    rows, decision, bases[content], there.get(decision.face_token)
                )
                self._adoption.surplus += len(decision.surplus)
                for searched in rows:
                    self._writer.point(searched, face)
            self._adoption.outcomes[decision.outcome] += len(rows)
            for searched in rows:
                self._remarks.row(searched.row, decision, "")

    def _findings(self, result: Searched, there: dict[str, LibraryFace]) -> Findings:
        """The row's person's faces that a search found and the ledger does not know."""
        found = _found(result)
        ours = [one for one in found if one.user_id == result.row.user_id]
        held = self._ledger.holders_of([one.face_token for one in ours])
        strangers = tuple(
            SeenFace(one.face_token, _add_time(one, there), one.score)
            for one in ours
            if one.face_token not in held
        )
        return Findings(strangers, cut_at(found))

    def _known(self, searched: Searched, face: FaceRecord, known: Sequence[FaceRecord]) -> None:
        """The row's face is enrolled, or was until no row pointed to it any more."""
        before = next(one for one in known if one.face_id == face.face_id)
        if before.status is Status.SUPERSEDED:
            self._writer.restore(face)
        self._writer.point(searched, face)
        self._ends(searched.row, Outcome.KNOWN, "")

    def _ends(self, row: ScannedRow, outcome: Outcome, detail: str) -> None:
        self._adoption.outcomes[outcome] += 1
        self._remarks.row(row, Decision(outcome=outcome), detail)


def _found(result: RowSearch) -> list[FoundFace]:
    """The faces that a search found; none if its answer is not reliable."""
    return (found_faces(result.answer) if isinstance(result, Searched) else None) or []


def _trouble(result: Searched) -> str | None:
    """Why a search proves nothing; None if it does prove something."""
    if found_faces(result.answer) is not None:
        return None
    return result.answer.code or OwnCode.FIELD_MISSING.value


def _add_time(one: FoundFace, there: dict[str, LibraryFace]) -> int | None:
    face = there.get(one.face_token)
    return one.add_time if face is None else face.add_time


class AdoptWriter:
    """Records faces and the rows that point to them; its user commits."""

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
        """A row points again to a face that no row pointed to; `face` is its present record."""
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
