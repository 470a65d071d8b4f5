"""A PostgreSQL server of the tests' own: a child of their process, reached by a Unix socket."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from enroll.addresses import ledger_named

_SCHEMAS = itertools.count(1)
UNPRIVILEGED = 65534
"""The user and group `nobody`: a server refuses to run as root."""


OF_POSTGRES = os.environ.get("TEST_LEDGERS") == "postgres"
"""Whether the archives of all tests have their ledgers there: `TEST_LEDGERS=postgres make test`."""


@cache
def postgres_ledger(folder: Path) -> Path:
    """The ledger in place of the one in a folder."""
    return ledger_named(new_schema())


def new_schema() -> str:
    """The address of a schema that does not exist yet; skips the test where no server is
    installed."""
    return f"{_server()}?schema=s{os.getpid()}_{next(_SCHEMAS)}&user=enroll&host={_folder()}"


def _program(name: str) -> str | None:
    """Debian has most of them out of the way."""
    places = [str(place) for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *places]))


@cache
def _folder() -> Path:
    # In memory, as the tests' own files, if there is room; and a socket's path must be short.
    root = os.environ.get("PYTEST_DEBUG_TEMPROOT")
    folder = Path(tempfile.mkdtemp(prefix="enroll-pg-", dir=root))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _server() -> str:
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None or find_spec("psycopg") is None:
        pytest.skip("PostgreSQL or psycopg is not installed")
    folder, as_root = _folder(), os.getuid() == 0
    if as_root:
        os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
    user: dict[str, Any] = {}
    if as_root:
        user = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
    data = folder / "data"
    subprocess.run(
        [initdb, "-D", data, "-U", "enroll", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
        **user,
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [postgres, "-D", data, "-k", folder, "-c", "listen_addresses="],
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            **user,
        )
    atexit.register(_stop, server)
    until = time.monotonic() + 60
    while not _is_ready(data / "postmaster.pid") and time.monotonic() < until:
        assert server.poll() is None, (folder / "log").read_text()
        time.sleep(0.01)
    return "postgresql:///postgres"


def _is_ready(about: Path) -> bool:
    """Its last line says so: https://www.postgresql.org/docs/current/storage-file-layout.html"""
    return about.exists() and about.read_text().rstrip().endswith("ready")


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.wait()
