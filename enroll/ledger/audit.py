"""Compares a SQLite ledger with what its library was seen to hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from enroll.ledger.listing import ROWS_AT_ONCE, SqliteListing
from enroll.ledger.queries import PARAMETERS_AT_ONCE, SqliteReader
from enroll.ledger.records import (
    DifferenceKind,
    LibraryDifference,
    MissingFace,
    RecordedCopy,
    UnknownFace,
    shown_path,
)
from enroll.ledger.statements import face_record
from enroll.model import EventKind, LibraryFace, Status


class SqliteAudit(SqliteReader):
    """See `enroll.ledger.LedgerAudit`; the listing lies in the same database."""

    def __init__(self, connection: Connection, path: str) -> None:
        super().__init__(connection, path)
        self.listing = SqliteListing(connection, path)

    def refresh(self) -> None:
        self._connection.commit()

    def copies(self) -> list[RecordedCopy]:
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
        copies: dict[str, int] = {}
        for start in range(0, len(face_ids), PARAMETERS_AT_ONCE):
            some = face_ids[start : start + PARAMETERS_AT_ONCE]
            query = select(s.surplus.c.face_token, s.surplus.c.face_id)
            found = self._connection.execute(query.where(s.surplus.c.face_id.in_(some)))
            copies |= {copy.face_token: copy.face_id for copy in found}
        return copies

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
        yield from self._found(DifferenceKind.MISSING, self._missing().order_by(s.face.c.face_id))
        yield from self._unknown(under_way=under_way)
        yield from self._found(DifferenceKind.SURPLUS, self._surplus())
        yield from self._found(DifferenceKind.OTHER_USER_ID, self._other_user_id())

    def _found(self, kind: DifferenceKind, query: Select[Any]) -> Iterator[LibraryDifference]:
        photos_folder = self.photos_folder
        for found in self._connection.execute(query.execution_options(yield_per=ROWS_AT_ONCE)):
            yield _difference(kind, found, photos_folder)

    def _unknown(self, *, under_way: bool) -> Iterator[LibraryDifference]:
        def somebody_is(status: Status) -> ColumnElement[bool]:
            same = and_(s.face.c.user_id == s.listed.c.user_id, s.face.c.status == status.value)
            return select(literal(1)).where(same).exists()

        query = select(
            s.listed.c.face_token,
            literal("").label("user_id"),
            s.listed.c.user_id.label("library_user_id"),
            s.listed.c.add_time,
            literal("").label("path"),
            somebody_is(Status.SENDING).label("sending"),
            somebody_is(Status.IN_DOUBT).label("in_doubt"),
        ).where(_is_unknown())
        for found in self._connection.execute(query.execution_options(yield_per=ROWS_AT_ONCE)):
            if found.sending and under_way:
                continue
            unsettled = found.sending or found.in_doubt
            kind = DifferenceKind.UNSETTLED if unsettled else DifferenceKind.UNKNOWN_FACE
            yield _difference(kind, found, "")

    def _surplus(self) -> Select[Any]:
        return (
            select(
                s.surplus.c.face_token,
                s.face.c.user_id,
                s.listed.c.user_id.label("library_user_id"),
                s.listed.c.add_time,
                _path().label("path"),
            )
            .join_from(s.surplus, s.listed, s.listed.c.face_token == s.surplus.c.face_token)
            .join(s.face, s.face.c.face_id == s.surplus.c.face_id)
            .order_by(s.surplus.c.face_token)
        )

    def _other_user_id(self) -> Select[Any]:
        return (
            select(
                s.face.c.face_token,
                s.face.c.user_id,
                s.listed.c.user_id.label("library_user_id"),
                s.listed.c.add_time,
                _path().label("path"),
            )
            .join_from(s.listed, s.face, s.listed.c.face_token == s.face.c.face_token)
            .where(s.listed.c.user_id != s.face.c.user_id)
            .order_by(s.face.c.face_token)
        )

    def _missing(self) -> Select[Any]:
        return select(
            s.face.c.face_id,
            s.face.c.face_token,
            s.face.c.user_id,
            literal("").label("library_user_id"),
            literal(None).label("add_time"),
            _path().label("path"),
            s.absent.c.asked,
        ).join_from(s.absent, s.face, s.face.c.face_token == s.absent.c.face_token)

    # What may be done about them

    def missing(self, *, after: int) -> list[MissingFace]:
        ids = s.face.c.face_id
        query = self._missing().where(ids > after).order_by(ids).limit(ROWS_AT_ONCE)
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
    return [
        ~select(literal(1)).where(table.c.face_token == token).exists()
        for table in (s.listed, s.absent)
    ]


def _is_unknown() -> ColumnElement[bool]:
    """Condition: the ledger does not know the listed face."""
    return and_(
        *(
            ~select(literal(1)).where(token == s.listed.c.face_token).exists()
            for token in (
                s.face.alias("known").c.face_token,
                s.surplus.alias("copied").c.face_token,
                s.face.alias("renewed").c.former_token,
            )
        )
    )


def _path() -> Any:
    """A path of the face: the last by name, as several rows may point to it."""
    return (
        select(func.max(s.row.c.path))
        .where(s.row.c.user_id == s.face.c.user_id, s.row.c.face_id == s.face.c.face_id)
        .correlate(s.face)
        .scalar_subquery()
    )


def _difference(kind: DifferenceKind, found: Row[Any], photos_folder: str) -> LibraryDifference:
    return LibraryDifference(
        kind=kind,
        face_token=found.face_token,
        user_id=found.user_id,
        library_user_id=found.library_user_id,
        add_time=found.add_time,
        image=shown_path(found.path or "", photos_folder),
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
    columns = {column.name: getattr(found, column.name) for column in s.face.columns}
    return UnknownFace(
        face=face_record(columns),
        face_token=found.unknown_token,
        add_time=found.add_time,
        earliest=earliest,
        latest=latest,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
