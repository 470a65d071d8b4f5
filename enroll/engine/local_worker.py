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


def main() -> None:
    """Work until the run has ended."""
    pipe = sys.stdin.buffer
    length = int.from_bytes(pipe.read(8), "big")
    address, ca_file, cert, key = pipe.read(length).decode().split("\0")
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    dask.config.set({"distributed.worker.http.routes": [], "distributed.admin.tick.limit": "60s"})
    security = Security(
        tls_ca_file=ca_file, tls_worker_cert=cert, tls_worker_key=key, require_encryption=True
    )
    asyncio.run(_work(address, security))


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
