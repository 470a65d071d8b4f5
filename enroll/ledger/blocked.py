"""What a SQLite ledger keeps of people who were forgotten: read, within the reader's own wrap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, func, select

from enroll.ledger import schema as s
from enroll.ledger.blocklist import BlockList
from enroll.model import Event, EventKind

SHOWN_DIGITS = 16
"""Hexadecimal digits of a hash that are shown: enough to tell people apart."""


def read_block_list(connection: Connection) -> BlockList:
    """Who is to be withheld."""
    return BlockList(
        key=_key(connection),
        digests=frozenset(
            connection.scalars(
                select(s.forgotten.c.digest).where(s.forgotten.c.lifted_at.is_(None))
            )
        ),
    )


def _key(connection: Connection) -> bytes:
    return connection.scalar(select(s.library.c.forget_key)) or b""


def count_forgotten(connection: Connection) -> tuple[int, int]:
    """How many people are withheld, and of how many of them not everything is gone yet."""
    blocked = s.forgotten.c.lifted_at.is_(None)
    found = connection.execute(
        select(func.count(), func.count() - func.count(s.forgotten.c.wiped_at)).where(blocked)
    ).one()
    return int(found[0]), int(found[1])


def forgotten_events(
    connection: Connection, *, user_id: str | None, since: int | None, run: int | None
) -> list[Event]:
    """That people were forgotten, and readmitted, oldest first; of a person, if one is named."""
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
