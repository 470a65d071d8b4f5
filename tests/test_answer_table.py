"""What an answer means: the table of docs/errors.md and of the design, row by row, in whole runs.

A small service on loopback says exactly what a row of the table is about to the first `add`, and
answers everything else as it should. What counts is what the run has recorded and done then.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import facesearch_servers
import pytest
import trustme
from facesearch_servers import LOCALHOST_CERTIFICATE, TOKEN, Peer, Server, answer
from PIL import Image

from enroll import clock
from enroll.commands.run import Screen, enroll_manifest
from enroll.commands.run_closing import Report
from enroll.commands.run_opening import Destination
from enroll.errors import ExitCode
from enroll.ledger import read_ledger
from enroll.model import Credentials, Entry, Status
from enroll.session.tally import Tally
from enroll.settings import RunSettings

pytestmark = pytest.mark.usefixtures("moved_clock")

Say = Callable[[Peer], None]


@dataclass
class Service:
    """Answers what a run asks; the first `add` as `first` says, if it says anything."""

    first: Say | None = None
    adds: list[float] = field(default_factory=list)

    def behave(self, peer: Peer) -> None:
        while True:
            path = peer.read_request().split(b" ", 2)[1]
            call = path.rpartition(b"/")[2].decode()
            if call == "add":
                self.adds.append(clock.monotonic())
                if self.first is not None and len(self.adds) == 1:
                    self.first(peer)
                    continue
            peer.send(OTHERWISE[call])


def says(status: str, body: dict[str, object] | bytes, headers: str = "", *, short: int = 0) -> Say:
    """Sends an answer; with `short` so many bytes fewer than announced."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    whole = answer(content, status=status, headers=headers)

    def say(peer: Peer) -> None:
        peer.send(whole[: len(whole) - short])
        if short:
            peer.socket.shutdown(socket.SHUT_RDWR)

    return say


def error(status: str, code: str, headers: str = "") -> Say:
    return says(status, {"request_id": "r9", "error": code, "time_used": 1}, headers)


ADDED = answer(json.dumps({"request_id": "r1", "face_token": TOKEN, "group_id": "staff"}).encode())
LIBRARY = {"group_id": "staff", "group_name": "staff", "add_time": "2024-01-01T00:00:00Z"}
OTHERWISE = {
    "add": ADDED,
    "group_list": answer(json.dumps({"request_id": "r2", "group_infos": [LIBRARY]}).encode()),
    "list": answer(json.dumps({"request_id": "r3", "face_tokens": []}).encode()),
}


class InDoubt(Screen):
    """Ends the run as soon as a face is in doubt: how doubts are settled is told elsewhere."""

    def opened(self, destination: Destination, interrupt: Callable[[int], None]) -> None:
        self.interrupt = interrupt

    def ticked(self, tally: Tally) -> None:
        if tally.in_doubt_now:
            self.interrupt(15)


@dataclass
class Case:
    """A manifest of one row, its photo, and a run of it against a service."""

    folder: Path

    def __post_init__(self) -> None:
        out = BytesIO()
        Image.linear_gradient("L").resize((64, 80)).convert("RGB").save(out, "JPEG")
        (self.folder / "1.jpg").write_bytes(out.getvalue())
        (self.folder / "staff.csv").write_text("user_id,image\nu1,1.jpg\n")

    def run(self, server: Server, screen: Screen | None = None, **changed: Any) -> Report:
        given: dict[str, Any] = {
            "manifest": self.folder / "staff.csv",
            "group_id": "staff",
            "endpoint": f"http://127.0.0.1:{server.port}",
            "ledger": self.folder / "ledger.sqlite",
            "timeout": 1.0,
            "credentials_grace": 0.0,
            **changed,
        }
        return enroll_manifest(
            RunSettings(**given), lambda: Credentials("key", "secret"), screen=screen or InDoubt()
        )

    @property
    def entry(self) -> Entry:
        reader = read_ledger(self.folder / "ledger.sqlite")
        try:
            (entry,) = reader.entries()
            return entry
        finally:
            reader.close()


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def outcome(case: Case, first: Say, **changed: Any) -> tuple[Report, tuple[str, str, int], Service]:
    """Run; the report, the row's status, code and attempts, and the service."""
    service = Service(first)
    with Server(service.behave) as server:
        report = case.run(server, **changed)
    entry = case.entry
    return report, (entry.status.value, entry.error, entry.attempts), service


def test_200_with_a_token_is_enrolled(case: Case) -> None:
    said = says("200 OK", {"request_id": "r1", "face_token": TOKEN, "group_id": "staff"})
    report, row, service = outcome(case, said)
    assert (report.exit_code, row) == (ExitCode.DONE, ("enrolled", "", 1))
    assert (case.entry.face_token, len(service.adds)) == (TOKEN, 1)


HTML = b"<html><body>Sorry</body></html>"
JSON: dict[str, object] = {"request_id": "r1", "face_token": TOKEN}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (says("200 OK", {"request_id": "r1"}), "NO_FACE_TOKEN"),
        (says("200 OK", {"request_id": "r1", "face_token": "short"}), "NO_FACE_TOKEN"),
        (says("200 OK", JSON, short=9), "BODY_CUT_OFF"),
        (says("200 OK", HTML), "NOT_JSON"),
        (error("500 Internal Server Error", "INTERNAL_ERROR"), "INTERNAL_ERROR"),
        (error("500 Internal Server Error", "NO_FACE_FOUND"), "NO_FACE_FOUND"),
        (says("502 Bad Gateway", HTML), "HTTP_502"),
        (says("503 Service Unavailable", HTML, "Retry-After: 1\r\n"), "HTTP_503"),
        (says("504 Gateway Timeout", b""), "HTTP_504"),
        (Peer.hold, "TIMEOUT"),
        (lambda peer: peer.drip(b"HTTP/1.1 200 OK\r\nX: y"), "TIMEOUT"),
        (Peer.reset, "CONNECTION_LOST"),
        (lambda peer: peer.socket.shutdown(socket.SHUT_RDWR), "CONNECTION_LOST"),
        (lambda peer: peer.send(b"hello\r\n\r\n"), "NOT_HTTP"),
        (says("200 OK", {"error": "NO_FACE_FOUND"}), "NO_FACE_FOUND"),
    ],
)
def test_an_answer_that_proves_nothing_leaves_the_face_in_doubt_and_is_not_repeated(
    case: Case, said: Say, code: str
) -> None:
    report, row, service = outcome(case, said)
    assert (report.exit_code, row) == (ExitCode.TERMINATED, ("in_doubt", code, 1))
    assert len(service.adds) == 1


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (error("400 Bad Request", "NO_FACE_FOUND"), "NO_FACE_FOUND"),
        (
            error("400 Bad Request", "IMAGE_ERROR_UNSUPPORTED_FORMAT: image_file"),
            "IMAGE_ERROR_UNSUPPORTED_FORMAT",
        ),
        (error("400 Bad Request", "INVALID_IMAGE_SIZE: image_file"), "INVALID_IMAGE_SIZE"),
        (error("400 Bad Request", "BAD_ARGUMENTS: user_id"), "BAD_ARGUMENTS"),
        (says("413 Request Entity Too Large", b"Request Entity Too Large"), "HTTP_413"),
    ],
)
def test_a_photo_or_row_that_will_never_do_is_rejected(case: Case, said: Say, code: str) -> None:
    report, row, service = outcome(case, said)
    assert (report.exit_code, row) == (ExitCode.SOME_ROWS_FAILED, ("rejected", code, 1))
    assert len(service.adds) == 1


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (error("400 Bad Request", "INVALID_OUTER_ID"), "INVALID_OUTER_ID"),
        (error("400 Bad Request", "INVALID_GROUP_ID"), "INVALID_GROUP_ID"),
        (error("403 Forbidden", "AUTHORIZATION_ERROR"), "AUTHORIZATION_ERROR"),
        (error("401 Unauthorized", "AUTHENTICATION_ERROR"), "AUTHENTICATION_ERROR"),
        (says("401 Unauthorized", HTML), "HTTP_401"),
        (error("404 Not Found", "API_NOT_FOUND"), "API_NOT_FOUND"),
        (says("301 Moved", b"", "Location: http://127.0.0.1:1/\r\n"), "HTTP_301"),
        (says("302 Found", HTML, "Location: /login\r\n"), "HTTP_302"),
        (says("304 Not Modified", b""), "HTTP_304"),
        (says("307 Moved", b"", "Location: http://127.0.0.1:1/\r\n"), "HTTP_307"),
    ],
)
def test_what_no_other_call_will_survive_stops_the_run_and_leaves_the_row_due(
    case: Case, said: Say, code: str
) -> None:
    report, row, service = outcome(case, said)
    assert (report.exit_code, row) == (ExitCode.SERVICE, ("pending", code, 0))
    assert "stopped the run" in str(report.ended.stop)
    assert len(service.adds) == 1
    with Server(Service().behave) as server:
        assert case.run(server).exit_code is ExitCode.DONE


@pytest.mark.parametrize(
    ("said", "pause"),
    [
        (error("403 Forbidden", "CONCURRENCY_LIMIT_EXCEEDED"), 0.0),
        (error("500 Internal Server Error", "CONCURRENCY_LIMIT_EXCEEDED"), 0.0),
        (says("429 Too Many Requests", HTML, "Retry-After: 2\r\n"), 2.0),
    ],
)
def test_a_refused_call_is_made_again_and_spends_no_attempt(
    case: Case, said: Say, pause: float
) -> None:
    report, row, service = outcome(case, said)
    assert (report.exit_code, row) == (ExitCode.DONE, ("enrolled", "", 1))
    refused, again = service.adds
    assert again - refused >= pause
    assert report.ended.tally.refused == 1


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        (error("400 Bad Request", "MOON_IS_FULL: tonight"), "MOON_IS_FULL", "tonight"),
        (error("403 Forbidden", "QUOTA_USED_UP"), "QUOTA_USED_UP", "QUOTA_USED_UP"),
        (says("403 Forbidden", HTML), "HTTP_403", "403"),
        (says("400 Bad Request", {"message": "no error field"}), "HTTP_400", "400"),
    ],
)
def test_another_4xx_is_failed_word_for_word_and_due_again(
    case: Case, said: Say, code: str, message: str
) -> None:
    report, row, service = outcome(case, said)
    assert (report.exit_code, row) == (ExitCode.SOME_ROWS_FAILED, ("failed", code, 1))
    assert message in case.entry.message
    assert len(service.adds) == 1
    with Server(Service().behave) as server:
        assert case.run(server).exit_code is ExitCode.DONE


def test_at_the_end_of_an_interrupted_run_a_face_in_doubt_counts_once(case: Case) -> None:
    class LastTick(InDoubt):
        def ticked(self, tally: Tally) -> None:
            super().ticked(tally)
            self.in_doubt = (tally.in_doubt_now, tally.statuses[Status.IN_DOUBT])

    screen = LastTick()
    with Server(Service(says("504 Gateway Timeout", b"")).behave) as server:
        report = case.run(server, screen)
    assert report.ended.tally.statuses[Status.IN_DOUBT] == 1
    assert screen.in_doubt == (0, 1)


class Meanwhile(Screen):
    """Something happens when the run has begun."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens = happens

    def opened(self, destination: Destination, interrupt: Callable[[int], None]) -> None:
        self.happens()


@pytest.fixture(params=["lookup", "connect", "tls"])
def unreachable(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Server, Service, Callable[[], object], str]]:
    """A service, what makes it unreachable, and the words for it."""
    service = Service()

    def other_authority() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost").configure_cert(context)
        return context

    def no_address(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with Server(service.behave, tls=request.param == "tls") as server:
        happens: dict[str, tuple[Callable[[], object], str]] = {
            "lookup": (lambda: monkeypatch.setattr(socket, "getaddrinfo", no_address), "localhost"),
            "connect": (server.__exit__, "127.0.0.1"),
            "tls": (
                lambda: monkeypatch.setattr(facesearch_servers, "server_context", other_authority),
                "certificate",
            ),
        }
        yield server, service, *happens[request.param]


def test_a_call_that_cannot_leave_is_tried_again_and_spends_no_attempt(
    case: Case,
    unreachable: tuple[Server, Service, Callable[[], object], str],
    request: pytest.FixtureRequest,
) -> None:
    server, service, happens, because = unreachable
    kind = request.node.callspec.params["unreachable"]
    bundle = case.folder / "ca.pem"
    bundle.write_text(LOCALHOST_CERTIFICATE)
    hosts = {
        "lookup": "http://localhost",
        "connect": "http://127.0.0.1",
        "tls": "https://localhost",
    }
    report = case.run(
        server,
        Meanwhile(happens),
        endpoint=f"{hosts[kind]}:{server.port}",
        ca_bundle=bundle if kind == "tls" else None,
        give_up_after=1.5,
    )
    assert report.exit_code is ExitCode.UNREACHED
    assert because in (report.ended.bound or "")
    assert (case.entry.status.value, case.entry.attempts) == ("pending", 0)
    assert service.adds == []


def test_a_missing_photo_is_failed_without_a_call(case: Case) -> None:
    (case.folder / "1.jpg").unlink()
    service = Service()
    with Server(service.behave) as server:
        report = case.run(server)
    assert report.exit_code is ExitCode.SOME_ROWS_FAILED
    assert (case.entry.status.value, case.entry.error) == ("failed", "PHOTO_MISSING")
    assert service.adds == []
