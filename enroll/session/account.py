"""The connection to the service, and its opening calls: credentials, clock and library are proved
before a photo is sent."""

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
from enroll.facesearch import FaceSearch, faces, libraries
from enroll.facesearch.answers import CREDENTIAL_CODES, OwnCode
from enroll.facesearch.signing import CLOCK_SLACK_SECONDS, clock_remark
from enroll.model import Answer, CallKind, Credentials, Library, Verdict
from enroll.session.retry import CHANGE, NO_ANSWER, OPENING, OPENING_WAITS
from enroll.session.tally import Observer, Tally
from enroll.settings import Transport
from enroll.text.remedies import call_remedy
from enroll.text.wording import duration

REFUSED_SECONDS = 900.0
"""How long to wait for a slot where no option says so: a quarter hour, as later calls do."""

TOLD_SECONDS = 3.0
"""A wait that will have lasted longer is announced when it begins."""

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
    """How long to wait, and who is notified.

    `seconds` None: a few tries only for a service that is away; never longer than `until`, on the
    monotonic clock. `attended` says that somebody is watching, who can correct a name at once: a
    person at a terminal, if nobody says otherwise.
    """

    seconds: float | None = None
    until: float = math.inf
    attended: bool = field(default_factory=_attended)
    observer: Observer = field(default_factory=Observer)

    def seems_a_mistake(self, answer: Answer) -> bool:
        """Whether the settings are wrong rather than the service away, from the first try on."""
        unknown_name = answer.code == OwnCode.NAME_LOOKUP_FAILED
        wrong = answer.code in _MISTAKES or answer.code.startswith("HTTP_2")
        return wrong or (unknown_name and self.attended)


class CallWait:
    """The waiting for one call, from its first try on."""

    def __init__(self, patience: Patience, *, changes: bool = False) -> None:
        """`changes` says that the call changes something: it is made again only where it was
        certainly not carried out, and not begun while the service is away."""
        self._patience = patience
        self._changes = changes
        self._began = clock.monotonic()
        self._tries: Counter[Verdict] = Counter()
        self._only_mistakes = True
        self._told = False

    def pause(self, answer: Answer) -> float | None:
        """Seconds after which the call is to be made again; None when its answer stands: the
        service has said no, or what answers does not seem to be it.

        Raises UnreachedError when it has taken too long, and ShortageError where this machine does
        not let the call leave.
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

    def answered(self) -> None:
        """The call has come through."""
        if self._told:
            self._patience.observer.reached()

    def _within(self, bound: float, after: float, answer: Answer) -> float:
        waited = clock.monotonic() - self._began
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
            what = f"a slot for the first calls ({answer.code}), {duration(after)} more"
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
"""What comes of a call when the service is away, or has no place for it."""

ITS_OWN_WORD = "enroll does not know this code: ask the vendor of the service what it means."

Announce = Callable[[str, str], None]
"""Is told of an endpoint, and in words of the credentials, before the first call is signed."""


def unheard(endpoint: str, credentials: str) -> None:
    """Nobody is told."""


@dataclass(slots=True, kw_only=True)
class Connection:
    """The service, the credentials that it was made with, and a count of the calls made to it;
    a context manager.

    `read_credentials` reads them again, as they may be exchanged; `patience` says how long the
    opening calls wait.
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
        """Let go of the service's connections."""
        self.service.close()

    def ask(self, kind: CallKind, call: Callable[[FaceSearch], Answer]) -> Answer:
        """Make a call that changes nothing, until it comes through or patience is at its end.

        Raises ServiceError, naming what stands in the way, and UnreachedError when that took
        longer than we were told to wait.
        """
        answer = self.make_call(kind, call)
        if answer.verdict is not Verdict.APPLIED:
            raise self.failed(answer)
        return answer

    def make_call(
        self, kind: CallKind, call: Callable[[FaceSearch], Answer], *, changes: bool = False
    ) -> Answer:
        """The same for any call, whatever its answer is; one that `changes` something is not made
        twice once it may have been carried out."""
        service, wait = self.service, CallWait(self.patience, changes=changes)
        clock_learned = False
        while True:
            used = self.credentials
            answer = call(service)
            if answer.may_have_arrived:
                self.tally.calls[kind] += 1
            if not changes:
                # What this answer tells of the clock holds for the next call, and nothing is begun
                # that could not go on.
                answer = service.clock_trouble() or answer
            if answer.verdict is Verdict.APPLIED:
                wait.answered()
                return answer
            if self.refresh_credentials(answer, used):
                continue
            if answer.code in CREDENTIAL_CODES and not clock_learned:
                # The client has learned the service's clock from this very answer.
                clock_learned = True
                if abs(service.clock_offset) > CLOCK_SLACK_SECONDS:
                    continue
            pause = wait.pause(answer)
            if pause is None:
                return answer
            clock.sleep(pause)

    def refresh_credentials(self, answer: Answer, used: Credentials | None) -> bool:
        """If `answer` refuses the signature of a call made with `used`, read the credentials again
        unless that was done since; True if calls are now signed with others."""
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
        """The error for a call that adds no face and whose answer stands: the service was away or
        had no place for it (UnreachedError), will not do it, or does not seem to be the service."""
        if answer.verdict in AWAY and not self.patience.seems_a_mistake(answer):
            return unreached(answer)
        clocks = clock_remark(answer, self.service.clock_offset)
        todo = call_remedy(answer.code, used=self.credentials) or ITS_OWN_WORD
        said = f"The service cannot be used: {_said(answer)}."
        return ServiceError(" ".join(filter(None, [said, clocks, todo])))


def connect(
    transport: Transport,
    read_credentials: Callable[[], Credentials],
    *,
    endpoint: str,
    announce: Announce = unheard,
    patience: Patience | None = None,
) -> Connection:
    """The service, with the credentials as they are now, to be closed.

    Raises UsageError without any, and for an unusable endpoint.
    """
    credentials = read_credentials()
    service = FaceSearch(
        endpoint,
        credentials,
        timeout=transport.timeout,
        ca_bundle=transport.ca_bundle,
        allow_http=transport.allow_http,
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
    return libraries(connection.ask(CallKind.GROUP_LIST, lambda service: service.group_list()))


def find_library(connection: Connection, group_id: str, *, ledger: Path | None = None) -> Library:
    """The library named `group_id`, of which `ledger` is the ledger, if there is one. Raises
    ServiceError where the account has none such."""
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
    answer = connection.ask(CallKind.LIST, lambda service: service.list(group_id=group_id, limit=1))
    return not faces(answer)
