"""Faces that are deleted from a library, in its ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
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
    looked_like_by_held,
)
from enroll.ledger.queue import SqlScanCache
from enroll.ledger.records import Chosen, Target
from enroll.ledger.statements import Bulk, among, listed
from enroll.model import EventKind, Status

TOKEN_EVENTS = (EventKind.ENROLLED.value, EventKind.ADOPTED.value, EventKind.RESOLVED.value)
"""The kinds of events by which a face gets a token."""


@cache
def _replaced() -> tuple[Select[str, int, str], ...]:
    """What may go because another face has taken its place."""
    outgoing = s.face.c.face_id.in_(select(s.face_to_delete.c.face_id))
    may_go = and_(outgoing, ~leads_to_face(), all_rows_enrolled())
    renewed = _FORMERS.where(
        s.face.c.status == Status.ENROLLED.value, s.face.c.face_token != s.face.c.former_token
    )
    former = _FORMERS.where(may_go, ~s.face.c.status.in_(OPEN))
    # A copy that arrived after its face was removed.
    late = _COPIES.where(s.face.c.status == Status.REMOVED.value, all_rows_enrolled())
    return _FACES.where(may_go), _COPIES.where(may_go), late, former, renewed


@cache
def _of_leavers() -> tuple[Select[str, int, str], ...]:
    """What leavers have, absent since `cutoff` or longer."""
    cutoff = bindparam("cutoff", type_=s.absence.c.since.type)
    listed_again = select(literal(1)).where(s.manifest_row.c.user_id == s.absence.c.user_id)
    gone = select(s.absence.c.user_id).where(
        s.absence.c.since <= cutoff,
        ~exists(listed_again),
        s.absence.c.user_id.not_in(looked_like_by_held()),
    )
    theirs = s.face.c.user_id.in_(gone)
    # A copy that arrived after its face was removed, of a person who is to have no face.
    wanted = select(literal(1)).where(s.manifest_row.c.user_id == s.face.c.user_id)
    waits = select(literal(1)).where(
        s.absence.c.user_id == s.face.c.user_id, s.absence.c.since > cutoff
    )
    late = _COPIES.where(s.face.c.status == Status.REMOVED.value, ~exists(wanted), ~exists(waits))
    return _FACES.where(theirs), _COPIES.where(theirs), late, _FORMERS.where(theirs)


@cache
def _of_people() -> tuple[Select[str, int, str], ...]:
    return tuple(some.where(_THEIRS) for some in (_FACES, _FORMERS, _COPIES))


@cache
def _of_a_run() -> Select[str, int, str]:
    added = select(s.event.c.face_token).where(
        s.event.c.run == bindparam("number"), s.event.c.kind.in_(TOKEN_EVENTS)
    )
    return _FACES.where(s.face.c.face_token.in_(added))


@cache
def _superseded() -> Select[str, int, str]:
    return _FACES.where(s.face.c.status == Status.SUPERSEDED.value)


@cache
def _choosing(some: Select[str, int, str]) -> Executable:
    """The statement that chooses these, of one of the selections above."""
    new = upsert(s.chosen_face).from_select(s.chosen_face.c.keys(), some)
    return new.on_conflict_do_nothing()


_THEIRS = s.face.c.user_id.in_(among("people"))
_COUNT_OPEN = select(func.count()).where(_THEIRS, s.face.c.status.in_(OPEN))
_CHOOSE_NONE = delete(s.chosen_face)
_COUNT_CHOSEN = select(func.count(), func.count(s.chosen_face.c.user_id.distinct())).select_from(
    s.chosen_face
)
_INTENDED = (
    select(s.deletion, s.face.c.user_id)
    .join_from(s.deletion, s.face, s.face.c.face_id == s.deletion.c.face_id)
    .order_by(s.deletion.c.face_token)
)


class SqlDeletions:
    """Reads and writes within the ledger's own transactions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def choose_run(self, run: int) -> Chosen:
        """See `enroll.ledger.Deletions`; so for every method."""
        return self._choose(_of_a_run(), _COPIES_OF_CHOSEN, number=run)

    def choose_superseded(self) -> Chosen:
        return self._choose(_superseded(), _COPIES_OF_CHOSEN)

    def choose_people(self, user_ids: Sequence[str]) -> Chosen:
        people = {"people": listed(user_ids)}
        found = self._choose(*_of_people(), **people)
        return replace(found, open=self._connection.scalar(_COUNT_OPEN, people) or 0)

    def choose_replaced(self) -> Chosen:
        return self._choose(*_replaced())

    def choose_leavers(self, *, cutoff: int) -> Chosen:
        return self._choose(*_of_leavers(), cutoff=cutoff)

    def _choose(self, *found: Select[str, int, str], **values: Any) -> Chosen:
        """Replace what was chosen by these, one after the other. One may be there already: a copy
        is another row's face."""
        self._connection.execute(_CHOOSE_NONE)
        for some in found:
            self._connection.execute(_choosing(some), values)
        faces, persons = self._connection.execute(_COUNT_CHOSEN).one()
        return Chosen(faces=faces, people=persons)

    def chosen(self, *, after: str, most: int, run: int) -> list[Target]:
        query = (
            select(s.chosen_face)
            .where(s.chosen_face.c.face_token > after)
            .order_by(s.chosen_face.c.face_token)
            .limit(most)
        )
        return [Target(run=run, **found._asdict()) for found in self._connection.execute(query)]

    def intend(self, targets: Iterable[Target]) -> None:
        targets = list(targets)
        _INTEND.insert(self._connection, targets)
        for run in {target.run for target in targets}:
            tokens = listed(one.face_token for one in targets if one.run == run)
            self._connection.execute(_TAKE_OVER, {"tokens": tokens, "number": run})

    def intended(self) -> list[Target]:
        return [Target(**found._asdict()) for found in self._connection.execute(_INTENDED)]

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
        if not seen:  # the cached scan no longer holds
            SqlScanCache(self._connection).drop()


_FACES = select(s.face.c.face_token, s.face.c.face_id, s.face.c.user_id).where(
    s.face.c.face_token.is_not(None), s.face.c.status.in_(IN_THE_LIBRARY)
)
_FORMERS = select(s.face.c.former_token, s.face.c.face_id, s.face.c.user_id).where(
    s.face.c.former_token.is_not(None)
)
_COPIES = select(s.surplus.c.face_token, s.surplus.c.face_id, s.face.c.user_id).join_from(
    s.surplus, s.face, s.face.c.face_id == s.surplus.c.face_id
)
_COPIES_OF_CHOSEN = _COPIES.where(s.surplus.c.face_id.in_(select(s.chosen_face.c.face_id)))
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
