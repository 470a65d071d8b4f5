"""Searches for the photos of rows, person by person, and decides which faces are theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from enroll.commands.adopt_report import Adoption, Remarks
from enroll.commands.adopt_writer import Books, Looked, Searched, Unsearched
from enroll.commands.matching import Claim, Decision, Outcome, decide, learn_own_score
from enroll.errors import UsageError
from enroll.facesearch import FaceSearch, FoundFace
from enroll.facesearch.answers import OwnCode
from enroll.ledger import Ledger, Listing
from enroll.model import CallKind, FaceRecord, LibraryFace, ScannedRow, Status, Unusable
from enroll.photos import read_photo
from enroll.run.transitions import Hold, Policy, Settled, first_step
from enroll.session.caller import Caller
from enroll.session.face_search import Findings, PhotoSearch, SeenFace, cut_at, found_faces
from enroll.session.session import CommandRecord

MOST_UNDECIDED = 1000
"""People searched for, and kept in memory, before the score of own faces must be known."""

PEOPLE_A_COMMIT = 50
"""After how many people what was found is written; what a kill loses is searched for again."""


class Adopter:
    """Carries one adoption out; `adoption` and the ledger hold what it came to."""

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
        self._books = Books(ledger, work, turned=multi_oriented_detection)
        self._photo_search = photo_search
        self._turn = multi_oriented_detection
        self._adoption = adoption
        self._remarks = remarks
        self._progress = progress
        self._sizes: dict[str, int] = {}
        self._incomplete: dict[str, list[Looked]] = {}
        self._undecided: list[list[Looked]] = []
        self._tops: list[tuple[str, float]] = []
        self._uncommitted = 0

    def adopt(self, people: Iterable[list[ScannedRow]]) -> None:
        """Search for each row of each person, and record what is found.

        Raises UsageError where the score of own faces cannot be learned, ServiceError.
        """
        asked = self._caller.each(
            CallKind.SEARCH,
            self._rows(people),
            self._look,
            answer_of=lambda looked: looked.answer if isinstance(looked, Searched) else None,
        )
        for done, (row, looked) in enumerate(asked, start=1):
            self._progress(done, f"of {self._adoption.to_search:,} rows searched for")
            person = self._incomplete.setdefault(row.user_id, [])
            person.append(looked)
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

    def _look(self, service: FaceSearch, row: ScannedRow) -> Looked:
        """Read a photo and search with it. Runs on another thread."""
        photo_search = self._photo_search
        photo = read_photo(row.path, photo_search.store, photo_search.preparation)
        if isinstance(photo, Unusable):
            return Unsearched(row, photo.fault)
        answer = photo_search.search(service, photo, multi_oriented_detection=self._turn)
        return Searched(row, replace(photo, content=b""), answer)

    # The score of own faces

    def _complete(self, person: list[Looked]) -> None:
        """Every row of a person has been searched for."""
        tops = [max((one.score for one in _found(looked)), default=0.0) for looked in person]
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
                f"After {len(self._tops):,} searches it is not known which score a photo gets for "
                f"its own face; the highest was {best:g}. Nothing was adopted. Name the least "
                "score that is to count with --score."
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
                "of the same people. Nothing more is adopted. Name the least score that is to "
                "count with --score, and a new ledger with --ledger."
            )

    # What is decided and recorded

    def _decide(self, person: Sequence[Looked]) -> None:
        user_id = person[0].row.user_id
        known = self._ledger.faces_of([user_id])[user_id]
        there = {face.face_token: face for face in self._listing.faces_of(user_id)}
        claiming: dict[bytes, list[Searched]] = {}
        bases: dict[bytes, FaceRecord | None] = {}
        for looked in person:
            if isinstance(looked, Unsearched):
                self._ends(looked.row, Outcome.UNUSABLE, looked.fault.message)
                continue
            step = first_step(known, looked.photo, policy=Policy(), run=self._work.run)
            if isinstance(step, Settled) and step.face.status is Status.ENROLLED:
                self._known(looked, step.face, known)
            elif isinstance(step, Hold) or (isinstance(step, Settled) and step.face.open):
                self._ends(looked.row, Outcome.IN_DOUBT, "")
            elif (trouble := _trouble(looked)) is not None:
                self._ends(looked.row, Outcome.FAILED, trouble)
            else:
                claiming.setdefault(looked.content, []).append(looked)
                bases[looked.content] = step.face
        if claiming:
            self._settle(claiming, bases, there)
        self._uncommitted += 1
        if self._uncommitted >= PEOPLE_A_COMMIT:
            self._ledger.commit()
            self._uncommitted = 0

    def _settle(
        self,
        claiming: dict[bytes, list[Searched]],
        bases: dict[bytes, FaceRecord | None],
        there: dict[str, LibraryFace],
    ) -> None:
        """Give a person's photos their faces."""
        own = self._adoption.own
        claims = [
            Claim(content=content, line=rows[0].row.line, findings=self._findings(rows[0], there))
            for content, rows in claiming.items()
        ]
        decisions = {} if own is None else decide(claims, own)
        for content, rows in claiming.items():
            decision = decisions.get(content, Decision(outcome=Outcome.NO_SCORE))
            if decision.outcome is Outcome.ADOPTED:
                face = self._books.adopt(
                    rows, decision, bases[content], there.get(decision.face_token)
                )
                self._adoption.surplus += len(decision.surplus)
                for searched in rows:
                    self._books.point(searched, face)
            self._adoption.outcomes[decision.outcome] += len(rows)
            for searched in rows:
                self._remarks.row(searched.row, decision, "")

    def _findings(self, looked: Searched, there: dict[str, LibraryFace]) -> Findings:
        """What a search has shown of the row's person, but for what the ledger knows."""
        found = _found(looked)
        ours = [one for one in found if one.user_id == looked.row.user_id]
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
            self._books.restore(face)
        self._books.point(searched, face)
        self._ends(searched.row, Outcome.KNOWN, "")

    def _ends(self, row: ScannedRow, outcome: Outcome, detail: str) -> None:
        self._adoption.outcomes[outcome] += 1
        self._remarks.row(row, Decision(outcome=outcome), detail)


def _found(looked: Looked) -> list[FoundFace]:
    """The faces that a search has shown; none where it has shown nothing reliable."""
    return (found_faces(looked.answer) if isinstance(looked, Searched) else None) or []


def _trouble(looked: Searched) -> str | None:
    """Why a search proves nothing; None where it does."""
    if found_faces(looked.answer) is not None:
        return None
    return looked.answer.code or OwnCode.FIELD_MISSING.value


def _add_time(one: FoundFace, there: dict[str, LibraryFace]) -> int | None:
    face = there.get(one.face_token)
    return one.add_time if face is None else face.add_time
