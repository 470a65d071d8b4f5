"""The signature against the vendor's published vector."""

from __future__ import annotations

import base64

from enroll.facesearch.signing import fresh_nonce, sign
from enroll.model import Credentials

VENDOR = Credentials("ICVvC_xUs6177WEtyUNwIH8J6NfGu50t", "UjYGdN9CBZKsDBLB5-5v3DykPXY6dw3q")


def test_the_vendors_published_vector_is_reproduced() -> None:
    signature = sign(VENDOR, issued=1530762118, expires=1530762218, nonce=799687066)
    assert signature == (
        "SPzLRbDBgTGC2A8YdDaa7Jrny+5hPUlDVnZDX3hVczYxNzdXRXR5VU53SUg4SjZOZkd1NTB0"
        "JmI9MTUzMDc2MjIxOCZjPTE1MzA3NjIxMTgmZD0wNzk5Njg3MDY2"
    )


def test_a_signature_names_its_times_and_never_the_secret() -> None:
    raw = base64.b64decode(sign(VENDOR, issued=11, expires=22, nonce=7))
    assert raw[20:] == f"a={VENDOR.api_key}&b=22&c=11&d=0000000007".encode()
    assert VENDOR.api_secret.encode() not in raw


def test_nonces_differ_and_have_at_most_ten_digits() -> None:
    nonces = [fresh_nonce() for _ in range(1000)]
    assert len(set(nonces)) > 990
    assert all(0 <= nonce < 10**10 for nonce in nonces)
