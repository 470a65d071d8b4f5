"""Which people look alike, by the scores of a search. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import combinations

from enroll.facesearch import FoundFace
from enroll.ledger import Finding, FindingKind, Pair
from enroll.model import FaceRecord, Fault, Status
from enroll.session.library_faces import SCORE_SLACK
from enroll.settings import LOOKALIKE_SCORE
from enroll.text.wording import amount
from enroll.visible import visible

STRANGERS: Mapping[int, int] = {75: 1_000, 80: 10_000, 85: 100_000, 90: 1_000_000}
"""Scores, each with the number of comparisons with strangers of which one reaches it, in a library
of up to 100,000 faces: the thresholds that the service's documentation recommends."""

LOOKALIKE = "LOOKALIKE"
"""The code of a photo that is held because it looks like another person."""

UNLIKE_BEFORE = "UNLIKE_BEFORE"
"""The code of a person's new photo that is held because it looks like another person, and not like
the person's present face."""

SAME_SCORE = 75.0
"""The score from which a new photo may show the same person as the face that it replaces: the
lowest threshold that the service recommends. One of 1,000 strangers reaches it, one of ten 60."""

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
    if any(face.face_token in own and face.score >= SAME_SCORE for face in found):
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


def in_audit(
    found: Sequence[FoundFace],
    face: FaceRecord,
    own: Collection[str],
    *,
    score: float,
    unlike: float,
    cut_at: float | None,
) -> list[Finding]:
    """What a search with the photo of a face in the library says is wrong.

    `own` are the tokens of the person's other faces. `cut_at` is the answer's lowest score if it
    had no room for more faces, so that nothing is known of those that score less; else None.
    """
    shown = {one.face_token: one for one in found}
    unseen = cut_at or 0.0  # what is not shown scores no more
    findings = [
        _finding(FindingKind.LOOKALIKE, one)
        for one in found
        if one.user_id != face.user_id and one.score >= score
    ]
    findings += [
        _finding(FindingKind.UNLIKE, shown[token])
        if token in shown
        else _absent(FindingKind.UNLIKE, token, face.user_id)
        for token in own
        if (shown[token].score if token in shown else unseen) < unlike
    ]
    first = max(found, key=lambda one: one.score, default=None)
    if first is None:
        findings.append(_absent(FindingKind.NOT_ITSELF, "", ""))
    else:
        itself = shown.get(face.face_token or "")
        if (unseen if itself is None else itself.score) < first.score - SCORE_SLACK:
            findings.append(_finding(FindingKind.NOT_ITSELF, first))
    return findings


def _absent(kind: FindingKind, token: str, user_id: str) -> Finding:
    return Finding(kind=kind, other_token=token, other_user_id=user_id, score=None)


def _finding(kind: FindingKind, other: FoundFace) -> Finding:
    return Finding(
        kind=kind,
        other_token=other.face_token,
        other_user_id=other.user_id,
        score=other.score,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What findings say together: between which two people photos are `swapped`, and which photos
    are `misplaced`, each once, as the pair whose first face is that photo and whose second is the
    most similar one of the person that it probably shows."""

    swapped: Sequence[tuple[str, str]]
    misplaced: Sequence[Pair]


def explained(pairs: Iterable[Pair]) -> Explained:
    """What can be distinguished because people have several photos. Where a photo looks like just
    one of another person's, it cannot be known which of the two is wrong."""
    alike: dict[tuple[str, str], list[Pair]] = {}
    unlike: dict[str, set[str]] = {}
    for pair in pairs:
        one, other = pair.face_token, pair.finding.other_token
        if pair.finding.kind is FindingKind.LOOKALIKE and pair.status is not Status.HELD:
            ordered = pair if pair.user_id < pair.finding.other_user_id else _turned(pair)
            people = ordered.user_id, ordered.finding.other_user_id
            alike.setdefault(people, []).append(ordered)
        elif pair.finding.kind is FindingKind.UNLIKE:
            unlike.setdefault(one, set()).add(other)
            unlike.setdefault(other, set()).add(one)
    swapped: list[tuple[str, str]] = []
    misplaced: dict[str, Pair] = {}
    for people, found in alike.items():
        # Nothing can be said of photos that are not unlike others of their person.
        those = [one for one in found if {one.face_token, one.finding.other_token} & unlike.keys()]
        if any(_crossed(one, another, unlike) for one, another in combinations(those, 2)):
            swapped.append(people)
            continue
        odd = [turned for pair in those for turned in _odd(pair, unlike)]
        # Of two photos that are unlike each other, one is right: it cannot be told which.
        if any(
            another.face_token in unlike[one.face_token] for one, another in combinations(odd, 2)
        ):
            continue
        for pair in odd:
            if _looks_like_several(pair, odd):
                known = misplaced.setdefault(pair.face_token, pair)
                if (pair.finding.score or 0.0) > (known.finding.score or 0.0):
                    misplaced[pair.face_token] = pair
    return Explained(swapped=swapped, misplaced=list(misplaced.values()))


def _looks_like_several(odd: Pair, pairs: Sequence[Pair]) -> bool:
    """Whether its first photo looks like at least two photos of the other person, which are not
    unlike others. A copy of a face is no second photo."""
    same = (pair for pair in pairs if pair.face_token == odd.face_token)
    return len({pair.other_image or pair.finding.other_token for pair in same}) > 1


def _crossed(one: Pair, another: Pair, unlike: Mapping[str, Set[str]]) -> bool:
    """Whether two photos of one person look like two of another, and those of one of them do not
    look like each other: then each has photos of both. The others' may still be alike enough, as
    some strangers are."""
    own = one.face_token, another.face_token
    theirs = one.finding.other_token, another.finding.other_token
    differ = own[0] != own[1] and theirs[0] != theirs[1]
    return differ and any(two in unlike.get(first, ()) for first, two in (own, theirs))


def _odd(pair: Pair, unlike: Mapping[str, Set[str]]) -> list[Pair]:
    """The pair, if just one of its photos is unlike the others of its person: that one first."""
    odd = pair.face_token in unlike, pair.finding.other_token in unlike
    if odd[0] is odd[1]:
        return []
    return [pair if odd[0] else _turned(pair)]


def _turned(pair: Pair) -> Pair:
    """The same from the other face's side."""
    finding = pair.finding
    return replace(
        pair,
        finding=replace(finding, other_token=pair.face_token, other_user_id=pair.user_id),
        user_id=finding.other_user_id,
        user_data=pair.other_user_data,
        image=pair.other_image,
        face_token=finding.other_token,
        other_user_data=pair.user_data,
        other_image=pair.image,
        status=pair.other_status or pair.status,
        other_status=pair.status,
    )
