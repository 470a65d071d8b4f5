"""Who looks like whom, by the scores of a search. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set

from enroll.facesearch import FoundFace
from enroll.ledger import Finding, FindingKind
from enroll.model import Fault
from enroll.text.wording import amount
from enroll.visible import visible

LOOKALIKE_SCORE = 85.0
"""The score from which a face of another person is taken for the same person: by the service's
documentation one false acceptance in 100,000 comparisons in a library of up to 100,000 faces, and
one in 10,000 in a larger one."""

UNLIKE_SCORE = 60.0
"""The score below which two photos of one person do not resemble each other. The lowest threshold
that the service recommends, 75, still lets one of 1,000 strangers pass."""

STRANGERS: Mapping[int, int] = {75: 1_000, 80: 10_000, 85: 100_000, 90: 1_000_000}
"""Scores that one in so many comparisons with a stranger reaches in a library of up to 100,000
faces: the thresholds that the service's documentation recommends."""

LOOKALIKE = "LOOKALIKE"
"""The code of a photo that is held because it looks like another person."""

UNLIKE_BEFORE = "UNLIKE_BEFORE"
"""The code of a person's new photo that is held because it looks like another person, and not like
the person's present face."""

Accepted = Set[tuple[str, str]]
"""Pairs of people who may look alike, each in the order of their ids."""


NOT_COMPARED = "SEARCH_FAILED"
"""The code of a face that could not be compared with those of the library."""

SWAPPED = " That person's new photo looks like this one's present face: they were probably swapped."
"""What follows in the message of both where two people are held for each other's faces."""


def why_held(found: Sequence[Finding]) -> Fault:
    """What to say of a photo that `before_adding` objects to."""
    best, more = found[0], len(found) - 1
    others = f" and {amount(more, 'other person', 'other people')}" if more else ""
    looks = f"The photo looks like {visible(best.other_user_id)} (score {best.score:.1f}){others}"
    if best.kind is FindingKind.UNLIKE_BEFORE:
        return Fault(
            code=UNLIKE_BEFORE, message=f"{looks}, and not like this person's present face."
        )
    return Fault(code=LOOKALIKE, message=f"{looks}.")


def lookalikes(
    found: Sequence[FoundFace], user_id: str, *, score: float, accepted: Accepted
) -> list[FoundFace]:
    """The faces of other people that score at least `score`, best first, one a person."""
    best: dict[str, FoundFace] = {}
    for face in found:
        pair = min(user_id, face.user_id), max(user_id, face.user_id)
        if face.user_id != user_id and face.score >= score and pair not in accepted:
            best.setdefault(face.user_id, face)
    return list(best.values())


def before_adding(
    found: Sequence[FoundFace], user_id: str, own: Collection[str], *, accepted: Accepted
) -> list[Finding]:
    """Why a photo that is to be added may show another person; empty where nothing speaks for it.

    `own` are the tokens of the person's faces in the library. A person who has none must resemble
    nobody; the others' new photo may, as long as it also resembles one of their own faces.
    """
    others = lookalikes(found, user_id, score=LOOKALIKE_SCORE, accepted=accepted)
    if any(face.face_token in own and face.score >= UNLIKE_SCORE for face in found):
        return []
    kind = FindingKind.UNLIKE_BEFORE if own else FindingKind.LOOKALIKE
    return [
        Finding(
            kind=kind,
            other_token=face.face_token,
            other_user_id=face.user_id,
            score=face.score,
        )
        for face in others
    ]
