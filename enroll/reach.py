"""Whether the service can be reached: since when nothing definite has come back, and why."""

from __future__ import annotations

from dataclasses import dataclass

from enroll.model import Answer, Verdict


@dataclass(slots=True)
class Reach:
    """Hears every answer of a run. `since` is monotonic seconds, None while all is well."""

    since: float | None = None
    because: str = ""

    def heard(self, answer: Answer, now: float) -> None:
        """Take an answer into account."""
        if answer.verdict not in (Verdict.NOT_SENT, Verdict.UNKNOWN):
            self.since = None
            return
        if self.since is None:
            self.since = now
        self.because = answer.message or answer.code
