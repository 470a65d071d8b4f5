"""Faces that are deleted from a library, in its SQLite ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Delete,
    Executable,
    Integer,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from enroll.ledger import schema as s
from enroll.ledger.diff_queries import (
    IN_THE_LIBRARY,
    OPEN,
    all_rows_enrolled,
    by_a_sync,
    is_a_sync,
    leads_to_face,
)
from enroll.ledger.queue import SqliteScanCache
from enroll.ledger.records import Chosen, Target
from enroll.ledger.statements import Bulk, among, listed
from enroll.model import EventKind, Status

_TOKENS_OF_A_RUN = (EventKind.ENROLLED.value, EventKind.ADOPTED.value, EventKind.RESOLVED.value)


class SqliteDeletions:
    """Reads and writes within the ledger's own transactions."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        s.deletion_metadata.create_all(connection)

    def choose_run(self, run: int) -> Chosen:
        """See `enroll.ledger.Deletions`; so for every method."""
        added = select(s.event.c.face_token).where(
            s.event.c.run == run, s.event.c.kind.in_(_TOKENS_OF_A_RUN)
        )
        return self._choose(_faces().where(s.face.c.face_token.in_(added)))

    def choose_superseded(self) -> Chosen:
        return self._choose(_faces().where(s.face.c.status == Status.SUPERSEDED.value))

    def choose_people(self, user_ids: Sequence[str]) -> Chosen:
        self._connection.execute(delete(s.chosen_face))
        for statement in _CHOOSE_PEOPLE:
            self._connection.execute(statement, {"people": listed(user_ids)})
        found = self._connection.execute(_OPEN_FACES, {"people": listed(user_ids)}).all()
        return self._counted(opened=found[0].opened)

    def choose_replaced(self) -> Chosen:
        outgoing = s.face.c.face_id.in_(select(s.face_to_delete.c.face_id))
        may_go = and_(outgoing, ~leads_to_face(), all_rows_enrolled())
        renewed = _formers().where(
            s.face.c.status == Status.ENROLLED.value, s.face.c.face_token != s.face.c.former_token
        )
        former = _formers().where(may_go, ~s.face.c.status.in_(OPEN))
        # A copy that has landed since its face was removed.
        late = _COPIES.where(s.face.c.status == Status.REMOVED.value, all_rows_enrolled())
        self._gather(_faces().where(may_go), _COPIES.where(may_go), late, former, renewed)
        return self._counted(opened=0)

    def choose_leavers(self, *, cutoff: int) -> Chosen:
        listed_again = select(literal(1)).where(s.manifest_row.c.user_id == s.absence.c.user_id)
        gone = select(s.absence.c.user_id).where(s.absence.c.since <= cutoff, ~exists(listed_again))
        theirs = s.face.c.user_id.in_(gone)
        # A copy that has landed since its face was removed: of nobody who is to have a face.
        wanted = select(literal(1)).where(s.manifest_row.c.user_id == s.face.c.user_id)
        waits = select(literal(1)).where(
            s.absence.c.user_id == s.face.c.user_id, s.absence.c.since > cutoff
        )
        late = _COPIES.where(
            s.face.c.status == Status.REMOVED.value, ~exists(wanted), ~exists(waits)
        )
        copies = _COPIES.where(theirs)
        self._gather(_faces().where(theirs), copies, late, _formers().where(theirs))
        return self._counted(opened=0)

    def _choose(self, faces: Select[str, int, str]) -> Chosen:
        self._gather(faces)
        self._connection.execute(_CHOOSE_COPIES)
        return self._counted(opened=0)

    def _gather(self, *found: Select[str, int, str]) -> None:
        self._connection.execute(delete(s.chosen_face))
        for some in found:
            new = upsert(s.chosen_face).from_select(_COLUMNS, some)
            self._connection.execute(new.on_conflict_do_nothing())

    def _counted(self, *, opened: int) -> Chosen:
        people = func.count(s.chosen_face.c.user_id.distinct())
        found = self._connection.execute(select(func.count(), people).select_from(s.chosen_face))
        faces, persons = found.one()
        return Chosen(faces=faces, people=persons, open=opened)

    def chosen(self, *, after: str, most: int, run: int) -> list[Target]:
        query = (
            select(s.chosen_face)
            .where(s.chosen_face.c.face_token > after)
            .order_by(s.chosen_face.c.face_token)
            .limit(most)
        )
        return [_target(found, run=run) for found in self._connection.execute(query)]

    def intend(self, targets: Iterable[Target]) -> None:
        targets = list(targets)
        _INTEND.execute(self._connection, _INTEND.of(targets))
        for run in {target.run for target in targets}:
            tokens = listed(one.face_token for one in targets if one.run == run)
            self._connection.execute(_TAKE_OVER, {"tokens": tokens, "number": run})

    def intended(self) -> list[Target]:
        query = (
            select(s.deletion, s.face.c.user_id)
            .join_from(s.deletion, s.face, s.face.c.face_id == s.deletion.c.face_id)
            .order_by(s.deletion.c.face_token)
        )
        return [_target(found, run=found.run) for found in self._connection.execute(query)]

    def intended_by_syncs(self) -> dict[str, int]:
        tokens = select(s.deletion.c.face_token).where(
            s.deletion.c.run.in_(select(s.run.c.run).where(is_a_sync()))
        )
        last = (
            select(func.max(s.event.c.event))
            .where(s.event.c.kind == EventKind.REMOVING.value, s.event.c.face_token.in_(tokens))
            .group_by(s.event.c.face_token)
        )
        times = select(s.event.c.face_token, s.event.c.at).where(s.event.c.event.in_(last))
        found = dict.fromkeys(self._connection.scalars(tokens), 0)
        if found:  # no index leads to an event
            found.update((token, at) for token, at in self._connection.execute(times))
        return found

    def withdraw(self, face_tokens: Sequence[str]) -> None:
        self._connection.execute(_FORGET_INTENTS, {"tokens": listed(face_tokens)})

    def confirm(self, face_tokens: Sequence[str], *, run: int, seen: bool = False) -> None:
        self._connection.execute(_TAKE_FORMER, {"tokens": listed(face_tokens)})
        self._connection.execute(_TAKE_TOKENS, {"tokens": listed(face_tokens), "number": run})
        for statement in (_FORGET_COPIES, _FORGET_INTENTS):
            self._connection.execute(statement, {"tokens": listed(face_tokens)})
        if not seen:  # what was seen of the manifest's rows holds no more
            SqliteScanCache(self._connection, self._path).drop()


def _target(found: Any, *, run: int) -> Target:
    return Target(
        face_token=found.face_token, face_id=found.face_id, user_id=found.user_id, run=run
    )


def _faces() -> Select[str, int, str]:
    return select(s.face.c.face_token, s.face.c.face_id, s.face.c.user_id).where(
        s.face.c.face_token.is_not(None), s.face.c.status.in_(IN_THE_LIBRARY)
    )


def _formers() -> Select[str, int, str]:
    return select(s.face.c.former_token, s.face.c.face_id, s.face.c.user_id).where(
        s.face.c.former_token.is_not(None)
    )


_COPIES = select(s.surplus.c.face_token, s.surplus.c.face_id, s.face.c.user_id).join_from(
    s.surplus, s.face, s.face.c.face_id == s.surplus.c.face_id
)
_COLUMNS = ["face_token", "face_id", "user_id"]
_OF_PEOPLE = s.face.c.user_id.in_(among("people"))


def _choosing(found: Select[str, int, str]) -> Executable:
    """Adds to the chosen faces; one may be there already: a copy is another row's face."""
    new = upsert(s.chosen_face).from_select(_COLUMNS, found.where(_OF_PEOPLE))
    return new.on_conflict_do_nothing()


_CHOOSE_PEOPLE = tuple(_choosing(found) for found in (_faces(), _formers(), _COPIES))
_CHOOSE_COPIES = (
    upsert(s.chosen_face)
    .from_select(_COLUMNS, _COPIES.where(s.surplus.c.face_id.in_(select(s.chosen_face.c.face_id))))
    .on_conflict_do_nothing()
)
_OPEN_FACES = select(func.count().label("opened")).where(_OF_PEOPLE, s.face.c.status.in_(OPEN))
_INTEND = Bulk(upsert(s.deletion).on_conflict_do_nothing())
# What somebody has agreed to is theirs, though a sync was about to delete it before.
_TAKE_OVER = (
    update(s.deletion)
    .where(
        s.deletion.c.face_token.in_(among("tokens")),
        ~by_a_sync(bindparam("number", type_=Integer)),
    )
    .values(run=bindparam("number", type_=Integer))
)


def _of_tokens(statement: Delete) -> Executable:
    return statement.where(statement.table.c.face_token.in_(among("tokens")))


_FORGET_INTENTS = _of_tokens(delete(s.deletion))
_FORGET_COPIES = _of_tokens(delete(s.surplus))
_TAKE_FORMER = (
    update(s.face)
    .where(s.face.c.former_token.in_(among("tokens")))
    .values(former_token=null(), former_user_data=null())
)
_TAKE_TOKENS = (
    update(s.face)
    .where(s.face.c.face_token.in_(among("tokens")))
    .values(
        status=Status.REMOVED.value,
        face_token=null(),
        enrolled_at=null(),
        run=bindparam("number", type_=Integer),
    )
)
