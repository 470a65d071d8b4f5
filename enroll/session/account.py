"""The connection to the service and its opening calls, which check the credentials, the clock and
the library before a photo is sent."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from enroll import __version__, clock
from enroll.errors import ServiceError, ShortageError, UnreachedError, UsageError
from enroll.facesearch import Call, FaceSearch, faces, libraries
from enroll.facesearch.answers import CREDENTIAL_CODES, LIBRARY_CODES, OwnCode
from enroll.facesearch.signing import CLOCK_SLACK_SECONDS, clock_remark
from enroll.model import Answer, Credentials, Library, Photo, Verdict
from enroll.session.retry import CHANGE, NO_ANSWER, OPENING, OPENING_WAITS
from enroll.session.tally import Observer, Tally
from enroll.settings import CallSettings
from enroll.text.remedies import call_remedy
from enroll.text.wording import duration

REFUSED_SECONDS = 900.0
"""How long to wait for a slot if no option says so: a quarter of an hour, like later calls."""

TOLD_SECONDS = 3.0
"""A wait that brings the total beyond this is announced when it begins."""

CREDENTIAL_SECONDS = 5.0
"""The time between two calls while the service refuses their signature."""

OTHER_CREDENTIALS = "other credentials, as the service refuses those in use (--credentials-grace)"

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
"""Failures that do not go away by themselves if nothing else has been received: certificates, a
proxy, or something at the endpoint that is not the service."""


def _attended() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait, and the observer to notify.

    `seconds` None means only a few tries if the service is away. No wait goes beyond `until`, on
    the monotonic clock. `credentials` is for how many seconds to wait for other credentials if the
    service refuses the first ones. `attended` means that somebody is watching who can correct a
    name at once: by default, a person at a terminal.
    """

    seconds: float | None = None
    until: float = math.inf
    credentials: float = 0.0
    attended: bool = field(default_factory=_attended)
    observer: Observer = field(default_factory=Observer)

    def seems_a_mistake(self, answer: Answer) -> bool:
        """Whether the settings seem wrong, even at the first try, rather than the service away."""
        unknown_name = answer.code == OwnCode.NAME_LOOKUP_FAILED
        wrong = answer.code in _MISTAKES or answer.code.startswith("HTTP_2")
        return wrong or (unknown_name and self.attended)


class CallWait:
    """The waiting for one call, starting with its first try."""

    def __init__(self, patience: Patience, *, changes: bool = False) -> None:
        """`changes` means that the call changes something: it is repeated only if it was certainly
        not carried out, and not started while the service is away."""
        self._patience = patience
        self._changes = changes
        self._began = clock.monotonic()
        self._tries: Counter[Verdict] = Counter()
        self._only_mistakes = True
        self._away = False
        self._refused = False

    def pause(self, answer: Answer) -> float | None:
        """Seconds to wait before repeating the call. None if its answer is final: the service has
        said no, or whatever answered does not seem to be the service.

        Raises UnreachedError when it has taken too long, and ShortageError if this machine cannot
        send the call.
        """
        verdict, seconds = answer.verdict, self._patience.seconds
        self._tries[verdict] += 1
        if verdict in NO_ANSWER:
            self._only_mistakes &= self._patience.seems_a_mistake(answer)
        policy = OPENING if seconds is None or self._only_mistakes else OPENING_WAITS
        if self._changes:
            policy = CHANGE
        after = policy.again_after(answer, self._tries)
        if after is None:
            if verdict is Verdict.BLOCKED:
                raise ShortageError(answer.message)
            if verdict in NO_ANSWER and not (self._changes or self._only_mistakes):
                raise unreached(answer)
            return None
        if verdict is Verdict.REFUSED:
            return self._within(REFUSED_SECONDS if seconds is None else seconds, after, answer)
        if policy is OPENING_WAITS and verdict in NO_ANSWER:
            return self._within(seconds or 0.0, after, answer)
        return after

    def may_be_replaced(self) -> bool:
        """Whether to wait for other credentials than those that the service refuses."""
        within = min(self._patience.credentials, self._patience.until - self._began)
        if clock.monotonic() - self._began >= within:
            return False
        if not self._refused:
            self._refused = True
            self._patience.observer.waits(OTHER_CREDENTIALS)
        return True

    def answered(self) -> None:
        """Note that the call has come through."""
        if self._away:
            self._patience.observer.reached()

    def _within(self, bound: float, after: float, answer: Answer) -> float:
        waited = clock.monotonic() - self._began
        bound = min(bound, max(self._patience.until - self._began, 0.0))
        refused = answer.verdict is Verdict.REFUSED
        # Respect the service's request: a refused call is not repeated earlier than it says.
        if waited >= bound or (refused and waited + after > bound):
            raise unreached(answer, waited=waited)
        if waited + after >= TOLD_SECONDS:
            self._tell(waited, after, answer)
        return min(after, bound - waited)

    def _tell(self, waited: float, after: float, answer: Answer) -> None:
        observer = self._patience.observer
        if answer.verdict is Verdict.REFUSED:
            what = f"a slot for the first calls ({answer.code}), {duration(after)} more"
            observer.waits(what)
        else:
            self._away = True
            because = f"{_said(answer)}. {call_remedy(answer.code)}".rstrip()
            observer.unreached(waited, answer.code, because)


def unreached(answer: Answer, *, waited: float | None = None) -> UnreachedError:
    """The error for a service that is away or has no slot for a call, from the last answer.
    `waited` is the time waited in seconds, None if the call was only tried a few times."""
    lasted = "" if waited is None else f" for {duration(waited)}"
    if answer.verdict is Verdict.REFUSED:
        return UnreachedError(
            f"The service refused calls because of the account's limit{lasted} ({_said(answer)}): "
            "other programs are using all of it. Run the same command again when they have "
            "ended."
        )
    return UnreachedError(
        f"The service could not be reached{lasted} ({_said(answer)}). {call_remedy(answer.code)} "
        "Then run the same command again."
    )


def _said(answer: Answer) -> str:
    return (answer.message or answer.code).rstrip(".")


AWAY = frozenset({Verdict.NOT_SENT, Verdict.UNKNOWN, Verdict.REFUSED})
"""The verdicts on a call when the service is away or has no slot for it."""

ITS_OWN_WORD = "enroll does not know this code: ask the vendor of the service what it means."

Announce = Callable[[str, str], None]
"""Called with the endpoint and a description of the credentials before the first call is signed."""


def unheard(endpoint: str, credentials: str) -> None:
    """Announce nothing."""


@dataclass(slots=True, kw_only=True)
class Connection:
    """The service, the credentials in use, and a count of the calls made; a context manager.

    `read_credentials` reads the credentials again, as they may have been replaced; `patience` says
    how long the opening calls wait, and for how many seconds for other credentials.
    """

    endpoint: str
    service: FaceSearch
    credentials: Credentials
    read_credentials: Callable[[], Credentials]
    patience: Patience = field(default_factory=Patience)
    tally: Tally = field(default_factory=Tally)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the service."""
        self.service.close()

    def ask(self, call: Call) -> Answer:
        """Repeat a call that changes nothing until it comes through or `patience` is exhausted.

        Raises ServiceError, naming the obstacle, and UnreachedError if the obstacle lasted longer
        than `patience` allows.
        """
        answer = self.make_call(call)
        if answer.verdict is not Verdict.APPLIED:
            raise self.failed(answer)
        return answer

    def make_call(self, call: Call, *, photo: Photo | None = None, changes: bool = False) -> Answer:
        """Make any call in the same way, and return its answer whatever it is. A call that
        `changes` something is not repeated once it may have been carried out."""
        service, wait = self.service, CallWait(self.patience, changes=changes)
        clock_learned = False
        while True:
            used = self.credentials
            answer = service.make(call, photo)
            if answer.may_have_arrived:
                self.tally.calls[call.kind] += 1
            if not changes:
                # A wrong clock would also stop the next calls, so do not start what cannot go on.
                answer = service.clock.trouble() or answer
            if answer.verdict is Verdict.APPLIED:
                wait.answered()
                return answer
            if self.refresh_credentials(answer, used):
                continue
            if answer.code in CREDENTIAL_CODES and not clock_learned:
                # The client has learned the service's clock from this very answer.
                clock_learned = True
                if abs(service.clock.offset) > CLOCK_SLACK_SECONDS:
                    continue
            if answer.code in CREDENTIAL_CODES and wait.may_be_replaced():
                clock.sleep(CREDENTIAL_SECONDS)
                continue
            pause = wait.pause(answer)
            if pause is None:
                return answer
            clock.sleep(pause)

    def refresh_credentials(self, answer: Answer, used: Credentials | None) -> bool:
        """If `answer` refuses the signature of a call made with `used`, read the credentials again
        unless that has been done since. Returns whether calls are now signed with others."""
        if answer.code not in CREDENTIAL_CODES:
            return False
        if used is not self.credentials:  # another call has had them read again
            return True
        try:
            credentials = self.read_credentials()
        except UsageError:
            return False
        if credentials == self.credentials:
            return False
        self.credentials = credentials
        self.service.use_credentials(credentials)
        return True

    def failed(self, answer: Answer) -> ServiceError:
        """The error for a call that adds no face and whose answer is final: the service was away or
        had no slot for it (UnreachedError), refuses it, or does not seem to be the service."""
        if answer.verdict in AWAY and not self.patience.seems_a_mistake(answer):
            return unreached(answer)
        clocks = clock_remark(answer, self.service.clock.offset)
        todo = call_remedy(answer.code, used=self.credentials) or ITS_OWN_WORD
        wrong = "The service cannot be used"
        if answer.code in LIBRARY_CODES:
            wrong = "The account has no such library"
        elif answer.verdict is Verdict.REJECTED:
            wrong = "The service refused the call"
        said = f"{wrong}: {_said(answer)}."
        return ServiceError(" ".join(filter(None, [said, clocks, todo])))


def connect(
    settings: CallSettings,
    read_credentials: Callable[[], Credentials],
    *,
    endpoint: str,
    announce: Announce = unheard,
    patience: Patience | None = None,
) -> Connection:
    """A connection to the service with the present credentials; the caller closes it.

    Raises UsageError if there are no credentials or the endpoint is unusable.
    """
    credentials = read_credentials()
    service = FaceSearch(
        endpoint,
        credentials,
        timeout=settings.timeout,
        ca_bundle=settings.ca_bundle,
        allow_http=settings.allow_http,
        user_agent=f"enroll/{__version__}",
    )
    announce(endpoint, credentials.described)
    return Connection(
        endpoint=endpoint,
        service=service,
        credentials=credentials,
        read_credentials=read_credentials,
        patience=patience or Patience(),
    )


def list_libraries(connection: Connection) -> list[Library]:
    """The account's libraries. Raises ServiceError as `Connection.ask`."""
    return libraries(connection.ask(Call.group_list()))


def find_library(connection: Connection, group_id: str, *, ledger: Path | None = None) -> Library:
    """The library named `group_id`; `ledger` is its ledger, if there is one. Raises ServiceError
    if the account has no such library."""
    found = list_libraries(connection)
    for library in found:
        if library.group_id == group_id:
            return library
    names = ", ".join(sorted(library.group_id for library in found)) or "none at all"
    if ledger is not None:
        raise ServiceError(
            f"The account has no library {group_id!r}; it has {names}. The ledger {ledger} "
            "belongs to one that it had: correct --group-id or the credentials. If the library "
            "was deleted, move that ledger away and start over with --create-library."
        )
    raise ServiceError(
        f"The account has no library {group_id!r}; it has {names}. Correct --group-id, or create "
        f"it with `enroll library create --group-id {group_id}`."
    )


def is_empty(connection: Connection, group_id: str) -> bool:
    """Whether a library holds no face. Raises ServiceError as `Connection.ask`."""
    return not faces(connection.ask(Call.list(group_id=group_id, limit=1)))
