"""Searches with the photos of rows, decides for each person which faces are theirs, and records
it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from enroll import clock
from enroll.commands.adopt_decisions import (
    Decision,
    Outcome,
    SearchedPhoto,
    decide,
    learn_own_score,
)
from enroll.commands.adopt_report import Adoption, Remarks
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
    Verdict,
)
from enroll.photos import read_photo
from enroll.runner.health import Breaker
from enroll.runner.transitions import Hold, NoCall, Policy, first_step
from enroll.session.caller import Caller
from enroll.session.library_faces import Findings, PhotoSearch, SeenFace, cut_at, found_faces
from enroll.session.session import CommandRecord, Prompt
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

    @property
    def found(self) -> list[FoundFace] | None:
        """The faces that the search found; None if its answer proves nothing."""
        return found_faces(self.answer)


@dataclass(frozen=True, slots=True)
class Unsearched:
    """A row without a photo to search with, and why."""

    row: ScannedRow
    fault: Fault
    found: None = None


RowSearch = Searched | Unsearched


@dataclass(slots=True, kw_only=True)
class AdoptSearch:
    """Carries out one adoption; the outcome is in `adoption` and the ledger.

    `adoption.own` is the score of own faces where it is known already; `multi_oriented_detection`
    is that of the searches.
    """

    caller: Caller
    ledger: Ledger
    listing: Listing
    work: CommandRecord
    photo_search: PhotoSearch
    multi_oriented_detection: bool
    adoption: Adoption
    remarks: Remarks
    prompt: Prompt
    _sizes: dict[str, int] = field(default_factory=dict)
    _incomplete: dict[str, list[RowSearch]] = field(default_factory=dict)
    _undecided: list[list[RowSearch]] = field(default_factory=list)
    _tops: list[tuple[str, float]] = field(default_factory=list)
    _uncommitted: int = 0
    _breaker: Breaker = field(default_factory=Breaker)

    def adopt(self, people: Iterable[list[ScannedRow]]) -> None:
        """Search for each row of each person, and record what is found.

        Raises UsageError where the score of own faces cannot be learned, ServiceError if the
        service is away or always gives the same error.
        """
        asked = self.caller.each(
            CallKind.SEARCH,
            self._rows(people),
            self._search_row,
            answer_of=lambda result: result.answer if isinstance(result, Searched) else None,
        )
        for done, (row, result) in enumerate(asked, start=1):
            self.prompt.progress(done, "rows searched for", of=self.adoption.to_search)
            if isinstance(result, Searched):
                self._check(result.answer)
            person = self._incomplete.setdefault(row.user_id, [])
            person.append(result)
            if len(person) == self._sizes[row.user_id]:
                del self._incomplete[row.user_id], self._sizes[row.user_id]
                self._complete(sorted(person, key=lambda one: one.row.line))
        self._learn(all_asked=True)
        for person in self._undecided:
            self._decide(person)
        self.ledger.commit()

    def _check(self, answer: Answer) -> None:
        """Raise ServiceError if further searches would be in vain."""
        again = self._breaker.heard(answer, rejected=False, now=clock.monotonic())
        if again is not None or answer.verdict in (Verdict.NOT_SENT, Verdict.REFUSED):
            raise self.caller.connection.failed(answer)

    def _rows(self, people: Iterable[list[ScannedRow]]) -> Iterator[ScannedRow]:
        for person in people:
            self._sizes[person[0].user_id] = len(person)
            yield from person

    def _search_row(self, service: FaceSearch, row: ScannedRow) -> RowSearch:
        """Read a photo and search with it. Runs on another thread."""
        photo = read_photo(row.path, self.photo_search.store, SEARCH_PREPARATION)
        if isinstance(photo, Unusable):
            return Unsearched(row, photo.fault)
        answer = self.photo_search.search(
            service, photo, multi_oriented_detection=self.multi_oriented_detection
        )
        return Searched(row, replace(photo, content=b""), answer)

    # The score of own faces

    def _complete(self, person: list[RowSearch]) -> None:
        """Every row of a person has been searched for."""
        tops = [max((one.score for one in result.found or []), default=0.0) for result in person]
        own = self.adoption.own
        if own is not None and own.refuted_by(max(tops)):
            raise UsageError(
                f"A photo found a face with the score {max(tops):g}, above the {own.score:g} that "
                "a photo was thought to get for its own face. The faces adopted so far may be of "
                "other photos of the same people, so nothing more was adopted. Start again with a "
                "new ledger (--ledger), and give the minimum score with --score."
            )
        if own is not None:
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
        if self.adoption.own is None:
            self.adoption.own = learn_own_score(self._tops, all_asked=all_asked)
        if self.adoption.own is not None:
            undecided, self._undecided = self._undecided, []
            for person in undecided:
                self._decide(person)

    # What is decided and recorded

    def _decide(self, person: Sequence[RowSearch]) -> None:
        user_id = person[0].row.user_id
        known = self.ledger.faces_of([user_id])[user_id]
        searched_photos: dict[bytes, list[Searched]] = {}
        bases: dict[bytes, FaceRecord | None] = {}
        for result in person:
            if isinstance(result, Unsearched):
                self._end([result], Decision(outcome=Outcome.UNUSABLE), result.fault.message)
                continue
            step = first_step(known, result.photo, policy=ADDS_NOTHING, run=self.work.run)
            if isinstance(step, NoCall) and step.face.status is Status.ENROLLED:
                self._keep(result, step.face, known)
            elif isinstance(step, Hold) or (isinstance(step, NoCall) and step.face.open):
                self._end([result], Decision(outcome=Outcome.IN_DOUBT))
            elif result.found is None:
                why = result.answer.code or OwnCode.FIELD_MISSING.value
                self._end([result], Decision(outcome=Outcome.FAILED), why)
            else:
                searched_photos.setdefault(result.content, []).append(result)
                bases[result.content] = step.face
        if searched_photos:
            self._assign(user_id, searched_photos, bases)
        self._uncommitted += 1
        if self._uncommitted >= PEOPLE_A_COMMIT:
            self.ledger.commit()
            self._uncommitted = 0

    def _assign(
        self,
        user_id: str,
        searched_photos: dict[bytes, list[Searched]],
        bases: dict[bytes, FaceRecord | None],
    ) -> None:
        """Assign faces to a person's photos; `bases` has the photos' faces on record."""
        own = self.adoption.own
        there = {face.face_token: face for face in self.listing.faces_of(user_id)}
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
                listed = there.get(decision.face_token)
                self._adopt(rows, decision, bases[content], listed)
            self._end(rows, decision)

    def _findings(self, result: Searched, there: dict[str, LibraryFace]) -> Findings:
        """The row's person's faces that a search found and the ledger does not know."""
        found = result.found or []
        ours = [one for one in found if one.user_id == result.row.user_id]
        held = self.ledger.holders_of([one.face_token for one in ours])
        unknown_faces = tuple(
            SeenFace(one.face_token, there.get(one.face_token, one).add_time, one.score)
            for one in ours
            if one.face_token not in held
        )
        return Findings(unknown_faces, cut_at(found))

    def _keep(self, result: Searched, face: FaceRecord, known: Sequence[FaceRecord]) -> None:
        """The row's face is enrolled, or was until no row pointed to it any more."""
        before = next(one for one in known if one.face_id == face.face_id)
        if before.status is Status.SUPERSEDED:
            event = self.work.event(EventKind.RESTORED, face.face_id, face.face_token)
            restored = replace(face, run=self.work.run)
            self.ledger.record(Changes(faces=[restored], events=[event]))
        self._point([result], face)
        self._end([result], Decision(outcome=Outcome.KNOWN))

    def _end(self, rows: Sequence[RowSearch], decision: Decision, detail: str = "") -> None:
        self.adoption.outcomes[decision.outcome] += len(rows)
        for one in rows:
            self.remarks.row(one.row, decision, detail)

    def _adopt(
        self,
        rows: Sequence[Searched],
        decision: Decision,
        base: FaceRecord | None,
        there: LibraryFace | None,
    ) -> None:
        """Take over a token for rows of one content, and note further copies.

        `base` is the face's record, if there is one; `there` is the library's, if it was listed.
        """
        photo, run, now = rows[0].photo, self.work.run, clock.now_ms()
        face = base or FaceRecord(
            face_id=self.ledger.new_face_id(),
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
            multi_oriented_detection=self.multi_oriented_detection,
            enrolled_at=now if there is None else there.add_time,
            run=run,
        )
        found = [(EventKind.ADOPTED, decision.face_token)]
        found += [(EventKind.SURPLUS, token) for token in decision.surplus]
        self.ledger.record(
            Changes(
                faces=[face],
                events=[
                    self.work.event(kind, face.face_id, token, BY_ADOPTION) for kind, token in found
                ],
                surplus=[
                    Surplus(face_token=token, face_id=face.face_id, found_at=now, run=run)
                    for token in decision.surplus
                ],
            )
        )
        self.adoption.surplus += len(decision.surplus)
        self._point(rows, face)

    def _point(self, rows: Sequence[Searched], face: FaceRecord) -> None:
        """Record that the photo of these rows is this face."""
        for one in rows:
            photo, row = one.photo, one.row
            record = RowRecord(
                user_id=row.user_id,
                path=row.path,
                user_data=row.user_data,
                face_id=face.face_id,
                sha256=photo.sha256,
                run=self.work.run,
            )
            seen = PhotoRecord(path=row.path, times=photo.times, sha256=photo.sha256)
            self.ledger.record(Changes(rows=[record], photos=[seen]))
