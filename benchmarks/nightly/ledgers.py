"""Where a ledger of a soak or a year is: a file, or a schema of a PostgreSQL server, which can be
backed up, put back, and struck."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.postgres import START_SECONDS, PostgresServer, program, running

from enroll.addresses import ledger_named

SESSION, BACKEND, SERVER = "session", "backend", "server"
"""What can be struck of a server: the session of a run, which the server ends; the process of that
session; and all processes of the server, which is then started again."""


class LedgerPlace(ABC):
    """A ledger that commands write. `name` is that of --ledger, in the folder of the commands."""

    name: str
    points: tuple[str, ...] = ()
    """What can be struck beside the command itself."""

    @abstractmethod
    def back_up(self) -> None:
        """Make a backup, as its owner would; nobody writes the ledger meanwhile."""

    @abstractmethod
    def put_back(self) -> None:
        """Put the last backup in the place of the ledger."""

    def strike(self, point: str) -> None:
        """End what `point` says, if it is there."""
        raise NotImplementedError(point)

    def ledger(self, folder: Path) -> Path:
        """The ledger as this process names it; commands run in `folder`."""
        return folder / self.name


class FilePlace(LedgerPlace):
    """A file in the folder of the commands."""

    def __init__(self, folder: Path) -> None:
        self.name = "ledger.sqlite"
        self._folder = folder
        self._backup = folder / "backup"

    def back_up(self) -> None:
        shutil.rmtree(self._backup, ignore_errors=True)
        self._backup.mkdir()
        for path in self._files():
            shutil.copy2(path, self._backup)

    def put_back(self) -> None:
        for path in self._files():
            path.unlink()
        for path in self._backup.iterdir():
            shutil.copy2(path, self._folder)

    def _files(self) -> list[Path]:
        """The ledger's own, without what says who holds it."""
        return [path for path in self._folder.glob(f"{self.name}*") if path.suffix != ".lock"]


@dataclass(frozen=True)
class Database:
    """A database for ledgers, by an address without a schema, and the server if it is ours."""

    address: str
    server: PostgresServer | None = None

    def kill(self, pid: int) -> None:
        """Kill the process of a session. The server ends all others, and recovers: wait for both,
        as until then it may take connections, or none."""
        import psycopg  # noqa: PLC0415 - only where it is installed

        until = time.monotonic() + START_SECONDS
        with suppress(psycopg.OperationalError), psycopg.connect(self.address) as witness:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            while time.monotonic() < until:
                witness.execute("SELECT 1")
                time.sleep(0.001)
        while time.monotonic() < until:
            with suppress(psycopg.OperationalError):
                self.ask("SELECT 1")
                return
            time.sleep(0.01)
        raise TimeoutError(f"{self.address} takes no connections")

    def place(self, schema: str, folder: Path) -> ServerPlace:
        """A ledger in a schema that does not exist yet; backups are in `folder`."""
        return ServerPlace(self, schema, folder)

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute a statement, and say what it gives."""
        import psycopg  # noqa: PLC0415 - only where it is installed

        with psycopg.connect(self.address, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []


class ServerPlace(LedgerPlace):
    """A schema of a server. Whoever can end processes of the server strikes these, too."""

    def __init__(self, database: Database, schema: str, folder: Path) -> None:
        between = "&" if "?" in database.address else "?"
        self.name = f"{database.address}{between}schema={schema}"
        self.points = (SESSION,) if database.server is None else (SESSION, BACKEND, SERVER)
        self._database, self._schema = database, schema
        self._backup = folder / "backup.sql"

    def ledger(self, folder: Path) -> Path:
        return ledger_named(self.name)

    def back_up(self) -> None:
        options = ("--schema", self._schema, "--file", self._backup)
        subprocess.run([_program("pg_dump"), *options, self._database.address], check=True)

    def put_back(self) -> None:
        self.drop()
        options = ("-q", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, "-f", self._backup)
        subprocess.run([_program("psql"), "-X", *options, self._database.address], check=True)

    def drop(self) -> None:
        """Remove the schema with everything in it."""
        self._database.ask(f'DROP SCHEMA IF EXISTS "{self._schema}" CASCADE')

    def strike(self, point: str) -> None:
        server = self._database.server
        if point == SERVER and server is not None:
            server.kill()
            server.start()
            return
        sessions = (
            "FROM pg_stat_activity WHERE application_name LIKE 'enroll %' "
            "AND datname = current_database()"
        )
        if point == SESSION:
            self._database.ask(f"SELECT pg_terminate_backend(pid) {sessions}")
            return
        for (pid,) in self._database.ask(f"SELECT pid {sessions} LIMIT 1"):
            self._database.kill(pid)


def _program(name: str) -> str:
    found = program(name)
    if found is None:
        raise RuntimeError(f"There is no {name}, with which the ledger is backed up and put back.")
    return found


def libpq_environ() -> dict[str, str]:
    """What commands need of this process's environment to reach a server as it does."""
    return {name: value for name, value in os.environ.items() if name.startswith("PG")}


LOCAL = "local"
"""Instead of an address: a server of its own, which is gone in the end."""


@contextmanager
def database(address: str) -> Iterator[Database]:
    """The database of an address, or that of a server which is started for it."""
    if address != LOCAL:
        yield Database(address)
        return
    with running() as server:
        yield Database(server.address(), server)
