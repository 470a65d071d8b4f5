"""Decides from searches which of a library's faces belong to which photos of a person. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from enroll.session.library_faces import SCORE_SLACK, Findings, SeenFace

HIGHEST_SCORE = 100.0
"""The highest score of `search`: a face with this score is the photo's own."""

LEAST_OWN_SCORE = 90.0
"""The lowest score that may be learned as that of own faces: the service recommends 90 to tell
people apart with the fewest mistakes."""

AGREEING = 3
"""People whose photos must reach the same highest score before it counts as that of own faces."""

SAMPLE = 20
"""How many searches, if there are that many, precede trust in that score."""


class Outcome(StrEnum):
    """The outcome of a row of the manifest in an adoption."""

    ADOPTED = "adopted"
    """The library holds its face, and the ledger now has the token."""
    KNOWN = "known"
    """The ledger had its face already."""
    NOT_FOUND = "not_found"
    """The library holds faces of this person, but not this photo's."""
    CONTESTED = "contested"
    """The faces that may be this photo's were given to other photos, which look the same."""
    UNCLEAR = "unclear"
    """More faces match this photo as well as its own than a search returns."""
    IN_DOUBT = "in_doubt"
    """A face of this person is in doubt; a run settles it."""
    NO_SCORE = "no_score"
    """The score that a photo gets for its own face could not be learned."""
    UNUSABLE = "unusable"
    """There is no photo to search with."""
    FAILED = "failed"
    """The search failed."""


@dataclass(frozen=True, slots=True)
class OwnScore:
    """The score that a photo gets for its own face: about `score`, or, if a person has set it,
    `score` and above."""

    score: float
    set_by_hand: bool = False

    def fits(self, score: float) -> bool:
        """Whether a face with this score is the photo's own."""
        return score >= self.score - SCORE_SLACK and not self.refuted_by(score)

    def refuted_by(self, score: float) -> bool:
        """Whether this score shows that what counted as own faces were others."""
        return not self.set_by_hand and score > self.score + SCORE_SLACK


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedPhoto:
    """A photo of a person: what is sent, the manifest's line, and the person's faces that a search
    found and the ledger does not know."""

    content: bytes
    line: int
    findings: Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a photo is given: if ADOPTED a token, and further copies of its face.

    `score` is the best of the person's faces. `alike` says that another photo of the person could
    have had the same token.
    """

    outcome: Outcome
    face_token: str = ""
    surplus: tuple[str, ...] = ()
    score: float = 0.0
    alike: bool = False


def learn_own_score(tops: Sequence[tuple[str, float]], *, all_asked: bool) -> OwnScore | None:
    """The score of own faces, from the highest score of each search so far; None if unknown.

    `tops` has the searched person's `user_id` with each score; `all_asked` says that no search will
    follow. A photo whose own face is not in the library scores lower, by a different amount for
    each photo: so the highest score is that of own faces if several people share it.
    """
    best = max((score for _, score in tops), default=0.0)
    if best >= HIGHEST_SCORE - SCORE_SLACK:
        return OwnScore(best)
    if best < LEAST_OWN_SCORE or (len(tops) < SAMPLE and not all_asked):
        return None
    sharing = {user_id for user_id, score in tops if score >= best - SCORE_SLACK}
    return OwnScore(best) if len(sharing) >= AGREEING else None


def decide(photos: Sequence[SearchedPhoto], own: OwnScore) -> dict[bytes, Decision]:
    """What each photo of one person is given, by its content.

    A face goes to one photo only, the oldest first. If several photos look the same to the service,
    those with the fewest candidates choose first, then those that come first in the manifest.
    """
    fitting = {photo.content: _fitting(photo.findings, own) for photo in photos}
    photos = sorted(photos, key=lambda photo: (len(fitting[photo.content]), photo.line))
    wanted = Counter(seen.face_token for found in fitting.values() for seen in found)
    taken: set[str] = set()
    given: dict[bytes, str] = {}
    for photo in photos:
        free = [one.face_token for one in fitting[photo.content] if one.face_token not in taken]
        if free:
            given[photo.content] = free[0]
            taken.add(free[0])
    decisions = {}
    for photo in photos:
        found = fitting[photo.content]
        copies = tuple(one.face_token for one in found if one.face_token not in taken)
        token = given.get(photo.content)
        if token is not None:
            taken.update(copies)  # a copy is recorded once
        decisions[photo.content] = Decision(
            outcome=_outcome(photo.findings, found, token, own),
            face_token=token or "",
            surplus=copies if token is not None else (),
            score=max((one.score or 0.0 for one in photo.findings.unknown_faces), default=0.0),
            alike=any(wanted[one.face_token] > 1 for one in found),
        )
    return decisions


def _fitting(findings: Findings, own: OwnScore) -> list[SeenFace]:
    """The faces that may be the photo's own, oldest first."""
    found = [one for one in findings.unknown_faces if one.score is not None and own.fits(one.score)]
    return sorted(found, key=lambda one: (one.add_time is None, one.add_time or 0, one.face_token))


def _outcome(
    findings: Findings, found: Sequence[SeenFace], token: str | None, own: OwnScore
) -> Outcome:
    if token is not None:
        return Outcome.ADOPTED
    if found:
        return Outcome.CONTESTED
    if findings.cut_at is not None and findings.cut_at >= own.score - SCORE_SLACK:
        return Outcome.UNCLEAR
    return Outcome.NOT_FOUND
