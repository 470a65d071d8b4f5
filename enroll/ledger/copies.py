"""The copies on record as surplus, beside what the library was seen to hold of their faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, case, func, literal, select

from enroll.ledger import schema as s
from enroll.ledger.reading import PARAMETERS_AT_ONCE, SqliteReader, translate_db_errors
from enroll.model import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCopy:
    """A copy on record as surplus, and the face that it is a copy of.

    `own` is that face's own token, if it has one; `own_there` says whether the library holds
    that, and is None where nothing is known of it. `wanted` says that the face is to be in the
    library.
    """

    face_token: str
    face_id: int
    own: str | None
    own_there: bool | None
    wanted: bool

    @property
    def spare(self) -> bool:
        """Whether the library is known to be no poorer without this copy."""
        return self.own_there is True or not self.wanted


class SqliteCopies(SqliteReader):
    """A ledger whose copies are looked at; what was listed is in the same database."""

    def copies(self) -> list[RecordedCopy]:
        """Every copy on record as surplus, and nothing else, by the faces' numbers."""
        token, own = s.surplus.c.face_token, s.face.c.face_token
        borne = s.face.alias("bearer")
        adopted = select(literal(1)).where(borne.c.face_token == token).exists()
        there = case(
            (own.is_(None), False),
            (_is_in(s.listed.c.face_token, own), True),
            (_is_in(s.absent.c.face_token, own), False),
        )
        query = (
            select(
                token,
                s.surplus.c.face_id,
                own.label("own"),
                there.label("there"),
                (s.face.c.status != Status.REMOVED.value).label("wanted"),
            )
            .join_from(s.surplus, s.face, s.face.c.face_id == s.surplus.c.face_id)
            .where(~adopted)
            .order_by(s.surplus.c.face_id, token)
        )
        with translate_db_errors(self._path):
            return [
                RecordedCopy(
                    face_token=found.face_token,
                    face_id=found.face_id,
                    own=found.own,
                    own_there=None if found.there is None else bool(found.there),
                    wanted=found.wanted,
                )
                for found in self._connection.execute(query)
            ]

    def copies_of(self, face_ids: Sequence[int]) -> dict[str, int]:
        """The copies on record of some faces, and whose copy each is."""
        copies: dict[str, int] = {}
        for start in range(0, len(face_ids), PARAMETERS_AT_ONCE):
            some = face_ids[start : start + PARAMETERS_AT_ONCE]
            query = select(s.surplus.c.face_token, s.surplus.c.face_id)
            with translate_db_errors(self._path):
                found = self._connection.execute(query.where(s.surplus.c.face_id.in_(some)))
                copies |= {copy.face_token: copy.face_id for copy in found}
        return copies

    def formers_of_missing(self) -> int:
        """Of how many missing faces the library may hold what was there before they were added
        anew."""
        query = (
            select(func.count())
            .select_from(s.absent)
            .join(s.face, s.face.c.face_token == s.absent.c.face_token)
            .where(s.face.c.former_token.is_not(None))
        )
        with translate_db_errors(self._path):
            return self._connection.scalar(query) or 0


def _is_in(column: ColumnElement[str], token: ColumnElement[str]) -> ColumnElement[bool]:
    return select(literal(1)).where(column == token).exists()
