"""The opening calls of a run: credentials, clock and library are proved before a photo is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from enroll import __version__
from enroll.errors import ServiceError, UsageError
from enroll.facesearch import FaceSearch, faces, libraries
from enroll.facesearch.clock import CLOCK_SLACK_SECONDS, clock_remark
from enroll.facesearch.codes import CREDENTIAL_CODES
from enroll.model import Answer, CallKind, Credentials, Library, Verdict
from enroll.session.patience import Patience, Wait, unreached
from enroll.tally import Tally
from enroll.text.remedies import call_remedy

Announce = Callable[[str, str], None]
"""Is told of an endpoint, and in words of the credentials, before the first call is signed."""


def unheard(endpoint: str, credentials: str) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An endpoint and the credentials for it, read again on request as they may be exchanged.

    `timeout` is the seconds that a whole call may take; `patience` says how long the opening
    calls wait.
    """

    endpoint: str
    read_credentials: Callable[[], Credentials]
    timeout: float
    ca_bundle: Path | None = None
    allow_http: bool = False
    patience: Patience = field(default_factory=Patience)
    announce: Announce = unheard

    def connect(self, credentials: Credentials) -> FaceSearch:
        """The service, for these credentials. Raises UsageError for an unusable endpoint."""
        return FaceSearch(
            self.endpoint,
            credentials,
            timeout=self.timeout,
            ca_bundle=self.ca_bundle,
            allow_http=self.allow_http,
            user_agent=f"enroll/{__version__}",
        )

    def open(self) -> Connection:
        """A connection with the credentials as they are now. Raises UsageError without any."""
        credentials = self.read_credentials()
        service = self.connect(credentials)
        self.announce(self.endpoint, credentials.described)
        return Connection(self, credentials, service)


@dataclass(slots=True)
class Connection:
    """A service and the credentials that it was made with."""

    account: Account
    credentials: Credentials
    service: FaceSearch

    def close(self) -> None:
        """Let go of the service's connections."""
        self.service.close()

    def renew(self) -> bool:
        """Read the credentials once more, and sign with them if they have changed; whether so."""
        try:
            credentials = self.account.read_credentials()
        except UsageError:
            return False
        if credentials == self.credentials:
            return False
        self.credentials = credentials
        self.service.use_credentials(credentials)
        return True

    def others_than(self, refused: Credentials | None) -> bool:
        """Whether there are other credentials than those that a call was refused with."""
        return refused is not self.credentials or self.renew()


def list_libraries(connection: Connection, tally: Tally) -> list[Library]:
    """The account's libraries. Raises ServiceError, naming what stands in the way, and
    UnreachedError when that took longer than we were told to wait."""
    answer = ask(lambda service: service.group_list(), connection, tally, CallKind.GROUP_LIST)
    return libraries(answer)


def find_library(
    connection: Connection, group_id: str, tally: Tally, *, ledger: Path | None = None
) -> Library:
    """The library named `group_id`, of which `ledger` is the ledger, if there is one. Raises
    ServiceError where the account has none such."""
    found = list_libraries(connection, tally)
    for library in found:
        if library.group_id == group_id:
            return library
    names = ", ".join(sorted(library.group_id for library in found)) or "none at all"
    if ledger is not None:
        raise ServiceError(
            f"The account has no library {group_id!r}; it has {names}. The ledger {ledger} is of "
            "one that it had: correct --group-id, or the credentials, or if the library was "
            "deleted move that ledger away, and begin anew with --create-library."
        )
    raise ServiceError(
        f"The account has no library {group_id!r}; it has {names}. Correct --group-id, or make it "
        f"with `enroll library create --group-id {group_id}`."
    )


def is_empty(connection: Connection, group_id: str, tally: Tally) -> bool:
    """Whether a library holds no face. Raises ServiceError."""
    answer = ask(
        lambda service: service.list(group_id=group_id, limit=1), connection, tally, CallKind.LIST
    )
    return not faces(answer)


def ask(
    call: Callable[[FaceSearch], Answer], connection: Connection, tally: Tally, kind: CallKind
) -> Answer:
    """Make a call that changes nothing, until it comes through or patience is at its end.

    Raises ServiceError, and UnreachedError as `list_libraries`.
    """
    wait = Wait(connection.account.patience)
    renewed = False
    while True:
        answer = call(connection.service)
        if answer.left:
            tally.calls[kind] += 1
        # What this answer tells of the clock holds for the next call, and nothing is begun that
        # could not go on.
        answer = connection.service.clock_trouble() or answer
        if answer.verdict is Verdict.APPLIED:
            wait.answered()
            return answer
        if answer.code in CREDENTIAL_CODES and not renewed:
            # The client has learned the service's clock from this very answer, and somebody may
            # have exchanged the credentials: once more is worth it.
            renewed = True
            changed = connection.renew()
            if changed or abs(connection.service.clock_offset) > CLOCK_SLACK_SECONDS:
                continue
        pause = wait.pause(answer)
        if pause is None:
            raise failed(answer, connection)
        time.sleep(pause)


ITS_OWN_WORD = "That is the service's own word, not known to us: ask its vendor what lifts it."


def failed(answer: Answer, connection: Connection) -> ServiceError:
    """The error for a call that adds no face and whose answer stands: the service was away or had
    no place for it (UnreachedError), will not do it, or does not seem to be the service."""
    away = answer.verdict in (Verdict.NOT_SENT, Verdict.UNKNOWN, Verdict.REFUSED)
    if away and not connection.account.patience.seems_a_mistake(answer):
        return unreached(answer)
    return ServiceError(service_sentence(answer, connection))


def service_sentence(answer: Answer, connection: Connection) -> str:
    """What to say when the service answers that it will not do what is asked."""
    said = (answer.message or answer.code).rstrip(".")
    clocks = clock_remark(answer, connection.service.clock_offset)
    todo = call_remedy(answer.code, used=connection.credentials) or ITS_OWN_WORD
    return " ".join(filter(None, [f"The service cannot be used: {said}.", clocks, todo]))
