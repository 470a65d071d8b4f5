"""Threads that share a core, and when they leave it to others."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from enroll import threads
from enroll.threads import LOOK_SECONDS, SPREAD_SECONDS, OneCore, Reading

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or threads.count() < 2,
    reason="a thread's core can be chosen on Linux with several of them",
)


def here() -> set[int]:
    return os.sched_getaffinity(0)


@pytest.fixture
def everywhere() -> Iterator[set[int]]:
    before = here()
    yield before
    os.sched_setaffinity(0, before)


class Readings:
    """What the kernel would say: each second so much used and waited."""

    def __init__(self) -> None:
        self.now = Reading(at=100.0, used=0.0, waited=0.0)

    def __call__(self, threads: Sequence[int]) -> Reading:
        assert threads
        return self.now

    def after(self, seconds: float, *, used: float, waited: float) -> float:
        now = self.now
        self.now = Reading(
            at=now.at + seconds,
            used=now.used + seconds * used,
            waited=now.waited + seconds * waited,
        )
        return self.now.at


def test_threads_share_a_core_and_have_all_again_afterwards(everywhere: set[int]) -> None:
    one = OneCore()
    with one, ThreadPoolExecutor(1, initializer=one.join) as pool:
        assert here() == pool.submit(here).result() == {one.core}
        one.spread()
        assert here() == pool.submit(here).result() == everywhere
        one.gather()
        assert here() == pool.submit(here).result() == {one.core}
        one.spread()
        with ThreadPoolExecutor(1, initializer=one.join) as late:
            assert late.submit(here).result() == everywhere
            one.gather()
            assert late.submit(here).result() == {one.core}
    assert here() == everywhere


def test_a_thread_that_was_kept_on_a_core_before_is_so_afterwards(everywhere: set[int]) -> None:
    only = {min(everywhere)}
    os.sched_setaffinity(0, only)
    with OneCore() as one:
        assert one.core is None
        assert here() == only
    assert here() == only


def test_nothing_raises_where_the_system_says_nothing(
    everywhere: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    one = OneCore()
    with one:
        monkeypatch.setattr(Path, "read_bytes", refuse)
        monkeypatch.setattr(os, "sched_setaffinity", refuse)
        one.heed(time.monotonic() + LOOK_SECONDS)
        one.spread()
        one.gather()
        one.join()
    monkeypatch.undo()
    os.sched_setaffinity(0, everywhere)


def test_a_thread_that_computes_by_itself_may_use_every_core(everywhere: set[int]) -> None:
    with OneCore(), ThreadPoolExecutor(1, initializer=threads.use_all) as pool:
        assert pool.submit(here).result() == everywhere


def test_threads_of_others_stay_where_they_are(everywhere: set[int]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(here).result()  # it is there before the others gather
        with OneCore() as one:
            assert pool.submit(here).result() == everywhere
            assert one.core is not None
            pool.submit(os.sched_setaffinity, 0, {one.core}).result()
            one.spread()
            assert pool.submit(here).result() != everywhere


def test_a_core_that_another_program_wants_is_left_to_it_for_a_while(
    everywhere: set[int],
) -> None:
    readings = Readings()
    with OneCore(reading=readings) as one:
        one.heed(readings.after(LOOK_SECONDS, used=0.5, waited=0.4))
        assert one.core is None
        assert here() == everywhere
        one.heed(readings.after(SPREAD_SECONDS / 2, used=0.5, waited=0.0))
        assert one.core is None
        one.heed(readings.after(SPREAD_SECONDS, used=0.5, waited=0.0))
        assert here() == {one.core}


@pytest.mark.parametrize(("used", "waited"), [(0.95, 0.8), (0.1, 0.05)])
def test_waiting_for_threads_of_our_own_or_hardly_at_all_changes_nothing(
    used: float, waited: float, everywhere: set[int]
) -> None:
    readings = Readings()
    with OneCore(reading=readings) as one:
        one.heed(readings.after(LOOK_SECONDS, used=used, waited=waited))
        assert here() == {one.core}
    assert here() == everywhere


def test_what_the_kernel_says_of_threads_is_read() -> None:
    mine = [threading.get_native_id()]
    before, now = Reading.of(mine), Reading.of(mine)
    while now.used < before.used + 0.05:
        now = Reading.of(mine)
    assert now.at > before.at
    assert now.waited >= before.waited >= 0


def test_work_of_other_threads_does_not_hide_a_neighbour() -> None:
    # Decoders and the scanner use every core.
    with ThreadPoolExecutor(1) as pool:
        before = Reading.of([threading.get_native_id()])
        pool.submit(hashlib.sha256, bytes(200_000_000)).result()
        after = Reading.of([threading.get_native_id()])
    assert after.used - before.used < 0.05
