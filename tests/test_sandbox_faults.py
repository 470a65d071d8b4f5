"""Every kind of rehearsed trouble, as a client sees it, and the plan that deals it out."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import requests
from cases import cases
from sandbox_caller import LIBRARY, Caller, face_photo, faceless_photo

from enroll.sandbox import CallKind, Fault, FaultKind, Sandbox, parse_fault, parse_fault_option
from enroll.sandbox.faults import EITHER_SIDE, FaultPlan

SHORT = 0.3  # seconds after which a test's client gives up


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        box.create_library(LIBRARY)
        yield box


@pytest.fixture
def caller(box: Sandbox) -> Iterator[Caller]:
    with Caller(box) as caller:
        yield caller


def faulty(caller: Caller, fault: str, *, timeout: float = 5.0) -> requests.Response:
    """One `add` that meets the fault."""
    caller.box.script([fault])
    return caller.call("add", user_id="u1", file=face_photo(), timeout=timeout)


def added(caller: Caller) -> int:
    assert caller.box.wait_idle()
    return len(caller.box.faces(LIBRARY))


SIDES = [("-before", 0), ("-after", 1)]


@pytest.mark.parametrize(("side", "count"), SIDES)
@pytest.mark.parametrize(
    ("kind", "status", "begin"),
    [
        ("500", 500, '{"error": "INTERNAL_ERROR", "request_id"'),
        ("502", 502, "<html>"),
        ("503", 503, "<html>"),
        ("504", 504, "<html>"),
        ("not-json", 200, "<html>"),
        ("no-token", 200, '{"request_id": "'),
    ],
)
def test_a_wrong_answer_is_given_before_or_after_the_call_is_applied(
    caller: Caller, kind: str, status: int, begin: str, side: str, count: int
) -> None:
    answer = faulty(caller, kind + side)
    assert answer.status_code == status
    assert answer.text.startswith(begin)
    assert "face_token" not in answer.text
    assert added(caller) == count
    (call,) = caller.box.calls
    assert (call.fault, call.applied, call.status) == (kind + side, bool(count), status)


@pytest.mark.parametrize(("side", "count"), SIDES)
def test_reset_ends_the_connection_without_an_answer(caller: Caller, side: str, count: int) -> None:
    with pytest.raises(requests.ConnectionError) as caught:
        faulty(caller, "reset" + side)
    assert "reset" in str(caught.value).lower()
    assert added(caller) == count


@pytest.mark.parametrize(("side", "count"), SIDES)
def test_cut_sends_less_than_was_announced(caller: Caller, side: str, count: int) -> None:
    with pytest.raises(requests.exceptions.ChunkedEncodingError) as caught:
        faulty(caller, "cut" + side)
    assert "IncompleteRead" in str(caught.value)
    assert added(caller) == count


@pytest.mark.parametrize(("side", "count"), SIDES)
def test_timeout_never_answers_and_ends_with_its_client(
    caller: Caller, side: str, count: int
) -> None:
    with pytest.raises(requests.ReadTimeout):
        faulty(caller, "timeout" + side, timeout=SHORT)
    assert added(caller) == count


def raw_start(box: Sandbox, fault: str, enough: Callable[[bytes], bool]) -> bytes:
    """What is answered to an `add` that meets the fault, until it is enough."""
    with Caller(box) as caller:
        prepared = requests.Request(
            "POST",
            f"{box.endpoint}/finauth/search/group/add",
            files={
                "group_id": (None, LIBRARY),
                "user_id": (None, "u1"),
                "sign": (None, caller.sign()),
                "sign_version": (None, "hmac_sha1"),
                "file": ("f.jpg", face_photo()),
            },
        ).prepare()
    body = prepared.body
    assert isinstance(body, bytes)
    box.script([fault])
    with socket.create_connection(("127.0.0.1", box.port), timeout=5) as plain:
        lines = [f"{name}: {value}" for name, value in prepared.headers.items()]
        head = "\r\n".join([f"POST {prepared.path_url} HTTP/1.1", "Host: x", *lines, "", ""])
        plain.sendall(head.encode() + body)
        answer = b""
        while not enough(answer):
            answer += plain.recv(65536)
    return answer


@pytest.mark.parametrize(("side", "count"), SIDES)
def test_drip_sends_a_header_that_never_ends(box: Sandbox, side: str, count: int) -> None:
    start = b"HTTP/1.1 200 OK\r\nX-Padding: "
    answer = raw_start(box, "drip" + side, lambda seen: seen.endswith(b" xx"))
    assert answer == start + b"xx"
    assert box.wait_idle()
    assert len(box.faces(LIBRARY)) == count


@pytest.mark.parametrize(("side", "count"), SIDES)
def test_drip_body_sends_a_body_that_never_ends(box: Sandbox, side: str, count: int) -> None:
    answer = raw_start(box, "drip-body" + side, lambda seen: seen.endswith(b" xx"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: 1000000" in head
    assert body.strip() == b"xx"
    assert box.wait_idle()
    assert len(box.faces(LIBRARY)) == count


@pytest.mark.parametrize(("side", "count"), SIDES)
def test_endless_sends_more_than_anybody_should_read(box: Sandbox, side: str, count: int) -> None:
    answer = raw_start(box, "endless" + side, lambda seen: len(seen) >= 3_000_000)
    assert b"Content-Length" not in answer[:500]
    assert box.wait_idle()
    assert len(box.faces(LIBRARY)) == count


def test_late_is_applied_after_the_client_has_gone(caller: Caller) -> None:
    with pytest.raises(requests.ReadTimeout):
        faulty(caller, "late", timeout=SHORT)
    assert added(caller) == 1
    (call,) = caller.box.calls
    assert (call.applied, call.status, call.fault) == (True, 0, "late")


def test_late_can_be_applied_while_the_client_still_waits() -> None:
    with Sandbox(late_after=0.0) as box, Caller(box) as caller:
        box.create_library(LIBRARY)
        client = threading.Thread(target=_expect_timeout, args=(caller,))
        client.start()
        try:
            wait_for(lambda: bool(box.faces(LIBRARY)))
            assert not box.calls[0].finished
        finally:
            client.join()


def _expect_timeout(caller: Caller) -> None:
    with pytest.raises(requests.ReadTimeout):
        faulty(caller, "late", timeout=1.0)


def wait_for(condition: object, seconds: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_stale_answers_and_then_closes_an_announced_connection(caller: Caller) -> None:
    answer = faulty(caller, "stale")
    assert answer.status_code == 200
    assert "Connection" not in answer.headers
    connection = http.client.HTTPConnection("127.0.0.1", caller.box.port, timeout=5)
    caller.box.script(["stale"], call="group_list")
    request = requests.Request(
        "POST",
        f"{caller.box.endpoint}/finauth/search/group/group_list",
        files={"sign": (None, caller.sign()), "sign_version": (None, "hmac_sha1")},
    ).prepare()
    connection.request("POST", request.path_url, request.body, dict(request.headers))
    assert connection.getresponse().read().startswith(b'{"group_infos"')
    assert connection.sock.recv(1) == b""
    connection.close()


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("refused", 403, "CONCURRENCY_LIMIT_EXCEEDED"),
        ("unknown-code", 400, "FACE_LEFT_THE_BUILDING"),
        ("auth", 403, "AUTHORIZATION_ERROR"),
        ("429", 429, ""),
        ("html-403", 403, ""),
        ("redirect", 302, ""),
    ],
)
def test_a_refusal_applies_nothing(caller: Caller, kind: str, status: int, code: str) -> None:
    answer = faulty(caller, kind)
    assert answer.status_code == status
    if code:
        assert answer.json()["error"].partition(":")[0] == code
    else:
        assert answer.headers["Content-Type"].startswith("text/html")
    assert added(caller) == 0
    (call,) = caller.box.calls
    assert (call.status, call.code, call.fault, call.applied) == (status, code, kind, False)


def test_429_says_when_to_come_back_and_redirect_says_where(caller: Caller) -> None:
    assert faulty(caller, "429").headers["Retry-After"] == "1"
    location = faulty(caller, "redirect").headers["Location"]
    caller.session.get(caller.box.endpoint + location)
    assert caller.box.count(location) == 1


def test_search_lag_hides_a_new_face_from_search_and_list_for_a_while() -> None:
    now = [1000.0]
    with Sandbox(clock=lambda: now[0], fault_lag=5.0) as box, Caller(box) as caller:
        box.create_library(LIBRARY)
        sign = caller.sign(now=1000, expires=2000)
        box.script(["search-lag"])
        token = caller.add(sign=sign)

        def seen() -> tuple[int, int]:
            found = caller.call("search", file=face_photo(), sign=sign).json()["results"]
            return len(found), len(caller.call("list", sign=sign).json()["face_tokens"])

        assert seen() == (0, 0)
        info = caller.call("face_info", face_token=token, sign=sign)
        assert info.json()["info"]["face_token"] == token
        now[0] += 5.0
        assert seen() == (1, 1)


def test_every_new_face_can_stay_unseen_whatever_its_call_is_answered_with() -> None:
    now = [1000.0]
    with (
        Sandbox(clock=lambda: now[0], search_lag=5.0, fault_lag=2.0) as box,
        Caller(box) as caller,
    ):
        box.create_library(LIBRARY)
        sign = caller.sign(now=1000, expires=2000)
        box.script([None, "500-after", "search-lag"])
        for number in range(3):
            caller.call("add", user_id=f"u{number}", file=face_photo(), sign=sign)

        def seen() -> tuple[int, int]:
            found = caller.call("search", file=face_photo(), limit="9", sign=sign).json()
            return len(found["results"]), len(caller.call("list", sign=sign).json()["face_tokens"])

        for later, count in ((0.0, 0), (4.9, 0), (0.1, 2), (1.9, 2), (0.1, 3)):
            now[0] += later
            assert seen() == (count, count)
        assert len(box.faces(LIBRARY)) == 3


def test_an_after_fault_on_a_call_that_fails_applies_nothing(caller: Caller) -> None:
    caller.box.script(["500-after"])
    answer = caller.call("add", user_id="u1", file=faceless_photo())
    assert answer.status_code == 500
    assert added(caller) == 0
    assert not caller.box.calls[0].applied


def test_a_script_goes_call_by_call_and_then_all_is_well(caller: Caller) -> None:
    caller.box.script(["500", None, "503-after"])
    statuses = [caller.call("add", user_id="u1", file=face_photo()).status_code for _ in range(4)]
    assert statuses == [500, 200, 503, 200]
    assert caller.box.unused_script() == 0
    assert added(caller) == 3


def test_a_script_can_be_about_one_person_or_one_kind_of_call(caller: Caller) -> None:
    caller.box.script(["500"], user_id="u2")
    caller.box.script([None, "503"])
    caller.box.script(["502"], call="search")
    assert caller.call("add", user_id="u1", file=face_photo()).status_code == 200
    assert caller.call("group_list").status_code == 200
    assert caller.call("search", file=face_photo()).status_code == 502
    statuses = [caller.call("add", user_id="u2", file=face_photo()).status_code for _ in range(3)]
    assert statuses == [500, 503, 200]  # her own script first, then everybody's


def test_a_wrong_signature_uses_up_no_script(caller: Caller) -> None:
    caller.box.script(["500"])
    assert caller.call("add", user_id="u1", file=face_photo(), sign="x").status_code == 403
    assert caller.box.unused_script() == 1


def test_calls_beyond_the_limit_are_refused_at_once_and_do_nothing(box: Sandbox) -> None:
    box.parallel = 2
    box.script(["timeout", "timeout"])
    with Caller(box) as one, Caller(box) as two, Caller(box) as three:
        hung = [threading.Thread(target=_give_up, args=(caller,)) for caller in (one, two)]
        for thread in hung:
            thread.start()
        assert box.wait_count("add", 2)
        answer = three.call("add", user_id="u3", file=face_photo())
        for thread in hung:
            thread.join()
        assert answer.status_code == 403
        assert answer.json()["error"] == "CONCURRENCY_LIMIT_EXCEEDED"
        assert box.wait_idle()
        assert box.faces(LIBRARY) == []
        refused = box.calls[2]
        assert (refused.under_way, refused.user_id) == (3, "u3")
        assert refused.code == "CONCURRENCY_LIMIT_EXCEEDED"
        three.add("u3")


def _give_up(caller: Caller) -> None:
    with pytest.raises(requests.ReadTimeout):
        caller.call("add", user_id="u1", file=face_photo(), timeout=1.0)


def test_one_call_after_another_is_never_refused_at_a_limit_of_one(box: Sandbox) -> None:
    box.parallel = 1
    with Caller(box) as caller:
        assert {caller.call("group_list").status_code for _ in range(200)} == {200}
    assert {call.under_way for call in box.calls} == {1}


def test_latency_is_waited_by_every_call_but_refused_ones() -> None:
    with Sandbox(latency=0.25) as box, Caller(box) as caller:
        box.create_library(LIBRARY)
        caller.call("group_list")
        began = time.monotonic()
        assert caller.call("group_list").json()["time_used"] >= 250
        assert time.monotonic() - began >= 0.25
        box.script(["refused"], call="group_list")
        assert caller.call("group_list").json()["time_used"] < 250


def test_stopping_is_prompt_although_connections_hang() -> None:
    box = Sandbox(latency=0.0).start()
    box.create_library(LIBRARY)
    kinds = ["timeout", "drip", "drip-body", "late", "endless"]
    box.script(kinds)
    callers = [Caller(box) for _ in kinds]

    def call(caller: Caller) -> None:
        with suppress(requests.RequestException):
            caller.call("add", user_id="u1", file=face_photo(), timeout=30)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    assert box.wait_count("add", len(kinds))
    with socket.create_connection(("127.0.0.1", box.port)):  # an idle connection
        began = time.monotonic()
        box.stop()
        assert time.monotonic() - began < 2.0
    for thread, caller in zip(threads, callers, strict=True):
        thread.join(5)
        assert not thread.is_alive()
        caller.session.close()
    for thread in threading.enumerate():
        if "process_request" in thread.name:
            thread.join(5)  # it has nothing more to do; a busy machine may not have let it end yet
            assert not thread.is_alive()


def test_a_client_that_resets_in_the_middle_harms_nobody(caller: Caller) -> None:
    with socket.create_connection(("127.0.0.1", caller.box.port)) as plain:
        plain.sendall(b"POST /finauth/search/group/add HTTP/1.1\r\nContent-Length: 900\r\n\r\nx")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert caller.call("group_list").status_code == 200


def test_probabilities_are_met_and_a_seed_repeats_itself() -> None:
    chances = {"500-after": 0.2, "reset": 0.1, "search:502": 0.5}

    def draws(seed: int, call: CallKind) -> list[str]:
        plan = FaultPlan(chances, seed=seed)
        return [str(plan.draw(call, None)) for _ in range(5000)]

    adds = draws(1, CallKind.ADD)
    assert adds == draws(1, CallKind.ADD) != draws(2, CallKind.ADD)
    assert set(adds) == {"500-after", "reset-before", "None"}
    assert 0.17 < adds.count("500-after") / 5000 < 0.23
    assert 0.08 < adds.count("reset-before") / 5000 < 0.12
    assert 0.45 < draws(1, CallKind.SEARCH).count("502-before") / 5000 < 0.55
    assert set(draws(1, CallKind.LIST)) == {"None"}


def test_the_plan_of_a_sandbox_strikes_calls() -> None:
    with Sandbox(faults={"503-after": 1.0}) as box, Caller(box) as caller:
        box.create_library(LIBRARY)
        assert caller.call("add", user_id="u1", file=face_photo()).status_code == 503
        assert caller.call("group_list").status_code == 200
        assert added(caller) == 1


@cases("kind", FaultKind)
def test_every_kind_is_parsed_and_written_back(kind: FaultKind) -> None:
    sides = [("", False), ("-before", False), ("-after", True)]
    for suffix, after in sides if kind in EITHER_SIDE else sides[:1]:
        fault = parse_fault(kind.value + suffix)
        assert fault == Fault(kind, after)
        assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("500-after", "KIND=PROBABILITY"),
        ("nonsense=0.1", "the kinds are: 500, 502"),
        ("refused-after=0.1", "has no -before and -after"),
        ("nocall:500=0.1", "the calls are: add, create"),
        ("search:nonsense=0.1", "the kinds are: 500, 502"),
        ("500=1.5", "from 0 to 1"),
        ("500=often", "from 0 to 1"),
        ("500=nan", "from 0 to 1"),
    ],
)
def test_a_fault_option_that_means_nothing_is_explained(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_fault_option(text)


def test_a_fault_option_is_a_key_and_value_of_the_plan() -> None:
    options = dict(map(parse_fault_option, ["500-after=0.05", "search:reset=1"]))
    assert options == {"500-after": 0.05, "search:reset": 1.0}


def test_probabilities_beyond_one_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to more than 1"):
        Sandbox(faults={"500": 0.6, "502": 0.6})
