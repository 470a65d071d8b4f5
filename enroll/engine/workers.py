"""Which Dask workers there are, and what each says of itself; asked in the client's event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from enroll import __version__, clock
from enroll.engine.address import is_safe
from enroll.engine.cluster import Cluster
from enroll.engine.station import Introduction, Posting, dismiss, introduce

ASK_SECONDS = 10.0
"""How long the scheduler, or a worker, may take to answer."""

AGAIN_SECONDS = 10.0
"""How often a worker is asked what it is: Dask logs each time. The scheduler is asked more often
which workers it hears from."""

_LOGGER = logging.getLogger("enroll")


@dataclass(frozen=True, slots=True)
class Introduced:
    """What a worker says of itself, and its clocks minus ours. They were read before its answer
    came, so times by them are rather too early."""

    introduction: Introduction
    monotonic_offset: float
    wall_offset: float


@dataclass(frozen=True, slots=True)
class Sight:
    """The workers that the scheduler knows, with the time when it heard from each, by its clock;
    and what those say that were asked this time and that can work."""

    heard_at: dict[str, float]
    introduced: dict[str, Introduced]


class Workers:
    """Asks for the workers of a cluster, and has them set up their stations."""

    def __init__(self, cluster: Cluster, posting: Posting) -> None:
        self._cluster = cluster
        self._posting = posting
        self._ask_at: dict[str, float] = {}
        self.refused: dict[str, str] = {}
        """Why workers are not used, by address."""

    def doubt(self, address: str) -> None:
        """Ask this worker at the next look: it may have been started again."""
        self._ask_at[address] = 0.0

    async def look(self) -> Sight:
        """Ask the scheduler for its workers, and those that are due. Raises what Dask raises where
        the scheduler does not answer."""
        scheduler = self._cluster.client.scheduler
        identity = await asyncio.wait_for(scheduler.identity(n_workers=-1), ASK_SECONDS)
        heard_at = {one: float(about["last_seen"]) for one, about in identity["workers"].items()}
        for gone in [one for one in self._ask_at if one not in heard_at]:
            del self._ask_at[gone]
            self.refused.pop(gone, None)
        now = clock.monotonic()
        due = [one for one in heard_at if self._ask_at.get(one, 0.0) <= now]
        introductions = await asyncio.gather(*map(self._introduced, due))
        introduced = {}
        for address, introduction in zip(due, introductions, strict=True):
            if introduction is not None:
                introduced[address] = introduction
                self._ask_at[address] = clock.monotonic() + AGAIN_SECONDS
        return Sight(heard_at, introduced)

    async def _introduced(self, address: str) -> Introduced | None:
        """What a worker says of itself; None where it does not answer, or cannot work."""
        if not is_safe(address):
            self._refuse(address, "its address is not encrypted: start it with tls://")
            return None
        try:
            introduction: Introduction = await self._cluster.asked(
                address, ASK_SECONDS, introduce, self._posting, __version__
            )
        except (ImportError, AttributeError, TypeError) as error:
            self._refuse(address, f"it does not have enroll {__version__} ({error})")
            return None
        except Exception:  # noqa: BLE001  # whatever Dask raises for a worker that is gone
            return None
        if introduction.version != __version__:
            self._refuse(
                address, f"it has enroll {introduction.version}, and this is {__version__}"
            )
        elif introduction.fault:
            self._refuse(address, introduction.fault.rstrip("."))
        elif introduction.instance:
            self.refused.pop(address, None)
            return Introduced(
                introduction,
                introduction.monotonic - clock.monotonic(),
                introduction.wall - clock.time(),
            )
        return None

    def _refuse(self, address: str, why: str) -> None:
        self._ask_at[address] = clock.monotonic() + AGAIN_SECONDS
        if self.refused.get(address) != why:
            self.refused[address] = why
            _LOGGER.warning("The Dask worker at %s is not used: %s.", address, why)

    async def dismiss(self, addresses: Sequence[str]) -> None:
        """Have stations let go of everything, as far as their workers answer."""
        asked, run = self._cluster.asked, self._posting.run
        ended = (asked(one, ASK_SECONDS / 2, dismiss, run) for one in addresses)
        await asyncio.gather(*ended, return_exceptions=True)
