"""The signature that every call carries, and the service's clock by which it lives."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import random
import time
from dataclasses import dataclass

from enroll import clock
from enroll.expiry import CLOCK_BOUND_SECONDS, bounded_offset
from enroll.facesearch.answers import OwnCode
from enroll.model import Answer, Credentials

DATE_RESOLUTION = 1.0
"""Seconds. `Date` is cut off to whole seconds, so its time was up to this much later."""

AGREEING = 3
"""How many answers in a row have to agree with each other before they are believed over many
earlier ones; fewer if there were fewer earlier ones."""

CLOCK_SLACK_SECONDS = 30.0
"""A difference between our clock and the service's that is worth naming. `Date` has a
resolution of 1 s, and the vendor's samples sign for 100 s."""


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What some answers in a row agree on: the offset lies between these."""

    low: float
    high: float
    answers: int = 1

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    def and_also(self, other: _Bounds) -> _Bounds | None:
        """Both together; None where they contradict each other."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        if low > high:
            return None
        return _Bounds(low, high, self.answers + other.answers)


class ServiceClock:
    """How far the service's clock is ahead of ours, in seconds.

    Each answer bounds the offset from both sides: it was dated after its request left and
    before it arrived. The bounds of all answers are intersected, so short round trips count
    most and the resolution of a second averages out. Answers that contradict what was learned are
    kept beside it, and take its place when `AGREEING` of them in a row agree with each other: one
    of the clocks has been set. One wrong answer among many changes nothing.

    Any thread may read; callers of `learn` or `offset_to_add` hold a lock.
    """

    def __init__(self) -> None:
        self._known: _Bounds | None = None
        self._rival: _Bounds | None = None
        self._most: float | None = None

    @property
    def offset(self) -> float:
        """The service's clock minus ours, in seconds, to sign with; 0.0 before the first answer."""
        known = self._known
        return 0.0 if known is None else bounded_offset(known.middle)

    @property
    def least(self) -> float:
        """The same, to say what has expired: the lower one while answers contradict each other."""
        rival = self._rival
        return self.offset if rival is None else min(self.offset, bounded_offset(rival.middle))

    @property
    def most(self) -> float:
        """The highest offset so far: no face was sent with a higher one."""
        return self.offset if self._most is None else self._most

    def offset_to_add(self) -> float:
        """The offset to sign the sending of a face with; `most` covers it from now on.

        Before the first answer it is 0.0, which may be higher than any offset learned later.
        """
        if self._known is None:
            self._most = 0.0
        return self.offset

    @property
    def apart(self) -> bool:
        """Whether the clocks are farther apart than any difference that is believed."""
        known = self._known
        return known is not None and (
            known.low > CLOCK_BOUND_SECONDS or known.high < -CLOCK_BOUND_SECONDS
        )

    def learn(self, date: float, *, sent: float, received: float) -> None:
        """Take in an answer dated `date`; the call lasted from `sent` to `received` by ours."""
        seen = _Bounds(date - received, date + DATE_RESOLUTION - sent)
        if seen.low > seen.high:  # our clock was set during the call
            return
        known, rival = self._known, self._rival
        agreed = seen if known is None else known.and_also(seen)
        with_rival = None if rival is None else rival.and_also(seen)
        if agreed is not None and with_rival is not None:
            return  # a long call, which speaks for neither
        if known is None or agreed is not None:
            self._follow(agreed)
            return
        rival = with_rival or seen
        if rival.answers >= min(known.answers, AGREEING):
            self._follow(rival)
        else:
            self._rival = rival

    def _follow(self, bounds: _Bounds | None) -> None:
        if bounds is None:
            return
        middle = bounded_offset(bounds.middle)
        # Before it can be signed with.
        self._most = middle if self._most is None else max(self._most, middle)
        self._known, self._rival = bounds, None

    def both(self) -> str:
        """What time it is by each of the clocks, for a person."""
        known, now = self._known, clock.time()
        theirs = now if known is None else now + known.middle
        return f"this machine's clock says {_shown(now)}, the service's {_shown(theirs)}"


def clock_remark(answer: Answer, offset: float) -> str:
    """What to say of the clocks beside an answer that refuses a call; empty where they agree.

    `offset` is what is known of them; what this answer says itself is news.
    """
    if answer.server_time is not None:
        offset = answer.server_time - clock.time()
    if answer.code == OwnCode.CLOCKS_APART or abs(offset) <= CLOCK_SLACK_SECONDS:
        return ""
    return clock_sentence(offset)


def clock_sentence(offset: float) -> str:
    """What to say about clocks that differ; `offset` is the service's minus ours, in seconds."""
    behind = "behind" if offset > 0 else "ahead of"
    minutes = abs(offset) / 60
    return (
        f"This machine's clock is {minutes:,.1f} minutes {behind} the service's; set it right "
        "(signatures carry the time)."
    )


def _shown(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):  # a year that `gmtime` does not cover
        return f"{seconds:.0f} s after 1970"


SIGN_VERSION = "hmac_sha1"


def sign(credentials: Credentials, *, issued: int, expires: int, nonce: int) -> str:
    """The value of `sign`; `issued` and `expires` are UNIX seconds on the service's clock.

    `nonce` is a number of at most 10 digits and is written with all ten: the vendor's published
    vector keeps its leading zero.
    """
    raw = f"a={credentials.api_key}&b={expires}&c={issued}&d={nonce:010d}".encode()
    # SHA-1 is the service's choice, not ours; HMAC does not need its collision resistance.
    digest = hmac.digest(credentials.api_secret.encode(), raw, hashlib.sha1)
    return base64.b64encode(digest + raw).decode("ascii")


def fresh_nonce() -> int:
    """A random number for one attempt.

    Below 2**32, because "at most 10 digits" is how a vendor describes an unsigned 32-bit number.
    It is no secret, and is only not to be repeated.
    """
    return _NONCES.getrandbits(32)


_NONCES = random.Random()  # noqa: S311
"""Our own: a program around us may seed that of the module."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_NONCES.seed)
