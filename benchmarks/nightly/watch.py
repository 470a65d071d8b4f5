"""The stand-in's account watched: every face added and deleted, in order; its faults and time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from enroll.sandbox import Limits, Sandbox
from enroll.sandbox.faces import FaceFinder
from enroll.sandbox.faults import FaultPlan
from enroll.sandbox.matchers import CROP

from .oracle import Face


@dataclass(frozen=True, slots=True)
class Came:
    """A face was added."""

    token: str
    face: Face


@dataclass(frozen=True, slots=True)
class Went:
    """A face was deleted."""

    token: str


Event = Came | Went


class _Finder(FaceFinder):
    """Takes the middle of every picture for a face, but for pictures of one flat grey."""

    def __init__(self) -> None:
        super().__init__(detect=False)

    def _largest_face(self, picture: Image.Image) -> tuple[int, int, int, int] | None:
        low, high = picture.getextrema()
        return None if low == high else super()._largest_face(picture)


@dataclass
class Watched:
    """A stand-in with one library. `ahead` are the seconds by which its clock is."""

    group_id: str
    ahead: float = 0.0
    events: list[Event] = field(default_factory=list)
    _seen: int = 0
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def running(self, *, faces: int) -> Iterator[Watched]:
        """Start it, for as many faces at most."""
        limits = Limits(max_faces=faces)
        with Sandbox(finder=_Finder(), limits=limits, clock=self.now) as self.box:
            self.box.create_library(self.group_id)
            self._add, self._delete = self.box.account.add, self.box.account.delete
            account: Any = self.box.account
            account.add, account.delete = self._noted_add, self._noted_delete
            yield self

    def now(self) -> float:
        """UNIX seconds, by the simulation's clock."""
        return time.time() + self.ahead

    def trouble(self, faults: Mapping[str, float], *, seed: int, latency: float) -> None:
        """Let calls meet these faults from now on."""
        self.box.latency = latency
        self.box.plan = FaultPlan(faults, seed=seed)

    def library(self) -> dict[str, Face]:
        """Every face by its token, oldest first."""
        return {
            face.face_token: Face(face.user_id, face.user_data, face.sha256)
            for face in self.box.faces(self.group_id)
        }

    def put_by_hand(self, user_id: str, user_data: str, picture: bytes) -> str:
        """Somebody else adds a face, which the ledger does not know; its token."""
        digest = sha256(picture).digest()
        drawn: Any = np.random.default_rng(list(digest)).normal(size=CROP.length)
        likeness = (drawn / np.linalg.norm(drawn)).astype(np.float32)
        return self._add(
            self.group_id, user_id=user_id, user_data=user_data, picture=(digest, likeness)
        )

    def delete_by_hand(self, token: str) -> None:
        """Somebody else deletes a face."""
        self._delete(self.group_id, [token])

    def calls(self) -> dict[str, int]:
        """The calls since the last time that this was asked, by kind."""
        counts: dict[str, int] = {}
        for call in self.box.calls:
            if call.number > self._seen:
                counts[call.kind] = counts.get(call.kind, 0) + 1
                self._seen = max(self._seen, call.number)
        return counts

    def _noted_add(
        self, group_id: str, *, user_id: str, user_data: str, picture: Any, lag: float
    ) -> str:
        with self._lock:
            token = self._add(
                group_id, user_id=user_id, user_data=user_data, picture=picture, lag=lag
            )
            self.events.append(Came(token, Face(user_id, user_data, picture[0].hex())))
        return token

    def _noted_delete(self, group_id: str, tokens: Sequence[str]) -> list[str]:
        with self._lock:
            missing = self._delete(group_id, tokens)
            self.events += [Went(token) for token in tokens if token not in missing]
        return missing
