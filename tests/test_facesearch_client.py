"""The client: fields, signatures, verdicts, secrets, threads; over real HTTP on loopback."""

from __future__ import annotations

import base64
import concurrent.futures
import http.client
import json
import math
import os
import re
import socket
import ssl
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
import requests
import urllib3
from cases import cases
from facesearch_servers import (
    ADDED,
    TOKEN,
    Peer,
    Server,
    answer,
    answering,
    form_fields,
    free_port,
    header,
)

from enroll.errors import UsageError
from enroll.facesearch import Call, FaceSearch, OwnCode, SignedCall
from enroll.facesearch.signing import sign
from enroll.facesearch.transport import DeadlineAdapter
from enroll.facesearch.wire import NotSentError
from enroll.model import Answer, CallKind, Credentials, FileTimes, Photo, SendAs, Verdict

KEY, SECRET = "Kq83hTz0bLwYv5RmXc17", "Sx94kPe2nGdUa6JfWo08"
CREDENTIALS = Credentials(KEY, SECRET)
PHOTO = Photo(
    times=FileTimes(3, 0, 0),
    sha256=b"\0" * 32,
    content=b"\xff\xd8\r\n--x\0" * 1000,
    media_type="image/jpeg",
)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def client_of() -> Iterator[Callable[..., FaceSearch]]:
    """Makes clients of a server's port, and closes them."""
    made: list[FaceSearch] = []

    def make(port: int, *, timeout: float = 10.0) -> FaceSearch:
        client = FaceSearch(f"http://127.0.0.1:{port}", CREDENTIALS, timeout=timeout)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


ClientOf = Callable[..., FaceSearch]


def add(client: FaceSearch, *, photo: Photo = PHOTO, send_as: SendAs = SendAs.FILE) -> Answer:
    call = Call.add(
        group_id="g",
        user_id="u",
        user_data="",
        send_as=send_as,
        multi_oriented_detection=False,
    )
    return client.make(call, photo)


def signed_parts(fields: dict[str, bytes]) -> dict[str, str]:
    """What the signature says: a, b, c and d."""
    raw = base64.b64decode(fields["sign"])[20:].decode()
    return dict(part.split("=", 1) for part in raw.split("&"))


def test_an_added_face_comes_back_with_its_token(client_of: ClientOf) -> None:
    with Server(answering(answer())) as server:
        result = add(client_of(server.port))
    assert (result.verdict, result.face_token) == (Verdict.APPLIED, TOKEN)
    assert (result.http_status, result.request_id) == (200, "r1")
    assert 0 < result.elapsed < 10


def test_add_sends_the_photo_as_a_file_under_a_neutral_name(client_of: ClientOf) -> None:
    with Server(answering(answer())) as server:
        add(client_of(server.port))
    request = server.seen.requests[0]
    fields = form_fields(request)
    assert request.startswith(b"POST /finauth/search/group/add HTTP/1.1\r\n")
    assert list(fields) == ["sign", "sign_version", "group_id", "user_id", "file"]
    assert fields["file"] == PHOTO.content
    assert (fields["group_id"], fields["user_id"]) == (b"g", b"u")
    assert fields["sign_version"] == b"hmac_sha1"
    assert b'name="file"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n' in request


@pytest.mark.parametrize(
    ("media_type", "name"),
    [("image/png", b"photo.png"), ("image/bmp", b"photo.bmp")],
)
def test_the_file_name_follows_the_media_type(
    client_of: ClientOf, media_type: str, name: bytes
) -> None:
    photo = Photo(times=PHOTO.times, sha256=PHOTO.sha256, content=b"\x89PNG", media_type=media_type)
    with Server(answering(answer())) as server:
        add(client_of(server.port), photo=photo)
    assert b'filename="' + name + b'"' in server.seen.requests[0]


def test_add_sends_the_photo_as_base64_when_asked(client_of: ClientOf) -> None:
    with Server(answering(answer())) as server:
        add(client_of(server.port), send_as=SendAs.IMAGE)
    fields = form_fields(server.seen.requests[0])
    assert "file" not in fields
    assert base64.b64decode(fields["image"], validate=True) == PHOTO.content


def test_add_sends_what_is_optional_only_where_it_says_something(client_of: ClientOf) -> None:
    with Server(answering(answer())) as server:
        call = Call.add(
            group_id="g",
            user_id="a-%@#&_1",
            user_data='Zoë "\r\n--',
            send_as=SendAs.FILE,
            multi_oriented_detection=True,
        )
        client_of(server.port).make(call, PHOTO)
    fields = form_fields(server.seen.requests[0])
    assert fields["user_id"] == b"a-%@#&_1"
    assert fields["user_data"].decode() == 'Zoë "\r\n--'
    assert fields["multi_oriented_detection"] == b"1"


@pytest.mark.parametrize(
    ("call", "path", "expected"),
    [
        (Call.group_list(), "group_list", {}),
        (Call.group_info(group_id="g"), "group_info", {"group_id": b"g"}),
        (
            Call.create(group_id="g", group_name="n"),
            "create",
            {"group_id": b"g", "group_name": b"n"},
        ),
        (
            Call.create(group_id="g", group_name="n", group_data="d", model_version="s21"),
            "create",
            {"group_id": b"g", "group_name": b"n", "group_data": b"d", "model_version": b"s21"},
        ),
        (
            Call.list(group_id="g", start=101, limit=1000),
            "list",
            {"group_id": b"g", "start": b"101", "limit": b"1000"},
        ),
        (
            Call.face_info(group_id="g", face_token=TOKEN),
            "face_info",
            {"group_id": b"g", "face_token": TOKEN.encode()},
        ),
        (
            Call.delete(group_id="g", face_tokens=["a", "b"]),
            "delete",
            {"group_id": b"g", "face_tokens": b"a,b"},
        ),
        (Call.free(group_id="g"), "free", {"group_id": b"g", "check_empty": b"1"}),
        (
            Call.free(group_id="g", check_empty=False),
            "free",
            {"group_id": b"g", "check_empty": b"0"},
        ),
        (
            Call.search(
                group_id="g",
                send_as=SendAs.FILE,
                limit=100,
                threshold=10.0,
                multi_oriented_detection=True,
            ),
            "search",
            {
                "group_id": b"g",
                "limit": b"100",
                "threshold": b"10",
                "multi_oriented_detection": b"1",
                "file": PHOTO.content,
            },
        ),
        (
            Call.search(group_id="g", send_as=SendAs.IMAGE),
            "search",
            {"group_id": b"g", "limit": b"1", "image": base64.b64encode(PHOTO.content)},
        ),
    ],
)
def test_each_call_sends_the_documented_fields(
    client_of: ClientOf,
    call: Call,
    path: str,
    expected: dict[str, bytes],
) -> None:
    with Server(answering(answer(b"{}"))) as server:
        photo = PHOTO if call.kind is CallKind.SEARCH else None
        result = client_of(server.port).make(call, photo)
    request = server.seen.requests[0]
    assert request.startswith(f"POST /finauth/search/group/{path} HTTP/1.1\r\n".encode())
    fields = form_fields(request)
    assert fields.keys() == {"sign", "sign_version", *expected}
    assert {name: fields[name] for name in expected} == expected
    assert result.verdict is Verdict.UNKNOWN  # {} proves nothing


def test_the_signature_is_the_documented_one_and_outlives_the_deadline(client_of: ClientOf) -> None:
    before = time.time()
    with Server(answering(answer())) as server:
        result = add(client_of(server.port, timeout=30.0))
    after = time.time()
    fields = form_fields(server.seen.requests[0])
    parts = signed_parts(fields)
    issued, expires = int(parts["c"]), int(parts["b"])
    assert fields["sign"].decode() == sign(
        CREDENTIALS, issued=issued, expires=expires, nonce=int(parts["d"])
    )
    assert math.floor(before) <= issued <= after
    assert before + 32 <= expires <= after + 33
    assert result.expires == expires


def test_each_call_has_a_fresh_number(client_of: ClientOf) -> None:
    with Server(answering(answer())) as server:
        client = client_of(server.port)
        for _ in range(5):
            add(client)
    numbers = {signed_parts(form_fields(request))["d"] for request in server.seen.requests}
    assert len(numbers) == 5
    assert all(re.fullmatch(r"\d{10}", number) for number in numbers)


def date_header(seconds: float) -> str:
    date = format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)
    return f"Date: {date}\r\n"


def test_signatures_are_on_the_services_clock_once_it_is_known(client_of: ClientOf) -> None:
    def ten_minutes_ahead(peer: Peer) -> None:
        while True:
            peer.read_request()
            peer.answer(headers=date_header(time.time() + 600))

    with Server(ten_minutes_ahead) as server:
        client = client_of(server.port, timeout=5.0)
        assert client.clock.offset == 0.0
        add(client)
        assert client.clock.offset == pytest.approx(600, abs=3)
        called = time.time()
        result = add(client)
    parts = signed_parts(form_fields(server.seen.requests[1]))
    assert int(parts["c"]) == pytest.approx(called + 600, abs=4)
    assert result.expires == int(parts["b"])
    assert result.expires - called == pytest.approx(600 + 7, abs=5)


def test_a_refused_signature_teaches_the_clock_as_well(client_of: ClientOf) -> None:
    reply = answer(
        b'{"error": "AUTHORIZATION_ERROR"}',
        status="403 Forbidden",
        headers=date_header(time.time() - 600),
    )
    with Server(answering(reply)) as server:
        client = client_of(server.port)
        assert add(client).verdict is Verdict.FATAL
        assert client.clock.offset == pytest.approx(-600, abs=5)


@pytest.mark.parametrize("hours", [1, -1, 24 * 365 * 73, 24 * 365 * 7000])
def test_nothing_is_signed_while_the_clocks_are_more_than_a_quarter_hour_apart(
    client_of: ClientOf, hours: int
) -> None:
    date = min(time.time() + hours * 3600, datetime(9999, 12, 31, tzinfo=UTC).timestamp())
    with Server(answering(answer(headers=date_header(date)))) as server:
        client = client_of(server.port)
        assert client.clock.trouble() is None
        assert add(client).verdict is Verdict.APPLIED  # what it says of the face holds
        for _ in range(2):
            refused = add(client)
            assert (refused.verdict, refused.code) == (Verdict.FATAL, "CLOCKS_APART")
    assert len(server.seen.requests) == 1
    theirs = datetime.fromtimestamp(date, UTC)
    assert f"This machine's clock says {datetime.now(UTC):%Y-%m-%d %H:}" in refused.message
    assert f"the service's {theirs:%Y-%m-%d }" in refused.message


def test_one_wrong_date_moves_no_signature(client_of: ClientOf) -> None:
    right = answer(headers=date_header(time.time()))
    wrong = answer(headers=date_header(4_000_000_000))
    with Server(answering(right, right, right, wrong, right)) as server:
        client = client_of(server.port)
        results = [add(client) for _ in range(5)]
    assert [result.verdict for result in results] == [Verdict.APPLIED] * 5
    for request, result in zip(server.seen.requests, results, strict=True):
        assert int(signed_parts(form_fields(request))["b"]) == result.expires
        assert abs(result.expires - time.time()) < 60


def test_a_face_that_was_sent_before_the_clock_was_known_counts_for_the_highest_offset(
    client_of: ClientOf,
) -> None:
    behind = answer(headers=date_header(time.time() - 600))
    with Server(answering(answer(), behind)) as server:
        client = client_of(server.port)
        for _ in range(2):  # the first answer has no date: by then nothing is known
            add(client)
        assert client.clock.offset == pytest.approx(-600, abs=5)
        # The first signature expires ten minutes later than one that is made now.
        assert client.clock.most == 0.0


def test_a_gateways_date_is_not_the_services_clock(client_of: ClientOf) -> None:
    reply = answer(b"<html>", status="502 Bad Gateway", headers=date_header(0))
    with Server(answering(reply)) as server:
        client = client_of(server.port)
        assert add(client).server_time == 0.0
        assert client.clock.offset == 0.0


def signature_in(request: requests.PreparedRequest) -> bytes:
    """The value of `sign` in a form that is about to be sent."""
    pieces: Any = request.body
    body: bytes = b"".join(pieces)
    return body.partition(b'name="sign"\r\n\r\n')[2].partition(b"\r\n")[0]


def test_a_call_that_never_connects_is_tried_again_and_then_not_sent(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    real = DeadlineAdapter.send

    def counted(
        self: DeadlineAdapter, request: requests.PreparedRequest, **options: object
    ) -> object:
        tries.append(signature_in(request))
        return real(self, request, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(DeadlineAdapter, "send", counted)
    result = add(client_of(free_port()))
    assert (result.verdict, result.code) == (Verdict.NOT_SENT, "CANNOT_CONNECT")
    assert len(tries) == 3
    assert len(set(tries)) == 1  # which nobody has seen: no secret is at hand to sign it again
    assert result.elapsed < 5


def test_a_signed_call_that_waited_until_its_time_was_over_does_not_leave(
    client_of: ClientOf,
) -> None:
    with Server(answering(answer())) as server:
        client = client_of(server.port, timeout=10.0)
        call = client.sign(Call.list(group_id="g"))
        assert isinstance(call, SignedCall)
        client.send(call)  # else nothing would, ever
        assert len(server.seen.requests) == 1
        late = client.send(replace(call, deadline=time.monotonic()))
    assert (late.verdict, late.code) == (Verdict.BLOCKED, "OUT_OF_RESOURCES")
    assert len(server.seen.requests) == 1


def test_a_signed_call_carries_no_secret(client_of: ClientOf) -> None:
    call = client_of(free_port()).sign(Call.list(group_id="g"))
    assert isinstance(call, SignedCall)
    raw = base64.b64decode(call.fields["sign"])
    assert KEY.encode() in raw
    assert not [text for text in (*call.fields.values(), *call.hidden) if SECRET in text]
    assert SECRET.encode() not in raw


def test_a_call_that_connects_at_the_second_try_is_applied(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = DeadlineAdapter.send, []

    def shy(self: DeadlineAdapter, request: requests.PreparedRequest, **options: object) -> object:
        tries.append(request)
        if len(tries) == 1:
            raise NotSentError(OwnCode.CANNOT_CONNECT, "not yet")
        return real(self, request, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(DeadlineAdapter, "send", shy)
    with Server(answering(answer())) as server:
        assert add(client_of(server.port)).verdict is Verdict.APPLIED
    assert server.seen.connections == 1


def test_a_call_whose_answer_never_comes_is_unknown_and_not_repeated(client_of: ClientOf) -> None:
    def silent(peer: Peer) -> None:
        peer.read_request()
        peer.hold()

    with Server(silent) as server:
        result = add(client_of(server.port, timeout=0.5))
    assert (result.verdict, result.code) == (Verdict.UNKNOWN, "TIMEOUT")
    assert 0.4 < result.elapsed < 5
    assert len(server.seen.requests) == 1
    assert result.expires == int(signed_parts(form_fields(server.seen.requests[0]))["b"])


def test_a_lost_connection_is_unknown_and_not_repeated(client_of: ClientOf) -> None:
    def reset(peer: Peer) -> None:
        peer.read_request()
        peer.reset()

    with Server(reset) as server:
        result = add(client_of(server.port))
    assert (result.verdict, result.code) == (Verdict.UNKNOWN, "CONNECTION_LOST")
    assert len(server.seen.requests) == 1
    assert result.expires > time.time()


def test_a_cut_body_is_unknown_and_keeps_its_status(client_of: ClientOf) -> None:
    def cut(peer: Peer) -> None:
        peer.read_request()
        peer.send(answer(headers=date_header(time.time()))[:-10])

    with Server(cut) as server:
        result = add(client_of(server.port))
    assert (result.verdict, result.code) == (Verdict.UNKNOWN, "BODY_CUT_OFF")
    assert result.http_status == 200
    assert result.face_token == ""


def test_an_early_413_is_rejected(client_of: ClientOf) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_head()
        peer.answer(b"Request Entity Too Large", status="413 Request Entity Too Large")

    photo = Photo(times=PHOTO.times, sha256=b"", content=b"x" * 20_000_000, media_type="image/jpeg")
    with Server(refuse) as server:
        result = add(client_of(server.port), photo=photo)
    assert (result.verdict, result.code) == (Verdict.REJECTED, "HTTP_413")


def test_a_redirect_is_fatal_and_not_followed(client_of: ClientOf) -> None:
    with Server(answering(answer())) as elsewhere:
        reply = answer(
            b"", status="307 Moved", headers=f"Location: http://127.0.0.1:{elsewhere.port}/\r\n"
        )
        with Server(answering(reply)) as server:
            result = add(client_of(server.port))
    assert result.verdict is Verdict.FATAL
    assert elsewhere.seen.connections == 0


def test_a_refusal_says_how_long_to_wait(client_of: ClientOf) -> None:
    reply = answer(
        b'{"error": "CONCURRENCY_LIMIT_EXCEEDED"}',
        status="403 Forbidden",
        headers="Retry-After: 7\r\n",
    )
    with Server(answering(reply)) as server:
        result = add(client_of(server.port))
    assert (result.verdict, result.retry_after) == (Verdict.REFUSED, 7.0)


def all_subclasses(base: type[BaseException]) -> set[type[BaseException]]:
    return {base}.union(*(all_subclasses(each) for each in base.__subclasses__()))


FOREIGN = sorted(
    {
        exception
        for base in (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError)
        for exception in all_subclasses(base)
        if exception.__module__.partition(".")[0]
        in ("builtins", "http", "socket", "ssl", "requests", "urllib3")
    },
    key=str,
)


def test_the_list_of_foreign_exceptions_is_not_empty() -> None:
    assert {requests.exceptions.InvalidURL, ssl.SSLError, socket.gaierror, TimeoutError} <= set(
        FOREIGN
    )
    assert len(FOREIGN) > 60


@cases("exception", FOREIGN)
def test_every_foreign_exception_becomes_an_answer_that_proves_nothing(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch, exception: type[BaseException]
) -> None:
    def fail(*_: object, **__: object) -> None:
        error = exception.__new__(exception)
        error.args = (f"{SECRET} in its text",)
        raise error

    monkeypatch.setattr(DeadlineAdapter, "send", fail)
    result = add(client_of(1))
    assert (result.verdict, result.code) == (Verdict.UNKNOWN, "CONNECTION_LOST")
    assert result.expires > time.time()
    assert SECRET not in result.message


def test_a_bug_is_no_answer(client_of: ClientOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(DeadlineAdapter, "send", bug)
    with pytest.raises(ZeroDivisionError):
        add(client_of(1))


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "500 Error", "200 OK"])
def test_a_server_that_echoes_the_request_gives_nothing_away(
    client_of: ClientOf, status: str
) -> None:
    def echo(peer: Peer) -> None:
        request = peer.read_request()
        fields = {
            name: value.decode() for name, value in form_fields(request).items() if name != "file"
        }
        fields["secret"] = SECRET
        text = json.dumps(fields).replace("/", "\\/")
        peer.answer(json.dumps({"error": f"BAD_ARGUMENTS: {text}"}).encode(), status=status)

    with Server(echo) as server:
        result = add(client_of(server.port))
    signature = form_fields(server.seen.requests[0])["sign"].decode()
    hidden = [KEY, SECRET, signature, *re.findall(r"\w{8,}", signature)]
    for text in (result.message, result.code, result.raw, repr(result)):
        assert not [piece for piece in hidden if piece in text]
    assert "group_id" in result.message


def test_no_repr_and_no_traceback_shows_key_secret_or_signature(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(free_port())
    sent: list[requests.PreparedRequest] = []

    def fail(_: object, request: requests.PreparedRequest, **__: object) -> None:
        sent.append(request)
        raise ZeroDivisionError

    monkeypatch.setattr(DeadlineAdapter, "send", fail)
    with pytest.raises(ZeroDivisionError) as caught:
        add(client)
    shown = "".join(traceback.TracebackException.from_exception(caught.value).format())
    signature = signature_in(sent[0]).decode()
    assert len(signature) > 50
    for text in (shown, repr(client), str(client), repr(sent[0])):
        assert not [piece for piece in (KEY, SECRET, signature) if piece in text]


def test_each_thread_has_its_own_connection(client_of: ClientOf) -> None:
    with (
        Server(answering(answer())) as server,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        client = client_of(server.port)
        results = list(pool.map(lambda _: add(client).verdict, range(80)))
    assert results == [Verdict.APPLIED] * 80
    assert 1 <= server.seen.connections <= 8


def test_a_fork_does_not_share_its_parents_connection(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(answering(answer())) as server:
        client = client_of(server.port)
        add(client)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        add(client)
    assert server.seen.connections == 2


def test_a_client_can_be_used_again_after_it_was_closed(client_of: ClientOf) -> None:
    with Server(answering(answer())) as server:
        client = client_of(server.port)
        add(client)
        client.close()
        assert add(client).verdict is Verdict.APPLIED
        client.close()
    assert server.seen.connections == 2


def test_rotated_credentials_sign_the_next_call(client_of: ClientOf) -> None:
    with Server(answering(answer())) as server:
        client = client_of(server.port)
        add(client)
        client.use_credentials(Credentials("another-key", "another-secret"))
        add(client)
    keys = [signed_parts(form_fields(request))["a"] for request in server.seen.requests]
    assert keys == [KEY, "another-key"]


def test_requests_say_who_calls_and_want_plain_json(client_of: ClientOf) -> None:
    with Server(answering(answer())) as server:
        client = FaceSearch(
            f"http://localhost:{server.port}/prefix/",
            CREDENTIALS,
            timeout=10,
            user_agent="enroll/9",
        )
        client.make(Call.group_list())
        client.close()
    request = server.seen.requests[0]
    assert request.startswith(b"POST /prefix/finauth/search/group/group_list HTTP/1.1\r\n")
    assert header(request, "user-agent") == "enroll/9"
    assert header(request, "accept-encoding") == "identity"
    assert header(request, "accept") == "application/json"
    assert header(request, "expect") is None


def test_an_endpoint_that_must_not_be_used_is_wrong_usage() -> None:
    with pytest.raises(UsageError):
        FaceSearch("http://api.test", CREDENTIALS, timeout=1)
    FaceSearch("http://api.test", CREDENTIALS, timeout=1, allow_http=True).close()


def test_every_call_of_the_api_has_a_method_of_its_name() -> None:
    assert all(callable(getattr(Call, kind.value)) for kind in CallKind)


def test_the_whole_answer_of_an_add_is_the_services(client_of: ClientOf) -> None:
    with Server(answering(answer())) as server:
        assert add(client_of(server.port)).payload == json.loads(ADDED)
