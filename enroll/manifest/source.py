"""The manifest's bytes, hashed: of a plain file, a gzip file, a workbook's sheet or a folder of
photos.

All that comes after reads CSV. Another kind of list is added here: `Source.of` recognises it and
converts it to a CSV with one record per row, as `SheetCsv` does with a sheet, and `PhotoListing`
with a folder.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from enroll.errors import ManifestError
from enroll.manifest.bounds import MAX_UNPACKED_BYTES, Bounded, bounded
from enroll.manifest.listing import PhotoListing
from enroll.manifest.workbook import OLE, ZIP, Hidden, SheetCsv
from enroll.photos import PhotoStore, open_store

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file as it was when it was hashed: path, SHA-256 (hex), and size and time.

    `state` is size and modification time in nanoseconds; while it is the same, the file counts as
    unchanged. After `until` (monotonic) every read raises TimeOverError.
    """

    path: Path
    sha256: str
    state: tuple[int, int]
    until: float = math.inf
    store: PhotoStore | None = field(default=None, repr=False, compare=False)
    """The photos, where the manifest itself is what holds them."""
    _table: SheetCsv | PhotoListing | None = field(default=None, repr=False, compare=False)

    @property
    def is_converted(self) -> bool:
        """Whether the content is converted to a CSV, with one record per row."""
        return self._table is not None

    @property
    def is_workbook(self) -> bool:
        """Whether the content is a workbook's sheet."""
        return isinstance(self._table, SheetCsv)

    @property
    def hidden(self) -> Hidden | None:
        """What the spreadsheet hides of the sheet; None for a file that is not a workbook."""
        return self._table.hidden if isinstance(self._table, SheetCsv) else None

    @property
    def listing(self) -> PhotoListing | None:
        """The listing of a folder of photos; None for a list."""
        return self._table if isinstance(self._table, PhotoListing) else None

    @classmethod
    def of(
        cls,
        path: Path,
        sheet: str | None = None,
        *,
        id_from: Sequence[str] | None = (),
        until: float = math.inf,
    ) -> Source:
        """Read and hash the whole file; a workbook's sheet, or the photos of a folder, are
        converted to a CSV.

        `sheet` is `--sheet`; `id_from` is `--id-from`, None where only a list will do. Raises
        ManifestError when that is impossible, LocalError and TimeOverError.
        """
        with _mapped_errors(path):
            if path.is_dir():
                if id_from is None:
                    raise ManifestError(f"{path} is a folder; give the list itself.")
                return cls._of_photos(path, sheet, id_from, until=until)
            if id_from:
                raise ManifestError(
                    f"{path} is a list, which has a column for the user_id: --id-from is for a "
                    "folder of photos. Leave it out."
                )
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
                table = SheetCsv(file, path, sheet, until=until) if is_workbook else None
                source = cls(path=path, sha256=sha256, state=state, until=until, _table=table)
                if _state(file) != state:
                    source._refuse_changed()
                return source

    @classmethod
    def _of_photos(
        cls, path: Path, sheet: str | None, id_from: Sequence[str], *, until: float
    ) -> Source:
        if sheet is not None:
            raise ManifestError(f"{path} is a folder, so it has no sheet; leave --sheet out.")
        store = open_store(os.path.realpath(path))
        listing = PhotoListing(store, path, id_from, until=until)
        sha256 = _digest(bounded(listing.open(), path, until=until))
        return cls(path=path, sha256=sha256, state=(0, 0), until=until, store=store, _table=listing)

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader[Bounded]]:
        """The unpacked content; errors in reading it become ManifestError.

        The block must only read: any OSError in it is reported as the file's.
        """
        if self._table is not None:
            with self._table.open() as table:
                yield bounded(table, self.path, until=self.until)
            return
        with _mapped_errors(self.path), self.path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            self.check_unchanged(file)
            if not packed:
                yield bounded(file, self.path, until=self.until)
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield bounded(unpacked, self.path, until=self.until, max_bytes=MAX_UNPACKED_BYTES)

    def check_unchanged(self, file: io.BufferedReader[Any]) -> None:
        """Raise ManifestError when the file's content is no longer what was checked.

        Costs one fstat. Only when the times differ is the file hashed again, so that a `touch`
        or a copy of the same content does no harm.
        """
        if self._table is not None or _state(file) == self.state:
            return  # what was converted is read from a copy
        with self.path.open("rb") as again:
            if _digest(again) == self.sha256:
                return
        self._refuse_changed()

    def _refuse_changed(self) -> NoReturn:
        raise ManifestError(
            f"{self.path} was changed while it was being read; start again when it is complete."
        )


def _state(file: io.BufferedReader[Any]) -> tuple[int, int]:
    info = os.fstat(file.fileno())
    return info.st_size, info.st_mtime_ns


def _digest(file: io.BufferedReader[Any]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _mapped_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise ManifestError(f"There is no manifest at {path}. Check the path.") from exc
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
