"""From the manifest to rows with their photos' paths and times, a part at a time."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from enroll.errors import LocalError
from enroll.model import FileTimes, Row, ScannedRow
from enroll.photo import locate, look
from enroll.survey import Part, PartCounts, digest_of, pack, unpack

CHUNK_ROWS = 2_000
"""Rows scanned at a time. Ours: some 20 ms of work, so that calls that end meanwhile are heard."""

SLOW_SECONDS = 100e-6
"""An `lstat` that takes longer waits for a network: then many are under way at once. On a disk
whose folders are in memory one takes 3 us, threads or not."""

TRIED = 32
"""Photos of a part by which it is found out how slow the folder is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A part of the manifest, scanned: `rows`, or, where it is as it was, what it came to.

    `lines` counts its rows; `packed` are they for the next survey, None where it has them.
    """

    lines: int
    first_line: int
    digest: bytes
    rows: Sequence[ScannedRow] = ()
    quiet: PartCounts | None = None
    packed: bytes | None = field(default=None, repr=False)


class Scan:
    """Yields the manifest's rows in parts. Each `next_part` may run on another thread."""

    def __init__(self, chunks: Iterator[Sequence[Row]], images: str, *, at_once: int = 16) -> None:
        """`images` is the resolved images root; `at_once` how many photos are looked at at once
        where their folder is slow."""
        self._chunks = chunks
        self._images = images
        self._at_once = at_once
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Let go of the threads, if there were any."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def next_chunk(self) -> list[ScannedRow] | None:
        """The next rows, or None behind the last one. Raises LocalError when the share is gone."""
        found = self._next()
        return None if found is None else _rows(*found)

    def next_part(self) -> Scanned | None:
        """The same for a survey."""
        found = self._next()
        if found is None:
            return None
        rows, _, times = found
        return Scanned(
            lines=len(rows),
            first_line=rows[0].line if rows else 0,
            digest=digest_of(times),
            rows=_rows(*found),
            packed=pack(rows),
        )

    def _next(self) -> tuple[Sequence[Row], Sequence[str], array[int]] | None:
        rows = next(self._chunks, None)
        if rows is None:
            return None
        paths = [locate(self._images, row.image) for row in rows]
        return rows, paths, self._times(paths)

    def same_part(self, part: Part) -> Scanned:
        """A part of an earlier survey of the same manifest, looked at again."""
        lines, user_ids, user_data, images = unpack(part.rows)
        root = self._images
        paths = [locate(root, image) for image in images]
        times = self._times(paths)
        digest = digest_of(times)
        quiet = part.counts if digest == part.digest else None
        rows: list[ScannedRow] = []
        if quiet is None:
            found = zip(lines, user_ids, user_data, images, strict=True)
            rows = _rows(
                [Row(line=n, user_id=u, user_data=d, image=i) for n, u, d, i in found], paths, times
            )
        return Scanned(
            lines=len(lines),
            first_line=lines[0] if lines else 0,
            digest=digest,
            rows=rows,
            quiet=quiet,
        )

    def _times(self, paths: Sequence[str]) -> array[int]:
        """Size and times of each photo, one after the other."""
        try:
            began = time.perf_counter()
            times = look(paths[:TRIED])
            rest = paths[TRIED:]
            if time.perf_counter() - began <= SLOW_SECONDS * TRIED or not rest:
                times += look(rest)
                return times
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="look")
            share = -(-len(rest) // self._at_once)
            for some in self._pool.map(
                look, [rest[i : i + share] for i in range(0, len(rest), share)]
            ):
                times += some
        except OSError as error:
            raise LocalError(
                f"The photos below {self._images} can no longer be reached: {error.strerror}. "
                "Mount the share again, then run the same command."
            ) from error
        return times


def _rows(rows: Sequence[Row], paths: Sequence[str], times: array[int]) -> list[ScannedRow]:
    scanned = []
    for place, (row, path) in enumerate(zip(rows, paths, strict=True)):
        size, mtime_ns, ctime_ns = times[3 * place : 3 * place + 3]
        scanned.append(
            ScannedRow(
                line=row.line,
                user_id=row.user_id,
                user_data=row.user_data,
                image=row.image,
                path=path,
                times=None if size < 0 else FileTimes(size, mtime_ns, ctime_ns),
            )
        )
    return scanned
