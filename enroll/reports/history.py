"""The events of a ledger as CSV."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from enroll.ledger.reading import iso_time
from enroll.manifest.escape import escape
from enroll.manifest.results import csv_bytes
from enroll.model import Event
from enroll.text.printing import write_data

_BATCH = 10_000

HISTORY_COLUMNS = ("at", "event", "run", "user_id", "face_token", "detail")


def print_history(events: Iterable[tuple[Event, str]]) -> None:
    """One line an event, oldest first; each event comes with its `user_id`."""
    write_data(csv_bytes([HISTORY_COLUMNS]))
    lines = (
        (
            iso_time(event.at),
            event.kind.value,
            event.run,
            user_id,
            event.face_token or "",
            escape(event.detail),
        )
        for event, user_id in events
    )
    while batch := list(islice(lines, _BATCH)):
        write_data(csv_bytes(batch))
