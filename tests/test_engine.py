"""The contract of the engine port, which every adapter has to pass.

A new adapter is one more of `ADAPTERS`: what makes an engine for a service and a folder of photos,
with so many threads or workers for calls, and what ends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archive import picture
from facesearch_servers import Peer, Server, answer, answering, form_fields

from enroll import clock
from enroll.engine import Engine, HeldPhoto
from enroll.engine.threads import Executors, ThreadEngine
from enroll.errors import ShortageError
from enroll.facesearch import Call, Courier, FaceSearch, SignedCall
from enroll.model import Credentials, SendAs, Unusable, Verdict
from enroll.photos import BUDGET, PhotoCode, open_store
from enroll.settings import DEFAULT_PREPARATION
from enroll.threads import Threads

if TYPE_CHECKING:
    from enroll.engine.cluster import Cluster

SECONDS = 20.0
"""How long a test waits for what has to come."""


@contextmanager
def in_threads(service: FaceSearch, folder: Path, calls: int) -> Iterator[Engine]:
    executors = Executors(
        calls=Threads(calls), readers=Threads(2), scanner=Threads(1), reading_at_once=2
    )
    engine = ThreadEngine(service, open_store(folder.resolve()), executors)
    try:
        yield engine
    finally:
        engine.close()
        for executor in (executors.calls, executors.readers, executors.scanner):
            executor.shutdown(wait=False, cancel_futures=True)
        service.close()


@contextmanager
def with_dask(service: FaceSearch, folder: Path, calls: int) -> Iterator[Engine]:
    from enroll.engine.dask import DaskEngine
    from enroll.engine.station import Posting
    from enroll.engine.workers import mustered

    executors = Executors(
        calls=Threads(calls), readers=Threads(2), scanner=Threads(1), reading_at_once=2
    )
    store = open_store(folder.resolve())
    posting = Posting(
        root=store.root, way=service.way, calls=calls, readers=2, preparation=DEFAULT_PREPARATION
    )
    with mustered(CLUSTERS[0], posting) as workers:
        engine = DaskEngine(service, store, executors, workers)
        try:
            yield engine
        finally:
            engine.close()
            for executor in (executors.calls, executors.readers, executors.scanner):
                executor.shutdown(wait=False, cancel_futures=True)
            service.close()


CLUSTERS: list[Cluster] = []
"""The one that the tests of this file share."""

Adapter = Callable[[FaceSearch, Path, int], AbstractContextManager[Engine]]
ADAPTERS: dict[str, Adapter] = {"threads": in_threads}
if find_spec("distributed") is not None:
    ADAPTERS["dask"] = with_dask


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A scheduler and a worker in this process, for all tests."""
    from distributed import Client, LocalCluster

    from enroll.engine.cluster import Cluster

    with ExitStack() as stack:
        workers = LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        )
        stack.enter_context(workers)
        client = stack.enter_context(Client(workers, set_as_default=False))
        CLUSTERS.append(Cluster(client))
        yield
        CLUSTERS.clear()


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    if request.param == "dask":
        request.getfixturevalue("cluster")
    return ADAPTERS[request.param]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    (tmp_path / "none.jpg").write_text("no picture")
    return tmp_path


def service_of(port: int) -> FaceSearch:
    return FaceSearch(f"http://127.0.0.1:{port}", Credentials("key", "secret"), timeout=SECONDS)


def signed(service: FaceSearch) -> SignedCall:
    call = Call.add(
        group_id="g",
        user_id="u",
        user_data="",
        send_as=SendAs.FILE,
        multi_oriented_detection=False,
    )
    signed_call = service.sign(call)
    assert isinstance(signed_call, SignedCall)
    return signed_call


def read_one(engine: Engine, folder: Path, name: str) -> HeldPhoto | Unusable:
    path = str(folder.resolve() / name)
    (photo,), _ = engine.read([path], DEFAULT_PREPARATION).result(SECONDS)
    return photo


def held(engine: Engine, folder: Path, name: str) -> HeldPhoto:
    photo = read_one(engine, folder, name)
    assert isinstance(photo, HeldPhoto)
    return photo


def test_a_photo_that_was_read_is_sent_by_its_handle_and_only_once(
    adapter: Adapter, folder: Path
) -> None:
    with Server(answering(answer())) as server:
        service = service_of(server.port)
        with adapter(service, folder, 2) as engine:
            photo = held(engine, folder, "1.jpg")
            assert photo.sha256 == sha256(picture(1)).digest()
            assert photo.size == len(picture(1))
            (folder / "1.jpg").unlink()
            done = engine.call(signed(service), photo).result(SECONDS)
    assert done.verdict is Verdict.APPLIED
    (request,) = server.seen.requests
    assert form_fields(request)["file"] == picture(1)


def test_a_call_without_a_photo_is_made(adapter: Adapter, folder: Path) -> None:
    with Server(answering(answer(b'{"faces": []}'))) as server:
        service = service_of(server.port)
        call = service.sign(Call.list(group_id="g"))
        assert isinstance(call, SignedCall)
        with adapter(service, folder, 2) as engine:
            done = engine.call(call).result(SECONDS)
    assert (done.http_status, len(server.seen.requests)) == (200, 1)


def test_a_call_whose_answer_is_lost_is_made_only_once(adapter: Adapter, folder: Path) -> None:
    def behave(peer: Peer) -> None:
        peer.read_request()
        peer.reset()

    with Server(behave) as server:
        service = service_of(server.port)
        with adapter(service, folder, 2) as engine:
            done = engine.call(signed(service), held(engine, folder, "1.jpg")).result(SECONDS)
    assert (done.verdict, len(server.seen.requests)) == (Verdict.UNKNOWN, 1)


def test_a_call_whose_time_was_over_before_it_began_does_not_leave(
    adapter: Adapter, folder: Path
) -> None:
    with Server(answering(answer())) as server:
        service = service_of(server.port)
        with adapter(service, folder, 2) as engine:
            photo = held(engine, folder, "1.jpg")
            late = replace(signed(service), deadline=clock.monotonic())
            done = engine.call(late, photo).result(SECONDS)
            assert done.verdict is Verdict.BLOCKED
            assert server.seen.requests == []
            engine.call(signed(service), photo).result(SECONDS)
    assert len(server.seen.requests) == 1


@pytest.mark.parametrize(
    ("name", "code"), [("none.jpg", PhotoCode.NOT_AN_IMAGE), ("gone.jpg", PhotoCode.MISSING)]
)
def test_a_bad_photo_is_read_to_its_fault(
    adapter: Adapter, folder: Path, name: str, code: str
) -> None:
    with adapter(service_of(9), folder, 1) as engine:
        photo = read_one(engine, folder, name)
    assert isinstance(photo, Unusable)
    assert photo.fault.code == code


def test_photos_come_in_the_order_of_their_paths(adapter: Adapter, folder: Path) -> None:
    root = folder.resolve()
    paths = [str(root / name) for name in ("2.jpg", "none.jpg", "1.jpg")]
    with adapter(service_of(9), folder, 1) as engine:
        photos, _ = engine.read(paths, DEFAULT_PREPARATION).result(SECONDS)
    assert 1 <= len(photos) <= 3
    kinds = [type(photo) for photo in photos]
    assert kinds == [HeldPhoto, Unusable, HeldPhoto][: len(photos)]
    assert isinstance(photos[0], HeldPhoto)
    assert photos[0].sha256 == sha256(picture(2)).digest()


def test_a_dropped_photo_can_no_longer_be_sent_and_one_that_is_being_sent_arrives(
    adapter: Adapter, folder: Path
) -> None:
    go_on = threading.Event()

    def behave(peer: Peer) -> None:
        peer.read_request()
        go_on.wait(SECONDS)
        peer.answer(headers="Connection: close\r\n")  # else the next call may use it

    with Server(behave) as server:
        service = service_of(server.port)
        with adapter(service, folder, 2) as engine:
            photo, other = held(engine, folder, "1.jpg"), held(engine, folder, "2.jpg")
            assert photo.handle != other.handle
            under_way = engine.call(signed(service), photo)
            engine.drop(photo)
            engine.drop(photo)
            go_on.set()
            assert under_way.result(SECONDS).verdict is Verdict.APPLIED
            with pytest.raises(KeyError):
                engine.call(signed(service), photo)
            assert engine.call(signed(service), other).result(SECONDS).verdict is Verdict.APPLIED


def test_the_end_does_not_wait_for_a_call(adapter: Adapter, folder: Path) -> None:
    arrived, ended = threading.Event(), threading.Event()

    def behave(peer: Peer) -> None:
        peer.read_head()
        arrived.set()
        assert ended.wait(SECONDS)  # the engine has ended though nothing has been answered
        peer.answer()

    with Server(behave) as server:
        service = service_of(server.port)
        with adapter(service, folder, 1) as engine:
            under_way = engine.call(signed(service), held(engine, folder, "1.jpg"))
            assert arrived.wait(SECONDS)
        assert not under_way.done()
        ended.set()
        assert under_way.result(SECONDS).verdict is Verdict.APPLIED


def test_what_a_bug_raises_comes_to_whoever_waits(
    adapter: Adapter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    service = service_of(9)
    with adapter(service, folder, 1) as engine:
        photo = held(engine, folder, "1.jpg")
        monkeypatch.setattr(Courier, "send", broken)
        call = engine.call(signed(service), photo)
        with pytest.raises(ZeroDivisionError):
            call.result(SECONDS)


def test_a_call_for_which_no_thread_can_be_had_is_not_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(answering(answer())) as server:
        service = service_of(server.port)
        calls, readers = Threads(1), ThreadPoolExecutor(1)
        engine = ThreadEngine(
            service,
            open_store(folder.resolve()),
            Executors(calls=calls, readers=readers, scanner=readers),
        )
        photo = held(engine, folder, "1.jpg")

        def none_left() -> None:
            raise ShortageError("This machine has no thread left.")

        monkeypatch.setattr(calls, "have_one_free", none_left)
        with pytest.raises(ShortageError):
            engine.call(signed(service), photo)
        monkeypatch.undo()
        assert engine.call(signed(service), photo).result(SECONDS).verdict is Verdict.APPLIED
        calls.shutdown()
        readers.shutdown()
        service.close()
    assert len(server.seen.requests) == 1


def test_photos_that_are_ready_count_until_they_are_dropped_or_the_engine_is_closed(
    folder: Path,
) -> None:
    before = BUDGET.pictures._kept
    service = service_of(1)
    with in_threads(service, folder, 1) as engine:
        first, second = (held(engine, folder, f"{number}.jpg") for number in (1, 2))
        assert BUDGET.pictures._kept == before + first.size + second.size
        engine.drop(first)
        engine.drop(first)
        assert BUDGET.pictures._kept == before + second.size
        assert engine.readers == 2
        limit = BUDGET.pictures.limit
        BUDGET.pictures.limit = BUDGET.pictures._kept
        assert engine.readers == 0
        BUDGET.pictures.limit = limit
    assert BUDGET.pictures._kept == before
    assert isinstance(engine, ThreadEngine)
    late = engine._read([str(folder.resolve() / "1.jpg")], DEFAULT_PREPARATION)
    assert isinstance(late[0][0], HeldPhoto)
    assert BUDGET.pictures._kept == before
