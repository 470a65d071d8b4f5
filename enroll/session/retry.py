"""When to repeat a call that may be made twice. Pure, no clock.

A policy looks at how a call ended, and how often it has ended that way before:

| verdict | what the policy does | the answer is final |
|---|---|---|
| REFUSED, BLOCKED | repeats, after a pause unless a limiter spaces out calls | at the bound |
| NOT_SENT, UNKNOWN | repeats after a pause | at the bound |
| APPLIED, REJECTED, FATAL, FAILED | nothing: the same call would end the same way | at once |

A pause is one second, doubled each time, up to a minute; if nothing else spaces out calls, a
refused one waits for as long as the service asks. The caller decides what a final answer means:
BLOCKED is a shortage on this machine, FATAL stops a command unless the credentials were replaced
(`enroll.session.account.Connection.refresh_credentials`).

| policy | NOT_SENT | UNKNOWN | REFUSED | BLOCKED | limiter | of |
|---|---|---|---|---|---|---|
| `OPENING` | 3 | 3 | by time | 3 | no | the first calls, without `--give-up-after` |
| `OPENING_WAITS` | by time | by time | by time | 3 | no | the first calls of a run |
| `CHANGE` | 1 | 1 | by time | 3 | no | a library made or deleted |
| `COMMAND` | 5 | 5 | 20 | 20 | yes | calls of commands that change nothing |
| `COMMAND_ONCE` | 5 | 1 | 20 | 20 | yes | faces deleted |
| `RUN` | 120 | 120 | no bound | no bound | yes | a run's searches and lists |
| `RUN_FIRST_LIST` | no bound | 10 | no bound | no bound | yes | the list before the first photo |

By time: bounded by `enroll.session.account.Patience`. No policy applies to `add`:
`enroll.runner.transitions` decides whether it is repeated.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from enroll.limiter.limits import LONGEST_PAUSE_SECONDS
from enroll.model import Answer, Verdict

FIRST_PAUSE_SECONDS = 1.0
"""After the first try; doubled each time. Somebody may be waiting at the terminal."""

NO_SLOT = frozenset({Verdict.REFUSED, Verdict.BLOCKED})
"""The service, or this machine, had no slot for the call, which did nothing."""

NO_ANSWER = frozenset({Verdict.NOT_SENT, Verdict.UNKNOWN})
"""The call did not come through: what answered, if anything did, proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a call may end in each of these ways before its answer is final; `limited` means
    that a limiter spaces out the calls that had no slot."""

    not_sent: float = math.inf
    unknown: float = math.inf
    refused: float = math.inf
    blocked: float = math.inf
    limited: bool = True

    def again_after(self, answer: Answer, tries: Counter[Verdict]) -> float | None:
        """Seconds to wait before repeating a call that ended this way; None if its answer is final.

        `tries` counts how the call has ended so far, including `answer`.
        """
        most = {
            Verdict.NOT_SENT: self.not_sent,
            Verdict.UNKNOWN: self.unknown,
            Verdict.REFUSED: self.refused,
            Verdict.BLOCKED: self.blocked,
        }
        verdict = answer.verdict
        if tries[verdict] >= most.get(verdict, 0):
            return None
        if verdict in NO_ANSWER:
            return pause(sum(tries[one] for one in NO_ANSWER))
        if self.limited:
            return 0.0
        return pause(tries[verdict]) if answer.retry_after is None else answer.retry_after


def pause(tries: int) -> float:
    """Seconds to wait after this number of tries, at least one."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 16), LONGEST_PAUSE_SECONDS)


OPENING = RetryPolicy(not_sent=3, unknown=3, blocked=3, limited=False)
OPENING_WAITS = RetryPolicy(blocked=3, limited=False)
CHANGE = RetryPolicy(not_sent=1, unknown=1, blocked=3, limited=False)

COMMAND = RetryPolicy(not_sent=5, unknown=5, refused=20, blocked=20)
"""Twenty refusals are a quarter of an hour by the limiter's pauses."""
COMMAND_ONCE = RetryPolicy(not_sent=5, unknown=1, refused=20, blocked=20)
"""For calls that may have been carried out."""

RUN = RetryPolicy(not_sent=120, unknown=120)
"""Some two hours, as long as a run waits for a service that is away."""
RUN_FIRST_LIST = RetryPolicy(unknown=10)
"""Some minutes: then the run goes on with what was seen."""
