"""From the manifest to rows with their photos' paths and times, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enroll.errors import LocalError
from enroll.model import Row, ScannedRow
from enroll.photo import locate, look

CHUNK_ROWS = 2_000
"""Rows scanned at a time. Ours: some 20 ms of work, so that calls that end meanwhile are heard."""


class Scan:
    """Yields the manifest's rows in chunks. Each `next_chunk` may run on another thread."""

    def __init__(self, chunks: Iterator[Sequence[Row]], images: str) -> None:
        self._chunks = chunks
        self._images = images

    def next_chunk(self) -> list[ScannedRow] | None:
        """The next rows, or None behind the last one. Raises LocalError when the share is gone."""
        rows = next(self._chunks, None)
        if rows is None:
            return None
        try:
            return [self._scanned(row) for row in rows]
        except OSError as error:
            raise LocalError(
                f"The photos below {self._images} can no longer be reached: {error.strerror}. "
                "Mount the share again, then run the same command."
            ) from error

    def _scanned(self, row: Row) -> ScannedRow:
        path = locate(self._images, row.image)
        return ScannedRow(
            line=row.line,
            user_id=row.user_id,
            user_data=row.user_data,
            image=row.image,
            path=path,
            times=look(path) if path else None,
        )
