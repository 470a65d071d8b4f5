"""What the engine of Dask workers promises beyond the contract of the port, in `test_engine.py`:
whatever Dask runs again or loses, no call is made twice, and no secret gets to it."""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from archive import Archive, picture
from facesearch_servers import Peer, Server, answer, answering, form_fields
from moved_clock import MovedClock
from real_command import SECONDS

from enroll import __version__, clock
from enroll.engine import HeldPhoto
from enroll.engine.address import Local, Scheduler, check_dask, parse_scheduler
from enroll.engine.threads import Executors
from enroll.errors import LocalError, UsageError
from enroll.facesearch import Call, FaceSearch, SignedCall, Way
from enroll.model import Credentials, SendAs, Verdict
from enroll.photos import open_store
from enroll.sandbox import Sandbox
from enroll.settings import DEFAULT_PREPARATION
from enroll.threads import Threads

pytest.importorskip("distributed")

from dask import config as dask_config
from distributed import Client, LocalCluster
from distributed.security import Security

from enroll.engine import cluster as cluster_module
from enroll.engine import dask as dask_module
from enroll.engine import station as station_module
from enroll.engine import workers as workers_module
from enroll.engine.cluster import Cluster, LocalWorkers, open_cluster
from enroll.engine.dask import DaskEngine
from enroll.engine.station import Delivery, Introduction, Posting, deliver
from enroll.engine.workers import Workers, mustered

KEY, SECRET = "the-key-of-the-account", "the-secret-of-the-account"


@pytest.fixture(scope="module")
def dask() -> Iterator[LocalCluster]:
    """A scheduler and two workers in this process."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    return tmp_path.resolve()


def service_of(port: int, *, timeout: float = SECONDS) -> FaceSearch:
    return FaceSearch(f"http://127.0.0.1:{port}", Credentials(KEY, SECRET), timeout=timeout)


@contextmanager
def engine_of(service: FaceSearch, folder: Path, dask: LocalCluster | str) -> Iterator[DaskEngine]:
    executors = Executors(
        calls=Threads(1), readers=Threads(1), scanner=Threads(1), reading_at_once=2
    )
    with ExitStack() as stack:
        client = stack.enter_context(Client(dask, set_as_default=False))
        posting = Posting(
            root=str(folder), way=service.way, calls=2, readers=2, preparation=DEFAULT_PREPARATION
        )
        workers = stack.enter_context(mustered(Cluster(client), posting))
        engine = DaskEngine(service, open_store(folder), executors, workers)
        stack.callback(engine.close)
        yield engine


def signed(service: FaceSearch) -> SignedCall:
    call = service.sign(
        Call.add(
            group_id="g",
            user_id="u",
            user_data="",
            send_as=SendAs.FILE,
            multi_oriented_detection=False,
        )
    )
    assert isinstance(call, SignedCall)
    return call


def read(engine: DaskEngine, path: Path) -> HeldPhoto:
    (photo,), _ = engine.read([str(path)], DEFAULT_PREPARATION).result(SECONDS)
    assert isinstance(photo, HeldPhoto)
    return photo


def lose_holder(engine: DaskEngine, photo: HeldPhoto) -> None:
    """Have the engine find that the worker is gone which holds a photo."""
    with engine._state:
        member = engine._members[engine._photos[photo.handle].instance]
        engine._workers.lose(member)
        engine._lose(member)


def test_neither_key_nor_secret_gets_into_the_memory_of_the_scheduler(
    folder: Path, dask: LocalCluster
) -> None:
    go_on = threading.Event()

    def behave(peer: Peer) -> None:
        peer.read_request()
        go_on.wait(SECONDS)
        peer.answer()

    with Server(behave) as server:
        service = service_of(server.port)
        with engine_of(service, folder, dask) as engine:
            photo = read(engine, folder / "1.jpg")
            kept: list[bytes] = []
            submit = engine._cluster.client.submit

            def submit_and_look(*args: Any, **more: Any) -> Any:
                kept.append(pickle.dumps(args[1:]))
                return submit(*args, **more)

            engine._cluster.client.submit = submit_and_look
            under_way = engine.call(signed(service), photo)
            while not server.seen.requests:
                time.sleep(0.01)
            scheduler = dask.scheduler
            specs = [pickle.dumps(task.run_spec) for task in scheduler.tasks.values()]
            topics = [
                pickle.dumps(list(topic.events)) for topic in scheduler._broker._topics.values()
            ]
            stations = [pickle.dumps(one) for one in scheduler.worker_plugins.values()]
            go_on.set()
            assert under_way.result(SECONDS).verdict is Verdict.APPLIED
    signature = form_fields(server.seen.requests[0])["sign"]
    assert any(signature in one for one in kept)  # what is looked for would be found
    for held in (*kept, *specs, *topics, *stations):
        assert KEY.encode() not in held
        assert SECRET.encode() not in held
    assert KEY.encode() in base64.b64decode(signature)


def test_an_order_that_dask_hands_over_twice_or_to_another_instance_makes_one_call(
    folder: Path, dask: LocalCluster
) -> None:
    with Server(answering(answer())) as server:
        service = service_of(server.port)
        with engine_of(service, folder, dask) as engine:
            photo = read(engine, folder / "1.jpg")
            handed: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
            client = engine._cluster.client
            submit = client.submit

            def submit_and_keep(*args: Any, **more: Any) -> Any:
                handed.append((args, more))
                return submit(*args, **more)

            client.submit = submit_and_keep
            assert engine.call(signed(service), photo).result(SECONDS).face_token
            ((args, more),) = handed
            others = [one for one in engine._members.values() if one.address not in more["workers"]]
            submit(*args, **more | {"key": "again"}).result(SECONDS)
            submit(*args, **more | {"key": "elsewhere", "workers": [others[0].address]}).result(
                SECONDS
            )
            assert engine.call(signed(service), photo).result(SECONDS).face_token
    assert len(server.seen.requests) == 2


def test_a_photo_whose_worker_is_lost_is_read_again_and_sent_once(
    folder: Path, dask: LocalCluster
) -> None:
    with Server(answering(answer())) as server:
        service = service_of(server.port)
        with engine_of(service, folder, dask) as engine:
            photo, other = read(engine, folder / "1.jpg"), read(engine, folder / "2.jpg")
            lose_holder(engine, photo)
            assert engine.call(signed(service), photo).result(SECONDS).face_token
            (folder / "2.jpg").write_bytes(picture(3))
            with engine._state:
                for member in list(engine._members.values()):
                    engine._workers.lose(member)
                    engine._lose(member)
            changed = engine.call(signed(service), other).result(SECONDS)
    assert (changed.verdict, changed.code) == (Verdict.FAILED, "WORKER_LOST")
    (request,) = server.seen.requests
    assert form_fields(request)["file"] == picture(1)


def test_a_call_of_which_nothing_is_heard_is_in_doubt_once_its_signature_has_expired(
    folder: Path, dask: LocalCluster
) -> None:
    with Server(answering(answer())) as server:
        service = service_of(server.port, timeout=0.5)
        with engine_of(service, folder, dask) as engine:
            photo = read(engine, folder / "1.jpg")
            engine._cluster.client.submit = lambda *_, **__: None  # the task is lost
            call = signed(service)
            lost = engine.call(call, photo).result(SECONDS)
            expired = service.clock.offset + time.time() >= call.expires - 1
    assert (lost.verdict, lost.code, lost.expires) == (
        Verdict.UNKNOWN,
        "WORKER_LOST",
        call.expires,
    )
    assert expired
    assert not server.seen.requests


def test_a_station_refuses_an_order_for_another_instance_and_says_so(
    folder: Path, dask: LocalCluster
) -> None:
    with Server(answering(answer())) as server:
        service = service_of(server.port, timeout=0.5)
        with engine_of(service, folder, dask) as engine:
            photo = read(engine, folder / "1.jpg")
            submit = engine._cluster.client.submit

            def to_a_former_instance(*args: Any, **more: Any) -> Any:
                delivery = pickle.loads(args[2])
                parcel = pickle.dumps(Delivery("a former one", delivery.orders))
                return submit(deliver, args[1], parcel, **more)

            engine._cluster.client.submit = to_a_former_instance
            refused = engine.call(signed(service), photo).result(SECONDS)
    assert (refused.verdict, refused.code) == (Verdict.UNKNOWN, "WORKER_LOST")
    assert not server.seen.requests


def test_workers_of_another_version_are_not_used(
    folder: Path, dask: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "__version__", "0.9.0")
    monkeypatch.setattr(workers_module, "REFUSED_SECONDS", 0.0)
    with (
        pytest.raises(LocalError, match=r"No Dask worker can work .* and this is 0\.9\.0"),
        engine_of(service_of(9), folder, dask),
    ):
        pass


def members(engine: DaskEngine) -> set[str]:
    """The addresses of the workers that work for it."""
    with engine._state:
        return {one.address for one in engine._members.values()}


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


BUSY, GO_ON = threading.Event(), threading.Event()


def keep_busy() -> None:
    BUSY.set()
    GO_ON.wait(SECONDS)


def test_a_worker_that_takes_no_order_is_avoided_and_no_photo_is_blamed(
    folder: Path, dask: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_module, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(dask_module, "LOOK_SECONDS", 0.1)
    with engine_of(service_of(9), folder, dask) as engine:
        wait_until(lambda: len(members(engine)) == 2)
        one = min(members(engine))
        engine._cluster.client.submit(keep_busy, workers=[one], pure=False)  # its only thread
        BUSY.wait(SECONDS)
        readings = [
            engine.read([str(folder / name)], DEFAULT_PREPARATION) for name in ("1.jpg", "2.jpg")
        ]
        for reading in readings:
            assert isinstance(reading.result(SECONDS)[0][0], HeldPhoto)
        assert one not in members(engine)
        assert "it has taken no order" in engine._workers.none_can_work()
        assert not engine._readings._lost_over
        GO_ON.set()


def test_a_station_that_heard_nothing_for_long_ends_and_a_run_that_lives_has_another_set_up(
    folder: Path, dask: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(station_module, "LEASE_SECONDS", 0.2)
    with engine_of(service_of(9), folder, dask) as engine:
        wait_until(lambda: len(members(engine)) == 2)
        name = engine._workers.posting.run

        def stations() -> int:
            return sum(name in plugin for one in dask.workers.values() for plugin in one.plugins)

        wait_until(lambda: not stations())
        read(engine, folder / "1.jpg")
        assert not engine._readings._lost_over


class Known:
    """A cluster as far as `Workers` asks for it: when the scheduler heard from which worker."""

    workers = None
    over = ""

    def __init__(self) -> None:
        self.heard = {"tls://a:1": 1.0, "tls://b:1": 1.0}
        self.client = self.scheduler = self

    async def identity(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {one: {"last_seen": heard} for one, heard in self.heard.items()}}

    async def asked(self, address: str, *_: object) -> Introduction:
        return Introduction(version=__version__, instance=f"of {address}", readers=1, room=1)


def test_a_worker_that_falls_silent_is_lost_until_the_scheduler_hears_from_it(
    folder: Path,
) -> None:
    known = Known()
    posting = Posting(
        root=str(folder), way=Way("http://h"), calls=1, readers=1, preparation=DEFAULT_PREPARATION
    )
    workers = Workers(cast(Cluster, known), posting)

    def look() -> list[str]:
        gone = workers.update(asyncio.run(workers.look()))
        return [one.address for one in gone]

    moved = MovedClock()
    with clock.using(moved):
        assert look() == []
        assert len(workers.members) == 2
        for heard in (2.0, 3.0):
            moved.ahead += 15
            known.heard["tls://a:1"] = heard
            gone = look()
        assert gone == ["tls://b:1"]
        for _ in range(3):  # it can be asked, but what it says does not get to the scheduler
            moved.ahead += 15
            known.heard["tls://a:1"] += 1
            assert look() == []
            assert list(workers.members) == ["of tls://a:1"]
        known.heard["tls://b:1"] = 2.0
        assert look() == []
        assert len(workers.members) == 2


def test_addresses_that_would_show_photos_or_let_others_in_are_refused() -> None:
    assert parse_scheduler("local:3") == Local(3)
    assert isinstance(parse_scheduler("local"), Local)
    assert parse_scheduler("tls://host:8786") == Scheduler("tls://host:8786", tls=True)
    assert parse_scheduler("tcp://127.0.0.1:8786") == Scheduler("tcp://127.0.0.1:8786", tls=False)
    wrong = [
        *("", "local:", "local:0", "local:-1", "local:1e3", "local:99999", "host:8786", "tls://"),
        *("tls://host", "http://host:1", "tls://user:pw@host:1", "tls://host:1/x", "tls://[:1"),
        *("tcp://10.0.0.1:8786", "tcp://host:8786", "ucx://127.0.0.1:1", "tls://host:99999999"),
    ]
    for text in wrong:
        with pytest.raises(UsageError):
            parse_scheduler(text)


def test_a_scheduler_that_cannot_be_used_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 2)
    names = {"ca-file": "/none/ca.pem", "client.cert": "/none/cert.pem"}
    given = {f"distributed.comm.tls.{name}": file for name, file in names.items()}
    with (
        dask_config.set(given),
        pytest.raises(UsageError, match=r"There is no file /none/ca\.pem"),
        open_cluster("tls://127.0.0.1:9"),
    ):
        pass
    with (
        LocalCluster(
            n_workers=0,
            processes=False,
            protocol="tls",
            security=Security.temporary(),
            dashboard_address="127.0.0.1:0",
        ) as other,
        pytest.raises(LocalError, match="do not accept each other's certificates"),
        cluster_module._client(Scheduler(other.scheduler_address, tls=True), Security.temporary()),
    ):
        pass


def test_what_accepts_a_connection_and_says_nothing_is_no_scheduler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(LocalError, match="something else does, or it hangs"):
            cluster_module._client(Scheduler(address, tls=False), Security()).__enter__()


def test_a_local_scheduler_is_heard_by_a_program_that_has_many_files_open() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    script = f"""
import os, resource, subprocess, sys
from enroll.engine.cluster import _address_of
resource.setrlimit(resource.RLIMIT_NOFILE, ({min(most, 4096)}, {most}))
files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
command = [sys.executable, "-c", "print('tls://127.0.0.1:1')"]
with subprocess.Popen(command, stdout=subprocess.PIPE) as scheduler:
    print(scheduler.stdout.fileno() > 1023, _address_of(scheduler))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert done.stdout == "True tls://127.0.0.1:1\n"


def test_a_run_whose_local_workers_keep_ending_is_over(dask: LocalCluster) -> None:
    with Client(dask, set_as_default=False) as client:
        workers = LocalWorkers(1)
        try:
            cluster = Cluster(client, workers)
            assert cluster.over == ""
            workers.close()
            wait_until(lambda: workers.given_up)
            assert "ended again and again" in cluster.over
        finally:
            workers.close()


def test_a_photo_that_has_to_be_read_again_does_not_wait_for_a_worker_that_is_not_full(
    folder: Path, dask: LocalCluster
) -> None:
    with (
        Server(answering(answer())) as server,
        engine_of(service_of(server.port), folder, dask) as engine,
    ):
        for member in engine._members.values():
            member.held = member.introduction.room
        assert engine.readers == 0
        assert read(engine, folder / "1.jpg").size > 0


def test_what_a_bug_leaves_behind_comes_to_whoever_waits(
    folder: Path, dask: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("a bug")

    with (
        Server(answering(answer())) as server,
        engine_of(service_of(server.port), folder, dask) as engine,
    ):
        monkeypatch.setattr(engine._post, "pack", bug)
        for _ in range(2):  # now, and of what is asked for later
            with pytest.raises(RuntimeError, match="a bug"):
                engine.read([str(folder / "1.jpg")], DEFAULT_PREPARATION).result(SECONDS)


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("enroll.engine.address.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'enroll\[dask\]'"):
        check_dask("local")


def test_local_workers_have_no_secret_and_are_started_again_until_none_of_them_has_read_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENROLL_API_SECRET", SECRET)
    monkeypatch.setattr(cluster_module, "RESTARTS", 2)
    workers = LocalWorkers(1)
    try:
        environ = Path(f"/proc/{workers.processes[0].pid}/environ")
        if environ.exists():
            wait_until(lambda: b"PATH=" in environ.read_bytes())  # it is that program by now
            assert SECRET.encode() not in environ.read_bytes()
        workers.begin("tls://127.0.0.1:9", Security.temporary())

        def killed(times: int) -> bool:
            for _ in range(times):
                workers.processes[0].kill()
                workers.processes[0].wait()
                workers.tend()
            return workers.given_up

        assert not killed(2)
        workers.proven()
        assert not killed(2)
        assert killed(1)
    finally:
        workers.close()


def local_workers(process: int) -> list[int]:
    """The worker processes that a command has started."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            if b"local_worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_killed_workers_a_stopped_one_and_a_killed_run_add_nobody_twice_and_lose_nobody(
    tmp_path: Path,
) -> None:
    with Sandbox(detect=False, latency=0.05) as box:
        archive = Archive.new(tmp_path / "killed", box)
        archive.crowd(30)
        arguments = [*archive.arguments, "--engine", "dask", "--scheduler", "local:2"]

        def until_calls(process: Any, number: int) -> None:
            while process.poll() is None and archive.calls() < number:
                time.sleep(0.002)

        with archive.command.started(*arguments, stdout=None, stderr=None) as process:
            until_calls(process, 4)
            os.kill(local_workers(process.pid)[0], signal.SIGKILL)
            until_calls(process, 8)
            process.kill()  # what the worker had is not settled yet
            assert process.wait() == -signal.SIGKILL
        with archive.command.started(*arguments, stdout=None, stderr=None) as process:
            until_calls(process, 12)
            stopped = local_workers(process.pid)[0]
            os.kill(stopped, signal.SIGSTOP)
            time.sleep(5.0)  # until every call that it has must have expired
            with suppress(ProcessLookupError):  # the rest was done without it
                os.kill(stopped, signal.SIGCONT)
            assert process.wait(SECONDS) == 0
        assert archive.problems() == []
