"""What each night brings: which exports come, what goes wrong with the service and the machine."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from .exports import ODD, Export
from .launcher import POINTS, Strike

ODD_NIGHTS = 0.15
"""Share of nights with an export that is not as usual; each kind comes once at least."""

MENDED = 0.5
"""Chance of the right export to come in the same night after all."""

STORMS, STRIKES, SKIPPED, AGAIN = 0.35, 0.2, 0.03, 0.08
"""Shares of nights with faults of the service, with a signal, without any run, with a second run
of what has just been done."""

RESTORED = 0.3
"""Share of the nights of a plain export after which the ledger of the day before is put back, and
the same export is given again."""

CUT = 0.4
"""Share of the nights on which the server of the ledger fails, where there is one."""

ABANDONED = 0.5
"""Share of the nights with a signal after which nobody runs it again, where that is possible."""

_ADD = (
    *("500-before", "500-after", "502-before", "502-after", "503-before", "503-after"),
    *("504-before", "504-after", "timeout-before", "timeout-after", "reset-before", "reset-after"),
    *("cut-before", "cut-after", "not-json-before", "not-json-after", "no-token-before"),
    *("no-token-after", "drip-before", "drip-after", "late", "late", "stale", "refused", "429"),
    *("unknown-code", "html-403", "search-lag"),
)
_DELETE = (
    *("500-before", "500-after", "502-before", "502-after", "503-before", "503-after"),
    *("timeout-before", "timeout-after", "reset-before", "reset-after", "cut-before", "cut-after"),
    *("not-json-before", "not-json-after", "drip-before", "drip-after", "late", "stale"),
    *("refused", "429", "unknown-code", "html-403"),
)
_LOOK = ("500", "503", "reset", "cut", "not-json", "refused", "timeout", "stale")
_FATAL = ("auth", "redirect")
_FATAL_SHARE = 0.02


class Upheaval(Enum):
    """What befalls the whole company, once a year each; the guards have to be lifted for it."""

    MERGER = "merger"
    CLOSING = "site closed"
    PHOTOGRAPHER = "everybody has a new photo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """The plan of one night. `strikes` are for its first runs, one each."""

    number: int
    exports: tuple[Export, ...]
    upheaval: Upheaval | None = None
    storm: bool = False
    strikes: tuple[Strike, ...] = ()
    again: bool = False
    restored: bool = False
    abandoned: bool = False
    """Nothing is run after a kill: what is left is for the next night."""
    at: float = 0.0
    """Seconds before or after the hour at which it is due."""


def plan_nights(
    count: int, *, chance: random.Random, server_points: Sequence[str] = ()
) -> list[Night]:
    """So many nights; the first is a plain one. `server_points` are what can be struck of the
    server that has the ledger."""
    odd = _odd_exports(count, chance)
    upheavals = dict(zip(_apart(count), Upheaval, strict=False))
    nights = []
    for number in range(count):
        exports = odd.get(number, [])
        told = chance.random()
        skipped = told < SKIPPED and number and not exports and number not in upheavals
        if not skipped and (not exports or chance.random() < MENDED or len(exports) > 1):
            exports = [*exports, Export.PLAIN]
        nights.append(
            Night(
                number=number,
                exports=tuple(exports),
                upheaval=upheavals.get(number),
                storm=chance.random() < STORMS,
                strikes=_strikes(chance) if chance.random() < STRIKES else (),
                again=chance.random() < AGAIN,
                abandoned=chance.random() < ABANDONED,
                at=chance.uniform(-480, 480),
            )
        )
    return [_restored(_cut(night, server_points, chance), chance) for night in nights]


def _cut(night: Night, points: Sequence[str], chance: random.Random) -> Night:
    """The night, on some with a server that fails before anything else does."""
    if not points or chance.random() >= CUT:
        return night
    cut = Strike(chance.choice(points), "after", chance.randrange(50, 2000))
    return replace(night, strikes=(cut, *night.strikes))


def _restored(night: Night, chance: random.Random) -> Night:
    plain = night.number and night.exports[-1:] == (Export.PLAIN,) and night.upheaval is None
    return replace(night, restored=bool(plain and chance.random() < RESTORED))


def fault_plan(share: float) -> dict[str, float]:
    """Faults by name with their probabilities: `share` of all calls of a kind."""
    plan: dict[str, float] = {}
    fatal = share * _FATAL_SHARE
    for fault, times in Counter(_ADD).items():
        plan[fault] = times * (share - fatal) / len(_ADD)
    for fault, times in Counter(_DELETE).items():
        plan[f"delete:{fault}"] = times * (share - fatal) / len(_DELETE)
    for fault in _FATAL:
        plan[fault] = plan[f"delete:{fault}"] = fatal / len(_FATAL)
    for kind in ("search", "list", "face_info", "group_list"):
        for fault in _LOOK:
            plan[f"{kind}:{fault}"] = share / len(_LOOK)
    return plan


def _odd_exports(count: int, chance: random.Random) -> dict[int, list[Export]]:
    """By night: each kind as often as the others, spread over all nights but the first."""
    total = max(len(ODD), round(ODD_NIGHTS * count)) if count > 1 else 0
    deck: list[Export] = []
    while len(deck) < total:
        deck += chance.sample(ODD, len(ODD))
    found: dict[int, list[Export]] = {}
    for place, kind in enumerate(deck[:total]):
        within = (place + chance.random()) * (count - 1) / total
        found.setdefault(1 + int(within), []).append(kind)
    return found


def _apart(count: int) -> list[int]:
    """Nights of upheavals: with some nights between, so that the last one's leavers are gone."""
    return [count * part // 4 for part in (1, 2, 3)] if count >= 12 else []


def _strikes(chance: random.Random) -> tuple[Strike, ...]:
    """One or two signals; SIGKILL mostly. Early points are likelier, as most nights are short."""
    found = []
    for _ in range(chance.choice([1, 1, 2])):
        number = round(2 ** chance.uniform(0, 5))
        kind = chance.choice([signal.SIGKILL] * 4 + [signal.SIGTERM])
        point = chance.choice([*POINTS, "time"])
        if point == "time":
            number = chance.randrange(100, 2500)
        elif point == "rename":
            number = chance.choice([1, 2])
        found.append(Strike(point, chance.choice(["before", "after"]), number, kind))
    return tuple(found)
