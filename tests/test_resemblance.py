"""Who looks like whom, judged by the scores of a search: rules without I/O."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enroll.facesearch import FoundFace
from enroll.ledger import Finding, FindingKind, Pair
from enroll.model import FaceRecord, Status
from enroll.session.resemblance import before_adding, explained, in_audit

OWN = FaceRecord(face_id=1, user_id="a", sha256=b"1" * 32, status=Status.ENROLLED, face_token="a1")


def face(token: str, score: float) -> FoundFace:
    return FoundFace(face_token=token, user_id=token[0], user_data="", score=score)


def judged(
    *found: FoundFace, own: tuple[str, ...] = (), full: bool = False
) -> list[tuple[str, str, float | None]]:
    cut_at = min(one.score for one in found) if full else None
    findings = in_audit(found, OWN, own, score=85.0, unlike=60.0, cut_at=cut_at)
    return [(one.kind.value, one.other_token, one.score) for one in findings]


@pytest.mark.parametrize(
    ("found", "own", "full", "findings"),
    [
        ([("a1", 100), ("b1", 84.9)], (), False, []),
        (
            [("a1", 100), ("b1", 85), ("c1", 90)],
            (),
            False,
            [("lookalike", "b1", 85), ("lookalike", "c1", 90)],
        ),
        ([("a1", 100), ("a2", 60)], ("a2",), False, []),
        ([("a1", 100), ("a2", 59.9)], ("a2",), False, [("unlike", "a2", 59.9)]),
        ([("a1", 100)], ("a2",), False, [("unlike", "a2", None)]),
        # The answer had room for no more: nothing is known of a face below its last score.
        ([("a1", 100), ("b1", 60)], ("a2",), True, []),
        ([("a1", 100), ("b1", 59)], ("a2",), True, [("unlike", "a2", None)]),
        ([("b1", 99), ("c1", 99)], (), True, [("lookalike", "b1", 99), ("lookalike", "c1", 99)]),
        ([("b1", 80), ("c1", 79)], (), True, [("not_itself", "b1", 80)]),
        # Equal scores are no finding, and neither is what rounding does to them.
        ([("b1", 70), ("a1", 70)], (), False, []),
        ([("b1", 70.05), ("a1", 70)], (), False, []),
        ([("b1", 71), ("a1", 70)], (), False, [("not_itself", "b1", 71)]),
        ([("b1", 70)], (), False, [("not_itself", "b1", 70)]),
        ([], (), False, [("not_itself", "", None)]),
    ],
)
def test_an_answer_is_judged_by_the_scores_of_own_and_other_faces(
    found: list[tuple[str, float]],
    own: tuple[str, ...],
    full: bool,
    findings: list[tuple[str, str, float | None]],
) -> None:
    assert judged(*(face(*one) for one in found), own=own, full=full) == findings


@pytest.mark.parametrize(
    ("found", "own", "held_by"),
    [
        ([("b1", 85)], (), "lookalike"),
        ([("b1", 84.9)], (), None),
        ([("b1", 95)], ("a1",), "unlike_before"),
        ([("b1", 95), ("a1", 74.9)], ("a1",), "unlike_before"),
        ([("b1", 95), ("a1", 75)], ("a1",), None),
        ([("b1", 84.9), ("a1", 10)], ("a1",), None),
    ],
)
def test_a_new_photo_is_held_for_another_person_that_it_looks_like(
    found: list[tuple[str, float]], own: tuple[str, ...], held_by: str | None
) -> None:
    findings = before_adding([face(*one) for one in found], "a", own, accepted=frozenset())
    assert [one.kind.value for one in findings] == ([held_by] if held_by else [])


def finding(other: str, score: float, kind: FindingKind = FindingKind.LOOKALIKE) -> Finding:
    return Finding(kind=kind, other_token=other, other_user_id=other[0], score=score)


def pair(kind: FindingKind, token: str, other: str, **more: Status) -> Pair:
    return Pair(
        finding=finding(other, 90.0, kind),
        user_id=token[0],
        user_data="",
        image=f"{token}.jpg",
        status=more.get("status", Status.ENROLLED),
        face_token=token,
        other_user_data="",
        other_image=f"{other}.jpg",
        at=1,
        run=1,
    )


ALIKE, UNLIKE = FindingKind.LOOKALIKE, FindingKind.UNLIKE


def test_crossed_likenesses_of_unlike_photos_are_swapped_photos() -> None:
    crossed = [pair(ALIKE, "a1", "b2"), pair(ALIKE, "b1", "a2")]
    both = [pair(UNLIKE, "a1", "a2"), pair(UNLIKE, "b2", "b1")]
    assert explained([*crossed, *both]).swapped == [("a", "b")]
    # By chance b's photos are alike enough; they are still of two people, as a's are.
    assert explained([*crossed, both[0]]).swapped == [("a", "b")]
    assert explained(crossed).swapped == []  # one person under two ids


def test_a_photo_unlike_its_own_people_and_like_several_of_another_is_misplaced() -> None:
    apart = pair(UNLIKE, "b2", "b1")
    likest = replace(pair(ALIKE, "b2", "a3"), finding=finding("a3", 99.0))
    others = [pair(ALIKE, "a1", "b2"), pair(ALIKE, "b2", "c1"), pair(ALIKE, "b2", "c2")]
    found = explained([apart, *others, likest])
    (misplaced,) = found.misplaced  # once, though it looks like four photos of two people
    assert (misplaced.user_id, misplaced.face_token, misplaced.image) == ("b", "b2", "b2.jpg")
    assert (misplaced.finding.other_user_id, misplaced.other_image) == ("a", "a3.jpg")
    assert found.swapped == []


def test_which_photo_is_wrong_is_not_said_where_it_cannot_be_known() -> None:
    apart, alike = pair(UNLIKE, "b2", "b1"), [pair(ALIKE, "a1", "b2"), pair(ALIKE, "a2", "b2")]
    copy = replace(alike[1], image=alike[0].image)
    for found in (
        alike,
        [apart, alike[0]],  # one photo agrees with nothing: it may be the one that is wrong
        [apart, alike[0], copy],
        [apart, *alike, pair(UNLIKE, "a1", "a2")],
        # Both of b's photos look like a's.
        [apart, *alike, pair(ALIKE, "a1", "b1"), pair(ALIKE, "a2", "b1")],
    ):
        assert explained(found).misplaced == []
