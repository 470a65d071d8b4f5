"""Searches the library with the photos of an audit, and records what is wrong with each face."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from enroll import clock
from enroll.errors import LocalError
from enroll.facesearch import FoundFace
from enroll.facesearch.answers import OwnCode
from enroll.ledger import Changes, Ledger, Searched
from enroll.manifest.embedded import EMBEDDED_ROOT
from enroll.model import Answer, FaceRecord, Status, Verdict
from enroll.photos import AllPhotos, reconnect
from enroll.runner.health import Breaker
from enroll.session.account import AWAY
from enroll.session.caller import Caller
from enroll.session.library_faces import PhotoSearch, cut_at, found_faces, look_up
from enroll.session.resemblance import in_audit
from enroll.session.session import CommandRecord, Prompt
from enroll.text.wording import amount, duration

FACES_A_COMMIT = 50
"""Faces per commit; what a kill loses is searched for again."""

NEW_SECONDS = 600.0
"""How long the service may not show a new face in a search, unless it shows a newer one. A face
that is older, and not shown, is not there."""

LATELY_ADDED = 1000
"""Faces among which the one is looked for that was added last: more than are added at a time."""

MISSING_RUNNING = 20
"""Photos in a row that cannot be read, after which it is asked whether their folder is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """A face whose search is in flight: the person's other enrolled faces, and when the newest face
    was added (UNIX ms) that the service is known to show by then."""

    others: Sequence[FaceRecord]
    shown_until: int

    def having_shown(self, faces: Iterable[FaceRecord]) -> _Sent:
        """The same once the answer has shown these faces: older ones are to be seen as well."""
        newest = max((face.enrolled_at or 0 for face in faces), default=0)
        return replace(self, shown_until=max(self.shown_until, newest))

    def shows(self, face: FaceRecord) -> bool:
        """Whether a face would have been shown that is like the one in the photo."""
        return (face.enrolled_at or 0) <= self.shown_until or _is_old(face)


def _is_old(face: FaceRecord) -> bool:
    """Whether the service shows a face in any case, if it holds it."""
    return (face.enrolled_at or 0) < clock.now_ms() - NEW_SECONDS * 1000


@dataclass(slots=True, kw_only=True)
class AuditSearch:
    """One audit's searches, and what came of them.

    `settle` is how many seconds the service may take to show a new face, as far as that is known.
    `searched` counts faces that were judged; `photos_gone` those whose photo is not there any more,
    or has another content; `refused` those whose photo the service does not search with, by code;
    `too_new` those that are not shown yet. Of `uncompared` ones it is not known whether they are
    unlike another of their person, because all faces of a full answer scored more than `unlike`;
    `cut_at` is the highest last score of these answers that is below `score`.
    """

    caller: Caller
    ledger: Ledger
    work: CommandRecord
    photos: AllPhotos
    photo_search: PhotoSearch
    score: float
    unlike: float
    settle: float
    prompt: Prompt
    chosen: int = 0
    searched: int = 0
    photos_gone: int = 0
    too_new: int = 0
    uncompared: int = 0
    cut_at: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    _sent: dict[int, _Sent] = field(default_factory=dict)
    _paths: dict[int, list[str]] = field(default_factory=dict)
    _put_off: list[FaceRecord] = field(default_factory=list)
    _unseen: dict[str, tuple[FaceRecord, _Sent, Sequence[FoundFace]]] = field(default_factory=dict)
    _shown_until: int = 0
    _missing: int = 0
    _breaker: Breaker = field(default_factory=Breaker)

    @property
    def left(self) -> int:
        """Chosen faces of which nothing has come yet."""
        done = self.searched + self.photos_gone + self.refused.total() + self.too_new
        return self.chosen - done

    def search(self, face_ids: Sequence[int]) -> None:
        """Search with the photo of each face, as long as calls may be made.

        Raises ServiceError where the service is away or always gives the same error, LocalError
        where the photos' folder is gone.
        """
        self.chosen = len(face_ids)
        first = self._newest(face_ids)
        self._search(first, last=False)  # by itself: what comes then knows what is shown
        self._search([face_id for face_id in face_ids if face_id not in first], last=False)
        new, self._put_off = self._put_off, []
        if new and self.caller.may_call():
            self._wait_for(new)
            self._search([face.face_id for face in new], last=True)
            self._look_up_unseen()
        else:
            self.too_new += len(new)

    def _newest(self, face_ids: Sequence[int]) -> Sequence[int]:
        """The face that was added last, if so lately that it may not be shown yet."""
        faces = self.ledger.findings.faces(face_ids[-LATELY_ADDED:])
        newest = max(faces, key=lambda face: face.enrolled_at or 0, default=None)
        return [] if newest is None or _is_old(newest) else [newest.face_id]

    def _search(self, face_ids: Sequence[int], *, last: bool) -> None:
        """`last` means that what is not shown now will not be searched for again."""
        answers = self.photo_search.each(self.caller, self._faces(face_ids), self._paths)
        try:
            for face, answer in answers:
                sent, paths = self._sent.pop(face.face_id), self._paths.pop(face.face_id)
                if answer is None:
                    self._no_photo(paths)
                elif (found := self._found(answer)) is not None:
                    self._judge(face, sent, found, last=last)
                if done := self.chosen - self.left:
                    self.prompt.progress(done, "faces searched for", of=self.chosen)
        finally:
            self.ledger.commit()

    def _faces(self, face_ids: Sequence[int]) -> Iterator[FaceRecord]:
        for start in range(0, len(face_ids), FACES_A_COMMIT):
            batch = face_ids[start : start + FACES_A_COMMIT]
            faces = self.ledger.findings.faces(batch)
            people = self.ledger.faces_of(face.user_id for face in faces)
            self._paths |= self.ledger.paths_of(batch)
            for face in faces:
                others = [
                    other
                    for other in people[face.user_id]
                    if other.face_id != face.face_id and other.status is Status.ENROLLED
                ]
                self._sent[face.face_id] = _Sent(others=others, shown_until=self._shown_until)
                yield face

    def _wait_for(self, new: Sequence[FaceRecord]) -> None:
        """Give the service time to show faces that were just added."""
        newest = max(face.enrolled_at or 0 for face in new)
        seconds = min(newest / 1000 + self.settle - clock.time(), self.settle)
        if seconds > 0:
            faces = amount(len(new), "new face")
            self.prompt.say(f"Waiting {duration(seconds)} for the service to show {faces}.")
            clock.sleep(seconds)

    # What came of one search

    def _no_photo(self, paths: Sequence[str]) -> None:
        self.photos_gone += 1
        self._missing += 1
        if self._missing % MISSING_RUNNING == 0 and paths and self.photos.is_lost(paths[0]):
            raise photos_gone(paths[0].rpartition("/")[0])

    def _found(self, answer: Answer) -> list[FoundFace] | None:
        """The faces found; None where the service has not searched. Raises ServiceError."""
        self._missing = 0
        if answer.verdict in AWAY and not self.caller.may_call():
            return None  # it would have been asked again
        found = found_faces(answer) if answer.verdict is Verdict.APPLIED else None
        if found is None and answer.verdict is Verdict.APPLIED:
            answer = replace(answer, verdict=Verdict.UNKNOWN, code=OwnCode.FIELD_MISSING)
        again = self._breaker.heard(answer, rejected=False, now=clock.monotonic())
        if again is not None or answer.verdict in (Verdict.NOT_SENT, Verdict.REFUSED):
            raise self.caller.connection.failed(answer)
        if found is None:
            self.refused[answer.code] += 1
        return found

    def _judge(
        self, face: FaceRecord, sent: _Sent, found: Sequence[FoundFace], *, last: bool
    ) -> None:
        shown = {one.face_token for one in found}
        unseen = [one for one in (face, *sent.others) if one.face_token not in shown]
        here = [one for one in (face, *sent.others) if one.face_token in shown]
        sent = sent.having_shown(here)
        self._shown_until = max(self._shown_until, sent.shown_until)
        new = [one for one in unseen if not sent.shows(one)]
        if new and not last:
            self._put_off.append(face)
        elif face in new:
            self._unseen[face.face_token or ""] = face, sent, found
        else:
            self._record(face, sent, found)

    def _record(self, face: FaceRecord, sent: _Sent, found: Sequence[FoundFace]) -> None:
        shown = {one.face_token for one in found}
        # The search with a face that is not shown yet is still to come, and judges the pair.
        own = [one for one in sent.others if one.face_token in shown or sent.shows(one)]
        cut = cut_at(found)
        if (
            cut is not None
            and cut >= self.unlike
            and any(one.face_token not in shown for one in own)
        ):
            self.uncompared += 1
            self.cut_at = max(self.cut_at, cut if cut < self.score else 0.0)
        findings = in_audit(
            found,
            face,
            [one.face_token for one in own if one.face_token],
            score=self.score,
            unlike=self.unlike,
            cut_at=cut,
        )
        searched = Searched(
            face_id=face.face_id,
            face_token=face.face_token,
            at=clock.now_ms(),
            run=self.work.run,
            findings=findings,
        )
        self.ledger.record(Changes(searched=[searched]))
        self.searched += 1
        if self.searched % FACES_A_COMMIT == 0:
            self.ledger.commit()

    def _look_up_unseen(self) -> None:
        """Ask whether the library holds the new faces that no search has shown: then the next audit
        searches for them."""
        unseen, self._unseen = self._unseen, {}
        self.too_new += len(unseen)
        for token, there in look_up(self.caller, unseen):
            if there is None:
                self.too_new -= 1
                self._record(*unseen[token])
        self.ledger.commit()


def photos_gone(root: str) -> LocalError:
    """The error for photos none of which can be read."""
    if root == EMBEDDED_ROOT:
        return LocalError(
            "An audit searches with the photos, and those of this ledger were in lists or in "
            "memory: there is no file to read. Give their rows as paths, and run again: nobody is "
            "added twice, and the next audit has photos to search with."
        )
    return LocalError(
        f"The photos' folder {root} is gone. {reconnect(root)}, then run the same command: "
        "what was searched is on record."
    )
