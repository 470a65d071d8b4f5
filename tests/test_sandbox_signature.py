"""The stand-in's check of signatures, against the vendor's published example and by calls."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sandbox_caller import LIBRARY, Caller, signed

from enroll.sandbox import Sandbox
from enroll.sandbox.messages import RefusalError, SignatureCheck

# Published on the vendor's authentication page.
KEY = "ICVvC_xUs6177WEtyUNwIH8J6NfGu50t"
SECRET = "UjYGdN9CBZKsDBLB5-5v3DykPXY6dw3q"
SIGN = (
    "SPzLRbDBgTGC2A8YdDaa7Jrny+5hPUlDVnZDX3hVczYxNzdXRXR5VU53SUg4SjZOZkd1NTB0JmI9MTUzMDc2MjIxOCZj"
    "PTE1MzA3NjIxMTgmZD0wNzk5Njg3MDY2"
)
SIGNED_AT, EXPIRES_AT = 1530762118, 1530762218


@pytest.fixture
def caller() -> Iterator[Caller]:
    with Sandbox() as box, Caller(box) as caller:
        box.create_library(LIBRARY)
        yield caller


def published() -> SignatureCheck:
    return SignatureCheck(api_key=KEY, api_secret=SECRET)


def refusal(check: SignatureCheck, sign: str, now: float, version: str = "hmac_sha1") -> str:
    with pytest.raises(RefusalError) as caught:
        check.check(sign=sign, version=version, now=now)
    return caught.value.code


def test_the_published_signature_is_accepted_until_the_second_it_expires() -> None:
    published().check(sign=SIGN, version="hmac_sha1", now=EXPIRES_AT - 1)
    assert refusal(published(), SIGN, EXPIRES_AT) == "AUTHORIZATION_ERROR"


def test_the_published_signature_is_refused_with_another_key_or_secret() -> None:
    for key, secret in ((KEY, SECRET[:-1] + "x"), (KEY[:-1] + "x", SECRET)):
        check = SignatureCheck(api_key=key, api_secret=secret)
        assert refusal(check, SIGN, SIGNED_AT) == "AUTHORIZATION_ERROR"


def test_a_changed_byte_anywhere_in_a_signature_is_noticed() -> None:
    decoded = base64.b64decode(SIGN)
    for position in range(len(decoded)):
        changed = bytearray(decoded)
        changed[position] ^= 1
        sign = base64.b64encode(bytes(changed)).decode()
        assert refusal(published(), sign, SIGNED_AT) == "AUTHORIZATION_ERROR", position


@pytest.mark.parametrize(
    "sign",
    [
        SIGN.replace("+", "-"),
        SIGN[:-3],
        "not base64 at all!",
        base64.b64encode(b"short").decode(),
    ],
    ids=["url-safe", "cut off", "no base64", "shorter than a digest"],
)
def test_text_that_is_no_standard_base64_signature_is_refused(sign: str) -> None:
    assert refusal(published(), sign, SIGNED_AT) == "AUTHORIZATION_ERROR"


@pytest.mark.parametrize("nonce", ["", "12345678901", "12a", "-1"])
def test_a_random_number_that_is_not_one_to_ten_digits_is_refused(nonce: str) -> None:
    sign = signed(KEY, SECRET, expires=EXPIRES_AT, now=SIGNED_AT, nonce=nonce)
    assert refusal(published(), sign, SIGNED_AT) == "AUTHORIZATION_ERROR"


def test_a_signature_that_expires_when_it_was_made_is_refused() -> None:
    sign = signed(KEY, SECRET, expires=SIGNED_AT, now=SIGNED_AT)
    assert refusal(published(), sign, SIGNED_AT - 10) == "AUTHORIZATION_ERROR"


def test_a_signature_from_far_in_the_future_is_refused_and_a_fast_clock_is_not() -> None:
    sign = signed(KEY, SECRET, expires=SIGNED_AT + 10_000, now=SIGNED_AT)
    published().check(sign=sign, version="hmac_sha1", now=SIGNED_AT - 800)
    assert refusal(published(), sign, SIGNED_AT - 1000) == "AUTHORIZATION_ERROR"


def test_a_signature_without_expiry_is_good_for_one_call() -> None:
    check = published()
    sign = signed(KEY, SECRET, expires=0, now=SIGNED_AT)
    check.check(sign=sign, version="hmac_sha1", now=SIGNED_AT + 5)
    assert refusal(check, sign, SIGNED_AT + 6) == "AUTHORIZATION_ERROR"
    other = signed(KEY, SECRET, expires=0, now=SIGNED_AT)
    check.check(sign=other, version="hmac_sha1", now=SIGNED_AT + 7)


def test_a_signature_with_expiry_is_good_for_many_calls(caller: Caller) -> None:
    sign = caller.sign()
    assert [caller.call("group_list", sign=sign).status_code for _ in range(3)] == [200] * 3


def test_an_expired_signature_gets_403_and_adds_nothing(caller: Caller) -> None:
    now = int(time.time())
    sign = caller.sign(now=now - 100, expires=now - 1)
    answer = caller.call("list", sign=sign)
    assert (answer.status_code, answer.json()) == (403, {"error": "AUTHORIZATION_ERROR"})


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"sign": None}, "MISSING_ARGUMENTS: sign"),
        ({"sign_version": None}, "MISSING_ARGUMENTS: sign_version"),
        ({"sign_version": "hmac_sha256"}, "BAD_ARGUMENTS: sign_version"),
    ],
)
def test_both_signing_fields_are_required_as_documented(
    caller: Caller, fields: dict[str, Any], error: str
) -> None:
    answer = caller.call("group_list", **fields)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_a_skewed_clock_shows_in_date_and_refuses_our_signatures(caller: Caller) -> None:
    caller.box.clock_skew = 3600
    answer = caller.call("group_list")
    assert answer.status_code == 403
    then = time.strftime("%a, %d %b %Y %H", time.gmtime(time.time() + 3600))
    assert answer.headers["Date"].startswith(then)
