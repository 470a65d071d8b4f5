"""Searching a library with photos: the request, what it shows, and the score of own faces.

The loop, `adopt`, `forget` and `verify` search through this module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enroll.errors import ServiceError
from enroll.facesearch import Call, FaceSearch, FoundFace, candidates
from enroll.ledger import Ledger
from enroll.model import Answer, CallKind, FaceRecord, Photo, SendAs, same_face
from enroll.photos import PhotoStore, read_photo
from enroll.session.caller import Caller
from enroll.settings import SEARCH_PREPARATION, Preparation

SEARCH_LIMIT = 100
"""How many results to request from `search`: its maximum."""

SEARCH_THRESHOLD = 50.0
"""The score below which `search` need not return results. The service recommends 75 or more to
tell people apart; a photo's own face scores far higher."""

SCORE_SLACK = 0.1
"""How far a photo's score for its own face may be below another photo's: room for rounding, and
much less than the difference between two photos of the same person."""

CALIBRATION_FACES = 5
"""How many enrolled faces are searched for to learn the score of own faces, newest first."""

NO_FACE_FOUND = "NO_FACE_FOUND"
"""What `search` answers for a photo in which the service sees no face: it cannot have added one."""


@dataclass(frozen=True, slots=True)
class SeenFace:
    """A face of the library that a look has shown; `score` is None where it came from `list`."""

    face_token: str
    add_time: int | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Findings:
    """What one look has shown: the person's faces that the ledger does not know.

    `cut_at` is the score of the last result if there may be more results after it, else None. `at`
    is when the look was made, or 0 if nothing may be concluded from a face that it does not show.
    `own` is whether it shows the face's own token, None if the face has none.
    """

    unknown_faces: tuple[SeenFace, ...]
    cut_at: float | None = None
    at: float = 0.0
    own: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSearch:
    """How a library is searched; `preparation` is how photos are read for it."""

    group_id: str
    store: PhotoStore
    send_as: SendAs
    preparation: Preparation = SEARCH_PREPARATION

    def read(self, face: FaceRecord, paths: Sequence[str]) -> Photo | None:
        """A face's photo from the first of the paths that still has it, even with different
        metadata; None if no file has its content."""
        for path in paths:
            photo = read_photo(path, self.store, self.preparation)
            if isinstance(photo, Photo) and same_face([face], photo) is not None:
                return photo
        return None

    def search(
        self, service: FaceSearch, photo: Photo, *, multi_oriented_detection: bool
    ) -> Answer:
        """Make one call for the faces most like a photo's, as many as there are to be had."""
        call = Call.search(
            group_id=self.group_id,
            send_as=self.send_as,
            limit=SEARCH_LIMIT,
            threshold=SEARCH_THRESHOLD,
            multi_oriented_detection=multi_oriented_detection,
        )
        return service.make(call, photo)

    def each(
        self, caller: Caller, faces: Iterable[FaceRecord], paths: Mapping[int, Sequence[str]]
    ) -> Iterator[tuple[FaceRecord, Answer | None]]:
        """Search with the photo of each face, which lies at one of its `paths` (by number); None
        where the photo is gone. Raises ServiceError as `Caller.each`."""

        def search(service: FaceSearch, face: FaceRecord) -> Answer | None:
            photo = self.read(face, paths[face.face_id])
            if photo is None:
                return None
            return self.search(
                service, photo, multi_oriented_detection=face.multi_oriented_detection
            )

        yield from caller.each(CallKind.SEARCH, faces, search, answer_of=lambda answer: answer)

    def own_score(self, caller: Caller, ledger: Ledger) -> float | None:
        """The score that a photo gets for its own face, learned from a face whose token the ledger
        knows; None if no search shows it. Raises ServiceError like `Caller.each`."""
        known = ledger.newest_enrolled(CALIBRATION_FACES)
        paths = ledger.paths_of([face.face_id for face in known])
        for one in known:  # one after the other: the first is usually enough
            for face, answer in self.each(caller, [one], paths):
                score = score_of(face, found_faces(answer) or [])
                if score is not None:
                    return score
        return None


def found_faces(answer: Answer | None) -> list[FoundFace] | None:
    """The faces that a search has shown, best first; None where it has shown nothing reliable."""
    if answer is None:
        return None
    if answer.code == NO_FACE_FOUND:
        return []
    try:
        return candidates(answer)
    except ServiceError:
        return None


def score_of(face: FaceRecord, found: Iterable[FoundFace]) -> float | None:
    """The score of the face itself among the faces found; None if it is not there."""
    return next((one.score for one in found if one.face_token == face.face_token), None)


def cut_at(found: Collection[FoundFace]) -> float | None:
    """The lowest score if `search` returned as many faces as it can, so there may be more; else
    None."""
    return min(one.score for one in found) if len(found) >= SEARCH_LIMIT else None
