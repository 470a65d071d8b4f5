"""Forgotten people, known only by a keyed hash of their user id. Pure, no I/O."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeVar

from enroll.model import Entry, Fault, Row, Status

KEY_BYTES = 32
"""Length of the key, which is random for each ledger: that of an HMAC-SHA256 digest."""

WITHHELD = Fault(
    code="FORGOTTEN",
    message="This person was forgotten and is not enrolled again; `enroll forget --readmit` with "
    "the user_id allows it.",
)
"""Why a row is withheld."""

R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True)
class BlockList:
    """Hashes of the user ids that must not be enrolled, and the key with which they were made."""

    key: bytes = field(default=b"", repr=False)
    digests: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.digests)

    def digest(self, user_id: str) -> bytes:
        """The keyed hash of a user id: 32 bytes."""
        return hmac.digest(self.key, _bytes(user_id), "sha256")

    def holds(self, user_id: str) -> bool:
        """Whether to withhold this person."""
        return bool(self.digests) and self.digest(user_id) in self.digests

    def part(self, rows: Sequence[R]) -> tuple[Sequence[R], Sequence[R]]:
        """The rows that may be enrolled, and those that are withheld. Costs one hash per row, or
        nothing if nobody was forgotten."""
        if not self.digests:
            return rows, ()
        free: list[R] = []
        withheld: list[R] = []
        keyed = hmac.new(self.key, digestmod="sha256")  # setting it up costs as much as the hash
        for row in rows:
            one = keyed.copy()
            one.update(_bytes(row.user_id))
            (withheld if one.digest() in self.digests else free).append(row)
        return (free, withheld) if withheld else (rows, ())

    def entry(self, row: Row) -> Entry:
        """The entry in the results for a withheld row."""
        return Entry(
            user_id=row.user_id,
            user_data=row.user_data,
            image=row.image,
            status=Status.WITHHELD,
            error=WITHHELD.code,
            message=WITHHELD.message,
        )

    @property
    def mark(self) -> str:
        """A text that changes whenever the set of withheld people does; empty if there are none."""
        if not self.digests:
            return ""
        return blake2b(b"".join(sorted(self.digests)), digest_size=16).hexdigest()


def _bytes(user_id: str) -> bytes:
    # A manifest's cell can contain half a surrogate pair.
    return user_id.encode("utf-8", "surrogatepass")
