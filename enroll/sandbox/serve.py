"""The stand-in as a program: runs until it is told to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .box import Sandbox


def serve(  # noqa: PLR0913 - one argument an option of the command
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    store: Path | None = None,
    parallel: int | None = None,
    latency: float = 0.0,
    faults: Mapping[str, float] | None = None,
    late_after: float | None = None,
    search_lag: float = 0.0,
    seed: int = 0,
    libraries: Sequence[str] = (),
    api_key: str | None = None,
    api_secret: str | None = None,
    clock_skew: float = 0.0,
    on_ready: Callable[[Sandbox], None] | None = None,
) -> None:
    """Run a `Sandbox` until SIGINT or SIGTERM, then stop it cleanly and return.

    `libraries` are created when they are missing; `on_ready` gets the sandbox once it accepts
    connections. Main thread only, because of the signals. Raises `ValueError` for a host that
    is not loopback or faults that cannot be, `OSError` for a taken port or store.
    """
    box = Sandbox(
        host=host,
        port=port,
        store=store,
        parallel=parallel,
        latency=latency,
        faults=faults,
        late_after=late_after,
        search_lag=search_lag,
        seed=seed,
        api_key=api_key,
        api_secret=api_secret,
        clock_skew=clock_skew,
    )
    with _told_of((signal.SIGINT, signal.SIGTERM)) as told, box:
        for group_id in libraries:
            box.create_library(group_id)
        if on_ready is not None:
            on_ready(box)
        told()


@contextmanager
def _told_of(numbers: Collection[int]) -> Iterator[Callable[[], None]]:
    """What waits until one of the signals has come since the beginning of the block.

    A socket and not an Event: the kernel may hand the signal to a thread that answers a call, and
    that wakes nobody who waits for a lock; nor may a handler take a lock that its thread holds.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakened = signal.set_wakeup_fd(theirs.fileno())

    def wait() -> None:
        while not set(ours.recv(1)) & set(numbers):
            pass

    try:
        yield wait
    finally:
        signal.set_wakeup_fd(wakened)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()
