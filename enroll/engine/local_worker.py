"""A Dask worker process that a run starts on its own machine, and that ends with the run.

It reads the scheduler's address and a certificate from its standard input, which stays open as long
as the run lives: the end of that ends the process, whatever it is doing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading

import dask.config
from distributed import Worker
from distributed.security import Security

_CONFIGURATION = {
    # No web pages, which would show everybody on this machine what is being done.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.admin.tick.limit": "60s",
}


def main() -> None:
    """Work until the run has ended."""
    address, security = begin(role="worker")
    asyncio.run(_work(address, security))


def begin(*, role: str) -> tuple[str, Security]:
    """The scheduler's address and a certificate, from the run, with which this process ends."""
    pipe = sys.stdin.buffer
    length = int.from_bytes(pipe.read(8), "big")
    if not length:  # the run has ended before it began
        os._exit(0)
    address, ca_file, cert, key = pipe.read(length).decode().split("\0")
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    dask.config.set(_CONFIGURATION)
    tls = {f"tls_{role}_cert": cert, f"tls_{role}_key": key}
    return address, Security(tls_ca_file=ca_file, require_encryption=True, **tls)


async def _work(address: str, security: Security) -> None:
    # Photos are bounded by --memory, so Dask need not bound anything.
    worker = Worker(
        address,
        nthreads=1,
        security=security,
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
    )
    async with worker:
        await worker.finished()


def _end_with_the_run() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
