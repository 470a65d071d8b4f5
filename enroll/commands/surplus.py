"""Deletes copies of faces from a library: those on record as surplus, and those that are proved.

A stranger is proved to be a copy when it bears the face's `user_id`, when it was added in the
time of an attempt that was in doubt, and when a search with the face's photo gives it the score
of the face itself. Nothing else is ever deleted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enroll.expiry import APPLYING_SECONDS
from enroll.ledger import Changes, Ledger, Suspect
from enroll.model import EventKind
from enroll.session.caller import Caller
from enroll.session.deletions import DELETE_PAGE, delete_faces
from enroll.session.face_search import SCORE_SLACK, PhotoSearch, found_faces, score_of
from enroll.session.session import CommandRecord


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a face: its token, and the face's number."""

    face_token: str
    face_id: int


def in_time(suspects: Iterable[Suspect], *, clock_offset: float) -> list[Suspect]:
    """Those that were added while an attempt at the face was under way, or soon after.

    `clock_offset` is the service's clock minus ours, in seconds.
    """
    slack = APPLYING_SECONDS * 1000
    return [
        suspect
        for suspect in suspects
        if suspect.earliest - slack
        <= suspect.add_time - clock_offset * 1000
        <= suspect.latest + slack
    ]


def prove_copies(
    caller: Caller,
    photo_search: PhotoSearch,
    suspects: Sequence[Suspect],
    paths: Mapping[int, Sequence[str]],
) -> list[Copy]:
    """Those suspects that a search with the face's photo gives the score of the face itself.

    One search a face. `paths` tells for each face where its photo may lie.
    """
    faces = {suspect.face.face_id: suspect.face for suspect in suspects}
    strangers: dict[int, set[str]] = defaultdict(set)
    for suspect in suspects:
        strangers[suspect.face.face_id].add(suspect.face_token)
    # A search that fails proves nothing.
    searched = [
        (face, found_faces(answer) or [])
        for face, answer in photo_search.each(caller, faces.values(), paths)
    ]
    # A face's own score is that of a face whose token we know; it must not lie below what other
    # photos get for theirs, or the token may be another photo's.
    best = max((one.score for _, found in searched for one in found), default=0.0)
    copies: dict[str, Copy] = {}
    for face, found in searched:
        own = score_of(face, found)
        if own is None or own < best - SCORE_SLACK:
            continue
        for one in found:
            same = one.user_id == face.user_id and abs(one.score - own) <= SCORE_SLACK
            if same and one.face_token in strangers[face.face_id]:
                copies.setdefault(one.face_token, Copy(one.face_token, face.face_id))
    return list(copies.values())


def remove(
    copies: Sequence[Copy],
    *,
    caller: Caller,
    ledger: Ledger,
    work: CommandRecord,
    group_id: str,
) -> Iterator[list[str]]:
    """Delete copies from the library; the tokens of those that are gone, call by call.

    Each is in the ledger's history before the call and after it. Raises ServiceError where the
    service will not.
    """
    for start in range(0, len(copies), DELETE_PAGE):
        page = copies[start : start + DELETE_PAGE]
        intents = [work.event(EventKind.REMOVING, one.face_id, one.face_token) for one in page]
        ledger.record(Changes(events=intents))
        ledger.commit()
        gone = delete_faces(caller, group_id, [one.face_token for one in page])
        outcomes = [
            work.event(EventKind.REMOVED, one.face_id, one.face_token, gone[one.face_token])
            for one in page
            if one.face_token in gone
        ]
        ledger.record(Changes(events=outcomes, surplus_gone=list(gone)))
        ledger.commit()
        yield list(gone)
