"""What tests share: a stand-in, a folder for an archive, the command with a home of its own."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import forked
import pytest
import warmed  # noqa: F401 - statements are compiled once
from archive import Archive
from hypothesis import settings
from killing import Runner
from moved_clock import MovedClock, StoppedClock, standin
from real_command import Command, account_of

from enroll import clock
from enroll.photos.bounds import BUDGET, LIBVIPS_INSTALLED
from enroll.sandbox import Sandbox
from enroll.session import retry

LIBRARY = "staff"

# Thousands of ledgers are synced to the disk: in memory that costs nothing. A kill leaves the same
# there; only a power failure would tell the difference.
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4_000_000_000
"""A whole run of the tests has left some 600 MB there."""

if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# Every stand-in asks for the version of werkzeug, for which its metadata is looked up and parsed.
importlib.metadata.version = lru_cache(importlib.metadata.version)

# A settings file that others may write is refused, as it is where new files are the group's, too.
os.umask(0o022)

LONG = (
    *("few_files", "kill_points", "performance", "alerts", "dask_trouble"),
    *("crash", "photo_hostile", "waiting_runs", "local_trouble"),
    *("signals", "limit_found", "privacy"),
    *("sync_ends", "scheduled_runs", "reconcile", "engine_dask"),
    *("docs", "photo_template", "report_browser", "sync_walk", "sync_crash"),
)
"""What takes longest, or waits for most, comes first where several workers run the tests, and each
of these begins with others of them: else all would wait for one in the end."""

# No test asserts a time, and on a busy machine an example takes what it takes.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


gc.disable()  # until the tests are collected: nothing that they are made of is garbage


def pytest_configure(config: pytest.Config) -> None:
    """Start the program from which commands are forked, if there will be workers to share it."""
    workers = getattr(config.option, "numprocesses", 0)
    if workers and forked.available and not hasattr(config, "workerinput"):
        program = forked.Program()
        os.environ[forked.ADDRESS] = program.address
        config.add_cleanup(program.close)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if worker := getattr(config, "workerinput", None):
        items[:] = dealt(items, worker["workercount"])


def dealt(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """The tests in an order of which each worker's share, as `--dist worksteal` cuts it, begins
    with the modules of `LONG` that have been dealt to it."""
    hands: list[list[pytest.Item]] = [[] for _ in range(workers)]
    others = []
    for item in sorted(items, key=_place):
        if (place := _place(item)) < len(LONG):
            hands[place % workers].append(item)
        else:
            others.append(item)
    found: list[pytest.Item] = []
    for number, hand in enumerate(hands):
        share = (len(items) - len(found)) // (workers - number)
        more = max(share - len(hand), 0)
        found += hand + others[:more]
        del others[:more]
    return found + others


def _place(item: pytest.Item) -> int:
    """Where the item's module is in `LONG`, or behind all of that."""
    name = item.path.stem.removeprefix("test_")
    return LONG.index(name) if name in LONG else len(LONG)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Have each worker begin to import the tests at another place: what one has compiled, the
    others load."""
    worker = getattr(session.config, "workerinput", None)
    if worker is None:
        return
    names = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))
    number, of = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    first = len(names) * number // of
    for name in names[first:] + names[:first]:
        # One that is skipped or broken is so again when it is collected.
        with suppress(Exception, pytest.skip.Exception):
            importlib.import_module(name)


def pytest_collection_finish() -> None:
    """Leave out of the garbage collections to come what is there as long as the tests run."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(
    params=[
        pytest.param(False, id="Pillow"),
        pytest.param(True, id="libvips", marks=pytest.mark.thorough),
    ],
    scope="module",
)
def decoder(request: pytest.FixtureRequest) -> Iterator[None]:
    """What decodes large JPEGs: Pillow, and libvips where the extra is installed."""
    if request.param and not LIBVIPS_INSTALLED:
        pytest.skip("the extra vips is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BUDGET, "for_libvips", int(request.param))
        yield


@pytest.fixture
def moved_clock() -> Iterator[MovedClock]:
    """The clock of this process and its stand-ins, by which waiting takes no time."""
    moved = MovedClock()
    with clock.using(moved):
        yield moved


@pytest.fixture
def stopped_clock() -> Iterator[StoppedClock]:
    """A clock of this process that only the test moves."""
    stopped = StoppedClock(100.0)
    with clock.using(stopped):
        yield stopped


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A running stand-in with the empty library `staff`."""
    with standin() as running:
        running.create_library(LIBRARY)
        yield running


@pytest.fixture
def faceless_box() -> Iterator[Sandbox]:
    """The same, looking for no face in a photo; calls that are late are late for long."""
    with standin(detect=False, fault_lag=600.0) as running:
        running.create_library(LIBRARY)
        yield running


@pytest.fixture
def short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls outside of a run that do not come through are made again at once."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """A process from which commands are started that kill themselves."""
    running = Runner()
    yield running
    running.close()


@pytest.fixture
def archive(box: Sandbox, tmp_path: Path) -> Archive:
    """An empty folder to put portraits and manifests into, for the stand-in's library."""
    folder = tmp_path / "archive"
    folder.mkdir()
    return Archive(folder, box)


@pytest.fixture
def command(box: Sandbox, archive: Archive, tmp_path: Path) -> Command:
    """The command as a user of the stand-in has it, in the archive's folder."""
    return Command(home=tmp_path / "home", folder=archive.folder, environ=account_of(box))
