"""A PostgreSQL server of the tests' own: a child of their process, reached by a Unix socket."""

from __future__ import annotations

import atexit
import itertools
import os
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from enroll.addresses import ledger_named

# Programs that import this, such as a test's own process, may have no benchmarks in their path.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from suite import postgres
from suite.postgres import USER, PostgresServer

_SCHEMAS = itertools.count(1)

OF_POSTGRES = os.environ.get("TEST_LEDGERS") == "postgres"
"""Whether the archives of all tests have their ledgers there: `TEST_LEDGERS=postgres make test`."""

_UNTIL_THE_END = ExitStack()


@cache
def postgres_ledger(folder: Path) -> Path:
    """The ledger in place of the one in a folder."""
    return ledger_named(new_schema())


def new_schema() -> str:
    """The address of a schema that does not exist yet; skips the test where no server is
    installed."""
    return server().address(f"s{os.getpid()}_{next(_SCHEMAS)}")


@cache
def server() -> PostgresServer:
    """The server; skips the test where none is installed."""
    if missing := postgres.missing():
        pytest.skip(f"there is no {missing}")
    # In memory, as the tests' own files, if there is room.
    root = os.environ.get("PYTEST_DEBUG_TEMPROOT")
    atexit.register(_UNTIL_THE_END.close)
    return _UNTIL_THE_END.enter_context(postgres.running(root=root))


def reaching(database: str) -> dict[str, str]:
    """What the environment says for an address without host and database to lead there."""
    return {"PGHOST": str(server().folder), "PGUSER": USER, "PGDATABASE": database}


def asked(
    statement: str, *values: object, database: str = "postgres", schema: str = "public"
) -> list[tuple[Any, ...]]:
    """What another program does to the server, or asks it."""
    import psycopg

    options = f"-c search_path={schema}"
    address = server().address(database=database)
    with psycopg.connect(address, autocommit=True, options=options) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []
