"""The calls of `enroll probe`: right and wrong ones, each counted, and never too many."""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace
from enum import StrEnum

from PIL import Image

from enroll import clock
from enroll.allowed import MAX_TIMEOUT_SECONDS
from enroll.expiry import signed_until
from enroll.facesearch import Call, FaceSearch, SignedCall
from enroll.facesearch.endpoint import API_PATH
from enroll.facesearch.signing import fresh_nonce, sign
from enroll.model import Answer, CallKind, Credentials, FileTimes, Photo, SendAs, Verdict
from enroll.session.account import Connection
from enroll.settings import CallSettings
from enroll.threads import Threads

MOST_CALLS = 60
"""A probe makes at most as many, those that clean up included."""

KEPT_BACK = 3
"""Calls that are kept for removing the library."""

TRIES = 3
TRY_AGAIN_SECONDS = 2.0
"""A call that was refused because of the account's limit, or that was not answered, is made again
a few times: other programs may be using the account."""

LONGEST_PAUSE_SECONDS = 30.0
"""Whatever the service asks for: somebody is waiting for the probe."""

CLEANING_TRIES = 5
"""How often at most a library is deleted, after pauses that double: half a minute in all."""

PAIR_HEIGHT = 320
"""Pixels: enough for a face in each of the two pictures."""

STEP_SECONDS = 0.25
"""How soon a wait notices that the probe was interrupted."""


class StoppedError(Exception):
    """The probe was interrupted, or has no call left: what follows is left out."""


class Signing(StrEnum):
    """How a call of a probe is signed."""

    USUAL = "usual"
    FORGED = "forged"
    """With another secret."""
    EXPIRED = "expired"
    """Good until `EXPIRED_SECONDS` ago."""
    LONGEST = "longest"
    """From `AHEAD_SECONDS` from now, for the longest time that enroll may give a call."""
    SINGLE = "single"
    """Good for one call only."""
    AS_BEFORE = "as before"
    """With the very signature of the call before."""


EXPIRED_SECONDS = 5
"""For how long an expired signature has been expired: a service that accepted it would allow calls
to be carried out after enroll takes them for lost."""

AHEAD_SECONDS = 2
"""How far a signature's time may be ahead: enroll knows the service's clock that exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawCall:
    """A call as it is sent, which may break the service's rules.

    `both` sends the photo as `image` and as `file`. `elsewhere` sends it to a path that the service
    does not have.
    """

    kind: CallKind
    fields: Mapping[str, str]
    photo: Photo | None = None
    send_as: SendAs = SendAs.FILE
    both: bool = False
    signing: Signing = Signing.USUAL
    elsewhere: bool = False

    @property
    def once(self) -> bool:
        """Whether it changes something, so that it is not repeated if its answer is lost."""
        return self.kind in (CallKind.ADD, CallKind.CREATE, CallKind.DELETE, CallKind.FREE)


class ProbeCalls:
    """Makes the calls of a probe on a connection, until `interrupt`."""

    def __init__(self, connection: Connection, settings: CallSettings) -> None:
        self.connection = connection
        self._settings = settings
        self._signature = ""
        self.signal: int | None = None
        """The signal that has interrupted the probe."""
        self.seconds: list[float] = []
        """How long each answered call took."""
        self.bare: Counter[str] = Counter()
        """The answers without `request_id` or `time_used`, by code."""
        self.undated = 0
        """How many answers had no `Date`."""

    @property
    def made(self) -> int:
        """How many calls may have reached the service."""
        return self.connection.tally.calls.total()

    @property
    def left(self) -> int:
        """How many calls may still be made before the library is removed."""
        return MOST_CALLS - KEPT_BACK - self.made

    def interrupt(self, signal_number: int) -> None:
        """Make no further call but those that clean up. Safe in a signal handler."""
        self.signal = signal_number

    def make(self, call: RawCall, *, cleans_up: bool = False) -> Answer:
        """Make a call and return its answer. One that the account had no slot for is made again a
        few times, and one whose answer is lost once more, if it may be repeated.

        Raises StoppedError, and ServiceError if the service is away.
        """
        most = CLEANING_TRIES if cleans_up else TRIES
        for tries in range(1, most + 1):
            if not cleans_up:
                self._check()
            answer = self._make_once(call)
            again = answer.verdict in (Verdict.REFUSED, Verdict.NOT_SENT, Verdict.BLOCKED)
            if answer.verdict is Verdict.UNKNOWN:
                again = cleans_up or (tries == 1 and not call.once)
            if not again or tries == most or (self.made >= MOST_CALLS and cleans_up):
                break
            longer = 2.0 ** (tries - 1) if cleans_up else 1.0
            pause = answer.retry_after or TRY_AGAIN_SECONDS * longer
            self.wait(min(pause, LONGEST_PAUSE_SECONDS), cleans_up=cleans_up)
        if answer.verdict in (Verdict.NOT_SENT, Verdict.BLOCKED, Verdict.REFUSED):
            raise self.connection.failed(answer)
        return answer

    def at_once(self, call: RawCall, count: int) -> list[Answer]:
        """The answers to a call that is made `count` times at the same time."""
        self._check()
        with Threads(count) as threads:
            tasks = [threads.submit(self._send, call) for _ in range(count)]
            wait(tasks)
        answers = [task.result() for task in tasks]
        for answer in answers:
            self._count(call.kind, answer)
        return answers

    def wait(self, seconds: float, *, cleans_up: bool = False) -> None:
        """Wait. Raises StoppedError when interrupted meanwhile."""
        until = clock.monotonic() + seconds
        while (left := until - clock.monotonic()) > 0:
            if not cleans_up:
                self._check()
            clock.sleep(min(left, STEP_SECONDS))

    def now(self) -> float:
        """UNIX seconds on the service's clock."""
        return clock.time() + self.connection.service.clock.offset

    def _check(self) -> None:
        if self.signal is not None or self.left <= 0:
            raise StoppedError

    def _make_once(self, call: RawCall) -> Answer:
        answer = self._send(call)
        self._count(call.kind, answer)
        return answer

    def _count(self, kind: CallKind, answer: Answer) -> None:
        if not answer.may_have_arrived:
            return
        self.connection.tally.calls[kind] += 1
        if answer.verdict is Verdict.UNKNOWN:
            return
        self.seconds.append(answer.elapsed)
        self.undated += answer.server_time is None
        if not answer.request_id or answer.time_used is None:
            self.bare[answer.code] += 1

    def _send(self, call: RawCall) -> Answer:
        """Sign and send once, on any thread."""
        service = self.connection.service
        fields = dict(call.fields)
        if call.both and call.photo is not None:
            fields["image"] = base64.b64encode(call.photo.content).decode("ascii")
        signed = service.sign(Call(call.kind, fields, call.send_as))
        if isinstance(signed, Answer):
            raise self.connection.failed(signed)
        if call.signing is not Signing.USUAL:
            signed = self._signed_otherwise(signed, call.signing)
        self._signature = signed.fields["sign"]
        if not call.elsewhere:
            return service.send(signed, call.photo)
        base = f"{self.connection.endpoint.rstrip('/')}{API_PATH}none"
        settings = self._settings
        other = FaceSearch(
            base,
            self.connection.credentials,
            timeout=settings.timeout,
            ca_bundle=settings.ca_bundle,
            allow_http=settings.allow_http,
        )
        try:
            return other.send(signed, call.photo)
        finally:
            other.close()

    def _signed_otherwise(self, signed: SignedCall, signing: Signing) -> SignedCall:
        account, now = self.connection.credentials, int(self.now())
        issued, expires = now, signed.expires
        if signing is Signing.FORGED:
            account = Credentials(account.api_key, f"{account.api_secret[::-1]}0")
        elif signing is Signing.EXPIRED:
            expires = now - EXPIRED_SECONDS
            issued = expires - 60
        elif signing is Signing.LONGEST:
            issued = now + AHEAD_SECONDS
            expires = signed_until(issued, left=MAX_TIMEOUT_SECONDS)
        elif signing is Signing.SINGLE:
            expires = 0
        wrong = sign(account, issued=issued, expires=expires, nonce=fresh_nonce())
        if signing is Signing.AS_BEFORE:
            wrong = self._signature
        fields = {**signed.fields, "sign": wrong}
        return replace(signed, fields=fields, hidden=(*signed.hidden, wrong))


def probe_photo(content: bytes, media_type: str = "image/jpeg") -> Photo:
    """A photo of these bytes, as a call takes it."""
    return Photo(
        times=FileTimes(size=len(content), mtime_ns=0, ctime_ns=0),
        sha256=hashlib.sha256(content).digest(),
        media_type=media_type,
        content=content,
    )


def as_jpeg(content: bytes) -> bytes:
    """A picture as JPEG; one that is a JPEG stays as it is."""
    if content.startswith(b"\xff\xd8\xff"):
        return content
    with Image.open(io.BytesIO(content)) as picture:
        return _saved(picture.convert("RGB"), "JPEG", quality=95)


def resized(content: bytes, size: tuple[int, int], kind: str = "JPEG") -> bytes:
    """A picture of `size`, in pixels, in greys."""
    with Image.open(io.BytesIO(content)) as picture:
        return _saved(picture.convert("L").resize(size), kind)


def as_gif(content: bytes) -> bytes:
    """A picture as GIF."""
    with Image.open(io.BytesIO(content)) as picture:
        return _saved(picture.convert("L"), "GIF")


def turned_pair(large: bytes, small: bytes) -> bytes:
    """Two pictures side by side, the second half as high as the first, lying on their side."""
    one, other = _of_height(large, PAIR_HEIGHT), _of_height(small, PAIR_HEIGHT // 2)
    pair = Image.new("RGB", (one.width + other.width, one.height), "white")
    pair.paste(one, (0, 0))
    pair.paste(other, (one.width, 0))
    return _saved(pair.rotate(90, expand=True), "JPEG", quality=95)


def _of_height(content: bytes, height: int) -> Image.Image:
    with Image.open(io.BytesIO(content)) as picture:
        size = max(picture.width * height // picture.height, 1), height
        return picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)


def padded(jpeg: bytes, length: int) -> bytes:
    """A JPEG of exactly `length` bytes that shows the same: with comments behind its first two
    bytes. `length` is at least 10 bytes more than it has."""
    comments: list[bytes] = []
    missing = length - len(jpeg)
    while missing:
        whole = min(missing, _LONGEST_COMMENT)
        if 0 < missing - whole < _COMMENT_HEAD:
            whole -= _COMMENT_HEAD
        comments.append(b"\xff\xfe" + (whole - 2).to_bytes(2, "big") + b" " * (whole - 4))
        missing -= whole
    return jpeg[:2] + b"".join(comments) + jpeg[2:]


_COMMENT_HEAD = 4
_LONGEST_COMMENT = 65_535


def _saved(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def median(seconds: Sequence[float]) -> float | None:
    """The middle one; None of none."""
    return sorted(seconds)[len(seconds) // 2] if seconds else None
