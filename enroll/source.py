"""The manifest's bytes: opened plain or through gzip, hashed, every fault told in one sentence."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from enroll.errors import ManifestError

Stream = io.BufferedReader | gzip.GzipFile
"""A manifest's content, opened for reading."""

_GZIP = b"\x1f\x8b"
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")  # .xlsx and .ods, .xls


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One state of a file: where it is, its SHA-256 (hex), and the times that tell it unchanged.

    `state` is size and modification time in nanoseconds.
    """

    path: Path
    sha256: str
    state: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> Source:
        """Read and hash the whole file; ManifestError when that cannot be done."""
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
                if file.read(8).startswith(_WORKBOOKS):
                    raise ManifestError(
                        f"{path} is a spreadsheet's workbook, not a CSV file; "
                        "in the spreadsheet, save it as 'CSV UTF-8' and give that file."
                    )
                file.seek(0)
                return cls(path=path, sha256=_digest(file), state=state)

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """The content, unpacked; faults in reading it become ManifestError.

        The body must do nothing but read, since its OSErrors are taken for the file's.
        """
        with _faults(self.path), self.path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            self.check_unchanged(file)
            if not packed:
                yield file
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked

    def check_unchanged(self, file: Stream) -> None:
        """ManifestError when the file's content is no longer the one that was checked.

        Costs one fstat; only when the times differ is the file read again, so that a `touch`
        or a copy over itself stops nothing.
        """
        if _state(file) == self.state:
            return
        with self.path.open("rb") as again:
            if _digest(again) == self.sha256:
                return
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
        raise ManifestError(f"{path} may not be read by this user; check its permissions.") from exc
    except EOFError as exc:
        raise ManifestError(
            f"{path} is a gzip file that ends too early; copy or pack it again."
        ) from exc
    except (gzip.BadGzipFile, zlib.error) as exc:
        raise ManifestError(f"{path} is a damaged gzip file ({exc}); copy it again.") from exc
    except OSError as exc:
        raise ManifestError(f"{path} cannot be read: {exc.strerror or exc}.") from exc
