"""What a library was seen to hold, and how a ledger differs from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    Select,
    and_,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.sqlite import insert

from enroll.expiry import expiry_after_death, last_expiry
from enroll.ledger import schema as s
from enroll.ledger.queries import SqlReader, path_of_face
from enroll.ledger.records import (
    DifferenceKind,
    LibraryDifference,
    MissingFace,
    RecordedCopy,
    UnknownFace,
    shown_path,
)
from enroll.ledger.statements import among_numbers, face_record, listed
from enroll.model import EventKind, LibraryFace, ScannedRow, Status

ROWS_AT_ONCE = 1000
"""Rows that are read from a temporary table together."""

TOKENS_AT_ONCE = 400
"""Tokens that are looked for together: long lists are slow to compile."""


class SqlListing:
    """See `enroll.ledger.Listing`. It lies in temporary tables, in a file of SQLite's own that is
    deleted with the connection: a million faces take no memory."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        s.create_tables(connection, s.listing_metadata)
        connection.commit()

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()

    def add_faces(self, faces: Sequence[LibraryFace]) -> int:
        if not faces:
            return 0
        statement = insert(s.listed).on_conflict_do_nothing()
        statement = statement.execution_options(preserve_rowcount=True)
        found = self._connection.execute(statement, [asdict(face) for face in faces])
        self._connection.commit()  # what is compared later must not be read as of now
        return found.rowcount

    def count_faces(self) -> int:
        return self._connection.scalar(select(func.count()).select_from(s.listed)) or 0

    def faces_of(self, user_id: str) -> list[LibraryFace]:
        query = (
            select(s.listed)
            .where(s.listed.c.user_id == user_id)
            .order_by(s.listed.c.add_time, s.listed.c.face_token)
        )
        return [LibraryFace(**found._asdict()) for found in self._connection.execute(query)]

    def tokens(self) -> Iterator[list[str]]:
        query = select(s.listed.c.face_token).execution_options(yield_per=TOKENS_AT_ONCE)
        for found in self._connection.scalars(query).partitions():
            yield list(found)

    def add_rows(self, rows: Iterable[ScannedRow]) -> None:
        columns = s.adoptable_row.c.keys()
        parameters = [{name: getattr(row, name) for name in columns} for row in rows]
        if parameters:
            self._connection.execute(insert(s.adoptable_row).on_conflict_do_nothing(), parameters)
            self._connection.commit()

    def count_rows(self, *, listed_only: bool) -> int:
        counted = select(func.count()).select_from(s.adoptable_row)
        return self._connection.scalar(counted.where(*self._narrowed(listed_only))) or 0

    def rows_by_person(self, *, listed_only: bool) -> Iterator[list[ScannedRow]]:
        query = (
            select(s.adoptable_row)
            .where(*self._narrowed(listed_only))
            .order_by(s.adoptable_row.c.user_id, s.adoptable_row.c.line)
            .execution_options(yield_per=ROWS_AT_ONCE)
        )
        found = (ScannedRow(**row._asdict()) for row in self._connection.execute(query))
        for _, rows in groupby(found, key=lambda row: row.user_id):
            yield list(rows)

    def _narrowed(self, listed_only: bool) -> list[ColumnElement[bool]]:
        if not listed_only:
            return []
        seen = select(s.listed.c.user_id).where(s.listed.c.user_id == s.adoptable_row.c.user_id)
        return [seen.exists()]


class SqlAudit(SqlReader):
    """See `enroll.ledger.LedgerAudit`; the listing lies in the same database."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.listing = SqlListing(connection)

    def refresh(self) -> None:
        self._connection.commit()

    def copies(self) -> list[RecordedCopy]:
        token, own = s.surplus.c.face_token, s.face.c.face_token
        borne = s.face.alias("bearer")
        adopted = _is_in(borne.c.face_token, token)
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
                there.label("own_there"),
                (s.face.c.status != Status.REMOVED.value).label("wanted"),
            )
            .join_from(s.surplus, s.face, s.face.c.face_id == s.surplus.c.face_id)
            .where(~adopted)
            .order_by(s.surplus.c.face_id, token)
        )
        return [RecordedCopy(**found._asdict()) for found in self._connection.execute(query)]

    def copies_of(self, face_ids: Sequence[int]) -> dict[str, int]:
        copy = s.surplus.c
        query = select(copy.face_token, copy.face_id).where(
            copy.face_id.in_(among_numbers("faces"))
        )
        found = self._connection.execute(query, {"faces": listed(face_ids)})
        return {copy.face_token: copy.face_id for copy in found}

    def formers_of_missing(self) -> int:
        query = (
            select(func.count())
            .select_from(s.absent)
            .join(s.face, s.face.c.face_token == s.absent.c.face_token)
            .where(s.face.c.former_token.is_not(None))
        )
        return self._connection.scalar(query) or 0

    # Tokens of the ledger that the library did not show

    def unseen(self, *, before: int, after: str) -> list[str]:
        query = self._unseen(before, after).order_by("face_token").limit(ROWS_AT_ONCE)
        return list(self._connection.scalars(query))

    def unseen_count(self, *, before: int) -> int:
        counted = select(func.count()).select_from(self._unseen(before, "").subquery())
        return self._connection.scalar(counted) or 0

    def present(self, faces: Sequence[LibraryFace]) -> None:
        self.listing.add_faces(faces)
        tokens = [face.face_token for face in faces]
        self._connection.execute(delete(s.absent).where(s.absent.c.face_token.in_(tokens)))
        self._connection.commit()

    def deleted(self, face_tokens: Sequence[str]) -> None:
        self._connection.execute(delete(s.listed).where(s.listed.c.face_token.in_(face_tokens)))
        self._connection.commit()

    def absent(self, face_tokens: Sequence[str]) -> None:
        if not face_tokens:
            return
        parameters = [{"face_token": token, "asked": True} for token in face_tokens]
        self._connection.execute(insert(s.absent).on_conflict_do_nothing(), parameters)
        self._connection.commit()

    def all_was_listed(self, *, before: int) -> None:
        unseen = self._unseen(before, "").subquery()
        self._connection.execute(
            insert(s.absent).from_select(
                ["face_token", "asked"], select(unseen.c.face_token, literal(False))
            )
        )
        self._connection.commit()

    def _unseen(self, before: int, after: str) -> CompoundSelect[tuple[str]]:
        faces, copies = s.face.c, s.surplus.c
        old = or_(faces.enrolled_at.is_(None), faces.enrolled_at < before)
        return union_all(
            select(faces.face_token).where(
                faces.face_token > after, old, *_unknown_of(faces.face_token)
            ),
            select(copies.face_token).where(
                copies.face_token > after, *_unknown_of(copies.face_token)
            ),
        )

    # Differences

    def differences(self, *, under_way: bool) -> Iterator[LibraryDifference]:
        missing = _MISSING.order_by(s.face.c.face_id)
        yield from self._found(DifferenceKind.MISSING, missing)
        for found in self._connection.execute(_UNKNOWN.execution_options(yield_per=ROWS_AT_ONCE)):
            if found.sending and under_way:
                continue
            unsettled = found.sending or found.in_doubt
            kind = DifferenceKind.UNSETTLED if unsettled else DifferenceKind.UNKNOWN_FACE
            yield _difference(kind, found, "")
        yield from self._found(DifferenceKind.SURPLUS, _SURPLUS)
        yield from self._found(DifferenceKind.OTHER_USER_ID, _OTHER_USER_ID)

    def _found(self, kind: DifferenceKind, query: Select[Any]) -> Iterator[LibraryDifference]:
        photo_root = self.photo_root
        for found in self._connection.execute(query.execution_options(yield_per=ROWS_AT_ONCE)):
            yield _difference(kind, found, photo_root)

    # What may be done about them

    def missing(self, *, after: int) -> list[MissingFace]:
        ids = s.face.c.face_id
        query = _MISSING.where(ids > after).order_by(ids).limit(ROWS_AT_ONCE)
        return [
            MissingFace(
                face_id=found.face_id,
                user_id=found.user_id,
                face_token=found.face_token,
                asked=found.asked,
            )
            for found in self._connection.execute(query)
        ]

    def unknown_faces(self) -> list[UnknownFace]:
        died = s.run.alias("died")  # the run before the one that found what it had left
        query = (
            select(
                s.face,
                s.event.c.at,
                s.run.c.started_at,
                s.run.c.timeout,
                died.c.started_at.label("died_started_at"),
                died.c.alive_at.label("died_alive_at"),
                died.c.timeout.label("died_timeout"),
                s.listed.c.face_token.label("unknown_token"),
                s.listed.c.add_time,
            )
            .join_from(s.event, s.face, s.face.c.face_id == s.event.c.face_id)
            .join(s.listed, s.listed.c.user_id == s.face.c.user_id)
            .join(s.run, s.run.c.run == s.event.c.run)
            .outerjoin(died, died.c.run == s.event.c.run - 1)
            .where(
                s.event.c.kind == EventKind.IN_DOUBT.value,
                s.face.c.status == Status.ENROLLED.value,
                _is_unknown(),
            )
            .order_by(s.face.c.face_id, s.listed.c.face_token, s.event.c.event)
        )
        return [_unknown_face(found) for found in self._connection.execute(query)]


def _is_in(column: ColumnElement[str], token: ColumnElement[str]) -> ColumnElement[bool]:
    return select(literal(1)).where(column == token).exists()


def _unknown_of(token: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """Conditions: the token was not listed, and nobody said that it is not there."""
    return [~_is_in(table.c.face_token, token) for table in (s.listed, s.absent)]


def _is_unknown() -> ColumnElement[bool]:
    """Condition: the ledger does not know the listed face."""
    known = (
        s.face.alias("known").c.face_token,
        s.surplus.alias("copied").c.face_token,
        s.face.alias("renewed").c.former_token,
    )
    return and_(*(~_is_in(token, s.listed.c.face_token) for token in known))


def _somebody_is(status: Status) -> ColumnElement[bool]:
    """Condition: a face of the listed face's person has this status."""
    same = and_(s.face.c.user_id == s.listed.c.user_id, s.face.c.status == status.value)
    return select(literal(1)).where(same).exists()


_OF_BOTH = (
    s.face.c.user_id,
    s.listed.c.user_id.label("library_user_id"),
    s.listed.c.add_time,
    path_of_face().label("path"),
)
_SURPLUS = (
    select(s.surplus.c.face_token, *_OF_BOTH)
    .join_from(s.surplus, s.listed, s.listed.c.face_token == s.surplus.c.face_token)
    .join(s.face, s.face.c.face_id == s.surplus.c.face_id)
    .order_by(s.surplus.c.face_token)
)
_OTHER_USER_ID = (
    select(s.face.c.face_token, *_OF_BOTH)
    .join_from(s.listed, s.face, s.listed.c.face_token == s.face.c.face_token)
    .where(s.listed.c.user_id != s.face.c.user_id)
    .order_by(s.face.c.face_token)
)
_MISSING = select(
    s.face.c.face_id,
    s.face.c.face_token,
    s.face.c.user_id,
    literal("").label("library_user_id"),
    literal(None).label("add_time"),
    path_of_face().label("path"),
    s.absent.c.asked,
).join_from(s.absent, s.face, s.face.c.face_token == s.absent.c.face_token)
_UNKNOWN = select(
    s.listed.c.face_token,
    literal("").label("user_id"),
    s.listed.c.user_id.label("library_user_id"),
    s.listed.c.add_time,
    literal("").label("path"),
    _somebody_is(Status.SENDING).label("sending"),
    _somebody_is(Status.IN_DOUBT).label("in_doubt"),
).where(_is_unknown())


def _difference(kind: DifferenceKind, found: Row[Any], photo_root: str) -> LibraryDifference:
    return LibraryDifference(
        kind=kind,
        face_token=found.face_token,
        user_id=found.user_id,
        library_user_id=found.library_user_id,
        add_time=found.add_time,
        image=shown_path(found.path or "", photo_root),
    )


def _unknown_face(found: Row[Any]) -> UnknownFace:
    if found.at == found.started_at and found.died_started_at is not None:
        # The run began with this doubt: the attempt was the dead run's before it.
        earliest = found.died_started_at
        alive_at = found.died_alive_at / 1000
        latest = _ms(expiry_after_death(alive_at, timeout=found.died_timeout))
    else:
        # The doubt came when the call had failed, after at most its time; it may be applied
        # until its signature expires.
        timeout = found.timeout
        earliest = max(found.started_at, found.at - _ms(timeout))
        latest = _ms(last_expiry(found.at / 1000, timeout=timeout))
    return UnknownFace(
        face=face_record(found),
        face_token=found.unknown_token,
        add_time=found.add_time,
        earliest=earliest,
        latest=latest,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
