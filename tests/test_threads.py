"""Threads where this machine lets us start no more of them."""

from __future__ import annotations

import math
import threading
from concurrent.futures import wait

import pytest
from scarce import no_thread_left

from enroll.errors import ShortageError
from enroll.threads import Threads, usable_cores


@pytest.mark.parametrize(
    ("allowed", "quota", "cores"),
    [(8, math.inf, 8), (8, 2.0, 2), (8, 1.5, 2), (8, 0.2, 1), (2, 16.0, 2), (1, math.inf, 1)],
)
def test_no_more_cores_are_used_than_the_quota_lasts_for(
    allowed: int, quota: float, cores: int
) -> None:
    assert usable_cores(allowed, quota) == cores


def test_no_more_threads_are_started_than_there_are_tasks() -> None:
    with Threads(8) as threads:
        for number in range(20):
            assert threads.submit(int, number).result() == number
        names = {threads.submit(threading.get_ident).result() for _ in range(20)}
    assert len(names) == 1


def test_tasks_are_done_side_by_side_up_to_the_most() -> None:
    together = threading.Barrier(3)
    with Threads(3) as threads:
        done, _ = wait([threads.submit(together.wait, 30.0) for _ in range(3)], timeout=60.0)
    assert sorted(one.result() for one in done) == [0, 1, 2]


def test_what_a_task_raises_is_what_is_told_of_it() -> None:
    with Threads(1) as threads:
        failed = threads.submit(int, "no number")
        with pytest.raises(ValueError, match="no number"):
            failed.result()
        assert threads.submit(int, "7").result() == 7


def test_without_a_further_thread_a_task_is_done_once_by_those_there_are() -> None:
    done: list[int] = []
    held = threading.Event()
    with Threads(8) as threads:
        first = threads.submit(held.wait)
        with no_thread_left():
            others = [threads.submit(done.append, number) for number in range(5)]
        assert not done
        held.set()
        assert first.result(timeout=60.0)
        wait(others, timeout=60.0)
    assert done == [0, 1, 2, 3, 4]


def test_who_cannot_wait_hears_that_all_threads_are_busy() -> None:
    held = threading.Event()
    with Threads(8) as threads:
        with no_thread_left():
            threads.have_one_free()  # there is one
            first = threads.submit(held.wait)
            try:
                with pytest.raises(ShortageError, match="start another thread"):
                    threads.have_one_free()
            finally:
                held.set()  # else a failure above would wait for the task for ever
        threads.have_one_free()  # it could be started now
        assert first.result(timeout=60.0)


def test_without_any_thread_there_is_a_sentence() -> None:
    with no_thread_left(), pytest.raises(ShortageError, match=r"ulimit -u"):
        Threads(8)


def test_threads_give_way_to_others_but_for_one() -> None:
    together, held = threading.Barrier(4), threading.Event()
    with Threads(3) as threads:
        busy = [threads.submit(together.wait, 30.0) for _ in range(3)]
        together.wait(30.0)
        wait(busy, timeout=60.0)
        for _ in range(5):
            threads.give_way()
        first, *others = [threads.submit(held.wait) for _ in range(3)]
        assert not any(task.done() for task in others)
        held.set()
        assert first.result(timeout=60.0)
        wait(others, timeout=60.0)


def test_threads_that_were_shut_down_take_nothing_and_cancel_what_waits() -> None:
    begun, held = threading.Event(), threading.Event()

    def hold() -> bool:
        begun.set()
        return held.wait(60.0)

    threads = Threads(1)
    first, second = threads.submit(hold), threads.submit(int, 1)
    assert begun.wait(60.0)
    threads.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled()
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(int, 1)
    held.set()
    assert first.result(timeout=60.0)
