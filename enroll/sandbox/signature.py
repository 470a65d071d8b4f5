"""Checks the `sign` field of a call, from the documentation alone.

`sign` is the standard Base64 text of the 20 bytes of HMAC-SHA1(api_secret, raw) followed by raw,
and raw is `a=API_KEY&b=EXPIRE_TIME&c=CURRENT_TIME&d=RANDOM`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections import OrderedDict
from threading import Lock

from .replies import RefusalError

SIGN_VERSION = "hmac_sha1"
_DIGEST_BYTES = 20
_RAW = re.compile(
    r"a=(?P<key>[^&]*)&b=(?P<b>[0-9]{1,20})&c=(?P<c>[0-9]{1,20})&d=(?P<d>[0-9]{1,10})"
)

# The vendor names no bound on `c`. A clock a quarter of an hour fast is taken for a broken one.
_FUTURE_SECONDS = 900
# Single-use signatures are remembered this long and refused when they are older.
_SINGLE_USE_SECONDS = 3600


class SignatureCheck:
    """Knows the account's key and secret, and which single-use signatures are spent."""

    def __init__(self, *, api_key: str, api_secret: str) -> None:
        self._key = api_key
        self._secret = api_secret.encode()
        self._spent: OrderedDict[str, float] = OrderedDict()
        self._lock = Lock()

    def check(self, *, sign: str | None, version: str | None, now: float) -> None:
        """Return when the call may go on; raise `RefusalError` with the vendor's code otherwise.

        `now` is UNIX seconds on the stand-in's clock, at the arrival of the call.
        """
        if not sign:
            raise RefusalError("MISSING_ARGUMENTS", "sign")
        if not version:
            raise RefusalError("MISSING_ARGUMENTS", "sign_version")
        if version != SIGN_VERSION:
            raise RefusalError("BAD_ARGUMENTS", "sign_version")
        expires, signed = self._verified(sign)
        if signed > now + _FUTURE_SECONDS:
            raise _denied()
        if expires:
            if expires <= signed or expires <= now:
                raise _denied()
        else:
            self._spend(sign, signed=signed, now=now)

    def _verified(self, sign: str) -> tuple[int, int]:
        """The fields b and c of a signature that our secret made."""
        try:
            decoded = base64.b64decode(sign, validate=True)
            raw = decoded[_DIGEST_BYTES:].decode("ascii")
        except (binascii.Error, ValueError) as exc:
            raise _denied() from exc
        fields = _RAW.fullmatch(raw)
        digest = hmac.new(self._secret, raw.encode(), hashlib.sha1).digest()
        # Both checks always run, so that the time taken tells nothing.
        genuine = hmac.compare_digest(digest, decoded[:_DIGEST_BYTES])
        if fields is None or not genuine or fields["key"] != self._key:
            raise _denied()
        return int(fields["b"]), int(fields["c"])

    def _spend(self, sign: str, *, signed: int, now: float) -> None:
        if signed < now - _SINGLE_USE_SECONDS:
            raise _denied()
        with self._lock:
            if sign in self._spent:
                raise _denied()
            self._spent[sign] = now
            while next(iter(self._spent.values())) < now - 2 * _SINGLE_USE_SECONDS:
                self._spent.popitem(last=False)


def _denied() -> RefusalError:
    return RefusalError("AUTHORIZATION_ERROR", status=403)
