"""What a run waits for, at a moment and recently, by what is in progress. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum

from enroll.limiter.limits import Cap, LimiterState

SAMPLES = 20
"""How many moments count for what a run waits for now: five seconds, one moment each tick."""


class WaitReason(StrEnum):
    """What keeps a run from going faster, in words that follow "waits for"."""

    ACCOUNT = "the account"
    """Its limit: every slot is taken, or closed after refusals."""
    PHOTOS = "photos"
    """Slots are free, and no photo is ready to be sent."""
    NETWORK = "the network"
    """Calls cannot leave; or all slots are taken and none was refused, so that only quicker
    answers, or more slots a moment later, would help."""
    CAP = "our own bound"
    """What an option allows, not what the account does."""
    MANIFEST = "the manifest"
    """It is being read, and compared with the ledger and the photos' folder."""
    DOUBTS = "faces in doubt"
    """Only those are left, which must not be looked for yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is under way at a moment. `ready` are calls that could leave, `photos` those that are
    read or to be read, `doubts` faces in doubt; `refused` says whether any call was."""

    gauge: LimiterState
    away: bool = False
    refused: bool = False
    ready: int = 0
    photos: int = 0
    scanned: bool = True
    doubts: int = 0


def waits_for(view: View) -> WaitReason | None:
    """What a run waits for at this moment; None where nothing holds it up, or nothing is left."""
    gauge = view.gauge
    full = gauge.taken >= gauge.limit
    ready = view.ready > 0
    first_that_holds = (
        (view.away, WaitReason.NETWORK),
        (gauge.closed > 0, WaitReason.ACCOUNT),
        (full and gauge.cap is not None, WaitReason.CAP),
        (full and (view.refused or gauge.ceiling is not None), WaitReason.ACCOUNT),
        (full, WaitReason.NETWORK),
        (ready and gauge.cap in (Cap.RATE, Cap.MACHINE), WaitReason.CAP),
        (ready and gauge.spacing is not None, WaitReason.ACCOUNT),
        (ready, None),  # it is about to leave
        (view.photos > 0, WaitReason.PHOTOS),
        (not view.scanned, WaitReason.MANIFEST),
        (view.doubts > 0, WaitReason.DOUBTS),
    )
    return next((wait for holds, wait in first_that_holds if holds), None)


def in_words(view: View) -> str:
    """The same in words, with the option that is meant; empty for None."""
    wait = waits_for(view)
    if wait is WaitReason.CAP:
        return f"{wait}, {view.gauge.cap}"
    return wait or ""


class Waits:
    """What a run waits for, from moment to moment."""

    def __init__(self) -> None:
        self._lately: deque[str] = deque(maxlen=SAMPLES)
        self.all: Counter[str] = Counter()
        """How many moments each was waited for; the empty string is for nothing."""

    def see(self, words: str) -> str:
        """Add a moment; what the run has mostly waited for recently, empty for nothing."""
        self._lately.append(words)
        self.all[words] += 1
        return Counter(self._lately).most_common(1)[0][0]
