"""What becomes of a run whose workers of Dask cannot work, or die of a photo; and what a scheduler
gets to see. All of them are real processes."""

from __future__ import annotations

import base64
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from archive import Archive, picture
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
from dask_scene import LONGEST, Scene
from distributed import Client

from enroll.engine.cluster import Cluster
from enroll.engine.dask import DaskEngine
from enroll.engine.station import Posting
from enroll.engine.workers import mustered

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/mem").exists(), reason="forks processes, and reads the memory of one"
)


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
        for place, worker in enumerate(site.workers):
            if worker.poll() is not None:
                lost.append(worker.returncode)
                end(worker)
                site.add_worker(place)

    def keep_renewing(site: Site) -> None:
        while not over:
            renew(site)
            time.sleep(0.02)

    with (
        Site(tmp_path, flaw="dies of 5.jpg") as site,
        Client(site.address, set_as_default=False) as client,
        mustered(Cluster(client), posting) as workers,
    ):
        engine = DaskEngine(service, open_store(tmp_path), executors, workers)
        renewing = threading.Thread(target=keep_renewing, args=[site])
        renewing.start()
        found = dict[Path, HeldPhoto | Unusable]()
        while left := [path for path in paths if path not in found]:
            together = [left[at : at + 3] for at in range(0, len(left), 3)]
            readings = [engine.read([*map(str, some)], DEFAULT_PREPARATION) for some in together]
            for some, reading in zip(together, readings, strict=True):
                found.update(zip(some, reading.result(LONGEST)[0], strict=False))
        over = True
        renewing.join()
        renew(site)
        engine.close()
    deadly = found.pop(paths[5])
    assert isinstance(deadly, Unusable)
    assert (deadly.status, deadly.fault.code) == (Status.FAILED, "PHOTO_WORKERS_LOST")
    assert "3 workers were lost over it" in deadly.fault.message
    assert [path.name for path, one in found.items() if not isinstance(one, HeldPhoto)] == []
    assert lost == 3 * [-signal.SIGKILL]


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
