"""The nine calls over real HTTP: answers, field rules and error shapes."""

from __future__ import annotations

import base64
import http.client
import io
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from cases import cases
from PIL import Image
from sandbox_caller import LIBRARY, Caller, face_photo, face_picture, faceless_photo, jpeg

from enroll.cli.rehearsal import portrait
from enroll.sandbox import CallKind, Limits, Sandbox


@pytest.fixture(scope="module")
def shared_box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@pytest.fixture
def caller(shared_box: Sandbox) -> Iterator[Caller]:
    """A caller of an account whose only library is new and empty."""
    with Caller(shared_box) as caller:
        for info in caller.call("group_list").json()["group_infos"]:
            caller.call("free", group_id=info["group_id"], check_empty="0")
        shared_box.create_library(LIBRARY)
        yield caller


def error(answer: requests.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert isinstance(body["request_id"], str)
    assert isinstance(body["time_used"], int)
    return answer.status_code, body["error"]


def test_add_answers_with_a_token_and_the_library_holds_the_face(caller: Caller) -> None:
    photo = face_photo()
    answer = caller.call("add", user_id="13@a_B-%#&", user_data="Ärztin", file=photo)
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"group_id", "face_token", "request_id", "time_used"}
    assert re.fullmatch(r"[0-9a-f]{32}", body["face_token"])
    (face,) = caller.box.faces(LIBRARY)
    assert (face.face_token, face.user_id, face.user_data) == (
        body["face_token"],
        "13@a_B-%#&",
        "Ärztin",
    )


def test_adding_the_same_photo_twice_makes_two_faces(caller: Caller) -> None:
    assert caller.add() != caller.add()
    assert len(caller.box.faces(LIBRARY)) == 2


def test_a_base64_image_is_the_same_as_a_file(caller: Caller) -> None:
    token = caller.add("u1")
    image = base64.b64encode(face_photo()).decode()
    answer = caller.call("add", user_id="u2", image=image)
    assert answer.status_code == 200
    assert len({face.sha256 for face in caller.box.faces(LIBRARY)}) == 1
    assert caller.box.faces(LIBRARY)[0].face_token == token


def test_an_image_of_more_than_half_a_megabyte_can_be_sent_as_base64(caller: Caller) -> None:
    buffer = io.BytesIO()
    face_picture().resize((800, 800)).save(buffer, "BMP")
    buffer.truncate()
    photo = jpeg(face_picture().resize((1600, 1600)), quality=97)
    assert len(photo) > 500_000
    answer = caller.call("add", user_id="u1", image=base64.b64encode(photo).decode())
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG"])
def test_formats_are_told_by_content(caller: Caller, kind: str) -> None:
    buffer = io.BytesIO()
    face_picture().save(buffer, kind)
    caller.add(file=buffer.getvalue())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"user_id": None}, "MISSING_ARGUMENTS: user_id"),
        ({"user_id": ""}, "MISSING_ARGUMENTS: user_id"),
        ({"user_id": "a b"}, "BAD_ARGUMENTS: user_id"),
        ({"user_id": "Ä"}, "BAD_ARGUMENTS: user_id"),
        ({"user_id": "a.b"}, "BAD_ARGUMENTS: user_id"),
        ({"user_id": "x" * 49}, "BAD_ARGUMENTS: user_id"),
        ({"user_data": "x" * 129}, "BAD_ARGUMENTS: user_data"),
        ({"group_id": None}, "MISSING_ARGUMENTS: group_id"),
        ({"group_id": "nobody"}, "INVALID_OUTER_ID"),
        ({"multi_oriented_detection": "true"}, "BAD_ARGUMENTS: multi_oriented_detection"),
        ({"image": "aGk="}, "COEXISTENCE_ARGUMENTS"),
    ],
)
def test_a_bad_field_of_add_is_refused_and_adds_nothing(
    caller: Caller, fields: dict[str, Any], expected: str
) -> None:
    answer = caller.call("add", file=face_photo(), **{"user_id": "u1", **fields})
    assert error(answer) == (400, expected)
    assert caller.box.faces(LIBRARY) == []


def test_the_longest_user_id_and_user_data_are_taken(caller: Caller) -> None:
    caller.add("x" * 48, user_data="ü" * 128)


def test_add_without_a_picture_is_refused(caller: Caller) -> None:
    assert error(caller.call("add", user_id="u1")) == (400, "MISSING_ARGUMENTS: file")


def gif() -> bytes:
    buffer = io.BytesIO()
    face_picture().save(buffer, "GIF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        (gif, "IMAGE_ERROR_UNSUPPORTED_FORMAT: file"),
        (lambda: b"", "IMAGE_ERROR_UNSUPPORTED_FORMAT: file"),
        (lambda: b"\xff\xd8\xff nothing more", "IMAGE_ERROR_UNSUPPORTED_FORMAT: file"),
        (lambda: face_photo()[:9000], "IMAGE_ERROR_UNSUPPORTED_FORMAT: file"),
        (lambda: jpeg(Image.new("RGB", (47, 300))), "INVALID_IMAGE_SIZE: file"),
        (lambda: jpeg(Image.new("RGB", (4097, 60))), "INVALID_IMAGE_SIZE: file"),
        (faceless_photo, "NO_FACE_FOUND"),
    ],
    ids=["gif", "empty", "broken", "truncated", "small", "large", "faceless"],
)
def test_a_picture_that_will_not_do_is_refused(
    caller: Caller, photo: object, expected: str
) -> None:
    assert callable(photo)
    assert error(caller.call("add", user_id="u1", file=photo())) == (400, expected)
    assert error(caller.call("search", file=photo())) == (400, expected)


def test_an_image_error_names_the_field_it_came_in(caller: Caller) -> None:
    assert caller.call("search", file=gif()).json()["error"].endswith(": file")
    for image in (base64.b64encode(gif()).decode(), "no base64!"):
        answer = caller.call("search", image=image)
        assert error(answer) == (400, "IMAGE_ERROR_UNSUPPORTED_FORMAT: image")


def test_an_unknown_library_is_named_before_the_picture_is_looked_at(caller: Caller) -> None:
    for kind in ("add", "search"):
        user_id = "u1" if kind == "add" else None
        answer = caller.call(kind, group_id="nobody", user_id=user_id, file=faceless_photo())
        assert error(answer) == (400, "INVALID_OUTER_ID")


def test_a_picture_as_large_as_allowed_is_taken(caller: Caller) -> None:
    wall = Image.new("RGB", (4096, 1024), "white")
    wall.paste(face_picture().resize((1024, 1024)), (1000, 0))
    # At most 640 pixels are looked at, so the face is too small there; it is no size error.
    assert error(caller.call("add", user_id="u1", file=jpeg(wall))) == (400, "NO_FACE_FOUND")


def test_a_request_over_two_megabytes_gets_413_as_plain_text(caller: Caller) -> None:
    answer = caller.call("add", user_id="u1", file=b"\xff\xd8\xff" + bytes(2 * 1024 * 1024))
    assert (answer.status_code, answer.text) == (413, "Request Entity Too Large")
    assert answer.headers["Content-Type"] == "text/plain"
    assert caller.call("group_list").status_code == 200


def test_413_reaches_a_client_that_sends_its_whole_request_first(caller: Caller) -> None:
    size = 16_000_000  # more than the buffers of both sockets hold
    with socket.create_connection(("127.0.0.1", caller.box.port), timeout=10) as plain:
        plain.sendall(f"POST /x HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode())
        plain.sendall(bytes(size))
        assert plain.recv(100).startswith(b"HTTP/1.1 413 ")


def test_an_image_over_two_megabytes_is_too_large_where_the_request_is_not() -> None:
    with Sandbox(limits=Limits(max_request_bytes=4_000_000)) as box, Caller(box) as caller:
        box.create_library(LIBRARY)
        answer = caller.call("add", user_id="u1", file=face_photo() + bytes(2 * 1024 * 1024))
        assert error(answer) == (400, "IMAGE_FILE_TOO_LARGE: file")


def test_create_answers_with_what_was_sent_and_group_list_shows_it(caller: Caller) -> None:
    created = caller.call("create", group_id="g2", group_name="Zwei", group_data="d").json()
    wanted = {"group_id": "g2", "group_name": "Zwei", "group_data": "d", "model_version": "s21"}
    assert {name: created[name] for name in wanted} == wanted
    infos = caller.call("group_list").json()["group_infos"]
    assert [info["group_id"] for info in infos] == [LIBRARY, "g2"]
    assert infos[1].items() > wanted.items()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", infos[1]["add_time"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"group_name": None}, "MISSING_ARGUMENTS: group_name"),
        ({"group_name": "n" * 61}, "BAD_ARGUMENTS: group_name"),
        ({"group_data": "n" * 129}, "BAD_ARGUMENTS: group_data"),
        ({"group_id": LIBRARY}, "BAD_ARGUMENTS: group_id"),
    ],
)
def test_a_bad_field_of_create_is_refused(
    caller: Caller, fields: dict[str, Any], expected: str
) -> None:
    answer = caller.call("create", **{"group_id": "g2", "group_name": "Zwei", **fields})
    assert error(answer) == (400, expected)


def test_an_account_holds_ten_libraries(caller: Caller) -> None:
    for number in range(9):
        assert caller.call("create", group_id=f"g{number}", group_name="n").status_code == 200
    answer = caller.call("create", group_id="g10", group_name="n")
    assert error(answer) == (400, "QUOTA_EXCEEDED: group")


def test_an_account_holds_no_more_faces_than_its_quota() -> None:
    with Sandbox(limits=Limits(max_faces=2)) as box, Caller(box) as caller:
        box.create_library(LIBRARY)
        tokens = [caller.add(), caller.add()]
        answer = caller.call("add", user_id="u1", file=face_photo())
        assert error(answer) == (400, "QUOTA_EXCEEDED: face")
        caller.call("delete", face_tokens=tokens[0])
        caller.add()


def test_list_pages_through_the_faces_oldest_first(caller: Caller) -> None:
    tokens = [caller.add(f"u{number}") for number in range(5)]
    first = caller.call("list", limit="2").json()
    second = caller.call("list", limit="2", start=str(first["next"])).json()
    third = caller.call("list", limit="2", start=str(second["next"])).json()
    assert "next" not in third
    listed = [*first["face_tokens"], *second["face_tokens"], *third["face_tokens"]]
    assert [entry["face_token"] for entry in listed] == tokens
    assert set(listed[0]) == {"face_token", "user_id", "user_data", "add_time"}
    assert listed[0]["add_time"] <= listed[4]["add_time"]


@pytest.mark.parametrize(
    "fields", [{"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"start": "0"}, {"start": "-1"}]
)
def test_list_refuses_numbers_out_of_range(caller: Caller, fields: dict[str, Any]) -> None:
    (name,) = fields
    assert error(caller.call("list", **fields)) == (400, f"BAD_ARGUMENTS: {name}")


def test_list_can_refuse_to_start_past_the_documented_thousand() -> None:
    with Sandbox(limits=Limits(max_start=1000)) as box, Caller(box) as caller:
        box.create_library(LIBRARY)
        assert caller.call("list", start="1000").status_code == 200
        assert error(caller.call("list", start="1001")) == (400, "BAD_ARGUMENTS: start")


def test_face_info_shows_one_face_and_refuses_unknown_tokens(caller: Caller) -> None:
    token = caller.add("u7", user_data="seven")
    info = caller.call("face_info", face_token=token).json()["info"]
    assert (info["face_token"], info["user_id"], info["user_data"]) == (token, "u7", "seven")
    for wrong in ("0" * 32, "x"):
        assert error(caller.call("face_info", face_token=wrong)) == (400, "INVALID_FACE_TOKEN")
    assert error(caller.call("face_info")) == (400, "MISSING_ARGUMENTS: face_token")


def test_delete_removes_faces_and_says_which_were_not_there(caller: Caller) -> None:
    kept, gone = caller.add("u1"), caller.add("u2")
    body = caller.call("delete", face_tokens=f"{gone},{'0' * 32}").json()
    assert (body["face_removed"], body["face_count"]) == (1, 1)
    assert body["failure_detail"] == [{"face_token": "0" * 32, "reason": "FACE_NOT_IN_GROUP"}]
    assert [face.face_token for face in caller.box.faces(LIBRARY)] == [kept]
    found = caller.call("search", limit="100", file=face_photo()).json()["results"]
    assert [result["face_token"] for result in found] == [kept]


def test_delete_takes_a_thousand_tokens_and_no_more(caller: Caller) -> None:
    tokens = ["0" * 32] * 1001
    assert error(caller.call("delete", face_tokens=",".join(tokens))) == (
        400,
        "BAD_ARGUMENTS: face_tokens",
    )
    assert caller.call("delete", face_tokens=",".join(tokens[1:])).status_code == 200


def test_free_refuses_a_library_with_faces_unless_told_otherwise(caller: Caller) -> None:
    caller.add()
    assert error(caller.call("free")) == (400, "NOT_EMPTY")
    assert error(caller.call("free", check_empty="2")) == (400, "BAD_ARGUMENTS: check_empty")
    assert caller.call("free", check_empty="0").json()["group_id"] == LIBRARY
    assert error(caller.call("list")) == (400, "INVALID_OUTER_ID")


def test_search_ranks_the_same_picture_first_with_100(caller: Caller) -> None:
    strangers = {caller.add(f"s{seed}", file=portrait(seed)) for seed in range(4)}
    token = caller.add("me", user_data="x")
    results = caller.call("search", limit="10", file=face_photo()).json()["results"]
    assert set(results[0]) == {"face_token", "user_id", "user_data", "confidence"}
    assert (results[0]["face_token"], results[0]["confidence"]) == (token, 100.0)
    assert {result["face_token"] for result in results[1:]} == strangers
    scores = [result["confidence"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert scores[1] < 75


def test_search_honours_limit_and_threshold(caller: Caller) -> None:
    caller.add("stranger", file=portrait(1))
    for _ in range(3):
        caller.add("me")
    assert len(caller.call("search", file=face_photo()).json()["results"]) == 1
    every = caller.call("search", limit="100", threshold="0", file=face_photo()).json()
    same = caller.call("search", limit="100", threshold="99.9", file=face_photo()).json()
    assert (len(every["results"]), len(same["results"])) == (4, 3)
    wrong: list[dict[str, Any]] = [{"limit": "101"}, {"threshold": "101"}, {"threshold": "x"}]
    for fields in wrong:
        answer = caller.call("search", file=face_photo(), **fields)
        assert error(answer) == (400, f"BAD_ARGUMENTS: {next(iter(fields))}")


def test_search_in_an_empty_library_finds_nothing(caller: Caller) -> None:
    assert caller.call("search", file=face_photo()).json()["results"] == []


def test_an_unknown_call_gets_404_without_request_id(caller: Caller) -> None:
    for kind in ("nothing", "add/", "ADD", ""):
        answer = caller.call(kind)
        assert (answer.status_code, answer.json()) == (404, {"error": "API_NOT_FOUND"})
    url = f"{caller.box.endpoint}/finauth/search/group/group_list"
    assert caller.session.get(url).status_code == 404


def test_only_multipart_is_understood(caller: Caller) -> None:
    url = f"{caller.box.endpoint}/finauth/search/group/group_list"
    fields = {"sign": caller.sign(), "sign_version": "hmac_sha1"}
    assert error(caller.session.post(url, data=fields)) == (400, "BAD_ARGUMENTS: Content-Type")


# What each call needs to be carried out, beside the signature and `group_id`.
NEEDED: dict[str, dict[str, Any]] = {
    "add": {"user_id": "u1"},
    "create": {"group_id": "g2", "group_name": "Zwei"},
    "group_list": {},
    "group_info": {},
    "list": {},
    "face_info": {"face_token": "0" * 32},
    "search": {},
    "delete": {"face_tokens": "0" * 32},
    "free": {},
}


def test_every_call_of_the_documentation_is_tried_with_undocumented_fields() -> None:
    assert set(NEEDED) == set(CallKind)


@cases("kind", sorted(NEEDED))
@cases(
    "twist",
    ["api_key", "another call's", "as a file", "query", "bare query", "twice", "sign twice"],
)
def test_a_field_that_is_not_documented_is_refused_by_every_call(
    caller: Caller, kind: str, twist: str
) -> None:
    fields = {"sign": caller.sign(), "sign_version": "hmac_sha1", **NEEDED[kind]}
    if kind not in ("group_list", "create"):
        fields["group_id"] = LIBRARY
    parts: list[tuple[str, Any]] = [(name, (None, value)) for name, value in fields.items()]
    if kind in ("add", "search"):
        parts.append(("file", ("photo.jpg", face_photo(), "image/jpeg")))
    odd, query = "api_key", ""
    match twist:
        case "api_key":
            parts.append((odd, (None, caller.box.api_key)))
        case "another call's":
            odd = "user_id" if kind == "free" else "check_empty"
            parts.append((odd, (None, "1")))
        case "as a file":
            parts.append((odd, ("key.txt", b"key", "text/plain")))
        case "query":
            query = f"?{odd}=1"
        case "bare query":
            odd, query = "?", "?&"
        case "twice":
            odd, _ = parts[-1]
            parts.append(parts[-1])
        case "sign twice":
            odd, _ = parts[0]
            parts.append(parts[0])
    url = f"{caller.box.endpoint}/finauth/search/group/{kind}{query}"
    answer = caller.session.post(url, files=parts, timeout=10)
    assert error(answer) == (400, f"BAD_ARGUMENTS: {odd}")
    assert caller.box.faces(LIBRARY) == []
    assert len(caller.call("group_list").json()["group_infos"]) == 1


def test_a_picture_is_a_file_part_and_its_base64_is_text(caller: Caller) -> None:
    url = f"{caller.box.endpoint}/finauth/search/group/search"
    base64_text = base64.b64encode(face_photo()).decode()
    for name, part in (("file", (None, base64_text)), ("image", ("photo.txt", base64_text))):
        fields = {"sign": caller.sign(), "sign_version": "hmac_sha1", "group_id": LIBRARY}
        parts: dict[str, Any] = {key: (None, value) for key, value in fields.items()}
        answer = caller.session.post(url, files={**parts, name: part}, timeout=10)
        assert error(answer) == (400, f"BAD_ARGUMENTS: {name}")


def test_group_info_shows_one_library_as_group_list_does(caller: Caller) -> None:
    caller.call("create", group_id="g2", group_name="Zwei", group_data="d")
    listed = caller.call("group_list").json()["group_infos"]
    for info in listed:
        body = caller.call("group_info", group_id=info["group_id"]).json()
        assert set(body) == {"info", "request_id", "time_used"}
        assert body["info"] == info
    assert error(caller.call("group_info", group_id="g3")) == (400, "INVALID_OUTER_ID")


def test_a_connection_is_kept_alive_from_call_to_call(caller: Caller) -> None:
    with socket.create_connection(("127.0.0.1", caller.box.port), timeout=5) as plain:
        for _ in range(2):
            plain.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
            answer = http.client.HTTPResponse(plain)
            answer.begin()
            assert answer.status == 404
            assert answer.read() == b'{"error": "API_NOT_FOUND"}'


def test_a_chunked_request_is_read_to_its_end(caller: Caller) -> None:
    prepared = requests.Request(
        "POST",
        f"{caller.box.endpoint}/finauth/search/group/group_list",
        files={"sign": (None, caller.sign()), "sign_version": (None, "hmac_sha1")},
    ).prepare()
    body = prepared.body
    assert isinstance(body, bytes)
    del prepared.headers["Content-Length"]
    prepared.headers["Transfer-Encoding"] = "chunked"
    prepared.body = iter([body[:10], body[10:]])  # type: ignore[assignment]
    assert caller.session.send(prepared, timeout=5).status_code == 200
    assert caller.call("group_list").status_code == 200


def test_a_request_that_ends_early_is_no_call(caller: Caller) -> None:
    before = len(caller.box.calls)
    with socket.create_connection(("127.0.0.1", caller.box.port), timeout=5) as plain:
        plain.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhi")
        plain.shutdown(socket.SHUT_WR)
        assert plain.recv(100) == b""
    assert len(caller.box.calls) == before
