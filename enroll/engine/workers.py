"""Which Dask workers work for a run: what each says of itself, and which of them reads next.

They are asked in the client's event loop. Who is a member is decided under the engine's lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from enroll import __version__, clock
from enroll.engine.address import is_safe
from enroll.engine.cluster import Cluster
from enroll.engine.orders import Member
from enroll.engine.station import Introduction, Posting, dismiss, introduce
from enroll.errors import LocalError

ASK_SECONDS = 10.0
"""How long the scheduler, or a worker, may take to answer."""

AGAIN_SECONDS = 10.0
"""How often a worker is asked what it is: Dask logs each time. The scheduler is asked more often
which workers it hears from."""

TOGETHER_SECONDS = 0.5
"""How long one look waits for those that were asked: the next one hears the others."""

SILENT_SECONDS = 20.0
"""After this long without a word, or without taking an order, a worker is taken for lost: others
read what it should have."""

LOST_SECONDS = 60.0
"""After this long without a scheduler, or without any worker, the run ends."""

STUCK_SECONDS = 90.0
"""For this long a worker gets no orders that took none: if all are like that, the run ends."""

REFUSED_SECONDS = 3.0
"""The same before the run begins, where there are workers, but none that can work."""

QUIET_SECONDS = 5.0
"""After this long the user learns that a worker is being waited for."""

MOST_SHOWN = 3
"""Addresses that a message names for one reason."""

_NOTHING_DONE = "Nothing was sent or recorded. Correct that, then run the same command."

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
    """Has the workers of a cluster set up their stations. Those that work for the run are its
    `members`, by the instance of their station."""

    def __init__(self, cluster: Cluster, posting: Posting) -> None:
        self.cluster = cluster
        self.posting = posting
        self.members: dict[str, Member] = {}
        self._ask_at: dict[str, float] = {}
        self._heard_last: dict[str, float] = {}
        """What the scheduler had heard last of those that fell silent."""
        self._refused: dict[str, str] = {}
        self._asking: dict[str, asyncio.Task[Introduced | None]] = {}
        self._dismissed = False

    def muster(self) -> None:
        """Wait for the first worker that can work for the run. Raises LocalError where there is
        none in time."""
        began, known, told = clock.monotonic(), set[str](), False
        while True:
            with suppress(Exception):  # it is asked again
                sight = self.cluster.ask(self.look())
                known = set(sight.heard_at)
                self.update(sight)
            if self.members:
                return
            waited = clock.monotonic() - began
            if why := self.cluster.over:
                raise LocalError(f"{why} {_NOTHING_DONE}")
            all_refused = bool(known) and known <= self._refused.keys()
            if waited > (REFUSED_SECONDS if all_refused else LOST_SECONDS):
                raise LocalError(f"{self.none_can_work()} {_NOTHING_DONE}")
            if waited > QUIET_SECONDS and not told:
                told = True
                _LOGGER.warning(
                    "Waiting up to %d seconds for a Dask worker that can work for this run.",
                    LOST_SECONDS,
                )
            if self.cluster.workers is not None:
                self.cluster.workers.tend()
            clock.sleep(0.1)

    def none_can_work(self) -> str:
        """That no worker can work for the run, and why."""
        because: dict[str, list[str]] = {}
        for address, why in sorted(self._refused.items()):
            because.setdefault(why, []).append(address)
        for member in self.members.values():
            if member.fault:
                because.setdefault(member.fault, []).append(member.address)
        reasons = "; ".join(f"{_some(addresses)}: {why}" for why, addresses in because.items())
        if not reasons:
            return "The Dask scheduler has no worker for this run."
        return f"No Dask worker can work for this run ({reasons})."

    # Members

    def for_reading(self, *, alone: bool, spare: bool) -> Member | None:
        """Who reads next: of those that can, the one with least to do. To read `alone` it has to
        read nothing else; with `spare`, one is left free for that. None where nobody is free."""
        fit = [one for one in self.members.values() if not (one.fault or one.alone)]
        if alone:
            return next((one for one in fit if not one.reading), None)
        if spare and fit:
            fit.remove(min(fit, key=lambda one: one.reading))
        return min(
            fit,
            # The run asks for no more while all are full, but what was lost is read again.
            key=lambda one: (one.full, one.reading / one.introduction.readers, one.held),
            default=None,
        )

    def update(self, sight: Sight) -> list[Member]:
        """Take in what was seen; those that are members no longer."""
        now = clock.monotonic()
        gone = [one for one in self.members.values() if one.address not in sight.heard_at]
        for address, introduced in sight.introduced.items():
            introduction = introduced.introduction
            member = self.members.get(introduction.instance)
            if member is None:  # perhaps it was started again
                gone += [one for one in self.members.values() if one.address == address]
                member = Member(address, introduction, -float("inf"), 0.0, now)
                self.members[introduction.instance] = member
            # The quicker the answer, the higher and the truer is the offset.
            offset = max(member.monotonic_offset, introduced.monotonic_offset)
            member.monotonic_offset, member.wall_offset = offset, introduced.wall_offset
            member.introduction = introduction
            self._set_fault(member, introduction.fault)
        for member in self.members.values():
            heard_at = sight.heard_at.get(member.address)
            # That it can be asked says nothing: what it reports may not get through.
            if heard_at is not None and heard_at != member.heard_at:
                member.heard_at, member.seen_at = heard_at, now
            elif now - member.seen_at > SILENT_SECONDS and member not in gone:
                self._heard_last[member.address] = member.heard_at
                gone.append(member)
        for member in gone:
            self.lose(member)
        return gone

    def lose(self, member: Member) -> None:
        """A worker is gone."""
        del self.members[member.instance]
        self.doubt(member.address)
        _LOGGER.warning("The Dask worker at %s was lost.", member.address)

    def bar(self, member: Member, why: str) -> None:
        """Have a worker read nothing until it says at the next look that it can."""
        self._set_fault(member, why)
        self.doubt(member.address)

    def _set_fault(self, member: Member, why: str) -> None:
        if why and why != member.fault:
            _LOGGER.warning("The Dask worker at %s reads no photos now: %s.", member.address, why)
        member.fault = why

    def doubt(self, address: str) -> None:
        """Ask this worker at the next look: it may have been started again."""
        self._ask_at[address] = 0.0

    def refuse(self, address: str, why: str, *, seconds: float = AGAIN_SECONDS) -> None:
        """Have a worker do nothing for the run for so many seconds."""
        self._ask_at[address] = clock.monotonic() + seconds
        if self._refused.get(address) != why:
            self._refused[address] = why
            _LOGGER.warning("The Dask worker at %s is not used: %s.", address, why)

    # Questions, in the client's event loop

    async def look(self) -> Sight:
        """Ask the scheduler for its workers, and those that are due. Raises what Dask raises where
        the scheduler does not answer."""
        scheduler = self.cluster.client.scheduler
        identity = await asyncio.wait_for(scheduler.identity(n_workers=-1), ASK_SECONDS)
        heard_at = {one: float(about["last_seen"]) for one, about in identity["workers"].items()}
        for known in (self._ask_at, self._refused, self._heard_last):
            for gone in [one for one in list(known) if one not in heard_at]:
                del known[gone]
        now = clock.monotonic()
        for one, heard in heard_at.items():
            silent = self._heard_last.get(one) == heard
            if self._ask_at.get(one, 0.0) <= now and not silent and one not in self._asking:
                self._ask_at[one] = now + AGAIN_SECONDS
                self._asking[one] = asyncio.create_task(self._introduced(one))
        if self._asking:  # one that has just died takes long
            await asyncio.wait(self._asking.values(), timeout=TOGETHER_SECONDS)
        introduced = {}
        for address, task in list(self._asking.items()):
            if not task.done():
                continue
            del self._asking[address]
            if address in heard_at and (introduction := task.result()) is not None:
                introduced[address] = introduction
                self._heard_last.pop(address, None)
        return Sight(heard_at, introduced)

    async def _introduced(self, address: str) -> Introduced | None:
        """What a worker says of itself; None where it does not answer, or cannot work."""
        if not is_safe(address):
            self.refuse(address, "its address is not encrypted: start it with tls://")
            return None
        try:
            introduction: Introduction = await self.cluster.asked(
                address, ASK_SECONDS, introduce, self.posting, __version__
            )
        except OSError:  # it is gone, or does not answer
            self.doubt(address)
            return None
        except Exception as error:  # noqa: BLE001  # Dask seldom keeps the class
            self.refuse(
                address, f"it cannot run enroll {__version__} ({str(error) or repr(error)})"
            )
            return None
        if introduction.version != __version__:
            self.refuse(address, f"it has enroll {introduction.version}, and this is {__version__}")
        elif introduction.instance:
            self._refused.pop(address, None)
            return Introduced(
                introduction,
                introduction.monotonic - clock.monotonic(),
                introduction.wall - clock.time(),
            )
        elif introduction.fault:
            self.refuse(address, introduction.fault.rstrip("."))
        else:  # it is not ready yet
            self.doubt(address)
        return None

    def dismiss(self) -> None:
        """Have stations let go of everything, as far as their workers answer; the others do so by
        themselves."""
        if not self._dismissed:
            self._dismissed = True
            with suppress(Exception):
                self.cluster.ask(self._dismiss([one.address for one in self.members.values()]))

    async def _dismiss(self, addresses: Sequence[str]) -> None:
        asked, run = self.cluster.asked, self.posting.run
        ended = (asked(one, ASK_SECONDS / 2, dismiss, run) for one in addresses)
        await asyncio.gather(*ended, return_exceptions=True)


@contextmanager
def mustered(cluster: Cluster, posting: Posting) -> Iterator[Workers]:
    """The workers of a cluster, at least one of which can work for the run. Raises LocalError."""
    workers = Workers(cluster, posting)
    try:
        workers.muster()
        yield workers
    finally:
        workers.dismiss()


def _some(addresses: Sequence[str]) -> str:
    """The first of these addresses, and how many more there are."""
    named, more = addresses[:MOST_SHOWN], len(addresses) - MOST_SHOWN
    return ", ".join(named) + (f" and {more:,} more" if more > 0 else "")
