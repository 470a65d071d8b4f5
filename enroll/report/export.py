"""Writes what `enroll export` and `enroll history` print: any number of entries or events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from operator import attrgetter
from pathlib import Path

from enroll.ledger import iso_time
from enroll.manifest.header import EXPORT_COLUMNS, FREE_TEXT
from enroll.manifest.results import message_of
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.model import Entry, Event
from enroll.text.tables import BATCH, CsvTable, Rule, Table, free_text, new_table
from enroll.text.wording import write_data

HISTORY_COLUMNS = ("at", "event", "run", "user_id", "face_token", "detail")


def print_history(events: Iterable[tuple[Event, str]]) -> None:
    """Print one line per event, oldest first; each event comes with its `user_id`."""
    table = CsvTable(write_data, HISTORY_COLUMNS, rules={"detail": free_text})
    table.write(
        (
            iso_time(event.at),
            event.kind.value,
            event.run,
            user_id,
            event.face_token or "",
            event.detail,
        )
        for event, user_id in events
    )


_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(FREE_TEXT, free_text),
    "user_id": user_id_fault,
    "image": image_fault,
}

_NUMBERS = frozenset({"attempts", "run", "time_used"})

STDOUT = Path("-")
"""The output name that means standard output."""


def write_export(entries: Iterable[Entry], path: Path, *, raw: bool = False) -> int:
    """Write the entries to a table, or for `-` as CSV to stdout; returns how many.

    With `raw`, nothing is escaped. The file replaces the old one once it is complete. Raises what
    `new_table` raises, and OSError if stdout cannot be written.
    """
    rules = {} if raw else _RULES
    if path == STDOUT:
        return _write(entries, CsvTable(write_data, EXPORT_COLUMNS, rules=rules))
    with new_table(path, EXPORT_COLUMNS, rules=rules, numbers=_NUMBERS) as table:
        return _write(entries, table)


def _write(entries: Iterable[Entry], table: Table) -> int:
    values = [message_of if name == "message" else attrgetter(name) for name in EXPORT_COLUMNS]
    rest, count = iter(entries), 0
    while batch := list(islice(rest, BATCH)):
        table.write_columns([list(map(value, batch)) for value in values])
        count += len(batch)
    return count
