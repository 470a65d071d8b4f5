"""Links are cut between the command, Dask's scheduler and workers, the service and the store:
nothing hangs, nobody is added twice, nobody is lost."""

from __future__ import annotations

import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forked
import pytest
from archive import Archive
from links import Link, State
from object_servers import s3_server

from enroll.sandbox import Sandbox

pytest.importorskip("distributed")

from dask_processes import Site, end
from dask_scene import Scene

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not forked.available, reason="forks processes"),
]

AT_ONCE = 8

CODES = {
    "driver": {0, 4, 7},
    "worker": {0, 4},
    "service": {0, 4, 9},
    "store": {0, 1, 4, 7},
}
"""With which exit codes a run may end that such a link was cut for."""


def cut(links: list[Link], state: State, seconds: float) -> None:
    for link in links:
        link.set(state)
    time.sleep(seconds)
    for link in links:
        link.set(State.OPEN)


def cut_and_run(folder: Path, which: str, state: State, seconds: float) -> list[str]:
    """Cut a link at some moment of a run for so long; what is wrong once another has ended."""
    where = f"{which} {state.value} for {seconds:.0f} s"
    folder = folder / where.replace(" ", "-")
    folder.mkdir()
    with Sandbox(detect=False, latency=0.1) as box:
        archive = Archive.new(folder / "a", box)
        archive.crowd(24)
        service = Link(int(box.endpoint.rpartition(":")[2]))
        with s3_server(folder) as server:
            store = Link(int(server.endpoint.rpartition(":")[2]))
            through = {**server.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}"}
            with Site(folder, environ=through) as site:
                at = Scene(archive, site, random.Random(where))
                if which == "store":
                    at.more = ("--images", "s3://a", "--checksum")
                    at.environ = server.environ
                elif which == "service":
                    at.more = ("--give-up-after", "20")
                    at.environ = {"ENROLL_ENDPOINT": f"http://127.0.0.1:{service.port}"}
                links = {
                    "driver": [site.driver],
                    "worker": list(site.links[0]),
                    "service": [service],
                    "store": [store],
                }
                with at.started() as process:
                    struck = at.reached(process, 4 + at.chance.randrange(12))
                    cutting = threading.Thread(target=cut, args=(links[which], state, seconds))
                    cutting.start()
                    code = at.ended(process)
                    cutting.join()
                if which == "worker" and site.workers[0].poll() is not None:
                    end(site.workers[0])
                    site.add_worker(0)
                sys.stdout.write(f"{where}: ended with {code}\n")
                found = [] if code in CODES[which] else [f"ended with {code}: {at.said}"]
                found += [] if struck else ["nothing was at work"]
                return [f"{where}, {folder}: {one}" for one in found + at.problems()]


def test_nobody_is_added_twice_or_lost_and_nothing_hangs_whichever_link_is_cut(
    tmp_path: Path,
) -> None:
    times = {State.CUT: (3.0, 25.0), State.STALLED: (4.0, 25.0), State.SWALLOWED: (4.0, 75.0)}
    cuts = [
        (which, state, seconds)
        for which in CODES
        for state, both in times.items()
        for seconds in both
    ]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = threads.map(lambda given: cut_and_run(tmp_path, *given), reversed(cuts))
        assert [problem for one in found for problem in one] == []
