"""The client of the FaceSearch service: one method a call, each of which returns an Answer."""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import requests
from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random,
)
from urllib3.exceptions import HTTPError

from enroll import clock
from enroll.expiry import SIGNED_BEYOND_SECONDS, signed_until
from enroll.facesearch.answers import SERVICE_CODES, OwnCode, classify, redact
from enroll.facesearch.api import Call
from enroll.facesearch.endpoint import check_endpoint
from enroll.facesearch.signing import SIGN_VERSION, ServiceClock, fresh_nonce, sign
from enroll.facesearch.transport import PlainSession
from enroll.facesearch.wire import BlockedError, LostError, NotSentError
from enroll.model import Answer, CallKind, Credentials, Photo, SendAs, Verdict

_FILE_NAMES: Mapping[str, str] = {
    "image/jpeg": "photo.jpg",
    "image/png": "photo.png",
    "image/bmp": "photo.bmp",
}
"""The name that a photo travels under: the user's path often holds an id, so it stays here."""


_BOUNDARY = secrets.token_hex(16)
"""Of this process's forms: nobody who made a photo can know it."""
_DELIMITER = f"--{_BOUNDARY}\r\n".encode("ascii")
_END = f"--{_BOUNDARY}--\r\n".encode("ascii")
_CONTENT_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"


def _form(call: SignedCall, photo: Photo | None) -> tuple[bytes, ...]:
    """The form of a call, in pieces, so that the photo is not copied: its fields in their order,
    and last the photo, whose media type is JPEG, PNG or BMP."""
    parts: list[bytes] = []
    for name, value in call.fields.items():
        parts += (_DELIMITER, _field_head(name), value.encode(), b"\r\n")
    if photo is None:
        return (b"".join([*parts, _END]),)
    if call.send_as is SendAs.IMAGE:
        head, content = _field_head("image"), base64.b64encode(photo.content)
    else:
        lines = (
            f'Content-Disposition: form-data; name="file"; '
            f'filename="{_FILE_NAMES[photo.media_type]}"\r\n'
            f"Content-Type: {photo.media_type}\r\n\r\n"
        )
        head, content = lines.encode("ascii"), photo.content
    return b"".join([*parts, _DELIMITER, head]), content, b"\r\n" + _END


@cache
def _field_head(name: str) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode("ascii")


TRIES = 3
TRYING_SECONDS = 1.0
"""A call that provably never left is tried again within it; the driver waits longer."""


LATE_SECONDS = SIGNED_BEYOND_SECONDS / 2
"""How much later than it is signed a call may begin and still have its whole time."""


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A call that any holder can make, as it carries its signature and not the secret. It may take
    `timeout` seconds from its beginning, but must end by `deadline` (monotonic seconds).

    `fields` are those of the form, without the photo, which is sent as `send_as` says. `expires` is
    the UNIX second on the service's clock, which is `offset` seconds ahead of ours, at which the
    signature expires. `hidden` is removed from everything that the service says.
    """

    kind: CallKind
    fields: Mapping[str, str] = field(repr=False)
    hidden: tuple[str, ...] = field(repr=False)
    expires: int
    offset: float
    timeout: float
    deadline: float
    send_as: SendAs = SendAs.FILE


@dataclass(frozen=True, slots=True)
class Way:
    """How calls get to the service; see `enroll.facesearch.endpoint.check_endpoint`. It has no
    secret, so that workers may know it."""

    endpoint: str
    ca_bundle: Path | None = None
    allow_http: bool = False
    user_agent: str = "enroll"


class Courier:
    """Makes signed calls, and knows no secret. Safe to use from any thread.

    None raises for what the network or the service does. Each thread has its own Session and
    connection, kept until `close`. UsageError for an endpoint that must not be used.
    """

    def __init__(self, way: Way) -> None:
        self.way = way
        self.clock = ServiceClock()
        self._endpoint = check_endpoint(
            way.endpoint, ca_bundle=way.ca_bundle, allow_http=way.allow_http
        )
        self._secrets: frozenset[str] = frozenset()
        self._threads = threading.local()
        self._sessions: list[PlainSession] = []
        self._retrying = Retrying(
            retry=retry_if_exception_type(NotSentError) & retry_if_not_exception_type(BlockedError),
            stop=stop_after_attempt(TRIES - 1) | stop_before_delay(TRYING_SECONDS),
            wait=wait_random(0.05, 0.3),
            reraise=True,
        )

    def send(self, call: SignedCall, photo: Photo | None = None) -> Answer:
        """Make a signed call; what provably never left is tried again, for a second.

        One that has waited for its thread until its time was over does not leave.
        """
        started = clock.monotonic()
        request = self._request(call, photo)
        try:
            if started >= call.deadline - LATE_SECONDS:
                raise BlockedError("no thread was free for the call within its time")
            return self._attempted(call, request, started)
        except NotSentError as exc:
            return Answer(
                verdict=Verdict.BLOCKED if isinstance(exc, BlockedError) else Verdict.NOT_SENT,
                code=exc.code.value,
                message=str(exc),
                elapsed=clock.monotonic() - started,
            )

    def _attempted(
        self, call: SignedCall, request: requests.PreparedRequest, started: float
    ) -> Answer:
        try:
            return self._attempt(call, request, started)
        except BlockedError:
            raise  # its place is of more use to another
        except NotSentError:  # rare, so that tenacity's bookkeeping is no part of a usual call
            return self._retrying(self._attempt, call, request, started)

    def _attempt(
        self, call: SignedCall, request: requests.PreparedRequest, started: float
    ) -> Answer:
        """Send and judge once. Raises `NotSentError` only: any other failure is an answer."""
        sent = clock.time()
        deadline = min(started + call.timeout, call.deadline)
        outcome = self._exchange(request, deadline - clock.monotonic())
        received = clock.time()
        broken: tuple[OwnCode, str] | None = None
        if isinstance(outcome, LostError):
            if outcome.response is None:
                return Answer(
                    verdict=Verdict.UNKNOWN,
                    code=outcome.code.value,
                    message=str(outcome),
                    expires=call.expires,
                    elapsed=clock.monotonic() - started,
                )
            response, broken = outcome.response, (outcome.code, str(outcome))
        else:
            response = outcome
        answer = classify(
            call.kind,
            status=response.status_code,
            headers=response.headers,
            body=b"" if broken else response.content,
            now=received + call.offset,
            broken=broken,
            secrets=(*call.hidden, *self._secrets),
        )
        self.learn(answer, sent=sent, received=received)
        return replace(answer, expires=call.expires, elapsed=clock.monotonic() - started)

    def learn(self, answer: Answer, *, sent: float, received: float) -> None:
        """Learn the service's clock from the answer to a call that lasted from `sent` to
        `received`, UNIX seconds by ours."""
        # Only what the service itself answered shows its clock; a gateway may have another.
        service_spoke = answer.request_id or answer.payload or answer.code in SERVICE_CODES
        if answer.server_time is not None and service_spoke:
            self.clock.learn(answer.server_time, sent=sent, received=received)

    def _exchange(
        self, request: requests.PreparedRequest, left: float
    ) -> requests.Response | LostError:
        """Send within `left` seconds; the one place where foreign exceptions are mapped."""
        try:
            return self._session().send(
                request,
                timeout=left,
                verify=self._endpoint.verify,
                proxies=dict(self._endpoint.proxies),
                allow_redirects=False,
            )
        except NotSentError:
            raise
        except LostError as exc:
            return exc
        except (OSError, http.client.HTTPException, HTTPError) as exc:
            # Not what the adapter promises to raise, so nothing that would prove "not sent".
            message = f"the exchange failed: {type(exc).__name__}"
            return LostError(OwnCode.CONNECTION_LOST, message)

    def _request(self, call: SignedCall, photo: Photo | None) -> requests.PreparedRequest:
        """What Session.prepare_request would make, without its dealings in cookies and .netrc."""
        body = _form(call, photo)
        request = requests.PreparedRequest()
        request.method = "POST"
        request.url = self._endpoint.url(call.kind)
        request.body = body  # type: ignore[assignment]  # in pieces, for our adapter
        request.headers = {  # type: ignore[assignment]  # our adapter only goes through them
            "User-Agent": self.way.user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": _CONTENT_TYPE,
            "Content-Length": str(sum(map(len, body))),
        }
        return request

    def _session(self) -> requests.Session:
        """This thread's Session; after a fork a new one, so that no connection is shared."""
        threads = self._threads
        if getattr(threads, "process", None) != os.getpid():
            threads.process = os.getpid()
            threads.session = PlainSession()
            self._sessions.append(threads.session)
        session: PlainSession = threads.session
        return session

    def let_go(self) -> None:
        """Close every resting connection, where this machine has none left; calls go on."""
        for session in list(self._sessions):
            session.let_go()

    def close(self) -> None:
        """Close every resting connection; a call under way closes its own at its end."""
        while self._sessions:
            self._sessions.pop().close()
        self._threads = threading.local()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.base!r})"


class FaceSearch(Courier):
    """An account's view of one endpoint, and the courier that makes its calls.

    `sign` signs a call, which `send` makes, on any thread; `make` does both. A call takes at most
    `timeout` seconds.
    """

    def __init__(
        self,
        endpoint: str,
        credentials: Credentials,
        *,
        timeout: float,
        ca_bundle: Path | None = None,
        allow_http: bool = False,
        user_agent: str = "enroll",
    ) -> None:
        super().__init__(Way(endpoint, ca_bundle, allow_http, user_agent))
        self._credentials = credentials
        self._secrets = frozenset({credentials.api_secret})
        self._timeout = timeout

    def use_credentials(self, credentials: Credentials) -> None:
        """Sign with `credentials` from now on, after a rotation; the clock stays known."""
        self._credentials = credentials
        self._secrets |= {credentials.api_secret}

    def expiry(self, *, within: float) -> int:
        """When a call expires, at the latest, that is signed `within` so many seconds from now:
        UNIX seconds on the service's clock as it is known now."""
        return signed_until(clock.time() + self.clock.offset + within, left=self._timeout)

    def make(self, call: Call, photo: Photo | None = None) -> Answer:
        """Sign a call and make it."""
        signed = self.sign(call)
        return signed if isinstance(signed, Answer) else self.send(signed, photo)

    def sign(self, call: Call) -> SignedCall | Answer:
        """Sign a call; an answer at once if the clocks are too far apart to sign anything."""
        trouble = self.clock.trouble()
        if trouble is not None:
            return trouble
        account = self._credentials  # once: another thread may change it
        adds = call.kind is CallKind.ADD
        offset = self.clock.offset_to_add() if adds else self.clock.offset
        deadline = clock.monotonic() + self._timeout + LATE_SECONDS
        issued = clock.time() + offset
        expires = signed_until(issued, left=self._timeout)
        signature = sign(account, issued=int(issued), expires=expires, nonce=fresh_nonce())
        return SignedCall(
            kind=call.kind,
            # No page documents a field for the key: it is inside the signature.
            fields={"sign": signature, "sign_version": SIGN_VERSION, **call.fields},
            hidden=(signature, account.api_key),
            expires=expires,
            offset=offset,
            timeout=self._timeout,
            deadline=deadline,
            send_as=call.send_as,
        )

    def judged(self, answer: Answer, *, sent: float, received: float) -> Answer:
        """An answer that a courier elsewhere has received, without our secrets, of which it knew
        none; the call lasted at most from `sent` to `received`, UNIX seconds by our clock."""
        self.learn(answer, sent=sent, received=received)
        if answer.verdict is Verdict.APPLIED:
            return answer
        return replace(
            answer,
            message=redact(answer.message, self._secrets),
            request_id=redact(answer.request_id, self._secrets),
            raw=redact(answer.raw, self._secrets),
        )
