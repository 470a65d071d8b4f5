"""Dask's scheduler as a process that a run starts on its own machine, and that ends with the run.

It reads its certificate from its standard input, as `enroll.engine.local_worker` does, and says its
address on its standard output.
"""

from __future__ import annotations

import asyncio
import sys

from distributed import Scheduler
from distributed.security import Security

from enroll.engine.local_worker import begin


def main() -> None:
    """Schedule until the run has ended."""
    _, security = begin(role="scheduler")
    asyncio.run(_schedule(security))


async def _schedule(security: Security) -> None:
    scheduler = Scheduler(
        protocol="tls://",
        host="127.0.0.1",
        port=0,
        security=security,
        dashboard_address="127.0.0.1:0",
    )
    async with scheduler:
        sys.stdout.write(f"{scheduler.address}\n")
        sys.stdout.flush()
        await scheduler.finished()


if __name__ == "__main__":
    main()
