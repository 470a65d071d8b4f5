"""Dask as a run uses it: an address checked, a client, and worker processes on this machine.

`distributed` is imported here and in `enroll.engine.station` only, and only for `--engine dask`.
"""

from __future__ import annotations

import asyncio
import logging
import select
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import dask.config
from distributed import Client
from distributed.security import Security

from enroll import threads
from enroll.credentials import without_secrets
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

START_SECONDS = 60.0
"""How long a scheduler on this machine may take to start."""

RESTARTS = 5
"""How often a worker process on this machine is started again after it was lost, until any of them
has read a photo."""


SCHEDULER_LOST = "The Dask scheduler does not answer any more."


class Cluster:
    """A Dask client, and the workers on this machine if there are any. Safe to use from any
    thread; `close` ends both."""

    def __init__(
        self,
        client: Client,
        workers: LocalWorkers | None = None,
        scheduler: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.client = client
        self.workers = workers
        self._scheduler = scheduler

    @property
    def connected(self) -> bool:
        """Whether there is a link to the scheduler now; Dask tries for a while to have it back."""
        return bool(self.client.status == "running")

    @property
    def link(self) -> object:
        """The link to the scheduler: another object after each reconnection."""
        return self.client.scheduler_comm

    @property
    def over(self) -> str:
        """Why nothing can be done with it any more; empty while something can."""
        ended = self._scheduler is not None and self._scheduler.poll() is not None
        if ended or self.client.status == "closed":
            return SCHEDULER_LOST
        if self.workers is not None and self.workers.given_up:
            return "The worker processes on this machine have ended again and again."
        return ""

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
    with _client(address, _configured(address)) as client:
        yield Cluster(client)


def _configured(address: Scheduler) -> Security:
    """The certificates of Dask's own configuration."""
    security = Security()
    if not address.tls:
        return security
    tls = security.get_tls_config_for_role("client")
    if not (tls["ca_file"] and tls["cert"]):
        raise UsageError(
            f"{address.text} needs certificates: set distributed.comm.tls.ca-file, and "
            "distributed.comm.tls.client.cert and .key, in Dask's configuration or as "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE and so on."
        )
    for file in filter(None, (tls["ca_file"], tls["cert"], tls["key"])):
        if "\n" not in file and not Path(file).is_file():  # else it is the certificate itself
            raise UsageError(
                f"There is no file {file}, which distributed.comm.tls in Dask's configuration "
                "names. Correct that."
            )
    return security


@contextmanager
def _client(address: Scheduler, security: Security) -> Iterator[Client]:
    connecting = partial(
        Client, address.text, timeout=CONNECT_SECONDS, set_as_default=False, security=security
    )
    try:  # on a thread, as Dask waits for ever for a program that accepts and says nothing
        client = Threads(1).submit(connecting).result(CONNECT_SECONDS + 5)
    except (OSError, TypeError, ValueError) as error:
        if "TLS" in str(error) or "SSL" in str(error):
            raise LocalError(
                f"The Dask scheduler at {address.text} and this command do not accept each "
                "other's certificates. Check distributed.comm.tls in Dask's configuration: both "
                f"have to be signed by the same authority ({_in_words(error)})."
            ) from error
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
    """A scheduler and workers, each in a process of its own, with a certificate that lives as long
    as they do: without one, everybody on this machine could have them carry out anything in our
    name. The scheduler is not in our process, as it takes about as much of the processor as a run.
    """
    with ExitStack() as stack:
        scheduler = _start("local_scheduler", stdout=subprocess.PIPE)
        stack.callback(_end, [scheduler])
        workers = LocalWorkers(count)  # they import Dask while the scheduler does
        stack.callback(workers.close)
        security = Security.temporary()
        _tell(scheduler, security, role="scheduler")
        address = _address_of(scheduler)
        workers.begin(address, security)
        client = stack.enter_context(_client(Scheduler(address, tls=True), security))
        yield Cluster(client, workers, scheduler)


def _address_of(scheduler: subprocess.Popen[bytes]) -> str:
    """Where a scheduler listens that was just started. Raises LocalError if it does not."""
    assert scheduler.stdout is not None  # noqa: S101  # by PIPE
    started = select.poll()  # not `select`, which takes no file's number above 1,023
    started.register(scheduler.stdout, select.POLLIN)
    ready = started.poll(START_SECONDS * 1000)
    address = scheduler.stdout.readline().decode().strip() if ready else ""
    if not address:
        raise LocalError("Dask's scheduler could not be started here.")
    return address


class LocalWorkers:
    """Worker processes on this machine. They end when this process does, however it ends."""

    def __init__(self, count: int) -> None:
        """They wait for the scheduler's address: see `begin`."""
        self._given: tuple[Security, str] | None = None
        self._restarts = RESTARTS * count
        self.processes = [_start("local_worker") for _ in range(count)]

    def begin(self, address: str, security: Security) -> None:
        """Have them work for the scheduler there."""
        self._given = security, address
        for process in self.processes:
            _tell(process, security, address, role="worker")

    def share_of(self, memory: int | None, max_pixels: int) -> int:
        """Bytes for each, of `memory` for all of them; None is a quarter of the machine's."""
        whole = round(MACHINE_SHARE * memory_limit()) if memory is None else memory
        return max(whole // len(self.processes), least_memory(max_pixels))

    def tend(self) -> None:
        """Start those again that have ended, a few times in a row."""
        for place, process in enumerate(self.processes):
            if process.poll() is not None and self._given and self._restarts > 0:
                self._restarts -= 1
                _close_pipe(process)
                with suppress(ShortageError):
                    self.processes[place] = _start("local_worker")
                    _tell(self.processes[place], *self._given, role="worker")

    def proven(self) -> None:
        """One of them has read a photo: another may kill some more of them."""
        self._restarts = RESTARTS * len(self.processes)

    @property
    def given_up(self) -> bool:
        """Whether all have ended, and none is started again."""
        return not self._restarts and all(one.poll() is not None for one in self.processes)

    def close(self) -> None:
        """End them all; nothing waits for a call under way."""
        self._restarts = 0
        _end(self.processes)


def _start(module: str, *, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """This Python with a module of ours. Raises ShortageError."""
    threads.use_all()  # else it has the one core that the threads of a run share
    try:
        return subprocess.Popen(  # noqa: S603  # this Python, a module of ours
            [sys.executable, "-m", f"enroll.engine.{module}"],
            stdin=subprocess.PIPE,
            stdout=stdout,
            env=without_secrets(),
            start_new_session=True,  # Ctrl-C is for us: calls in flight end
        )
    except OSError as error:
        raise no_thread(error) from error


def _tell(
    process: subprocess.Popen[bytes], security: Security, address: str = "", *, role: str
) -> None:
    """Give it what it begins with, over a pipe that nobody else can read."""
    tls = security.get_tls_config_for_role(role)
    given = "\0".join((address, tls["ca_file"], tls["cert"], tls["key"])).encode()
    assert process.stdin is not None  # noqa: S101  # by PIPE
    with suppress(OSError):  # it has died at once, which `tend` sees
        process.stdin.write(len(given).to_bytes(8, "big") + given)
        process.stdin.flush()


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _close_pipe(process)
    for process in processes:
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


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


def _in_words(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "something else does, or it hangs"
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
