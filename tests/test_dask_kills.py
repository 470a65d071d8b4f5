"""Workers, the scheduler and the command are killed at many moments, workers are stopped: nobody is
added twice, nobody is lost. All of them are real processes."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import forked
import pytest
from archive import Archive

from enroll.model import Status
from enroll.sandbox import Sandbox

pytest.importorskip("distributed")

from dask_processes import Site, end
from dask_scene import Scene

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not forked.available, reason="forks processes"),
]

EXPIRED = 5.0
"""Seconds until every call that was under way must have expired, with the archive's --timeout."""

POINTS = 20
"""Moments of each kind of trouble."""

AT_ONCE = 10


@contextmanager
def scene(folder: Path, seed: int, *, rows: int = 24, workers: int = 2) -> Iterator[Scene]:
    folder.mkdir(parents=True)
    with (
        Sandbox(detect=False, latency=0.1) as box,
        Site(folder, workers=workers) as site,
    ):
        archive = Archive.new(folder / f"a{seed}", box)
        archive.crowd(rows)
        yield Scene(archive, site, random.Random(seed))


Trouble = Callable[[Scene], int]
"""Makes trouble in some runs; how often it struck one that was at work."""


def kill_workers(at: Scene) -> int:
    struck = 0
    with at.started() as process:
        for calls in (2, 8, 14, 20):
            if at.reached(process, calls + at.chance.randrange(4)):
                place = at.chance.randrange(2)
                end(at.site.workers[place])
                at.site.add_worker(place)
                struck += 1
        at.ended(process)
    return struck


def stop_workers(at: Scene) -> int:
    """Stop one, until its calls have expired or until it is taken for lost, and let it go on."""
    struck = 0
    seconds = 25.0 if at.chance.random() < 0.25 else EXPIRED
    with at.started() as process:
        for calls in (2, 12):
            if at.reached(process, calls + at.chance.randrange(6)):
                stopped = at.chance.choice(at.site.workers)
                os.kill(stopped.pid, signal.SIGSTOP)
                time.sleep(seconds)
                os.kill(stopped.pid, signal.SIGCONT)
                struck += 1
        at.ended(process)
    return struck


def kill_command(at: Scene) -> int:
    struck = 0
    for calls in (2, 8, 14, 20):
        with at.started() as process:
            if at.reached(process, calls + at.chance.randrange(4)):
                process.kill()
                struck += 1
            at.ended(process)
    return struck


def kill_scheduler(at: Scene) -> int:
    """Kill it, and start another at once, or once the run has ended."""
    struck = 0
    for calls, at_once in ((2, False), (12, True)):
        with at.started() as process:
            if at.reached(process, calls + at.chance.randrange(6)):
                end(at.site.scheduler)
                struck += 1
                if not at_once:
                    code = at.ended(process)
                    assert code == 7 or at.is_done(), at.said
                at.site.start_scheduler()
                for place in range(len(at.site.workers)):
                    end(at.site.workers[place])
                    at.site.add_worker(place)
            at.ended(process)
    return struck


def strike(trouble: Trouble, folder: Path, seed: int) -> tuple[int, list[str]]:
    with scene(folder / f"{seed}", seed) as at:
        struck = trouble(at)
        return struck, [f"seed {seed}, {at.archive.folder}: {one}" for one in at.problems()]


@pytest.mark.parametrize(
    ("trouble", "archives"),
    [(kill_workers, 6), (stop_workers, 10), (kill_command, 5), (kill_scheduler, 10)],
)
def test_nobody_is_added_twice_or_lost_wherever_trouble_strikes(
    trouble: Trouble, archives: int, tmp_path: Path
) -> None:
    struck, found, seed = 0, list[str](), 0
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while struck < POINTS and seed < 2 * POINTS:
            seeds = range(seed, seed + archives)
            seed += archives
            for times, problems in threads.map(partial(strike, trouble, tmp_path), seeds):
                struck += times
                found += problems
    sys.stdout.write(f"{trouble.__name__}: {struck} times in {seed} archives\n")
    assert found == []
    assert struck >= POINTS


def workers_lost(at: Scene) -> int:
    """Run, with a new worker for each that dies; how many did. One row is not enrolled."""
    lost = 0
    with at.started() as process:
        while process.poll() is None:
            for place, worker in enumerate(at.site.workers):
                if worker.poll() is not None:
                    lost += 1
                    end(worker)
                    at.site.add_worker(place)
            time.sleep(0.02)
        assert at.ended(process) == 1, at.said
    return lost


def test_a_photo_that_kills_its_workers_keeps_no_other_from_being_enrolled(
    tmp_path: Path,
) -> None:
    with (
        Sandbox(detect=False, latency=0.02) as box,
        Site(tmp_path, flaw="dies of 5.jpg") as site,
    ):
        archive = Archive.new(tmp_path / "a", box)
        archive.crowd(30)
        at = Scene(archive, site, random.Random(0))
        assert workers_lost(at) == 3
        entries = {entry.user_id: entry for entry in archive.entries()}
        assert len(archive.in_library()) == 29
        deadly = entries.pop("a-p5")
        assert (deadly.status, deadly.error) == (Status.FAILED, "PHOTO_WORKERS_LOST")
        assert "3 workers were lost over it" in deadly.message
        assert {entry.status for entry in entries.values()} == {Status.ENROLLED}
        # The next run gives it one more, and keeps it from the others all the time.
        assert workers_lost(at) == 1
