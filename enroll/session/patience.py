"""How long the opening calls wait for a service that is away, or has no place for them."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field

from enroll.errors import ShortageError, UnreachedError
from enroll.facesearch.codes import OwnCode
from enroll.limiter.limits import LONGEST_PAUSE_SECONDS
from enroll.model import Answer, Verdict
from enroll.tally import Observer, Quiet
from enroll.text.remedies import call_remedy
from enroll.text.wording import duration

FEW_TRIES = 3
"""How often a call is made that does not come through, where waiting would not help or nobody has
said how long to wait."""

FIRST_PAUSE_SECONDS = 1.0
"""After the first try; doubled each time. Somebody may be waiting at the terminal."""

REFUSED_SECONDS = 900.0
"""How long to wait for a place where nobody has said so: a quarter hour, as later calls do."""

TOLD_SECONDS = 3.0
"""A wait that will have lasted longer is told when it begins."""

_MISTAKES = frozenset(
    {
        OwnCode.TLS_FAILED,
        OwnCode.PROXY_REFUSED,
        OwnCode.NOT_HTTP,
        OwnCode.NOT_JSON,
        OwnCode.BODY_TOO_LARGE,
        OwnCode.FIELD_MISSING,
    }
)
"""What does not pass by itself when it is all that ever came: certificates, a proxy, or something
at the endpoint that is not the service."""


def _attended() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait and whom to tell of it.

    `seconds` None: a few tries only for a service that is away; never longer than `until`, on the
    monotonic clock. `attended` says that somebody is watching, who can correct a name at once: a
    person at a terminal, if nobody says otherwise.
    """

    seconds: float | None = None
    until: float = math.inf
    attended: bool = field(default_factory=_attended)
    observer: Observer = field(default_factory=Quiet)

    def seems_a_mistake(self, answer: Answer) -> bool:
        """Whether the settings are wrong rather than the service away, from the first try on."""
        unknown_name = answer.code == OwnCode.NAME_LOOKUP_FAILED
        wrong = answer.code in _MISTAKES or answer.code.startswith("HTTP_2")
        return wrong or (unknown_name and self.attended)


NO_PLACE = frozenset({Verdict.REFUSED, Verdict.BLOCKED})
"""The service, or this machine, had no place for the call, which did nothing."""


class Wait:
    """The waiting for one call, from its first try on."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._began = time.monotonic()
        self._failed = 0
        self._refused = 0
        self._blocked = 0
        self._only_mistakes = True
        self._told = False

    def pause(self, answer: Answer) -> float | None:
        """Seconds after which the call is to be made again; None when its answer stands: the
        service has said no, or what answers does not seem to be it.

        Raises UnreachedError when it has taken too long, and ShortageError where this machine does
        not let the call leave.
        """
        if answer.verdict is Verdict.BLOCKED:
            self._blocked += 1
            if self._blocked >= FEW_TRIES:
                raise ShortageError(answer.message)
            return _doubled(self._blocked)
        seconds = self._patience.seconds
        if answer.verdict is Verdict.REFUSED:
            self._refused += 1
            after = _doubled(self._refused) if answer.retry_after is None else answer.retry_after
            return self._within(REFUSED_SECONDS if seconds is None else seconds, after, answer)
        if answer.verdict not in (Verdict.NOT_SENT, Verdict.UNKNOWN):
            return None
        self._failed += 1
        self._only_mistakes &= self._patience.seems_a_mistake(answer)
        if seconds is None or self._only_mistakes:
            if self._failed < FEW_TRIES:
                return _doubled(self._failed)
            if self._only_mistakes:
                return None
            raise unreached(answer)
        return self._within(seconds, _doubled(self._failed), answer)

    def answered(self) -> None:
        """The call has come through."""
        if self._told:
            self._patience.observer.reached()

    def _within(self, bound: float, after: float, answer: Answer) -> float:
        waited = time.monotonic() - self._began
        bound = min(bound, max(self._patience.until - self._began, 0.0))
        refused = answer.verdict is Verdict.REFUSED
        # What was asked for is kept to: a refused call is not made earlier than the service says.
        if waited >= bound or (refused and waited + after > bound):
            raise unreached(answer, waited=waited)
        if waited + after >= TOLD_SECONDS:
            self._tell(waited, after, answer)
        return min(after, bound - waited)

    def _tell(self, waited: float, after: float, answer: Answer) -> None:
        observer = self._patience.observer
        if answer.verdict is Verdict.REFUSED:
            what = f"a place for the first calls ({answer.code}), {duration(after)} more"
            observer.waits(what)
        else:
            self._told = True
            because = f"{_said(answer)}. {call_remedy(answer.code)}".rstrip()
            observer.unreached(waited, answer.code, because)


def unreached(answer: Answer, *, waited: float | None = None) -> UnreachedError:
    """What to say of a service that is away or has no place for a call, by the last answer;
    `waited` is for how many seconds, None where it was only tried a few times."""
    lasted = "" if waited is None else f" for {duration(waited)}"
    if answer.verdict is Verdict.REFUSED:
        return UnreachedError(
            f"The service had no place for a call{lasted} ({_said(answer)}): other programs of the "
            "account take all of them. Run the same command again when they have ended."
        )
    return UnreachedError(
        f"The service could not be reached{lasted} ({_said(answer)}). {call_remedy(answer.code)} "
        "Then run the same command again."
    )


def _doubled(tries: int) -> float:
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 16), LONGEST_PAUSE_SECONDS)


def _said(answer: Answer) -> str:
    return (answer.message or answer.code).rstrip(".")
