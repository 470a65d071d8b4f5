"""Dask as a run uses it: an address checked, a client, and worker processes on this machine.

`distributed` is imported here and in `enroll.engine.station` only, and only for `--engine dask`.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import dask.config
from distributed import Client, LocalCluster
from distributed.security import Security

from enroll.engine.address import Local, Scheduler, parse_scheduler
from enroll.errors import LocalError, ShortageError, UsageError
from enroll.photos.bounds import MACHINE_SHARE
from enroll.resources import memory_limit, no_thread
from enroll.settings import least_memory
from enroll.threads import Threads

T = TypeVar("T")

CONNECT_SECONDS = 15.0
"""How long a scheduler may take to answer when the run begins."""

ANSWER_SECONDS = 30.0
"""The longest that anything asked of it can take, which has shorter bounds of its own."""

RESTARTS = 5
"""How often a worker process on this machine is started again after it was lost."""


class Cluster:
    """A Dask client, and the workers on this machine if there are any. Safe to use from any
    thread; `close` ends both."""

    def __init__(self, client: Client, workers: LocalWorkers | None = None) -> None:
        self.client = client
        self.workers = workers

    @property
    def connected(self) -> bool:
        """Whether there is a link to the scheduler now; Dask tries for a while to have it back."""
        return bool(self.client.status == "running")

    @property
    def link(self) -> object:
        """The link to the scheduler: another object after each reconnection."""
        return self.client.scheduler_comm

    @property
    def closed(self) -> bool:
        """Whether there is none, and will be none."""
        return bool(self.client.status == "closed")

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        """What the client answers; it is asked in its own event loop. Raises TimeoutError."""
        return asyncio.run_coroutine_threadsafe(question, self._loop).result(ANSWER_SECONDS)

    def begin(self, question: Coroutine[Any, Any, object]) -> None:
        """The same, without waiting for it."""
        asyncio.run_coroutine_threadsafe(question, self._loop)

    async def asked(
        self, address: str, seconds: float, function: Callable[..., Any], *args: object
    ) -> Any:
        """What a function returns that is run on a worker. Raises what that raises, and
        TimeoutError."""
        question = self.client._run(function, *args, workers=[address])
        return (await asyncio.wait_for(question, seconds))[address]

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = self.client.loop.asyncio_loop
        return loop


@contextmanager
def open_cluster(text: str) -> Iterator[Cluster]:
    """The cluster that `--scheduler` names; workers on this machine are started, and ended with it.

    Raises UsageError for an address that must not be used, and LocalError if no scheduler answers.
    """
    _quiet()
    address = parse_scheduler(text)
    if isinstance(address, Local):
        with _local(address.workers) as cluster:
            yield cluster
        return
    with _client(address) as client:
        yield Cluster(client)


@contextmanager
def _client(address: Scheduler) -> Iterator[Client]:
    security = Security()  # by Dask's own configuration
    if address.tls and not security.tls_ca_file:
        raise UsageError(
            f"{address.text} needs certificates: set distributed.comm.tls.ca-file, and "
            "distributed.comm.tls.client.cert and .key, in Dask's configuration or as "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE and so on."
        )
    connecting = partial(
        Client, address.text, timeout=CONNECT_SECONDS, set_as_default=False, security=security
    )
    try:  # on a thread, as Dask waits for ever for a program that accepts and says nothing
        client = Threads(1).submit(connecting).result(CONNECT_SECONDS + 5)
    except (OSError, TypeError, ValueError) as error:
        raise LocalError(
            f"No Dask scheduler answers at {address.text} ({_in_words(error)}). Start it, or "
            "correct --scheduler."
        ) from error
    try:
        yield client
    finally:
        with suppress(Exception):  # it may be gone
            client.close(timeout=5)


@contextmanager
def _local(count: int) -> Iterator[Cluster]:
    """A scheduler in this process, with a certificate that lives as long as it does: without one,
    everybody on this machine could have it carry out anything in our name."""
    security = Security.temporary()
    dask.config.set(NO_PAGES)
    try:
        cluster = LocalCluster(
            n_workers=0,
            processes=False,
            protocol="tls://",
            host="127.0.0.1",
            security=security,
            dashboard_address="127.0.0.1:0",
            silence_logs=False,
        )
    except (OSError, RuntimeError) as error:
        raise LocalError(f"Dask could not be started here ({_in_words(error)}).") from error
    with cluster, Client(cluster, set_as_default=False) as client:
        workers = LocalWorkers(cluster.scheduler_address, security, count=count)
        try:
            yield Cluster(client, workers)
        finally:
            workers.close()


class LocalWorkers:
    """Worker processes on this machine. They end when this process does, however it ends."""

    def __init__(self, address: str, security: Security, *, count: int) -> None:
        self._address = address
        worker = security.get_tls_config_for_role("worker")
        self._secret = "\0".join(
            (address, worker["ca_file"], worker["cert"], worker["key"])
        ).encode()
        self._restarts = RESTARTS * count
        self.processes = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(  # this Python, this module
                [sys.executable, "-m", "enroll.engine.local_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us: calls in flight end
            )
        except OSError as error:
            raise no_thread(error) from error
        assert process.stdin is not None  # noqa: S101  # by PIPE
        with suppress(OSError):  # it has died at once, which `tend` sees
            process.stdin.write(len(self._secret).to_bytes(8, "big") + self._secret)
            process.stdin.flush()
        return process

    def share_of(self, memory: int | None, max_pixels: int) -> int:
        """Bytes for each, of `memory` for all of them; None is a quarter of the machine's."""
        whole = round(MACHINE_SHARE * memory_limit()) if memory is None else memory
        return max(whole // len(self.processes), least_memory(max_pixels))

    def tend(self) -> None:
        """Start those again that have ended, a few times."""
        for place, process in enumerate(self.processes):
            if process.poll() is not None and self._restarts > 0:
                self._restarts -= 1
                _close_pipe(process)
                with suppress(ShortageError):
                    self.processes[place] = self._start()

    def close(self) -> None:
        """End them all; nothing waits for a call under way."""
        self._restarts = 0
        for process in self.processes:
            _close_pipe(process)
        for process in self.processes:
            try:
                process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _close_pipe(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()


def _quiet() -> None:
    """Keep Dask from logging to stderr, where progress and our own log are, and from reporting
    warnings of its own that no user of enroll can do anything about."""
    for name in ("distributed", "tornado.application", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [logging.NullHandler()]
        logger.propagate = False
    dask.config.set({"distributed.admin.tick.limit": "60s"})


NO_PAGES: dict[str, Any] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
"""Configuration without Dask's web pages, which would show everybody here what is being done."""


def _in_words(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
