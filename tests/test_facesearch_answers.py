"""What an answer proves: the table of docs/errors.md, line by line, and nothing that raises."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from enroll.facesearch.answers import (
    CODE_LIMIT,
    RAW_LIMIT,
    REDACTED,
    SERVICE_CODES,
    OwnCode,
    classify,
    parse_date,
)
from enroll.model import Answer, CallKind, Verdict

TOKEN = "0123456789abcdef0123456789abcdef"
HTML = b"<html><body>Bad Gateway</body></html>"
SUCCESS: dict[CallKind, dict[str, object]] = {
    CallKind.ADD: {"group_id": "g", "face_token": TOKEN},
    CallKind.CREATE: {"group_id": "g", "group_name": "n"},
    CallKind.GROUP_LIST: {"group_infos": []},
    CallKind.GROUP_INFO: {"info": {"group_id": "g"}},
    CallKind.LIST: {"face_tokens": []},
    CallKind.FACE_INFO: {"info": {"face_token": TOKEN}},
    CallKind.SEARCH: {"results": []},
    CallKind.DELETE: {"face_removed": 1},
    CallKind.FREE: {"group_id": "g"},
}


def judge(
    status: int,
    body: bytes | dict[str, object],
    kind: CallKind = CallKind.ADD,
    headers: dict[str, str] | None = None,
    broken: tuple[OwnCode, str] | None = None,
) -> Answer:
    if isinstance(body, dict):
        body = json.dumps({"request_id": "r1", "time_used": 3, **body}).encode()
    return classify(
        kind, status=status, headers=headers or {}, body=body, now=1_700_000_000.0, broken=broken
    )


@pytest.mark.parametrize("kind", CallKind)
def test_a_200_with_the_field_of_its_call_is_applied(kind: CallKind) -> None:
    answer = judge(200, SUCCESS[kind], kind)
    assert (answer.verdict, answer.code, answer.message) == (Verdict.APPLIED, "", "")
    assert answer.request_id == "r1"
    assert set(SUCCESS[kind]) <= set(answer.payload)


@pytest.mark.parametrize("kind", CallKind)
def test_a_200_without_the_field_of_its_call_is_unknown(kind: CallKind) -> None:
    answer = judge(200, {}, kind)
    expected = OwnCode.NO_FACE_TOKEN if kind is CallKind.ADD else OwnCode.FIELD_MISSING
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, expected)


def test_the_token_of_an_added_face_is_in_the_answer() -> None:
    assert judge(200, SUCCESS[CallKind.ADD]).face_token == TOKEN


@pytest.mark.parametrize(
    "token", ["", "0" * 31, "0" * 33, "g" * 32, TOKEN + "\n", 7, None, [TOKEN]]
)
def test_a_token_that_is_not_32_hexadecimal_digits_is_unknown(token: object) -> None:
    answer = judge(200, {"face_token": token})
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, OwnCode.NO_FACE_TOKEN)
    assert answer.face_token == ""


@cases(
    "body",
    [
        b"",
        HTML,
        b'{"face_token": "0123456789abcdef01234567',
        b'["face_token"]',
        b'"' + TOKEN.encode() + b'"',
        b"null",
        b'{"face_token": NaN}',
        b'{"face_token": Infinity}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"face_token": "%s", "face_token": "%s"}' % (TOKEN.encode(), b"f" * 32),
        b'{"n": %s}' % (b"1" * 5000),
    ],
)
def test_a_200_that_is_not_one_json_object_is_unknown(body: bytes) -> None:
    answer = judge(200, body)
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, OwnCode.NOT_JSON)
    assert len(answer.raw) <= RAW_LIMIT


@pytest.mark.parametrize("error", ["NO_FACE_FOUND", "SOMETHING", {"code": 1}, 7])
def test_a_200_with_an_error_is_unknown_even_with_a_token(error: object) -> None:
    answer = judge(200, {"face_token": TOKEN, "error": error})
    assert answer.verdict is Verdict.UNKNOWN
    assert answer.face_token == ""


@pytest.mark.parametrize("error", ["", None])
def test_an_empty_error_is_none(error: object) -> None:
    assert judge(200, {"face_token": TOKEN, "error": error}).verdict is Verdict.APPLIED


@cases(("code", "verdict"), SERVICE_CODES.items())
def test_each_documented_code_has_its_verdict_in_a_400(code: str, verdict: Verdict) -> None:
    answer = judge(400, {"error": code})
    assert (answer.verdict, answer.code, answer.message) == (verdict, code, code)


@cases(
    ("code", "verdict"),
    [
        ("NO_FACE_FOUND", Verdict.REJECTED),
        ("IMAGE_ERROR_UNSUPPORTED_FORMAT", Verdict.REJECTED),
        ("INVALID_IMAGE_SIZE", Verdict.REJECTED),
        ("IMAGE_FILE_TOO_LARGE", Verdict.REJECTED),
        ("BAD_ARGUMENTS", Verdict.REJECTED),
        ("MISSING_ARGUMENTS", Verdict.REJECTED),
        ("COEXISTENCE_ARGUMENTS", Verdict.REJECTED),
        ("INVALID_FACE_TOKEN", Verdict.REJECTED),
        ("NOT_EMPTY", Verdict.REJECTED),
        ("INVALID_OUTER_ID", Verdict.FATAL),
        ("INVALID_GROUP_ID", Verdict.FATAL),
        ("AUTHORIZATION_ERROR", Verdict.FATAL),
        ("AUTHENTICATION_ERROR", Verdict.FATAL),
        ("API_NOT_FOUND", Verdict.FATAL),
        ("CONCURRENCY_LIMIT_EXCEEDED", Verdict.REFUSED),
    ],
)
def test_the_codes_prove_what_the_design_says(code: str, verdict: Verdict) -> None:
    assert SERVICE_CODES[code] is verdict


def test_every_documented_code_is_pinned() -> None:
    assert len(SERVICE_CODES) == 15


def test_a_code_is_cut_from_its_detail_and_the_message_keeps_every_word() -> None:
    answer = judge(400, {"error": "BAD_ARGUMENTS: user_id: too long"})
    assert (answer.verdict, answer.code) == (Verdict.REJECTED, "BAD_ARGUMENTS")
    assert answer.message == "BAD_ARGUMENTS: user_id: too long"


@pytest.mark.parametrize("error", ["FACE_QUALITY_TOO_LOW", "no face found", "ошибка: 7"])
def test_an_unknown_code_is_failed_and_kept_word_for_word(error: str) -> None:
    answer = judge(403, {"error": error})
    assert answer.verdict is Verdict.FAILED
    assert answer.code == error.partition(":")[0]
    assert answer.message == error
    assert answer.raw


def test_an_endless_code_is_kept_within_bounds() -> None:
    answer = judge(400, {"error": "X" * 100_000, "request_id": "Y" * 100_000})
    assert len(answer.code) == len(answer.request_id) == CODE_LIMIT
    assert len(answer.message) == len(answer.raw) == RAW_LIMIT


@cases("status", [400, 403, 404, 409, 418, 499])
@cases("body", [b"", HTML, b'{"message": "no"}', b'{"error": {"code": 7}}'])
def test_a_4xx_that_is_not_the_services_json_is_failed(status: int, body: bytes) -> None:
    answer = judge(status, body)
    assert (answer.verdict, answer.code) == (Verdict.FAILED, f"HTTP_{status}")


@cases("status", [500, 502, 503, 504, 599])
@cases("body", [b"", HTML, b'{"error": "NO_FACE_FOUND"}'])
def test_any_5xx_is_unknown(status: int, body: bytes) -> None:
    assert judge(status, body).verdict is Verdict.UNKNOWN


def test_a_5xx_keeps_the_services_code_and_else_has_ours() -> None:
    assert judge(500, {"error": "INTERNAL_ERROR"}).code == "INTERNAL_ERROR"
    assert judge(502, HTML).code == "HTTP_502"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_any_redirect_is_fatal(status: int) -> None:
    answer = judge(status, HTML, headers={"Location": "https://elsewhere.test/"})
    assert (answer.verdict, answer.code) == (Verdict.FATAL, f"HTTP_{status}")


@pytest.mark.parametrize(
    "body", [b"", HTML, b'{"error": "WHATEVER"}', b'{"error": "BAD_ARGUMENTS"}']
)
def test_a_401_is_fatal_whatever_it_says(body: bytes) -> None:
    assert judge(401, body).verdict is Verdict.FATAL


@pytest.mark.parametrize("body", [b"Request Entity Too Large", HTML, b'{"error": "X"}'])
def test_a_413_is_rejected_in_any_form(body: bytes) -> None:
    assert judge(413, body).verdict is Verdict.REJECTED


@pytest.mark.parametrize("body", [b"", HTML, b'{"error": "BAD_ARGUMENTS"}'])
def test_a_429_is_refused_whatever_it_says(body: bytes) -> None:
    assert judge(429, body).verdict is Verdict.REFUSED


@pytest.mark.parametrize("status", [200, 302, 400, 403, 429, 500, 503])
def test_the_concurrency_limit_is_refused_in_any_status(status: int) -> None:
    answer = judge(status, {"error": "CONCURRENCY_LIMIT_EXCEEDED"})
    assert (answer.verdict, answer.code) == (Verdict.REFUSED, "CONCURRENCY_LIMIT_EXCEEDED")


@pytest.mark.parametrize("status", [101, 201, 202, 204, 206, 600, 999])
def test_any_other_status_is_unknown(status: int) -> None:
    assert judge(status, SUCCESS[CallKind.ADD]).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("status", "verdict", "code"),
    [
        (200, Verdict.UNKNOWN, "BODY_CUT_OFF"),
        (400, Verdict.UNKNOWN, "BODY_CUT_OFF"),
        (502, Verdict.UNKNOWN, "BODY_CUT_OFF"),
        (302, Verdict.FATAL, "HTTP_302"),
        (401, Verdict.FATAL, "HTTP_401"),
        (413, Verdict.REJECTED, "HTTP_413"),
        (429, Verdict.REFUSED, "HTTP_429"),
    ],
)
def test_of_a_broken_answer_only_the_status_counts(
    status: int, verdict: Verdict, code: str
) -> None:
    answer = judge(status, b"", broken=(OwnCode.BODY_CUT_OFF, "the answer was cut off"))
    assert (answer.verdict, answer.code) == (verdict, code)


@cases(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("1.5", 1.0),
        ("301", 300.0),
        ("999999999", 300.0),
        ("9" * 5000, None),
        ("-1", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0.0),
        ("Tue, 14 Nov 2034 22:13:10 GMT", 300.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_five_minutes(
    text: str, seconds: float | None
) -> None:
    assert judge(429, b"", headers={"Retry-After": text}).retry_after == seconds


def test_a_retry_after_date_is_counted_from_the_services_own_date() -> None:
    headers = {
        "Retry-After": "Tue, 14 Nov 2023 22:00:30 GMT",
        "Date": "Tue, 14 Nov 2023 22:00:10 GMT",
    }
    assert judge(429, b"", headers=headers).retry_after == 20.0


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine is nine hours ahead of UTC."""
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    parse_date.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "date",
    [
        "Tue, 14 Nov 2023 22:13:20 GMT",
        "Tuesday, 14-Nov-23 22:13:20 GMT",
        "Tue Nov 14 22:13:20 2023",
        "Tue, 14 Nov 2023 22:13:20 -0000",
        "Tue, 14 Nov 2023 22:13:20",
        "Tue, 14 Nov 2023 22:13:20 UTC",
        "Wed, 15 Nov 2023 00:13:20 +0200",
    ],
)
@pytest.mark.usefixtures("tokyo")
def test_http_dates_are_utc_wherever_this_machine_is(date: str) -> None:
    assert judge(502, HTML, headers={"Date": date}).server_time == 1_700_000_000.0
    later = {"Date": "Tue, 14 Nov 2023 22:13:10 GMT", "Retry-After": date}
    assert judge(429, b"", headers=later).retry_after == 10.0


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("0", 0),
        ("1900", 1900),
        ("true", None),
        ("-1", None),
        ("3.0", None),
        ('"3"', None),
        ("null", None),
        ("99999999999999999999", None),
    ],
)
def test_the_services_own_time_is_kept_where_it_is_one(told: str, kept: int | None) -> None:
    added = f'{{"face_token": "{TOKEN}", "time_used": {told}}}'.encode()
    assert (judge(200, added).verdict, judge(200, added).time_used) == (Verdict.APPLIED, kept)
    refused = f'{{"error": "NO_FACE_FOUND", "time_used": {told}}}'.encode()
    assert judge(400, refused).time_used == kept


def test_the_services_date_is_kept() -> None:
    headers = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}
    assert judge(502, HTML, headers=headers).server_time == 1_700_000_000.0
    assert judge(502, HTML, headers={"Date": "yesterday"}).server_time is None
    assert judge(502, HTML).server_time is None


def test_lone_surrogates_do_not_reach_the_ledger() -> None:
    answer = judge(400, b'{"error": "BAD_ARGUMENTS: \\ud800x", "request_id": "\\uDC00"}')
    assert answer.code == "BAD_ARGUMENTS"
    assert answer.message == "BAD_ARGUMENTS: \ufffdx"
    assert answer.request_id == "\ufffd"


def test_a_pair_of_surrogates_stays_the_character_that_it_is() -> None:
    assert judge(400, b'{"error": "X: \\ud83d\\ude00 \\ud800"}').message == "X: \U0001f600 \ufffd"


def test_what_steers_a_terminal_reaches_neither_ledger_nor_results_raw() -> None:
    evil = "X\x1b]0;title\x07\u202e\r\nLine 2"
    answer = judge(400, {"error": f"{evil}: {evil}", "request_id": evil})

    assert answer.code == r"X\x1b]0;title\x07\u202e\r\nLine 2"
    assert answer.message == f"{answer.code}: {answer.code}"
    assert answer.request_id == answer.code


@pytest.mark.parametrize(
    "echo",
    [
        "{}",
        "prefix {} suffix {}",
    ],
)
@pytest.mark.parametrize("escape", ["/", "\\/", "%2F", "&#x2F;", "\\u002f"])
def test_what_is_secret_is_taken_out_of_message_code_and_raw(echo: str, escape: str) -> None:
    secret = "abcdefgh12345678/ABCDEFGH12345678/q"
    shown = echo.replace("{}", secret.replace("/", escape))
    body = b'{"error": "%s: %s", "request_id": "%s"}' % ((shown.encode(),) * 3)
    answer = classify(
        CallKind.ADD,
        status=400,
        headers={},
        body=body,
        now=0.0,
        secrets=(secret,),
    )
    for text in (answer.message, answer.code, answer.raw, answer.request_id):
        assert "abcdefgh12345678" not in text
        assert "ABCDEFGH12345678" not in text
        assert REDACTED in text or not text


def test_a_secret_across_the_end_of_what_is_kept_leaves_no_half() -> None:
    secret = "abcdefghijklmnopqrstuvwxyz"
    body = b"x" * (RAW_LIMIT - 10) + secret.encode()
    answer = classify(
        CallKind.ADD,
        status=403,
        headers={},
        body=body,
        now=0.0,
        secrets=(secret,),
    )
    assert "abcdefgh" not in answer.raw


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
bodies = st.binary() | st.builds(
    lambda value: json.dumps(value).encode(),
    st.dictionaries(
        st.sampled_from(["error", "request_id", "face_token", "results", "face_tokens", "x"]),
        json_values | st.sampled_from([TOKEN, *SERVICE_CODES]),
    ),
)


@given(
    kind=st.sampled_from(CallKind),
    status=st.integers(100, 999),
    headers=st.dictionaries(
        st.sampled_from(["Date", "Retry-After", "Content-Type"]),
        st.text()
        | st.from_regex(
            r"[A-Z][a-z]{2}, \d{1,4} [A-Z][a-z]{2} \d{1,6} \d+:\d+:\d+ ([A-Z]{3}|-0000)"
        ),
    ),
    body=bodies,
    broken=st.none() | st.tuples(st.sampled_from(OwnCode), st.text()),
)
def test_nothing_that_a_server_sends_raises(
    kind: CallKind,
    status: int,
    headers: dict[str, str],
    body: bytes,
    broken: tuple[OwnCode, str] | None,
) -> None:
    answer = classify(kind, status=status, headers=headers, body=body, now=1.7e9, broken=broken)
    if answer.verdict is Verdict.APPLIED:
        assert (status, broken) == (200, None)
    else:
        assert answer.code or answer.message
    if broken is None:
        "".join((answer.code, answer.message, answer.raw, answer.request_id)).encode()
    if answer.retry_after is not None:
        assert 0 <= answer.retry_after <= 300
