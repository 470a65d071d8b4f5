"""Workers, the scheduler and the command are killed at many moments, workers are stopped, links are
cut: nobody is added twice, nobody is lost. All of them are real processes."""

from __future__ import annotations

import base64
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
from archive import Archive, picture
from links import Link, State
from object_servers import s3_server
from stub_bucket import BUCKET, stub_bucket

from enroll import __version__
from enroll.engine import HeldPhoto
from enroll.engine.threads import Executors
from enroll.facesearch import Call, FaceSearch, SignedCall
from enroll.model import Answer, Credentials, Photo, SendAs, Status, Unusable, Verdict
from enroll.photos import open_store, read_photo
from enroll.sandbox import Sandbox
from enroll.settings import DEFAULT_PREPARATION
from enroll.threads import Threads

pytest.importorskip("distributed")

from dask_processes import Site, end
from distributed import Client

from enroll.engine.cluster import Cluster
from enroll.engine.dask import DaskEngine
from enroll.engine.station import Posting
from enroll.engine.workers import mustered

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/mem").exists(), reason="forks processes, and reads the memory of one"
)

LONGEST = 200.0
"""Seconds; a command that takes longer hangs."""

EXPIRED = 5.0
"""Seconds until every call that was under way must have expired, with the archive's --timeout."""

POINTS = 20
"""Moments of each kind of trouble."""

AT_ONCE = 10


@dataclass
class Scene:
    """An archive, the processes of Dask that enroll it, and where chance strikes."""

    archive: Archive
    site: Site
    chance: random.Random
    more: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)

    @property
    def said(self) -> str:
        return (self.archive.folder / "said.txt").read_text(encoding="utf-8")

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        """The command, at work."""
        command = replace(
            self.archive.command, environ={**self.archive.command.environ, **self.environ}
        )
        arguments = [
            *self.archive.arguments,
            *("--engine", "dask", "--scheduler", self.site.address, "--no-progress"),
            *self.more,
        ]
        with (
            (self.archive.folder / "said.txt").open("a", encoding="utf-8") as said,
            command.started(*arguments, stdout=said, stderr=said) as process,
        ):
            yield process

    def ended(self, process: subprocess.Popen[str]) -> int:
        """Wait for its end; the exit code."""
        code = process.wait(LONGEST)
        self.codes.append(code)
        return code

    def reached(self, process: subprocess.Popen[str], calls: int) -> bool:
        """Wait for a moment after so many calls; whether the command is still at work."""
        until = time.monotonic() + LONGEST
        while process.poll() is None and self.archive.calls() < calls:
            assert time.monotonic() < until, "it hangs"
            time.sleep(0.005)
        time.sleep(self.chance.uniform(0.0, 0.15))
        return process.poll() is None and not self.is_done()

    def is_done(self) -> bool:
        return self.archive.calls(ended=True) >= len(self.archive.rows)

    def problems(self) -> list[str]:
        """Run until everything is done; what is wrong then."""
        while not self.codes or self.codes[-1] != 0:
            if len(self.codes) > 12 or not set(self.codes) <= {0, 1, 4, 7, 9, -signal.SIGKILL}:
                return [f"ended with {self.codes}: {self.said}"]
            with self.started() as process:
                self.ended(process)
        return self.archive.problems()


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


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("trouble", "archives"),
    [(kill_workers, 5), (stop_workers, 10), (kill_command, 5), (kill_scheduler, 10)],
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


# Links

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
                found = [] if code in CODES[which] else [f"ended with {code}: {at.said}"]
                found += [] if struck else ["nothing was at work"]
                return [f"{where}, {folder}: {one}" for one in found + at.problems()]


@pytest.mark.thorough
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


@pytest.mark.thorough
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
        lost = 0
        with at.started() as process:
            while process.poll() is None:
                for place, worker in enumerate(site.workers):
                    if worker.poll() is not None:
                        lost += 1
                        end(worker)
                        site.add_worker(place)
                time.sleep(0.02)
            assert at.ended(process) == 1, at.said
        entries = {entry.user_id: entry for entry in archive.entries()}
        assert len(archive.in_library()) == 29
    assert lost == 3
    deadly = entries.pop("a-p5")
    assert (deadly.status, deadly.error) == (Status.FAILED, "PHOTO_UNREADABLE")
    assert "3 workers were lost over it" in deadly.message
    assert {entry.status for entry in entries.values()} == {Status.ENROLLED}


# Without waiting for long


def test_a_photo_that_kills_its_workers_is_given_up_and_all_others_are_read(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(30)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(number))
    service, over = FaceSearch("http://127.0.0.1:9", Credentials("k", "s"), timeout=9), False
    executors = Executors(calls=Threads(1), readers=Threads(1), scanner=Threads(1))
    posting = Posting(
        root=str(tmp_path), way=service.way, calls=1, readers=4, preparation=DEFAULT_PREPARATION
    )
    lost = []

    def renew(site: Site) -> None:
        while not over:
            for place, worker in enumerate(site.workers):
                if worker.poll() is not None:
                    lost.append(place)
                    end(worker)
                    site.add_worker(place)
            time.sleep(0.02)

    with (
        Site(tmp_path, flaw="dies of 5.jpg") as site,
        Client(site.address, set_as_default=False) as client,
        mustered(Cluster(client), posting) as workers,
    ):
        engine = DaskEngine(service, open_store(tmp_path), executors, workers)
        renewing = threading.Thread(target=renew, args=[site])
        renewing.start()
        found = dict[Path, HeldPhoto | Unusable]()
        while left := [path for path in paths if path not in found]:
            together = [left[at : at + 3] for at in range(0, len(left), 3)]
            readings = [engine.read([*map(str, some)], DEFAULT_PREPARATION) for some in together]
            for some, reading in zip(together, readings, strict=True):
                found.update(zip(some, reading.result(LONGEST)[0], strict=False))
        over = True
        renewing.join()
        engine.close()
    deadly = found.pop(paths[5])
    assert isinstance(deadly, Unusable)
    assert (deadly.status, deadly.fault.code) == (Status.FAILED, "PHOTO_UNREADABLE")
    assert "3 workers were lost over it" in deadly.fault.message
    assert [path.name for path, one in found.items() if not isinstance(one, HeldPhoto)] == []
    assert len(lost) == 3


def test_workers_that_cannot_work_are_named_with_the_reason_before_anything_is_recorded(
    tmp_path: Path,
) -> None:
    with (
        s3_server(tmp_path) as server,
        Sandbox(detect=False) as box,
        Site(tmp_path, workers=0, environ=server.environ) as site,
    ):
        archive = Archive.new(tmp_path / "a", box)
        archive.crowd(3)
        at = Scene(archive, site, random.Random(0), ("--images", "s3://a"), server.environ)
        for flaw in ("is old", "has no enroll", "sees no photos", "has no objects"):
            site.add_worker(flaw=flaw)
        with at.started() as process:
            assert at.ended(process) == 7, at.said
        said = " ".join(at.said.split()).partition("Error: ")[2]
        assert f"it has enroll 0.9.0, and this is {__version__}" in said
        assert f"it cannot run enroll {__version__} (ModuleNotFoundError" in said
        assert "there are no photos below s3://a" in said
        assert "pip install 'enroll[objects]'" in said
        assert "Nothing was sent or recorded" in said
        assert not archive.ledger.exists()
        site.add_worker()
        assert at.problems() == []


def memory_of(process: int) -> Iterator[bytes]:
    """What a process has written into its memory, piece by piece."""
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            where, rights = line.split()[:2]
            if "w" in rights:
                begin, until = (int(one, 16) for one in where.split("-"))
                with suppress(OSError):
                    memory.seek(begin)
                    yield memory.read(until - begin)


def in_memory(process: int, *words: str) -> list[str]:
    """Those of some words that are anywhere in a process's memory."""
    there = set[str]()
    for piece in memory_of(process):
        there.update(word for word in words if word.encode() in piece)
    return [word for word in words if word in there]


def test_no_secret_passes_the_scheduler_and_what_does_is_soon_worth_nothing(
    tmp_path: Path,
) -> None:
    ahead = 0.0
    with stub_bucket() as bucket, Sandbox(detect=False, clock=lambda: time.time() + ahead) as box:
        own = {"AWS_ACCESS_KEY_ID": "key-of-bucket", "AWS_SECRET_ACCESS_KEY": "secret-of-bucket"}
        store = {**bucket.environ, **own}
        archive = Archive.new(tmp_path / "a", box)
        archive.crowd(6)
        bucket.objects = {f"{number}.jpg": picture(number) for number in range(6)}
        with Site(tmp_path, workers=1, environ=store, keep=True) as site:
            at = Scene(archive, site, random.Random(0), ("--images", f"s3://{BUCKET}"), store)
            with at.started() as process:
                assert at.ended(process) == 0, at.said
            secrets = (box.api_secret, *own.values())
            kept = in_memory(site.scheduler.pid, "a-p3", *secrets)
            seen = site.driver.seen + b"".join(one.seen for pair in site.links for one in pair)
        assert kept == ["a-p3"]  # what is looked for would be found
        assert [word for word in secrets if word.encode() in seen] == []
        signature = next(filter(None, map(partial(as_signature, box.api_key), words_in(seen))))
        ahead = 60.0
        assert with_signature(archive, signature).verdict is Verdict.FATAL


def words_in(seen: bytes) -> list[bytes]:
    return re.findall(rb"[A-Za-z0-9+/]{60,}=*", seen)


def as_signature(api_key: str, word: bytes) -> str:
    """A word, if it is a signature by that key."""
    for cut_off in range(4):  # pickle may have put a byte before it that looks like one of its
        with suppress(ValueError):
            if api_key.encode() in base64.b64decode(word[cut_off:]):
                return word[cut_off:].decode()
    return ""


def with_signature(archive: Archive, signature: str) -> Answer:
    """What comes of adding somebody with a signature that was seen."""
    service = archive.service
    call = service.sign(
        Call.add(
            group_id=archive.group_id,
            user_id="another",
            user_data="",
            send_as=SendAs.FILE,
            multi_oriented_detection=False,
        )
    )
    assert isinstance(call, SignedCall)
    photo = read_photo(str(archive.folder / "1.jpg"), open_store(archive.folder))
    assert isinstance(photo, Photo)
    try:
        return service.send(replace(call, fields={**call.fields, "sign": signature}), photo)
    finally:
        service.close()
