"""Finds what a library holds of certain people, whether or not its ledger knows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from enroll import clock
from enroll.errors import ServiceError
from enroll.expiry import absent_from
from enroll.facesearch import FoundFace
from enroll.ledger import Ledger, Listing
from enroll.model import Answer, FaceRecord
from enroll.session.caller import Caller
from enroll.session.library_faces import (
    NO_FACE_FOUND,
    SCORE_SLACK,
    ListedLibrary,
    PhotoSearch,
    cut_at,
    found_faces,
    read_library,
)


@dataclass(slots=True, kw_only=True)
class PeopleFaces:
    """The faces found of some people. `unknown` has, by `user_id`, the tokens of faces that the
    ledger does not record as theirs. `unsettled` has the people who may have more faces, with the
    reason. `because` says why the library could not be listed to its end; empty if it was."""

    unknown: dict[str, list[str]] = field(default_factory=dict)
    unsettled: dict[str, str] = field(default_factory=dict)
    because: str = ""


class PeopleSearch:
    """Finds people's faces: lists the library and, if that does not show all of it, searches with
    the photos of faces in doubt."""

    def __init__(
        self,
        caller: Caller,
        ledger: Ledger,
        listing: Listing,
        photo_search: PhotoSearch,
        *,
        settle_after: float,
        on_progress: Callable[[int], None],
    ) -> None:
        """A call may still be applied for `settle_after` seconds after its signature expires;
        `on_progress` is called with the number of faces that the library has shown so far."""
        self._caller = caller
        self._ledger = ledger
        self._listing = listing
        self._photo_search = photo_search
        self._settle_after = settle_after
        self._on_progress = on_progress

    def find(self, people: Sequence[str]) -> PeopleFaces:
        """Find all the faces of these people that can be found, and the people who may have
        more."""
        theirs = PeopleFaces()
        began = clock.now_ms()
        try:
            listed = read_library(
                self._caller,
                self._listing,
                on_progress=self._on_progress,
            )
        except ServiceError as error:
            listed = ListedLibrary(faces=0, began=began, because=str(error))
        theirs.because = listed.because
        known = self._ledger.faces_of(people)
        for user_id, faces in known.items():
            shown = [one.face_token for one in self._listing.faces_of(user_id)]
            self._add_unknown(theirs, user_id, faces, shown)
            if (left := self._seconds_left(faces, listed.began)) > 0:
                theirs.unsettled[user_id] = (
                    f"a call for a face of theirs may still be applied for {left:,} s"
                )
        if not listed.whole:
            self._search(theirs, known)
        return theirs

    def _add_unknown(
        self, theirs: PeopleFaces, user_id: str, faces: Sequence[FaceRecord], tokens: Sequence[str]
    ) -> None:
        """Take those of the tokens that the ledger does not have as this person's."""
        own = {face.face_id for face in faces}
        holders = self._ledger.holders_of(tokens)
        new = [token for token in tokens if holders.get(token) not in own]
        if new:
            there = theirs.unknown.setdefault(user_id, [])
            there += [token for token in new if token not in there]

    def _seconds_left(self, faces: Sequence[FaceRecord], began: int) -> int:
        """For how long the library may not show yet what a call in doubt has added: as long as a
        run waits before a second look without a result counts."""
        expires = max((face.expires or 0.0 for face in faces if face.open), default=None)
        shown_from = absent_from(expires, settle_after=self._settle_after, lag=self._ledger.lag)
        return math.ceil(shown_from - began / 1000 - self._caller.connection.service.clock.least)

    # Where the library cannot be listed

    def _search(self, theirs: PeopleFaces, known: Mapping[str, Sequence[FaceRecord]]) -> None:
        doubts = [face for faces in known.values() for face in faces if face.open or face.recheck]
        left = {face.face_id: face for face in doubts}
        try:
            own = self._photo_search.own_score(self._caller, self._ledger) if doubts else None
            paths = self._ledger.paths_of(list(left))
            for face, answer in self._photo_search.each(self._caller, doubts, paths):
                del left[face.face_id]
                found = found_faces(answer)
                tokens = [one.face_token for one in found or () if one.user_id == face.user_id]
                self._add_unknown(theirs, face.user_id, known[face.user_id], tokens)
                if because := _left_open(answer, found, own):
                    theirs.unsettled.setdefault(face.user_id, because)
        except ServiceError as error:  # an account may have no right to search
            for face in left.values():
                because = f"the library can neither be listed nor searched: {error}"
                theirs.unsettled.setdefault(face.user_id, because)


def _left_open(answer: Answer | None, found: Sequence[FoundFace] | None, own: float | None) -> str:
    """Why a search does not prove whether the library holds a face; empty if it does."""
    if answer is None:
        return "the library cannot be listed, and the photo to search with is gone"
    if answer.code == NO_FACE_FOUND:
        return ""
    if found is None:
        return f"the library cannot be listed, and the search failed: {answer.code}"
    if own is None:
        return "the library cannot be listed, and there is no known face to compare with"
    least = cut_at(found)
    if least is not None and least >= own - SCORE_SLACK:
        return "the library cannot be listed, and too many faces match the photo as well"
    return ""
