"""The manifest's bytes: opened plain, through gzip or of a workbook's sheet, and hashed.

Every fault is told in one sentence.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from enroll.errors import ManifestError
from enroll.manifest.bounds import MOST_UNPACKED, bounded
from enroll.manifest.workbook import OLE, ZIP, Hidden, Table

Stream = io.BufferedReader
"""A manifest's content, opened for reading."""

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One state of a file: where it is, its SHA-256 (hex), and the times that tell it unchanged.

    `state` is size and modification time in nanoseconds. It is read no longer than `until`
    (monotonic): then every way of reading it raises TimeOverError.
    """

    path: Path
    sha256: str
    state: tuple[int, int]
    until: float = math.inf
    _table: Table | None = field(default=None, repr=False, compare=False)

    @property
    def is_workbook(self) -> bool:
        """Whether the content is that of a workbook's sheet: a CSV of ours, a record a row."""
        return self._table is not None

    @property
    def hidden(self) -> Hidden | None:
        """What the spreadsheet does not show of the sheet; None for a file that is no workbook."""
        return None if self._table is None else self._table.hidden

    @classmethod
    def of(cls, path: Path, sheet: str | None = None, *, until: float = math.inf) -> Source:
        """Read and hash the whole file; of a workbook the sheet is made a CSV.

        `sheet` is `--sheet`. Raises ManifestError when that cannot be done, and TimeOverError.
        """
        with _faults(path):
            if path.is_dir():
                raise ManifestError(f"{path} is a folder; give the CSV file itself.")
            if not stat.S_ISREG(path.stat().st_mode):
                raise ManifestError(
                    f"{path} is not a plain file, and a manifest is read more than once; "
                    "save it to a file first."
                )
            with path.open("rb") as file:
                state = _state(file)
                is_workbook = file.read(8).startswith((ZIP, OLE))
                file.seek(0)
                if sheet is not None and not is_workbook:
                    raise ManifestError(
                        f"{path} is not a workbook, so it has no sheet {sheet!r}; leave --sheet "
                        "out."
                    )
                sha256 = _digest(bounded(file, path, until=until))
                file.seek(0)
                table = Table(file, path, sheet, until=until) if is_workbook else None
                source = cls(path=path, sha256=sha256, state=state, until=until, _table=table)
                if _state(file) != state:
                    source._refuse_changed()
                return source

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """The content, unpacked; faults in reading it become ManifestError.

        The body must do nothing but read, since its OSErrors are taken for the file's.
        """
        if self._table is not None:
            with self._table.open() as table:
                yield bounded(table, self.path, until=self.until)
            return
        with _faults(self.path), self.path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            self.check_unchanged(file)
            if not packed:
                yield bounded(file, self.path, until=self.until)
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield bounded(unpacked, self.path, until=self.until, most=MOST_UNPACKED)

    def check_unchanged(self, file: Stream) -> None:
        """ManifestError when the file's content is no longer the one that was checked.

        Costs one fstat; only when the times differ is the file read again, so that a `touch`
        or a copy over itself stops nothing.
        """
        if self._table is not None or _state(file) == self.state:
            return  # of a workbook's sheet we have a copy
        with self.path.open("rb") as again:
            if _digest(again) == self.sha256:
                return
        self._refuse_changed()

    def _refuse_changed(self) -> NoReturn:
        raise ManifestError(
            f"{self.path} was changed while it was being read; start again when it is complete."
        )


def _state(file: Stream) -> tuple[int, int]:
    info = os.fstat(file.fileno())
    return info.st_size, info.st_mtime_ns


def _digest(file: io.BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise ManifestError(f"There is no manifest at {path}.") from exc
    except PermissionError as exc:
        raise ManifestError(f"{path} cannot be read by this user; check its permissions.") from exc
    except EOFError as exc:
        raise ManifestError(
            f"{path} is a gzip file that ends too early; copy or pack it again."
        ) from exc
    except (gzip.BadGzipFile, zlib.error) as exc:
        raise ManifestError(f"{path} is a damaged gzip file ({exc}); copy it again.") from exc
    except OSError as exc:
        raise ManifestError(f"{path} cannot be read: {exc.strerror or exc}.") from exc
