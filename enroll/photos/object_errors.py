"""What a store's refusals mean, and how they read. obstore hands on their text, seldom a class."""

from __future__ import annotations

import errno
import os
import re
from xml.sax.saxutils import unescape

from enroll.resources import shortage_in

_STATUS = re.compile(r"status code: (\d+ [A-Za-z ]+)")
_CODE, _MESSAGE = re.compile(r"<Code>(.*?)</Code>"), re.compile(r"<Message>([^<\n]*)")
_ADDRESS = re.compile(r"[a-z]+://\S+")
_MOST_TEXT = 200
"""Characters of a store's own message that are shown."""

_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_NO_OBJECT = ("NoSuchKey", "BlobNotFound", "The specified key does not exist")
_REFUSED = ("401 Unauthorized", "403 Forbidden")
_FOR_NOW = ("408 Request Timeout", "429 Too Many Requests")
_EXPIRED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")
_MISPLACED = (
    *("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint"),
    "incorrectly configured region",
)
_IDENTITIES = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
"""Where a machine asks for its own identity, which is done where there are no other credentials."""

_SILENCES = {
    "ConnectionRefused": "the connection is refused",
    "dns error": "its name is unknown",
    "TimedOut": "it does not answer in time",
    "ConnectionReset": "the connection broke",
    "IncompleteMessage": "the connection broke",
    "UnexpectedEof": "the connection broke",
    "UnknownIssuer": "its certificate is not trusted",
}
"""What obstore's message has, and what it means."""


class CutError(OSError):
    """An answer that ended too early."""


def is_of_store(error: Exception) -> bool:
    """Whether obstore raised it, or the connection did."""
    from obstore.exceptions import BaseError  # noqa: PLC0415 - an extra

    return isinstance(error, BaseError | OSError) or is_invalid_name(error)


def is_missing(error: Exception) -> bool:
    """Whether there is no such object, or no such bucket; see `is_object_missing`."""
    found = isinstance(error, FileNotFoundError) or is_invalid_name(error)
    return found or _says(error, "404 Not Found", *_NO_BUCKET)


def is_object_missing(error: Exception) -> bool:
    """Whether the store says that there is no such object in a bucket that exists. Not every answer
    says which of both is missing."""
    return _says(error, *_NO_OBJECT) or is_invalid_name(error)


def is_bucket_gone(error: Exception) -> bool:
    return _says(error, *_NO_BUCKET)


def is_refused(error: Exception) -> bool:
    """Whether the credentials do not allow it, or there are none."""
    return _says(error, *_REFUSED, *_IDENTITIES)


def is_answer(error: Exception) -> bool:
    """Whether it is the store's answer to this request, which it would give again: no failure of
    the store or the connection."""
    status = _STATUS.search(str(error))
    return status is not None and status[1].startswith("4") and not _says(error, *_FOR_NOW)


def is_misplaced(error: Exception) -> bool:
    """Whether the bucket is in another region."""
    return _says(error, *_MISPLACED)


def is_invalid_name(error: Exception) -> bool:
    """Whether obstore does not take a name: one with an empty part, a dot for a part, or control
    characters."""
    return _says(error, "Could not parse path", "Encountered object with invalid path")


def raise_shortage(error: Exception) -> None:
    """Raise ShortageError where this machine allows no further connection."""
    for number in (errno.EMFILE, errno.ENFILE):
        if _says(error, os.strerror(number)) and (short := shortage_in(OSError(number, ""))):
            raise short from error


def reason(error: Exception) -> str:
    """What happened, as a clause without a stop. It has no address: that of a request may be signed
    with a secret."""
    text = str(error)
    if isinstance(error, CutError):
        return "the answer ended too early"
    if _says(error, *_IDENTITIES):
        return "there are no credentials"
    if (status := _STATUS.search(text)) is not None:
        words = [found[1] for one in (_CODE, _MESSAGE) if (found := one.search(text))]
        further = unescape(": ".join(filter(None, words)))[:_MOST_TEXT].rstrip(". ")
        return f"the store answers {status[1].strip()}{further and f' ({further})'}"
    if is_misplaced(error):
        return "the bucket is in another region"
    if _says(error, "HTTP error", "tcp connect error"):
        known = next((means for word, means in _SILENCES.items() if word in text), "")
        return f"the store does not answer{known and f' ({known})'}"
    first = text.partition("\n\n")[0].replace("\n", "\\n")
    return _ADDRESS.sub("…", first).rstrip(". :")


def remedy(error: Exception, scheme: str) -> str:
    """What to do about it, as a sentence."""
    if _says(error, *_IDENTITIES):
        return f"Set {_CREDENTIALS[scheme]}."
    return next((what for words, what in _REMEDIES.items() if _says(error, *words)), _LATER)


_LATER = "Run the same command when the store answers again."
_REMEDIES = {
    _MISPLACED: "Set AWS_REGION to the bucket's region.",
    ("InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"): (
        "It is archived: restore it first, or leave it out."
    ),
    ("kms:", "KMS."): "Check that the credentials may decrypt with its key (kms:Decrypt).",
    ("Server Side Encryption",): (
        "It is encrypted with a key of its own (SSE-C). Set AWS_SERVER_SIDE_ENCRYPTION=sse-c, and "
        "AWS_SSE_CUSTOMER_KEY_BASE64 to that key; one run has one key."
    ),
    _EXPIRED: "The credentials have expired: renew them, then run the same command.",
    ("RequestTimeTooSkewed",): "Set this machine's clock.",
    _REFUSED: "Check the credentials, and that they may list the bucket and read its objects.",
    ("400 Bad Request",): "Check the region, the endpoint and the credentials.",
}
"""By what the message has; the first that fits."""

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "az": "AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY, or AZURE_STORAGE_CONNECTION_STRING",
}


def _says(error: Exception, *words: str) -> bool:
    text = str(error)
    return any(word in text for word in words)
