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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from enroll import clock
from enroll.addresses import ObjectPath
from enroll.errors import ManifestError, TimeOverError
from enroll.manifest.bounds import (
    MAX_LINE_LENGTH,
    MAX_UNPACKED_BYTES,
    Bounded,
    ScratchFile,
    bounded,
)
from enroll.manifest.listing import PhotoListing, is_list
from enroll.manifest.workbook import OLE, ZIP, Hidden, SheetCsv
from enroll.photos import PhotoStore, is_zip, open_store, pieces_of
from enroll.photos.zip_records import DamagedError, Member
from enroll.photos.zipped import ZipStore
from enroll.visible import path_text

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
    longest_line: int = MAX_LINE_LENGTH
    """The most characters of a line."""
    store: PhotoStore | None = field(default=None, repr=False, compare=False)
    """The photos, where the manifest itself is what holds them."""
    member: str = ""
    """The name of the list, where the manifest is an archive with one."""
    _table: SheetCsv | PhotoListing | None = field(default=None, repr=False, compare=False)
    _copy: ScratchFile | None = field(default=None, repr=False, compare=False)

    @property
    def is_converted(self) -> bool:
        """Whether the content is converted to a CSV, with one record per row."""
        return self._table is not None

    @property
    def is_copied(self) -> bool:
        """Whether the list itself was copied from an archive or a bucket."""
        return self._copy is not None

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
        """Read and hash the whole file. A workbook's sheet, and the photos of a folder or archive,
        are converted to a CSV, unless the archive has one list at its top: that is the manifest.

        `sheet` is `--sheet`; `id_from` is `--id-from`, None where only a list will do. Raises
        ManifestError when that is impossible, LocalError and TimeOverError.
        """
        with _mapped_errors(path):
            if isinstance(path, ObjectPath) and is_list(path.name):
                copy = _copy_of_object(path, until=until)
                source = cls(path=path, sha256="", state=(0, 0), until=until, _copy=copy)
                return source._of_list(sheet, id_from or ())
            store = _store_in(path)
            if store is None:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise ManifestError(
                        f"{path} is not a plain file, and a manifest is read more than once; "
                        "save it to a file first."
                    )
                source = cls(path=path, sha256="", state=(0, 0), until=until)
                return source._of_list(sheet, id_from or ())
            if id_from is None:
                raise ManifestError(f"{path} is a folder or an archive; give the list itself.")
            if isinstance(store, ZipStore) and (member := _list_in(store, path)) is not None:
                copy = _copy_of(store, member, path, until=until)
                source = cls(
                    path=path,
                    sha256="",
                    state=(0, 0),
                    until=until,
                    member=member.name,
                    store=store,
                    _copy=copy,
                )
                return source._of_list(sheet, id_from)
            if sheet is not None:
                raise ManifestError(f"{path} holds photos, so it has no sheet; leave --sheet out.")
            listing = PhotoListing(store, path, id_from, until=until)
            sha256 = _digest(bounded(listing.open(), path, until=until))
            return cls(
                path=path, sha256=sha256, state=(0, 0), until=until, store=store, _table=listing
            )

    def _of_list(self, sheet: str | None, id_from: Sequence[str]) -> Source:
        """The same for a list: hashed, and a workbook's sheet converted."""
        path, until = self.path, self.until
        if id_from:
            raise ManifestError(
                f"{path} {'holds' if self.member else 'is'} a list, which has a column for the "
                "user_id: --id-from is for photos without one. Leave it out."
            )
        with self._file() as file:
            state = (0, 0) if self._copy is not None else _state(file)
            is_workbook = file.read(8).startswith((ZIP, OLE))
            file.seek(0)
            if sheet is not None and not is_workbook:
                raise ManifestError(
                    f"{path} is not a workbook, so it has no sheet {sheet!r}; leave --sheet out."
                )
            sha256 = _digest(bounded(file, path, until=until))
            file.seek(0)
            table = SheetCsv(file, path, sheet, until=until) if is_workbook else None
            if self._copy is None and _state(file) != state:
                self._refuse_changed()
            return replace(self, sha256=sha256, state=state, _table=table)

    def _file(self) -> io.BufferedReader:
        """The list as it is, packed or not."""
        return self.path.open("rb") if self._copy is None else self._copy.open()

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader[Bounded]]:
        """The unpacked content; errors in reading it become ManifestError.

        The block must only read: any OSError in it is reported as the file's.
        """
        if self._table is not None:
            with self._table.open() as table:
                yield bounded(table, self.path, until=self.until)
            return
        with _mapped_errors(self.path), self._file() as file:
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
        if self._table is not None or self._copy is not None or _state(file) == self.state:
            return  # what was converted or unpacked is read from a copy
        with self.path.open("rb") as again:
            if _digest(again) == self.sha256:
                return
        self._refuse_changed()

    def _refuse_changed(self) -> NoReturn:
        raise ManifestError(
            f"{self.path} was changed while it was being read; start again when it is complete."
        )


def _store_in(path: Path) -> PhotoStore | None:
    """The photos in a folder or archive; None for any other file, such as a workbook, which is a
    ZIP archive, too. Raises ManifestError, LocalError and ShortageError."""
    if isinstance(path, ObjectPath):
        return open_store(path)
    if path.is_dir():
        return open_store(os.path.realpath(path))
    if not (is_zip(path) and path.is_file()):
        return None
    store = ZipStore(os.path.realpath(path))
    return None if store.archive.find("[Content_Types].xml") else store


def _list_in(store: ZipStore, path: Path) -> Member | None:
    """The list at an archive's top; None if there is none. Raises ManifestError for several."""
    found = [name for name in store.archive.at_top() if is_list(name)]
    if len(found) > 1:
        names = ", ".join(map(path_text, sorted(found)))
        raise ManifestError(
            f"{path} has several lists at its top, and one has to be the manifest: {names}. Pack "
            "it again with one of them, or give the list itself, and the archive with --images."
        )
    return store.archive.find(found[0])[0] if found else None


def _copy_of_object(path: ObjectPath, *, until: float) -> ScratchFile:
    """A list in a bucket, in a file without a name: it is read more than once."""
    copy = ScratchFile(path)
    for piece in pieces_of(str(path)):
        copy.write(piece)
        _check_time(path.name, "read from the bucket", until)
    return copy


def _check_time(name: str, done: str, until: float) -> None:
    if clock.monotonic() >= until:
        raise TimeOverError(
            f"--max-duration was over while {name} was being {done}; nothing was sent. Give it "
            "more time."
        )


def _copy_of(store: ZipStore, member: Member, path: Path, *, until: float) -> ScratchFile:
    """A member of an archive, unpacked to a file without a name."""
    copy, crc, shown = ScratchFile(path), 0, path_text(member.name)
    try:
        for piece in store.archive.unpack(member):
            copy.write(piece)
            crc = zlib.crc32(piece, crc)
            _check_time(shown, "unpacked", until)
    except DamagedError as error:
        raise ManifestError(
            f"The list {shown} in {path} cannot be read: {error}. Copy or pack it again."
        ) from error
    if (copy.size, crc) != (member.size, member.crc):
        raise ManifestError(
            f"The list {shown} in {path} is damaged: its checksum does not match. Copy or pack it "
            "again."
        )
    return copy


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
