"""The client of the FaceSearch service: one method a call, each of which returns an Answer."""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
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
from enroll.expiry import CLOCK_BOUND_SECONDS, SIGNED_BEYOND_SECONDS, ClockOffsets, signed_until
from enroll.facesearch.answers import SERVICE_CODES, OwnCode, classify
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


@dataclass(frozen=True, slots=True)
class PhotoPart:
    """The photo's part of a form: the head after its boundary, and the content."""

    head: bytes
    content: bytes = field(repr=False)


def photo_part(photo: Photo, send_as: SendAs) -> PhotoPart:
    """The `file` or `image` part for `photo`, whose media type is JPEG, PNG or BMP."""
    if send_as is SendAs.IMAGE:
        return PhotoPart(_field_head("image"), base64.b64encode(photo.content))
    name = _FILE_NAMES[photo.media_type]
    head = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
    return PhotoPart(
        f"{head}Content-Type: {photo.media_type}\r\n\r\n".encode("ascii"), photo.content
    )


def encode(fields: Mapping[str, str], photo: PhotoPart | None) -> tuple[tuple[bytes, ...], str]:
    """Body and content type of a form with `fields` in their order, and `photo` last.

    The body is in pieces, so that the photo is not copied for each call.
    """
    parts: list[bytes] = []
    for name, value in fields.items():
        parts += (_DELIMITER, _field_head(name), value.encode(), b"\r\n")
    if photo is None:
        return (b"".join([*parts, _END]),), _CONTENT_TYPE
    before = b"".join([*parts, _DELIMITER, photo.head])
    return (before, photo.content, b"\r\n" + _END), _CONTENT_TYPE


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


class FaceSearch:
    """An account's view of one endpoint. Safe to use from any thread.

    `sign_…` signs a call, which `send` makes, on any thread. Every other method signs and makes
    one of at most `timeout` seconds. They return what is known of it; none raises for what the
    network or the service does. Each thread has its own Session and connection, kept until
    `close`. UsageError for an endpoint that must not be used.
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
        self._endpoint = check_endpoint(endpoint, ca_bundle=ca_bundle, allow_http=allow_http)
        self._credentials = credentials
        self._secrets = frozenset({credentials.api_secret})
        self._timeout = timeout
        self._user_agent = user_agent
        self._clock = ServiceClock()
        self._threads = threading.local()
        self._sessions: list[PlainSession] = []
        self._retrying = Retrying(
            retry=retry_if_exception_type(NotSentError) & retry_if_not_exception_type(BlockedError),
            stop=stop_after_attempt(TRIES - 1) | stop_before_delay(TRYING_SECONDS),
            wait=wait_random(0.05, 0.3),
            reraise=True,
        )
        self._learning = threading.Lock()

    @property
    def clock_offset(self) -> float:
        """The service's clock minus ours in seconds; 0.0 until the first answer. At most
        `CLOCK_BOUND_SECONDS` either way."""
        return self._clock.offset

    @property
    def least_clock_offset(self) -> float:
        """The same, to say what has expired: lower, while answers contradict each other."""
        return self._clock.least

    @property
    def most_clock_offset(self) -> float:
        """The highest that any face so far may have been sent with."""
        return self._clock.most

    @property
    def clock_offsets(self) -> ClockOffsets:
        """Both, to be put on record."""
        return ClockOffsets(least=self._clock.least, most=self._clock.most)

    def clock_trouble(self) -> Answer | None:
        """What every call from now on is answered with, unsent, if the clocks are too far apart to
        sign anything: a signature would be refused, or be good for who knows how long."""
        if not self._clock.apart:
            return None
        both = self._clock.both()
        minutes = CLOCK_BOUND_SECONDS / 60
        message = f"{both[0].upper()}{both[1:]}, more than {minutes:.0f} minutes apart"
        return Answer(verdict=Verdict.FATAL, code=OwnCode.CLOCKS_APART.value, message=message)

    def use_credentials(self, credentials: Credentials) -> None:
        """Sign with `credentials` from now on, after a rotation; the clock stays known."""
        self._credentials = credentials
        self._secrets |= {credentials.api_secret}

    def expiry(self, *, within: float) -> int:
        """When a call expires, at the latest, that is signed `within` so many seconds from now:
        UNIX seconds on the service's clock as it is known now."""
        return signed_until(clock.time() + self._clock.offset + within, left=self._timeout)

    def sign_add(
        self,
        *,
        group_id: str,
        user_id: str,
        user_data: str,
        send_as: SendAs,
        multi_oriented_detection: bool,
    ) -> SignedCall | Answer:
        """Sign an `add`. Like all of these, an answer at once where nothing can be signed."""
        fields = {"group_id": group_id, "user_id": user_id}
        if user_data:
            fields["user_data"] = user_data
        if multi_oriented_detection:
            fields["multi_oriented_detection"] = "1"
        return self._sign(CallKind.ADD, fields, send_as)

    def sign_search(
        self,
        *,
        group_id: str,
        send_as: SendAs,
        limit: int = 1,
        threshold: float | None = None,
        multi_oriented_detection: bool = False,
    ) -> SignedCall | Answer:
        """Sign a `search`."""
        fields = {"group_id": group_id, "limit": str(limit)}
        if threshold is not None:
            fields["threshold"] = f"{threshold:g}"
        if multi_oriented_detection:
            fields["multi_oriented_detection"] = "1"
        return self._sign(CallKind.SEARCH, fields, send_as)

    def sign_list(self, *, group_id: str, start: int = 1, limit: int = 100) -> SignedCall | Answer:
        """Sign a `list`."""
        fields = {"group_id": group_id, "start": str(start), "limit": str(limit)}
        return self._sign(CallKind.LIST, fields)

    def add(
        self,
        *,
        group_id: str,
        user_id: str,
        user_data: str,
        photo: Photo,
        send_as: SendAs,
        multi_oriented_detection: bool,
    ) -> Answer:
        """Add a face to a library. Not idempotent: twice is two faces."""
        call = self.sign_add(
            group_id=group_id,
            user_id=user_id,
            user_data=user_data,
            send_as=send_as,
            multi_oriented_detection=multi_oriented_detection,
        )
        return self._made(call, photo)

    def search(
        self,
        *,
        group_id: str,
        photo: Photo,
        send_as: SendAs,
        limit: int = 1,
        threshold: float | None = None,
        multi_oriented_detection: bool = False,
    ) -> Answer:
        """Find the faces most like a photo's: at most `limit` (100), best first."""
        call = self.sign_search(
            group_id=group_id,
            send_as=send_as,
            limit=limit,
            threshold=threshold,
            multi_oriented_detection=multi_oriented_detection,
        )
        return self._made(call, photo)

    def list(self, *, group_id: str, start: int = 1, limit: int = 100) -> Answer:
        """One page of a library's faces from the `start`-th (1-based), at most `limit` (1000)."""
        return self._made(self.sign_list(group_id=group_id, start=start, limit=limit))

    def group_list(self) -> Answer:
        """The account's libraries."""
        return self._call(CallKind.GROUP_LIST, {})

    def group_info(self, *, group_id: str) -> Answer:
        """One library of the account."""
        return self._call(CallKind.GROUP_INFO, {"group_id": group_id})

    def face_info(self, *, group_id: str, face_token: str) -> Answer:
        """One face of a library."""
        return self._call(CallKind.FACE_INFO, {"group_id": group_id, "face_token": face_token})

    def create(
        self, *, group_id: str, group_name: str, group_data: str = "", model_version: str = ""
    ) -> Answer:
        """Make a library; an empty `model_version` leaves the choice to the service."""
        fields = {"group_id": group_id, "group_name": group_name}
        if group_data:
            fields["group_data"] = group_data
        if model_version:
            fields["model_version"] = model_version
        return self._call(CallKind.CREATE, fields)

    def delete(self, *, group_id: str, face_tokens: Sequence[str]) -> Answer:
        """Take faces out of a library, at most 1000."""
        fields = {"group_id": group_id, "face_tokens": ",".join(face_tokens)}
        return self._call(CallKind.DELETE, fields)

    def free(self, *, group_id: str, check_empty: bool = True) -> Answer:
        """Delete a library; with `check_empty` only one without faces."""
        fields = {"group_id": group_id, "check_empty": "1" if check_empty else "0"}
        return self._call(CallKind.FREE, fields)

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
        return f"FaceSearch({self._endpoint.base!r})"

    def _call(self, kind: CallKind, fields: Mapping[str, str]) -> Answer:
        return self._made(self._sign(kind, fields))

    def _made(self, call: SignedCall | Answer, photo: Photo | None = None) -> Answer:
        return call if isinstance(call, Answer) else self.send(call, photo)

    def _sign(
        self, kind: CallKind, fields: Mapping[str, str], send_as: SendAs = SendAs.FILE
    ) -> SignedCall | Answer:
        trouble = self.clock_trouble()
        if trouble is not None:
            return trouble
        account = self._credentials  # once: another thread may change it
        if kind is CallKind.ADD:
            with self._learning:
                offset = self._clock.offset_to_add()
        else:
            offset = self._clock.offset
        deadline = clock.monotonic() + self._timeout + LATE_SECONDS
        issued = clock.time() + offset
        expires = signed_until(issued, left=self._timeout)
        signature = sign(account, issued=int(issued), expires=expires, nonce=fresh_nonce())
        return SignedCall(
            kind=kind,
            # No page documents a field for the key: it is inside the signature.
            fields={"sign": signature, "sign_version": SIGN_VERSION, **fields},
            hidden=(signature, account.api_key),
            expires=expires,
            offset=offset,
            timeout=self._timeout,
            deadline=deadline,
            send_as=send_as,
        )

    def send(self, call: SignedCall, photo: Photo | None = None) -> Answer:
        """Make a signed call; what provably never left is tried again, for a second.

        One that has waited for its thread until its time was over does not leave.
        """
        started = clock.monotonic()
        part = None if photo is None else photo_part(photo, call.send_as)
        try:
            if started >= call.deadline - LATE_SECONDS:
                raise BlockedError("no thread was free for the call within its time")
            return self._attempted(call, part, started)
        except NotSentError as exc:
            return Answer(
                verdict=Verdict.BLOCKED if isinstance(exc, BlockedError) else Verdict.NOT_SENT,
                code=exc.code.value,
                message=str(exc),
                elapsed=clock.monotonic() - started,
            )

    def _attempted(self, call: SignedCall, photo: PhotoPart | None, started: float) -> Answer:
        try:
            return self._attempt(call, photo, started)
        except BlockedError:
            raise  # its place is of more use to another
        except NotSentError:  # rare, so that tenacity's bookkeeping is no part of a usual call
            return self._retrying(self._attempt, call, photo, started)

    def _attempt(self, call: SignedCall, photo: PhotoPart | None, started: float) -> Answer:
        """Send and judge once. Raises `NotSentError` only: any other failure is an answer."""
        sent = clock.time()
        deadline = min(started + call.timeout, call.deadline)
        outcome = self._exchange(self._request(call, photo), deadline - clock.monotonic())
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
        # Only what the service itself answered shows its clock; a gateway may have another.
        service_spoke = answer.request_id or answer.payload or answer.code in SERVICE_CODES
        if answer.server_time is not None and service_spoke:
            with self._learning:
                self._clock.learn(answer.server_time, sent=sent, received=received)
        return replace(answer, expires=call.expires, elapsed=clock.monotonic() - started)

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

    def _request(self, call: SignedCall, photo: PhotoPart | None) -> requests.PreparedRequest:
        """What Session.prepare_request would make, without its dealings in cookies and .netrc."""
        body, content_type = encode(call.fields, photo)
        request = requests.PreparedRequest()
        request.method = "POST"
        request.url = self._endpoint.url(call.kind)
        request.body = body  # type: ignore[assignment]  # in pieces, for our adapter
        request.headers = {  # type: ignore[assignment]  # our adapter only goes through them
            "User-Agent": self._user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": content_type,
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
