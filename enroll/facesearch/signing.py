"""The signature that every call carries, and the service's clock by which it lives."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import random
import threading
import time
from dataclasses import dataclass

from enroll import clock
from enroll.expiry import CLOCK_BOUND_SECONDS, ClockOffsets, bounded_offset
from enroll.facesearch.answers import OwnCode
from enroll.model import Answer, Credentials, Verdict

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
    of the clocks has been set. One wrong answer among many changes nothing. Safe to use from any
    thread.
    """

    def __init__(self) -> None:
        self._known: _Bounds | None = None
        self._rival: _Bounds | None = None
        self._most: float | None = None
        self._lock = threading.Lock()

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
        with self._lock:
            if self._known is None:
                self._most = 0.0
            return self.offset

    @property
    def offsets(self) -> ClockOffsets:
        """`least` and `most`, to be put on record."""
        return ClockOffsets(least=self.least, most=self.most)

    def trouble(self) -> Answer | None:
        """What every call from now on is answered with, unsent, if the clocks are too far apart to
        sign anything: a signature would be refused, or be good for who knows how long."""
        known = self._known
        if known is None or (
            known.high >= -CLOCK_BOUND_SECONDS and known.low <= CLOCK_BOUND_SECONDS
        ):
            return None
        now = clock.time()
        message = (
            f"This machine's clock says {_shown(now)}, the service's {_shown(now + known.middle)}, "
            f"more than {CLOCK_BOUND_SECONDS / 60:.0f} minutes apart"
        )
        return Answer(verdict=Verdict.FATAL, code=OwnCode.CLOCKS_APART.value, message=message)

    def learn(self, date: float, *, sent: float, received: float) -> None:
        """Take in an answer dated `date`; the call lasted from `sent` to `received` by ours."""
        seen = _Bounds(date - received, date + DATE_RESOLUTION - sent)
        if seen.low <= seen.high:  # else our clock was set during the call
            with self._lock:
                self._take_in(seen)

    def _take_in(self, seen: _Bounds) -> None:
        known, rival = self._known, self._rival
        if known is None:
            self._follow(seen)
            return
        agreed = known.and_also(seen)
        with_rival = None if rival is None else rival.and_also(seen)
        if agreed is not None and with_rival is not None:
            return  # a long call, which speaks for neither
        if agreed is not None:
            self._follow(agreed)
            return
        rival = with_rival or seen
        if rival.answers >= min(known.answers, AGREEING):
            self._follow(rival)
        else:
            self._rival = rival

    def _follow(self, bounds: _Bounds) -> None:
        middle = bounded_offset(bounds.middle)
        # Before it can be signed with.
        self._most = middle if self._most is None else max(self._most, middle)
        self._known, self._rival = bounds, None


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


def key_in(signature: str) -> str:
    """The key that a signature of `sign` names, in plain text; empty where it is none."""
    raw = base64.b64decode(signature)[hashlib.sha1().digest_size :]  # noqa: S324
    name, _, key = raw.partition(b"&")[0].partition(b"=")
    return key.decode() if name == b"a" else ""


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
