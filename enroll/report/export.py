"""Writes what `enroll export` and `enroll history` print: any number of entries or events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, TypeVar

from enroll.errors import UsageError
from enroll.ledger import iso_time
from enroll.manifest.header import EXPORT_COLUMNS, FREE_TEXT
from enroll.manifest.results import Rule, csv_bytes, escape, escape_column, message_of
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.model import Entry, Event
from enroll.text.files import new_file
from enroll.text.wording import write_data
from enroll.visible import json_text, storable

T = TypeVar("T")

HISTORY_COLUMNS = ("at", "event", "run", "user_id", "face_token", "detail")


def print_history(events: Iterable[tuple[Event, str]]) -> None:
    """Print one line per event, oldest first; each event comes with its `user_id`."""
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
    for batch in _batches(lines, _BATCH):
        write_data(csv_bytes(batch))


_ESCAPED: Mapping[str, Rule | None] = {
    **dict.fromkeys(FREE_TEXT),
    "user_id": user_id_fault,
    "image": image_fault,
}
"""The columns that are escaped; two of them only if a cell breaks its rule."""

_BATCH = 10_000
_ROW_GROUP = 20_000
"""Entries per Parquet row group; five times as many compressed no better and took 100 MB more."""

STDOUT = Path("-")
"""The output name that means standard output."""


def write_export(entries: Iterable[Entry], path: Path, *, raw: bool = False) -> int:
    """Write the entries to a .csv, .jsonl or .parquet file, or for `-` as CSV to stdout; returns
    how many.

    With `raw`, a CSV's cells that a spreadsheet would run as formulas are not escaped. The file
    replaces the old one once it is complete. Raises UsageError for another suffix or if pyarrow is
    missing, LocalError if the file cannot be written, and OSError if stdout cannot.
    """
    if path == STDOUT:
        return _write_csv(entries, write_data, raw=raw)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        with new_file(path) as new:
            return _write_csv(entries, new.file.write, raw=raw)
    if suffix == ".jsonl":
        with new_file(path) as new:
            return _write_jsonl(entries, new.file)
    if suffix == ".parquet":
        write_parquet = _parquet_writer()
        with new_file(path) as new:
            return write_parquet(entries, new.file)
    raise UsageError(
        f"{path} does not show which kind of export you want; end its name in .csv, .jsonl or "
        ".parquet, or give - for CSV on standard output."
    )


def _write_csv(entries: Iterable[Entry], write: Callable[[bytes], object], *, raw: bool) -> int:
    write(csv_bytes([EXPORT_COLUMNS]))
    count = 0
    for batch in _batches(entries, _BATCH):
        columns = [
            cells if raw or name not in _ESCAPED else escape_column(cells, _ESCAPED[name])
            for name in EXPORT_COLUMNS
            for cells in [list(map(_value(name), batch))]
        ]
        write(csv_bytes(zip(*columns, strict=True)))
        count += len(batch)
    return count


def _write_jsonl(entries: Iterable[Entry], file: IO[bytes]) -> int:
    count = 0
    for batch in _batches(entries, _BATCH):
        file.write("".join(f"{json_text(_values(entry))}\n" for entry in batch).encode())
        count += len(batch)
    return count


def _parquet_writer() -> Callable[[Iterable[Entry], IO[bytes]], int]:
    """The import comes before any file is created, so a missing pyarrow leaves nothing behind."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - of the extra, and slow to load
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as exc:
        raise UsageError(
            "A .parquet export needs pyarrow: pip install 'enroll[parquet]', "
            "or export as .csv or .jsonl."
        ) from exc
    numbers = {"attempts", "run", "time_used"}
    schema = pa.schema(
        [(name, pa.int64() if name in numbers else pa.string()) for name in EXPORT_COLUMNS]
    )

    def write(entries: Iterable[Entry], file: IO[bytes]) -> int:
        count = 0
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in _batches(entries, _ROW_GROUP):
                columns = {
                    name: [_storable(value) for value in map(_value(name), batch)]
                    for name in EXPORT_COLUMNS
                }
                writer.write_table(pa.table(columns, schema=schema))
                count += len(batch)
        return count

    return write


def _values(entry: Entry) -> dict[str, Any]:
    return {name: _value(name)(entry) for name in EXPORT_COLUMNS}


def _value(column: str) -> Callable[[Entry], Any]:
    return message_of if column == "message" else attrgetter(column)


def _storable(value: str | int | None) -> str | int | None:
    """Replace unpaired surrogates, which Arrow refuses."""
    if not isinstance(value, str) or value.isascii():
        return value
    return storable(value)


def _batches(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
