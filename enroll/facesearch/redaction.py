"""Takes what is secret out of what a server sent: it might echo the request."""

from __future__ import annotations

import re
from collections.abc import Iterable

REDACTED = "[redacted]"
SHORTEST_PIECE = 8
"""Characters. Shorter pieces occur in ordinary words, and give away nothing."""

_WORD = re.compile(r"[0-9A-Za-z]+")


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` without the secrets: each one whole, and each of its runs of letters and digits.

    An echo may be escaped for JSON, HTML or a URL; that changes only what lies between the runs.
    """
    if text:
        for piece in _pieces(secrets):
            text = text.replace(piece, REDACTED)
    return text


def _pieces(secrets: Iterable[str]) -> list[str]:
    """What to look for, longest first, so that nothing is left over of a whole secret."""
    pieces: set[str] = set()
    for secret in secrets:
        pieces.update((secret, *_WORD.findall(secret)))
    return sorted((each for each in pieces if len(each) >= SHORTEST_PIECE), key=len, reverse=True)
