"""What the throttle is told of an answer."""

from __future__ import annotations

from enroll.facesearch.codes import OwnCode
from enroll.limiter.limits import Limiter, Slot
from enroll.model import Answer, Verdict

UNSERVED = frozenset({Verdict.NOT_SENT, Verdict.BLOCKED, Verdict.UNKNOWN, Verdict.REFUSED})
"""After these it is not known that the service had a place for the call."""


def tell(limiter: Limiter, slot: Slot, answer: Answer, *, now: float, service_time: float) -> None:
    """Hand a place back. `now` is monotonic, `service_time` UNIX seconds by the service's clock.

    The service may go on with a call that we have given up on, until its signature has expired.
    """
    held_until = None
    if answer.code == OwnCode.TIMEOUT and answer.expires > service_time:
        held_until = now + answer.expires - service_time
    limiter.answered(
        slot,
        now,
        refused=answer.verdict is Verdict.REFUSED,
        served=answer.verdict not in UNSERVED,
        blocked=answer.verdict is Verdict.BLOCKED,
        retry_after=answer.retry_after,
        held_until=held_until,
    )
