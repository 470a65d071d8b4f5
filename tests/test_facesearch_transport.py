"""The adapter against servers that behave as badly as servers do."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import requests
from facesearch_servers import ADDED, Peer, Server, answer, answering, free_port
from urllib3.util import wait_for_read

from enroll.facesearch import transport
from enroll.facesearch.answers import OwnCode
from enroll.facesearch.transport import MAX_BODY, DeadlineAdapter, PlainSession
from enroll.facesearch.wire import DeadlinePassedError, LostError, NotSentError

BODY = b"x" * 300_000
ENOUGH = 5.0
"""Seconds within which a call of a fraction of a second has to be over."""


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with PlainSession() as opened:
        yield opened


def post(
    session: requests.Session, port: int, *, timeout: float = 10.0, body: bytes = b"body"
) -> requests.Response:
    request = requests.PreparedRequest()
    request.prepare(method="POST", url=f"http://127.0.0.1:{port}/a?b=c", data=body)
    return session.send(request, timeout=timeout, proxies={}, allow_redirects=False)


def adapter_of(session: requests.Session) -> DeadlineAdapter:
    adapter = session.get_adapter("http://")
    assert isinstance(adapter, DeadlineAdapter)
    return adapter


def heard_at_rest(session: requests.Session) -> bool:
    """Wait until our end has heard what the server sent or did after its answer."""
    resting = adapter_of(session)._idle.values()
    return all(wait_for_read(wire._socket, timeout=10) for wire, _ in resting)


def test_an_answer_comes_back_whole(session: requests.Session) -> None:
    reply = answer(ADDED, status="403 No Way", headers="X-Thing: 1\r\nx-other: zwei\r\n")
    with Server(answering(reply)) as server:
        response = post(session, server.port)
    assert (response.status_code, response.reason) == (403, "No Way")
    assert response.content == ADDED
    assert response.headers["x-thing"] == "1"
    assert response.headers["X-Other"] == "zwei"


def test_the_request_arrives_as_it_was_prepared(session: requests.Session) -> None:
    with Server(answering(answer())) as server:
        post(session, server.port, body=BODY)
    head, _, body = server.seen.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[:2] == ["POST /a?b=c HTTP/1.1", f"Host: 127.0.0.1:{server.port}"]
    assert f"Content-Length: {len(BODY)}" in lines
    assert body == BODY


def test_calls_one_after_the_other_share_a_connection(session: requests.Session) -> None:
    with Server(answering(answer())) as server:
        for _ in range(5):
            assert post(session, server.port).content == ADDED
    assert server.seen.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        answer(headers="Connection: close\r\n"),
        answer(headers="Keep-Alive: timeout=1\r\n"),
        answer() + b"left over",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=["close", "short keep-alive", "left over bytes", "HTTP/1.0"],
)
def test_a_connection_that_may_not_last_is_not_used_again(
    session: requests.Session, reply: bytes
) -> None:
    with Server(answering(reply)) as server:
        post(session, server.port)
        post(session, server.port)
    assert server.seen.connections == 2


def test_a_connection_that_rested_too_long_is_not_used_again(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "IDLE_SECONDS", 0.0)
    with Server(answering(answer())) as server:
        post(session, server.port)
        post(session, server.port)
    assert server.seen.connections == 2


def test_the_servers_own_keep_alive_wins_over_ours(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "IDLE_SECONDS", 0.0)
    with Server(answering(answer(headers="Keep-Alive: max=9, timeout=30\r\n"))) as server:
        post(session, server.port)
        post(session, server.port)
    assert server.seen.connections == 1


def test_a_connection_that_the_server_closed_while_it_rested_costs_no_call(
    session: requests.Session,
) -> None:
    def once(peer: Peer) -> None:
        peer.read_request()
        peer.answer()

    with Server(once) as server:
        for _ in range(20):
            assert post(session, server.port).content == ADDED
            assert heard_at_rest(session)
    assert server.seen.connections == 20


def test_a_page_sent_to_an_idle_connection_is_not_taken_for_an_answer(
    session: requests.Session,
) -> None:
    def unasked(peer: Peer) -> None:
        peer.read_request()
        peer.answer()
        peer.send(answer(b"", status="408 Request Timeout"))
        peer.hold()

    with Server(unasked) as server:
        for _ in range(5):
            assert post(session, server.port).status_code == 200
            assert heard_at_rest(session)


def test_informational_answers_are_skipped(session: requests.Session) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    with Server(answering(early + answer())) as server:
        assert post(session, server.port).content == ADDED
        assert post(session, server.port).content == ADDED
    assert server.seen.connections == 1


def test_a_chunked_answer_is_put_together(session: requests.Session) -> None:
    reply = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\nTrailer: 1\r\n\r\n"
    )
    with Server(answering(reply)) as server:
        assert post(session, server.port).content == b"abcdefg"
        assert post(session, server.port).content == b"abcdefg"
    assert server.seen.connections == 1


def test_an_answer_that_ends_with_its_connection_is_read(session: requests.Session) -> None:
    def behave(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    with Server(behave) as server:
        assert post(session, server.port).content == b"all of it"


def test_no_cookie_is_kept(session: requests.Session) -> None:
    with Server(answering(answer(headers="Set-Cookie: a=b\r\n"))) as server:
        post(session, server.port)
        post(session, server.port)
    assert not session.cookies
    assert b"cookie" not in server.seen.heads[1].lower()


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/", "http://[", "//\udcff", ""])
def test_a_redirect_is_an_answer_and_is_not_followed(
    session: requests.Session, location: str
) -> None:
    reply = f"HTTP/1.1 307 Moved\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
    with Server(answering(reply.encode("utf-8", "surrogateescape"))) as server:
        assert post(session, server.port).status_code == 307
    assert len(server.seen.requests) == 1


def never_answer(peer: Peer) -> None:
    peer.read_request()
    peer.hold()


def drip_head(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    peer.drip(b"x")


def drip_body(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    peer.drip(b"x")


def drip_interim_answers(peer: Peer) -> None:
    peer.read_request()
    peer.drip(b"HTTP/1.1 100 Continue\r\n\r\n")


def read_nothing(peer: Peer) -> None:
    peer.server.stopping.wait(20)


@pytest.mark.parametrize(
    "behave", [never_answer, drip_head, drip_body, drip_interim_answers, read_nothing]
)
def test_nothing_that_a_server_does_holds_a_call_past_its_deadline(
    session: requests.Session, behave: Callable[[Peer], None]
) -> None:
    body = b"x" * 30_000_000 if behave is read_nothing else b"body"
    with Server(behave) as server:
        started = time.monotonic()
        with pytest.raises(DeadlinePassedError) as caught:
            post(session, server.port, timeout=0.5, body=body)
        assert 0.4 < time.monotonic() - started < ENOUGH
    assert caught.value.code is OwnCode.TIMEOUT
    assert isinstance(caught.value, requests.exceptions.Timeout)


def test_a_deadline_within_the_body_still_tells_the_status(session: requests.Session) -> None:
    with Server(drip_body) as server, pytest.raises(DeadlinePassedError) as caught:
        post(session, server.port, timeout=0.5)
    assert caught.value.response is not None
    assert caught.value.response.status_code == 200


def test_a_connection_is_not_used_again_after_its_call_ran_out_of_time(
    session: requests.Session,
) -> None:
    def slow_once(peer: Peer) -> None:
        peer.read_request()
        if server.seen.connections == 1:
            peer.hold()
        peer.answer()

    with Server(slow_once) as server:
        with pytest.raises(DeadlinePassedError):
            post(session, server.port, timeout=0.3)
        assert post(session, server.port).content == ADDED
    assert server.seen.connections == 2


def endless_body(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while not peer.server.stopping.is_set():
        peer.send(b"x" * 65536)


def endless_chunks(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not peer.server.stopping.is_set():
        peer.send(b"1\r\nx\r\n" * 10_000)


def negative_chunk(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
    while not peer.server.stopping.is_set():
        peer.send(b"x" * 65536)


def endless_interim_answers(peer: Peer) -> None:
    peer.read_request()
    while not peer.server.stopping.is_set():
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


@pytest.mark.parametrize(
    "behave", [endless_body, endless_chunks, negative_chunk, endless_interim_answers]
)
def test_an_answer_without_an_end_is_given_up(
    session: requests.Session, behave: Callable[[Peer], None]
) -> None:
    with Server(behave) as server, pytest.raises(LostError) as caught:
        post(session, server.port, timeout=20)
    assert caught.value.code is OwnCode.BODY_TOO_LARGE


def test_the_longest_body_that_is_read_is_a_mebibyte(session: requests.Session) -> None:
    with Server(answering(answer(b"x" * MAX_BODY), answer(b"x" * (MAX_BODY + 1)))) as server:
        assert len(post(session, server.port).content) == MAX_BODY
        with pytest.raises(LostError) as caught:
            post(session, server.port)
    assert caught.value.code is OwnCode.BODY_TOO_LARGE


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabcde",
    ],
)
def test_a_body_that_ends_too_early_is_cut_off(session: requests.Session, reply: bytes) -> None:
    def behave(peer: Peer) -> None:
        peer.read_request()
        peer.send(reply)

    with Server(behave) as server, pytest.raises(LostError) as caught:
        post(session, server.port)
    assert caught.value.code is OwnCode.BODY_CUT_OFF
    assert caught.value.response is not None
    assert caught.value.response.status_code == 200


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"", OwnCode.CONNECTION_LOST),
        (b"SSH-2.0-OpenSSH\r\n", OwnCode.NOT_HTTP),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", OwnCode.NOT_HTTP),
        (b"HTTP/3 200 OK\r\n\r\n", OwnCode.NOT_HTTP),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n", OwnCode.NOT_HTTP),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", OwnCode.NOT_HTTP),
        (b"\x16\x03\x01" * 50_000, OwnCode.NOT_HTTP),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_is_no_answer_is_lost(session: requests.Session, reply: bytes, code: OwnCode) -> None:
    def behave(peer: Peer) -> None:
        peer.read_request()
        peer.send(reply)

    with Server(behave) as server, pytest.raises(LostError) as caught:
        post(session, server.port)
    assert caught.value.code is code


def test_a_head_without_its_end_has_no_body(session: requests.Session) -> None:
    def behave(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")

    with Server(behave) as server:
        assert post(session, server.port).content == b""


def reset_after_reading(peer: Peer) -> None:
    peer.read_request()
    peer.reset()


def reset_before_reading(peer: Peer) -> None:
    peer.socket.recv(1)
    peer.reset()


@pytest.mark.parametrize("behave", [reset_after_reading, reset_before_reading])
def test_a_connection_reset_after_the_first_byte_is_lost(
    session: requests.Session, behave: Callable[[Peer], None]
) -> None:
    with Server(behave) as server, pytest.raises(LostError) as caught:
        post(session, server.port, body=b"x" * 5_000_000)
    assert caught.value.code is OwnCode.CONNECTION_LOST
    assert not isinstance(caught.value, DeadlinePassedError)


def test_an_answer_given_before_the_body_was_read_is_the_answer(session: requests.Session) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_head()
        peer.answer(b"Request Entity Too Large", status="413 Request Entity Too Large")

    with Server(refuse) as server:
        response = post(session, server.port, body=b"x" * 20_000_000)
        assert (response.status_code, response.content) == (413, b"Request Entity Too Large")
        assert post(session, server.port, body=b"x" * 20_000_000).status_code == 413
    assert server.seen.connections == 2


def test_a_port_without_a_listener_is_not_sent(session: requests.Session) -> None:
    with pytest.raises(NotSentError) as caught:
        post(session, free_port())
    assert caught.value.code is OwnCode.CANNOT_CONNECT


def test_a_host_without_an_address_is_not_sent(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_address(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    with pytest.raises(NotSentError) as caught:
        post(session, 1)
    assert caught.value.code is OwnCode.NAME_LOOKUP_FAILED


def test_a_lookup_that_used_the_time_up_is_not_sent(session: requests.Session) -> None:
    with Server(answering(answer())) as server, pytest.raises(NotSentError) as caught:
        post(session, server.port, timeout=-1.0)
    assert caught.value.code is OwnCode.CANNOT_CONNECT
    assert server.seen.requests == []


def test_every_address_of_a_host_is_tried(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, dead = socket.getaddrinfo, free_port()

    def two_addresses(host: str, port: int, **options: int) -> object:
        return [*real(host, dead, **options), *real(host, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    with Server(answering(answer())) as server:
        assert post(session, server.port).content == ADDED


@pytest.mark.skipif(sys.platform != "linux", reason="needs a listener that drops connections")
def test_an_address_that_swallows_connections_leaves_time_for_the_next(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(full.getsockname())

        def two_addresses(host: str, port: int, **options: int) -> object:
            swallowing = full.getsockname()[1]
            return [*real(host, swallowing, **options), *real(host, port, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
        with Server(answering(answer())) as server:
            assert post(session, server.port, timeout=2.0).content == ADDED


def test_nothing_taken_by_the_kernel_is_not_sent(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DeafSocket(socket.socket):
        def sendmsg(self, *_: object) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(socket, "socket", DeafSocket)
    with Server(answering(answer())) as server, pytest.raises(NotSentError) as caught:
        post(session, server.port)
    assert caught.value.code is OwnCode.CANNOT_CONNECT


def test_a_half_taken_request_is_lost(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TiredSocket(socket.socket):
        def sendmsg(self, buffers: Sequence[bytes], *_: object) -> int:  # type: ignore[override]
            return super().send(buffers[0][:10])

        def send(self, *_: object) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(socket, "socket", TiredSocket)

    def hear_and_close(peer: Peer) -> None:
        peer.socket.recv(10)

    with Server(hear_and_close) as server, pytest.raises(LostError) as caught:
        post(session, server.port)
    assert caught.value.code is OwnCode.CONNECTION_LOST


def test_a_closed_session_keeps_no_connection() -> None:
    with Server(answering(answer())) as server:
        session = PlainSession()
        post(session, server.port)
        assert len(adapter_of(session)._idle) == 1
        session.close()
        assert adapter_of(session)._idle == {}
        post(session, server.port)
        assert adapter_of(session)._idle == {}


@pytest.mark.parametrize(
    "wrong", [{"timeout": None}, {"verify": False, "timeout": 1}, {"cert": "x", "timeout": 1}]
)
def test_what_the_adapter_does_not_honour_it_refuses(
    session: requests.Session, wrong: dict[str, Any]
) -> None:
    request = requests.Request("POST", "http://127.0.0.1:1/").prepare()
    with pytest.raises(ValueError, match="timeout"):
        session.send(request, proxies={}, **wrong)


def test_a_call_ends_in_time_in_a_thread_that_handles_signals() -> None:
    # Python waits again for what is left after each signal.
    ticks: list[None] = []
    before = signal.signal(signal.SIGALRM, lambda *_: ticks.append(None))
    try:
        with socket.create_server(("127.0.0.1", 0)) as silent, PlainSession() as session:
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            began = time.monotonic()
            with pytest.raises(DeadlinePassedError):
                post(session, silent.getsockname()[1], timeout=0.4)
            took = time.monotonic() - began
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert len(ticks) > 2
    assert took < 5.0  # without end, if every signal began it anew
