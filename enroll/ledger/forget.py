"""Forgotten people: a ledger keeps nothing of them but a keyed hash."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, bindparam, delete, func, null, select, union, update
from sqlalchemy.dialects.sqlite import insert as upsert

from enroll.ledger import schema as s
from enroll.ledger.blocklist import KEY_BYTES, BlockList
from enroll.ledger.queue import SqlScanCache
from enroll.ledger.statements import among, listed
from enroll.model import Event, EventKind

LOG_SECONDS = 2
"""How long to wait for other readers of the ledger before emptying its write-ahead log; a command
that only reads takes less."""

PEOPLE_AT_ONCE = 500
"""People whose records are deleted at once: some of the statements scan a whole table."""

REDACTED = "(named a person who was forgotten)"
"""Replaces a text that named a forgotten person."""


SHOWN_DIGITS = 16
"""How many hexadecimal digits of a hash are shown: enough to tell people apart."""


_IS_BLOCKED = s.forgotten.c.lifted_at.is_(None)
_BLOCKED = select(s.forgotten.c.digest).where(_IS_BLOCKED)
_KEY = select(s.library.c.forget_key)
_COUNT_BLOCKED = select(func.count(), func.count() - func.count(s.forgotten.c.wiped_at)).where(
    _IS_BLOCKED
)


def read_block_list(connection: Connection) -> BlockList:
    """The people to withhold."""
    return BlockList(
        key=_key(connection),
        digests=frozenset(connection.scalars(_BLOCKED)),
    )


def _key(connection: Connection) -> bytes:
    return connection.scalar(_KEY) or b""


def count_forgotten(connection: Connection) -> tuple[int, int]:
    """How many people are withheld, and how many of these are not completely forgotten yet."""
    found = connection.execute(_COUNT_BLOCKED).one()
    return int(found[0]), int(found[1])


def forgotten_events(
    connection: Connection, *, user_id: str | None, since: int | None, run: int | None
) -> list[Event]:
    """When people were forgotten and readmitted, oldest first; only one person if one is named."""
    known = BlockList(key=_key(connection))
    found = connection.execute(select(s.forgotten)).all()
    wanted = None if user_id is None else known.digest(user_id)
    events = [
        event
        for line in found
        if wanted is None or line.digest == wanted
        for event in _events(line.digest.hex()[:SHOWN_DIGITS], line)
        if (since is None or event.at >= since) and (run is None or event.run == run)
    ]
    return sorted(events, key=lambda event: event.at)


def _events(hashed: str, line: Row[Any]) -> Iterator[Event]:
    deleted = "1 face" if line.faces == 1 else f"{line.faces:,} faces"
    left = "" if line.wiped_at else "; not finished"
    yield Event(
        at=line.at,
        kind=EventKind.FORGOTTEN,
        run=line.run,
        face_id=0,
        detail=f"{deleted} deleted; hash {hashed}{left}",
    )
    if line.lifted_at is not None:
        yield Event(
            at=line.lifted_at,
            kind=EventKind.READMITTED,
            run=line.lifted_run,
            face_id=0,
            detail=f"hash {hashed}",
        )


class SqlForgetting:
    """See `enroll.ledger.Forgetting`; reads and writes within the ledger's own transactions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def unfinished(self) -> int:
        _, unfinished = count_forgotten(self._connection)
        return unfinished

    def unknown_people(self, user_ids: Sequence[str]) -> dict[str, list[str]]:
        known = self._known(user_ids)
        unknown = [one for one in user_ids if one not in known]
        by_plain: dict[str, list[str]] = {_plain(one): [] for one in unknown}
        if unknown:
            for line in self._connection.execute(_ALIKE, {"plain": listed(by_plain)}).all():
                by_plain[_plain(line.user_id)].append(line.user_id)
        return {user_id: by_plain[_plain(user_id)] for user_id in unknown}

    def as_known(self, user_ids: Sequence[str]) -> list[str]:
        known = self._known(user_ids)
        blocked = read_block_list(self._connection)
        forgotten = set(self._connection.scalars(select(s.forgotten.c.digest)))

        def as_known(user_id: str) -> str:
            if user_id in known or (blocked.key and blocked.digest(user_id) in forgotten):
                return user_id
            return user_id.strip()

        return list(dict.fromkeys(map(as_known, user_ids)))

    def _known(self, user_ids: Sequence[str]) -> set[str]:
        """Those with a face or a row in the ledger."""
        found = self._connection.execute(_KNOWN, {"people": listed(user_ids)}).all()
        return {line.user_id for line in found}

    def block(self, user_ids: Sequence[str], *, at: int, run: int) -> None:
        known = self._keyed()
        for user_id in user_ids:
            # Who is withheld already keeps that time: an earlier command continues.
            self._connection.execute(
                upsert(s.forgotten)
                .values(digest=known.digest(user_id), at=at, run=run, faces=0)
                .on_conflict_do_update(
                    index_elements=["digest"],
                    set_={
                        "at": at,
                        "run": run,
                        "faces": 0,
                        "wiped_at": null(),
                        "lifted_at": null(),
                        "lifted_run": null(),
                    },
                    where=s.forgotten.c.lifted_at.is_not(None),
                )
            )

    def _keyed(self) -> BlockList:
        """The block list; its key is created if there is none."""
        known = read_block_list(self._connection)
        if known.key:
            return known
        key = secrets.token_bytes(KEY_BYTES)
        self._connection.execute(update(s.library).values(forget_key=key))
        return BlockList(key=key)

    def readmit(self, user_id: str, *, at: int, run: int) -> bool:
        known = read_block_list(self._connection)
        if not known.holds(user_id):
            return False
        self._connection.execute(
            update(s.forgotten)
            .where(s.forgotten.c.digest == known.digest(user_id))
            .values(lifted_at=at, lifted_run=run)
        )
        return True

    def deleted(self, user_id: str, count: int) -> None:
        self._connection.execute(
            update(s.forgotten)
            .where(s.forgotten.c.digest == read_block_list(self._connection).digest(user_id))
            .values(faces=s.forgotten.c.faces + count)
        )

    def count_deleted(self, user_ids: Sequence[str]) -> dict[str, int]:
        known = read_block_list(self._connection)
        counts = {
            line.digest: line.faces
            for line in self._connection.execute(select(s.forgotten.c.digest, s.forgotten.c.faces))
        }
        return {user_id: counts.get(known.digest(user_id), 0) for user_id in user_ids}

    def wipe(self, user_ids: Sequence[str]) -> None:
        self._connection.commit()
        with self._deleting():
            for start in range(0, len(user_ids), PEOPLE_AT_ONCE):
                self._wipe(listed(user_ids[start : start + PEOPLE_AT_ONCE]))
            # Photos that were read for rows that were never recorded: they may be theirs.
            self._connection.execute(_FORGET_STRAY_PHOTOS)
            # Packed, it may hold rows of theirs.
            SqlScanCache(self._connection).drop()
            self._connection.commit()

    @contextmanager
    def _deleting(self) -> Iterator[None]:
        """How much is deleted for good, outside of a transaction when it begins and ends."""
        yield

    def _wipe(self, people: str) -> None:
        words = self._words_of(people)
        self._count_deleted(people)
        for statement in _WIPE:
            self._connection.execute(statement, {"people": people})
        self._redact(words)

    def _count_deleted(self, people: str) -> None:
        """Count the faces deleted since they were blocked, from the history that is about to go."""
        known = read_block_list(self._connection)
        begun = {
            line.digest: line.at
            for line in self._connection.execute(select(s.forgotten.c.digest, s.forgotten.c.at))
        }
        counts = Counter[str]()
        for found in self._connection.execute(_REMOVED, {"people": people}).all():
            counts[found.user_id] += found.at >= begun[known.digest(found.user_id)]
        for user_id, count in counts.items():
            self.deleted(user_id, count)

    # Texts of others that may name the person

    def _words_of(self, people: str) -> Words:
        """What names them: ids, photos, texts, tokens."""
        found = {line.word for line in self._connection.execute(_WORDS, {"people": people}).all()}
        names = {str(word).rpartition("/")[2] for word in found if str(word).startswith("/")}
        return Words.of([*map(str, found - {None, ""}), *(names - {""}), *json.loads(people)])

    def _redact(self, words: Words) -> None:
        """Replace others' messages, ends of runs and undocumented answers that name the person."""
        for table, column in ((s.face, "message"), (s.row, "message"), (s.run, "reason")):
            for text in self._naming(table, column, words):
                statement = update(table).where(table.c[column] == text)
                self._connection.execute(statement.values({column: REDACTED}))
        for text in self._naming(s.raw_answer, "raw", words):
            self._connection.execute(delete(s.raw_answer).where(s.raw_answer.c.raw == text))

    def _naming(self, table: Table, column: str, words: Words) -> list[str]:
        texts = self._connection.scalars(select(table.c[column]).distinct())
        return [text for text in texts if words.named_in(text)]

    # What is left where they were

    def scrub(self, user_ids: Sequence[str], *, at: int) -> None:
        self._connection.commit()
        self._rewrite()
        known = read_block_list(self._connection)
        self._connection.execute(
            update(s.forgotten)
            .where(s.forgotten.c.digest == bindparam("whose"))
            .values(wiped_at=at),
            [{"whose": known.digest(user_id)} for user_id in user_ids],
        )
        self._connection.commit()

    def _rewrite(self) -> None:
        """Leave no byte of what was deleted; of a ledger in memory none is. Not within a
        transaction. Raises LocalError."""


@dataclass(frozen=True, slots=True)
class Words:
    """Words that name a person, and how they may be spelled in JSON."""

    spellings: Sequence[str]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, words: Iterable[str]) -> Words:
        spelled = sorted({form for word in words for form in (word, json.dumps(word)[1:-1])})
        either = "|".join(map(re.escape, spelled))
        # A user id may be 500; an HTTP status in a message does not name that person.
        no_status = r"(?!(?<=\bHTTP[ _])[0-9]{3}(?![\w-]))"
        return cls(spelled, re.compile(rf"(?<![^\W_]){no_status}(?:{either})(?![^\W_])"))

    def named_in(self, text: str | None) -> bool:
        """Whether a text has one of the words, not only as part of a longer one."""
        return bool(text) and self.pattern.search(text or "") is not None


def _plain(user_id: str) -> str:
    """A user id without what a spreadsheet or a typist changes."""
    return user_id.strip(" ").lstrip("0").lower()


_OF_ANYBODY = union(select(s.row.c.user_id), select(s.face.c.user_id)).subquery()
_ALIKE = select(_OF_ANYBODY.c.user_id).where(
    func.lower(func.ltrim(func.trim(_OF_ANYBODY.c.user_id), "0")).in_(among("plain"))
)
_ROWS = s.row.c.user_id.in_(among("people"))
_KNOWN = union(
    select(s.row.c.user_id).where(_ROWS),
    select(s.face.c.user_id).where(s.face.c.user_id.in_(among("people"))),
)
_FACES = select(s.face.c.face_id).where(s.face.c.user_id.in_(among("people")))
_PATHS = select(s.row.c.path).where(_ROWS)
_PATHS_OF_OTHERS = select(s.row.c.path).where(~_ROWS, s.row.c.path.in_(_PATHS))
_WIPE = (
    delete(s.photo).where(s.photo.c.path.in_(_PATHS), s.photo.c.path.not_in(_PATHS_OF_OTHERS)),
    *(
        delete(table).where(table.c.face_id.in_(_FACES))
        for table in (s.event, s.surplus, s.deletion, s.face_to_delete, s.finding)
    ),
    delete(s.absence).where(s.absence.c.user_id.in_(among("people"))),
    delete(s.finding).where(s.finding.c.other_user_id.in_(among("people"))),
    delete(s.event).where(
        s.event.c.kind.in_([EventKind.HELD.value, EventKind.ACCEPTED.value]),
        s.event.c.detail.in_(among("people")),
    ),
    *(
        delete(s.accepted).where(column.in_(among("people")))
        for column in (s.accepted.c.user_id, s.accepted.c.other_user_id)
    ),
    delete(s.row).where(_ROWS),
    delete(s.face).where(s.face.c.user_id.in_(among("people"))),
)
"""Children before parents."""

_FORGET_STRAY_PHOTOS = delete(s.photo).where(s.photo.c.path.not_in(select(s.row.c.path)))
_REMOVED = (
    select(s.face.c.user_id, s.event.c.at)
    .join_from(s.event, s.face, s.face.c.face_id == s.event.c.face_id)
    .where(s.event.c.kind == EventKind.REMOVED.value, s.event.c.face_id.in_(_FACES))
)
_WORDS = union(
    select(s.row.c.path.label("word")).where(_ROWS),
    select(s.photo.c.path).where(
        s.photo.c.sha256.in_(select(s.face.c.sha256).where(s.face.c.user_id.in_(among("people")))),
        s.photo.c.path.not_in(select(s.row.c.path).where(~_ROWS)),
    ),
    select(s.row.c.user_data).where(_ROWS),
    select(s.face.c.user_data).where(s.face.c.user_id.in_(among("people"))),
    select(s.face.c.former_user_data).where(s.face.c.user_id.in_(among("people"))),
    select(s.event.c.face_token).where(s.event.c.face_id.in_(_FACES)),
)
