"""TLS and proxies: what is trusted, and what has not left when they fail."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from facesearch_servers import (
    ADDED,
    LOCALHOST_CERTIFICATE,
    Peer,
    Server,
    answer,
    answering,
    free_port,
    header,
)

from enroll.facesearch import wire
from enroll.facesearch.answers import OwnCode
from enroll.facesearch.transport import PlainSession
from enroll.facesearch.wire import DeadlinePassedError, LostError, NotSentError


@pytest.fixture
def trusted(tmp_path: Path) -> str:
    path = tmp_path / "trusted.pem"
    path.write_text(LOCALHOST_CERTIFICATE)
    return str(path)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with PlainSession() as opened:
        yield opened


def post(
    session: requests.Session,
    url: str,
    *,
    verify: bool | str = True,
    timeout: float = 10.0,
    proxies: dict[str, str] | None = None,
    body: bytes = b"body",
) -> requests.Response:
    request = requests.PreparedRequest()
    request.prepare(method="POST", url=url, data=body)
    return session.send(
        request, timeout=timeout, verify=verify, proxies=proxies or {}, allow_redirects=False
    )


def test_calls_share_one_trusted_connection(session: requests.Session, trusted: str) -> None:
    with Server(answering(answer()), tls=True) as server:
        for _ in range(3):
            body = b"x" * 200_000
            url = f"https://localhost:{server.port}/"
            assert post(session, url, verify=trusted, body=body).content == ADDED
    assert server.seen.connections == 1
    assert all(request.endswith(b"x" * 200_000) for request in server.seen.requests)


def test_a_certificate_that_nobody_vouches_for_is_not_sent_to(session: requests.Session) -> None:
    with Server(answering(answer()), tls=True) as server, pytest.raises(NotSentError) as caught:
        post(session, f"https://localhost:{server.port}/")
    assert caught.value.code is OwnCode.TLS_FAILED
    assert server.seen.requests == []


def test_a_certificate_of_another_host_is_not_sent_to(
    session: requests.Session, trusted: str
) -> None:
    with Server(answering(answer()), tls=True) as server, pytest.raises(NotSentError) as caught:
        post(session, f"https://127.0.0.1:{server.port}/", verify=trusted)
    assert caught.value.code is OwnCode.TLS_FAILED
    assert server.seen.requests == []


def test_a_connection_is_not_shared_with_a_call_that_trusts_others(
    session: requests.Session, trusted: str
) -> None:
    with Server(answering(answer()), tls=True) as server:
        url = f"https://localhost:{server.port}/"
        assert post(session, url, verify=trusted).status_code == 200
        with pytest.raises(NotSentError):
            post(session, url)


def test_tls_spoken_to_a_plain_port_is_not_sent(session: requests.Session, trusted: str) -> None:
    def plain(peer: Peer) -> None:
        peer.socket.recv(100)
        peer.answer(b"", status="400 Bad Request")

    with Server(plain) as server, pytest.raises(NotSentError) as caught:
        post(session, f"https://localhost:{server.port}/", verify=trusted)
    assert caught.value.code is OwnCode.TLS_FAILED


@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_leaves_during_the_handshake_is_not_sent_to(
    session: requests.Session, trusted: str, reset: bool
) -> None:
    def leave(peer: Peer) -> None:
        if reset:
            peer.reset()

    with Server(leave) as server, pytest.raises(NotSentError) as caught:
        post(session, f"https://localhost:{server.port}/", verify=trusted)
    assert caught.value.code in (OwnCode.TLS_FAILED, OwnCode.CANNOT_CONNECT)


def test_a_handshake_that_never_ends_is_not_sent_and_ends_at_the_deadline(
    session: requests.Session, trusted: str
) -> None:
    with Server(Peer.hold) as server, pytest.raises(NotSentError) as caught:
        post(session, f"https://localhost:{server.port}/", verify=trusted, timeout=0.5)
    assert caught.value.code is OwnCode.TLS_FAILED


def test_a_deadline_holds_under_tls(session: requests.Session, trusted: str) -> None:
    def drip(peer: Peer) -> None:
        peer.read_request()
        peer.drip(b"HTTP/1.1 100 Continue\r\n\r\n")

    with Server(drip, tls=True) as server, pytest.raises(DeadlinePassedError):
        post(session, f"https://localhost:{server.port}/", verify=trusted, timeout=0.5)


def test_bytes_left_over_under_tls_are_not_taken_for_an_answer(
    session: requests.Session, trusted: str
) -> None:
    # The answer fills the reader's buffer to the byte, so that the rest stays within TLS.
    frame = len(answer(b"x" * 8000)) - 8000
    whole = answer(b"x" * (8192 - frame))
    assert len(whole) == 8192

    def say_too_much(peer: Peer) -> None:
        peer.read_request()
        peer.send(whole + answer(b"", status="408 Request Timeout"))
        peer.hold()

    with Server(say_too_much, tls=True) as server:
        for _ in range(2):
            url = f"https://localhost:{server.port}/"
            assert post(session, url, verify=trusted).status_code == 200


def test_opening_gives_up_early_because_nothing_has_left(
    session: requests.Session, trusted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "OPENING_SECONDS", 0.3)
    with Server(Peer.hold) as server:
        started = time.monotonic()
        with pytest.raises(NotSentError):
            post(session, f"https://localhost:{server.port}/", verify=trusted, timeout=60)
        assert time.monotonic() - started < 10


def test_a_connection_closed_under_tls_is_lost(session: requests.Session, trusted: str) -> None:
    def leave(peer: Peer) -> None:
        peer.read_request()

    with Server(leave, tls=True) as server, pytest.raises(LostError) as caught:
        post(session, f"https://localhost:{server.port}/", verify=trusted)
    assert caught.value.code is OwnCode.CONNECTION_LOST


def test_an_answer_given_before_the_body_was_read_is_the_answer_under_tls(
    session: requests.Session, trusted: str
) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_head()
        peer.answer(b"too large", status="413 Request Entity Too Large")

    with Server(refuse, tls=True) as server:
        url = f"https://localhost:{server.port}/"
        response = post(session, url, verify=trusted, body=b"x" * 20_000_000)
    assert response.status_code == 413


class Tunnel:
    """A CONNECT proxy that leads every name to `port`; `refusal` is answered instead."""

    def __init__(self, port: int, refusal: bytes = b"") -> None:
        self._port = port
        self._refusal = refusal
        self.heads: list[bytes] = []

    def __call__(self, peer: Peer) -> None:
        self.heads.append(peer.read_head())
        if self._refusal:
            peer.send(self._refusal)
            return
        with socket.create_connection(("127.0.0.1", self._port)) as onward:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(onward, peer.socket))
            back.start()
            _pump(peer.socket, onward)
            back.join(10)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def test_https_goes_through_a_tunnel_and_stays_trusted(
    session: requests.Session, trusted: str
) -> None:
    with Server(answering(answer()), tls=True) as service:
        tunnel = Tunnel(service.port)
        with Server(tunnel) as proxy:
            proxies = {"https": f"http://us%40er:pa%3Ass@127.0.0.1:{proxy.port}"}
            for _ in range(2):
                response = post(session, "https://service.test/x", verify=trusted, proxies=proxies)
                assert response.content == ADDED
            session.close()
    assert proxy.seen.connections == 1
    assert tunnel.heads[0].startswith(b"CONNECT service.test:443 HTTP/1.1\r\n")
    expected = base64.b64encode(b"us@er:pa:ss").decode()
    assert header(tunnel.heads[0], "proxy-authorization") == f"Basic {expected}"
    assert all(header(head, "proxy-authorization") is None for head in service.seen.heads)


@pytest.mark.parametrize(
    "refusal",
    [
        answer(b"", status="407 Proxy Authentication Required"),
        answer(b"", status="502 Bad Gateway"),
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://login.test/\r\n\r\n",
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_not_sent(
    session: requests.Session, trusted: str, refusal: bytes
) -> None:
    with Server(Tunnel(0, refusal)) as proxy, pytest.raises(NotSentError) as caught:
        proxies = {"https": f"http://user:hunter2@127.0.0.1:{proxy.port}"}
        post(session, "https://service.test/", verify=trusted, proxies=proxies)
    assert caught.value.code is OwnCode.PROXY_REFUSED
    assert "hunter2" not in str(caught.value)


def test_a_proxy_that_does_not_answer_is_not_sent(session: requests.Session, trusted: str) -> None:
    with Server(Peer.hold) as proxy, pytest.raises(NotSentError) as caught:
        proxies = {"https": f"http://127.0.0.1:{proxy.port}"}
        post(session, "https://service.test/", verify=trusted, proxies=proxies, timeout=0.5)
    assert caught.value.code is OwnCode.PROXY_REFUSED


def test_a_proxy_that_is_not_there_is_not_sent(session: requests.Session) -> None:
    with pytest.raises(NotSentError) as caught:
        post(session, "https://service.test/", proxies={"https": f"127.0.0.1:{free_port()}"})
    assert caught.value.code is OwnCode.CANNOT_CONNECT


def test_plain_http_asks_its_proxy_for_the_whole_url(session: requests.Session) -> None:
    with Server(answering(answer())) as proxy:
        proxies = {"http": f"http://user:word@127.0.0.1:{proxy.port}"}
        assert post(session, "http://service.test:81/x?y=z", proxies=proxies).content == ADDED
    head = proxy.seen.heads[0] + b"\r\n\r\n"
    assert head.startswith(b"POST http://service.test:81/x?y=z HTTP/1.1\r\n")
    assert header(head, "host") == "service.test:81"
    assert header(head, "proxy-authorization") == "Basic dXNlcjp3b3Jk"


def test_an_ipv6_address_keeps_its_brackets(session: requests.Session) -> None:
    with Server(answering(answer())) as proxy:
        proxies = {"http": f"http://127.0.0.1:{proxy.port}"}
        post(session, "http://[2001:db8::1]/x", proxies=proxies)
    head = proxy.seen.heads[0] + b"\r\n\r\n"
    assert head.startswith(b"POST http://[2001:db8::1]/x HTTP/1.1\r\n")
    assert header(head, "host") == "[2001:db8::1]"


def test_a_proxy_of_another_kind_is_refused(session: requests.Session) -> None:
    with pytest.raises(requests.exceptions.InvalidProxyURL, match="socks5"):
        post(session, "https://service.test/", proxies={"https": "socks5://127.0.0.1:1"})
