"""The events of a ledger as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import TextIO

from enroll.ledger.reading import iso_time
from enroll.model import Event
from enroll.rows.escape import escape

HISTORY_COLUMNS = ("at", "event", "run", "user_id", "face_token", "detail")


def write_history(events: Iterable[tuple[Event, str]], output: TextIO) -> None:
    """One line an event, oldest first; each event comes with its `user_id`."""
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(HISTORY_COLUMNS)
    for event, user_id in events:
        writer.writerow(
            [
                iso_time(event.at),
                event.kind.value,
                event.run,
                user_id,
                event.face_token or "",
                escape(event.detail),
            ]
        )
