"""Whether the service can be reached: since when nothing definite has come back, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from enroll.model import Answer, Verdict
from enroll.run.breaker import UNKNOWN_RUNNING
from enroll.run.shortage import Shortage


@dataclass(slots=True)
class Reachability:
    """Hears every answer of a run. `since` is monotonic seconds, None while all is well.

    `away` says that it is not only an answer or two that prove nothing: a call could not leave,
    or many answers running were of no use. `code` and `because` are of the last one. `make_room`
    lets go of files that nobody needs now: what rests would keep calls from leaving.
    """

    make_room: Callable[[], None] = lambda: None
    since: float | None = None
    away: bool = False
    code: str = ""
    because: str = ""
    shortage: Shortage = field(default_factory=Shortage)
    """Whether the reason lies with this machine."""
    _unknown: int = 0

    def heard(self, answer: Answer, now: float) -> None:
        """Take an answer into account, unless it tells nothing of the service."""
        if answer.verdict is Verdict.BLOCKED:
            self.shortage.met(answer.message, now)
            self.make_room()
            return
        self.shortage.passed()
        if answer.verdict not in (Verdict.NOT_SENT, Verdict.UNKNOWN):
            self.since, self.away, self._unknown = None, False, 0
            return
        if self.since is None:
            self.since = now
        self._unknown += answer.verdict is Verdict.UNKNOWN
        if answer.verdict is Verdict.NOT_SENT or self._unknown >= UNKNOWN_RUNNING:
            self.away = True
        self.code = answer.code
        self.because = answer.message or answer.code
