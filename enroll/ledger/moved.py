"""A ledger that somebody moves or removes while a run writes it.

SQLite notices nothing: it goes on writing to the file that it has open, and with the process all
of it would be gone. What it holds can still be read, and so be put back.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from sqlite3 import DatabaseError

from sqlalchemy import Connection

from enroll.errors import LocalError
from enroll.ledger.connecting import FileId, file_id
from enroll.ownership import make_folder


class LedgerFile:
    """The file at `path` as it is now, which a connection has open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = file_id(path)
        self._saved: FileId | None = None

    def check(self, connection: Connection) -> None:
        """Raise LocalError where the path no longer leads to the file that was opened.

        What has been committed is put back there first, unless something else is there now.
        Not within a transaction.
        """
        there = file_id(self._path)
        if there == self._opened:
            return
        sentence = f"The ledger {self._path} was moved or removed while this run wrote it. "
        if there not in (None, self._saved):
            raise LocalError(
                f"{sentence}Another file is there now, and was left alone. What the run did since "
                "then is in its results only: put the ledger back, then run the same command again."
            )
        self._put_back(connection)
        raise LocalError(
            f"{sentence}What it held has been put back there; run the same command again."
        )

    def _put_back(self, connection: Connection) -> None:
        saving = self._path.with_name(self._path.name + ".saved")
        try:
            make_folder(self._path.parent)
            saving.unlink(missing_ok=True)
            # VACUUM INTO takes an empty file that is there, with its mode.
            os.close(os.open(saving, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            # Past SQLAlchemy, which would begin a transaction first. The name as bytes, as it need
            # not be UTF-8, and absolute, as `file:…` would be a URI.
            into = os.fsencode(saving.absolute())
            connection.connection.cursor().execute("VACUUM INTO CAST(? AS TEXT)", (into,))
            # The journals of the file that is gone, which SQLite would apply to the new one.
            for journal in ("-wal", "-shm"):
                self._path.with_name(self._path.name + journal).unlink(missing_ok=True)
            saving.replace(self._path)
        except (OSError, DatabaseError) as error:
            with suppress(OSError):
                saving.unlink()
            raise LocalError(
                f"The ledger {self._path} was moved or removed while this run wrote it, and cannot "
                f"be put back ({error}). What the run did is in its results only: put the "
                "ledger back, then run the same command again."
            ) from error
        self._saved = file_id(self._path)
