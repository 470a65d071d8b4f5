"""What a look at the library proves about a face in doubt, and when to look. Pure, no clock.

Times are UNIX seconds on the service's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from enroll.expiry import look_again_after, settled_from
from enroll.model import FaceRecord
from enroll.session.library_faces import SCORE_SLACK, Findings, SeenFace

ABSENT_LOOKS = 2
"""How often a face must be looked for in vain before it counts as not added."""

REFUSED_LOOKS = 3
"""How many looks in a row may be refused for a reason that is none of the network's or of too many
calls before the doubt is left: what the service says to the same call will hardly change."""

RECHECK_LOOKS = 7
"""How often a face that was sent again is looked for until it is shown itself: two minutes."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a search for a face whose token we know has shown.

    `score` is what a photo gets for its own face, None where `list` was asked; `lag` is for how
    many seconds a new face stays unseen at most, None where it was an earlier run's face: when
    that became visible is not known. `earlier_lag` is what an earlier run saw, 0 if none did.
    """

    score: float | None
    lag: float | None = None
    earlier_lag: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A face in doubt. `absent` counts looks in vain, `refused` those in a row that the service
    refused.

    `recheck` looks once more for what may have landed after the face was sent again; then
    `absent` counts looks that did not show the face's own token.
    """

    face: FaceRecord
    absent: int = 0
    refused: int = 0
    recheck: bool = False


@dataclass(frozen=True, slots=True)
class Adopt:
    """The service holds the face: this is its token; `surplus` are further copies of it.

    `then` says how to look for copies that may not be shown yet.
    """

    face_token: str
    surplus: tuple[str, ...]
    then: LookAgain | Undecided | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """The call was not applied: the face may be sent again."""


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Not settled yet: look again `after` so many seconds."""

    doubt: Doubt
    after: float


@dataclass(frozen=True, slots=True)
class Undecided:
    """No look can settle it; `because` says why. A person decides, or the next run."""

    because: str


Settlement = Adopt | Absent | LookAgain | Undecided


def first_look_at(doubt: Doubt, *, calibration: Calibration | None, settle_after: float) -> float:
    """When the last attempt's signature has expired, what came in time has been applied, and what
    was applied is visible, as far as is known.

    A face that was sent again and is shown itself proves that everything before it is visible.
    """
    proves_itself = doubt.recheck and doubt.face.face_token is not None
    lag = 0.0 if proves_itself else _lag(calibration)
    return settled_from(doubt.face.expires, settle_after=settle_after, lag=lag)


def judge(
    doubt: Doubt, findings: Findings, *, calibration: Calibration | None, settle_after: float
) -> Settlement:
    """What a look proves. `calibration` is for looks of the same kind; none is needed for an
    unknown face that was listed and can be no other."""
    own = [seen for seen in findings.unknown_faces if _is_own(seen, calibration)]
    if own:
        own.sort(key=lambda seen: (seen.add_time is None, seen.add_time or 0))
        then = _own_unseen(doubt) if doubt.recheck and findings.own is False else None
        return Adopt(own[0].face_token, tuple(seen.face_token for seen in own[1:]), then)
    if findings.cut_at is not None and (
        calibration is None or findings.cut_at >= _least(calibration)
    ):
        return Undecided(
            "too many faces match this photo equally well for a search to show them all"
        )
    came = replace(doubt, refused=0)
    early = first_look_at(doubt, calibration=calibration, settle_after=settle_after) - findings.at
    if early > 0:
        return LookAgain(came, after=early)
    if doubt.recheck:
        return _own_unseen(came) if findings.own is False else Absent()
    looked = replace(came, absent=doubt.absent + 1)
    if looked.absent >= ABSENT_LOOKS:
        return Absent()
    return LookAgain(
        looked, after=look_again_after(settle_after=settle_after, lag=_lag(calibration))
    )


def look_refused(doubt: Doubt, because: str) -> LookAgain | Undecided:
    """A look that is refused is no look: try again, a few times."""
    again = replace(doubt, refused=doubt.refused + 1)
    if again.refused >= REFUSED_LOOKS:
        return Undecided(because)
    return LookAgain(again, after=2.0**again.refused)


def _own_unseen(doubt: Doubt) -> LookAgain | Undecided:
    """The face that was sent again is not shown yet, and so another may be there unseen, too."""
    looked = replace(doubt, absent=doubt.absent + 1)
    if looked.absent >= RECHECK_LOOKS:
        return Undecided("the library does not show the face that was sent again")
    return LookAgain(looked, after=float(min(2**looked.absent, 60)))


def only_face(
    unknown_faces: Sequence[SeenFace], faces: Sequence[FaceRecord], face: FaceRecord
) -> bool:
    """Whether an unknown face seen by `list` can be no other face that we have sent: it is the only
    one, and no other photo of the person was ever sent.

    Not who else may have added it: trust it only in a library that was empty when its ledger
    was made, and only where its likeness cannot be had.
    """
    return len(unknown_faces) == 1 and not any(
        other.attempts for other in faces if other.face_id != face.face_id
    )


def _lag(calibration: Calibration | None) -> float:
    if calibration is None:
        return 0.0
    return calibration.earlier_lag if calibration.lag is None else calibration.lag


def _least(calibration: Calibration) -> float:
    return float("inf") if calibration.score is None else calibration.score - SCORE_SLACK


def _is_own(seen: SeenFace, calibration: Calibration | None) -> bool:
    if seen.score is None:  # from `list`, where the caller has made sure of it
        return True
    return calibration is not None and seen.score >= _least(calibration)
