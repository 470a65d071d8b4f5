"""Heads that are read by us and heads that are left to http.client."""

from __future__ import annotations

import io

import pytest

from enroll.facesearch.transport import PlainHead, read_plain_head


def reader_of(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))


def test_a_plain_head_is_taken_out_and_its_body_comes_next() -> None:
    reader = reader_of(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        b"Date: Tue, 24 Nov 2026 21:00:00 GMT\r\n\r\n{}rest"
    )
    head = read_plain_head(reader)
    assert head == PlainHead(
        status=200,
        reason="OK",
        headers={
            "content-type": "application/json",
            "content-length": "2",
            "date": "Tue, 24 Nov 2026 21:00:00 GMT",
        },
        length=2,
        will_close=False,
    )
    assert reader.read() == b"{}rest"


@pytest.mark.parametrize("connection", [b"close", b"Close", b"keep-alive, close", b"upgrade"])
def test_anything_but_keep_alive_ends_the_connection(connection: bytes) -> None:
    head = read_plain_head(
        reader_of(b"HTTP/1.1 502 \r\nContent-Length: 0\r\nConnection: " + connection + b"\r\n\r\n")
    )
    assert head is not None
    assert head.will_close


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", id="HTTP 1.0"),
        pytest.param(b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n", id="not the last"),
        pytest.param(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}", id="no body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}", id="no length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}",
            id="chunked",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", id="two lengths"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}", id="signed length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n c\r\n\r\n{}", id="folded"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}", id="space before colon"),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", id="bare line feeds"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: \xc3\xa9\r\nContent-Length: 2\r\n\r\n{}", id="bytes"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="not whole yet"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_not_plain_is_left_as_it_is(data: bytes) -> None:
    reader = reader_of(data)
    assert read_plain_head(reader) is None
    assert reader.read() == data
