"""The signature that every call carries: who calls, from when, until when, and a number."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import random

from enroll.model import Credentials

SIGN_VERSION = "hmac_sha1"


def sign(credentials: Credentials, *, issued: int, expires: int, nonce: int) -> str:
    """The value of `sign`; `issued` and `expires` are UNIX seconds on the service's clock.

    `nonce` is a number of at most 10 digits and is written with all ten: the vendor's published
    vector keeps its leading zero.
    """
    raw = f"a={credentials.api_key}&b={expires}&c={issued}&d={nonce:010d}".encode()
    # SHA-1 is the service's choice, not ours; HMAC does not need its collision resistance.
    digest = hmac.digest(credentials.api_secret.encode(), raw, hashlib.sha1)
    return base64.b64encode(digest + raw).decode("ascii")


def fresh_nonce() -> int:
    """A random number for one attempt.

    Below 2**32, because "at most 10 digits" is how a vendor describes an unsigned 32-bit number.
    It is no secret, and is only not to be repeated.
    """
    return _NONCES.getrandbits(32)


_NONCES = random.Random()  # noqa: S311
"""Our own: a program around us may seed that of the module."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_NONCES.seed)
