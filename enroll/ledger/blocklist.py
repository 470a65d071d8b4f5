"""Who was forgotten, known by a keyed hash of their user id alone. Pure, no I/O."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeVar

from enroll.model import Entry, Fault, Row, Status

KEY_BYTES = 32
"""Of the key, which is made by chance for each ledger: as long as what HMAC-SHA256 gives."""

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
        """Whether this person is to be withheld."""
        return bool(self.digests) and self.digest(user_id) in self.digests

    def part(self, rows: Sequence[R]) -> tuple[Sequence[R], Sequence[R]]:
        """The rows that may be enrolled, and those that are withheld. Costs nothing where nobody
        was forgotten, and one hash a row else."""
        if not self.digests:
            return rows, ()
        free: list[R] = []
        withheld: list[R] = []
        keyed = hmac.new(self.key, digestmod="sha256")  # to begin anew costs as much as the hash
        for row in rows:
            one = keyed.copy()
            one.update(_bytes(row.user_id))
            (withheld if one.digest() in self.digests else free).append(row)
        return (free, withheld) if withheld else (rows, ())

    def entry(self, row: Row) -> Entry:
        """What the results say of a row that is withheld."""
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
        """A text that is another as soon as anybody else is withheld; empty for nobody."""
        if not self.digests:
            return ""
        return blake2b(b"".join(sorted(self.digests)), digest_size=16).hexdigest()


def _bytes(user_id: str) -> bytes:
    # Half a character can stand in a manifest's cell.
    return user_id.encode("utf-8", "surrogatepass")
