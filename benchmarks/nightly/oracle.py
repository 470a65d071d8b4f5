"""What the library must hold after each night: the rules of `enroll sync`, written once more.

From the documentation alone, with nothing of the command's own code. The oracle is told what the
export said, what lay at its photos' paths, and when; it says whether that must be refused, and
which faces the library must hold afterwards.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from .photos import Photo
from .staff import Row

_USER_ID = re.compile(r"[A-Za-z0-9\-%@#&_]{1,48}")
USER_DATA_MOST = 128
DAY = 86400.0
TOLERANCE = 3600.0
"""Seconds by which a night may come too early, and still counts as the next."""

_LEAST_REMOVALS, _LEAST_CHANGES, _LEAST_EMPTIED = 10, 100, 3


@dataclass(frozen=True, slots=True, order=True)
class Face:
    """A face that the library must hold: whose, with which user_data, of which picture."""

    user_id: str
    user_data: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The guards: a number, or None for the default shares; and `grace` in days."""

    removals: int | None = None
    changes: int | None = None
    grace: float = 2.0


class Verdict(Enum):
    """What must become of an export. `EITHER`: the rules leave it open by how a thing counts."""

    CARRIED_OUT = "carried out"
    REFUSED = "refused"
    EITHER = "either"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an accepted export asks for.

    `faces` is what the library holds afterwards of what the ledger knows; `leaving` are those
    held before whose person goes tonight, `kept` the people whose old faces stay because a row of
    theirs is bad, but for those that have another text now.
    """

    faces: frozenset[Face]
    wanted: Mapping[str, frozenset[Face]]
    leaving: frozenset[Face]
    kept: frozenset[str]
    bad: frozenset[tuple[str, str]]
    of_row: Mapping[tuple[str, str], Face]
    spoiled: Mapping[tuple[str, str], tuple[bytes | None, bool]]
    """What lies at the photos of bad rows, and whether their text will not do: where that is
    another than before, they may be bad for another reason."""
    news: Verdict
    """Whether a row is bad that was not: CARRIED_OUT means no."""


@dataclass
class Oracle:
    """The library as the rules have it, from night to night."""

    bounds: Bounds
    faces: frozenset[Face] = frozenset()
    gone_since: dict[str, float] = field(default_factory=dict)
    bad: frozenset[tuple[str, str]] = frozenset()
    spoiled: Mapping[tuple[str, str], tuple[bytes | None, bool]] = field(default_factory=dict)
    once_bad: set[tuple[str, str]] = field(default_factory=set)
    of_row: dict[tuple[str, str], Face] = field(default_factory=dict)
    overdue: frozenset[tuple[str, str]] = frozenset()
    """Rows that an earlier run has seen, and that have no face yet."""
    first: bool = True

    def judge(
        self,
        rows: Sequence[Row],
        photos: Mapping[str, Photo],
        *,
        now: float,
        bounds: Bounds | None = None,
    ) -> Verdict:
        """Whether the guards let this export pass; pure."""
        if not rows:
            return Verdict.REFUSED
        bounds = bounds or self.bounds
        missing = sum(not _there(photos, row) for row in rows)
        if missing * 10 > len(rows):
            return Verdict.REFUSED
        asked = self.ask(rows, photos, now=now)
        people = len({face.user_id for face in self.faces})
        listed = {row.user_id for row in rows}
        gone = {face.user_id for face in self.faces} - listed
        newly = len(gone - self.gone_since.keys())
        dropped = self._dropped(asked)
        most = _most(bounds.removals, 1, people, _LEAST_REMOVALS)
        found = Counter(  # each night's own: they were judged when they were found gone
            self.gone_since.get(user_id) for user_id in {face.user_id for face in asked.leaving}
        )
        leavers = max(found.values(), default=0)
        if newly > most or leavers > most:
            return Verdict.REFUSED
        news = asked.faces - self.faces
        added = len(news)
        had_text = {(face.user_id, face.sha256) for face in self.faces if face.user_data}
        emptied = sum((one.user_id, one.sha256) in had_text and not one.user_data for one in news)
        column_gone = emptied >= _LEAST_EMPTIED and 2 * emptied >= people
        most_changes = _most(bounds.changes, 10, people, 0 if column_gone else _LEAST_CHANGES)
        if not self.first and added > most_changes:
            return Verdict.REFUSED
        unsure = added + len(asked.bad - self.bad)
        if len(asked.leaving) + dropped > most or (not self.first and unsure > most_changes):
            return Verdict.EITHER
        return Verdict.CARRIED_OUT

    def ask(self, rows: Sequence[Row], photos: Mapping[str, Photo], *, now: float) -> Asked:
        """What this export asks for, if it is carried out now; pure."""
        good: dict[str, set[Face]] = defaultdict(set)
        bad: set[tuple[str, str]] = set()
        of_row: dict[tuple[str, str], Face] = {}
        spoiled: dict[tuple[str, str], tuple[bytes | None, bool]] = {}
        for row in rows:
            face = self._face(row, photos)
            if face is None:
                bad.add((row.user_id, row.image))
                content = photos[row.image].content if row.image in photos else None
                too_long = len(row.user_data) > USER_DATA_MOST
                spoiled[row.user_id, row.image] = (content, too_long)
            else:
                good[row.user_id].add(face)
                of_row[row.user_id, row.image] = face
        held = _by_person(self.faces)
        listed = {row.user_id for row in rows}
        with_bad = {user_id for user_id, _ in bad}
        after: set[Face] = set()
        leaving: set[Face] = set()
        for user_id in listed:
            after |= good[user_id]
            if user_id in with_bad:
                renamed = {face.sha256 for face in good[user_id]}  # the same photo, another text
                after |= {face for face in held[user_id] if face.sha256 not in renamed}
        for user_id in held.keys() - listed:
            gone_for = now - self.gone_since.get(user_id, now)
            over = gone_for >= self.bounds.grace * DAY - TOLERANCE or not self.bounds.grace
            (leaving if over else after).update(held[user_id])
        news = bad - self.bad
        certain = news - self.once_bad
        unsure = {row for row in bad & self.bad if spoiled[row] != self.spoiled.get(row)}
        return Asked(
            faces=frozenset(after),
            wanted={user_id: frozenset(good[user_id]) for user_id in listed},
            leaving=frozenset(leaving),
            kept=frozenset(with_bad),
            bad=frozenset(bad),
            of_row=of_row,
            spoiled=spoiled,
            news=(
                Verdict.REFUSED
                if certain
                else Verdict.EITHER
                if news or unsure
                else Verdict.CARRIED_OUT
            ),
        )

    def carried_out(self, rows: Sequence[Row], asked: Asked, *, began: float) -> None:
        """The export was accepted by a run that began then: go on from what it asked for."""
        listed = {row.user_id for row in rows}
        for user_id in [*self.gone_since]:
            if user_id in listed:
                del self.gone_since[user_id]
        for face in asked.faces:
            if face.user_id not in listed:
                self.gone_since.setdefault(face.user_id, began)
        for face in asked.leaving:
            self.gone_since.pop(face.user_id, None)
        self.faces, self.bad, self.first = asked.faces, asked.bad, False
        self.spoiled = asked.spoiled
        self.once_bad |= asked.bad
        self.overdue = asked.bad
        self.of_row.update(asked.of_row)
        for row in asked.bad:
            self.of_row.pop(row, None)

    def refused(self, rows: Sequence[Row]) -> None:
        """The export was read and refused: who stands in it was there all the same."""
        for row in rows:
            self.gone_since.pop(row.user_id, None)

    def may_miss(self, rows: Sequence[Row]) -> bool:
        """Whether it makes no difference when a run on these is killed: nobody is newly gone, of
        whom nobody could say whether that was written down, and it is not the first."""
        listed = {row.user_id for row in rows}
        gone = {face.user_id for face in self.faces} - listed
        back = self.gone_since.keys() & listed
        return not self.first and not back and gone <= self.gone_since.keys()

    def interrupted(self, asked: Asked, faces: frozenset[Face]) -> None:
        """A run that was asked for this was killed, and left these faces in the library."""
        self.faces = faces
        self.once_bad |= asked.bad
        self.overdue |= asked.of_row.keys() | asked.bad
        self.of_row.update({row: face for row, face in asked.of_row.items() if face in faces})

    def _face(self, row: Row, photos: Mapping[str, Photo]) -> Face | None:
        """The face that a row stands for, None when it can have none."""
        photo = photos.get(row.image)
        if not (_USER_ID.fullmatch(row.user_id) and len(row.user_data) <= USER_DATA_MOST):
            return None
        if photo is not None and photo.face is not None:
            return Face(row.user_id, row.user_data, photo.face)
        if not _there(photos, row):
            # Nothing was seen that is wrong with the face that this row has.
            before = self.of_row.get((row.user_id, row.image))
            if before in self.faces and before.user_data == row.user_data:
                return before
        return None

    def _dropped(self, asked: Asked) -> int:
        """How many faces of listed people go without one in their place."""
        count = 0
        for user_id, held in _by_person(self.faces).items():
            if user_id in asked.wanted and user_id not in asked.kept:
                wanted = asked.wanted[user_id]
                count += max(len(held - wanted) - len(wanted - held), 0)
        return count


def _there(photos: Mapping[str, Photo], row: Row) -> bool:
    return row.image in photos and photos[row.image].content is not None


def _by_person(faces: Iterable[Face]) -> dict[str, set[Face]]:
    found: dict[str, set[Face]] = defaultdict(set)
    for face in faces:
        found[face.user_id].add(face)
    return found


def _most(given: int | None, percent: int, people: int, least: int) -> int:
    return max(people * percent // 100, least) if given is None else given
