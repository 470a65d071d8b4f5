"""Runs that are killed, wherever they are: started again, they add nobody twice and lose nobody."""

from __future__ import annotations

import random
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from archive import Archive
from real_command import SECONDS
from sqlalchemy import Connection, Engine, event

from enroll.commands.run import Screen, enroll_in_pools
from enroll.commands.run_opening import Destination
from enroll.facesearch import SignedCall
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.model import CallKind, Credentials
from enroll.sandbox import Limits, Sandbox
from enroll.settings import RunSettings


def troubled(folder: Path, box: Sandbox) -> Archive:
    """Seven rows that meet the service's troubles: two photos of one person, one photo of two
    people, applied and not applied without an answer, applied late, unseen for a while."""
    archive = Archive.new(folder, box)
    two = archive.row("two", 1)
    archive.row("two", 2)
    archive.row("same", 1)
    after, before = archive.row("after", 3), archive.row("before", 4)
    late, unseen = archive.row("late", 5), archive.row("unseen", 6)
    box.script([None, "reset-after"], user_id=two)
    box.script(["500-after"], user_id=after)
    box.script(["503-before"], user_id=before)
    box.script(["late"], user_id=late)
    box.script(["search-lag"], user_id=unseen)
    archive.manifest()
    return archive


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False, fault_lag=0.2, limits=Limits(max_libraries=1000)) as running:
        yield running


def until_done(archive: Archive, run: Callable[[], int]) -> None:
    """Start the command again until it has nothing left to do."""
    codes: list[int] = []
    while not codes or codes[-1]:
        # Once is enough but for doubts that the stand-in's own troubles leave open.
        assert len(codes) < 3, f"{archive.folder}: {codes}"
        codes.append(run())


def killed_at_random(archive: Archive, moments: random.Random) -> int:
    """Kill three runs, each at a random moment; how many kills struck."""
    struck = 0
    for calls in sorted(moments.sample(range(1, len(archive.rows)), 3)):
        with archive.command.started(*archive.arguments, stdout=None, stderr=None) as process:
            while process.poll() is None and archive.calls() < calls:
                time.sleep(0.001)
            # Mostly among calls, and now and then while doubts are settled.
            with suppress(subprocess.TimeoutExpired):
                process.wait(moments.random() * moments.choice([0.1, 0.1, 4.0]))
            process.kill()
            struck += process.wait() == -signal.SIGKILL
    until_done(archive, lambda: archive.command.run(*archive.arguments).code)
    return struck


@pytest.mark.parametrize("seeds", [(1,), pytest.param((2, 3), marks=pytest.mark.thorough)])
def test_kills_at_random_moments_add_nobody_twice_and_lose_nobody(
    box: Sandbox, tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    box.latency = 0.05
    cases = []
    for seed in seeds:
        moments = random.Random(seed)
        archive = troubled(tmp_path / f"random-{seed}", box)
        for number in range(10, 40):
            user_id = archive.row(f"p{number}", number)
            fault = moments.choice([None, None, "502-after", "reset-before"])
            box.script([fault], user_id=user_id)
        archive.manifest()
        cases.append((archive, moments))
    with ThreadPoolExecutor(len(cases)) as threads:
        struck = list(threads.map(lambda archive: killed_at_random(*archive), cases))
    assert sum(struck) >= len(cases)
    assert [problem for archive, _ in cases for problem in archive.problems()] == []


def test_no_call_leaves_long_after_its_run_was_last_seen_alive(
    box: Sandbox, tmp_path: Path
) -> None:
    # From that moment the next run reckons when the signature of a call expires that a kill has
    # cut off. With one place, each call leaves when the one before it has ended.
    archive = Archive.new(tmp_path / "alive", box)
    archive.crowd(2)
    stale: list[float] = []

    class Watching(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
            if calls_add(fn):
                stale.append(time.time() - last_seen_alive(archive.ledger))
                box.latency = 2.0
            return super().submit(fn, *args, **named)

    settings = RunSettings(
        manifest=archive.folder / "staff.csv",
        group_id=archive.group_id,
        endpoint=box.endpoint,
        ledger=archive.ledger,
        max_in_flight=1,
    )
    credentials = Credentials(box.api_key, box.api_secret)
    report = enroll_in_pools(settings, lambda: credentials, pool=Watching)
    assert report.exit_code == 0
    assert len(stale) == 2
    assert max(stale) < 1.5


@pytest.mark.parametrize("stalls", [1, 99])
def test_no_call_leaves_on_a_sign_of_life_that_a_stalled_commit_has_made_old(
    box: Sandbox, tmp_path: Path, stalls: int
) -> None:
    archive = Archive.new(tmp_path / "stalled", box)
    archive.crowd(3)
    stale: list[float] = []
    left = [stalls]

    class Watching(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
            if calls_add(fn):
                stale.append(time.time() - last_seen_alive(archive.ledger))
            return super().submit(fn, *args, **named)

    def stall(connection: Connection) -> None:
        if left[0]:
            left[0] -= 1
            time.sleep(1.6)  # a disk that is busy

    class Opened(Screen):
        def opened(self, destination: Destination, interrupt: Callable[[int], None]) -> None:
            event.listen(Engine, "commit", stall)

    settings = RunSettings(
        manifest=archive.folder / "staff.csv",
        group_id=archive.group_id,
        endpoint=box.endpoint,
        ledger=archive.ledger,
    )
    credentials = Credentials(box.api_key, box.api_secret)
    try:
        report = enroll_in_pools(settings, lambda: credentials, screen=Opened(), pool=Watching)
    finally:
        event.remove(Engine, "commit", stall)
    assert report.exit_code == 0
    assert len(stale) == 3
    assert max(stale) < 1.5
    assert archive.problems() == []


def calls_add(task: Any) -> bool:
    """Whether a task that is handed out makes a call of `add`."""
    call = next(iter(getattr(task, "args", ())), None)
    return isinstance(call, SignedCall) and call.kind is CallKind.ADD


def last_seen_alive(ledger: Path) -> float:
    """When the ledger's last run has committed last, in UNIX seconds."""
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True)) as connection:
        (found,) = connection.execute("SELECT max(alive_at) FROM run").fetchone()
    return float(found) / 1000


def test_a_kill_lets_the_ledger_go_at_once_and_until_then_others_are_told_who_holds_it(
    box: Sandbox, tmp_path: Path
) -> None:
    archive = Archive.new(tmp_path / "held", box)
    archive.crowd(1)
    box.script(["timeout"])
    with archive.command.started(*archive.arguments, "--timeout", str(SECONDS)) as first:
        archive.wait_calls(1, first)
        second = archive.command.run(*archive.arguments)
        assert second.code == 5
        (sentence,) = second.told.splitlines()
        assert sentence.startswith(f"Error: Another run holds the ledger {archive.ledger}")
        assert f"process {first.pid} on {socket.gethostname()}, since 2" in sentence
        assert first.poll() is None
        first.kill()
        first.wait(SECONDS)
        with LedgerLock(archive.ledger):
            pass
