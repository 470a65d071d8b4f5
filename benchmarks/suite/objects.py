"""Photos in a bucket: what reading one takes, what a row takes, and a manifest with nothing due."""

from __future__ import annotations

import os
import random
import resource
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

from enroll.photos import open_store

from . import archives, bucket
from .bench import Bench
from .figures import OURS, Figure, figure
from .ledgers import fabricate
from .nginx import running
from .process import Usage, measured
from .row_cost import RowCost, cost
from .unchanged import renew
from .ways import IN_FLIGHT, Way, ours, surroundings, tokens_in_results, ways

READ_CASE = "a photo of 250 KB from a bucket"
ROW_CASE = "a row of 64 KB from a bucket"
BOTO3 = "boto3"
LISTING = "the listing alone"
FOLDER = "enroll, from a folder"
_BYTES = 250_000


def measure(bench: Bench) -> Iterator[Figure]:
    """CPU of a photo beside boto3, CPU of a row, and time and memory where nothing is due."""
    if find_spec("obstore") is None:
        return
    yield from _reads(bench)
    yield from _rows(bench)
    yield from _unchanged(bench)


def _reads(bench: Bench) -> Iterator[Figure]:
    used: dict[str, list[float]] = defaultdict(list)
    with bench.scratch() as folder:
        (folder / "photo.jpg").write_bytes(random.Random(1).randbytes(_BYTES))
        with (
            bucket.running(folder) as environ,
            _environ(environ),
            ThreadPoolExecutor(1) as reader,  # a run reads on threads, too
        ):
            readers = _readers(environ)
            for _, name in bench.rounds(list(readers)):
                spent = reader.submit(_cpu_of, readers[name], bench.size.bucket_reads)
                used[name].append(1000 * spent.result())
    for name, values in used.items():
        yield figure(READ_CASE, name, "CPU", values=values, unit="ms", target="≤ 0.5")


def _readers(environ: Mapping[str, str]) -> dict[str, Callable[[], int]]:
    store = open_store(bucket.BUCKET)

    def ours_reads() -> int:
        with store.open(store.locate("photo.jpg")) as photo:
            return len(photo.content())

    readers = {OURS: ours_reads}
    if find_spec("boto3") is not None:
        import boto3  # noqa: PLC0415 - not ours

        client: Any = boto3.client("s3", endpoint_url=environ["AWS_ENDPOINT_URL"])
        readers[BOTO3] = lambda: len(
            client.get_object(Bucket="bench", Key="photo.jpg")["Body"].read()
        )
    return readers


def _cpu_of(read: Callable[[], int], times: int) -> float:
    """Seconds of processor for one of so many reads, after one for the connection."""
    read()
    before = _cpu()
    for _ in range(times):
        if read() != _BYTES:
            raise ValueError("the photo is not whole")
    return (_cpu() - before) / times


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _rows(bench: Bench) -> Iterator[Figure]:
    archive = bench.usual(max(bench.size.row_cost))
    costs: dict[str, list[RowCost]] = defaultdict(list)
    with running() as nginx, bucket.running(archive.folder.resolve()) as environ:
        way = Way(
            command=lambda manifest, _, folder: ours(
                *("run", manifest, folder, "--max-in-flight", str(IN_FLIGHT)),
                *("--images", bucket.BUCKET),
            ),
            tokens=tokens_in_results,
            environ=environ,
        )
        known = {OURS: way, FOLDER: ways()[OURS]}
        for _, name in bench.rounds(list(known)):
            found = cost(bench, known[name], archive, nginx.endpoint, bench.size.row_cost)
            costs[name].append(found)
    for name, of_rows in costs.items():
        cpu, _, memory = zip(*of_rows, strict=True)
        yield figure(ROW_CASE, name, "CPU", values=cpu, unit="ms", target="≤ 1.0")
        yield figure(ROW_CASE, name, "memory", values=memory, unit="MB")


def _unchanged(bench: Bench) -> Iterator[Figure]:
    rows = bench.size.many
    used: dict[str, list[Usage]] = defaultdict(list)
    with ExitStack() as stack:
        nginx, folder = stack.enter_context(running()), stack.enter_context(bench.scratch())
        archive = archives.small(folder, 1)  # the others are only listed
        manifest = archive.manifest(rows).resolve()
        there = stack.enter_context(bucket.running(archive.folder.resolve(), rows=rows))
        stack.enter_context(_environ(there))
        store = open_store(bucket.BUCKET)
        fabricate(folder / "full.sqlite", archive, rows, store=store)
        environ = {**surroundings(folder, nginx.endpoint), **there}
        command = ours("run", manifest, folder, "--images", bucket.BUCKET)
        alone = (*command[:1], "-c", _LIST)
        renew(folder / "ledger.sqlite", folder / "full.sqlite")
        measured(command, cwd=folder, environ=environ)  # keeps the scan for the next ones
        for _, _name in bench.rounds([OURS]):
            used[OURS].append(measured(command, cwd=folder, environ=environ))
            used[LISTING].append(measured(alone, cwd=folder, environ=environ))
    case = f"nothing to do in a bucket, {rows:,} rows"
    for name, usages in used.items():
        wall, target = [one.wall for one in usages], f"≤ listing + {60 * rows / 1e6:g}"
        yield figure(case, name, "wall time", values=wall, unit="s", target=target)
        yield figure(case, name, "CPU", values=[one.cpu for one in usages], unit="s")
        memory = [one.memory / 1e6 for one in usages]
        yield figure(case, name, "memory", values=memory, unit="MB", target="≤ 200")


_LIST = f"""
from enroll.photos import open_store
sum(1 for _ in open_store({bucket.BUCKET!r}).files())
"""


@contextmanager
def _environ(more: Mapping[str, str]) -> Iterator[None]:
    """These variables for this process, too."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
